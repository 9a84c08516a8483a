package backup

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/pontoon-registry/pontoon/blobs/mem"
	"github.com/pontoon-registry/pontoon/meta"
	"github.com/pontoon-registry/pontoon/meta/kv"
)

// archived is a recorder whose state was saved at some indexes and whose log was shipped, with true heads.
type archived struct {
	*recorder
	archive *mem.Archive
	// rows and hashes are those of the state after each index.
	rows   map[uint64][]byte
	hashes map[uint64][]byte
	shipped,
	saved uint64
}

func newArchived(t testing.TB) *archived {
	return &archived{recorder: newRecorder(t), archive: mem.New(0).Archive(), rows: map[uint64][]byte{}, hashes: map[uint64][]byte{}}
}

// grow adds n manifests and remembers the state after each. Every 13th index is Raft's own.
func (a *archived) grow(n int) {
	for range n {
		applied, _ := a.state.Applied()
		next := applied + 1
		if next%13 == 0 {
			next++
		}
		e := entryOf(a.t, next, push(int(next), 100))
		if _, err := a.state.Apply([]meta.LogEntry{e}); err != nil {
			a.t.Fatal(err)
		}
		a.log = append(a.log, e)
		v := a.state.View()
		a.rows[next], a.hashes[next] = exported(a.t, v), v.Hash()
		v.Close()
	}
}

// save takes a full snapshot.
func (a *archived) save() {
	a.t.Helper()
	index, _ := a.state.Applied()
	folder := fmt.Sprintf("%s%020d-%032d/", fullFolder("c0", 1), index, index)
	if _, err := write(a.t.Context(), a.view(), "v1", &bucketSink{archive: a.archive, folder: folder}, nil); err != nil {
		a.t.Fatal(err)
	}
	a.saved = index
}

// ship sends what was not sent yet.
func (a *archived) ship() (name string) {
	a.t.Helper()
	through, hash := a.state.Hash()
	s := segmentOf(a.log, a.shipped, through)
	s.Chain = hex.EncodeToString(hash)
	a.shipped = through
	return putSegment(a.t, a.archive, s)
}

// loadTo loads a target as restore does, and answers the store.
func (a *archived) loadTo(to Target) (*Loaded, *meta.State, error) {
	a.t.Helper()
	s, err := OpenBucket(a.t.Context(), a.archive, Selector{MaxIndex: to.Index, MaxWallTime: to.WallTime})
	if err != nil {
		return nil, nil, err
	}
	return loadInto(a.t, s, to)
}

func loadInto(t testing.TB, s *Snapshot, to Target) (*Loaded, *meta.State, error) {
	t.Helper()
	store, err := kv.OpenMemory()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	l, err := Load(t.Context(), s, store, to, nil)
	if err != nil {
		return nil, nil, err
	}
	state, err := meta.Open(store)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := state.Close(); err != nil {
			t.Error(err)
		}
	})
	return l, state, nil
}

// TestEveryArchivedMomentComesBack by its index and by its time, with rows and hash, from the snapshot that is nearest below it.
func TestEveryArchivedMomentComesBack(t *testing.T) {
	a := newArchived(t)
	a.grow(3)
	a.save()
	first := a.saved
	for range 4 {
		a.grow(9)
		a.ship()
	}
	a.save()
	a.grow(5)
	a.ship()
	last, _ := a.state.Applied()
	for at := first; at <= last; at++ {
		is := at
		if at%13 == 0 {
			is-- // Raft's own: the state is that before it
		}
		for _, to := range []Target{{Index: at}, {WallTime: int64(at) * 1e9}} {
			l, state, err := a.loadTo(to)
			if err != nil {
				t.Fatalf("to %s: %v", to, err)
			}
			v := state.View()
			if l.Index != is || v.Index() != is || !bytes.Equal(v.Hash(), a.hashes[is]) || !bytes.Equal(exported(t, v), a.rows[is]) {
				t.Errorf("to %s: index %d", to, l.Index)
			}
			v.Close()
			if above := at >= a.saved; (l.Snapshot.Index == a.saved) != above {
				t.Errorf("to %s: from the snapshot of %d", to, l.Snapshot.Index)
			}
		}
	}
	l, _, err := a.loadTo(Target{})
	if err != nil || l.Index != last || l.Replayed != 5 || l.System.GetClusterId() != "c0" {
		t.Errorf("to the end: %+v, %v", l, err)
	}
}

// TestAMomentThatIsNotArchivedIsRefused, and what is there is said.
func TestAMomentThatIsNotArchivedIsRefused(t *testing.T) {
	a := newArchived(t)
	a.grow(5)
	a.save()
	a.grow(5)
	a.shipped = a.saved
	a.ship()
	last, _ := a.state.Applied()
	for _, to := range []Target{{Index: last + 1}, {WallTime: int64(last)*1e9 + 1}} {
		if _, _, err := a.loadTo(to); !errors.Is(err, ErrUnreached) || !strings.Contains(err.Error(), fmt.Sprintf("ends at index %d", last)) {
			t.Errorf("to %s: %v", to, err)
		}
	}
	for _, to := range []Target{{Index: a.saved - 1}, {WallTime: int64(a.saved)*1e9 - 1}} {
		if _, _, err := a.loadTo(to); !errors.Is(err, ErrNoSnapshot) {
			t.Errorf("to %s: %v", to, err)
		}
	}
	// A file has one moment.
	var file bytes.Buffer
	if _, err := WriteFile(t.Context(), a.view(), "v1", &file, nil); err != nil {
		t.Fatal(err)
	}
	for to, ok := range map[Target]bool{{}: true, {Index: last}: true, {Index: last - 1}: false, {Index: last + 1}: false, {WallTime: int64(last) * 1e9}: true, {WallTime: int64(last)*1e9 + 1}: false} {
		s, err := OpenTar("f.tar", bytes.NewReader(file.Bytes()), int64(file.Len()))
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := loadInto(t, s, to); (err == nil) != ok || err != nil && !errors.Is(err, ErrUnreached) {
			t.Errorf("file to %s: %v", to, err)
		}
	}
}

// TestADamagedLogIsNotReplayed: the file is named, and how far one can get without it.
func TestADamagedLogIsNotReplayed(t *testing.T) {
	a := newArchived(t)
	a.grow(3)
	a.save()
	a.grow(4)
	a.ship()
	good := a.shipped
	a.grow(4)
	damaged := a.ship()
	a.grow(4)
	a.ship()
	whole, err := a.archive.Get(t.Context(), damaged)
	if err != nil {
		t.Fatal(err)
	}
	hint := fmt.Sprintf("go to index %d instead", good)
	headless := segmentOf(a.log, 0, good) // of a node that did not know the head: what it holds counts all the same
	headless.Chain = ""
	p, err := newPacker()
	if err != nil {
		t.Fatal(err)
	}
	body, err := p.encode(headless)
	if err != nil {
		t.Fatal(err)
	}
	a.archive.Change(logFolder("c0", 1)+segmentName(1, good), func([]byte) []byte { return body })
	for what, change := range map[string]func([]byte) []byte{
		"cut short": func(b []byte) []byte { return b[:len(b)-1] },
		"a bit":     func(b []byte) []byte { b = bytes.Clone(b); b[len(b)/2] ^= 4; return b },
	} {
		a.archive.Change(damaged, change)
		_, _, err := a.loadTo(Target{})
		var file *FileError
		if !errors.As(err, &file) || file.File != damaged || !strings.Contains(err.Error(), hint) {
			t.Errorf("%s: %v", what, err)
		}
		if l, _, err := a.loadTo(Target{Index: good}); err != nil || l.Index != good {
			t.Errorf("%s: to the end of the one before: %v", what, err)
		}
		a.archive.Change(damaged, func([]byte) []byte { return whole })
	}
	if err := a.archive.Delete(t.Context(), damaged); err != nil {
		t.Fatal(err)
	}
	if _, _, err := a.loadTo(Target{}); !errors.Is(err, ErrGap) || !strings.Contains(err.Error(), hint) {
		t.Errorf("a gap: %v", err)
	}
	// A segment of another history has sums of its own: only the chain tells.
	a.shipped = good
	through := good + 4
	s := segmentOf(a.log, good, through)
	for len(s.Entries) == 0 || s.Entries[len(s.Entries)-1].Index != through {
		through++
		s = segmentOf(a.log, good, through)
	}
	s.Chain = hex.EncodeToString(a.hashes[s.Through])
	s.Entries[0] = entryOf(t, s.Entries[0].Index, push(9999, 10))
	putSegment(t, a.archive, s)
	if _, _, err := a.loadTo(Target{Index: s.Through}); !errors.Is(err, ErrAltered) || !strings.Contains(err.Error(), "another history") {
		t.Errorf("another history: %v", err)
	}
}

// filed is a snapshot of a few entries, in a file.
func filed(t *testing.T) *Snapshot {
	t.Helper()
	a := newArchived(t)
	a.grow(3)
	var file bytes.Buffer
	if _, err := WriteFile(t.Context(), a.view(), "v1", &file, nil); err != nil {
		t.Fatal(err)
	}
	s, err := OpenTar("f.tar", bytes.NewReader(file.Bytes()), int64(file.Len()))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestASnapshotOfANewerReleaseIsRefusedAtOnce before any of its rows are read.
func TestASnapshotOfANewerReleaseIsRefusedAtOnce(t *testing.T) {
	s := filed(t)
	s.manifest.CommandVersion = meta.NewestVersion + 1
	store, err := kv.OpenMemory()
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	_, err = Load(t.Context(), s, store, Target{}, func(p Progress) { t.Errorf("read %d bytes of rows", p.Rows) })
	if !errors.Is(err, ErrNewerFormat) || !strings.Contains(err.Error(), "command version 4, this release reads 3") {
		t.Errorf("got %v", err)
	}
}

// TestARowsManifestThatLiesIsRefused: sums agree, but the rows are of another cluster or moment than it says.
func TestARowsManifestThatLiesIsRefused(t *testing.T) {
	for what, lie := range map[string]func(*Manifest){
		"index":   func(m *Manifest) { m.Index++ },
		"chain":   func(m *Manifest) { m.Chain = strings.Repeat("00", 32) },
		"epoch":   func(m *Manifest) { m.Epoch = "e9" },
		"cluster": func(m *Manifest) { m.ClusterID = "c1" },
	} {
		s := filed(t)
		lie(s.manifest)
		if _, _, err := loadInto(t, s, Target{}); !errors.Is(err, ErrAltered) && !errors.Is(err, ErrOtherCluster) || !strings.Contains(err.Error(), "f.tar: manifest.json") {
			t.Errorf("%s: %v", what, err)
		}
	}
}
