package cluster

import (
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
)

// atOnce is how long a node that is back may take to be ready. Raft itself pauses for up to 10 s after failures that went on for minutes.
const atOnce = 15 * time.Second

// TestANodeThatWasAwayForMinutesIsFoundAtOnce: whoever tried in vain all the while tries again within a second (T4).
// gRPC's own default would wait for up to two minutes more; and where appends are pipelined, Raft may never send another
// one after some were lost, unless the leader changes (hashicorp/raft #612).
func TestANodeThatWasAwayForMinutesIsFoundAtOnce(t *testing.T) {
	for name, c := range map[string]struct {
		rounds int
		away   func(*simCluster, *slot) error
	}{"killed": {1, (*simCluster).beDead}, "out of reach while others write": {4, (*simCluster).beApart}} {
		t.Run(name, func(t *testing.T) {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
			synctest.Test(t, func(t *testing.T) { beAway(t, c.rounds, c.away) })
		})
	}
}

func (s *simCluster) beDead(sl *slot) error {
	if err := sl.crash(false, "", false); err != nil {
		return err
	}
	time.Sleep(4 * time.Minute)
	return sl.start()
}

func (s *simCluster) beApart(sl *slot) error {
	s.wires.set(pairsOf(sl, s.slots, true, true), func(l *link) { l.held = true })
	defer s.wires.heal()
	for i := range 400 {
		if _, err := s.slots[0].live().Propose(s.t.Context(), putNode("x", fmt.Sprintf("host-%d:1", i))); err != nil {
			return err
		}
		time.Sleep(50 * time.Millisecond)
	}
	return nil
}

func beAway(t *testing.T, rounds int, away func(*simCluster, *slot) error) {
	s := newSimCluster(t, 1, 3, nil)
	defer s.end()
	if err := s.form(); err != nil {
		t.Errorf("first start: %v", err)
		return
	}
	s.enthrone(s.slots[0].live())
	for i := range 2 * rounds {
		sl := s.slots[1+i%2]
		if err := away(s, sl); err != nil {
			t.Errorf("node %d: %v", sl.i, err)
			return
		}
		began := time.Now()
		if err := s.settled(3 * time.Minute); err != nil {
			t.Errorf("three minutes after a node came back: %v", err)
			return
		}
		took := time.Since(began)
		t.Logf("all are ready %v after node %d came back", took, sl.i)
		if took > atOnce {
			t.Errorf("a node that came back was found after %v, want at most %v", took, atOnce)
		}
	}
}
