package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

func TestADutyRunsWhereTheLeaderIsAndEndsWithIt(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	runs := map[string]int{} // by node: one that lost its place may run its duty for a moment beside the next
	ran := func(id string, n int) int {
		mu.Lock()
		defer mu.Unlock()
		runs[id] += n
		return runs[id]
	}
	nodes, _ := formWith(t, 3, &testMark{}, func(int, *Config) {}, func(n *Node) {
		n.Lead(Duty{Name: "test", Run: func(ctx context.Context, l Leadership) error {
			if ran(n.id, 1) > 1 {
				t.Errorf("two at once on node %s", n.id)
			}
			defer ran(n.id, -1)
			if system, err := n.System(); err != nil || system.GetTerm() < l.Term { // a later one may have been opened by now
				t.Errorf("the duty of term %d began in a state of term %d, %v", l.Term, system.GetTerm(), err)
			}
			<-ctx.Done()
			return nil
		}})
	})
	leader, rest := leaderOf(t, nodes)
	leader.halt(t)
	if ran(leader.id, 0) != 0 {
		t.Error("a duty runs on a node that ended")
	}
	eventually(t, "the next leader runs it, and it alone", func() error {
		next, others := leaderOf(t, rest)
		if ran(next.id, 0) != 1 || ran(others[0].id, 0) != 0 || next.opened.Load() == nil {
			return errors.New("not yet")
		}
		return nil
	})
}

func TestADutyThatPanicsIsTriedAgainAndKillsNothing(t *testing.T) {
	var tries atomic.Int64
	cfg := testConfig(t, nil)
	n, err := startWith(t, cfg, func(n *Node) {
		n.Lead(Duty{Name: "bad", Run: func(context.Context, Leadership) error {
			if tries.Add(1) < 3 {
				panic("a bug")
			}
			return nil
		}})
	})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "it was tried three times", func() error {
		if tries.Load() < 3 {
			return errors.New("not yet")
		}
		return nil
	})
	roundTrip(t, n, n, "alive:1")
}

func TestALockExcludesAndItsTokensRise(t *testing.T) {
	t.Parallel()
	nodes := trio(t)
	held, first, release, err := nodes[0].Lock(t.Context(), "l", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := nodes[1].Lock(t.Context(), "l", time.Minute); meta.KindOf(err) != metav1.Kind_KIND_CONFLICT {
		t.Errorf("a second holder: %v, want a conflict", err)
	}
	if held.Err() != nil {
		t.Error("the lock's context ended while it was held")
	}
	if err := release(); err != nil {
		t.Error(err)
	}
	if held.Err() == nil {
		t.Error("the context lives on after the release")
	}
	_, second, again, err := nodes[2].Lock(t.Context(), "l", time.Minute)
	if err != nil || second <= first {
		t.Fatalf("token %d after %d, %v", second, first, err)
	}
	if err := again(); err != nil {
		t.Error(err)
	}
}

func TestALockIsRenewedAndDiesWithoutAQuorum(t *testing.T) {
	t.Parallel()
	nodes, wires := formWith(t, 3, &testMark{}, func(_ int, c *Config) { c.Hold = 3 * time.Second }, func(*Node) {})
	_, followers := leaderOf(t, nodes)
	ttl := 2 * time.Second
	var token uint64
	var release func() error
	name := ""
	inSomeTry(t, "a lock is renewed, and ends with its time", func() error { // a busy machine may be later than the lock lasts
		name += "l"
		began := time.Now()
		var held context.Context
		var err error
		if held, token, release, err = followers[0].Lock(t.Context(), name, ttl); err != nil {
			return err
		}
		<-time.After(ttl + ttl/2) // the claim is about this very time
		if held.Err() != nil {
			_ = release() // it has gone by itself, perhaps
			return fmt.Errorf("the context ended after %v: %w", time.Since(began), context.Cause(held))
		}
		wires.isolate(followers[0].advertise)
		late := time.After(ttl + 100*time.Millisecond) // by the same clock: whatever holds up the one holds up the other
		select {
		case <-held.Done():
		case <-late:
			wires.heal()
			_ = release()
			return errors.New("the context lives on after the lock")
		}
		if !errors.Is(context.Cause(held), ErrLockLost) {
			t.Errorf("it ended because of %v", context.Cause(held))
		}
		return nil
	})
	_ = release() // cannot reach anybody; the lock goes by itself
	eventually(t, "somebody else gets it with a higher token", func() error {
		_, next, release, err := followers[1].Lock(t.Context(), name, ttl)
		if err != nil {
			return err
		}
		if next <= token {
			t.Errorf("token %d after %d", next, token)
		}
		return release()
	})
}
