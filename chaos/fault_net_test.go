package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/pontoon-registry/pontoon/chaos/proxy"
)

// This file spoils lines: between nodes, and from a node to the store. Gossip is not on them; TestTheNetworkItself takes that away.
// All are confined: whoever runs answers by digest, whomever he reaches.

// netFaults take the network from nodes.
func netFaults() []fault {
	long := [2]time.Duration{time.Second, 12 * time.Second}
	return []fault{
		{name: "net-part-leader", weight: 2, hold: long, confined: true, inject: spoil((*arena).takeLeader, bothWays, hole)},
		{name: "net-part-node", weight: 1, hold: long, confined: true, inject: spoil((*arena).take, bothWays, hole)},
		{name: "net-asymmetric", weight: 2, hold: long, confined: true, inject: spoil((*arena).takeLeader, oneSide, hole)},
		{name: "net-one-way", weight: 1, hold: long, confined: true, inject: spoil((*arena).takeLeader, bothWays, oneWay)},
		{name: "net-half-close", weight: 1, confined: true, inject: spoil((*arena).takeLeader, bothWays, halfClose)},
		{name: "net-reset", weight: 1, confined: true, inject: spoil((*arena).takeLeader, bothWays, resets)},
		{name: "net-slow", weight: 1, confined: true, inject: spoil((*arena).take, bothWays, slowness)},
		{name: "net-narrow", weight: 1, confined: true, inject: spoil((*arena).take, bothWays, narrowness)},
		{name: "net-flap", weight: 2, hold: long, confined: true, inject: flap},
		{name: "net-halves", weight: 1, hold: long, confined: true, inject: partition(halves)},
		{name: "net-bridge", weight: 1, hold: long, confined: true, inject: partition(bridge)},
		{name: "net-ring", weight: 1, hold: long, confined: true, inject: partition(ring)},
		{name: "net-slow-all", weight: 1, confined: true, inject: partition(all(slowness))},
		{name: "net-scatter", weight: 1, alone: true, confined: true, inject: partition(all(hole))},
		{name: "store-part", weight: 1, hold: long, confined: true, inject: spoil(anyNode, toStore, hole)},
		{name: "store-reset", weight: 1, confined: true, inject: spoil(anyNode, toStore, resets)},
		{name: "store-narrow", weight: 1, confined: true, inject: spoil(anyNode, toStore, narrowness)},
	}
}

// mode draws what is done to lines, and says what that is.
type mode func(chance *rand.Rand) (proxy.Mode, string)

func hole(*rand.Rand) (proxy.Mode, string) { return proxy.Hole(), "hears and says nothing" }

func resets(*rand.Rand) (proxy.Mode, string) { return proxy.Mode{Reset: true}, "is reset" }

// oneWay loses either what is asked or what is answered.
func oneWay(chance *rand.Rand) (proxy.Mode, string) {
	if chance.IntN(2) == 0 {
		return proxy.OneWay(proxy.Up), "asks and hears no answer"
	}
	return proxy.OneWay(proxy.Down), "hears only what was asked before"
}

func halfClose(chance *rand.Rand) (proxy.Mode, string) {
	if chance.IntN(2) == 0 {
		return proxy.HalfClose(proxy.Up), "is told that its askers have ended"
	}
	return proxy.HalfClose(proxy.Down), "is told that its answerers have ended"
}

func slowness(chance *rand.Rand) (proxy.Mode, string) {
	delay := 10*time.Millisecond + time.Duration(chance.Int64N(int64(250*time.Millisecond)))
	return proxy.Slow(delay, delay/2), fmt.Sprintf("is slow by %v each way", delay.Round(time.Millisecond))
}

func narrowness(chance *rand.Rand) (proxy.Mode, string) {
	per := int64(16<<10) << chance.IntN(6)
	return proxy.Narrow(per), fmt.Sprintf("has %d KiB a second", per>>10)
}

// side draws which lines of a node are meant.
type side func(a *arena, chance *rand.Rand, n *node) ([]proxy.Pair, string)

func bothWays(a *arena, _ *rand.Rand, n *node) ([]proxy.Pair, string) {
	return proxy.Apart([]string{n.name}, proxy.Without(a.mesh.Nodes(), n.name)), n.name
}

// oneSide is either the lines by which the others reach a node, or its own.
func oneSide(a *arena, chance *rand.Rand, n *node) ([]proxy.Pair, string) {
	others := proxy.Without(a.mesh.Nodes(), n.name)
	if chance.IntN(2) == 0 {
		return proxy.Between(others, []string{n.name}), "who dials " + n.name
	}
	return proxy.Between([]string{n.name}, others), "whom " + n.name + " dials"
}

func toStore(_ *arena, _ *rand.Rand, n *node) ([]proxy.Pair, string) {
	return []proxy.Pair{{From: n.name, To: storeName}}, n.name + " to the store"
}

// anyNode is one that is not taken, and is not by this: without the store it does all that needs none.
func anyNode(a *arena, chance *rand.Rand) (*node, error) {
	return a.d.nodes[chance.IntN(len(a.d.nodes))], nil
}

// injection is what a fault does.
type injection func(ctx context.Context, a *arena, chance *rand.Rand) (heal func(context.Context) error, detail string, err error)

// spoil puts a mode on lines of one node.
func spoil(whom func(*arena, *rand.Rand) (*node, error), which side, how mode) injection {
	return func(_ context.Context, a *arena, chance *rand.Rand) (func(context.Context) error, string, error) {
		m, does := how(chance)
		n, err := whom(a, chance)
		if err != nil {
			return nil, "", err
		}
		pairs, who := which(a, chance, n)
		heal, err := a.mesh.Set(pairs, m)
		return healing(heal), who + " " + does, err
	}
}

func healing(heal func()) func(context.Context) error {
	return func(context.Context) error {
		if heal != nil {
			heal()
		}
		return nil
	}
}

// partition puts a mode on lines of all nodes.
func partition(of func(nodes []string, chance *rand.Rand) ([]proxy.Pair, proxy.Mode, string)) injection {
	return func(_ context.Context, a *arena, chance *rand.Rand) (func(context.Context) error, string, error) {
		nodes := a.mesh.Nodes()
		chance.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
		pairs, m, detail := of(nodes, chance)
		heal, err := a.mesh.Set(pairs, m)
		return healing(heal), detail, err
	}
}

func halves(nodes []string, _ *rand.Rand) ([]proxy.Pair, proxy.Mode, string) {
	left, right := nodes[:len(nodes)/2], nodes[len(nodes)/2:]
	return proxy.Apart(left, right), proxy.Hole(), fmt.Sprintf("%v and %v", left, right)
}

// bridge leaves one node that reaches both halves.
func bridge(nodes []string, _ *rand.Rand) ([]proxy.Pair, proxy.Mode, string) {
	left, right := nodes[1:1+len(nodes)/2], nodes[1+len(nodes)/2:]
	return proxy.Apart(left, right), proxy.Hole(), fmt.Sprintf("%v and %v, %s is between", left, right, nodes[0])
}

// ring leaves each node one that it dials.
func ring(nodes []string, _ *rand.Rand) ([]proxy.Pair, proxy.Mode, string) {
	return proxy.Ring(nodes), proxy.Hole(), fmt.Sprintf("each dials the next of %v", nodes)
}

func all(how mode) func([]string, *rand.Rand) ([]proxy.Pair, proxy.Mode, string) {
	return func(nodes []string, chance *rand.Rand) ([]proxy.Pair, proxy.Mode, string) {
		m, does := how(chance)
		return proxy.Between(nodes, nodes), m, "every node " + does
	}
}

// flap takes the leader away and gives it back, several times a second or every few seconds.
func flap(_ context.Context, a *arena, chance *rand.Rand) (func(context.Context) error, string, error) {
	bad := 50*time.Millisecond + time.Duration(chance.Int64N(int64(2*time.Second)))
	good := 50*time.Millisecond + time.Duration(chance.Int64N(int64(2*time.Second)))
	n, err := a.takeLeader(chance)
	if err != nil {
		return nil, "", err
	}
	pairs, _ := bothWays(a, chance, n)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.mesh.Flap(ctx, pairs, proxy.Hole(), bad, good) }()
	return func(context.Context) error { stop(); return <-done },
		fmt.Sprintf("%s is away for %v, back for %v", n.name, bad.Round(time.Millisecond), good.Round(time.Millisecond)), nil
}
