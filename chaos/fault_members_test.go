package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"time"
)

// memberFaults change who is a member, and where. Nothing else is changed meanwhile: the cluster promises to survive the
// loss of a minority, and a member on its way in or out is that already.
func memberFaults() []fault {
	return []fault{
		{name: "join-and-leave", weight: 2, alone: true, inject: joinAndLeave},
		{name: "wipe", weight: 2, alone: true, inject: wipe},
		{name: "remove", weight: 2, alone: true, hold: [2]time.Duration{8 * time.Second, 15 * time.Second}, inject: remove},
		{name: "clone", weight: 1, alone: true, inject: clone},
		{name: "move", weight: 1, alone: true, inject: moveOne},
		{name: "swap-addresses", weight: 1, alone: true, inject: swapTwo},
		{name: "rolling-restart", weight: 1, alone: true, hold: short, inject: rollAll},
		{name: "transfer-loop", weight: 1, alone: true, hold: short, inject: transferLoop},
		{name: "rotate-secret", weight: 1, alone: true, inject: rotateSecret},
	}
}

// settled waits until the cluster is whole, and tells the others who is there.
func (a *arena) settled() error {
	a.publish()
	a.d.settle(settling)
	return nil
}

// joinAndLeave lets a new node join, and heals by letting one leave for good: the new one, or one that was there before, which
// may lead.
func joinAndLeave(_ context.Context, a *arena, chance *rand.Rand) (func(context.Context) error, string, error) {
	leaver := chance.IntN(1 << 16)
	if len(a.d.nodes) >= a.d.options.slots {
		return nil, "", errNobody
	}
	n := a.d.join()
	a.claim(n)
	a.publish()
	gone := a.d.nodes[leaver%len(a.d.nodes)]
	heal := func(context.Context) error {
		a.d.leave(gone)
		return a.settled()
	}
	return heal, n.name + " joins, " + gone.name + " leaves", nil
}

// wipe kills a node and takes its disk. It comes back as a new node under its old name and addresses.
func wipe(_ context.Context, a *arena, chance *rand.Rand) (func(context.Context) error, string, error) {
	n, err := a.take(chance)
	if err != nil {
		return nil, "", err
	}
	n.proc.kill()
	a.d.forget(n)
	heal := func(context.Context) error {
		a.d.comeBack(n)
		return a.settled()
	}
	return heal, n.name, nil
}

// moveOne ends a node, which comes back under other addresses.
func moveOne(_ context.Context, a *arena, chance *rand.Rand) (func(context.Context) error, string, error) {
	n, err := a.take(chance)
	if err != nil {
		return nil, "", err
	}
	a.d.stop(n)
	n.place()
	heal := func(context.Context) error {
		a.d.comeBack(n)
		return a.settled()
	}
	return heal, n.name, nil
}

// swapTwo ends two nodes, which come back each under the addresses of the other: whoever remembers one reaches the other.
func swapTwo(_ context.Context, a *arena, chance *rand.Rand) (func(context.Context) error, string, error) {
	nodes, err := a.crowd(chance, len(a.d.nodes)-2)
	if err != nil {
		return nil, "", err
	}
	one, other := nodes[0], nodes[1]
	a.d.stop(one)
	a.d.stop(other)
	one.addr, other.addr = other.addr, one.addr
	one.debug, other.debug = other.debug, one.debug
	one.peer, other.peer = other.peer, one.peer
	one.gossip, other.gossip = other.gossip, one.gossip
	heal := func(context.Context) error {
		for _, n := range nodes {
			a.d.configure(n)
			n.start() // together: of two voters of three, neither is ready alone
		}
		for _, n := range nodes {
			n.waitReady()
			if a.d.slots != nil {
				a.d.slots.point(n.slot, n.addr)
			}
		}
		return a.settled()
	}
	return heal, names(nodes), nil
}

// rollAll restarts one node after the other, gracefully, the leader last.
func rollAll(_ context.Context, a *arena, chance *rand.Rand) (func(context.Context) error, string, error) {
	nodes, err := a.crowd(chance, 0)
	if err != nil {
		return nil, "", err
	}
	a.d.roll(func(*node) {})
	return func(context.Context) error { return a.settled() }, names(nodes), nil
}

// transferLoop hands leadership on, as fast as it is taken.
func transferLoop(_ context.Context, a *arena, chance *rand.Rand) (func(context.Context) error, string, error) {
	var steps [8][2]int
	for i := range steps {
		steps[i] = [2]int{chance.IntN(1 << 16), chance.IntN(1 << 16)}
	}
	nodes, err := a.crowd(chance, 0)
	if err != nil {
		return nil, "", err
	}
	for _, s := range steps {
		by, to := a.d.nodes[s[0]%len(a.d.nodes)], a.d.nodes[s[1]%len(a.d.nodes)]
		if err := a.d.handOver(by, to); err != nil {
			return nil, "", err
		}
	}
	return func(context.Context) error { return nil }, fmt.Sprintf("%d among %s", len(steps), names(nodes)), nil
}

// rotateSecret replaces the secret of the cluster, half of the way at once, the rest to heal.
func rotateSecret(_ context.Context, a *arena, chance *rand.Rand) (func(context.Context) error, string, error) {
	fresh := fmt.Sprintf("rotated-%016x%016x%016x%016x", chance.Uint64(), chance.Uint64(), chance.Uint64(), chance.Uint64())
	nodes, err := a.crowd(chance, 0)
	if err != nil {
		return nil, "", err
	}
	turns := a.d.rotation(fresh)
	turn := func(i int) { a.d.rotate(turns[i], a.d.nodes[i%len(a.d.nodes)]) }
	turn(0)
	turn(1)
	heal := func(context.Context) error {
		turn(2)
		turn(3)
		return nil
	}
	return heal, names(nodes), nil
}

// clone starts a second node on a copy of a node's data directory. Where the first answers, the second refuses to start.
// Where it is paused at that moment, the second starts, and ends once both see each other: the younger of the two. Only a
// follower is paused: nothing is promised where both copies of one voter have voted.
func clone(_ context.Context, a *arena, chance *rand.Rand) (func(context.Context) error, string, error) {
	paused := chance.IntN(2) == 0
	n, err := a.take(chance)
	if err != nil {
		return nil, "", err
	}
	if leads, err := n.metric("pontoon_raft_leader"); err != nil || leads != 0 {
		paused = false
	}
	twin := a.d.bare(n.name+"-clone", n.slot)
	twin.place()
	n.proc.pause()
	if err := n.proc.stopped(5 * time.Second); err != nil {
		return nil, "", err
	}
	if err := run("cp", "-a", filepath.Join(a.d.data, n.name), filepath.Join(a.d.data, twin.name)); err != nil {
		return nil, "", err
	}
	if !paused {
		n.proc.wake()
	}
	a.d.configure(twin)
	twin.startFrail()
	if paused {
		if err := twin.began(30 * time.Second); err != nil {
			return nil, "", err
		}
		n.proc.wake()
	}
	heal := func(context.Context) error {
		defer a.d.forget(twin)
		defer func() { _ = a.mesh.Leave(twin.name) }() // its lines lead nowhere
		if err := twin.proc.ended(time.Minute); err == nil {
			return twin.proc.accuse("is a clone and ended as if nothing were wrong")
		}
		if log := tail(twin.proc.log.Name(), 20); !strings.Contains(log, "the data directory was copied") {
			return fmt.Errorf("%s, a clone, does not say so: %s", twin.name, log)
		}
		n.waitReady()
		return a.settled()
	}
	return heal, fmt.Sprintf("%s, paused meanwhile: %v", n.name, paused), nil
}

// began waits until a node has looked for its clones, or has ended.
func (n *node) began(within time.Duration) error {
	for deadline := time.Now().Add(within); ; time.Sleep(20 * time.Millisecond) {
		if n.proc.over() {
			return nil
		}
		if _, err := n.metric("pontoon_raft_applied_index"); err == nil {
			return nil
		} else if time.Now().After(deadline) {
			return err
		}
	}
}
