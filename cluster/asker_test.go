package cluster

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
)

// The case that fools who takes the majority of the asker's own configuration (R-B10). It is wrong as long as the asker
// has not got the entries that gave others a vote:
//
//	a leads a, b, c ── b's disk hangs ── d and e get a vote: b's log does not have that
//	           a, b | c, d, e            three of five elect, and acknowledge a write
//	b asks a: "two of us three are in your term"; then its disk works, and it gets from a all that a knows
//
// Waiting for the leader's index does not help: b reaches it, but what it counted for a majority was none by then.

// readOfALaggard answers what b reads after the others have acknowledged "new".
func readOfALaggard(t *testing.T) (value string, err error) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	synctest.Test(t, func(t *testing.T) {
		s := newSimCluster(t, 1, 3, func(n *Node) { n.cfg.Voters = 3 })
		s.slots[0].scale, s.slots[1].scale, s.slots[2].scale = 20, 20, 0.4
		defer s.end()
		if err := s.form(); err != nil {
			t.Errorf("first start: %v", err)
			return
		}
		value, err = s.readBehind(t)
	})
	return value, err
}

func (s *simCluster) readBehind(t *testing.T) (value string, err error) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	a, b, c := s.slots[0].live(), s.slots[1].live(), s.slots[2].live()
	d, e := s.standBy(t), s.standBy(t)
	if t.Failed() {
		return "", nil
	}
	s.enthrone(a)
	if _, err := a.Propose(ctx, putNode("x", "old:1")); err != nil {
		t.Errorf("write on the old leader: %v", err)
		return "", nil
	}
	b.disk.hang()
	for _, p := range []*process{d, e} {
		r := &running{Node: p.Node}
		if err := a.raft().AddVoter(raftID(r), raftAddress(r), 0, time.Second).Error(); err != nil {
			t.Errorf("give a vote: %v", err)
			return "", nil
		}
	}
	var cut [][2]string
	for _, p := range []*process{a, b} {
		for _, q := range []*process{c, d, e} {
			cut = append(cut, [2]string{p.slot.ip, q.slot.ip}, [2]string{q.slot.ip, p.slot.ip})
		}
	}
	s.wires.set(cut, func(l *link) { l.held = true })
	defer s.wires.heal()
	defer b.disk.work()
	if _, err := c.Propose(ctx, putNode("x", "new:1")); err != nil {
		t.Errorf("write on the others: %v", err)
		return "", nil
	}
	if leader, _ := b.leaders.now(); leader != a.id || a.opened.Load() == nil || len(voters(b.raft().GetConfiguration().Configuration())) != 3 {
		t.Error("b has heard of what happened, or a has stepped down: the test shows nothing")
		return "", nil
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		value, err = addressOf(ctx, &running{Node: b.Node}, "x")
	}()
	time.Sleep(10 * time.Millisecond) // a has answered
	b.disk.work()
	<-done
	return value, err
}

// standBy adds a node, and waits until it follows without a vote.
func (s *simCluster) standBy(t *testing.T) *process {
	sl := &slot{sim: s, i: len(s.slots), ip: s.newAddress(), data: s.newDir(), scale: 0.4}
	s.slots = append(s.slots, sl)
	if err := sl.start(); err != nil {
		t.Errorf("start another node: %v", err)
		return nil
	}
	for deadline := time.Now().Add(time.Minute); sl.live().Ready(t.Context()) != nil; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Errorf("node %d does not follow: %v", sl.i, sl.live().Ready(t.Context()))
			return nil
		}
	}
	return sl.live()
}

// TestAnAskerThatLagsBehindDoesNotReadStaleState.
func TestAnAskerThatLagsBehindDoesNotReadStaleState(t *testing.T) {
	for range 3 {
		value, err := readOfALaggard(t)
		if err == nil && value != "new:1" {
			t.Errorf("an asker that knows three voters of five read %q after the others had acknowledged new:1", value)
		}
		t.Logf("read %q, %v", value, fmt.Sprint(err))
	}
}
