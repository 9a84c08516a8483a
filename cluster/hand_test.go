package cluster

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/pontoon-registry/pontoon/cluster/transport"
	"github.com/pontoon-registry/pontoon/meta"
	"github.com/pontoon-registry/pontoon/meta/kv"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// hand feeds Raft's calls to one real node, as a leader of its choosing would: the
// node's cluster is that node and two that are only the hand's word. It has elections
// of 20 s, so that it stays a follower for as long as a test takes.
type hand struct {
	t     *testing.T
	node  *running
	raft  *transport.Instance
	stop  func()
	last  uint64 // index and term of the last entry that was fed
	term  uint64
	conf  []byte
	confI uint64
}

const handID = "00000000000000000000000000000001"

// feed makes a node of a cluster of three that follows the hand.
func feed(t *testing.T, configure func(*Config)) *hand {
	t.Helper()
	cfg := testConfig(t, &testMark{})
	cfg.TimeScale = 0.1
	one := start(t, cfg)
	eventually(t, "the node is ready", func() error { return one.Ready(t.Context()) })
	cfg = one.cfg
	one.halt(t)
	cfg.TimeScale = 20
	configure(&cfg)
	h := &hand{t: t, node: start(t, cfg)}
	h.connect()
	w := h.node.state.Witness()
	h.last, h.term = h.node.raft().LastIndex(), 7
	h.conf = raft.EncodeConfiguration(raft.Configuration{Servers: []raft.Server{
		{ID: raftID(h.node), Address: raftAddress(h.node)}, {ID: handID, Address: handID}, {ID: "3", Address: "3"}}})
	h.confI = h.last + 1
	var at raft.Log
	if err := h.node.logs.GetLog(h.last, &at); err != nil || w == nil {
		t.Fatal(err)
	}
	h.must(h.append(h.last, at.Term, &raft.Log{Index: h.confI, Term: h.term, Type: raft.LogConfiguration, Data: h.conf}))
	h.last = h.confI
	h.commit(h.last)
	return h
}

// connect makes the hand's end of the network; again after a restart of the node.
func (h *hand) connect() {
	h.t.Helper()
	listener, err := new(net.ListenConfig).Listen(h.t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		h.t.Fatal(err)
	}
	trust, err := NewTrust([]string{testSecret}, handID, nil)
	if err != nil {
		h.t.Fatal(err)
	}
	host, err := transport.New(transport.Config{NodeID: handID, Listener: listener, Credentials: trust,
		Resolve:  func(string) (string, bool) { return h.node.advertise, true },
		Identity: h.node.clusterIdentity, AppendTimeout: time.Minute}) // of a busy machine
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- host.Run(ctx) }()
	h.stop = func() { cancel(); <-done }
	h.t.Cleanup(func() { h.stop() })
	h.raft = host.Raft().Instance()
}

// restart ends the node and opens it again, from another directory if that is given.
func (h *hand) restart(dir string) {
	h.t.Helper()
	cfg := h.node.cfg
	h.node.halt(h.t)
	if dir != "" {
		cfg.DataDir = dir
	}
	cfg.Step = nil
	h.node = start(h.t, cfg)
}

func (h *hand) header() raft.RPCHeader {
	return raft.RPCHeader{ProtocolVersion: 3, ID: []byte(handID), Addr: []byte(handID)}
}

func (h *hand) call(req *raft.AppendEntriesRequest) raft.AppendEntriesResponse {
	h.t.Helper()
	req.RPCHeader, req.Term = h.header(), h.term
	var resp raft.AppendEntriesResponse
	if err := h.raft.AppendEntries(raftID(h.node), "", req, &resp); err != nil {
		h.t.Fatalf("append: %v", err)
	}
	return resp
}

func (h *hand) append(prev, prevTerm uint64, entries ...*raft.Log) raft.AppendEntriesResponse {
	h.t.Helper()
	return h.call(&raft.AppendEntriesRequest{PrevLogEntry: prev, PrevLogTerm: prevTerm, Entries: entries})
}

func (h *hand) must(r raft.AppendEntriesResponse) {
	h.t.Helper()
	if !r.Success {
		h.t.Fatalf("an append was refused: %+v", r)
	}
}

// grow appends n entries of a type after the last.
func (h *hand) grow(n int, kind raft.LogType) {
	h.t.Helper()
	var at raft.Log
	if err := h.node.logs.GetLog(h.last, &at); err != nil {
		h.t.Fatal(err)
	}
	entries := make([]*raft.Log, n)
	for i := range entries {
		entries[i] = &raft.Log{Index: h.last + 1 + uint64(i), Term: h.term, Type: kind}
		if kind == raft.LogCommand {
			entries[i].Data = emptyEntry()
		}
	}
	h.must(h.append(h.last, at.Term, entries...))
	h.last += uint64(n)
}

// emptyEntry is a group without commands: it moves only the clock.
func emptyEntry() []byte { return encodeEntry(1, 1, nil) }

// commit tells the node that everything up to index is committed.
func (h *hand) commit(index uint64) {
	h.t.Helper()
	var at raft.Log
	if err := h.node.logs.GetLog(index, &at); err != nil {
		h.t.Fatal(err)
	}
	h.must(h.call(&raft.AppendEntriesRequest{PrevLogEntry: index, PrevLogTerm: at.Term, LeaderCommitIndex: index}))
	own := index // the last that the state hears of
	for at.Type != raft.LogCommand && at.Type != raft.LogConfiguration && own > 0 {
		if own--; h.node.logs.GetLog(own, &at) != nil {
			own = 0 // compacted
		}
	}
	eventually(h.t, "raft and state have applied it", func() error { // Raft counts what it has queued
		if got, state := h.node.raft().AppliedIndex(), h.node.applied(); got < index || state < own {
			return fmt.Errorf("applied %d of %d, the state %d of %d", got, index, state, own)
		}
		return nil
	})
}

// applies waits until the state is at index: Raft's own word only says that it was handed over.
func (h *hand) applies(index uint64) {
	h.t.Helper()
	eventually(h.t, "the state has it", func() error {
		if got := h.node.applied(); got != index {
			return fmt.Errorf("the state is at %d, not %d", got, index)
		}
		return nil
	})
}

// snapshot is what a leader sends.
type snapshot struct {
	req  raft.InstallSnapshotRequest
	data []byte
}

// forge makes a snapshot of what a leader of some term has at an index, out of the node's own state.
func (h *hand) forge(index, term uint64) *snapshot {
	h.t.Helper()
	_, data, err := h.node.outgoing.open()
	if err != nil {
		h.t.Fatal(err)
	}
	dir := filepath.Join(h.t.TempDir(), "forged")
	if err := unpack(data, dir); err != nil {
		h.t.Fatal(err)
	}
	if err := data.Close(); err != nil {
		h.t.Fatal(err)
	}
	store, err := kv.Open(dir, kv.Options{})
	if err != nil {
		h.t.Fatal(err)
	}
	state, err := meta.Open(store)
	if err != nil {
		h.t.Fatal(err)
	}
	w := &metav1.Witness{Index: index, Term: term, Configuration: h.conf, ConfigurationIndex: h.confI}
	if _, err := state.Apply([]meta.LogEntry{{Index: index, Term: term, Data: emptyEntry(), Witness: w}}); err != nil {
		h.t.Fatal(err)
	}
	if err := state.Close(); err != nil {
		h.t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		h.t.Fatal(err)
	}
	files, err := archivable(dir)
	if err != nil {
		h.t.Fatal(err)
	}
	archive, err := io.ReadAll(&archiveReader{dir: dir, files: files})
	if err != nil {
		h.t.Fatal(err)
	}
	return &snapshot{data: archive, req: raft.InstallSnapshotRequest{SnapshotVersion: 1, LastLogIndex: index, LastLogTerm: term,
		Configuration: h.conf, ConfigurationIndex: h.confI, Size: int64(len(archive))}}
}

// send sends it as the leader of the hand's term.
func (h *hand) send(s *snapshot) (raft.InstallSnapshotResponse, error) {
	req, resp := s.req, raft.InstallSnapshotResponse{}
	req.RPCHeader, req.Term, req.Leader = h.header(), h.term, []byte(handID)
	err := h.raft.InstallSnapshot(raftID(h.node), "", &req, &resp, bytes.NewReader(s.data))
	return resp, err
}

func (h *hand) install(s *snapshot) {
	h.t.Helper()
	if resp, err := h.send(s); err != nil || !resp.Success {
		h.t.Fatalf("the snapshot of %d was not installed: %+v, %v", s.req.LastLogIndex, resp, err)
	}
	h.last = s.req.LastLogIndex
}

// at is what the node has.
type standing struct{ first, last, applied, witness uint64 }

func (h *hand) standing() standing {
	h.t.Helper()
	return standingOf(h.t, h.node.Node)
}

func standingOf(t testing.TB, n *Node) standing {
	t.Helper()
	first, err := n.logs.FirstIndex()
	if err != nil {
		t.Fatal(err)
	}
	last, err := n.logs.LastIndex()
	if err != nil {
		t.Fatal(err)
	}
	return standing{first, last, n.applied(), n.state.Witness().GetIndex()}
}

// compactAll makes Raft keep only so many entries.
func compactAll(t testing.TB, n *Node, trailing uint64) {
	t.Helper()
	r := n.raft()
	c := r.ReloadableConfig()
	c.TrailingLogs = trailing
	if err := r.ReloadConfig(c); err != nil {
		t.Fatal(err)
	}
	if err := r.Snapshot().Error(); err != nil {
		t.Fatal(err)
	}
}
