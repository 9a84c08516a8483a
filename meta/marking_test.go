package meta

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/pontoon-registry/pontoon/meta/kv"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// crowded is a state in which blobs have none or very many references and graces, and manifests none or very many tags
// and indexes: more rows side by side than a cursor steps over.
func crowded(t *testing.T, rng *rand.Rand) *State {
	t.Helper()
	store, err := kv.OpenMemory()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closed(t, store.Close()) })
	set := func(key []byte, row proto.Message) {
		value, err := encoding.Marshal(row)
		closed(t, err)
		closed(t, store.Set(key, value))
	}
	many := func() int { return rng.IntN(3) * rng.IntN(3*nearby) }
	set(oneRow(nil, rangeSystem), &metav1.System{ClusterId: "c", Epoch: "e1", Version: NewestVersion, Settings: DefaultSettings()})
	set(oneRow(nil, rangeClock), &metav1.Clock{ClusterTime: 2 * hour})
	for i := range 60 {
		d, repository := digestOf(fmt.Sprint(i)), fmt.Sprintf("r%d", rng.IntN(3))
		if rng.IntN(4) > 0 {
			set(digestKey(nil, rangeBlob, d), &metav1.Blob{Size: int64(i)})
		}
		for n := range many() {
			set(linkKey(nil, rangeReference, d, repository, digestOf(fmt.Sprint("m", n))), nil)
		}
		for n := range many() {
			set(ofBlob(nil, rangeGrace, d, fmt.Sprintf("r%d", n)), &metav1.Grace{Since: rng.Int64N(hour + hour/40)})
		}
		if rng.IntN(2) == 0 {
			continue
		}
		set(inRepository(nil, rangeManifest, repository, d), &metav1.Manifest{Large: rng.IntN(2) == 0, Confirmed: rng.Int64N(2 * hour)})
		set(linkKey(nil, rangeReference, d, repository, d), nil)
		for n := range many() {
			set(taggedKey(nil, repository, d, fmt.Sprint("t", n)), nil)
		}
		for n := range many() {
			set(childKey(nil, repository, d, digestOf(fmt.Sprint("i", n))), nil)
		}
	}
	s, err := Open(store)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closed(t, s.Close()) })
	return s
}

// TestAMarkFindsWhatEachRowAloneSays, in pages of any size.
func TestAMarkFindsWhatEachRowAloneSays(t *testing.T) {
	unneeded, untagged := 0, 0
	for seed := range uint64(40) {
		rng := rand.New(rand.NewPCG(seed, 5))
		s := crowded(t, rng)
		v := s.View()
		clock, grace := v.ClusterTime(), v.settings().GetGrace()
		var blobs, want []Digest
		v.scan(oneRow(nil, rangeBlob), nil, func(k, _ []byte) bool { blobs = append(blobs, Digest(k[1:])); return true })
		for _, d := range blobs {
			if _, last := v.graces(d); !v.neededAnywhere(d) && last.over(clock, grace) {
				want = append(want, d)
			}
		}
		if got, n := allUnneeded(t, v, rng); !slices.Equal(got, want) || n != len(blobs) {
			t.Fatalf("seed %d: the mark finds %d blobs of %d, expected %d of %d", seed, len(got), n, len(want), len(blobs))
		}
		wantTags := []UntaggedCursor{}
		manifests := 0
		for _, repository := range []string{"r0", "r1", "r2"} {
			rows, _, err := v.Manifests(repository, "", 1000)
			closed(t, err)
			manifests += len(rows)
			for _, m := range rows {
				if _, goes := v.untagged(repository, m.Digest, m.Manifest, clock, grace); goes {
					wantTags = append(wantTags, UntaggedCursor{repository, m.Digest})
				}
			}
		}
		if got, n := allUntagged(t, v, rng); !slices.Equal(got, wantTags) || n != manifests {
			t.Fatalf("seed %d: %d untagged manifests of %d, expected %d of %d", seed, len(got), n, len(wantTags), manifests)
		}
		unneeded, untagged = unneeded+len(want), untagged+len(wantTags)
		v.Close()
	}
	if unneeded < 50 || untagged < 50 {
		t.Errorf("%d blobs and %d manifests in all: the states are too tame", unneeded, untagged)
	}
}

func allUnneeded(t *testing.T, v *View, rng *rand.Rand) (out []Digest, n int) {
	var after Digest
	for done := false; !done; {
		rows, next, end, visited, err := v.Unneeded(after, 1+rng.IntN(9), 1+rng.IntN(9))
		closed(t, err)
		for _, r := range rows {
			out = append(out, r.Digest)
		}
		after, done, n = next, end, n+int(visited)
	}
	return out, n
}

func allUntagged(t *testing.T, v *View, rng *rand.Rand) (out []UntaggedCursor, n int) {
	var after UntaggedCursor
	for done := false; !done; {
		rows, next, end, visited, err := v.Untagged(after, 1+rng.IntN(9), 1+rng.IntN(9))
		closed(t, err)
		for _, r := range rows {
			out = append(out, UntaggedCursor{r.Repository, r.Digest})
		}
		after, done, n = next, end, n+int(visited)
	}
	return out, n
}

// TestAViewOfAClosedStateFindsNothing, and says why.
func TestAViewOfAClosedStateFindsNothing(t *testing.T) {
	s := newState(t)
	closed(t, s.Close())
	v := s.View()
	_, _, _, _, blobs := v.Unneeded("", 10, 10)
	_, _, _, _, manifests := v.Untagged(UntaggedCursor{}, 10, 10)
	_, _, _, keys := v.Condemned("main", "", 10)
	_, _, oldest := v.OldestRestorable()
	for what, err := range map[string]error{"blobs": blobs, "manifests": manifests, "keys": keys, "backups": oldest} {
		if err == nil {
			t.Errorf("%s: no error", what)
		}
	}
}

// TestTheHistoryOfCyclesIsBounded, and keeps the newest.
func TestTheHistoryOfCyclesIsBounded(t *testing.T) {
	s := newState(t)
	begin := begun()
	begin[0].GetInitCluster().Version = NewestVersion
	mustApply(t, s, entryOf(t, 1, begin...))
	for i := range uint64(cyclesKept + 5) {
		mustApply(t, s, entryOf(t, 2+i,
			&metav1.Command{Kind: &metav1.Command_BeginCycle{BeginCycle: &metav1.BeginCycle{Trigger: metav1.CycleTrigger_CYCLE_TRIGGER_SCHEDULE}}},
			&metav1.Command{Kind: &metav1.Command_AdvanceCycle{AdvanceCycle: &metav1.AdvanceCycle{Cycle: 2 + i, Outcome: metav1.CycleOutcome_CYCLE_OUTCOME_DONE}}}))
	}
	v := s.View()
	defer v.Close()
	all, err := v.Cycles(1000)
	row := v.collection()
	if err != nil || len(all) != cyclesKept || all[0].GetBegun().GetIndex() != cyclesKept+6 || row.GetKept() != cyclesKept {
		t.Errorf("%d cycles from %d, %d counted, %v", len(all), all[0].GetBegun().GetIndex(), row.GetKept(), err)
	}
}

// TestADeletionOfUntaggedManifestsEndsEarly when these name much, and goes on when it is sent again.
func TestADeletionOfUntaggedManifestsEndsEarly(t *testing.T) {
	s := newState(t)
	begin := begun()
	begin[0].GetInitCluster().Version = NewestVersion
	begin[1].GetOpenTerm().Settings.SparseImages = true
	begin[1].GetOpenTerm().Settings.Grace = 1
	mustApply(t, s, entryOf(t, 1, append(begin, &metav1.Command{Kind: &metav1.Command_BeginCycle{BeginCycle: &metav1.BeginCycle{
		Trigger: metav1.CycleTrigger_CYCLE_TRIGGER_SCHEDULE, Untagged: true}}})...))
	c := &metav1.DeleteUntagged{Cycle: 1, Repository: "r"}
	var puts []*metav1.Command
	for i := range 5 {
		p := &metav1.PutManifest{Repository: "r", Digest: digestOf(fmt.Sprint(i)).Bytes(), MediaType: MediaTypeImage, Body: []byte("x"), Size: 1}
		for n := range 400 {
			p.Blobs = append(p.Blobs, digestOf(fmt.Sprint(i, n)).Bytes())
		}
		c.Digests = append(c.Digests, p.Digest)
		puts = append(puts, &metav1.Command{Kind: &metav1.Command_PutManifest{PutManifest: p}})
	}
	mustApply(t, s, entryOf(t, 2, puts...))
	deletion := func(index uint64) *metav1.CountResult {
		e := entryAt(t, index, 10, &metav1.Command{Kind: &metav1.Command_DeleteUntagged{DeleteUntagged: proto.CloneOf(c)}})
		return mustApply(t, s, e)[0][0].GetCount()
	}
	if r := deletion(3); r.GetRows() != 3 || !r.GetMore() {
		t.Errorf("first: %v, expected 3 and more", r)
	}
	if r := deletion(4); r.GetRows() != 2 || r.GetMore() {
		t.Errorf("second: %v, expected 2 and no more", r)
	}
}

// Who closes the store waits for the last View.
func TestAClosedStateTellsWhenNobodyViewsItAnyMore(t *testing.T) {
	unviewed := func(s *State) bool {
		select {
		case <-s.Unviewed():
			return true
		default:
			return false
		}
	}
	idle := newState(t)
	if unviewed(idle) {
		t.Error("told before Close")
	}
	if err := idle.Close(); err != nil || !unviewed(idle) {
		t.Errorf("not told though nobody views it: %v", err)
	}
	s := newState(t)
	first, second := s.View(), s.View()
	if err := s.Close(); err != nil || unviewed(s) {
		t.Errorf("told with two Views open: %v", err)
	}
	first.Close()
	if unviewed(s) {
		t.Error("told with a View open")
	}
	second.Close()
	if !unviewed(s) {
		t.Error("not told after the last View")
	}
}
