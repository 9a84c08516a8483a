package cluster

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestAnAcknowledgedWriteOutlivesADiskThatForgot. Two of three have acknowledged it; one of them comes back under its old id
// with nothing on its disk, the other one is down. If the forgetful one were believed, it and the third, which never had the
// write, would elect that one, and be right about the majority:
//
//	a, b acknowledge, c is cut off ── b forgets, a is down ── b and c: "we are two of three"
func TestAnAcknowledgedWriteOutlivesADiskThatForgot(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	synctest.Test(t, func(t *testing.T) {
		s := newSimCluster(t, 1, 3, nil)
		defer s.end()
		if err := s.form(); err != nil {
			t.Errorf("first start: %v", err)
			return
		}
		s.forgetOne(t)
	})
}

func (s *simCluster) forgetOne(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	a, b, c := s.slots[0], s.slots[1], s.slots[2]
	s.enthrone(a.live())
	s.wires.set(pairsOf(c, s.slots, true, true), func(l *link) { l.held = true })
	if _, err := a.live().Propose(ctx, putNode("x", "acknowledged:1")); err != nil {
		t.Errorf("write: %v", err)
		return
	}
	for _, sl := range []*slot{a, b} {
		if err := sl.crash(false, "", false); err != nil {
			t.Errorf("kill node %d: %v", sl.i, err)
			return
		}
	}
	for _, part := range []string{"raft", firstStore, pointerFile} { // the identity stays
		if err := os.RemoveAll(filepath.Join(b.data, part)); err != nil {
			t.Error(err)
			return
		}
	}
	s.wires.heal()
	if err := b.start(); err == nil {
		t.Error("a node that has forgotten its log and its votes starts under its old id")
		if got, err := addressOf(ctx, &running{Node: c.live().Node}, "x"); err != nil || got != "acknowledged:1" {
			t.Errorf("an acknowledged write is lost while a majority of the disks is whole: the others read %q, %v", got, err)
		}
		return
	} else if !strings.Contains(err.Error(), "let the node join as a new one") {
		t.Errorf("the node refuses to start, and does not say what to do: %v", err)
	}
	// As it says: emptied it is a new node, which takes the place of its name.
	b.data = s.newDir()
	for _, sl := range []*slot{a, b} {
		if err := sl.start(); err != nil {
			t.Error(err)
			return
		}
	}
	if err := s.settled(2 * time.Minute); err != nil {
		t.Errorf("with a new disk: %v", err)
		return
	}
	for _, sl := range s.slots {
		if got, err := addressOf(ctx, &running{Node: sl.live().Node}, "x"); err != nil || got != "acknowledged:1" {
			t.Errorf("node %d reads %q, %v", sl.i, got, err)
		}
	}
}
