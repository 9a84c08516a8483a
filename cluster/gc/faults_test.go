package gc

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/pontoon-registry/pontoon/blobs"
	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// scene is a world in which every phase has something to do and something to spare.
type scene struct {
	*world
	// spared are keys that must stay whatever happens, besides those of the images.
	spared []string
	// openMultipart must stay too.
	openMultipart string
}

// sceneGrace and sceneDelay are short: the store's own timers tick through every hour of the bubble.
const (
	sceneGrace  = time.Minute
	sceneDelay  = 2 * time.Minute
	sceneOrphan = 5 * time.Minute
)

// short makes the times of the ledger those of the scene.
func (w *world) short() {
	w.t.Helper()
	settings := meta.DefaultSettings()
	settings.Grace, settings.DeleteDelay, settings.UploadLifetime = int64(sceneGrace), int64(sceneDelay), int64(time.Hour)
	if err := w.solo.Configure(w.t.Context(), settings); err != nil {
		w.t.Fatal(err)
	}
}

func (s *scene) config() Config {
	cfg := s.world.config()
	cfg.UnsafeShort, cfg.OrphanAge, cfg.Untagged = true, sceneOrphan, true
	cfg.Poll = 100 * time.Millisecond
	return cfg
}

func newScene(t testing.TB) *scene {
	s := &scene{world: newWorld(t)}
	s.short()
	// Condemned long ago: deleted now, some with a multipart upload open under the key.
	for n := range 3 {
		body := s.pushImage("old/x", "t", []byte(fmt.Sprintf("old-%d", n)))
		s.deleteImage("old/x", body)
		u := s.open("old/x")
		s.write(u, []byte("multipart and tail"))
		s.save(u)
		s.propose(&metav1.Command{Kind: &metav1.Command_CancelUpload{CancelUpload: &metav1.CancelUpload{Id: u.id, Repository: "old/x"}}})
	}
	// Written by an attempt that lost: nobody knows it.
	for range 3 {
		s.plant("solo")
		s.plantMultipart("solo")
	}
	// Of another cluster.
	s.spared = append(s.spared, s.plant("other"))
	// Being written for as long, and known to the ledger by the upload only, or by key.
	u, v := s.open("new/x"), s.open("new/x")
	s.write(u, []byte("small"))
	s.spared = append(s.spared, u.progress.Pieces[0].Key)
	s.write(v, []byte("more than one part"))
	s.save(v)
	s.spared = append(s.spared, v.progress.Pieces[0].Key)
	s.openMultipart = v.progress.MultipartID

	time.Sleep(sceneGrace + time.Second)
	s.request()
	first := s.finish(s.collector(s.config())) // condemns what is old
	if n := first.GetCount(); n.GetCondemnedBlobs() != 3 || n.GetDeletedKeys() != 0 || n.GetOrphanKeys() != 0 {
		t.Fatalf("the first cycle: %v", n)
	}
	// Live, by tag, as a child and as a referrer.
	s.pushImage("live/a", "t", []byte("one"), []byte("two"))
	s.pushImage("live/b", "t", []byte("one"), []byte("three"), []byte("a longer layer, in parts"))
	child := s.pushImage("live/c", "gone", []byte("four"))
	s.putManifest("live/c", index(child), "idx")
	s.propose(&metav1.Command{Kind: &metav1.Command_DeleteTag{DeleteTag: &metav1.DeleteTag{Repository: "live/c", Tag: "gone"}}})
	s.push("live/c", []byte("sig"))
	sig := image(child, []byte("sig"))
	s.putManifest("live/c", sig)
	s.images["live/c "+digestOf(sig).String()] = [][]byte{[]byte("sig")}
	// To be condemned now, and untagged manifests that go.
	for n := range 3 {
		body := s.pushImage("dead/x", "t", []byte(fmt.Sprintf("dead-%d", n)), []byte("one"))
		s.deleteImage("dead/x", body)
		layer := []byte(fmt.Sprintf("loose-%d", n))
		s.push("loose/x", layer)
		s.putManifest("loose/x", image(nil, layer))
	}
	time.Sleep(sceneOrphan + time.Second)
	s.spared = append(s.spared, s.plant("solo")) // young
	s.publish()                                  // the clock of a view is that of the last entry
	return s
}

// safe fails the test if anything is gone that must not be.
func (s *scene) safe(when string) {
	s.t.Helper()
	s.pulls()
	have := s.keys()
	for _, key := range s.spared {
		if !slices.Contains(have, key) {
			s.t.Fatalf("%s: %s is gone, which must stay\n%s", when, key, s.log)
		}
	}
	if !slices.Contains(s.multiparts(), s.openMultipart) {
		s.t.Fatalf("%s: the multipart upload of an open upload is gone", when)
	}
}

// clean fails the test if anything is left that should go, after some more cycles.
func (s *scene) clean(when string) {
	s.t.Helper()
	for range 3 {
		time.Sleep(sceneDelay + time.Second)
		s.request()
		if c := s.finish(s.collector(s.config())); c.GetOutcome() != metav1.CycleOutcome_CYCLE_OUTCOME_DONE {
			s.t.Fatalf("%s: a later cycle without faults ended %v: %s", when, c.GetOutcome(), c.GetTrouble())
		}
	}
	young := s.spared[len(s.spared)-1]
	s.spared = s.spared[:len(s.spared)-1] // it is old by now
	s.safe(when)
	want := append(s.liveKeys(), s.spared...)
	slices.Sort(want)
	if got := s.keys(); !slices.Equal(got, want) {
		s.t.Fatalf("%s: the store holds\n%q, want\n%q (young was %s)\n%s", when, got, want, young, s.log)
	}
	if got := s.multiparts(); len(got) != 1 {
		s.t.Fatalf("%s: multipart uploads %q, want only the open one", when, got)
	}
	s.view(func(v *meta.View) {
		rows, _, _, err := v.Condemned("main", "", 100)
		if err != nil || len(rows) != 0 {
			s.t.Fatalf("%s: condemned keys are left: %v %v", when, rows, err)
		}
	})
}

// calls are those of one undisturbed cycle, and its row.
func sceneCalls(t *testing.T) (calls []string, row *metav1.Cycle) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		p := &tap{}
		s.request()
		row = s.finish(s.collector(p.config(s.config())))
		calls = p.calls
		for len(calls) > 2 && calls[len(calls)-2] == "view" { // looking for the next cycle
			calls = calls[:len(calls)-1]
		}
		s.safe("undisturbed")
		s.clean("undisturbed")
	})
	return calls, row
}

func TestACycleDoesAllOfItsWork(t *testing.T) {
	calls, row := sceneCalls(t)
	want := &metav1.CycleCount{
		Marked: 12, UntaggedManifests: 3, CondemnedBlobs: 3, CondemnedBytes: 18, DeletedKeys: 13, DeletedBytes: 81,
		OrphanKeys: 3, OrphanBytes: 9, AbortedMultiparts: 6,
	}
	if !proto.Equal(row.GetCount(), want) || row.GetOutcome() != metav1.CycleOutcome_CYCLE_OUTCOME_DONE {
		t.Errorf("the cycle: %v, want %v", row, want)
	}
	t.Logf("%d calls: %q", len(calls), calls)
}

// TestACollectorThatIsKilledAnywhereLosesNothingAndLeaksNothing kills it at each of its calls, before and after the
// effect; another node goes on.
func TestACollectorThatIsKilledAnywhereLosesNothingAndLeaksNothing(t *testing.T) {
	t.Parallel()
	calls, undisturbed := sceneCalls(t)
	for n := 1; n <= len(calls); n++ {
		for _, effect := range []bool{false, true} {
			when := fmt.Sprintf("killed at call %d, %s, effect %v", n, calls[n-1], effect)
			synctest.Test(t, func(t *testing.T) {
				s := newScene(t)
				ctx, kill := context.WithCancel(t.Context())
				p := &tap{at: n, meet: func(_ context.Context, call func() error) error {
					if effect {
						_ = call() // nobody hears the answer
					}
					kill()
					return context.Canceled
				}}
				s.request()
				if err := s.collector(p.config(s.config())).Run(ctx); err != nil {
					t.Fatal(err)
				}
				s.safe(when)
				c := s.finish(s.collector(s.config()))
				s.safe(when)
				checkCounts(t, when, c.GetCount(), undisturbed.GetCount())
				s.clean(when)
			})
			if t.Failed() {
				return
			}
		}
	}
}

// checkCounts: what commands did is counted once, whatever happened. Only orphans have no row that remembers them, and a
// blob that was condemned just before is not looked at again.
func checkCounts(t *testing.T, when string, got, want *metav1.CycleCount) {
	t.Helper()
	got, want = proto.CloneOf(got), proto.CloneOf(want)
	if got.GetMarked() > want.GetMarked() || got.GetMarked() < want.GetMarked()-want.GetCondemnedBlobs() ||
		got.GetOrphanKeys() > want.GetOrphanKeys() || got.GetAbortedMultiparts() > want.GetAbortedMultiparts() {
		t.Fatalf("%s: counted %v, more or less than there was: %v", when, got, want)
	}
	for _, c := range []*metav1.CycleCount{got, want} {
		c.Marked, c.OrphanKeys, c.OrphanBytes, c.AbortedMultiparts = 0, 0, 0, 0
	}
	if !proto.Equal(got, want) {
		t.Fatalf("%s: counted %v, want %v", when, got, want)
	}
}

// TestACallThatFailsAnywhereLosesNothingAndLeaksNothing lets each call fail once, before and after its effect; the same
// collector goes on.
func TestACallThatFailsAnywhereLosesNothingAndLeaksNothing(t *testing.T) {
	t.Parallel()
	calls, _ := sceneCalls(t)
	for n := 1; n <= len(calls); n++ {
		for _, effect := range []bool{false, true} {
			when := fmt.Sprintf("failed at call %d, %s, effect %v", n, calls[n-1], effect)
			synctest.Test(t, func(t *testing.T) {
				s := newScene(t)
				p := &tap{at: n, meet: func(_ context.Context, call func() error) error {
					if effect {
						_ = call() // nobody hears the answer
					}
					return failure(calls[n-1])
				}}
				s.request()
				s.finish(s.collector(p.config(s.config())))
				s.safe(when)
				s.clean(when)
			})
			if t.Failed() {
				return
			}
		}
	}
}

// failure is what a call answers that fails for now.
func failure(what string) error {
	switch what {
	case "view":
		return meta.Refuse(metav1.Kind_KIND_UNAVAILABLE, metav1.Noun_NOUN_CLUSTER, "no leader")
	case "delete", "abort", "stat", "list", "listmultiparts", "raise":
		return fmt.Errorf("%s: 503 SlowDown: %w", what, blobs.ErrUnavailable)
	}
	return meta.Refuse(metav1.Kind_KIND_OUTCOME_UNKNOWN, metav1.Noun_NOUN_CLUSTER, "no answer")
}

// TestACallThatHangsAnywhereIsGivenUp: no answer ever comes, and the effect comes late.
func TestACallThatHangsAnywhereIsGivenUp(t *testing.T) {
	t.Parallel()
	calls, _ := sceneCalls(t)
	for n := 1; n <= len(calls); n++ {
		when := fmt.Sprintf("hanging at call %d, %s", n, calls[n-1])
		synctest.Test(t, func(t *testing.T) {
			s := newScene(t)
			var late func() error
			p := &tap{at: n, meet: func(ctx context.Context, call func() error) error {
				late = call
				<-ctx.Done()
				if calls[n-1] == "view" {
					late = nil // a view that nobody waits for reads nothing
				}
				return context.Cause(ctx)
			}}
			s.request()
			s.finish(s.collector(p.config(s.config())))
			if late != nil {
				_ = late() // its context has ended; the store or the ledger did it all the same, or not
			}
			s.safe(when)
			s.clean(when)
		})
		if t.Failed() {
			return
		}
	}
}
