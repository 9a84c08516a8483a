package cluster

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"testing/synctest"
	"time"
)

// A fault begins, lasts, and ends. The seed decides which, where and when; it
// does not decide how goroutines interleave, nor what Raft's own timers draw.
type fault struct {
	name string
	// begin answers what ends it; nil: it did not apply.
	begin func(d *driver) (end func())
	// most is how long it lasts at most.
	most time.Duration
}

// driver is the one goroutine that does faults and looks at the nodes.
type driver struct {
	*simCluster
	rng  *rand.Rand
	seen *bystander
	// older are images of states, by slot, for power cuts; each is some seconds old.
	older  map[*slot]olderImage
	counts map[string]int
	// lying disks lose with the power what they said was synced: a defect that C1 must show.
	lying bool
}

func newDriver(s *simCluster) *driver {
	return &driver{simCluster: s, rng: rand.New(rand.NewPCG(s.seed, 3)), seen: newBystander(), older: map[*slot]olderImage{}, counts: map[string]int{}}
}

// olderImage is a copy of a data directory, whose log began at first.
type olderImage struct {
	dir   string
	first uint64
}

// simFaults are all of them.
func simFaults() []fault {
	return []fault{
		{"isolate a node", func(d *driver) func() { return d.hold(pairsOf(d.any(), d.slots, true, true)) }, 6 * time.Second},
		{"isolate the leader", func(d *driver) func() { return d.hold(pairsOf(d.leader(), d.slots, true, true)) }, 6 * time.Second},
		{"refuse the leader", func(d *driver) func() { return d.refuse(pairsOf(d.leader(), d.slots, true, true)) }, 4 * time.Second},
		{"deafen a node", func(d *driver) func() { return d.hold(pairsOf(d.any(), d.slots, false, true)) }, 5 * time.Second},
		{"mute the leader", func(d *driver) func() { return d.hold(pairsOf(d.leader(), d.slots, true, false)) }, 5 * time.Second},
		{"deafen the leader", func(d *driver) func() { return d.hold(pairsOf(d.leader(), d.slots, false, true)) }, 5 * time.Second},
		{"split", (*driver).split, 6 * time.Second},
		{"bridge", (*driver).bridge, 6 * time.Second},
		{"flap", (*driver).flap, 6 * time.Second},
		{"slow a node", (*driver).slow, 5 * time.Second},
		{"reset connections", func(d *driver) func() { d.wires.reset(d.any().ip, ""); return func() {} }, time.Second},
		{"pause a node", func(d *driver) func() { return d.pause(d.any()) }, 8 * time.Second},
		{"pause the leader", func(d *driver) func() { return d.pause(d.leader()) }, 8 * time.Second},
		{"hang a disk", func(d *driver) func() { return d.hang(d.any()) }, 14 * time.Second},
		{"kill a node", func(d *driver) func() { return d.crash(d.any(), false) }, 4 * time.Second},
		{"kill the leader", func(d *driver) func() { return d.crash(d.leader(), false) }, 4 * time.Second},
		{"cut the power of a node", func(d *driver) func() { return d.crash(d.any(), true) }, 4 * time.Second},
		{"leave a node without its process", func(d *driver) func() { return d.crash(d.any(), false) }, time.Minute},
		{"leave a node alone", func(d *driver) func() { return d.hold(pairsOf(d.any(), d.slots, true, true)) }, time.Minute},
		{"cut all power", (*driver).blackout, 3 * time.Second},
		{"restart a node", func(d *driver) func() { return d.restart(false) }, 2 * time.Second},
		{"move a node", func(d *driver) func() { return d.restart(true) }, 2 * time.Second},
		{"hand over", (*driver).handOver, time.Second},
	}
}

// run does faults until the time is over, one or two at once, and ends all it began.
func (d *driver) run(duration time.Duration) error {
	type open struct {
		end func()
		at  time.Time
	}
	var going []open
	faults, deadline := simFaults(), time.Now().Add(duration)
	next := time.Now().Add(time.Second)
	for time.Now().Before(deadline) && len(d.failed()) == 0 {
		time.Sleep(20 * time.Millisecond)
		d.look(d.seen)
		if d.rng.IntN(200) == 0 {
			if err := d.keepImage(); err != nil {
				return err
			}
		}
		going2 := going[:0]
		for _, g := range going {
			if time.Now().Before(g.at) {
				going2 = append(going2, g)
			} else {
				g.end()
			}
		}
		going = going2
		if time.Now().Before(next) || len(going) > 1 {
			continue
		}
		f := pick(d.rng, faults)
		if end := f.begin(d); end != nil {
			d.counts[f.name]++
			going = append(going, open{end, time.Now().Add(time.Duration(d.rng.Int64N(int64(f.most))))})
		}
		next = time.Now().Add(time.Duration(d.rng.Int64N(int64(6 * time.Second))))
	}
	for _, g := range going {
		g.end()
	}
	d.wires.heal()
	return nil
}

func (d *driver) any() *slot { return pick(d.rng, d.slots) }

// leader is a node that leads, or believes it does; else any.
func (d *driver) leader() *slot {
	for _, i := range d.rng.Perm(len(d.slots)) {
		if p := d.slots[i].live(); p != nil && p.opened.Load() != nil {
			return d.slots[i]
		}
	}
	return d.any()
}

// pairsOf are the directions between a node and all others: out of it, into it.
func pairsOf(sl *slot, all []*slot, out, in bool) (pairs [][2]string) {
	for _, o := range all {
		if o != sl && out {
			pairs = append(pairs, [2]string{sl.ip, o.ip})
		}
		if o != sl && in {
			pairs = append(pairs, [2]string{o.ip, sl.ip})
		}
	}
	return pairs
}

func (d *driver) hold(pairs [][2]string) func() {
	d.wires.set(pairs, func(l *link) { l.held = true })
	return func() { d.wires.set(pairs, func(l *link) { l.held = false }) }
}

func (d *driver) refuse(pairs [][2]string) func() {
	d.wires.set(pairs, func(l *link) { l.refused = true })
	return func() { d.wires.set(pairs, func(l *link) { l.refused = false }) }
}

// split cuts the nodes into two groups.
func (d *driver) split() func() {
	order, at := d.rng.Perm(len(d.slots)), 1+d.rng.IntN(len(d.slots)-1)
	var pairs [][2]string
	for _, a := range order[:at] {
		for _, b := range order[at:] {
			pairs = append(pairs, [2]string{d.slots[a].ip, d.slots[b].ip}, [2]string{d.slots[b].ip, d.slots[a].ip})
		}
	}
	return d.hold(pairs)
}

// bridge leaves one node that all others reach, and cuts those from each other.
func (d *driver) bridge() func() {
	middle := d.any()
	var pairs [][2]string
	for _, a := range d.slots {
		if a != middle {
			for _, p := range pairsOf(a, d.slots, true, false) {
				if p[1] != middle.ip {
					pairs = append(pairs, p)
				}
			}
		}
	}
	return d.hold(pairs)
}

// flap opens and closes a node's way every while.
func (d *driver) flap() func() {
	sl, stop, done := d.any(), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			end := d.hold(pairsOf(sl, d.slots, true, true))
			over := sleepOr(stop, 150*time.Millisecond)
			end()
			if over || sleepOr(stop, 250*time.Millisecond) {
				return
			}
		}
	}()
	return func() { close(stop); <-done }
}

// sleepOr says whether stop came first.
func sleepOr(stop chan struct{}, t time.Duration) bool {
	select {
	case <-stop:
		return true
	case <-time.After(t):
		return false
	}
}

func (d *driver) slow() func() {
	pairs := pairsOf(d.any(), d.slots, true, true)
	by := time.Duration(d.rng.Int64N(int64(300 * time.Millisecond)))
	d.wires.set(pairs, func(l *link) { l.slow = by })
	return func() { d.wires.set(pairs, func(l *link) { l.slow = 0 }) }
}

func (d *driver) pause(sl *slot) func() {
	p := sl.live()
	if p == nil {
		return nil
	}
	p.freeze()
	return p.unfreeze
}

// hang may outlast what the node bears: then it ends itself, and is started again.
func (d *driver) hang(sl *slot) func() {
	p := sl.live()
	if p == nil {
		return nil
	}
	p.disk.hang()
	return func() {
		p.disk.work()
		if p.down.Load() {
			d.revive(sl)
		}
	}
}

// crash kills a node, and starts it again on what is on its disk.
func (d *driver) crash(sl *slot, power bool) func() {
	if sl.live() == nil || sl.busy.Load() {
		return nil
	}
	older := ""
	if power {
		older = d.olderOf(sl)
	}
	if err := sl.crash(power, older, d.lying); err != nil {
		d.problem("crash node %d: %v", sl.i, err)
		return nil
	}
	delete(d.older, sl)
	return func() { d.revive(sl) }
}

// olderOf answers an image that the state may fall back to: a compaction syncs it, and deletes what the image lacks.
func (d *driver) olderOf(sl *slot) string {
	first, err := sl.live().logs.FirstIndex()
	if o := d.older[sl]; d.lying || err == nil && o.first == first {
		return o.dir
	}
	return ""
}

func (d *driver) revive(sl *slot) {
	if sl.live() != nil || sl.busy.Swap(true) {
		return
	}
	d.work.Go(func() {
		defer sl.busy.Store(false)
		if err := sl.start(); err != nil {
			d.problem("start node %d again: %v", sl.i, err)
		}
	})
}

// blackout cuts the power of all nodes at once.
func (d *driver) blackout() func() {
	var ends []func()
	for _, sl := range d.slots {
		if end := d.crash(sl, true); end != nil {
			ends = append(ends, end)
		}
	}
	return func() {
		for _, end := range ends {
			end()
		}
	}
}

// restart stops a node as a supervisor does, and starts it again, perhaps at another address.
func (d *driver) restart(move bool) func() {
	sl := d.any()
	p := sl.live()
	if p == nil || p.disk.hangs() || sl.busy.Swap(true) { // nobody ends in good order on a hung disk
		return nil
	}
	d.work.Go(func() {
		p.halt()
		if move {
			sl.ip = d.newAddress()
		}
		err := sl.start()
		sl.busy.Store(false)
		if err != nil {
			d.problem("restart node %d: %v", sl.i, err)
		}
	})
	delete(d.older, sl)
	return func() {}
}

func (d *driver) handOver() func() {
	p := d.leader().live()
	if p == nil {
		return nil
	}
	d.work.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = p.StepDown(ctx) // an election is as good
	})
	return func() {}
}

// keepImage notes what a node's state is now, for a power cut later.
func (d *driver) keepImage() error {
	sl := d.any()
	if sl.live() == nil || sl.busy.Load() {
		return nil
	}
	synctest.Wait()
	dir := d.newDir()
	if err := image(sl.data, dir); err != nil {
		return fmt.Errorf("keep an image of node %d: %w", sl.i, err)
	}
	_ = os.RemoveAll(d.older[sl].dir) // only to save room
	d.older[sl] = olderImage{dir: dir, first: sl.first}
	return nil
}
