package cluster

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"
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
