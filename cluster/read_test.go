package cluster

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc"

	"github.com/pontoon-registry/pontoon/cluster/transport"
	"github.com/pontoon-registry/pontoon/meta"
	clusterv1 "github.com/pontoon-registry/pontoon/proto/pontoon/cluster/v1"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// fakePeer is a node that answers from fields.
type fakePeer struct {
	clusterv1.NodeServiceClient
	index *clusterv1.ReadIndexResponse
	term  uint64
	err   error
	asked atomic.Int64
	// hold delays ReadIndex until closed.
	hold chan struct{}
}

func (p *fakePeer) ReadIndex(ctx context.Context, _ *clusterv1.ReadIndexRequest, _ ...grpc.CallOption) (*clusterv1.ReadIndexResponse, error) {
	p.asked.Add(1)
	if p.hold != nil {
		select {
		case <-p.hold:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return p.index, p.err
}

func (p *fakePeer) Term(context.Context, *clusterv1.TermRequest, ...grpc.CallOption) (*clusterv1.TermResponse, error) {
	p.asked.Add(1)
	return &clusterv1.TermResponse{Term: p.term}, p.err
}

func fakeReader(self string, term uint64, leader string, peers map[string]*fakePeer) *reader {
	l := newLeaders()
	l.set(leader)
	return &reader{self: self, leaders: l, term: func() uint64 { return term }, metrics: noMetrics{}, wake: make(chan struct{}, 1), forming: newReadBatch(),
		local: func() (readIndex, error) {
			a := peers[self].index
			return readIndex{term: a.GetTerm(), index: a.GetIndex(), voters: a.GetVoters()}, nil
		},
		peer:  func(id string) (clusterv1.NodeServiceClient, error) { return peers[id], nil },
		learn: func(context.Context, transport.Commit) {}}
}

// TestTheTermQuorumIsOfTheLeadersVoters is the table of R-B10.
func TestTheTermQuorumIsOfTheLeadersVoters(t *testing.T) {
	down := errors.New("down")
	abc, abcde := []string{"a", "b", "c"}, []string{"a", "b", "c", "d", "e"}
	for _, c := range []struct {
		name, self string
		own        uint64 // the asker's term
		voters     []string
		terms      map[string]uint64 // 0: down
		ok         bool
	}{
		{"asker and leader are a majority of three", "b", 5, abc, nil, true},
		{"the asker has heard of a later term", "b", 6, abc, nil, false},
		{"an asker behind in terms is fine", "b", 4, abc, nil, true},
		{"the leader itself asks one other", "a", 5, abc, map[string]uint64{"b": 5}, true},
		{"the leader alone of three is no majority", "a", 5, abc, nil, false},
		{"deposed: the others are in a later term", "a", 5, abc, map[string]uint64{"b": 6, "c": 6}, false},
		{"one in a later term does not matter if a majority is not", "a", 5, abc, map[string]uint64{"b": 6, "c": 5}, true},
		{"an asker without a vote does not count", "x", 5, abc, nil, false},
		{"an asker without a vote asks another", "x", 9, abc, map[string]uint64{"c": 5}, true},
		{"five voters: asker and leader are not enough", "b", 5, abcde, map[string]uint64{"c": 6, "d": 6, "e": 6}, false},
		{"five voters with one more", "b", 5, abcde, map[string]uint64{"c": 6, "e": 5}, true},
		{"a lone voter asks nobody", "a", 5, []string{"a"}, nil, true},
		{"a leader that is being removed does not count", "x", 5, []string{"b", "c"}, map[string]uint64{"b": 5}, false},
		{"no voters at all", "a", 5, nil, nil, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			peers := map[string]*fakePeer{}
			for _, id := range append(slices.Clone(abcde), "x") {
				peers[id] = &fakePeer{term: c.terms[id]}
				if c.terms[id] == 0 {
					peers[id].err = down
				}
			}
			peers["a"].index, peers["a"].err = &clusterv1.ReadIndexResponse{Term: 5, Index: 42, Voters: c.voters}, nil
			index, err := fakeReader(c.self, c.own, "a", peers).round(t.Context())
			if c.ok != (err == nil) || c.ok && index != 42 {
				t.Errorf("index %d, %v", index, err)
			}
		})
	}
}

func TestReadsShareARoundAndLaterOnesTheNext(t *testing.T) {
	synctest.Test(t, shareRounds)
}

func shareRounds(t *testing.T) {
	leader := &fakePeer{index: &clusterv1.ReadIndexResponse{Term: 1, Index: 1, Voters: []string{"a", "b", "c"}}, hold: make(chan struct{})}
	r := fakeReader("b", 1, "a", map[string]*fakePeer{"a": leader})
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- r.run(ctx) }()
	var reads sync.WaitGroup
	read := func() {
		reads.Go(func() {
			if _, _, err := r.index(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	read()
	synctest.Wait() // the first round is on its way
	for range 500 {
		read()
	}
	synctest.Wait() // the others wait
	r.mu.Lock()
	if forming := r.forming.reads; forming != 500 || leader.asked.Load() != 1 {
		t.Errorf("%d wait for the second round, %d were begun", forming, leader.asked.Load())
	}
	r.mu.Unlock()
	close(leader.hold)
	reads.Wait()
	if n := leader.asked.Load(); n != 2 {
		t.Errorf("501 reads made %d rounds, want 2", n)
	}
	stop()
	<-ended
}

// TestARoundEndsWithTheLeadersTenure, and not only when its own time is over.
func TestARoundEndsWithTheLeadersTenure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		leader := &fakePeer{hold: make(chan struct{})}
		r := fakeReader("b", 1, "a", map[string]*fakePeer{"a": leader})
		ended := make(chan error)
		go func() { _, err := r.round(t.Context()); ended <- err }()
		synctest.Wait()
		if asked := leader.asked.Load(); asked != 1 {
			t.Fatalf("the leader was asked %d times", asked)
		}
		began := time.Now()
		r.leaders.set("")
		if err := <-ended; err == nil || time.Since(began) != 0 {
			t.Errorf("a read index of a leader that is gone: %v, after %v", err, time.Since(began))
		}
	})
}

// heldApplier applies when it may.
type heldApplier struct {
	Applier
	held *sync.RWMutex
}

func (h heldApplier) Apply(entries []meta.LogEntry) ([][]*metav1.Result, error) {
	h.held.RLock()
	defer h.held.RUnlock()
	return h.Applier.Apply(entries)
}

// TestNoReadGoesBackBehindAnother: a follower may have applied, and shown to a reader, what the leader's state has yet to
// reach. Whoever reads afterwards must not be told an index without it: a read index covers all that is committed.
func TestNoReadGoesBackBehindAnother(t *testing.T) {
	t.Parallel()
	var held sync.RWMutex
	cfg := testConfig(t, nil)
	cfg.Listen, cfg.GossipListen = "", ""
	cfg.Applier = func(a Applier) Applier { return heldApplier{a, &held} }
	n := start(t, cfg)
	eventually(t, "ready", func() error { return n.Ready(t.Context()) })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	roundTrip(t, n, n, "early:1") // the origin is known from here on
	held.Lock()
	release := sync.OnceFunc(held.Unlock)
	before := n.raft().LastIndex()
	var write sync.WaitGroup
	write.Go(func() { _, _ = n.Propose(ctx, putNode("late", "a:1")) }) // is acknowledged once it is applied
	defer write.Wait()
	defer release()
	eventually(t, "the write to be committed", func() error {
		for i := before + 1; i <= n.raft().CommitIndex(); i++ { // the node's own commands are among them
			var entry raft.Log
			if err := n.logs.GetLog(i, &entry); err == nil && bytes.Contains(entry.Data, []byte("late")) {
				return nil
			}
		}
		return errors.New("not yet")
	})
	at, err := n.readIndex()
	if err != nil || at.index <= before || at.index > n.raft().CommitIndex() || at.index <= n.applied() {
		t.Errorf("the read index is %d, %v; committed is %d, applied %d", at.index, err, n.raft().CommitIndex(), n.applied())
	}
	release()
	if address, err := addressOf(ctx, n, "late"); err != nil || address != "a:1" {
		t.Errorf("it answers %q, %v", address, err)
	}
}
