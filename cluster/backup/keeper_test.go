package backup

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// TestBackupsAreTakenShippedAndRetired is the whole life, twice around.
func TestBackupsAreTakenShippedAndRetired(t *testing.T) {
	inWorld(t, Config{Schedule: "@every 1h", Keep: 2}, func(w *world) {
		stop := w.lead()
		for n := range 9 {
			w.write(n)
			time.Sleep(30 * time.Minute)
			synctest.Wait()
		}
		stop()
		w.settled()
		if rows := w.rows(); len(rows) != 2 {
			t.Errorf("%d backups, want 2", len(rows))
		}
		if w.metrics.count(StepFull)+w.metrics.count(StepLog)+w.metrics.count(StepRetain) > 0 || !w.metrics.idle {
			t.Errorf("metrics %+v", w.metrics.failed)
		}
		if age := time.Since(w.metrics.verified); age > time.Hour+time.Minute {
			t.Errorf("the last verified backup is %v old", age)
		}
	})
}

// scenario is one life in which everything happens: a first backup, writes that are shipped, a second backup, the first retired and
// removed, and what is left of the log swept.
func scenario(w *world) {
	for n := range 6 {
		w.write(n)
		time.Sleep(150 * time.Second)
		synctest.Wait()
	}
}

// TestWhoeverIsKilledWhereverTheNextOneFinishes kills the leader at every call to the archive and at every proposal, with and without
// effect; the next leader must leave nothing behind and nothing unprotected on the way.
func TestWhoeverIsKilledWhereverTheNextOneFinishes(t *testing.T) {
	cfg := Config{Schedule: "@every 10m", Keep: 1}
	calls, proposals := 0, 0
	inWorld(t, cfg, func(w *world) {
		stop := w.lead()
		scenario(w)
		stop()
		calls, proposals = w.calls, w.proposals
		w.settled()
	})
	if calls < 20 || proposals < 5 {
		t.Fatalf("the scenario makes %d calls and %d proposals: it does not do everything", calls, proposals)
	}
	worlds, deaths := 0, 0
	dead := func(dead bool) {
		if worlds++; dead {
			deaths++
		}
	}
	for n := 1; n <= calls; n++ {
		for _, effect := range []bool{false, true} {
			t.Run(fmt.Sprintf("call%d,effect=%v", n, effect), func(t *testing.T) {
				inWorld(t, cfg, func(w *world) {
					dead(w.killed(func(dies func(at int) (before, after error)) { w.broken = dies }, n, effect))
				})
			})
		}
	}
	for n := 1; n <= proposals; n++ {
		for _, effect := range []bool{false, true} {
			t.Run(fmt.Sprintf("proposal%d,effect=%v", n, effect), func(t *testing.T) {
				inWorld(t, cfg, func(w *world) {
					dead(w.killed(func(dies func(at int) (before, after error)) {
						w.fault = func(at int, _ *metav1.Command) (before, after error) { return dies(at) }
					}, n, effect))
				})
			})
		}
	}
	if deaths < worlds*9/10 {
		t.Errorf("the leader died in %d of %d worlds only", deaths, worlds)
	}
}

// killed runs the scenario under a leader that dies at its nth step, whose effect stands or not; from then on another leads.
func (w *world) killed(arm func(dies func(at int) (before, after error)), n int, effect bool) (dead bool) {
	ctx, die := context.WithCancel(w.t.Context())
	defer die()
	arm(func(at int) (before, after error) {
		switch {
		case at != n:
			return nil, nil
		case effect:
			return nil, errKilled
		}
		return errKilled, nil
	})
	w.hit = die
	k, err := New(w.cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	next := make(chan func(), 1)
	go func() {
		if err := k.Run(ctx); err != nil {
			w.t.Errorf("Run: %v", err)
		}
		next <- w.lead()
	}()
	scenario(w)
	dead = ctx.Err() != nil
	die() // the last steps of all come sooner or later than they did when they were counted
	stop := <-next
	time.Sleep(12 * time.Minute) // a schedule, a sweep, and rests after failures
	synctest.Wait()
	stop()
	w.settled()
	return dead
}
