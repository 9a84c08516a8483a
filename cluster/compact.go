package cluster

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/raft"
)

// compactEvery is how often the log is measured.
const compactEvery = time.Second

// compact keeps the log within LogBytes. Raft counts entries, which differ in
// size by a factor of ten thousand, so it is told when, and what to keep: half of LogBytes.
func (n *Node) compact(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { n.logs.interrupt.Store(true) })()
	return every(ctx, n.cfg.brisk(compactEvery), func(context.Context) error {
		_ = n.outgoing.sweep(checkpointIdle) // a folder that cannot be removed now is removed at the next start
		if n.logs.Bytes() <= n.cfg.LogBytes {
			return nil
		}
		if n.raft().AppliedIndex() <= n.state.Witness().GetIndex() {
			return nil // Raft has nothing new to compact since it started
		}
		began, before := time.Now(), n.logs.Bytes()
		if err := n.compactNow(); err != nil {
			n.log.Info("the log is not compacted now", "bytes", before, "bound", n.cfg.LogBytes, "error", err)
			return nil // an error of the disk has ended the node already
		}
		n.log.Info("the log was compacted", "before", before, "after", n.logs.Bytes(), "took", time.Since(began))
		return nil
	})
}

// compactNow makes Raft compact, down to half of LogBytes. It waits while a state
// is installed, which wipes the log anyhow.
func (n *Node) compactNow() error {
	if !n.replacing.TryLock() {
		return errors.New("a state is being installed, or the node is stopping")
	}
	defer n.replacing.Unlock()
	from, next := n.logs.tail(n.cfg.LogBytes / 2)
	r := n.raft()
	c := r.ReloadableConfig()
	c.TrailingLogs = max(next-from, 1) // the last may be larger than what is kept: see deleteBelow
	if err := r.ReloadConfig(c); err != nil {
		return err
	}
	// Shutdown answers it too: the channel is not buffered.
	err := r.Snapshot().Error()
	if errors.Is(err, raft.ErrNothingNewToSnapshot) || errors.Is(err, raft.ErrRaftShutdown) {
		return nil
	}
	return err
}
