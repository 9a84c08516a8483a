package cluster

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sync/semaphore"
)

// handle is how all code reaches Raft: an install shuts Raft down and makes it
// anew. Raft forgets to answer what it has queued when it is shut down, so who
// waits for an answer does so through apply, and who replaces waits for them.
type handle struct {
	now atomic.Pointer[raft.Raft]
	// asking has one share for each answer that is waited for; replacing takes all.
	asking *semaphore.Weighted
}

const allShares = 1 << 30

func newHandle() *handle { return &handle{asking: semaphore.NewWeighted(allShares)} }

// apply is Raft.Apply of the Raft that runs. The caller must wait for the
// answer: Raft is not replaced before. While it is being replaced apply waits, for seconds.
func (h *handle) apply(entry []byte, timeout time.Duration) raft.ApplyFuture {
	_ = h.asking.Acquire(context.Background(), 1) // fails only when the context ends
	release := func() { h.asking.Release(1) }
	r := h.now.Load()
	if r.State() == raft.Shutdown { // an install failed: Raft might take the entry yet, and never answer
		return &answered{ApplyFuture: neverTaken{}, release: release}
	}
	return &answered{ApplyFuture: r.Apply(entry, timeout), release: release}
}

// neverTaken is the answer of a Raft that is down.
type neverTaken struct{}

func (neverTaken) Error() error  { return raft.ErrRaftShutdown }
func (neverTaken) Index() uint64 { return 0 }
func (neverTaken) Response() any { return nil }

// answered gives the share back with the answer.
type answered struct {
	raft.ApplyFuture
	once    sync.Once
	release func()
}

func (a *answered) Error() error {
	err := a.ApplyFuture.Error()
	a.once.Do(a.release)
	return err
}

// alone waits until nobody waits for Raft and keeps others out until release.
func (h *handle) alone(ctx context.Context) (release func(), err error) {
	if err := h.asking.Acquire(ctx, allShares); err != nil {
		return nil, err
	}
	return func() { h.asking.Release(allShares) }, nil
}
