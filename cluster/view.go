package cluster

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/pontoon-registry/pontoon/meta"
)

const (
	// fallbackAfter is how long a read that may fall back waits for a read index (R-B11).
	fallbackAfter = 250 * time.Millisecond
	// freshEvery is how often an idle node proves its state fresh.
	freshEvery = time.Second
	// readyAge is how old the last proof may be for the node to be ready.
	readyAge = 5 * time.Second
)

// freshness is when this node's state was last proven to contain everything
// acknowledged before; it only rises. Safe for concurrent use.
type freshness struct {
	start time.Time
	nanos atomic.Int64
}

// prove notes that the state has reached the read index of a batch closed at t.
func (f *freshness) prove(t time.Time) {
	next := int64(t.Sub(f.start)) | 1
	for {
		old := f.nanos.Load()
		if old >= next || f.nanos.CompareAndSwap(old, next) {
			return
		}
	}
}

// age answers how long ago that was; false: never since the start (R-B10).
func (f *freshness) age() (time.Duration, bool) {
	n := f.nanos.Load()
	return time.Since(f.start) - time.Duration(n), n != 0
}

// View is meta.Ledger's.
func (n *Node) View(ctx context.Context, read meta.Read, fn func(*meta.View) error) error {
	if err := n.trusted(); err != nil {
		return err
	}
	allowed := n.cfg.ReadsStale
	if read.Content {
		allowed = max(allowed, n.cfg.ReadsOffline)
	}
	// Only a node that has something to fall back to gives up early; one that has
	// just started waits for the leader as any other read does.
	patience := n.cfg.Hold
	if n.mayFallBack(allowed, read.MinIndex) {
		patience = fallbackAfter
	}
	err := n.catchUp(ctx, patience, read.MinIndex)
	stale := false
	if err != nil {
		if !isUnavailable(err) || ctx.Err() != nil || !n.mayFallBack(allowed, read.MinIndex) {
			return err
		}
		stale = true
	}
	view := n.state.View()
	defer view.Close()
	if err := n.trusted(); err != nil { // found out meanwhile
		return err
	}
	if stale {
		view.MarkStale()
	}
	return fn(view)
}

// mayFallBack says whether the state as it is may be served: proven fresh since
// the start (R-B10), no longer ago than allowed, and not older than what the reader has seen.
func (n *Node) mayFallBack(allowed time.Duration, minIndex uint64) bool {
	age, ever := n.fresh.age()
	return allowed > 0 && ever && age <= allowed && n.applied() >= minIndex
}

// catchUp waits until the state contains what was acknowledged before the call.
func (n *Node) catchUp(ctx context.Context, patience time.Duration, minIndex uint64) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	index, closed, err := n.reader.index(ctx)
	if err != nil {
		return err
	}
	if minIndex > index {
		return meta.Refuse(preconditionKind, clusterNoun, "the state asked for is that of index %d, the leader knows %d", minIndex, index)
	}
	if err := n.state.Wait(ctx, index); err != nil {
		return unavailable("this node has not reached index %d in time: %v", index, err)
	}
	n.fresh.prove(closed)
	return nil
}
