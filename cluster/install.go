package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/pontoon-registry/pontoon/meta"
	"github.com/pontoon-registry/pontoon/meta/kv"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// Installing a snapshot. Raft is never given one: its own way wipes what this
// node has acknowledged (R-B4), leaves it refusing its own snapshot point
// (R-B3), and goes on when the wipe failed (R-B2). Instead, in this order:
//
//	download beside the state in use ─ verify ─ Raft down ─ needed still? ─ term raised ─
//	CURRENT ─ state swapped ─ log wiped ─ stub written ─ Raft made anew ─ answered
//
// A crash before CURRENT changes leaves the old state and log, after it the new
// state and a log that the start mends (seam.go). An error after Raft went down ends the node, for the same start to mend.

// incoming is a state that was brought in and is used by nobody yet.
type incoming struct {
	path    string
	store   *kv.Store
	witness *metav1.Witness
	// term is that of the leader it came from.
	term uint64
	// heals: this replaces a state that differs from the majority's; the log is right (M9).
	heals bool
}

// install answers a snapshot that a leader sends, for Raft.
func (n *Node) install(ctx context.Context, req *raft.InstallSnapshotRequest, data io.Reader) (*raft.InstallSnapshotResponse, error) {
	if !n.installing.TryLock() {
		return nil, errors.New("another snapshot is being installed")
	}
	defer n.installing.Unlock()
	if req.SnapshotVersion < raft.SnapshotVersionMin || req.SnapshotVersion > raft.SnapshotVersionMax {
		return nil, fmt.Errorf("snapshot version is %d, this release knows %d to %d", req.SnapshotVersion, raft.SnapshotVersionMin, raft.SnapshotVersionMax)
	}
	answer, err := n.unneeded(req)
	if err != nil || answer != nil {
		return answer, err
	}
	n.log.Info("a snapshot is being received", "from", string(req.ID), "index", req.LastLogIndex, "bytes", req.Size)
	in, err := n.download(req, data)
	if err != nil {
		n.log.Warn("a snapshot was not received", "from", string(req.ID), "index", req.LastLogIndex, "error", err)
		return nil, fmt.Errorf("receive snapshot: %w", err)
	}
	if err := n.cfg.step("downloaded"); err != nil {
		n.fail(err)
		return nil, errors.Join(err, in.store.Close())
	}
	return n.replace(ctx, in, func() (*raft.InstallSnapshotResponse, error) { return n.unneeded(req) })
}

// unneeded answers a snapshot that is not to be executed, nil if it is: one of an older
// term is rejected as Raft does; one that ends where this node has already been is
// answered with success, which is true (R-B4).
func (n *Node) unneeded(req *raft.InstallSnapshotRequest) (*raft.InstallSnapshotResponse, error) {
	term, err := n.logs.GetUint64([]byte(termKey))
	if err != nil && err.Error() != "not found" {
		return nil, fmt.Errorf("read current term: %w", err)
	}
	answer := &raft.InstallSnapshotResponse{RPCHeader: n.rpcHeader(), Term: term}
	if req.Term < term {
		return answer, nil
	}
	reached := max(n.raft().CommitIndex(), n.applied(), n.state.Witness().GetIndex())
	answer.Success = req.LastLogIndex <= reached || n.logs.matches(req.LastLogIndex, req.LastLogTerm)
	if !answer.Success {
		return nil, nil
	}
	return answer, nil
}

func (n *Node) rpcHeader() raft.RPCHeader {
	return raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(n.id), Addr: []byte(n.id)}
}

// matches says whether the log has the entry at index, of that term.
func (s *logStore) matches(index, term uint64) bool {
	var l raft.Log
	return index > 0 && s.GetLog(index, &l) == nil && l.Term == term
}

// download brings a snapshot in and believes it only if it is what the request says.
func (n *Node) download(req *raft.InstallSnapshotRequest, data io.Reader) (_ *incoming, err error) {
	in := &incoming{path: n.stores.stage(), term: req.Term}
	defer func() {
		if err != nil {
			if in.store != nil {
				err = errors.Join(err, in.store.Close())
			}
			err = errors.Join(err, os.RemoveAll(in.path))
		}
	}()
	if err := unpack(data, in.path); err != nil {
		return nil, err
	}
	if in.store, err = n.stores.open(in.path); err != nil {
		return nil, err
	}
	in.witness, err = n.verify(in.store, req)
	return in, err
}

// verify compares a store with what was said of it.
func (n *Node) verify(store *kv.Store, req *raft.InstallSnapshotRequest) (_ *metav1.Witness, err error) {
	state, err := meta.Open(store)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, state.Close()) }()
	v := state.View()
	defer v.Close()
	system, err := v.System()
	if err != nil {
		return nil, err
	}
	who, w := n.dir.who(), state.Witness()
	applied, _ := state.Applied()
	switch {
	case system.GetClusterId() != who.ClusterID || system.GetIncarnation() != who.Incarnation:
		return nil, fmt.Errorf("it is of cluster %q, incarnation %d; this node belongs to %q, %d",
			system.GetClusterId(), system.GetIncarnation(), who.ClusterID, who.Incarnation)
	case w.GetIndex() != req.LastLogIndex || w.GetTerm() != req.LastLogTerm || applied > w.GetIndex():
		return nil, fmt.Errorf("it witnesses entry %d of term %d and has applied %d; the leader said %d of term %d",
			w.GetIndex(), w.GetTerm(), applied, req.LastLogIndex, req.LastLogTerm)
	case w.GetConfigurationIndex() != req.ConfigurationIndex || !bytes.Equal(w.GetConfiguration(), req.Configuration):
		return nil, fmt.Errorf("its configuration is that of entry %d; the leader said %d, or another one", w.GetConfigurationIndex(), req.ConfigurationIndex)
	}
	return w, nil
}

// replace puts a state in place of this node's. It keeps everybody away from
// Raft meanwhile. unneeded is asked once more when Raft is down and nothing moves any more.
func (n *Node) replace(ctx context.Context, in *incoming, unneeded func() (*raft.InstallSnapshotResponse, error)) (_ *raft.InstallSnapshotResponse, err error) {
	used := false
	defer func() {
		if !used {
			err = errors.Join(err, in.store.Close(), os.RemoveAll(in.path))
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
		used = true
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
		if err := n.cfg.step(s.name); err != nil {
			return err
		}
		if err := s.do(in); err != nil {
			return err
		}
	}
	n.log.Info("a state was installed", "index", in.witness.GetIndex(), "took", time.Since(began))
	return n.cfg.step("stub is written")
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
	return n.state.Swap(in.store, retired)
}

// wipeLog empties the log, unless it goes on where the state ends: a healed node's
// does, and forgetting entries that it has acknowledged would lose them (C1).
func (n *Node) wipeLog(in *incoming) error {
	if n.logs.matches(in.witness.GetIndex(), in.witness.GetTerm()) {
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
	if n.logs.matches(in.witness.GetIndex(), in.witness.GetTerm()) {
		return nil
	}
	return n.logs.StoreLog(&raft.Log{Index: in.witness.GetIndex(), Term: in.witness.GetTerm(), Type: raft.LogNoop})
}

// giveSnapshot answers the state of this node for one that heals itself (M9). Only the leader's is given.
func (n *Node) giveSnapshot() (*raft.InstallSnapshotRequest, io.ReadCloser, error) {
	term, leads := n.leads()
	if !leads || n.diverged.Load() != nil {
		return nil, nil, fmt.Errorf("node %s does not lead, or its own state is not trusted", n.id)
	}
	m, data, err := n.outgoing.open()
	if err != nil {
		return nil, nil, err
	}
	return &raft.InstallSnapshotRequest{RPCHeader: n.rpcHeader(), SnapshotVersion: m.Version, Term: term, Size: m.Size,
		LastLogIndex: m.Index, LastLogTerm: m.Term, Configuration: raft.EncodeConfiguration(m.Configuration), ConfigurationIndex: m.ConfigurationIndex}, data, nil
}

// clearStores closes and removes states that were replaced, once nobody looks at them.
func (n *Node) clearStores(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-n.stores.left:
			if err := n.stores.clear(); err != nil {
				n.log.Warn("a state that was replaced could not be removed; the next start tries again", "error", err)
			}
		}
	}
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
