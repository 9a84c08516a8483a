package meta

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// world is a small registry around a real State: clients that push, requests
// that pause and wake up late, a store that is a map, a sweeper of condemned keys and one of
// orphans. Everything that happens is drawn from one seed.
type world struct {
	t     testing.TB
	rng   *rand.Rand
	state *State
	index uint64
	// stride is the distance of log indexes, 0 for 1: Raft has entries of its own between ours.
	stride uint64
	clock  int64
	log    []LogEntry

	objects map[string][]byte
	// parts of open multipart uploads, by "key id".
	parts map[string]map[int32][]byte

	pushes   []*pushing
	attempts []*writing
	// writes are storage calls in flight: they may land at any later time, or never.
	writes []func()
	// commits are proposals whose storage work is done.
	commits []*metav1.CommitUpload
	// doomed are keys that the sweeper has read from the ledger and will delete.
	doomed []string

	// broken is the rule that this world leaves out, or "".
	broken string
	names  int
	// refused counts refusals by kind, so that a test can see that the rules were asked.
	refused map[metav1.Kind]int
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
	w := &world{
		t: t, rng: rand.New(rand.NewPCG(seed, 7)), state: newState(t), broken: broken,
		objects: map[string][]byte{}, parts: map[string]map[int32][]byte{}, refused: map[metav1.Kind]int{},
	}
	w.state.decide = w.decide
	settings := DefaultSettings()
	w.propose(&metav1.Command{Kind: &metav1.Command_OpenTerm{OpenTerm: &metav1.OpenTerm{Term: 1, Settings: settings}}},
		&metav1.Command{Kind: &metav1.Command_InitCluster{InitCluster: &metav1.InitCluster{ClusterId: "c", Epoch: "e1", Version: 1}}})
	return w
}

// decide is the real decision, with one rule left out.
func (w *world) decide(t *txn, c *metav1.Command) (*metav1.Result, error) {
	switch k := c.GetKind().(type) {
	case *metav1.Command_PutManifest:
		if w.broken == "G4" {
			t.system = proto.CloneOf(t.system)
			t.system.Settings.SparseImages = true
		}
	case *metav1.Command_OpenUpload:
		if w.broken == "G5" {
			// Forget all that would remember the id and its keys.
			t.del(nameKey(nil, rangeUpload, k.OpenUpload.GetId()))
			prefix := append(nameKey(nil, rangeObject, "main"), "e1/"+k.OpenUpload.GetId()...)
			t.scan(prefix, nil, func(key, _ []byte) bool { t.buf.del(key); return true })
		}
	case *metav1.Command_CommitUpload:
		result, err := t.judge(c)
		if w.broken == "G2" && err != nil {
			t.buf.writes = map[string]write{}
			d, m := Digest(k.CommitUpload.GetDigest()), k.CommitUpload
			t.put(digestKey(nil, rangeBlob, d), &metav1.Blob{Size: m.GetSize(), Store: "main", Key: m.GetKey()})
			t.ensureRepository(m.GetRepository())
			t.link(m.GetRepository(), d, m.GetSize())
			return nil, nil
		}
		return result, err
	}
	return t.judge(c)
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
	for _, r := range results[0] {
		w.refused[r.GetRefusal().GetKind()]++
		if r.GetRefusal().GetKind() == metav1.Kind_KIND_INTERNAL {
			w.t.Fatalf("panic at %d: %v", w.index, r)
		}
	}
	return results[0]
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

// step lets one thing happen.
func (w *world) step() {
	w.clock += w.rng.Int64N(10 * second)
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
	case pick < 880:
		w.sweep()
	case pick < 900:
		w.sweepOrphans()
	case pick < 970:
		w.putManifest()
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
		w.objects[key] = bytes.Clone(p.content)
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
	return "e1/" + a.p.id + "/" + name
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
		w.objects[key] = data
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
		w.objects[c.GetKey()] = whole
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
		c.Key = "e1/" + p.id + "/" + w.name()
		w.objects[c.GetKey()] = whole
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
	w.one(&metav1.Command{Kind: &metav1.Command_CommitUpload{CommitUpload: c}})
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
	w.clock += w.rng.Int64N(int64(26 * hour))
	c := &metav1.ExpireUploads{}
	for _, p := range w.pushes {
		c.Ids = append(c.Ids, p.id)
	}
	if len(c.Ids) <= maxStep {
		w.one(&metav1.Command{Kind: &metav1.Command_ExpireUploads{ExpireUploads: c}})
	}
}

// sweep reads condemned keys whose time has come, or deletes what it read before.
func (w *world) sweep() {
	if len(w.doomed) > 0 && w.rng.IntN(2) == 0 {
		for _, key := range w.doomed {
			delete(w.objects, key)
			for upload := range w.parts {
				if strings.HasPrefix(upload, key+" ") {
					delete(w.parts, upload)
				}
			}
		}
		w.doomed = nil
		return
	}
	v := w.state.View()
	defer v.Close()
	prefix := nameKey(nil, rangeObject, "main")
	v.scan(prefix, nil, func(k, value []byte) bool {
		var row metav1.Object
		if v.decode(k, value, &row) && row.GetCondemned() != nil && v.ClusterTime() >= row.GetCondemned().GetNotBefore() {
			key, _ := cutName(k[len(prefix):])
			w.doomed = append(w.doomed, key)
		}
		return true
	})
}

// sweepOrphans lists the store first, then reads the ledger (G7), then deletes
// what the ledger does not know and no open upload can still name.
func (w *world) sweepOrphans() {
	v := w.state.View()
	defer v.Close()
	for key := range w.objects {
		id := strings.Split(key, "/")[1]
		u := v.upload(id)
		open := u != nil && u.GetOutcome() == 0 && v.ClusterTime() < u.GetExpires()
		if v.object("main", key) == nil && !open {
			delete(w.objects, key)
		}
	}
}

func (w *world) putManifest() {
	var blobs [][]byte
	text := ""
	for _, c := range worldContents {
		if w.rng.IntN(2) == 0 {
			blobs = append(blobs, digestOf(string(c)).Bytes())
			text += string(c)
		}
	}
	w.one(&metav1.Command{Kind: &metav1.Command_PutManifest{PutManifest: &metav1.PutManifest{
		Repository: fmt.Sprintf("r%d", w.rng.IntN(2)), Digest: digestOf("manifest " + text).Bytes(), MediaType: MediaTypeImage,
		Body: []byte("{" + text + "}"), Size: int64(len(text) + 2), Blobs: blobs, Tags: []string{fmt.Sprintf("t%d", w.rng.IntN(4))},
	}}})
}

// remove deletes a manifest, a tag or a blob.
func (w *world) remove() {
	repository := fmt.Sprintf("r%d", w.rng.IntN(2))
	v := w.state.View()
	manifests, _, _ := v.Manifests(repository, "", 100)
	v.Close()
	switch w.rng.IntN(4) {
	case 0:
		if len(manifests) > 0 {
			d := manifests[w.rng.IntN(len(manifests))].Digest
			w.one(&metav1.Command{Kind: &metav1.Command_DeleteManifest{DeleteManifest: &metav1.DeleteManifest{Repository: repository, Digest: d.Bytes()}}})
		}
	case 1:
		w.one(&metav1.Command{Kind: &metav1.Command_DeleteTag{DeleteTag: &metav1.DeleteTag{Repository: repository, Tag: fmt.Sprintf("t%d", w.rng.IntN(4))}}})
	case 2:
		d := digestOf(string(worldContents[w.rng.IntN(len(worldContents))]))
		w.one(&metav1.Command{Kind: &metav1.Command_DeleteBlob{DeleteBlob: &metav1.DeleteBlob{Repository: repository, Digest: d.Bytes()}}})
	case 3:
		if w.rng.IntN(8) == 0 {
			w.one(&metav1.Command{Kind: &metav1.Command_DeleteRepository{DeleteRepository: &metav1.DeleteRepository{Repository: repository, Limit: int32(1 + w.rng.IntN(20))}}})
		}
	}
}

// violated answers what is wrong with the world, or "": every manifest has its
// bytes, and so does every blob that is not lost.
func (w *world) violated() string {
	v := w.state.View()
	defer v.Close()
	for _, repository := range []string{"r0", "r1"} {
		prefix := nameKey(nil, rangeManifest, repository)
		bad := ""
		v.scan(prefix, nil, func(k, value []byte) bool {
			var row metav1.Manifest
			v.decode(k, value, &row)
			for _, b := range row.GetBlobs() {
				if bad = w.bytesOf(v, Digest(b)); bad != "" {
					return false
				}
			}
			return true
		})
		if bad != "" {
			return "repository " + repository + ": a manifest names " + bad
		}
	}
	return ""
}

func (w *world) bytesOf(v *View, d Digest) string {
	blob := v.blob(d)
	if blob == nil {
		return fmt.Sprintf("%s, which has no blob", d)
	}
	data, ok := w.objects[blob.GetKey()]
	if !ok {
		return fmt.Sprintf("%s, whose key %s is gone", d, blob.GetKey())
	}
	if digestOf(string(data)) != d {
		return fmt.Sprintf("%s, whose key %s holds %q", d, blob.GetKey(), data)
	}
	return ""
}
