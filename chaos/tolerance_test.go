package chaos

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"
)

// watch asks the nodes over and over how many more voters may fail, and notes when that falls below what the test gives a
// reason for. A single answer proves little on a busy machine, where a member may answer its neighbour late: noted is
// what the same node says twice in a row.
type watch struct {
	mu     sync.Mutex // guards what follows
	nodes  []*node    // that run and are left in peace
	floor  int
	what   string // is being done
	least  int    // since the last change
	asked  int
	before map[string]int // name → the last answer, if it was too low
	drops  []string
}

// expect sets what may be expected from now on, and of whom.
func (w *watch) expect(what string, floor int, nodes []*node) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.what, w.floor, w.nodes, w.least, w.before = what, floor, nodes, 1<<30, map[string]int{}
}

func (w *watch) run(ctx context.Context) {
	for ctx.Err() == nil {
		w.mu.Lock()
		nodes, what := w.nodes, w.what
		w.mu.Unlock()
		for _, n := range nodes {
			tolerance, err := n.metric("pontoon_failure_tolerance")
			if err == nil {
				w.note(n, what, int(tolerance))
			}
		}
		pause(ctx, 250*time.Millisecond)
	}
}

func (w *watch) note(n *node, what string, tolerance int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if what != w.what {
		return // asked before the change
	}
	w.asked++
	w.least = min(w.least, tolerance)
	before, low := w.before[n.name]
	delete(w.before, n.name)
	if tolerance >= w.floor {
		return
	}
	w.before[n.name] = tolerance
	if low {
		w.drops = append(w.drops, fmt.Sprintf("%s: %s says that %d more may fail, before that %d; expected at least %d",
			what, n.name, tolerance, before, w.floor))
	}
}

func TestADropIsNotedWhenANodeSaysItTwice(t *testing.T) {
	w, n, other := &watch{}, &node{name: "node1"}, &node{name: "node2"}
	w.expect("calm", 1, nil)
	for _, said := range []struct {
		by        *node
		tolerance int
	}{{n, 0}, {other, 0}, {n, 1}, {n, 0}} {
		w.note(said.by, "calm", said.tolerance)
	}
	if len(w.drops) != 0 {
		t.Fatalf("noted without a second answer: %v", w.drops)
	}
	w.note(n, "calm", 0)
	w.note(n, "before", -1) // asked before the change
	if len(w.drops) != 1 || w.least != 0 {
		t.Fatalf("noted %v, least %d", w.drops, w.least)
	}
}
