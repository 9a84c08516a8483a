package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/pontoon-registry/pontoon/blobs"
	"github.com/pontoon-registry/pontoon/blobs/blobstest"
	"github.com/pontoon-registry/pontoon/blobs/fs"
	"github.com/pontoon-registry/pontoon/blobs/mem"
	"github.com/pontoon-registry/pontoon/blobs/s3"
	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// everyObjects runs a test against each kind of store, a real S3 server among them.
func everyObjects(t *testing.T, test func(t *testing.T, objects blobs.Objects)) {
	t.Run("mem", func(t *testing.T) { test(t, mem.New(0)) })
	t.Run("fs", func(t *testing.T) {
		s, err := fs.Open(t.Context(), fs.Config{Root: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		test(t, s)
	})
	t.Run("s3", func(t *testing.T) {
		server := blobstest.StartS3(t)
		s, err := s3.Open(t.Context(), s3.Config{RegionEndpoint: server.Endpoint, Bucket: server.Bucket,
			AccessKey: server.AccessKey, SecretKey: server.SecretKey, ForcePathStyle: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		test(t, s)
	})
}

// held is the mark of a store as a cluster has it.
func held(objects blobs.Objects, we ownership) *heldMark {
	return newHeldMark(objects, func(context.Context) (ownership, error) { return we, nil }, slog.New(slog.DiscardHandler))
}

func life(incarnation uint64, name string) ownership {
	return ownership{Cluster: "one", Epoch: "e1", Incarnation: incarnation, Life: name}
}

// says fails unless the mark says this.
func says(t *testing.T, objects blobs.Objects, cluster string, incarnation, swept uint64) {
	t.Helper()
	o, _, err := ownerMark{objects: objects}.read(t.Context())
	if err != nil || o.Cluster != cluster || o.Incarnation != incarnation || o.SweptThrough != swept {
		t.Errorf("the mark says %+v, %v; expected cluster %s, incarnation %d, swept through %d", o, err, cluster, incarnation, swept)
	}
}

func claim(t *testing.T, objects blobs.Objects) {
	t.Helper()
	if err := (ownerMark{objects, slog.New(slog.DiscardHandler)}).Claim(t.Context(), "one", "e1"); err != nil {
		t.Fatal(err)
	}
}

func TestTheOwnerRaisesItsMarkAndNeverLowersIt(t *testing.T) {
	everyObjects(t, func(t *testing.T, objects blobs.Objects) {
		claim(t, objects)
		m := held(objects, life(1, ""))
		for _, step := range [][2]uint64{{0, 0}, {7, 7}, {5, 7}, {0, 7}, {9, 9}} {
			if err := m.Raise(t.Context(), step[0]); err != nil {
				t.Fatal(err)
			}
			says(t, objects, "one", 1, step[1])
		}
	})
}

func TestOnlyTheOwnerMayDelete(t *testing.T) {
	everyObjects(t, func(t *testing.T, objects blobs.Objects) {
		if err := held(objects, life(1, "")).Raise(t.Context(), 0); !errors.Is(err, errNotOwner) || !strings.Contains(err.Error(), "no owner mark") {
			t.Errorf("without a mark: %v", err)
		}
		claim(t, objects)
		for name, we := range map[string]ownership{
			"another cluster": {Cluster: "two", Epoch: "e1", Incarnation: 1},
			"another epoch":   {Cluster: "one", Epoch: "e2", Incarnation: 1},
			"an older life":   life(0, ""),
			"a restored one":  {Cluster: "two", Epoch: "e2", Incarnation: 2, Life: "x"},
			"an apart life":   life(1, "x"),
		} {
			for _, index := range []uint64{0, 99} {
				if err := held(objects, we).Raise(t.Context(), index); !errors.Is(err, errNotOwner) {
					t.Errorf("%s, index %d: got %v", name, index, err)
				}
			}
		}
		says(t, objects, "one", 1, 0)
	})
}

func TestOfTwoDirectoriesThatWereRecoveredApartOneOwnsTheStore(t *testing.T) {
	everyObjects(t, func(t *testing.T, objects blobs.Objects) {
		claim(t, objects)
		before, a, b := held(objects, life(1, "")), held(objects, life(2, "a")), held(objects, life(2, "b"))
		if err := before.Raise(t.Context(), 3); err != nil {
			t.Fatal(err)
		}
		if err := a.Raise(t.Context(), 5); err != nil {
			t.Fatal(err)
		}
		says(t, objects, "one", 2, 5)
		again := held(objects, life(3, "b.c")) // recovered once more: still not what the mark is of
		for name, m := range map[string]*heldMark{"left behind": before, "the other": b, "the other, recovered again": again} {
			if err := m.Raise(t.Context(), 9); !errors.Is(err, errNotOwner) || !strings.Contains(err.Error(), "another life") {
				t.Errorf("%s: got %v", name, err)
			}
		}
		says(t, objects, "one", 2, 5)
		if err := held(objects, life(3, "a.d")).Raise(t.Context(), 1); err != nil {
			t.Errorf("recovered from the owner: %v", err)
		}
		says(t, objects, "one", 3, 5)
	})
}

// A recovery may bring back a state that still needs what was swept by entries that it lost: no row says so, so the log
// does. A mark of the first release names no incarnation, and says nothing of a recovery.
func TestTakingUpAMarkSaysWhatItMayMean(t *testing.T) {
	for name, test := range map[string]struct {
		mark ownership
		says string
	}{
		"recovered, and swept before": {ownership{Cluster: "one", Epoch: "e1", Incarnation: 1, SweptThrough: 7}, "gc verify --mark-lost"},
		"recovered":                   {ownership{Cluster: "one", Epoch: "e1", Incarnation: 1}, "after a recovery"},
		"upgraded":                    {ownership{Cluster: "one", Epoch: "e1"}, "of an earlier release"},
	} {
		store, text := mem.New(0), &strings.Builder{}
		body, err := test.mark.encode("x")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := store.PutIfAbsent(t.Context(), markName, body); err != nil {
			t.Fatal(err)
		}
		m := held(store, life(2, "a"))
		m.log = slog.New(slog.NewTextHandler(text, nil))
		if err := m.Raise(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(text.String(), test.says) || test.says != "after a recovery" && strings.Contains(text.String(), "taken up after a recovery\"") {
			t.Errorf("%s: %s", name, text)
		}
	}
}

// Two leaders of one cluster, and two lives of it, raise at once: the index is the highest that an owner was told, and
// the lives that took it up are one.
func TestRacesForTheMarkHaveOneWinnerAndLoseNoIndex(t *testing.T) {
	everyObjects(t, func(t *testing.T, objects blobs.Objects) {
		claim(t, objects)
		lives := []ownership{life(2, "a"), life(2, "b")}
		errs := make([][]error, len(lives))
		var all sync.WaitGroup
		for i, we := range lives {
			errs[i] = make([]error, 4)
			for j := range errs[i] {
				all.Go(func() { errs[i][j] = held(objects, we).Raise(t.Context(), uint64(10*j+1)) })
			}
		}
		all.Wait()
		o, _, err := ownerMark{objects: objects}.read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for i, we := range lives {
			for j, err := range errs[i] {
				switch {
				case o.to(we) != owner && !errors.Is(err, errNotOwner):
					t.Errorf("life %s, raise %d: got %v, but the mark is of %s", we.Life, j, err, o.Life)
				case o.to(we) == owner && err == nil && o.SweptThrough < uint64(10*j+1):
					t.Errorf("life %s was told that %d is swept, the mark says %d", we.Life, 10*j+1, o.SweptThrough)
				case o.to(we) == owner && errors.Is(err, errNotOwner):
					t.Errorf("life %s owns the mark and was told %v", we.Life, err)
				}
			}
		}
	})
}

// trick is a store that does something else first.
type trick struct {
	blobs.Objects
	absent func(ctx context.Context, name string, body []byte) (string, error)
	match  func(ctx context.Context, name string, body []byte, version string) (string, error)
}

func (s trick) PutIfAbsent(ctx context.Context, name string, body []byte) (string, error) {
	if s.absent != nil && name != markName {
		return s.absent(ctx, name, body)
	}
	return s.Objects.PutIfAbsent(ctx, name, body)
}

func (s trick) PutIfMatch(ctx context.Context, name string, body []byte, version string) (string, error) {
	if s.match != nil && (name == markName || s.absent != nil) {
		return s.match(ctx, name, body, version)
	}
	return s.Objects.PutIfMatch(ctx, name, body, version)
}

func TestAnAnswerThatWasLostIsReadFromTheMark(t *testing.T) {
	for _, effect := range []bool{true, false} {
		store := mem.New(0)
		claim(t, store)
		calls := 0
		lossy := trick{Objects: store, match: func(ctx context.Context, name string, body []byte, version string) (string, error) {
			if calls++; calls > 1 {
				return store.PutIfMatch(ctx, name, body, version)
			}
			if effect {
				if _, err := store.PutIfMatch(ctx, name, body, version); err != nil {
					t.Error(err)
				}
			}
			return "", fmt.Errorf("the answer is lost: %w", blobs.ErrUnavailable)
		}}
		if err := held(lossy, life(1, "")).Raise(t.Context(), 4); err != nil {
			t.Errorf("effect %v: %v", effect, err)
		}
		says(t, store, "one", 1, 4)
	}
}

// A write that is delivered late meets a mark that has been elsewhere meanwhile, and is back: it must not land (its
// version is a sum of the bytes in S3).
func TestALateWriteOfTheMarkHasNoEffect(t *testing.T) {
	everyObjects(t, func(t *testing.T, objects blobs.Objects) {
		claim(t, objects)
		we := life(1, "")
		m := held(objects, we)
		if err := m.Raise(t.Context(), 4); err != nil {
			t.Fatal(err)
		}
		_, version, err := m.read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		other := ownership{Cluster: "two", Epoch: "e2", Incarnation: 1, SweptThrough: 4}
		we.SweptThrough = 4
		for _, o := range []ownership{other, we} { // away and back, to the same words
			_, now, err := m.read(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := m.replace(t.Context(), o, now); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := m.replace(t.Context(), other, version); !errors.Is(err, blobs.ErrChanged) {
			t.Errorf("the late write: got %v", err)
		}
		says(t, objects, "one", 1, 4)
	})
}

func TestAStoreThatIgnoresConditionsIsNeverDeletedFrom(t *testing.T) {
	store := mem.New(0)
	claim(t, store)
	accept := func(context.Context, string, []byte) (string, error) { return "1", nil }
	exists := func(context.Context, string, []byte) (string, error) { return "", blobs.ErrExists }
	take := func(context.Context, string, []byte, string) (string, error) { return "2", nil }
	lacks := func(context.Context, string, []byte) (string, error) { return "", blobs.ErrUnsupported }
	for name, s := range map[string]trick{
		"if absent": {Objects: store, absent: accept}, "if it matches": {Objects: store, absent: exists, match: take},
		"no conditional writes": {Objects: store, absent: lacks},
	} {
		if err := held(s, life(1, "")).Raise(t.Context(), 0); !errors.Is(err, errNotOwner) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if err := held(nil, life(1, "")).Raise(t.Context(), 0); !errors.Is(err, errNotOwner) {
		t.Errorf("without objects: got %v", err)
	}
	if err := held(away{store}, life(1, "")).Raise(t.Context(), 0); err == nil || errors.Is(err, errNotOwner) {
		t.Errorf("a store that does not answer: got %v", err)
	}
}

func TestAMarkIsAdoptedOnlyByNamingItsOwner(t *testing.T) {
	everyObjects(t, func(t *testing.T, objects blobs.Objects) {
		restored := &metav1.Restored{ClusterId: "one", Epoch: "e1", Incarnation: 1, Index: 10}
		newer := held(objects, ownership{Cluster: "two", Epoch: "e2", Incarnation: 2})
		old := held(objects, life(1, ""))
		claim(t, objects)
		if err := old.Raise(t.Context(), 8); err != nil {
			t.Fatal(err)
		}
		for from, want := range map[string]string{"": "belongs to cluster one: .* --from one", "three": "got from three, but the store belongs to cluster one"} {
			_, err := newer.judgeAdoption(t.Context(), from, restored)
			matches(t, from, err, metav1.Kind_KIND_CONFLICT, want)
		}
		a, err := newer.judgeAdoption(t.Context(), "one", restored)
		if err != nil || a.search || a.needless {
			t.Fatalf("got %+v, %v", a, err)
		}
		if _, err := newer.adopt(t.Context(), a, 99); err != nil {
			t.Fatal(err)
		}
		says(t, objects, "two", 2, 8)
		if err := old.Raise(t.Context(), 8); !errors.Is(err, errNotOwner) {
			t.Errorf("the old owner: got %v", err)
		}
		if err := newer.Raise(t.Context(), 1<<32); err != nil {
			t.Error(err)
		}
		if a, err := newer.judgeAdoption(t.Context(), "", restored); err != nil || !a.needless {
			t.Errorf("once more: got %+v, %v", a, err)
		}
		// And back: the old one looks for every layer first, since the new one has swept.
		if a, err := old.judgeAdoption(t.Context(), "two", nil); err != nil || !a.search {
			t.Errorf("back: got %+v, %v", a, err)
		}
	})
}

// Only of who restored from the very owner, to a point at or above all that it swept, is it certain that nothing is gone.
func TestLayersAreLookedForUnlessNothingCanBeGone(t *testing.T) {
	restored := &metav1.Restored{ClusterId: "one", Epoch: "e1", Incarnation: 2, Index: 10}
	seen := func(cluster, epoch string, swept uint64) markSeen {
		return markSeen{ownership: ownership{Cluster: cluster, Epoch: epoch, Incarnation: 2, SweptThrough: swept}}
	}
	ofLife := func(incarnation, swept uint64) markSeen {
		s := seen("one", "e1", swept)
		s.ownership.Incarnation = incarnation
		return s
	}
	for name, test := range map[string]struct {
		seen     markSeen
		restored *metav1.Restored
		want     bool
	}{
		"swept below the point": {seen("one", "e1", 9), restored, false}, "at the point": {seen("one", "e1", 10), restored, false},
		"above the point": {seen("one", "e1", 11), restored, true}, "another owner": {seen("three", "e1", 9), restored, true},
		"another epoch": {seen("one", "e3", 9), restored, true}, "never restored": {seen("one", "e1", 0), nil, true},
		"no mark": {markSeen{missing: true}, restored, true},
		"recovered since, and swept by its new log":      {ofLife(3, 9), restored, true},
		"recovered since, and nothing was swept":         {ofLife(3, 0), restored, false},
		"swept before the recovery that was restored":    {ofLife(1, 9), restored, true},
		"a mark of the first release, which never swept": {ofLife(0, 0), restored, false},
	} {
		if got := mayBeSwept(test.seen, test.restored); got != test.want {
			t.Errorf("%s: got %v", name, got)
		}
	}
}

// The old owner sweeps on while layers are looked for: what was judged does not hold any more.
func TestAnAdoptionIsRefusedWhenTheOwnerSweepsMeanwhile(t *testing.T) {
	store := mem.New(0)
	claim(t, store)
	restored := &metav1.Restored{ClusterId: "one", Epoch: "e1", Incarnation: 1, Index: 10}
	newer := held(store, ownership{Cluster: "two", Epoch: "e2", Incarnation: 2})
	a, err := newer.judgeAdoption(t.Context(), "one", restored)
	if err != nil {
		t.Fatal(err)
	}
	if err := held(store, life(1, "")).Raise(t.Context(), 11); err != nil {
		t.Fatal(err)
	}
	_, err = newer.adopt(t.Context(), a, 0)
	matches(t, "adopt", err, metav1.Kind_KIND_CONFLICT, "was changed meanwhile")
	says(t, store, "one", 1, 11)
	if a, err := newer.judgeAdoption(t.Context(), "one", restored); err != nil || !a.search {
		t.Errorf("swept above the point of the restore: got %+v, %v", a, err)
	}
}

func TestALostMarkIsMadeAnewAtWhatMayBeSwept(t *testing.T) {
	store := mem.New(0)
	m := held(store, life(2, "a"))
	_, err := m.judgeAdoption(t.Context(), "one", nil)
	matches(t, "from", err, metav1.Kind_KIND_CONFLICT, "has no owner mark: leave --from away")
	a, err := m.judgeAdoption(t.Context(), "", nil)
	if err != nil || !a.search {
		t.Fatalf("got %+v, %v", a, err)
	}
	if _, err := m.adopt(t.Context(), a, 42); err != nil {
		t.Fatal(err)
	}
	says(t, store, "one", 2, 42)
	if _, err := m.adopt(t.Context(), a, 42); meta.KindOf(err) != metav1.Kind_KIND_CONFLICT {
		t.Errorf("once more, as it was judged: got %v", err)
	}
}

// The answer to an adoption is lost: whoever adopts again finds that it is done.
func TestAnAdoptionWhoseAnswerWasLostMayBeRepeated(t *testing.T) {
	store := mem.New(0)
	claim(t, store)
	lossy := trick{Objects: store, match: func(ctx context.Context, name string, body []byte, version string) (string, error) {
		if _, err := store.PutIfMatch(ctx, name, body, version); err != nil {
			t.Error(err)
		}
		return "", blobs.ErrUnavailable
	}}
	m := held(lossy, ownership{Cluster: "two", Epoch: "e2", Incarnation: 1})
	restored := &metav1.Restored{ClusterId: "one", Epoch: "e1", Index: 10}
	a, err := m.judgeAdoption(t.Context(), "one", restored)
	if err != nil {
		t.Fatal(err)
	}
	_, err = m.adopt(t.Context(), a, 0)
	matches(t, "adopt", err, metav1.Kind_KIND_UNAVAILABLE, "adopting again is harmless")
	if a, err := m.judgeAdoption(t.Context(), "one", restored); err != nil || !a.needless {
		t.Errorf("again: got %+v, %v", a, err)
	}
}

func TestAMarkThatCannotBeReadIsHeldByNobody(t *testing.T) {
	store := mem.New(0)
	if _, err := store.PutIfAbsent(t.Context(), markName, []byte("{")); err != nil {
		t.Fatal(err)
	}
	m := held(store, life(1, ""))
	if err := m.Raise(t.Context(), 0); !errors.Is(err, errNotOwner) {
		t.Errorf("raise: got %v", err)
	}
	if _, err := m.judgeAdoption(t.Context(), "one", nil); meta.KindOf(err) != metav1.Kind_KIND_UNSUPPORTED {
		t.Errorf("adopt: got %v", err)
	}
}

func TestAMarkOfTheFirstReleaseIsUnderstood(t *testing.T) {
	store := mem.New(0)
	if _, err := store.PutIfAbsent(t.Context(), markName, []byte(`{"cluster":"one","epoch":"e1","swept_through":0}`)); err != nil {
		t.Fatal(err)
	}
	if err := held(store, life(2, "a")).Raise(t.Context(), 3); err != nil {
		t.Fatal(err)
	}
	says(t, store, "one", 2, 3)
}

// matches fails unless err is a refusal of the kind with words like want.
func matches(t *testing.T, what string, err error, kind metav1.Kind, want string) {
	t.Helper()
	if meta.KindOf(err) != kind || !regexp.MustCompile(want).MatchString(err.Error()) {
		t.Errorf("%s: got %v, expected %s: %s", what, err, kind, want)
	}
}

// FuzzOwnership: whatever is in the bucket under the mark's name is read or refused, never believed in part.
func FuzzOwnership(f *testing.F) {
	for _, s := range []string{"", "{}", "null", `{"cluster":"one","epoch":"e1"}`, `{"cluster":"one","epoch":"e1","swept_through":-1}`,
		`{"cluster":"one","epoch":"e1","swept_through":18446744073709551615,"incarnation":2,"life":"a.b","turn":"x"}`, `{"Cluster":"one","EPOCH":"e1"}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		o, err := parseOwnership(body)
		if err != nil {
			if !errors.Is(err, blobs.ErrCorrupt) || o != (ownership{}) {
				t.Fatalf("got %+v, %v", o, err)
			}
			return
		}
		written, err := o.encode(o.Turn)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := parseOwnership(written); err != nil || again != o {
			t.Fatalf("%+v was written and read as %+v, %v", o, again, err)
		}
		if o.to(o) != owner {
			t.Fatalf("%+v is not its own", o)
		}
	})
}
