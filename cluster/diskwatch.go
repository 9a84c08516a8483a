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
	// lived is how long the process itself was running, as far as its ticks tell: a process that is stopped, or a machine
	// that is, says nothing of its disk. It was that at ticked.
	lived  time.Duration
	ticked time.Time
}

type diskChange struct {
	what  string
	since time.Time
	born  time.Duration // of lived
}

// watchEvery is how often the process looks, and with that how finely it knows that it lives.
const watchEvery = time.Second

// tick notes that the process runs at an instant. What lies more than two ticks back it spent stopped.
func (w *diskWatch) tick(now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lived, w.ticked = w.livedUntil(now), now
}

func (w *diskWatch) livedUntil(now time.Time) time.Duration {
	if w.ticked.IsZero() {
		return w.lived
	}
	return w.lived + min(now.Sub(w.ticked), 2*watchEvery)
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
	now := time.Now()
	w.open[number] = diskChange{what, now, w.livedUntil(now)}
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

// stuck is the change that the running process has waited for longest; "" without one.
func (w *diskWatch) stuck() (what string, took time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.open {
		if t := w.lived - c.born; t >= took {
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

// lastWords is how long the line may take with which a node ends itself: its log may lie on the disk that hangs.
const lastWords = time.Second

// watchDisk ends the process when the disk hangs.
func (n *Node) watchDisk(ctx context.Context) error {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	n.disk.tick(time.Now())
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		n.disk.tick(time.Now())
		if what, took := n.disk.stuck(); took > abortAfter {
			err := fmt.Errorf("the disk under %s hangs: to %s has taken %v; the process ends, so that the others know this node as gone; "+
				"start it again once the disk answers", n.cfg.DataDir, what, took.Round(time.Second))
			told := make(chan struct{})
			go func() { // nobody can wait for it longer than this
				defer close(told)
				n.log.Error("the process ends", "error", err)
			}()
			select {
			case <-told:
			case <-time.After(lastWords):
			}
			n.cfg.Abort(err)
			return err
		}
	}
}
