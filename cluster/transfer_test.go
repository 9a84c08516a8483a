package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// Writers on all three nodes write through 20 handings over of leadership: none fails, and the pause is as short as
// the transfer itself. What it took is printed, since how long a machine of two cores takes is not the point.
func TestWritesGoOnThroughLeadershipTransfers(t *testing.T) {
	nodes := trio(t)
	const transfers = 20
	stop := make(chan struct{})
	var group sync.WaitGroup
	defer group.Wait()
	halt := sync.OnceFunc(func() { close(stop) })
	defer halt()
	var mu sync.Mutex
	var acks []time.Time
	for n := range 12 {
		node := nodes[n%len(nodes)]
		group.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				id := fmt.Sprintf("%032x", n*1_000_000+i)
				if _, err := node.Propose(t.Context(), putNode(id[:32], "127.0.0.1:1")); err != nil {
					t.Errorf("writer %d: %v", n, err)
				}
				mu.Lock()
				acks = append(acks, time.Now())
				mu.Unlock()
			}
		})
	}
	count := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(acks)
	}
	gaps := make([]time.Duration, 0, transfers)
	for range transfers {
		before := count()
		eventually(t, "writes", func() error {
			if count() < before+50 {
				return fmt.Errorf("%d", count())
			}
			return nil
		})
		leader, _ := leaderOf(t, nodes)
		from := time.Now()
		if err := leader.StepDown(t.Context()); err != nil {
			t.Fatal(err)
		}
		took := time.Since(from)
		now := count()
		eventually(t, "writes after it", func() error {
			if count() < now+50 {
				return fmt.Errorf("%d", count())
			}
			return nil
		})
		mu.Lock()
		gap, last := time.Duration(0), from
		for _, at := range acks {
			if at.After(from) {
				gap, last = max(gap, at.Sub(last)), at
			}
		}
		mu.Unlock()
		gaps = append(gaps, gap)
		t.Logf("transfer took %v, writes paused %v", took.Round(time.Millisecond), gap.Round(time.Millisecond))
	}
	halt()
	group.Wait()
	slices.Sort(gaps)
	t.Logf("writes paused p50 %v, max %v; %d writes", gaps[len(gaps)/2].Round(time.Millisecond), gaps[len(gaps)-1].Round(time.Millisecond), count())
}

// A node that ends while nobody leads must not win the election that is under way and take the leadership with it.
func TestStepDownWaitsForWhoeverWillLead(t *testing.T) {
	t.Parallel()
	nodes := trio(t)
	leader, followers := leaderOf(t, nodes)
	leader.halt(t)
	for _, f := range followers {
		eventually(t, "the loss of the leader to be noticed", func() error {
			if id, _ := f.leaders.now(); id != "" && id == leader.id {
				return fmt.Errorf("%s leads still", id)
			}
			return nil
		})
	}
	ending := followers[0]
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := ending.StepDown(ctx); err != nil {
		t.Fatal(err)
	}
	if id, _ := ending.leaders.now(); id == "" || id == ending.id || id == leader.id {
		t.Errorf("node %s stepped down while %q leads", ending.id, id)
	}
}

// TestNobodyIsHandedTheLeadBeforeHeLeads: a node that loses it by itself has not handed it over, and an operator who is told
// so looks for a leader that is not there.
func TestNobodyIsHandedTheLeadBeforeHeLeads(t *testing.T) {
	t.Parallel()
	nodes, wires := formWith(t, 3, &testMark{}, func(int, *Config) {}, func(*Node) {})
	leader, followers := leaderOf(t, nodes)
	wires.isolate(leader.advertise)
	eventually(t, "it does not lead", func() error {
		if id, _ := leader.leaders.now(); id != "" {
			return fmt.Errorf("%s leads", id)
		}
		return nil
	})
	hand := func() raft.Future { return leader.raft().LeadershipTransfer() }
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := leader.handOver(ctx, hand); err == nil {
		t.Error("handed over, and nobody leads")
	}
	wires.heal()
	eventually(t, "it is handed over", func() error { return leader.handOver(t.Context(), hand) })
	eventually(t, "another one leads", func() error { // it may have been elected again since
		if id, _ := leader.leaders.now(); id != followers[0].id && id != followers[1].id {
			return fmt.Errorf("%q leads", id)
		}
		return nil
	})
}

// TestALostCallToJudgeARemovalIsMadeAgain: to judge changes nothing.
func TestALostCallToJudgeARemovalIsMadeAgain(t *testing.T) {
	t.Parallel()
	n := alone(t)
	lost, asked := 2, 0
	id, err := n.askedUntilKnown(t.Context(), func() (string, error) {
		if asked++; asked <= lost {
			return "", lostCall("leader", errors.New("connection reset"), true)
		}
		return "id", nil
	})
	if err != nil || id != "id" || asked != 3 {
		t.Errorf("asked %d times: %q, %v", asked, id, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = n.askedUntilKnown(ctx, func() (string, error) { return "", errors.New("connection reset") })
	if meta.KindOf(err) != metav1.Kind_KIND_OUTCOME_UNKNOWN {
		t.Errorf("lost for ever: %v", err)
	}
	if _, err := n.askedUntilKnown(t.Context(), func() (string, error) { return "", unavailable("no") }); !isUnavailable(err) {
		t.Errorf("refused: %v", err)
	}
}
