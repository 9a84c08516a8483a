package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/hashicorp/raft"

	"github.com/pontoon-registry/pontoon/meta"
)

// mend goes on with healing: each failure is tried again at the next comparison.
func (n *Node) mend(ctx context.Context) {
	d := n.diverged.Load()
	err := func() error {
		if d.healed {
			return n.resume(d)
		}
		if _, leads := n.leads(); leads {
			ctx, cancel := context.WithTimeout(ctx, stopPatience)
			defer cancel()
			return n.StepDown(ctx) // its answers would be wrong, and its state is no model
		}
		return n.heal(ctx, d)
	}()
	if err != nil && ctx.Err() == nil {
		n.log.Warn("the state of this node was not replaced yet, it will be tried again", "error", err)
	}
}

// resume serves again once the replay has come to where this node was.
func (n *Node) resume(d *divergence) error {
	if at := n.applied(); at < d.applied {
		return fmt.Errorf("the log is being replayed: at %d of %d", at, d.applied)
	}
	n.diverged.CompareAndSwap(d, nil)
	n.log.Info("the state of this node was replaced; it serves again", "index", n.applied())
	return nil
}

// heal replaces the state by the leader's, and keeps the log: entries above the
// state that it gets were acknowledged by this node, and may count (C1).
func (n *Node) heal(ctx context.Context, d *divergence) error {
	if !n.installing.TryLock() {
		return errors.New("a snapshot is being installed")
	}
	defer n.installing.Unlock()
	leader, tenure := n.leaders.now()
	if leader == "" || leader == n.id {
		return errors.New("no other node leads")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(tenure, cancel)()
	var in *incoming
	err := n.host.Raft().Pull(ctx, leader, func(_ context.Context, req *raft.InstallSnapshotRequest, data io.Reader) error {
		got, err := n.download(req, data)
		if err == nil {
			in = got // else it is closed already
		}
		return err
	})
	if err != nil {
		err = fmt.Errorf("pull the state of leader %s: %w", leader, err)
		if in != nil {
			err = errors.Join(err, in.store.Close(), os.RemoveAll(in.path))
		}
		return err
	}
	in.heals = true
	if err := n.agreesWith(in, d); err != nil {
		return errors.Join(err, in.store.Close(), os.RemoveAll(in.path))
	}
	answer, err := n.replace(ctx, in, func() (*raft.InstallSnapshotResponse, error) { return n.unfit(in) })
	if err != nil {
		return err
	}
	if !answer.Success {
		return fmt.Errorf("the log of this node no longer holds entry %d, where the state of leader %s ends", in.witness.GetIndex(), leader)
	}
	healed := *d
	healed.healed = true
	n.diverged.CompareAndSwap(d, &healed)
	return nil
}

// agreesWith believes a state only if it has the majority's hash where this node's was found odd.
func (n *Node) agreesWith(in *incoming, d *divergence) (err error) {
	state, err := meta.Open(in.store)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, state.Close()) }()
	sum, err := state.HashAt(d.index)
	if err != nil {
		return err
	}
	if string(sum) != d.theirs {
		return fmt.Errorf("the state that came differs from the majority's at %d as well", d.index)
	}
	return nil
}

// unfit refuses a state that this log does not go on from and that lies within it:
// wiping the log would forget what this node has acknowledged. A log that ends
// below the state, or has another term there, has nothing above it that ever counted (R-B2).
func (n *Node) unfit(in *incoming) (*raft.InstallSnapshotResponse, error) {
	first, err := n.logs.FirstIndex()
	if err != nil {
		return nil, err
	}
	if !n.logs.continues(in.witness) && first > in.witness.GetIndex() {
		return &raft.InstallSnapshotResponse{}, nil
	}
	return nil, nil
}
