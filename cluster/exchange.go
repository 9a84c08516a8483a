package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// replace puts a state in place of this node's. It keeps everybody away from
// Raft meanwhile. unneeded is asked once more when Raft is down and nothing moves any more.
func (n *Node) replace(ctx context.Context, in *incoming, unneeded func() (*raft.InstallSnapshotResponse, error)) (_ *raft.InstallSnapshotResponse, err error) {
	begun := false
	defer func() {
		switch {
		case !begun:
			err = errors.Join(err, in.store.Close(), os.RemoveAll(in.path))
		case !n.stores.uses(in.path): // CURRENT may name it already: the next start decides
			err = errors.Join(err, in.store.Close())
		}
	}()
	n.logs.interrupt.Store(true) // of a compaction: Raft would wait for it
	defer n.logs.interrupt.Store(false)
	if err := lockWithin(&n.replacing, stopPatience); err != nil {
		return nil, fmt.Errorf("install snapshot: %w", err)
	}
	defer n.replacing.Unlock()
	if n.stopped {
		return nil, errors.New("install snapshot: the node is stopping")
	}
	ctx, cancel := context.WithTimeout(ctx, stopPatience)
	defer cancel()
	release, err := n.handle.alone(ctx)
	if err != nil {
		return nil, fmt.Errorf("install snapshot: raft does not answer what it was asked: %w", err)
	}
	defer release()

	n.host.Raft().Detach()
	if err := n.shutRaft(); err != nil {
		n.fail(err)
		return nil, err
	}
	answer, err := unneeded()
	if err == nil && answer == nil {
		begun = true
		err = n.exchange(in)
		answer = &raft.InstallSnapshotResponse{RPCHeader: n.rpcHeader(), Term: in.term, Success: true}
	}
	if err == nil {
		err = n.startRaft()
	}
	if err != nil {
		err = fmt.Errorf("install snapshot: %w", err)
		n.fail(err)
		return nil, err
	}
	return answer, nil
}

// exchange is what happens while Raft is down. Each step is durable before the next.
func (n *Node) exchange(in *incoming) error {
	began := time.Now()
	for _, s := range []struct {
		name string
		do   func(*incoming) error
	}{
		{"raft is down", n.raiseTerm},
		{"term is raised", func(in *incoming) error { return n.stores.point(in.path) }},
		{"pointer is written", n.swapState},
		{"state is swapped", n.wipeLog},
		{"log is wiped", n.writeStub},
	} {
		if err := n.cfg.Step(s.name); err != nil {
			return err
		}
		if err := s.do(in); err != nil {
			return err
		}
	}
	n.log.Info("a state was installed", "index", in.witness.GetIndex(), "took", time.Since(began))
	return n.cfg.Step("stub is written")
}

// raiseTerm: a state of term t under a lower current term would let this node
// vote for, or write, entries of a term that is over (R-B5).
func (n *Node) raiseTerm(in *incoming) error {
	term, err := n.logs.GetUint64([]byte(termKey))
	if err != nil && err.Error() != "not found" {
		return fmt.Errorf("read current term: %w", err)
	}
	if goal := max(in.term, in.witness.GetTerm()); term < goal {
		return n.logs.SetUint64([]byte(termKey), goal)
	}
	return nil
}

func (n *Node) swapState(in *incoming) error {
	retired := n.stores.move(in.path, in.store)
	return n.state.Swap(in.store, in.heals, retired)
}

// continues says whether the log goes on where a state ends.
func (s *logStore) continues(w *metav1.Witness) bool {
	first, err := s.FirstIndex()
	return s.matches(w.GetIndex(), w.GetTerm()) || err == nil && first == w.GetIndex()+1
}

// wipeLog empties the log, unless it goes on where the state ends: a healed node's
// does, and forgetting entries that it has acknowledged would lose them (C1).
func (n *Node) wipeLog(in *incoming) error {
	if n.logs.continues(in.witness) {
		return nil
	}
	first, err := n.logs.FirstIndex()
	if err != nil {
		return fmt.Errorf("read first index of the log: %w", err)
	}
	last, err := n.logs.LastIndex()
	if err != nil {
		return fmt.Errorf("read last index of the log: %w", err)
	}
	return n.logs.DeleteRange(first, last)
}

// writeStub leaves the entry at the snapshot's end as the log's only one: what
// leaders compare before their first entry after it (R-B3).
func (n *Node) writeStub(in *incoming) error {
	if n.logs.continues(in.witness) {
		return nil
	}
	return n.logs.StoreLog(&raft.Log{Index: in.witness.GetIndex(), Term: in.witness.GetTerm(), Type: raft.LogNoop})
}

// lockWithin gives up after d.
func lockWithin(mu *sync.Mutex, d time.Duration) error {
	for deadline := time.Now().Add(d); !mu.TryLock(); {
		if time.Now().After(deadline) {
			return fmt.Errorf("what uses raft did not end within %v", d)
		}
		time.Sleep(time.Millisecond)
	}
	return nil
}
