package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"
)

// brokenFaults are what a node does to itself on command (points_test.go): nothing outside could.
func brokenFaults() []fault {
	return []fault{
		{name: "clock-jump", weight: 2, inject: clockOf((*arena).take)},
		{name: "clock-jump-leader", weight: 2, inject: clockOf((*arena).takeLeader)},
		{name: "disk-slow", weight: 1, inject: slowOf((*arena).take)},
		{name: "disk-slow-leader", weight: 1, inject: slowOf((*arena).takeLeader)},
		{name: "disk-hang", weight: 1, hold: [2]time.Duration{time.Second, 14 * time.Second}, inject: hangOf((*arena).take)},
		{name: "disk-hang-leader", weight: 1, hold: [2]time.Duration{time.Second, 14 * time.Second}, inject: hangOf((*arena).takeLeader)},
		{name: "exit-at-point", weight: 3, confined: true, inject: exitOf((*arena).take)},
		{name: "exit-at-point-leader", weight: 3, confined: true, inject: exitOf((*arena).takeLeader)},
	}
}

// noPoints is the answer of these faults where nodes take no commands.
func noPoints(n *node) error {
	if n.points == nil {
		return fmt.Errorf("NOT RUN, %s was built without the tag faults: %w", n.name, errNobody)
	}
	return nil
}

// clockOf turns a node's wall clock by up to an hour, either way, and back to heal.
func clockOf(whom func(*arena, *rand.Rand) (*node, error)) harm {
	return func(ctx context.Context, a *arena, chance *rand.Rand) (func(context.Context) error, string, error) {
		offset := time.Duration(1+chance.IntN(3600)) * time.Second
		if chance.IntN(2) == 0 {
			offset = -offset
		}
		n, err := whom(a, chance)
		if err == nil {
			err = noPoints(n)
		}
		if err != nil {
			return nil, "", err
		}
		heal := func(ctx context.Context) error { return n.points.clock(ctx, 0) }
		return heal, fmt.Sprintf("%s by %v", n.name, offset), n.points.clock(ctx, offset)
	}
}

// slowOf makes each write of a node's log, or of its state, or of both, take a while.
func slowOf(whom func(*arena, *rand.Rand) (*node, error)) harm {
	return func(ctx context.Context, a *arena, chance *rand.Rand) (func(context.Context) error, string, error) {
		delay, which := time.Duration(10+chance.IntN(490))*time.Millisecond, chance.IntN(3)
		n, err := whom(a, chance)
		if err == nil {
			err = noPoints(n)
		}
		if err != nil {
			return nil, "", err
		}
		heal := func(ctx context.Context) error { return n.points.disk(ctx, map[string]diskHarm{}) }
		harm, what := disks(which, diskHarm{Delay: delay.String()})
		return heal, fmt.Sprintf("%s, each write of its %s by %v", n.name, what, delay), n.points.disk(ctx, harm)
	}
}

// disks are which of the two do harm.
func disks(which int, does diskHarm) (map[string]diskHarm, string) {
	switch which {
	case 0:
		return map[string]diskHarm{"log": does}, "log"
	case 1:
		return map[string]diskHarm{"state": does}, "state"
	}
	return map[string]diskHarm{"log": does, "state": does}, "log and state"
}

// hangOf lets no write of a node's log or state end. After ten seconds the process ends by itself, and is started again once
// the disk works.
func hangOf(whom func(*arena, *rand.Rand) (*node, error)) harm {
	return func(ctx context.Context, a *arena, chance *rand.Rand) (func(context.Context) error, string, error) {
		which := chance.IntN(3)
		n, err := whom(a, chance)
		if err == nil {
			err = noPoints(n)
		}
		if err != nil {
			return nil, "", err
		}
		n.proc.mayEnd()
		heal := func(ctx context.Context) error {
			// Whoever has ended meanwhile has no harm in it any more.
			if err := n.points.disk(ctx, map[string]diskHarm{}); err != nil && !n.proc.endsWithin(5*time.Second) {
				return err
			}
			return n.recovered(ctx, time.Minute)
		}
		harm, what := disks(which, diskHarm{Hang: true})
		return heal, fmt.Sprintf("%s, its %s", n.name, what), n.points.disk(ctx, harm)
	}
}

// endsWithin says whether the process has ended, or does soon.
func (p *process) endsWithin(d time.Duration) bool {
	select {
	case <-p.done:
		return true
	case <-time.After(d):
		return false
	}
}

// exits are the points at which a process is ended: between what it has done and what it has still to do.
func exits() []string {
	return []string{"log.store.before", "log.store.after", "log.delete.after", "log.set.after", "state.apply.before", "state.apply.after",
		"state.commit.before", "state.commit.after", "ledger.propose.before", "ledger.propose.after", "store.write.after", "store.save.after",
		"store.finish.before", "store.finish.after", "gc.delete.before", "gc.delete.after", "archive.put.before", "archive.put.after", "node.step"}
}

// exitOf lets a node end at a point, as kill -9 would end it there. One that does not come by until it is healed is killed.
func exitOf(whom func(*arena, *rand.Rand) (*node, error)) harm {
	return func(ctx context.Context, a *arena, chance *rand.Rand) (func(context.Context) error, string, error) {
		point, skip := exits()[chance.IntN(len(exits()))], chance.IntN(20)
		n, err := whom(a, chance)
		if err == nil {
			err = noPoints(n)
		}
		if err != nil {
			return nil, "", err
		}
		n.proc.mayEnd()
		heal := func(context.Context) error {
			n.proc.kill()
			return startAll([]*node{n})(ctx)
		}
		_, err = n.points.arm(ctx, rule{Point: point, Action: "exit", Skip: skip})
		return heal, fmt.Sprintf("%s at %s, the %d. time", n.name, point, skip+1), err
	}
}
