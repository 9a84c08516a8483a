package gc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/pontoon-registry/pontoon/blobs"
	"github.com/pontoon-registry/pontoon/blobs/blobstest"
	"github.com/pontoon-registry/pontoon/meta"
	"github.com/pontoon-registry/pontoon/meta/kv"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

func TestWithoutTheMarkNothingIsDeleted(t *testing.T) {
	for name, mark := range map[string]error{"of another": ErrNotOwner, "unreadable": blobs.ErrUnavailable} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScene(t)
				before := s.keys()
				s.mark.err = fmt.Errorf("cluster x has it: %w", mark)
				s.request()
				c := s.finish(s.collector(s.config()))
				if got := s.keys(); !slices.Equal(got, before) || len(s.multiparts()) != 7 {
					t.Fatal("something was deleted")
				}
				n, k := c.GetCount(), c.GetKept()
				if c.GetOutcome() != metav1.CycleOutcome_CYCLE_OUTCOME_TROUBLED || c.GetTrouble() == "" || n.GetCondemnedBlobs() != 3 {
					t.Errorf("the cycle: %v", c)
				}
				if k.GetKeys() != 16 || (k.GetForMark() == 13) != errors.Is(mark, ErrNotOwner) || k.GetForDelay() != 3 {
					t.Errorf("kept: %v", k)
				}
				s.safe("without the mark")
				s.mark.err = nil
				s.clean("with the mark again")
			})
		})
	}
}

// lawful is a store that fails the test when it is asked to delete what must stay: a key that is not condemned, not due
// (G6), or above what the mark says (G9); or an orphan that may be written still.
type lawful struct {
	blobs.Store
	s *scene
}

func (l lawful) Delete(ctx context.Context, keys ...string) error {
	l.s.t.Helper()
	highest := slices.Max(append([]uint64{0}, l.s.mark.raised...))
	l.s.view(func(v *meta.View) {
		oldest, any, err := v.OldestRestorable()
		if err != nil {
			l.s.t.Fatal(err)
		}
		for _, key := range keys {
			row, err := v.Object("main", key)
			if err != nil {
				continue // an orphan
			}
			c := row.GetCondemned()
			switch {
			case c == nil:
				l.s.t.Errorf("delete of %s, which is %v", key, row)
			case c.GetNotBefore() > v.ClusterTime() || any && c.GetIndex() >= oldest:
				l.s.t.Errorf("delete of %s, which is not due: %v at %d, oldest %d", key, c, v.ClusterTime(), oldest)
			case c.GetIndex() > highest:
				l.s.t.Errorf("delete of %s, condemned at %d: the mark says %d", key, c.GetIndex(), highest)
			}
		}
	})
	if len(l.s.mark.raised) == 0 {
		l.s.t.Error("delete before the mark was asked")
	}
	l.s.mark.raised = append(l.s.mark.raised, 0) // asked before each call
	return l.Store.Delete(ctx, keys...)
}

func TestABackupKeepsWhatItNeeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		cfg := s.config()
		cfg.Store = lawful{cfg.Store, s}
		id := randomID()
		s.propose(&metav1.Command{Kind: &metav1.Command_OpenBackup{OpenBackup: &metav1.OpenBackup{Id: id, Place: "backup"}}})
		for range 3 { // what was condemned before goes, what is condemned after it stays
			s.request()
			s.finish(s.collector(cfg))
			time.Sleep(sceneDelay + time.Second)
		}
		c := s.last()
		if k := c.GetKept(); k.GetForBackup() != 6 || k.GetKeys() != 6 || c.GetCount().GetDeletedKeys() != 0 {
			t.Errorf("with a backup: kept %v, done %v", k, c.GetCount())
		}
		if items := s.plan(cfg, PlanOptions{}); len(items) == 0 || items[0].What != KeepKey || !strings.Contains(items[0].Reason, "backup "+id) {
			t.Errorf("the plan: %+v", items)
		}
		s.safe("with a backup")
		s.propose(&metav1.Command{Kind: &metav1.Command_RetireBackup{RetireBackup: &metav1.RetireBackup{Id: id}}})
		s.clean("without it")
	})
}

// TestADeposedCollectorDoesNoHarm lets one pause before each of its calls while another one does all the rest, clients
// push again what was just deleted, and time passes; then it goes on with what it decided before.
func TestADeposedCollectorDoesNoHarm(t *testing.T) {
	t.Parallel()
	calls, undisturbed := sceneCalls(t)
	for n := 1; n <= len(calls); n++ {
		when := fmt.Sprintf("paused before call %d, %s", n, calls[n-1])
		synctest.Test(t, func(t *testing.T) {
			s := newScene(t)
			p := &tap{at: n, meet: func(_ context.Context, call func() error) error {
				other := s.collector(s.config())
				if row := s.collection(); row.GetRequested() != nil || row.GetRunning() != nil {
					checkCounts(t, when, s.finish(other).GetCount(), undisturbed.GetCount())
				}
				for i := range 3 {
					s.pushImage("again/x", fmt.Sprint("t", i), []byte(fmt.Sprintf("old-%d", i)), []byte(fmt.Sprintf("dead-%d", i)), []byte(fmt.Sprintf("loose-%d", i)))
				}
				time.Sleep(sceneOrphan / 2)
				return call()
			}}
			cfg := p.config(s.config())
			cfg.Store = lawful{cfg.Store, s}
			s.request()
			s.finish(s.collector(cfg))
			s.safe(when)
			for _, c := range s.history() {
				if c.GetBegun().GetIndex() == undisturbedID(s) {
					checkCounts(t, when, c.GetCount(), undisturbed.GetCount())
				}
			}
			s.clean(when)
		})
		if t.Failed() {
			return
		}
	}
}

// TestTwoCollectorsCountWhatWentOnce lets one pause where it is about to delete; another one does the rest of the cycle but
// does not come to end it. Both deleted the same keys, and both would count them.
func TestTwoCollectorsCountWhatWentOnce(t *testing.T) {
	t.Parallel()
	calls, undisturbed := sceneCalls(t)
	met := 0
	for n := 1; n <= len(calls); n++ {
		if calls[n-1] != "delete" && calls[n-1] != "abort" {
			continue
		}
		met++
		when := fmt.Sprintf("paused before call %d, %s", n, calls[n-1])
		synctest.Test(t, func(t *testing.T) {
			s := newScene(t)
			p := &tap{at: n, meet: func(_ context.Context, call func() error) error {
				if s.collection().GetRunning() == nil {
					return call() // names are random, so is the order of the calls: the cycle is over, and nothing would end the other
				}
				ctx, kill := context.WithCancel(t.Context())
				defer kill()
				other := s.config()
				other.Ledger = endless{other.Ledger, kill}
				if err := s.collector(other).Run(ctx); err != nil {
					t.Fatal(err)
				}
				return call()
			}}
			s.request()
			c := s.finish(s.collector(p.config(s.config())))
			s.safe(when)
			checkCounts(t, when, c.GetCount(), undisturbed.GetCount())
		})
	}
	if met < 10 {
		t.Errorf("only %d deletes in a cycle", met)
	}
}

// TestWhatIsPushedAgainBeforeTheCommandStays pushes what was found unneeded between the view and the command (G3).
func TestWhatIsPushedAgainBeforeTheCommandStays(t *testing.T) {
	calls, _ := sceneCalls(t)
	for n := 1; n <= len(calls); n++ {
		if !strings.HasPrefix(calls[n-1], "propose") && calls[n-1] != "delete" {
			continue
		}
		when := fmt.Sprintf("pushed before call %d, %s", n, calls[n-1])
		synctest.Test(t, func(t *testing.T) {
			s := newScene(t)
			p := &tap{at: n, meet: func(_ context.Context, call func() error) error {
				for i := range 3 {
					layers := [][]byte{[]byte(fmt.Sprintf("old-%d", i)), []byte(fmt.Sprintf("dead-%d", i)), []byte(fmt.Sprintf("loose-%d", i))}
					s.pushImage("again/x", fmt.Sprint("t", i), layers...)
					s.putManifest("loose/x", image(nil, layers[2]), fmt.Sprint("t", i)) // it may be there still
				}
				return call()
			}}
			s.request()
			s.finish(s.collector(p.config(s.config())))
			s.safe(when)
			if _, all := s.verify(s.config(), VerifyOptions{}); len(all) > 0 {
				t.Errorf("%s: %+v", when, all)
			}
		})
		if t.Failed() {
			return
		}
	}
}

// endless ends the collector instead of the cycle.
type endless struct {
	meta.Ledger
	kill func()
}

func (e endless) Propose(ctx context.Context, c *metav1.Command) (*metav1.Result, error) {
	if c.GetAdvanceCycle().GetOutcome() != metav1.CycleOutcome_CYCLE_OUTCOME_UNSPECIFIED {
		e.kill()
		return nil, context.Canceled
	}
	return e.Ledger.Propose(ctx, c)
}

func (w *world) history() (rows []*metav1.Cycle) {
	w.t.Helper()
	w.view(func(v *meta.View) {
		var err error
		if rows, err = v.Cycles(100); err != nil {
			w.t.Fatal(err)
		}
	})
	return rows
}

// undisturbedID is the cycle of the scene: the second.
func undisturbedID(s *scene) uint64 {
	rows := s.history()
	return rows[len(rows)-2].GetBegun().GetIndex()
}

// TestPushesAtEveryCallSurvive pushes, mounts and deletes around every call of a collector for which nothing is too
// young: what was listed before the view began is all that it may judge (G7).
func TestPushesAtEveryCallSurvive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		young := s.spared[len(s.spared)-1]
		s.spared = s.spared[:len(s.spared)-1]
		var open *upload
		n := 0
		push := func(string) {
			n++
			if open != nil { // it was open across one call
				data := []byte(fmt.Sprint("slow-", n))
				s.write(open, data)
				if len(data) > 8 {
					s.save(open)
				}
				s.propose(&metav1.Command{Kind: &metav1.Command_CommitUpload{CommitUpload: s.commit(open, data)}})
				body := image(nil, data)
				s.putManifest("busy/slow", body, fmt.Sprint("t", n))
				s.images["busy/slow "+digestOf(body).String()] = [][]byte{data}
			}
			open = s.open("busy/slow")
			s.pushImage("busy/x", "t", []byte(fmt.Sprint("busy-", n)), []byte("one"))
			s.deleteImage("busy/y", s.pushImage("busy/y", "t", []byte(fmt.Sprint("gone-", n))))
			time.Sleep(time.Millisecond) // now it is old enough
		}
		p := &tap{before: push}
		cfg := p.config(s.config())
		cfg.OrphanAge = 1
		s.request()
		c := s.collector(cfg)
		c.sizes.page, c.sizes.visit = 20, 20 // each call pushes, and each push may make a page longer
		s.finish(c)
		s.pulls()
		if slices.Contains(s.keys(), young) {
			t.Errorf("%s is there still: nothing was too young", young)
		}
		if n < 50 {
			t.Errorf("only %d pushes", n)
		}
	})
}

func TestALateWriteIsAnOrphan(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.short()
		u := w.open("a/x")
		w.write(u, []byte("late"))
		w.save(u)
		key := u.progress.Pieces[0].Key
		w.propose(&metav1.Command{Kind: &metav1.Command_CancelUpload{CancelUpload: &metav1.CancelUpload{Id: u.id, Repository: "a/x"}}})
		time.Sleep(sceneDelay + time.Second)
		cfg := w.config()
		cfg.UnsafeShort, cfg.OrphanAge = true, sceneOrphan
		p := &tap{}
		p.before = func(what string) {
			if what == "propose *metav1.Command_ForgetKeys" {
				w.write(u, []byte("late")) // delivered between the deletion and its record
			}
		}
		if n := w.cycle(p.config(cfg)).GetCount(); n.GetDeletedKeys() != 1 || n.GetOrphanKeys() != 0 {
			t.Errorf("the first cycle: %v", n)
		}
		expectKeys(t, w, key)
		time.Sleep(sceneOrphan + time.Second)
		if n := w.cycle(cfg).GetCount(); n.GetOrphanKeys() != 1 {
			t.Errorf("the second cycle: %v", n)
		}
		expectKeys(t, w)
		w.write(u, []byte("late")) // and again, long after
		time.Sleep(sceneOrphan + time.Second)
		w.cycle(cfg)
		expectKeys(t, w)
	})
}

// TestAStoreThatAsksToSlowDownIsLeftAlone: few calls, an end with trouble, and the rest in the next cycle.
func TestAStoreThatAsksToSlowDownIsLeftAlone(t *testing.T) {
	slow := fmt.Errorf("503 SlowDown: %w", blobs.ErrUnavailable)
	for _, action := range []string{"delete", "abort", "list", "listmultiparts"} {
		t.Run(action, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScene(t)
				before := s.keys()
				faulty := blobstest.NewFaulty(s.store, blobstest.Fault{Action: action, Before: slow})
				cfg := s.config()
				cfg.Store = faulty
				s.request()
				c := s.finish(s.collector(cfg))
				if c.GetOutcome() != metav1.CycleOutcome_CYCLE_OUTCOME_TROUBLED || !strings.Contains(c.GetTrouble(), "SlowDown") {
					t.Errorf("the cycle: %v", c)
				}
				if n := faulty.Calls(action); n < 1 || n > 2 { // once in each of two phases
					t.Errorf("%d calls of %s", n, action)
				}
				if action == "delete" && !slices.Equal(s.keys(), before) {
					t.Error("something was deleted")
				}
				s.safe(action)
				s.clean(action)
			})
		})
	}
}

// refusing is a store that does not let some keys go, as S3 says it: key by key.
type refusing struct {
	blobs.Store
	locked func(key string) bool
	calls  *int
}

func (r refusing) Delete(ctx context.Context, keys ...string) error {
	*r.calls++
	var failed []error
	for _, key := range keys {
		if r.locked(key) {
			failed = append(failed, fmt.Errorf("delete %s: AccessDenied: object lock", key))
		} else if err := r.Store.Delete(ctx, key); err != nil {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

func TestKeysThatDoNotGoAreCountedAndComeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		var locked []string
		for _, i := range s.plan(s.config(), PlanOptions{}) {
			if i.What == DeleteKey && slices.Contains(s.keys(), i.Key) && len(locked) < 3 {
				locked = append(locked, i.Key)
			}
		}
		calls := 0
		cfg := s.config()
		cfg.Store = refusing{cfg.Store, func(key string) bool { return slices.Contains(locked, key) }, &calls}
		c := s.collector(cfg)
		c.sizes.page = 6 // three refused in a row are no reason to stop
		s.request()
		row := s.finish(c)
		n, k := row.GetCount(), row.GetKept()
		if row.GetOutcome() != metav1.CycleOutcome_CYCLE_OUTCOME_TROUBLED || !strings.Contains(row.GetTrouble(), "AccessDenied") {
			t.Errorf("the cycle: %v", row)
		}
		if n.GetFailed() != 3 || n.GetDeletedKeys() != 10 || n.GetOrphanKeys() != 3 || k.GetKeys() != 3+3 {
			t.Errorf("%v, kept %v, want 3 failed and kept besides the 3 new ones", n, k)
		}
		if warned := bytes.Count(s.log.Bytes(), []byte("level=WARN")); warned != 1 {
			t.Errorf("%d warnings, want one for the phase:\n%s", warned, s.log)
		}
		s.safe("locked")
		s.clean("unlocked")
	})
}

func TestAStoreThatLetsNothingGoIsLeftAlone(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.short()
		for n := range 20 {
			w.deleteImage("a/x", w.pushImage("a/x", "t", []byte(fmt.Sprint("gone-", n))))
			w.plant("solo")
		}
		time.Sleep(sceneGrace + time.Second)
		cfg := w.config()
		w.cycle(cfg)
		time.Sleep(sceneOrphan)
		cfg.UnsafeShort, cfg.OrphanAge = true, sceneOrphan
		calls, before := 0, w.keys()
		cfg.Store = refusing{cfg.Store, func(string) bool { return true }, &calls}
		c := w.cycle(cfg)
		if calls > 4 || c.GetKept().GetKeys() != 20 || !slices.Equal(w.keys(), before) {
			t.Errorf("%d deletes were asked for, want a page of keys in each phase: %v", calls, c)
		}
		if n := w.cycle(w.config()).GetCount(); n.GetDeletedKeys() != 20 {
			t.Errorf("unlocked: %v", n)
		}
	})
}

// shy lists no multipart uploads, as some servers do not by prefix.
type shy struct{ blobs.Store }

func (shy) ListMultiparts(context.Context, string) iter.Seq2[blobs.Multipart, error] {
	return func(func(blobs.Multipart, error) bool) {}
}

func TestMultipartUploadsThatTheLedgerKnowsNeedNoListing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		cfg := s.config()
		cfg.Store = shy{cfg.Store}
		s.request()
		n := s.finish(s.collector(cfg)).GetCount()
		if n.GetAbortedMultiparts() != 3 || len(s.multiparts()) != 4 {
			t.Errorf("%v, left %q", n, s.multiparts())
		}
		s.clean("with a listing")
	})
}

func TestAnExpiredUploadLeavesNothing(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.short()
		saved, unsaved := w.open("a/x"), w.open("a/x")
		w.write(saved, []byte("more than one part"))
		w.save(saved)
		w.write(unsaved, []byte("more than one part"))
		cfg := w.config()
		cfg.UnsafeShort, cfg.OrphanAge = true, sceneOrphan
		time.Sleep(59 * time.Minute)
		if n := w.cycle(cfg).GetCount(); n.GetOrphanKeys()+n.GetAbortedMultiparts()+n.GetDeletedKeys() != 0 {
			t.Errorf("while they are open: %v", n)
		}
		time.Sleep(2 * time.Minute)
		w.expire()
		time.Sleep(sceneDelay + time.Second)
		w.cycle(cfg)
		expectKeys(t, w)
		if got := w.multiparts(); len(got) != 0 {
			t.Errorf("left: %q", got)
		}
	})
}

// TestAMultipartUploadUnderALiveKeyGoes: a driver that asked twice left one that nobody knows.
func TestAMultipartUploadUnderALiveKeyGoes(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		data := []byte("more than one part")
		w.pushImage("a/x", "t", data)
		name, _, err := blobs.ParseKey(w.keyOf("a/x", data))
		if err != nil {
			t.Fatal(err)
		}
		wr, err := w.store.Writer(t.Context(), blobs.Attempt{Name: name, PartBase: 1, Length: 20})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(wr, "0123456789")
		cfg := w.config()
		cfg.UnsafeShort, cfg.OrphanAge = true, sceneOrphan
		time.Sleep(sceneOrphan / 2)
		if w.cycle(cfg); len(w.multiparts()) != 1 {
			t.Error("it was too young to go")
		}
		time.Sleep(sceneOrphan)
		if w.cycle(cfg); len(w.multiparts()) != 0 {
			t.Error("it is there still")
		}
		w.pulls()
	})
}

func TestAnotherEpochGoesOnlyWhenItIsGivenUp(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.pushImage("a/x", "t", []byte("one"))
		old, far := w.plant("before"), w.plant("elsewhere")
		w.plantMultipart("before")
		w.plantMultipart("elsewhere")
		time.Sleep(23 * time.Hour)
		w.cycle(w.config(), "before")
		if len(w.keys()) != 3 {
			t.Fatal("what is younger than 24 h is gone")
		}
		time.Sleep(2 * time.Hour)
		w.cycle(w.config())
		if len(w.keys()) != 3 {
			t.Fatal("the objects of another epoch are gone")
		}
		c := w.cycle(w.config(), "before")
		if n := c.GetCount(); n.GetOrphanKeys() != 1 || n.GetAbortedMultiparts() != 1 || len(w.multiparts()) != 1 {
			t.Errorf("the cycle: %v", c)
		}
		expectKeys(t, w, append(w.liveKeys(), far)...)
		if slices.Contains(w.keys(), old) {
			t.Error("what was given up is there still")
		}
	})
}

// TestAClockThatIsWrongDeletesNothingThatIsNeeded: then the ledger's word alone guards.
func TestAClockThatIsWrongDeletesNothingThatIsNeeded(t *testing.T) {
	for _, off := range []time.Duration{100 * 24 * time.Hour, -100 * 24 * time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			s := newScene(t)
			s.spared = slices.Clip(s.spared)[:len(s.spared)-1] // the young one is no upload's
			cfg := s.config()
			cfg.Now = func() time.Time { return time.Now().Add(off) }
			s.request()
			c := s.finish(s.collector(cfg))
			s.safe(fmt.Sprint("the clock is off by ", off))
			if n := c.GetCount().GetOrphanKeys(); (n == 4) != (off > 0) {
				t.Errorf("%d orphans went with a clock that is off by %v", n, off)
			}
		})
	}
}

func TestDeletesKeepTheirPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		cfg := s.config()
		cfg.DeletesPerSecond = 1
		began := time.Now()
		s.request()
		n := s.finish(s.collector(cfg)).GetCount()
		total := n.GetDeletedKeys() + n.GetOrphanKeys() + n.GetAbortedMultiparts()
		if took := time.Since(began); took < time.Duration(total-1)*time.Second || took > time.Duration(total+5)*time.Second {
			t.Errorf("%d deletes at one a second took %v", total, took)
		}
		s.safe("slowly")
	})
}

// old answers views that were not proven fresh.
type old struct{ meta.Ledger }

func (o old) View(ctx context.Context, read meta.Read, fn func(*meta.View) error) error {
	return o.Ledger.View(ctx, read, func(v *meta.View) error {
		v.MarkStale()
		return fn(v)
	})
}

func TestAViewThatMayBeOldDecidesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		before, at := s.keys(), s.index()
		s.request()
		cfg := s.config()
		cfg.Ledger = old{cfg.Ledger}
		s.reign(cfg, time.Minute)
		if !slices.Equal(s.keys(), before) || s.index() != at+1 {
			t.Error("something was done by an old view")
		}
		if _, err := s.collector(cfg).Verify(t.Context(), VerifyOptions{Folder: t.TempDir()}, func(Difference) error { return nil }); err == nil {
			t.Error("Verify believes an old view")
		}
		s.finish(s.collector(s.config()))
		s.clean("by fresh ones")
	})
}

func TestAnOlderClusterHasNoCycles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, err := kv.OpenMemory()
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		state, err := meta.Open(store)
		if err != nil {
			t.Fatal(err)
		}
		data, err := proto.Marshal(&metav1.Entry{Format: 1, Commands: []*metav1.Command{{Kind: &metav1.Command_InitCluster{
			InitCluster: &metav1.InitCluster{ClusterId: "c", Epoch: "e", Version: 2}}}}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := state.Apply([]meta.LogEntry{{Index: 1, Term: 1, Data: data}}); err != nil {
			t.Fatal(err)
		}
		state.Close()
		solo, err := meta.NewSolo(store, func() int64 { return time.Now().UnixNano() })
		if err != nil {
			t.Fatal(err)
		}
		defer solo.Close()
		w := &world{t: t, solo: solo}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		p := &tap{}
		c, err := New(p.config(Config{Ledger: solo, Store: blobstest.NewFaulty(nil), StoreName: "main", Mark: &markRecorder{}}))
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if w.index() != 1 || len(p.calls) < 30 {
			t.Errorf("index %d after %q", w.index(), p.calls)
		}
	})
}

// watching remembers what a Watcher is told.
type watching struct {
	phases []metav1.CyclePhase
	ended  []*metav1.Cycle
}

func (w *watching) Running(p metav1.CyclePhase) { w.phases = append(w.phases, p) }
func (w *watching) Ended(c *metav1.Cycle)       { w.ended = append(w.ended, c) }

func TestAWatcherHearsOfPhasesAndEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		var told watching
		cfg := s.config()
		cfg.Watcher = &told
		s.request()
		c := s.finish(s.collector(cfg))
		want := []metav1.CyclePhase{1, 2, 3, 4, 0, 0}
		if !slices.Equal(told.phases, want) || len(told.ended) != 1 || !proto.Equal(told.ended[0], c) {
			t.Errorf("told %v and %v, want %v and %v", told.phases, told.ended, want, c)
		}
	})
}
