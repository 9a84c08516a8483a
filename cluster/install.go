package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

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
	if err := n.cfg.Step("downloaded"); err != nil {
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
	if err := n.space.roomFor(req.Size); err != nil {
		return nil, err
	}
	in := &incoming{path: n.stores.stage(), term: req.Term}
	defer func() {
		if err != nil {
			if in.store != nil {
				err = errors.Join(err, in.store.Close())
			}
			err = errors.Join(err, os.RemoveAll(in.path))
		}
	}()
	if err := unpack(n.cfg.Stream("install", data), in.path); err != nil {
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
	if err := n.understandsCluster(system.GetVersion()); err != nil {
		return nil, err
	}
	who, w := n.dir.who(), state.Witness()
	applied, _ := state.Applied()
	switch {
	// The state hears of a new life by the log, after the nodes (Recover): it may be behind.
	case system.GetClusterId() != who.ClusterID || system.GetIncarnation() > who.Incarnation:
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
