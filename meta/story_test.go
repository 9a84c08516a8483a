package meta

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/pontoon-registry/pontoon/meta/kv"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

var update = flag.Bool("update", false, "rewrite what the stories in testdata expect")

// A story is commands and what they answer, in one file:
//
//	# a comment
//	> command key=value ...      one log entry
//	+ command key=value ...      one more command of the same entry
//	what they answer
//
// "@x" is the sha256 digest of the text x, an upload id is any word, a storage
// key of upload u is written u/attempt. Durations are Go's. A step of an upload
// or a lock names its revision or token as it is, unless the story gives another. "push" is
// open and commit, two entries. What only looks, or moves the clock ("tick"), is no entry.

// TestStories runs every story in testdata.
func TestStories(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no stories: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := tellStory(t, string(text))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != string(text) {
				t.Errorf("the story goes differently (go test -run TestStories -update rewrites it):\n%s", diffLines(string(text), got))
			}
		})
	}
}

func diffLines(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	var out strings.Builder
	for i := range max(len(w), len(g)) {
		var a, b string
		if i < len(w) {
			a = w[i]
		}
		if i < len(g) {
			b = g[i]
		}
		if a != b {
			fmt.Fprintf(&out, "line %d\n  expected %s\n  got      %s\n", i+1, a, b)
		}
	}
	return out.String()
}

// tellStory runs a story and answers it with what really happened.
func tellStory(t *testing.T, text string) string {
	t.Helper()
	teller := newTeller(t)
	var out strings.Builder
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	for i := 0; i < len(lines); i++ {
		line := lines[i]
		if !strings.HasPrefix(line, "> ") {
			out.WriteString(line + "\n")
			continue
		}
		entry := []string{line[2:]}
		out.WriteString(line + "\n")
		for i+1 < len(lines) && strings.HasPrefix(lines[i+1], "+ ") {
			i++
			entry = append(entry, lines[i][2:])
			out.WriteString(lines[i] + "\n")
		}
		for i+1 < len(lines) && lines[i+1] != "" && lines[i+1][0] != '>' && lines[i+1][0] != '#' {
			i++
		}
		out.WriteString(teller.tell(entry))
	}
	return out.String()
}

// teller runs the lines of one story.
type teller struct {
	t     testing.TB
	state *State
	// stride is the distance of log indexes, 0 for 1.
	index, stride uint64
	clock         int64
	names         map[string]string
	log           []LogEntry
}

func newTeller(t *testing.T) *teller {
	s := &teller{t: t, state: newState(t), names: map[string]string{}}
	return s
}

// newState answers an empty state that is closed with the test.
func newState(t testing.TB) *State {
	t.Helper()
	store, err := kv.OpenMemory()
	if err != nil {
		t.Fatal(err)
	}
	state, err := Open(store)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := state.Close(); err != nil {
			t.Error(err)
		}
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return state
}

func digestOf(text string) Digest {
	sum := sha256.Sum256([]byte(text))
	d, err := PackDigest(SHA256, sum[:])
	if err != nil {
		panic(err)
	}
	return d
}

// args are the key=value words of one command.
type args struct {
	s *teller
	m map[string]string
}

func (s *teller) words(line string) (string, args) {
	f := strings.Fields(line)
	a := args{s: s, m: map[string]string{}}
	for _, w := range f[1:] {
		k, v, _ := strings.Cut(w, "=")
		a.m[k] = v
	}
	return f[0], a
}

func (a args) str(k string) string { return a.m[k] }

func (a args) num(k string) int64 {
	if a.m[k] == "" {
		return 0
	}
	n, err := strconv.ParseInt(a.m[k], 10, 64)
	if err != nil {
		a.s.t.Fatalf("%s=%s: %v", k, a.m[k], err)
	}
	return n
}

// rev is the revision that a step names: the upload's own unless the story says another.
func (a args) rev() uint64 {
	if a.flag("rev") {
		return uint64(a.num("rev"))
	}
	v := a.s.state.View()
	defer v.Close()
	return v.upload(a.id("id")).GetRevision()
}

// token is the token that a step names: the lock's own unless the story says another.
func (a args) token() uint64 {
	if a.flag("token") {
		return uint64(a.num("token"))
	}
	v := a.s.state.View()
	defer v.Close()
	return v.lock(a.str("lock")).GetToken()
}

// cycle is the cycle that a step names: the one that runs unless the story says another.
func (a args) cycle() uint64 {
	if a.flag("cycle") {
		return uint64(a.num("cycle"))
	}
	v := a.s.state.View()
	defer v.Close()
	return v.collection().GetRunning().GetBegun().GetIndex()
}

func (a args) dur(k string) int64 {
	if a.m[k] == "" {
		return 0
	}
	d, err := time.ParseDuration(a.m[k])
	if err != nil {
		a.s.t.Fatalf("%s=%s: %v", k, a.m[k], err)
	}
	return int64(d)
}

// many is a limit, 100 unless the story says one.
func (a args) many(k string) int {
	if !a.flag(k) {
		return 100
	}
	return int(a.num(k))
}

func (a args) flag(k string) bool { _, ok := a.m[k]; return ok }

func (a args) list(k string) []string {
	if a.m[k] == "" {
		return nil
	}
	return strings.Split(a.m[k], ",")
}

func (s *teller) digest(name string) Digest {
	if name == "" {
		return ""
	}
	d := digestOf(strings.TrimPrefix(name, "@"))
	s.names[d.String()] = name
	return d
}

func (a args) dig(k string) Digest { return a.s.digest(a.m[k]) }

func (a args) digs(k string) (out [][]byte) {
	for _, n := range a.list(k) {
		out = append(out, a.s.digest(n).Bytes())
	}
	return out
}

// id makes an upload id of a word.
func (s *teller) id(name string) string {
	sum := sha256.Sum256([]byte("upload " + name))
	id := hex.EncodeToString(sum[:16])
	s.names[id] = name
	return id
}

func (a args) id(k string) string { return a.s.id(a.m[k]) }

func (s *teller) key(name string) string {
	if name == "" {
		return ""
	}
	u, attempt, ok := strings.Cut(name, "/")
	if !ok {
		return name
	}
	return "e1/" + s.id(u) + "/" + attempt
}

// shown puts the story's words in place of digests and ids.
func (s *teller) shown(text string) string {
	long := make([]string, 0, len(s.names))
	for k := range s.names {
		long = append(long, k)
	}
	sort.Strings(long)
	for _, k := range long {
		text = strings.ReplaceAll(text, "e1/"+k+"/", s.names[k]+"/")
		text = strings.ReplaceAll(text, k, s.names[k])
	}
	return text
}

// tell runs one entry and answers what happened, a line for each command.
func (s *teller) tell(lines []string) string {
	if len(lines) == 1 {
		if out, ok := s.look(lines[0]); ok {
			return s.shown(out)
		}
		if rest, ok := strings.CutPrefix(lines[0], "push "); ok {
			_, a := s.words("push " + rest)
			s.tell([]string{"open " + rest})
			return s.tell([]string{"commit at=" + a.str("id") + "/a " + rest})
		}
	}
	entry := &metav1.Entry{Format: 1, ClusterTime: s.clock, WallTime: 1_000_000_000 + s.clock}
	for _, line := range lines {
		entry.Commands = append(entry.Commands, s.command(line))
	}
	data, err := proto.Marshal(entry)
	if err != nil {
		s.t.Fatal(err)
	}
	e := LogEntry{Index: s.index + max(s.stride, 1), Term: 1, Data: data}
	results, err := s.state.Apply([]LogEntry{e})
	if err == nil {
		s.index = e.Index
		s.log = append(s.log, e)
	}
	if err != nil {
		return s.shown(fmt.Sprintf("stop: %v\n", err))
	}
	var out strings.Builder
	for _, r := range results[0] {
		out.WriteString(showResult(r) + "\n")
	}
	return s.shown(out.String())
}

func showResult(r *metav1.Result) string {
	if f := r.GetRefusal(); f != nil {
		out := fmt.Sprintf("%s %s: %s",
			strings.ToLower(strings.TrimPrefix(f.GetKind().String(), "KIND_")),
			strings.ToLower(strings.TrimPrefix(f.GetNoun().String(), "NOUN_")), f.GetMessage())
		if len(f.GetNames()) > 0 {
			out += " " + fmt.Sprint(f.GetNames())
		}
		if f.GetCurrent() != "" {
			out += " current=" + f.GetCurrent()
		}
		return out
	}
	out := fmt.Sprintf("ok at %d", r.GetIndex())
	if n := r.GetCount().GetBytes(); n > 0 {
		out += fmt.Sprintf(" bytes=%d", n)
	}
	switch v := r.GetValue().(type) {
	case *metav1.Result_Upload:
		out += fmt.Sprintf(" revision=%d base=%d", v.Upload.GetRevision(), v.Upload.GetPartBase())
	case *metav1.Result_Blob:
		out += fmt.Sprintf(" size=%d", v.Blob.GetSize())
	case *metav1.Result_Manifest:
		out += fmt.Sprintf(" created=%t", v.Manifest.GetCreated())
	case *metav1.Result_Lock:
		out += fmt.Sprintf(" token=%d expires=%s", v.Lock.GetToken(), time.Duration(v.Lock.GetExpires()))
	case *metav1.Result_Count:
		out += fmt.Sprintf(" rows=%d more=%t", v.Count.GetRows(), v.Count.GetMore())
	}
	return out
}

// command makes the command of one line. "from=node/boot/seq/lowest" gives it an origin.
func (s *teller) command(line string) *metav1.Command {
	name, a := s.words(line)
	c := &metav1.Command{Envelope: &metav1.Envelope{
		Actor: &metav1.Actor{Name: "alice", Method: "htpasswd"}, ClientAddress: "192.0.2.7:1234", RequestId: "r", NodeId: "n1",
	}}
	if f := strings.Split(a.str("from"), "/"); len(f) == 4 {
		seq, _ := strconv.ParseUint(f[2], 10, 64)
		low, _ := strconv.ParseUint(f[3], 10, 64)
		c.Envelope.Origin = &metav1.Origin{NodeId: f[0], BootId: f[1], Sequence: seq, LowestOutstanding: low}
	}
	make, ok := storyCommands[name]
	if !ok {
		s.t.Fatalf("unknown command %q", line)
	}
	make(c, a)
	return c
}

var storyCommands = map[string]func(*metav1.Command, args){
	"init": func(c *metav1.Command, a args) {
		c.Kind = &metav1.Command_InitCluster{InitCluster: &metav1.InitCluster{ClusterId: "c1", Epoch: "e1", Incarnation: 1, Version: uint32(max(a.num("version"), 1)), Name: a.str("name")}}
	},
	"term": func(c *metav1.Command, a args) {
		o := &metav1.OpenTerm{Term: uint64(a.num("n")), NodeId: "n1"}
		if !a.flag("bare") {
			o.Settings = DefaultSettings()
			o.Settings.SparseImages, o.Settings.SparseIndexes = a.flag("sparse"), a.flag("sparse")
			if a.flag("grace") {
				o.Settings.Grace = a.dur("grace")
			}
		}
		c.Kind = &metav1.Command_OpenTerm{OpenTerm: o}
	},
	"origin": func(c *metav1.Command, a args) {
		c.Kind = &metav1.Command_RegisterOrigin{RegisterOrigin: &metav1.RegisterOrigin{NodeId: a.str("node"), BootId: a.str("boot")}}
	},
	"put-node": func(c *metav1.Command, a args) {
		c.Kind = &metav1.Command_PutNode{PutNode: &metav1.PutNode{Node: &metav1.Node{Id: a.str("id"), Address: a.str("address"), CertificateName: a.str("cert"),
			MinVersion: uint32(a.num("min")), MaxVersion: uint32(a.num("max"))}}}
	},
	"raise-version": func(c *metav1.Command, a args) {
		c.Kind = &metav1.Command_RaiseVersion{RaiseVersion: &metav1.RaiseVersion{Version: uint32(a.num("to"))}}
	},
	"raise-incarnation": func(c *metav1.Command, a args) {
		c.Kind = &metav1.Command_RaiseIncarnation{RaiseIncarnation: &metav1.RaiseIncarnation{Incarnation: uint64(a.num("to")), NodeId: a.str("node"), Life: a.str("life")}}
	},
	"remove-node": func(c *metav1.Command, a args) {
		c.Kind = &metav1.Command_RemoveNode{RemoveNode: &metav1.RemoveNode{Id: a.str("id")}}
	},
	"open": func(c *metav1.Command, a args) {
		c.Kind = &metav1.Command_OpenUpload{OpenUpload: &metav1.OpenUpload{Repository: a.str("repo"), Id: a.id("id"), Algorithm: 1, Store: "main"}}
	},
	"take": func(c *metav1.Command, a args) {
		c.Kind = &metav1.Command_TakeUpload{TakeUpload: &metav1.TakeUpload{Id: a.id("id"), Repository: a.str("repo"), Revision: a.rev(), Attempt: a.str("attempt"), Reserve: int32(a.num("reserve"))}}
	},
	"save": func(c *metav1.Command, a args) {
		s := &metav1.SaveUpload{Id: a.id("id"), Repository: a.str("repo"), Revision: a.rev(), Attempt: a.str("attempt"),
			Offset: a.num("offset"), HashState: []byte("h"), MultipartKey: a.s.key(a.str("key")), MultipartId: a.str("multipart"), Reserve: int32(a.num("reserve"))}
		for _, p := range a.list("parts") {
			number, size, _ := strings.Cut(p, ":")
			n, _ := strconv.Atoi(number)
			z, _ := strconv.Atoi(size)
			s.Parts = append(s.Parts, &metav1.Part{Number: int32(n), Size: int64(z), Etag: "t" + number})
		}
		for _, p := range a.list("pieces") {
			key, size, _ := strings.Cut(p, ":")
			z, _ := strconv.Atoi(size)
			s.Pieces = append(s.Pieces, &metav1.Piece{Key: a.s.key(key), Size: int64(z)})
		}
		c.Kind = &metav1.Command_SaveUpload{SaveUpload: s}
	},
	"commit": func(c *metav1.Command, a args) {
		c.Kind = &metav1.Command_CommitUpload{CommitUpload: a.commit("digest")}
	},
	"cancel": func(c *metav1.Command, a args) {
		c.Kind = &metav1.Command_CancelUpload{CancelUpload: &metav1.CancelUpload{Id: a.id("id"), Repository: a.str("repo")}}
	},
	"expire": func(c *metav1.Command, a args) {
		e := &metav1.ExpireUploads{}
		for _, n := range a.list("ids") {
			e.Ids = append(e.Ids, a.s.id(n))
		}
		c.Kind = &metav1.Command_ExpireUploads{ExpireUploads: e}
	},
	"mount": func(c *metav1.Command, a args) {
		c.Kind = &metav1.Command_MountBlob{MountBlob: &metav1.MountBlob{Repository: a.str("repo"), From: a.str("source"), Digest: a.dig("digest").Bytes()}}
	},
	"confirm": func(c *metav1.Command, a args) {
		c.Kind = &metav1.Command_ConfirmContent{ConfirmContent: &metav1.ConfirmContent{Repository: a.str("repo"), Blobs: a.digs("blobs"), Manifests: a.digs("manifests")}}
	},
	"delete-blob": func(c *metav1.Command, a args) {
		c.Kind = &metav1.Command_DeleteBlob{DeleteBlob: &metav1.DeleteBlob{Repository: a.str("repo"), Digest: a.dig("digest").Bytes()}}
	},
	"lost": func(c *metav1.Command, a args) {
		c.Kind = &metav1.Command_MarkLost{MarkLost: &metav1.MarkLost{Digest: a.dig("digest").Bytes(), Store: "main", Key: a.s.key(a.str("key"))}}
	},
	"put": func(c *metav1.Command, a args) {
		p := &metav1.PutManifest{
			Repository: a.str("repo"), Digest: a.dig("digest").Bytes(), MediaType: MediaTypeImage, Blobs: a.digs("blobs"), Children: a.digs("children"),
			Subject: a.dig("subject").Bytes(), ArtifactType: a.str("type"), Tags: a.list("tags"),
		}
		if a.flag("media") {
			p.MediaType = a.str("media")
		}
		if a.flag("id") {
			p.Upload = a.commit("digest")
			p.Size = p.Upload.GetSize()
		} else {
			p.Body = []byte("body of " + a.str("digest"))
			p.Size = int64(len(p.Body))
		}
		p.Condition = a.condition()
		c.Kind = &metav1.Command_PutManifest{PutManifest: p}
	},
	"delete-manifest": func(c *metav1.Command, a args) {
		c.Kind = &metav1.Command_DeleteManifest{DeleteManifest: &metav1.DeleteManifest{Repository: a.str("repo"), Digest: a.dig("digest").Bytes()}}
	},
	"delete-tag": func(c *metav1.Command, a args) {
		c.Kind = &metav1.Command_DeleteTag{DeleteTag: &metav1.DeleteTag{Repository: a.str("repo"), Tag: a.str("tag"), Condition: a.condition()}}
	},
	"delete-repo": func(c *metav1.Command, a args) {
		c.Kind = &metav1.Command_DeleteRepository{DeleteRepository: &metav1.DeleteRepository{Repository: a.str("repo"), Limit: int32(a.num("limit"))}}
	},
	"pulls": func(c *metav1.Command, a args) {
		c.Kind = &metav1.Command_AddPulls{AddPulls: &metav1.AddPulls{Pulls: []*metav1.PullCount{{Repository: a.str("repo"), Digest: a.dig("digest").Bytes(), Count: a.num("n")}}}}
	},
	"acquire": func(c *metav1.Command, a args) {
		c.Kind = &metav1.Command_AcquireLock{AcquireLock: &metav1.AcquireLock{Name: a.str("lock"), Holder: a.str("holder"), Ttl: a.dur("ttl")}}
	},
	"renew": func(c *metav1.Command, a args) {
		c.Kind = &metav1.Command_RenewLock{RenewLock: &metav1.RenewLock{Name: a.str("lock"), Token: a.token(), Ttl: a.dur("ttl")}}
	},
	"release": func(c *metav1.Command, a args) {
		c.Kind = &metav1.Command_ReleaseLock{ReleaseLock: &metav1.ReleaseLock{Name: a.str("lock"), Token: a.token(), Force: a.flag("force")}}
	},
	"expire-locks": func(c *metav1.Command, a args) {
		c.Kind = &metav1.Command_ExpireLocks{ExpireLocks: &metav1.ExpireLocks{Names: a.list("locks")}}
	},
	"trim": func(c *metav1.Command, a args) {
		c.Kind = &metav1.Command_TrimEvents{TrimEvents: &metav1.TrimEvents{Before: uint64(a.num("before")), Limit: int32(a.num("limit"))}}
	},
	"nothing": func(*metav1.Command, args) {},

	"request-cycle": func(c *metav1.Command, a args) {
		c.Kind = &metav1.Command_RequestCycle{RequestCycle: &metav1.RequestCycle{ForgetEpochs: a.list("forget")}}
	},
	"begin-cycle": func(c *metav1.Command, a args) {
		b := &metav1.BeginCycle{Trigger: metav1.CycleTrigger_CYCLE_TRIGGER_SCHEDULE, Untagged: a.flag("untagged")}
		if a.flag("requested") {
			b.Trigger = metav1.CycleTrigger_CYCLE_TRIGGER_REQUEST
		}
		if a.flag("trigger") {
			b.Trigger = metav1.CycleTrigger(a.num("trigger"))
		}
		c.Kind = &metav1.Command_BeginCycle{BeginCycle: b}
	},
	"advance-cycle": func(c *metav1.Command, a args) {
		adv := &metav1.AdvanceCycle{Cycle: a.cycle(), Phase: metav1.CyclePhase(a.num("phase")), Cursor: []byte(a.str("cursor")),
			Trouble: a.str("trouble"), Outcome: metav1.CycleOutcome(a.num("outcome")), Revision: uint64(a.num("revision"))}
		if a.flag("long") {
			adv.Cursor = make([]byte, a.num("long"))
		}
		if a.flag("deleted") {
			adv.Count = &metav1.CycleCount{DeletedKeys: a.num("deleted")}
		}
		if a.flag("kept") {
			adv.Kept = &metav1.CycleKept{Keys: a.num("kept")}
		}
		c.Kind = &metav1.Command_AdvanceCycle{AdvanceCycle: adv}
	},
	"condemn": func(c *metav1.Command, a args) {
		c.Kind = &metav1.Command_CondemnBlobs{CondemnBlobs: &metav1.CondemnBlobs{Cycle: a.cycle(), Digests: a.digs("blobs")}}
	},
	"delete-untagged": func(c *metav1.Command, a args) {
		c.Kind = &metav1.Command_DeleteUntagged{DeleteUntagged: &metav1.DeleteUntagged{Cycle: a.cycle(), Repository: a.str("repo"), Digests: a.digs("manifests")}}
	},
	"forget": func(c *metav1.Command, a args) {
		f := &metav1.ForgetKeys{Store: "main", Cycle: uint64(a.num("cycle"))}
		for _, k := range a.list("keys") {
			f.Keys = append(f.Keys, a.s.key(k))
		}
		c.Kind = &metav1.Command_ForgetKeys{ForgetKeys: f}
	},
	"open-backup": func(c *metav1.Command, a args) {
		c.Kind = &metav1.Command_OpenBackup{OpenBackup: &metav1.OpenBackup{Id: a.id("id"), Place: a.str("place"), Hold: a.flag("hold")}}
	},
	"complete-backup": func(c *metav1.Command, a args) {
		sum := digestOf("manifest of " + a.str("id"))
		c.Kind = &metav1.Command_CompleteBackup{CompleteBackup: &metav1.CompleteBackup{Id: a.id("id"), Index: uint64(a.num("index")), Term: 1,
			Name: "b/" + a.str("id"), Size: a.num("size"), Sha256: sum.Bytes()[1:]}}
	},
	"retire-backup": func(c *metav1.Command, a args) {
		c.Kind = &metav1.Command_RetireBackup{RetireBackup: &metav1.RetireBackup{Id: a.id("id"), Release: a.flag("release")}}
	},
	"forget-backup": func(c *metav1.Command, a args) {
		c.Kind = &metav1.Command_ForgetBackup{ForgetBackup: &metav1.ForgetBackup{Id: a.id("id")}}
	},
}

func (a args) commit(digest string) *metav1.CommitUpload {
	return &metav1.CommitUpload{Id: a.id("id"), Repository: a.str("repo"), Revision: a.rev(), Digest: a.dig(digest).Bytes(),
		Size: a.num("size"), Key: a.s.key(a.str("at")), Completed: a.flag("completed")}
}

func (a args) condition() *metav1.TagCondition {
	switch {
	case a.flag("if-absent"):
		return &metav1.TagCondition{Absent: true}
	case a.flag("if-match"):
		return &metav1.TagCondition{Digest: a.dig("if-match").Bytes()}
	}
	return nil
}

// look answers what a line looks at; false when it is a command.
func (s *teller) look(line string) (string, bool) {
	name, a := s.words(line)
	if name == "tick" {
		s.clock += a.dur("by")
		return fmt.Sprintf("the clock is at %s\n", time.Duration(s.clock)), true
	}
	fn, ok := storyViews[name]
	if !ok {
		return "", false
	}
	v := s.state.View()
	defer v.Close()
	out, err := fn(v, a)
	if err != nil {
		e := refusalOf(err)
		return showResult(&metav1.Result{Refusal: e}) + "\n", true
	}
	return strings.TrimRight(out, "\n") + "\n", true
}

// refusalOf answers the refusal in err; any other error is a defect of the test.
func refusalOf(err error) *metav1.Refusal {
	var e *Error
	if !errors.As(err, &e) {
		panic(err)
	}
	return e.Proto()
}

func items[T any](rows []T, more bool, show func(T) string) string {
	var out []string
	for _, r := range rows {
		out = append(out, show(r))
	}
	if len(out) == 0 {
		out = []string{"nothing"}
	}
	if more {
		out = append(out, "and more")
	}
	return strings.Join(out, "\n")
}

var storyViews = map[string]func(*View, args) (string, error){
	"tag?": func(v *View, a args) (string, error) {
		row, err := v.Tag(a.str("repo"), a.str("tag"))
		return fmt.Sprintf("%s revision=%d", Digest(row.GetDigest()), row.GetRevision()), err
	},
	"tags?": func(v *View, a args) (string, error) {
		rows, more, err := v.Tags(a.str("repo"), a.str("after"), int(max(a.num("n"), 1)))
		return items(rows, more, func(i TagItem) string { return i.Name }), err
	},
	"tags-of?": func(v *View, a args) (string, error) {
		rows, err := v.TagsOf(a.str("repo"), a.dig("digest"), 100)
		return items(rows, false, func(i string) string { return i }), err
	},
	"manifest?": func(v *View, a args) (string, error) {
		row, err := v.Manifest(a.str("repo"), a.dig("digest"))
		return fmt.Sprintf("pushed=%d confirmed=%s size=%d large=%t", row.GetPushed().GetIndex(), time.Duration(row.GetConfirmed()), row.GetSize(), row.GetLarge()), err
	},
	"manifests?": func(v *View, a args) (string, error) {
		rows, more, err := v.Manifests(a.str("repo"), a.dig("after"), 100)
		return items(rows, more, func(i ManifestItem) string { return i.Digest.String() }), err
	},
	"body?": func(v *View, a args) (string, error) {
		b, err := v.ManifestBody(a.dig("digest"))
		return string(b), err
	},
	"blob?": func(v *View, a args) (string, error) {
		row, err := v.Blob(a.str("repo"), a.dig("digest"))
		return fmt.Sprintf("size=%d key=%s", row.GetSize(), row.GetKey()), err
	},
	"location?": func(v *View, a args) (string, error) {
		row, err := v.BlobLocation(a.dig("digest"))
		return fmt.Sprintf("size=%d key=%s", row.GetSize(), row.GetKey()), err
	},
	"source?": func(v *View, a args) (string, error) {
		return v.MountSource(a.dig("digest"), func(r string) bool { return r != a.str("not") })
	},
	"confirm?": func(v *View, a args) (string, error) {
		need, err := v.NeedsConfirm(a.str("repo"), a.dig("digest"))
		return fmt.Sprint(need), err
	},
	"users?": func(v *View, a args) (string, error) {
		rows, err := v.Users(a.str("repo"), a.dig("digest"), 10)
		return items(rows, false, Digest.String), err
	},
	"referrers?": func(v *View, a args) (string, error) {
		n := 100
		if a.flag("n") {
			n = int(a.num("n"))
		}
		after := ReferrerCursor{ArtifactType: a.str("after-type"), Digest: a.dig("after")}
		rows, more, err := v.Referrers(a.str("repo"), a.dig("subject"), a.str("type"), after, n)
		return items(rows, more, func(i ReferrerItem) string { return fmt.Sprintf("%q %s", i.ArtifactType, i.Digest) }), err
	},
	"repo?": func(v *View, a args) (string, error) {
		row, err := v.Repository(a.str("repo"))
		return fmt.Sprintf("bytes=%d manifests=%d tags=%d", row.GetBytes(), row.GetManifests(), row.GetTags()), err
	},
	"repos?": func(v *View, a args) (string, error) {
		rows, more, err := v.Repositories(a.str("after"), int(max(a.num("n"), 1)))
		return items(rows, more, func(i string) string { return i }), err
	},
	"projects?": func(v *View, _ args) (string, error) {
		rows, more, err := v.Projects("", 100)
		return items(rows, more, func(p Project) string {
			return fmt.Sprintf("%s repositories=%d bytes=%d manifests=%d tags=%d", p.Name, p.GetRepositories(), p.GetBytes(), p.GetManifests(), p.GetTags())
		}), err
	},
	"upload?": func(v *View, a args) (string, error) {
		u, err := v.Upload(a.id("id"))
		var pieces []string
		for _, p := range u.GetPieces() {
			pieces = append(pieces, p.GetKey())
		}
		return fmt.Sprintf("%s revision=%d attempt=%s offset=%d base=%d next=%d parts=%d pieces=%v expires=%s",
			strings.ToLower(strings.TrimPrefix(u.GetOutcome().String(), "UPLOAD_OUTCOME_")), u.GetRevision(), u.GetAttempt(),
			u.GetOffset(), u.GetPartBase(), u.GetNextPart(), len(u.GetParts()), pieces, time.Duration(u.GetExpires())), err
	},
	"uploads?": func(v *View, _ args) (string, error) {
		rows, more, err := v.Uploads("", 100)
		sort.Slice(rows, func(i, j int) bool { return rows[i].GetOpened().GetIndex() < rows[j].GetOpened().GetIndex() })
		return items(rows, more, func(i UploadItem) string { return i.ID }) + fmt.Sprintf("\ncounted %d", v.at.system.GetUploads()), err
	},
	"object?": func(v *View, a args) (string, error) {
		row, err := v.Object("main", a.s.key(a.str("key")))
		switch s := row.GetState().(type) {
		case *metav1.Object_Uploading:
			return "uploading " + s.Uploading.GetUpload(), err
		case *metav1.Object_Live:
			return "live " + Digest(s.Live.GetDigest()).String(), err
		case *metav1.Object_Condemned:
			c := s.Condemned
			return fmt.Sprintf("condemned index=%d not-before=%s size=%d multipart=%v", c.GetIndex(), time.Duration(c.GetNotBefore()), c.GetSize(), c.GetMultipartIds()), err
		}
		return "", err
	},
	"lock?": func(v *View, a args) (string, error) {
		l, err := v.Lock(a.str("lock"))
		return fmt.Sprintf("holder=%s token=%d expires=%s", l.GetHolder(), l.GetToken(), time.Duration(l.GetExpires())), err
	},
	"locks?": func(v *View, _ args) (string, error) {
		rows, more, err := v.Locks("", 100)
		return items(rows, more, func(i LockItem) string { return i.Name + " " + i.GetHolder() }), err
	},
	"cluster?": func(v *View, _ args) (string, error) {
		row, err := v.System()
		out := fmt.Sprintf("version=%d incarnation=%d", row.GetVersion(), row.GetIncarnation())
		if life := row.GetLife(); life != "" {
			out += " life=" + life
		}
		return out, err
	},
	"nodes?": func(v *View, _ args) (string, error) {
		rows, err := v.Nodes()
		return items(rows, false, func(n *metav1.Node) string { return n.GetId() + " " + n.GetAddress() + " " + n.GetCertificateName() }), err
	},
	"events?": func(v *View, a args) (string, error) {
		rows, more, err := v.Events(EventCursor{Index: uint64(a.num("after"))}, 1000)
		return items(rows, more, func(e EventItem) string {
			return fmt.Sprintf("%d.%d %s %s tag=%s %s->%s subject=%s by %s", e.Index, e.N,
				strings.ToLower(strings.TrimPrefix(e.GetAction().String(), "ACTION_")), e.GetRepository(), e.GetTag(),
				Digest(e.GetBefore()), Digest(e.GetAfter()), e.GetSubject(), e.GetActor())
		}), err
	},
	"pulls?": func(v *View, a args) (string, error) {
		p, err := v.Pulls(a.str("repo"), a.dig("digest"))
		return fmt.Sprint(p.GetCount()), err
	},
	"rows?": func(v *View, a args) (string, error) {
		r, err := strconv.ParseUint(a.str("range"), 0, 8)
		if err != nil {
			return "", err
		}
		n := 0
		v.scan([]byte{byte(r)}, nil, func(_, _ []byte) bool { n++; return true })
		return fmt.Sprint(n), v.err
	},
	"collection?": func(v *View, _ args) (string, error) {
		row, err := v.Collection()
		out := fmt.Sprintf("kept=%d", row.GetKept())
		if q := row.GetRequested(); q != nil {
			out += fmt.Sprintf("\nrequested %d to %d forget=%v", q.GetFirst().GetIndex(), q.GetLast().GetIndex(), q.GetForgetEpochs())
		}
		if c := row.GetRunning(); c != nil {
			out += "\nrunning " + showCycle(c)
		}
		return out, err
	},
	"cycles?": func(v *View, a args) (string, error) {
		rows, err := v.Cycles(int(a.num("n")))
		return items(rows, false, showCycle), err
	},
	"backups?": func(v *View, _ args) (string, error) {
		rows, err := v.Backups()
		return items(rows, false, func(b BackupItem) string {
			return fmt.Sprintf("%s %s opened=%d index=%d place=%s hold=%t", b.ID,
				strings.ToLower(strings.TrimPrefix(b.GetState().String(), "BACKUP_STATE_")), b.GetOpened().GetIndex(), b.GetIndex(), b.GetPlace(), b.GetHold())
		}), err
	},
	"backup?": func(v *View, a args) (string, error) {
		b, err := v.Backup(a.id("id"))
		return fmt.Sprintf("%s name=%s size=%d", b.GetState(), b.GetName(), b.GetSize()), err
	},
	"oldest?": func(v *View, _ args) (string, error) {
		index, found, err := v.OldestRestorable()
		return fmt.Sprintf("%d %t", index, found), err
	},
	"unneeded?": func(v *View, a args) (string, error) {
		rows, _, done, visited, err := v.Unneeded(a.dig("after"), a.many("limit"), a.many("visit"))
		sort.Slice(rows, func(i, j int) bool { return a.s.shown(rows[i].Digest.String()) < a.s.shown(rows[j].Digest.String()) })
		return items(rows, !done, func(b UnneededBlob) string {
			return fmt.Sprintf("%s size=%d %s", b.Digest, b.GetSize(), b.Why)
		}) + fmt.Sprintf("\nvisited %d", visited), err
	},
	"untagged?": func(v *View, a args) (string, error) {
		after := UntaggedCursor{Repository: a.str("after-repo"), Digest: a.dig("after")}
		rows, _, done, visited, err := v.Untagged(after, a.many("limit"), a.many("visit"))
		sort.SliceStable(rows, func(i, j int) bool { return a.s.shown(rows[i].Digest.String()) < a.s.shown(rows[j].Digest.String()) })
		return items(rows, !done, func(m UntaggedManifest) string {
			return fmt.Sprintf("%s %s size=%d %s", m.Repository, m.Digest, m.GetSize(), m.Why)
		}) + fmt.Sprintf("\nvisited %d", visited), err
	},
	"condemned?": func(v *View, a args) (string, error) {
		rows, _, done, err := v.Condemned("main", a.s.key(a.str("after")), a.many("limit"))
		sort.Slice(rows, func(i, j int) bool { return a.s.shown(rows[i].Key) < a.s.shown(rows[j].Key) })
		return items(rows, !done, func(k CondemnedKey) string {
			return fmt.Sprintf("%s index=%d size=%d due=%t backup=%s until=%s", k.Key, k.GetIndex(), k.GetSize(), k.Stay.IsDue(), k.Stay.Backup, time.Duration(k.Stay.Until))
		}), err
	},
	"objects?": func(v *View, a args) (string, error) {
		rows, more, err := v.Objects("main", a.s.key(a.str("prefix")), a.s.key(a.str("after")), a.many("limit"))
		return items(rows, more, func(o ObjectItem) string { return o.Key }), err
	},
	"system?": func(v *View, _ args) (string, error) {
		s, err := v.System()
		return fmt.Sprintf("id=%s epoch=%s term=%d leader=%s grace=%s", s.GetClusterId(), s.GetEpoch(), s.GetTerm(), s.GetLeader(), time.Duration(s.GetSettings().GetGrace())), err
	},
}

func showCycle(c *metav1.Cycle) string {
	out := fmt.Sprintf("%d phase=%d cursor=%q deleted=%d kept=%d untagged=%t", c.GetBegun().GetIndex(), c.GetPhase(), c.GetCursor(),
		c.GetCount().GetDeletedKeys(), c.GetKept().GetKeys(), c.GetUntagged())
	if q := c.GetRequest(); q != nil {
		out += fmt.Sprintf(" for %d to %d forget=%v", q.GetFirst().GetIndex(), q.GetLast().GetIndex(), c.GetForgetEpochs())
	}
	if c.GetEnded() != nil {
		out += fmt.Sprintf(" outcome=%d at %d trouble=%q", c.GetOutcome(), c.GetEnded().GetIndex(), c.GetTrouble())
	}
	return out
}
