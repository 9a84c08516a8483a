package cluster

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"
)

// clockOf lets a test move the clock by which certificates are issued and judged, of all nodes at once.
func clockOf(ahead *atomic.Int64) func(*Node) {
	return func(n *Node) {
		n.trust.now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	}
}

const days = 24 * time.Hour

// validFor waits until every connection shows certificates that hold so much longer, by the nodes' clock.
func validFor(t *testing.T, nodes []*running, left time.Duration) {
	t.Helper()
	eventually(t, fmt.Sprintf("all connections show certificates that last %v more", left), func() error {
		for _, n := range nodes {
			all := n.host.Standing()
			if len(all) == 0 {
				return errors.New("no connections")
			}
			for _, s := range all {
				if now := n.trust.now(); s.Expires.Sub(now) < left {
					return fmt.Errorf("node %s: one with %s ends in %v", n.id, s.Peer, s.Expires.Sub(now))
				}
			}
		}
		return nil
	})
}

// TestLeavesAreRenewedOnConnectionsThatStand while requests run: nobody dials
// anew by himself, so what has not been renewed at two thirds of its life would end with it.
func TestLeavesAreRenewedOnConnectionsThatStand(t *testing.T) {
	t.Parallel()
	ahead := new(atomic.Int64)
	nodes, _ := formWith(t, 3, &testMark{}, func(int, *Config) {}, clockOf(ahead))
	stop := load(t, nodes)
	validFor(t, nodes, 29*days)
	ahead.Store(int64(19 * days))
	for _, n := range nodes {
		if at, err := n.trust.Expires(); err != nil || at.Sub(n.trust.now()) > 12*days {
			t.Errorf("renewed before two thirds of its life: %v, %v", at, err)
		}
	}
	ahead.Store(int64(21 * days))
	validFor(t, nodes, 29*days)
	ahead.Store(int64(42 * days))
	validFor(t, nodes, 29*days)
	stop()
}

// TestALeafThatAPeerRenewedIsFetchedBeforeTheOldOneEnds: who renewed his own first has dialled those who had not, and nothing
// of his changes when they do.
func TestALeafThatAPeerRenewedIsFetchedBeforeTheOldOneEnds(t *testing.T) {
	t.Parallel()
	var ahead [3]atomic.Int64
	started := 0
	nodes, _ := formWith(t, 3, &testMark{}, func(int, *Config) {}, func(n *Node) {
		clockOf(&ahead[started])(n)
		started++
	})
	validFor(t, nodes, 29*days)
	first, began := nodes[0], time.Now()
	for i := range ahead {
		ahead[i].Store(int64(19 * days))
	}
	ahead[0].Store(int64(21 * days)) // a clock may be days ahead
	eventually(t, "the first shows the others its new leaf", func() error {
		for _, n := range nodes[1:] {
			for _, s := range n.host.Standing() {
				if s.Accepted && s.Peer == first.id && s.Expires.Sub(began) < 40*days {
					return fmt.Errorf("node %s has one that ends in %v", n.id, s.Expires.Sub(began))
				}
			}
		}
		return nil
	})
	ahead[1].Store(int64(21 * days))
	ahead[2].Store(int64(21 * days))
	for _, n := range nodes[1:] {
		if at, err := n.trust.Expires(); err != nil || at.Sub(began) < 40*days { // it renews when it is asked
			t.Fatalf("node %s has not renewed its leaf: %v, %v", n.id, at, err)
		}
	}
	for i := range ahead {
		ahead[i].Store(int64(25 * days)) // the old ones have five days left
	}
	validFor(t, nodes, 20*days)
}

// TestANodeThatWasDownForLongComesBackWithAnExpiredLeaf, as do connections that slept: leaves are no passports that
// must be shown to get a new one; each node signs its own.
func TestANodeThatWasDownForLongComesBackWithAnExpiredLeaf(t *testing.T) {
	t.Parallel()
	ahead := new(atomic.Int64)
	change := clockOf(ahead)
	nodes, _ := formWith(t, 3, &testMark{}, func(int, *Config) {}, change)
	down := nodes[2]
	cfg := down.cfg
	down.halt(t)
	ahead.Store(int64(400 * days)) // and the others slept: all that stands has expired
	_, gossip := nodes[0].Addresses()
	cfg.Join = []string{gossip}
	back, err := startWith(t, cfg, change)
	if err != nil {
		t.Fatal(err)
	}
	nodes[2] = back
	settle(t, nodes)
	validFor(t, nodes, 29*days)
	mustWrite(t, back, putNode("back", "a:1"))
}
