package backup

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pontoon-registry/pontoon/blobs/mem"
	"github.com/pontoon-registry/pontoon/meta"
)

// segmentOf is the entries after from up to through; the chain's head is made up from through.
func segmentOf(log []meta.LogEntry, from, through uint64) *Segment {
	s := &Segment{SegmentHeader: SegmentHeader{ClusterID: "c0", Incarnation: 1, After: from, Through: through,
		Chain: hex.EncodeToString(bytes.Repeat([]byte{byte(through)}, 32)), WallTime: int64(through)}}
	for _, e := range log {
		if e.Index > from && e.Index <= through {
			s.Entries = append(s.Entries, e)
		}
	}
	return s
}

func putSegment(t testing.TB, archive *mem.Archive, s *Segment) string {
	t.Helper()
	p, err := newPacker()
	if err != nil {
		t.Fatal(err)
	}
	body, err := p.encode(s)
	if err != nil {
		t.Fatal(err)
	}
	name := logFolder("c0", 1) + segmentName(s.After+1, s.Through)
	if err := archive.Put(t.Context(), name, body); err != nil {
		t.Fatal(err)
	}
	return name
}

// collect answers the entries of a log and the first error.
func collect(t testing.TB, archive *mem.Archive, from, to uint64) (all []Entry, err error) {
	for e, err := range OpenLog(archive, "c0", 1).Entries(t.Context(), from, to) {
		if err != nil {
			return all, err
		}
		all = append(all, e)
	}
	return all, nil
}

// aLog is 100 entries, some without data, with gaps where Raft has its own.
func aLog(t testing.TB) []meta.LogEntry {
	var log []meta.LogEntry
	for i := uint64(1); i <= 100; i++ {
		switch {
		case i%13 == 0: // Raft's own
		case i%17 == 0:
			log = append(log, meta.LogEntry{Index: i, Term: 2})
		default:
			log = append(log, entryOf(t, i, acquire(fmt.Sprintf("lock%d", i))))
		}
	}
	return log
}

// TestTheLogComesBackInOrder: whatever the cuts, overlaps and bounds, each entry comes once, with the heads that were recorded.
func TestTheLogComesBackInOrder(t *testing.T) {
	log := aLog(t)
	archive := mem.New(0).Archive()
	for _, r := range [][2]uint64{{0, 10}, {10, 30}, {20, 30}, {20, 50}, {25, 40}, {50, 99}, {50, 100}, {60, 80}} {
		putSegment(t, archive, segmentOf(log, r[0], r[1]))
	}
	for _, bounds := range [][2]uint64{{0, 0}, {0, 100}, {5, 0}, {10, 10}, {12, 77}, {29, 31}, {49, 51}, {99, 0}, {100, 0}, {200, 0}, {90, 500}} {
		got, err := collect(t, archive, bounds[0], bounds[1])
		if err != nil {
			t.Fatalf("%v: %v", bounds, err)
		}
		var want []meta.LogEntry
		for _, e := range log {
			if e.Index > bounds[0] && (bounds[1] == 0 || e.Index <= bounds[1]) {
				want = append(want, e)
			}
		}
		if len(got) != len(want) {
			t.Fatalf("%v: %d entries, want %d", bounds, len(got), len(want))
		}
		for i, e := range got {
			if e.Index != want[i].Index || e.Term != want[i].Term || !bytes.Equal(e.Data, want[i].Data) || (e.Data == nil) != (want[i].Data == nil) {
				t.Errorf("%v: entry %d is %v, want %v", bounds, i, e.Index, want[i].Index)
			}
			if recorded := e.Index == 10 || e.Index == 50 || e.Index == 100 || e.Index == 30; (len(e.Chain) > 0) != recorded && e.Index != 30 {
				t.Errorf("%v: entry %d has the head %x", bounds, e.Index, e.Chain)
			}
			if len(e.Chain) > 0 && e.Chain[0] != byte(e.Index) {
				t.Errorf("%v: entry %d has the head of another", bounds, e.Index)
			}
		}
	}
}

func TestAGapInTheLogIsNamed(t *testing.T) {
	log := aLog(t)
	archive := mem.New(0).Archive()
	putSegment(t, archive, segmentOf(log, 0, 10))
	putSegment(t, archive, segmentOf(log, 20, 30))
	got, err := collect(t, archive, 0, 0)
	if !errors.Is(err, ErrGap) || !strings.Contains(err.Error(), "11 to 20") || len(got) != 10 {
		t.Errorf("%d entries, %v", len(got), err)
	}
	if got, err := collect(t, archive, 0, 10); err != nil || len(got) != 10 {
		t.Errorf("up to the gap: %d entries, %v", len(got), err)
	}
	if got, err := collect(t, archive, 20, 0); err != nil || len(got) != 9 {
		t.Errorf("beyond the gap: %d entries, %v", len(got), err)
	}
	if _, err := collect(t, archive, 19, 0); !errors.Is(err, ErrGap) {
		t.Errorf("from the last entry of the gap: %v", err)
	}
}

// TestADamagedSegmentIsFoundAndNamed is K3 for a segment, at every byte of it.
func TestADamagedSegmentIsFoundAndNamed(t *testing.T) {
	archive := mem.New(0).Archive()
	name := putSegment(t, archive, segmentOf(aLog(t), 0, 20))
	body, err := archive.Get(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	check := func(what string, b []byte, kinds ...error) {
		t.Helper()
		archive.Change(name, func([]byte) []byte { return b })
		got, err := collect(t, archive, 0, 0)
		var file *FileError
		if !isAny(err, kinds) || !errors.As(err, &file) || file.File != name || len(got) != 0 {
			t.Errorf("%s: %d entries, %v", what, len(got), err)
		}
	}
	for at := range body {
		flipped := bytes.Clone(body)
		flipped[at] ^= 1 << (at % 8)
		check(fmt.Sprintf("bit flipped at %d", at), flipped, ErrAltered, ErrTruncated)
		check(fmt.Sprintf("cut at %d", at), body[:at:at], ErrTruncated)
	}
	archive.Change(name, func([]byte) []byte { return body })
	other := *OpenLog(archive, "c0", 1)
	other.clusterID = "c1"
	for e, err := range OpenLog(archive, "c1", 1).Entries(t.Context(), 0, 0) {
		t.Errorf("another cluster's log: %v, %v", e, err)
	}
	moved := Listed{Name: name, First: 1, Last: 20}
	if _, err := other.Read(t.Context(), moved); !errors.Is(err, ErrOtherCluster) {
		t.Errorf("a segment in another cluster's folder: %v", err)
	}
	moved.Last = 21
	if _, err := OpenLog(archive, "c0", 1).Read(t.Context(), moved); !errors.Is(err, ErrAltered) {
		t.Errorf("a segment under another name: %v", err)
	}
}

func TestANewerFormatIsNamed(t *testing.T) {
	r := newRecorder(t)
	_, to, archive := folderOf(r)
	w, err := write(t.Context(), r.view(), "v1", to, nil)
	if err != nil {
		t.Fatal(err)
	}
	m := *w.Manifest
	m.Format = manifestFormat + 1
	newer, err := m.encode()
	if err != nil {
		t.Fatal(err)
	}
	newer = bytes.Replace(newer, []byte(`"name"`), []byte(`"what nobody knows yet": 1, "name"`), 1)
	archive.Change(to.folder+manifestName, func([]byte) []byte { return newer })
	if _, err := OpenBucket(t.Context(), archive, Selector{}); !errors.Is(err, ErrNewerFormat) || !strings.Contains(err.Error(), to.folder+manifestName) {
		t.Errorf("a manifest of a newer format: %v", err)
	}
	s := segmentOf(aLog(t), 0, 20)
	p, err := newPacker()
	if err != nil {
		t.Fatal(err)
	}
	body, err := p.encode(s)
	if err != nil {
		t.Fatal(err)
	}
	plain := unpacked(t, body)
	plain[len(segmentMagic)+3]++
	if _, err := decodeSegment("x", sealed(p.z.EncodeAll(plain, nil))); !errors.Is(err, ErrNewerFormat) {
		t.Errorf("a segment of a newer format: %v", err)
	}
}

func TestTheChosenSnapshotIsTheOneAskedFor(t *testing.T) {
	archive := mem.New(0).Archive()
	r := newRecorder(t)
	var places []Place
	for range 3 {
		r.fill(5, 100)
		p, to, _ := folderOf(r)
		to.archive = archive
		if _, err := write(t.Context(), r.view(), "v1", to, nil); err != nil {
			t.Fatal(err)
		}
		places = append(places, p)
	}
	putSegment(t, archive, segmentOf(aLog(t), 0, 50))
	half := fmt.Sprintf("%s%020d-%032d/%s", fullFolder("c0", 1), 90, 1, chunkName(0))
	if err := archive.Put(t.Context(), half, []byte("x")); err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		sel  Selector
		want uint64
		err  error
	}{
		"latest":            {Selector{}, places[2].Index, nil},
		"named":             {Selector{Name: places[0].Folder}, places[0].Index, nil},
		"by its last name":  {Selector{Name: strings.TrimSuffix(strings.TrimPrefix(places[1].Folder, fullFolder("c0", 1)), "/")}, places[1].Index, nil},
		"by index":          {Selector{MaxIndex: places[2].Index - 1}, places[1].Index, nil},
		"by time":           {Selector{MaxWallTime: int64(places[1].Index)*1e9 - 1}, places[0].Index, nil},
		"of the cluster":    {Selector{ClusterID: "c0"}, places[2].Index, nil},
		"of another":        {Selector{ClusterID: "c1"}, 0, ErrNoSnapshot},
		"without manifest":  {Selector{Name: strings.TrimSuffix(half, chunkName(0))}, 0, ErrNoSnapshot},
		"before all":        {Selector{MaxWallTime: 1}, 0, ErrNoSnapshot},
		"of no incarnation": {Selector{Incarnation: 2}, 0, ErrNoSnapshot},
	} {
		s, err := OpenBucket(t.Context(), archive, c.sel)
		if !errors.Is(err, c.err) || err == nil && s.Manifest().Index != c.want {
			t.Errorf("%s: %v, want index %d and %v", what, err, c.want, c.err)
		}
	}
	all, err := List(t.Context(), archive, "")
	if err != nil || len(all) != 4 || all[3].Complete || !all[0].Complete || all[0].Objects != 2 {
		t.Errorf("List: %+v, %v", all, err)
	}
	if err := archive.Put(t.Context(), Prefix+"c1/00000000000000000001/full/00000000000000000001-a/manifest.json", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenBucket(t.Context(), archive, Selector{}); err == nil || !strings.Contains(err.Error(), "c0, c1") {
		t.Errorf("two clusters and no choice: %v", err)
	}
	stolen, err := archive.Get(t.Context(), places[0].Folder+manifestName)
	if err != nil {
		t.Fatal(err)
	}
	archive.Change(Prefix+"c1/00000000000000000001/full/00000000000000000001-a/manifest.json", func([]byte) []byte { return stolen })
	if _, err := OpenBucket(t.Context(), archive, Selector{ClusterID: "c1"}); !errors.Is(err, ErrOtherCluster) {
		t.Errorf("another cluster's manifest: %v", err)
	}
}

// slowArchive answers each Get after a while, as a bucket does.
type slowArchive struct{ *mem.Archive }

func (a slowArchive) Get(ctx context.Context, name string) ([]byte, error) {
	time.Sleep(100 * time.Millisecond)
	return a.Archive.Get(ctx, name)
}

// TestADayOfSegmentsIsNotReadOneByOne: they come in order all the same, and nothing reads on when nobody listens any more.
func TestADayOfSegmentsIsNotReadOneByOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := slowArchive{mem.New(0).Archive()}
		log := aLog(t)
		after := uint64(0)
		for _, e := range log {
			putSegment(t, a.Archive, segmentOf(log, after, e.Index))
			after = e.Index
		}
		began, n := time.Now(), 0
		for e, err := range OpenLog(a, "c0", 1).Entries(t.Context(), 0, 0) {
			if err != nil || n == len(log) || e.Index != log[n].Index {
				t.Fatalf("entry %d, the %dth: %v", e.Index, n, err)
			}
			n++
		}
		if took, alone := time.Since(began), time.Duration(len(log))*100*time.Millisecond; n != len(log) || took > alone/8 {
			t.Errorf("%d of %d entries in %v, one by one they take %v", n, len(log), took, alone)
		}
		for range OpenLog(a, "c0", 1).Entries(t.Context(), 0, 0) {
			break
		}
	})
}
