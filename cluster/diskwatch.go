package cluster

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// diskWatch knows every change of the disk that somebody waits for: of the log,
// of the state's commits, of the identity. A disk that hangs answers nothing,
// not even an error, so time is the only witness. Safe for concurrent use.
type diskWatch struct {
	mu sync.Mutex // guards what follows
	// open are the changes in progress, by number in the order of their beginning.
	open map[uint64]diskChange
	next uint64
}

type diskChange struct {
	what  string
	since time.Time
}

// begin notes a change; done ends it.
func (w *diskWatch) begin(what string) (done func()) {
	if w == nil {
		return func() {}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.open == nil {
		w.open = map[uint64]diskChange{}
	}
	w.next++
	number := w.next
	w.open[number] = diskChange{what, time.Now()}
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.open, number)
	}
}

// watchState sees the writes of the state.
func (n *Node) watchState(what string) (done func()) {
	watched := n.disk.begin(what)
	end := n.cfg.StateDisk(what)
	return func() { end(); watched() }
}

// oldest is the change that has been in progress for longest; "" without one.
func (w *diskWatch) oldest() (what string, took time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.open {
		if t := time.Since(c.since); t >= took {
			what, took = c.what, t
		}
	}
	return what, took
}

// gate keeps the node out of elections, and from acknowledging, while it cannot write.
func (n *Node) gate() error {
	if what, took := n.disk.oldest(); took > gateAfter {
		return fmt.Errorf("the disk under %s hangs: to %s has taken %v already", n.cfg.DataDir, what, took.Round(time.Millisecond))
	}
	return n.space.closed()
}

// watchDisk ends the process when the disk hangs.
func (n *Node) watchDisk(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if what, took := n.disk.oldest(); took > abortAfter {
			err := fmt.Errorf("the disk under %s hangs: to %s has taken %v; the process ends, so that the others know this node as gone; "+
				"start it again once the disk answers", n.cfg.DataDir, what, took.Round(time.Second))
			n.log.Error("the process ends", "error", err)
			n.cfg.Abort(err)
			return err
		}
	}
}
