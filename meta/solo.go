package meta

import (
	"context"
	"fmt"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/pontoon-registry/pontoon/meta/kv"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// Solo is a Ledger over one State without Raft: the real rules for tests and
// tools. It syncs nothing and deduplicates nothing; cluster.Node does.
type Solo struct {
	state *State
	now   func() int64
	// began is the wall time, and base the cluster time, of its first entry.
	began, base int64

	// proposing orders the log; it guards index.
	proposing sync.Mutex
	index     uint64
}

var _ Ledger = (*Solo)(nil)

// NewSolo opens the state in store, and makes a cluster of it if it is empty,
// with DefaultSettings. now answers wall time in Unix nanoseconds.
func NewSolo(store *kv.Store, now func() int64) (*Solo, error) {
	state, err := Open(store)
	if err != nil {
		return nil, err
	}
	s := &Solo{state: state, now: now, began: now()}
	v := state.View()
	s.index, s.base = v.Index(), v.ClusterTime()
	_, err = v.System()
	term := v.at.system.GetTerm()
	v.Close()
	if err == nil {
		return s, nil
	}
	first := &metav1.Command{Kind: &metav1.Command_InitCluster{InitCluster: &metav1.InitCluster{
		ClusterId: "solo", Epoch: "solo", Incarnation: 1, Version: NewestVersion, Name: "solo",
	}}}
	ctx := context.Background()
	if _, err := s.Propose(ctx, first); err != nil {
		return nil, fmt.Errorf("initialise solo: %w", err)
	}
	if err := s.openTerm(ctx, term+1, DefaultSettings()); err != nil {
		return nil, fmt.Errorf("initialise solo: %w", err)
	}
	return s, nil
}

// Configure replaces the settings of the cluster.
func (s *Solo) Configure(ctx context.Context, settings *metav1.Settings) error {
	return s.openTerm(ctx, s.state.now.Load().system.GetTerm(), settings)
}

func (s *Solo) openTerm(ctx context.Context, term uint64, settings *metav1.Settings) error {
	_, err := s.Propose(ctx, &metav1.Command{Kind: &metav1.Command_OpenTerm{OpenTerm: &metav1.OpenTerm{
		Term: term, NodeId: "solo", Settings: settings,
	}}})
	return err
}

// State answers the state below.
func (s *Solo) State() *State { return s.state }

// Close ends the state; the store remains the caller's.
func (s *Solo) Close() error { return s.state.Close() }

// View implements Ledger.
func (s *Solo) View(ctx context.Context, read Read, fn func(*View) error) error {
	if ctx.Err() != nil {
		return Refuse(metav1.Kind_KIND_UNAVAILABLE, metav1.Noun_NOUN_CLUSTER, "read: %s", context.Cause(ctx))
	}
	v := s.state.View()
	defer v.Close()
	if v.err != nil {
		return v.err
	}
	if read.MinIndex > v.Index() {
		return Refuse(metav1.Kind_KIND_PRECONDITION, metav1.Noun_NOUN_CURSOR,
			"revision: asked for at least %d, the latest is %d", read.MinIndex, v.Index())
	}
	return fn(v)
}

// Propose implements Ledger.
func (s *Solo) Propose(ctx context.Context, c *metav1.Command) (*metav1.Result, error) {
	if ctx.Err() != nil {
		return nil, Refuse(metav1.Kind_KIND_UNAVAILABLE, metav1.Noun_NOUN_CLUSTER, "propose: %s", context.Cause(ctx))
	}
	if n := proto.Size(c); n > MaxCommand {
		return nil, tooLarge(metav1.Noun_NOUN_SIZE, "command: got %d bytes, at most %d are accepted", n, MaxCommand)
	}
	if c.Envelope == nil {
		c.Envelope = &metav1.Envelope{}
	}
	if c.Envelope.NodeId == "" {
		c.Envelope.NodeId = "solo"
	}
	s.proposing.Lock()
	defer s.proposing.Unlock()
	wall := s.now()
	data, err := proto.Marshal(&metav1.Entry{
		Format: entryFormat, ClusterTime: s.base + wall - s.began, WallTime: wall, Commands: []*metav1.Command{c},
	})
	if err != nil {
		return nil, invalid(metav1.Noun_NOUN_UNSPECIFIED, "command: %s", err)
	}
	s.index++
	results, err := s.state.Apply([]LogEntry{{Index: s.index, Term: 1, Data: data}})
	if err != nil {
		return nil, err
	}
	result := results[0][0]
	return result, FromRefusal(result.GetRefusal())
}
