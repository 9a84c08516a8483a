package meta

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"google.golang.org/protobuf/proto"

	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// world is a small registry around a real State: clients that push, requests
// that pause and wake up late, a store that is a map. world_gc_test.go has its collector of garbage,
// world_restore_test.go its backups and a second cluster that is restored from one, world_check_test.go what must
// always hold. Everything that happens is drawn from one seed.
type world struct {
	*bucket
	t     testing.TB
	rng   *rand.Rand
	state *State
	index uint64
	// cluster and epoch are the cluster's own.
	cluster, epoch string
	// stride is the distance of log indexes, 0 for 1: Raft has entries of its own between ours.
	stride uint64
	clock  int64
	log    []LogEntry

	pushes   []*pushing
	attempts []*writing
	// writes are storage calls in flight: they may land at any later time, or never.
	writes []func()
	// commits are proposals whose storage work is done.
	commits []*metav1.CommitUpload
	collector
	clients
	remembered
	// broken is the rule that this world leaves out, or "".
	broken string
	names  int
}

// pushing is one upload of one content.
type pushing struct {
	id, repository string
	content        []byte
	multipart      bool
}

// writing is one attempt.
type writing struct {
	p      *pushing
	name   string
	row    *metav1.Upload
	rev    uint64
	base   int32
	chunk  []byte
	landed bool
	n      int
}

var worldContents = [][]byte{[]byte("abcdef"), []byte("ABCDEFGH"), []byte("12345")}

func newWorld(t testing.TB, seed uint64, broken string) *world {
	store := &bucket{objects: map[string][]byte{}, parts: map[string]map[int32][]byte{}, dates: map[string]int64{},
		given: map[string]bool{}, seen: map[string]int{}, mark: ownerMark{cluster: "c"}}
	w := &world{
		bucket: store, t: t, rng: rand.New(rand.NewPCG(seed, 7)), state: newState(t), broken: broken, cluster: "c", epoch: "e1",
	}
	w.begun()
	w.propose(&metav1.Command{Kind: &metav1.Command_OpenTerm{OpenTerm: &metav1.OpenTerm{Term: 1, Settings: worldSettings()}}},
		&metav1.Command{Kind: &metav1.Command_InitCluster{InitCluster: &metav1.InitCluster{ClusterId: w.cluster, Epoch: w.epoch, Version: NewestVersion}}})
	return w
}

// begun makes the memories of a world that has none.
func (w *world) begun() {
	w.state.decide = w.decide
	w.clients = clients{told: map[string]promise{}, here: map[string]bool{}, gone: map[string]int64{}, lived: map[string]bool{}, urls: map[string]int64{}}
}

// worldSettings are short, so that graces and delays run out among the steps of everything else.
func worldSettings() *metav1.Settings {
	s := DefaultSettings()
	s.Grace, s.DeleteDelay, s.UploadLifetime = 200*second, 400*second, hour
	return s
}

// propose applies commands as one entry.
func (w *world) propose(cs ...*metav1.Command) []*metav1.Result {
	entry := &metav1.Entry{Format: 1, ClusterTime: w.clock, WallTime: w.clock, Commands: cs}
	data, err := proto.Marshal(entry)
	if err != nil {
		w.t.Fatal(err)
	}
	w.index += max(w.stride, 1)
	e := LogEntry{Index: w.index, Term: 1, Data: data}
	w.log = append(w.log, e)
	results, err := w.state.Apply([]LogEntry{e})
	if err != nil {
		w.t.Fatal(err)
	}
	for i, r := range results[0] {
		w.note(cs[i], r)
		if r.GetRefusal().GetKind() == metav1.Kind_KIND_INTERNAL {
			w.t.Fatalf("panic at %d: %v", w.index, r)
		}
	}
	return results[0]
}

// note counts what happened, so that a test can see that the rules were asked.
func (w *world) note(c *metav1.Command, r *metav1.Result) {
	w.seen[r.GetRefusal().GetKind().String()]++
	if n := r.GetCount().GetRows(); r.GetRefusal() == nil && n > 0 {
		w.seen[kindName(c)] += int(n)
	} else if r.GetRefusal() == nil && r.GetCount() == nil {
		w.seen[kindName(c)]++
	}
}

func (w *world) one(c *metav1.Command) (*metav1.Result, bool) {
	r := w.propose(c)[0]
	return r, r.GetRefusal() == nil
}

func (w *world) name() string {
	w.names++
	return fmt.Sprintf("a%d", w.names)
}

func (w *world) row(id string) *metav1.Upload {
	v := w.state.View()
	defer v.Close()
	return v.upload(id)
}

// step lets one thing happen, in this cluster or in the one that was restored from it.
func (w *world) step() {
	if w.second != nil && (w.halted || w.rng.IntN(3) == 0) {
		if w.halted && w.rng.IntN(10) == 0 {
			w.restore()
			return
		}
		w.second.step()
		return
	}
	if w.halted {
		w.restore()
		return
	}
	w.pass(w.rng.Int64N(10 * second))
	if w.rng.IntN(10) < 4 {
		w.remember()
		return
	}
	pick := w.rng.IntN(1000)
	switch {
	case pick < 40:
		w.open()
	case pick < 140:
		w.begin()
	case pick < 420:
		w.advance()
	case pick < 640:
		w.land()
	case pick < 740:
		w.finish()
	case pick < 840:
		w.commit()
	case pick < 850:
		w.cancel()
	case pick < 853:
		w.expire()
	case pick < 890:
		w.push()
	case pick < 960:
		w.putManifest()
	case pick < 975:
		w.mount()
	default:
		w.remove()
	}
}

func (w *world) open() {
	p := &pushing{
		id: fmt.Sprintf("%032x", w.rng.Uint64()), repository: fmt.Sprintf("r%d", w.rng.IntN(2)),
		content: worldContents[w.rng.IntN(len(worldContents))], multipart: w.rng.IntN(2) == 0,
	}
	if len(w.pushes) > 0 && w.rng.IntN(5) == 0 {
		// A late copy of an old request, or a colliding id.
		p.id = w.pushes[w.rng.IntN(len(w.pushes))].id
	}
	if w.broken == "B6" {
		p.multipart = false
	}
	if w.broken != "G1" {
		if _, ok := w.one(w.opening(p)); !ok {
			return
		}
	}
	w.pushes = append(w.pushes, p)
	if w.broken == "G1" {
		// Bytes first: the whole object is put before the ledger hears of it.
		a := &writing{p: p, name: w.name()}
		key := w.key(a)
		w.write(key, bytes.Clone(p.content))
		w.commits = append(w.commits, &metav1.CommitUpload{Id: p.id, Repository: p.repository,
			Digest: digestOf(string(p.content)).Bytes(), Size: int64(len(p.content)), Key: key})
	}
}

func (w *world) opening(p *pushing) *metav1.Command {
	return &metav1.Command{Kind: &metav1.Command_OpenUpload{OpenUpload: &metav1.OpenUpload{
		Id: p.id, Repository: p.repository, Algorithm: uint32(SHA256), Store: "main",
	}}}
}

// key names the next object of an attempt. Without B6 all attempts share one;
// without G5 names are used again.
func (w *world) key(a *writing) string {
	name := a.name
	if a.n > 0 {
		name = fmt.Sprintf("%s.%d", name, a.n)
	}
	return w.epoch + "/" + a.p.id + "/" + name
}

// begin starts an attempt: a request that writes an upload from where it is.
func (w *world) begin() {
	if len(w.pushes) == 0 || w.broken == "G1" {
		return
	}
	p := w.pushes[len(w.pushes)-1-w.rng.IntN(min(len(w.pushes), 4))]
	row := w.row(p.id)
	if row == nil || row.GetOutcome() != 0 || row.GetOffset() >= int64(len(p.content)) || w.clock >= row.GetExpires() {
		return
	}
	a := &writing{p: p, name: w.name(), row: row, rev: row.GetRevision(), base: 1}
	switch w.broken {
	case "B6":
		a.name = "x"
	case "G5":
		a.name = "same"
	}
	if row.GetOffset() > 0 && w.broken != "B6" && a.name != row.GetAttempt() {
		r, ok := w.one(&metav1.Command{Kind: &metav1.Command_TakeUpload{TakeUpload: &metav1.TakeUpload{
			Id: p.id, Repository: p.repository, Revision: row.GetRevision(), Attempt: a.name, Reserve: 4,
		}}})
		if !ok {
			return
		}
		a.rev, a.base = r.GetUpload().GetRevision(), r.GetUpload().GetPartBase()
	}
	w.attempts = append(w.attempts, a)
}

// advance lets an attempt go on: send a chunk to the store, or save what has landed. It
// may be any attempt ever made: those that paused wake up late.
func (w *world) advance() {
	if len(w.attempts) == 0 {
		return
	}
	a := w.attempts[len(w.attempts)-1-w.rng.IntN(min(len(w.attempts), 5))]
	switch {
	case a.chunk == nil:
		w.send(a)
	case a.landed:
		w.save(a)
	}
}

func (w *world) send(a *writing) {
	from := a.row.GetOffset()
	rest := a.p.content[from:]
	if len(rest) == 0 {
		return
	}
	n := len(rest)
	if w.rng.IntN(2) == 0 {
		n = 1 + w.rng.IntN(n)
	}
	a.chunk, a.landed = bytes.Clone(rest[:n]), false
	if a.p.multipart {
		w.sendPart(a)
		return
	}
	key, data := w.key(a), a.chunk
	if w.broken == "B6" {
		data = a.p.content[:from+int64(len(a.chunk))]
	}
	w.writes = append(w.writes, func() {
		w.write(key, data)
		a.landed = true
	})
}

func (w *world) sendPart(a *writing) {
	if a.row.GetMultipartId() == "" {
		a.row.MultipartKey, a.row.MultipartId = w.key(a), w.name()
		w.parts[a.row.GetMultipartKey()+" "+a.row.GetMultipartId()] = map[int32][]byte{}
	}
	upload, number, data := a.row.GetMultipartKey()+" "+a.row.GetMultipartId(), w.partNumber(a), a.chunk
	w.writes = append(w.writes, func() {
		if m := w.parts[upload]; m != nil {
			m[number] = data
			a.landed = true
		}
	})
}

func (w *world) partNumber(a *writing) int32 {
	number := a.base
	if n := len(a.row.GetParts()); n > 0 {
		number = max(number, a.row.GetParts()[n-1].GetNumber()+1)
	}
	return number
}

func (w *world) save(a *writing) {
	row := a.row
	c := &metav1.SaveUpload{
		Id: a.p.id, Repository: a.p.repository, Revision: a.rev, Attempt: a.name, Offset: row.GetOffset() + int64(len(a.chunk)),
		MultipartKey: row.GetMultipartKey(), MultipartId: row.GetMultipartId(), Pieces: row.GetPieces(), Reserve: 4,
	}
	switch {
	case a.p.multipart:
		c.Parts = []*metav1.Part{{Number: w.partNumber(a), Size: int64(len(a.chunk)), Etag: string(a.chunk)}}
	case w.broken == "B6":
		c.Pieces = []*metav1.Piece{{Key: w.key(a), Size: c.GetOffset()}}
	default:
		c.Pieces = append(c.Pieces[:len(c.Pieces):len(c.Pieces)], &metav1.Piece{Key: w.key(a), Size: int64(len(a.chunk))})
	}
	a.chunk, a.landed = nil, false
	r, ok := w.one(&metav1.Command{Kind: &metav1.Command_SaveUpload{SaveUpload: c}})
	if !ok {
		return
	}
	a.n++
	a.rev, a.base = r.GetUpload().GetRevision(), r.GetUpload().GetPartBase()
	row.Offset, row.Pieces, row.Parts = c.GetOffset(), c.GetPieces(), append(row.Parts, c.GetParts()...)
	if w.broken == "B6" {
		a.n = 0
	}
}

// land lets a storage call in flight take effect, however old it is.
func (w *world) land() {
	if len(w.writes) == 0 {
		return
	}
	i := len(w.writes) - 1
	if w.rng.IntN(3) == 0 {
		i = w.rng.IntN(len(w.writes))
	}
	fn := w.writes[i]
	w.writes = append(w.writes[:i], w.writes[i+1:]...)
	fn()
}

// finish makes one object of a whole upload, as the ledger has it now.
func (w *world) finish() {
	if len(w.pushes) == 0 || w.broken == "G1" {
		return
	}
	p := w.pushes[len(w.pushes)-1-w.rng.IntN(min(len(w.pushes), 4))]
	row := w.row(p.id)
	if row == nil || row.GetOutcome() != 0 || row.GetOffset() != int64(len(p.content)) {
		return
	}
	c := &metav1.CommitUpload{Id: p.id, Repository: p.repository, Revision: row.GetRevision(),
		Digest: digestOf(string(p.content)).Bytes(), Size: row.GetOffset()}
	if !w.finished(p, row, c) || int64(len(w.objects[c.GetKey()])) != c.GetSize() {
		return
	}
	w.commits = append(w.commits, c)
}

func (w *world) finished(p *pushing, row *metav1.Upload, c *metav1.CommitUpload) bool {
	switch {
	case row.GetMultipartId() != "":
		c.Key, c.Completed = row.GetMultipartKey(), true
		upload := row.GetMultipartKey() + " " + row.GetMultipartId()
		m := w.parts[upload]
		if m == nil {
			// Completed before, without having been heard of: the length is checked above.
			return true
		}
		var whole []byte
		for _, part := range row.GetParts() {
			if string(m[part.GetNumber()]) != part.GetEtag() {
				return false
			}
			whole = append(whole, m[part.GetNumber()]...)
		}
		delete(w.parts, upload)
		w.write(c.GetKey(), whole)
	case len(row.GetPieces()) == 1:
		c.Key = row.GetPieces()[0].GetKey()
	default:
		var whole []byte
		for _, piece := range row.GetPieces() {
			whole = append(whole, w.objects[piece.GetKey()]...)
		}
		if digestOf(string(whole)) != Digest(c.GetDigest()) {
			return false
		}
		c.Key = w.epoch + "/" + p.id + "/" + w.name()
		w.write(c.GetKey(), whole)
	}
	return true
}

// commit proposes a finished upload, however long ago it was finished.
func (w *world) commit() {
	if len(w.commits) == 0 {
		return
	}
	i := w.rng.IntN(len(w.commits))
	c := w.commits[i]
	w.commits = append(w.commits[:i], w.commits[i+1:]...)
	if w.broken == "G1" {
		r, ok := w.one(w.opening(&pushing{id: c.GetId(), repository: c.GetRepository()}))
		if !ok {
			return
		}
		c.Revision = r.GetUpload().GetRevision()
	}
	if _, ok := w.one(&metav1.Command{Kind: &metav1.Command_CommitUpload{CommitUpload: c}}); ok {
		w.promise(c.GetRepository(), Digest(c.GetDigest()), false, w.clock+worldSettings().GetGrace())
	}
}

func (w *world) cancel() {
	if len(w.pushes) == 0 {
		return
	}
	p := w.pushes[len(w.pushes)-1-w.rng.IntN(min(len(w.pushes), 8))]
	w.one(&metav1.Command{Kind: &metav1.Command_CancelUpload{CancelUpload: &metav1.CancelUpload{Id: p.id, Repository: p.repository}}})
}

// expire lets a long time pass, and the duty come by.
func (w *world) expire() {
	w.pass(w.rng.Int64N(3 * hour))
	c := &metav1.ExpireUploads{}
	for _, p := range w.pushes {
		c.Ids = append(c.Ids, p.id)
	}
	if len(c.Ids) <= maxStep {
		w.one(&metav1.Command{Kind: &metav1.Command_ExpireUploads{ExpireUploads: c}})
	}
}
