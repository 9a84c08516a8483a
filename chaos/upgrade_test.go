package chaos

import (
	"flag"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

var previous = flag.String("chaos.previous", "", "an earlier pontoon, from which nodes are upgraded and to which they roll back; empty: neither is tested")

// TestNodesAreUpgradedAndRollBack takes a cluster that the previous release founded through every mixture of both releases,
// one node at a time, with kills, while clients write and read. Until the command version is finalized every node may go
// back; after that the previous release refuses to start, and says why.
func TestNodesAreUpgradedAndRollBack(t *testing.T) {
	if *previous == "" {
		t.Log("NOT RUN: upgrade and roll-back need -chaos.previous=<an earlier pontoon>; make chaos builds it where it has the commit")
		return
	}
	seed := *chaosSeed
	if seed == 0 {
		seed = rand.Uint64N(1 << 32)
	}
	t.Logf("-chaos.seed=%d does the same in the same order", seed)
	chance := rand.New(rand.NewPCG(seed, 0))
	u := &upgrade{t: t, old: map[*node]bool{}}
	d := newDeployment(t, newBucket(t), options{drain: "1s", before: func(d *deployment) {
		u.d = d
		for _, n := range d.nodes {
			u.install(n, true)
		}
	}})
	l := newLedger(t, d)
	steps := 6
	if *long {
		steps = 24
	}
	for range steps { // any mixture, in any order
		u.change(d.nodes[chance.IntN(len(d.nodes))], chance.IntN(2) == 0)
		u.goesOn(l)
	}
	for _, toOld := range []bool{false, true, false} { // all the way there, all the way back, and there for good
		for _, n := range slices.Clone(d.nodes) {
			if u.old[n] != toOld {
				u.change(n, chance.IntN(3) == 0)
				u.goesOn(l)
			}
		}
	}
	if out, err := d.nodes[0].cli("cluster", "finalize"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	u.goesOn(l)
	u.refuses(d.nodes[chance.IntN(len(d.nodes))])
	u.goesOn(l)
	l.stop()
	d.agree()
	l.verify(d)
}

// upgrade is who runs which release.
type upgrade struct {
	t   testing.TB
	d   *deployment
	old map[*node]bool
}

// install gives a node that does not run another release, and the configuration that it understands.
func (u *upgrade) install(n *node, old bool) {
	u.t.Helper()
	u.old[n] = old
	n.binary, u.d.options.cluster = "", []string{"upgrade: manual"}
	if old {
		n.binary, u.d.options.cluster = *previous, nil
	}
	u.d.configure(n)
}

// change ends a node and starts it with the other release.
func (u *upgrade) change(n *node, hard bool) {
	u.t.Helper()
	began := time.Now()
	if hard {
		n.proc.kill()
	} else {
		u.d.stop(n)
	}
	u.install(n, !u.old[n])
	n.start()
	n.waitReady()
	u.d.voting() // on the word of every node, of either release
	u.t.Logf("%s: previous release %v, killed %v, whole after %v", n.name, u.old[n], hard, time.Since(began).Round(time.Millisecond))
}

func (u *upgrade) goesOn(l *ledger) {
	u.t.Helper()
	if err := l.goesOn(30 * time.Second); err != nil {
		u.t.Fatal(err)
	}
}

// refuses demands that the previous release does not start any more, and that this one does after that.
func (u *upgrade) refuses(n *node) {
	u.t.Helper()
	u.d.stop(n)
	u.install(n, true)
	from := n.logged()
	n.startFrail()
	if err := n.proc.ended(time.Minute); err == nil || !n.proc.over() {
		u.t.Errorf("the previous release starts on a cluster of a newer command version: %v", err)
		n.proc.kill()
	}
	if said, err := n.said(from); err != nil || !strings.Contains(said, "not known to this release") {
		u.t.Errorf("the previous release does not say why it does not start: %v\n%s", err, said)
	}
	u.install(n, false)
	n.start()
	n.waitReady()
	u.d.voting()
}
