package meta

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"google.golang.org/protobuf/proto"

	"github.com/pontoon-registry/pontoon/meta/kv"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// ErrClosed is answered by a State after Close.
var ErrClosed = errors.New("state is closed")

// State is the replicated state on one node: Apply writes it, Views read it.
// Apply and SetWitness are for one goroutine at a time each; everything else is safe for
// concurrent use.
type State struct {
	store *kv.Store
	// now is the latest moment, for those who need no rows.
	now    atomic.Pointer[moment]
	panics atomic.Uint64
	// decide judges one command; a field so that a test can break one rule of it.
	decide func(*txn, *metav1.Command) (*metav1.Result, error)

	// applying is held by Apply.
	applying sync.Mutex

	// mu guards what follows, and the refs of every moment.
	mu      sync.Mutex
	at      *moment
	waiters []*waiter
	closed  bool
}

// moment is the state at one index. It lives while somebody views it.
type moment struct {
	snap   *kv.Snapshot
	refs   int
	index  uint64
	term   uint64
	head   link
	clock  *metav1.Clock
	system *metav1.System
}

type waiter struct {
	index uint64
	// done is closed by Apply once index is applied, or by Close.
	done chan struct{}
}

// Open reads the state that store holds; an empty store is the state at index 0.
// The caller closes the State, then the store.
func Open(store *kv.Store) (*State, error) {
	s := &State{store: store, decide: (*txn).judge}
	m, err := s.load()
	if err != nil {
		return nil, fmt.Errorf("open state: %w", err)
	}
	s.at = m
	s.now.Store(m)
	return s, nil
}

// load reads the moment that the store is at.
func (s *State) load() (*moment, error) {
	snap, err := s.store.Snapshot()
	if err != nil {
		return nil, err
	}
	m := &moment{snap: snap, refs: 1, clock: &metav1.Clock{}, system: &metav1.System{}}
	r := rows{src: stored{snap}}
	var applied metav1.Applied
	var chain metav1.Chain
	r.read(oneRow(nil, rangeApplied), &applied)
	r.read(oneRow(nil, rangeClock), m.clock)
	r.read(oneRow(nil, rangeSystem), m.system)
	r.read(oneRow(nil, rangeChain), &chain)
	m.index, m.term = applied.GetIndex(), applied.GetTerm()
	copy(m.head[:], chain.GetSha256())
	if r.err != nil {
		return nil, errors.Join(r.err, snap.Close())
	}
	if v := m.system.GetVersion(); v > maxVersion {
		return nil, errors.Join(fmt.Errorf("cluster version %d: %w", v, ErrFormat), snap.Close())
	}
	return m, nil
}

// Close ends the state: waiters get ErrClosed, new Views answer it. Views that
// are open stay good until their own Close; the store may be closed after the last.
func (s *State) Close() error {
	s.applying.Lock()
	defer s.applying.Unlock()
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	waiters := s.waiters
	s.waiters = nil
	last := s.dropLocked(s.at)
	s.mu.Unlock()
	for _, w := range waiters {
		close(w.done)
	}
	if last {
		return s.at.snap.Close()
	}
	return nil
}

func (s *State) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// Applied answers the last index delivered to the state, and its term.
func (s *State) Applied() (index, term uint64) {
	m := s.now.Load()
	return m.index, m.term
}

// Panics counts the commands that panicked since Open: any rise is an alarm (M2).
func (s *State) Panics() uint64 { return s.panics.Load() }

// View answers the state as it is now. The caller closes it, soon.
func (s *State) View() *View {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return &View{rows: rows{err: ErrClosed}, at: s.at}
	}
	s.at.refs++
	return &View{rows: rows{src: stored{s.at.snap}}, state: s, at: s.at}
}

// release gives back one reference of a view.
func (s *State) release(m *moment) {
	s.mu.Lock()
	last := s.dropLocked(m)
	s.mu.Unlock()
	if last {
		// Nothing was written through it: there is nothing to lose by a failure.
		_ = m.snap.Close()
	}
}

func (s *State) dropLocked(m *moment) (last bool) {
	m.refs--
	return m.refs == 0
}

// publish makes m what Views see, and wakes who waited for it.
func (s *State) publish(m *moment) error {
	s.mu.Lock()
	old := s.at
	s.at = m
	s.now.Store(m)
	rest := s.waiters[:0]
	for _, w := range s.waiters {
		if w.index <= m.index {
			close(w.done)
			continue
		}
		rest = append(rest, w)
	}
	clear(s.waiters[len(rest):])
	s.waiters = rest
	last := s.dropLocked(old)
	s.mu.Unlock()
	if last {
		return old.snap.Close()
	}
	return nil
}

// Wait returns once index is applied, or with the cause of ctx's end.
func (s *State) Wait(ctx context.Context, index uint64) error {
	if s.now.Load().index >= index {
		return nil
	}
	w := &waiter{index: index, done: make(chan struct{})}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return ErrClosed
	}
	if s.at.index >= index {
		s.mu.Unlock()
		return nil
	}
	s.waiters = append(s.waiters, w)
	s.mu.Unlock()
	select {
	case <-w.done:
		if s.now.Load().index >= index {
			return nil
		}
		return ErrClosed
	case <-ctx.Done():
		s.forget(w)
		return fmt.Errorf("wait for index %d: %w", index, context.Cause(ctx))
	}
}

func (s *State) forget(w *waiter) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, x := range s.waiters {
		if x == w {
			s.waiters = append(s.waiters[:i], s.waiters[i+1:]...)
			return
		}
	}
}

// Witness answers Raft's index, term and configuration as last witnessed (R-B1); zero when never.
func (s *State) Witness() (*metav1.Witness, error) {
	r := rows{src: stored{s.store}}
	w := &metav1.Witness{}
	r.read(oneRow(nil, rangeWitness), w)
	if r.err != nil {
		return nil, fmt.Errorf("read witness: %w", r.err)
	}
	return w, nil
}

// SetWitness records it, outside the hash. With sync, it and everything applied
// before it is durable on return: that is what lets the log be compacted (R-B8).
func (s *State) SetWitness(w *metav1.Witness, sync bool) error {
	value, err := proto.Marshal(w)
	if err != nil {
		return fmt.Errorf("write witness: %w", err)
	}
	if err := s.store.Set(oneRow(nil, rangeWitness), value); err != nil {
		return fmt.Errorf("write witness: %w", err)
	}
	if sync {
		if err := s.store.Sync(); err != nil {
			return fmt.Errorf("write witness: %w", err)
		}
	}
	return nil
}

// Defects lists the last commands that panicked, at most 100, oldest first (M2).
func (s *State) Defects() ([]*metav1.Defect, error) {
	v := s.View()
	defer v.Close()
	out, _, err := list(&v.rows, oneRow(nil, rangeDefect), nil, defectsKept, func(_, value []byte) (*metav1.Defect, bool) {
		row := &metav1.Defect{}
		return row, v.decode(nil, value, row)
	})
	return out, err
}
