package meta

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/pontoon-registry/pontoon/meta/kv"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

var writeLog = flag.Bool("write-log", false, "write testdata's old log if it is not there; it is never rewritten (M7)")

// fullLog answers a log with every kind of command in it: a world's, then lines that no world says.
func fullLog(t testing.TB, seed uint64, steps int) []LogEntry {
	w := newWorld(t, seed, "")
	w.alone = true // what a restored cluster does is in another log
	w.stride = 7   // so that indexes whose hash is noted are passed, not met
	for range steps {
		w.step()
	}
	s := &teller{t: t, state: w.state, index: w.index, stride: w.stride, clock: w.clock, names: map[string]string{}, log: w.log}
	for line := range strings.SplitSeq(strings.TrimSpace(`
origin node=n1 boot=b1
put repo=o digest=@x1 tags=t if-absent from=n1/b1/1/1
put repo=o digest=@x1 tags=t if-absent from=n1/b1/1/1
put repo=o digest=@x2 tags=t if-absent from=n1/b1/2/1
pulls repo=o digest=@x1 n=4 from=n1/b1/3/3
open repo=u id=m1
save repo=u id=m1 attempt=a offset=16 key=m1/a multipart=M parts=1:8,2:8 reserve=4
save repo=u id=m1 attempt=a offset=27 key=m1/a multipart=M parts=3:8 pieces=m1/a.1:3
take repo=u id=m1 attempt=b reserve=10
save repo=u id=m1 attempt=b offset=32 key=m1/a multipart=M parts=5:8
take repo=u id=m1 attempt=c reserve=1
commit repo=u id=m1 digest=@m size=32 at=m1/a completed
open repo=u id=m2
save repo=u id=m2 attempt=a offset=3 pieces=m2/a:3
take repo=u id=m2 attempt=b reserve=1
cancel repo=u id=m2
origin node=n1 boot=b2
acquire lock=l holder=a ttl=10s from=n1/b2/1/1
renew lock=l ttl=20s
release lock=l
acquire lock=m holder=b ttl=10s
release lock=m force
acquire lock=k holder=b ttl=10s
tick by=1m
expire-locks locks=k,l,m
put-node id=n1 address=a:1 cert=c1
put-node id=n2 address=a:2
remove-node id=n2
push repo=x id=x1 digest=@y size=1
mount repo=y source=x digest=@y
confirm repo=y blobs=@y
lost digest=@y key=x1/a
lost digest=@nothing key=x1/a
delete-blob repo=y digest=@y
put repo=o digest=@x3 subject=@x1 type=application/sig
put repo=o digest=@i children=@x1,@x3 tags=i
confirm repo=o manifests=@i
term n=2 sparse
put repo=o digest=@s blobs=@absent children=@absent2
push repo=o id=x2 digest=@absent size=3
delete-repo repo=o limit=2
delete-repo repo=o limit=100
expire ids=x1
trim before=40 limit=20
acquire lock=last holder=z ttl=1h
`), "\n") {
		if _, ok := s.look(line); !ok {
			s.tell([]string{line})
		}
	}
	return s.log
}

// replay applies a log, cut where cut says: cut(n) answers how many of the n entries left go into one call.
func replay(t testing.TB, log []LogEntry, cut func(n int) int) *State {
	t.Helper()
	s := newState(t)
	for len(log) > 0 {
		n := cut(len(log))
		if _, err := s.Apply(log[:n]); err != nil {
			t.Fatal(err)
		}
		log = log[n:]
	}
	return s
}

func one(int) int { return 1 }

// exported answers all rows of a state.
func exported(t testing.TB, s *State) []byte {
	t.Helper()
	v := s.View()
	defer v.Close()
	var b bytes.Buffer
	if err := v.Export(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func hexOf(b []byte) string { return hex.EncodeToString(b) }

func hashOf(s *State) string {
	index, sum := s.Hash()
	return fmt.Sprintf("%d %s", index, hex.EncodeToString(sum))
}

// TestTheSameLogInAnyBatchesGivesTheSameRowsAndHash is M1 and M9.
func TestTheSameLogInAnyBatchesGivesTheSameRowsAndHash(t *testing.T) {
	for seed := range uint64(5) {
		log := fullLog(t, seed, 600)
		whole := replay(t, log, func(n int) int { return n })
		want, rows := hashOf(whole), exported(t, whole)
		rng := rand.New(rand.NewPCG(seed, 3))
		for name, cut := range map[string]func(int) int{
			"one by one": one,
			"at random":  func(n int) int { return 1 + rng.IntN(min(n, 40)) },
		} {
			s := replay(t, log, cut)
			if got := hashOf(s); got != want {
				t.Errorf("seed %d, %s: hash %s, in one batch %s", seed, name, got, want)
			}
			if !bytes.Equal(exported(t, s), rows) {
				t.Errorf("seed %d, %s: rows differ", seed, name)
			}
		}
		// Raft's own entries move the index and nothing else.
		var mixed []LogEntry
		for _, e := range log {
			mixed = append(mixed, LogEntry{Index: e.Index - 1, Term: e.Term}, e)
		}
		s := replay(t, mixed, func(n int) int { return min(n, 9) })
		if got := hashOf(s); got != want || !bytes.Equal(exported(t, s), rows) {
			t.Errorf("seed %d, with entries without data: hash %s, without %s", seed, got, want)
		}
		if note, err := s.HashAt(1000); err != nil || len(note) != 32 {
			t.Errorf("seed %d: hash noted at 1000: %x, %v", seed, note, err)
		}
	}
}

// TestTheHashSeesWhatIsWritten changes one byte of a log: then the hash differs.
func TestTheHashSeesWhatIsWritten(t *testing.T) {
	log := fullLog(t, 1, 100)
	other := append([]LogEntry(nil), log...)
	last := len(other) - 1
	changed := bytes.Clone(other[last].Data)
	i := bytes.LastIndex(changed, []byte("last"))
	changed[i] = 'L'
	other[last].Data = changed
	if a, b := hashOf(replay(t, log, one)), hashOf(replay(t, other, one)); a == b {
		t.Errorf("both logs give %s", a)
	}
}

// TestEntriesAreAppliedOnce delivers a log again, as Raft does after a restart.
func TestEntriesAreAppliedOnce(t *testing.T) {
	log := fullLog(t, 2, 200)
	s := replay(t, log, one)
	want := hashOf(s)
	results, err := s.Apply(log)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range results {
		if r != nil {
			t.Fatalf("entry %d: has results", i)
		}
	}
	if got := hashOf(s); got != want {
		t.Errorf("hash %s, before %s", got, want)
	}
}

// TestSnapshotThenRestoreIsIdentity is the other half of M7.
func TestSnapshotThenRestoreIsIdentity(t *testing.T) {
	log := fullLog(t, 3, 600)
	half := len(log) / 2
	s := replay(t, log[:half], one)
	file := exported(t, s)
	store, err := kv.OpenMemory()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { closed(t, store.Close()) }()
	if err := Import(store, bytes.NewReader(file)); err != nil {
		t.Fatal(err)
	}
	if err := Import(store, bytes.NewReader(file)); err == nil {
		t.Error("imported into a store that is not empty")
	}
	restored, err := Open(store)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { closed(t, restored.Close()) }()
	if !bytes.Equal(exported(t, restored), file) {
		t.Error("rows differ after the restore")
	}
	for _, e := range log[half:] {
		if _, err := s.Apply([]LogEntry{e}); err != nil {
			t.Fatal(err)
		}
		if _, err := restored.Apply([]LogEntry{e}); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := hashOf(restored), hashOf(s); got != want {
		t.Errorf("hash after the rest of the log: %s, without the restore %s", got, want)
	}
}

func closed(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

// TestADamagedExportIsRefused cuts and changes an export at every place of a small one.
func TestADamagedExportIsRefused(t *testing.T) {
	file := exported(t, replay(t, fullLog(t, 4, 5)[:12], one))
	try := func(what string, b []byte) {
		store, err := kv.OpenMemory()
		if err != nil {
			t.Fatal(err)
		}
		defer func() { closed(t, store.Close()) }()
		if err := Import(store, bytes.NewReader(b)); err == nil {
			t.Errorf("%s: was imported", what)
		} else if !errors.Is(err, ErrExport) && !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for i := 0; i < len(file); i += 1 + len(file)/40 {
		try(fmt.Sprintf("cut at %d", i), file[:i])
		b := bytes.Clone(file)
		b[i] ^= 1
		try(fmt.Sprintf("changed at %d", i), b)
	}
}

// oldLog is a log as a release wrote it. Neither it nor its hash ever changes: a
// release that computes another one diverges from its neighbours (M7).
type oldLog struct {
	file, hash string
	make       func(t testing.TB) []LogEntry
}

var oldLogs = []oldLog{
	{"testdata/log-format1.bin", "1359 a4a170dcfe8566cb19cfde8fa1d25d2519e6e5f5eee9c4ea1cef6aa988e760f9",
		func(t testing.TB) []LogEntry { return fullLog(t, 20261122, 700) }},
	{"testdata/log-version2.bin", "14 58da9eb576d8c808c780a001e9837344dbb0789cf86241a4b84bae982a1e086d", raisedLog},
	{"testdata/log-version3.bin", "43 e14f73518560c6df861a00ba7f021e5b9af8eb56daa43d2f194e72290696d03d", collectedLog},
}

// toldLog is the log that a story leaves.
func toldLog(t testing.TB, story string) []LogEntry {
	s := &teller{t: t, state: newState(t), names: map[string]string{}}
	for line := range strings.SplitSeq(strings.TrimSpace(story), "\n") {
		s.tell([]string{line})
	}
	return s.log
}

// raisedLog is a log of a cluster that rises from version 1 to 2, and lives on after a recovery.
func raisedLog(t testing.TB) []LogEntry {
	return toldLog(t, `
init
term n=1
put-node id=n1 address=a:1 min=1 max=2
put-node id=n2 address=a:2 min=1 max=1
raise-version to=2
put-node id=n2 address=a:2 min=1 max=2
raise-version to=2
put-node id=n3 address=a:3 min=1 max=1
raise-version to=2
remove-node id=n2
raise-incarnation to=2 node=n1
raise-incarnation to=2 node=n1
push repo=r id=u1 digest=@b size=5
`)
}

// collectedLog is a log of a cluster that rises from version 2 to 3, collects garbage and is backed up.
func collectedLog(t testing.TB) []LogEntry {
	return toldLog(t, `
init version=2
term n=1
put repo=r digest=@img tags=t
put repo=r digest=@sig subject=@img type=application/sig
delete-manifest repo=r digest=@img
raise-incarnation to=2 node=n1 life=early
raise-version to=3
raise-incarnation to=3 node=n1 life=late
push repo=r id=u1 digest=@b size=5
push repo=s id=u2 digest=@b size=5
push repo=r id=u3 digest=@c size=7
put repo=r digest=@img blobs=@c
delete-manifest repo=r digest=@img
put repo=r digest=@old blobs=@c
open-backup id=k1 place=backup
open-backup id=k2 place=file hold
request-cycle forget=old2,old1
request-cycle forget=old3
begin-cycle requested untagged
tick by=1h
condemn blobs=@b,@c
delete-untagged repo=r manifests=@old,@sig
advance-cycle phase=3 cursor=here deleted=2 kept=3 trouble=slow
forget keys=u1/a,u2/a
tick by=26h
complete-backup id=k1 index=20 size=10
forget keys=u1/a
retire-backup id=k2
retire-backup id=k2 release
retire-backup id=k1
forget keys=u1/a,u2/a
forget-backup id=k1
condemn blobs=@c
advance-cycle outcome=1
begin-cycle
condemn blobs=@b
push repo=r id=u4 digest=@b size=5
put repo=r digest=@img
put repo=r digest=@sig2 subject=@img
delete-manifest repo=r digest=@img
put repo=r digest=@img
`)
}

// TestAnOldLogStillReplaysToItsHash is M7.
func TestAnOldLogStillReplaysToItsHash(t *testing.T) {
	kinds := map[string]bool{} // those of which one was accepted
	for _, old := range oldLogs {
		if _, err := os.Stat(old.file); errors.Is(err, os.ErrNotExist) && *writeLog {
			var b []byte
			for _, e := range old.make(t) {
				b = binary.AppendUvarint(b, e.Index)
				b = binary.AppendUvarint(b, e.Term)
				b = binary.AppendUvarint(b, uint64(len(e.Data)))
				b = append(b, e.Data...)
			}
			if err := os.WriteFile(old.file, b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got := replayOld(t, old.file, kinds); got != old.hash {
			t.Errorf("hash of %s is %q, expected %q", old.file, got, old.hash)
		}
	}
	fields := (&metav1.Command{}).ProtoReflect().Descriptor().Oneofs().ByName("kind").Fields()
	for i := range fields.Len() {
		if name := string(fields.Get(i).Name()); !kinds[name] {
			t.Errorf("no old log has an accepted command %s", name)
		}
	}
}

// replayOld answers the hash that a log gives, and notes the kinds of which a command was accepted.
func replayOld(t testing.TB, file string, kinds map[string]bool) string {
	t.Helper()
	s := newState(t)
	for part := range slices.Chunk(readLog(t, file), 17) {
		results, err := s.Apply(part)
		if err != nil {
			t.Fatal(err)
		}
		for i, e := range part {
			var entry metav1.Entry
			decodeEntry(t, e.Data, &entry)
			for n, c := range entry.GetCommands() {
				if results[i][n].GetRefusal() == nil {
					kinds[kindName(c)] = true
				}
			}
		}
	}
	return hashOf(s)
}

func readLog(t testing.TB, file string) (log []LogEntry) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	r := bytes.NewReader(b)
	for r.Len() > 0 {
		index, _ := binary.ReadUvarint(r)
		term, _ := binary.ReadUvarint(r)
		n, err := binary.ReadUvarint(r)
		if err != nil {
			t.Fatal(err)
		}
		data := make([]byte, n)
		if _, err := io.ReadFull(r, data); err != nil {
			t.Fatal(err)
		}
		log = append(log, LogEntry{Index: index, Term: term, Data: data})
	}
	return log
}
