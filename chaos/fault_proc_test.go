package chaos

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// The faults of processes and disks. Each leaves behind what it found: as many nodes, all of them running, all of them whole.

// harm is the shape of fault.inject.
type harm func(ctx context.Context, a *arena, chance *rand.Rand) (heal func(ctx context.Context) error, detail string, err error)

// short is how long a fault is held that does its work while it is injected.
var short = [2]time.Duration{time.Millisecond, 2 * time.Millisecond}

// procFaults end processes, and take away disks or the power of them.
func procFaults() []fault {
	return []fault{
		{name: "kill-majority", weight: 1, alone: true, confined: true, inject: killOut(1)},
		{name: "kill-all", weight: 1, alone: true, confined: true, inject: killOut(0)},
		{name: "power-cut", weight: 2, confined: true, inject: cutOf((*arena).take)},
		{name: "power-cut-leader", weight: 2, confined: true, inject: cutOf((*arena).takeLeader)},
		{name: "power-cut-all", weight: 1, alone: true, confined: true, inject: cutAll},
		{name: "disk-full", weight: 1, inject: fullOf((*arena).take)},
		{name: "disk-full-leader", weight: 1, inject: fullOf((*arena).takeLeader)},
	}
}

// crowd takes all nodes but so many, which ones the chance says.
func (a *arena) crowd(chance *rand.Rand, spare int) ([]*node, error) {
	var nodes []*node
	for range len(a.d.nodes) - spare {
		n, err := a.take(chance)
		if err != nil {
			return nil, err
		}
		nodes = append(nodes, n)
	}
	return nodes, nil
}

// killOut kills all nodes but so many, which are fewer than a majority, at once.
func killOut(spare int) harm {
	return func(_ context.Context, a *arena, chance *rand.Rand) (func(context.Context) error, string, error) {
		nodes, err := a.crowd(chance, spare)
		if err != nil {
			return nil, "", err
		}
		for _, n := range nodes {
			n.proc.kill()
		}
		return startAll(nodes), names(nodes), nil
	}
}

// startAll starts nodes that have ended and waits until they serve.
func startAll(nodes []*node) func(context.Context) error {
	return func(context.Context) error {
		for _, n := range nodes {
			n.start()
		}
		for _, n := range nodes {
			n.waitReady()
		}
		return nil
	}
}

func names(nodes []*node) string {
	var all []string
	for _, n := range nodes {
		all = append(all, n.name)
	}
	return strings.Join(all, ", ")
}

// noVolume is the answer of a fault of disks where nodes have none.
func noVolume(n *node) error {
	if n.volume == nil {
		return fmt.Errorf("NOT RUN, %s has no disk of its own: %w", n.name, errNobody)
	}
	return nil
}

// cutOf takes the power from one node: what it did not sync is gone. Mostly that happens between two steps of a write, the
// rest of the time at any moment.
func cutOf(whom func(*arena, *rand.Rand) (*node, error)) harm {
	return func(ctx context.Context, a *arena, chance *rand.Rand) (func(context.Context) error, string, error) {
		points := []string{"", "log.store.before", "log.store.after", "state.apply.after", "state.commit.before", "state.commit.after"}
		point := points[chance.IntN(len(points))]
		n, err := whom(a, chance)
		if err == nil {
			err = noVolume(n)
		}
		if err != nil {
			return nil, "", err
		}
		if point != "" && n.points != nil {
			held, err := n.points.pause(ctx, point, "")
			if err == nil {
				err = held.acted(ctx, 5*time.Second)
			}
			if err != nil { // nobody wrote
				point = "any moment"
			}
		}
		return startAll([]*node{n}), n.name + " at " + cmp.Or(point, "any moment"), a.d.cutPower(n)
	}
}

// cutAll takes the power from all nodes at one moment.
func cutAll(_ context.Context, a *arena, chance *rand.Rand) (func(context.Context) error, string, error) {
	nodes, err := a.crowd(chance, 0)
	if err == nil {
		err = noVolume(nodes[0])
	}
	if err != nil {
		return nil, "", err
	}
	return startAll(nodes), names(nodes), a.d.cutPower(nodes...)
}

// fullOf fills the disk of one node: so that it must not lead, so that it must leave Raft, or to the last block, at which it
// may end by itself. A node that has ended is started on the full disk before there is space again.
func fullOf(whom func(*arena, *rand.Rand) (*node, error)) harm {
	return func(ctx context.Context, a *arena, chance *rand.Rand) (func(context.Context) error, string, error) {
		mib := []int64{20, 6, 0}[chance.IntN(3)]
		n, err := whom(a, chance)
		if err == nil && n.points == nil {
			err = noVolume(n)
		}
		if err != nil {
			return nil, "", err
		}
		fill, free := n.fullDisk(mib)
		n.proc.mayEnd()
		heal := func(ctx context.Context) error {
			if err := n.supervised(ctx, 45*time.Second, func() error { return n.saying("disk full: ") }); err != nil {
				return err
			}
			if err := free(ctx); err != nil {
				return err
			}
			return n.recovered(ctx, time.Minute)
		}
		return heal, fmt.Sprintf("%s, %d MiB free", n.name, mib), fill(ctx)
	}
}

// fullDisk answers how a node's disk is filled, but for so many MiB, and emptied: in truth, or where it has no disk of its own,
// in its belief.
func (n *node) fullDisk(mib int64) (fill, free func(context.Context) error) {
	if n.volume == nil {
		return func(ctx context.Context) error { return n.points.space(ctx, mib*mebibyte) },
			func(ctx context.Context) error { return n.points.space(ctx, -1) }
	}
	return func(context.Context) error { return fillUp(n.volume.path, mib*mebibyte) },
		func(context.Context) error { return giveBack(n.volume.path) }
}

// over says whether the process has ended.
func (p *process) over() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// supervised waits until something holds of a node that may end by itself, and starts it again whenever it has.
func (n *node) supervised(ctx context.Context, within time.Duration, holds func() error) error {
	for deadline := time.Now().Add(within); ; pause(ctx, 50*time.Millisecond) {
		if n.proc.over() {
			n.startFrail()
		}
		err := holds()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return fmt.Errorf("waited %v for %s: %w", within, n.name, errors.Join(err, ctx.Err()))
		}
	}
}

// recovered is supervised until the node is ready. From then on it may end no more.
func (n *node) recovered(ctx context.Context, within time.Duration) error {
	return n.supervised(ctx, within, func() error {
		err := n.ready()
		if err == nil && !n.proc.mustStay() {
			err = errors.New("it has ended meanwhile")
		}
		return err
	})
}

// mustStay takes mayEnd back, unless the process has ended meanwhile.
func (p *process) mustStay() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over() {
		return false
	}
	p.expected = false
	return true
}
