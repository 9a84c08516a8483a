package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// fault is one kind of harm that the nemesis of TestChaos does. Both functions run on the goroutine of the test, so they may
// use the harness that ends a test; goroutines that they start may not, and have ended when heal returns.
type fault struct {
	name   string
	weight int              // how often it is drawn, compared with the others; 0: only where -chaos.faults names it
	hold   [2]time.Duration // the shortest and the longest time before it is healed; zero: 1 s to 6 s
	// alone says that no other fault may be there meanwhile, because this one takes a disk, a majority or the store away.
	alone bool
	// confined says that it harms nobody but the processes that it takes: all other nodes answer by digest meanwhile (I13).
	confined bool
	// ways says that it is between nodes, or between a node and the store.
	ways bool
	// inject does the harm and returns soon, with what undoes it and whom it hit. It draws from chance the same however the
	// cluster happens to be, so that a seed gives the same sequence. A node that it harms it takes or claims, first. errNobody says that there is nothing to harm just now.
	inject func(ctx context.Context, a *arena, chance *rand.Rand) (heal func(ctx context.Context) error, detail string, err error)
}

// errNobody is the answer of a fault that finds nothing to harm: no leader, or all nodes are under another fault.
var errNobody = errors.New("nobody to harm")

// faults are all kinds.
func faults() []fault {
	all := slices.Concat(netFaults(), storeFaults())
	for i := range all {
		all[i].ways = true
	}
	all = slices.Concat(killFaults(), all, procFaults(), memberFaults(), stormFaults(), brokenFaults())
	for i := range all {
		all[i].confined = all[i].confined || slices.Contains(confinedFaults(), all[i].name)
	}
	return all
}

// confinedFaults are those that end processes and touch no network, store or membership.
func confinedFaults() []string {
	return []string{"kill-majority", "kill-all", "power-cut", "power-cut-leader", "power-cut-all"}
}

// killFaults end or stop one process.
func killFaults() []fault {
	return []fault{
		{name: "kill-leader", weight: 4, confined: true, inject: killOf((*arena).takeLeader)},
		{name: "kill-node", weight: 3, confined: true, inject: killOf((*arena).take)},
		{name: "pause-leader", weight: 3, confined: true, hold: [2]time.Duration{200 * time.Millisecond, 15 * time.Second}, inject: pauseOf((*arena).takeLeader)},
		{name: "pause-node", weight: 1, confined: true, hold: [2]time.Duration{200 * time.Millisecond, 15 * time.Second}, inject: pauseOf((*arena).take)},
	}
}

// killOf kills a node with SIGKILL and starts it again to heal.
func killOf(whom func(*arena, *rand.Rand) (*node, error)) func(context.Context, *arena, *rand.Rand) (func(context.Context) error, string, error) {
	return func(_ context.Context, a *arena, chance *rand.Rand) (func(context.Context) error, string, error) {
		n, err := whom(a, chance)
		if err != nil {
			return nil, "", err
		}
		n.proc.kill()
		return func(context.Context) error { n.start(); return nil }, n.name, nil
	}
}

// pauseOf stops a node in the middle of whatever it does, and lets it go on to heal.
func pauseOf(whom func(*arena, *rand.Rand) (*node, error)) func(context.Context, *arena, *rand.Rand) (func(context.Context) error, string, error) {
	return func(_ context.Context, a *arena, chance *rand.Rand) (func(context.Context) error, string, error) {
		n, err := whom(a, chance)
		if err != nil {
			return nil, "", err
		}
		n.proc.pause()
		return func(context.Context) error { n.proc.wake(); return nil }, n.name, nil
	}
}

// take chooses a node that is under no fault. The schedule gives it back once the fault is healed.
func (a *arena) take(chance *rand.Rand) (*node, error) {
	nodes := a.d.nodes
	from := chance.IntN(len(nodes))
	for i := range nodes {
		if n := nodes[(from+i)%len(nodes)]; a.free(n) {
			a.claim(n)
			return n, nil
		}
	}
	return nil, errNobody
}

// takeLeader chooses the leader, unless it is under a fault or there is none.
func (a *arena) takeLeader(*rand.Rand) (*node, error) {
	n, err := a.leads(3 * time.Second)
	if err != nil || !a.free(n) {
		return nil, errNobody
	}
	a.claim(n)
	return n, nil
}

// free says whether a node is under no fault.
func (a *arena) free(n *node) bool { return !slices.Contains(a.taken, n) }

// claim takes a node for the fault that is being injected, and lets all who watch it know before any harm is done.
func (a *arena) claim(n *node) {
	defer a.publish()
	n.claims++
	a.taken = append(a.taken, n)
	a.claimed = append(a.claimed, n)
}

// leads asks the nodes that are under no fault who leads.
func (a *arena) leads(within time.Duration) (*node, error) {
	for deadline := time.Now().Add(within); ; time.Sleep(20 * time.Millisecond) {
		for _, n := range a.d.nodes {
			if !a.free(n) {
				continue
			}
			if leads, err := n.metric("pontoon_raft_leader"); err == nil && leads == 1 {
				return n, nil
			}
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("no node that is under no fault has led for %v", within)
		}
	}
}
