package meta

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/pontoon-registry/pontoon/meta/kv"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// ErrClosed is answered by a State after Close.
var ErrClosed = errors.New("state is closed")

// State is the replicated state on one node: Apply writes it, Views read it.
// All methods are safe for concurrent use.
type State struct {
	// now is the latest moment, for those who need no rows.
	now    atomic.Pointer[moment]
	panics atomic.Uint64
	// decide judges one command; a field so that a test can break one rule of it.
	decide func(*txn, *metav1.Command) (*metav1.Result, error)

	// applying is held by whoever writes: Apply, SetWitness, Swap. It guards home
	// and the order of witnesses.
	applying sync.Mutex
	home     *home
	// witness is the row in the store, for those who need only it.
	witness atomic.Pointer[metav1.Witness]

	// mu guards what follows, and the refs of every moment.
	mu      sync.Mutex
	at      *moment
	waiters []*waiter
	closed  bool
	// unviewed is closed once the state is, and so is the last View.
	unviewed chan struct{}
}

// home is a store that the state is in, or was in before a Swap.
type home struct {
	store *kv.Store
	// moments counts those that are open; guarded by State.mu.
	moments int
	// retired is called when the last moment of a home that was left is closed; nil while the state is in it.
	retired func()
}

// moment is the state at one index. It lives while somebody views it.
type moment struct {
	snap   *kv.Snapshot
	home   *home
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
	s := &State{decide: (*txn).judge, home: &home{store: store}, unviewed: make(chan struct{})}
	m, w, err := load(s.home)
	if err != nil {
		return nil, fmt.Errorf("open state: %w", err)
	}
	s.at = m
	s.now.Store(m)
	s.witness.Store(w)
	return s, nil
}

// load reads the moment that a store is at, and its witness.
func load(h *home) (*moment, *metav1.Witness, error) {
	snap, err := h.store.Snapshot()
	if err != nil {
		return nil, nil, err
	}
	h.moments++
	m, w := &moment{snap: snap, home: h, refs: 1, clock: &metav1.Clock{}, system: &metav1.System{}}, &metav1.Witness{}
	r := rows{src: stored{snap}}
	var applied metav1.Applied
	var chain metav1.Chain
	r.read(oneRow(nil, rangeApplied), &applied)
	r.read(oneRow(nil, rangeClock), m.clock)
	r.read(oneRow(nil, rangeSystem), m.system)
	r.read(oneRow(nil, rangeChain), &chain)
	r.read(oneRow(nil, rangeWitness), w)
	m.index, m.term = applied.GetIndex(), applied.GetTerm()
	copy(m.head[:], chain.GetSha256())
	if r.has(oneRow(nil, rangeRestoring)) {
		r.fail(ErrUnrestored)
	}
	if r.err != nil {
		return nil, nil, errors.Join(r.err, snap.Close())
	}
	if v := m.system.GetVersion(); v > NewestVersion {
		return nil, nil, errors.Join(fmt.Errorf("cluster version %d: %w", v, ErrFormat), snap.Close())
	}
	return m, w, nil
}

// Close ends the state: waiters get ErrClosed, new Views answer it. Views that
// are open stay good until their own Close; the store may be closed after the last (Unviewed).
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
	end := s.dropLocked(s.at)
	s.mu.Unlock()
	for _, w := range waiters {
		close(w.done)
	}
	return end()
}

// Unviewed is closed when, after Close, the last View is closed: the store may be closed then.
func (s *State) Unviewed() <-chan struct{} { return s.unviewed }

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
	end := s.dropLocked(m)
	s.mu.Unlock()
	// Nothing was written through it: there is nothing to lose by a failure.
	_ = end()
}

// dropLocked gives back one reference. What it answers is to be called without the lock.
func (s *State) dropLocked(m *moment) (end func() error) {
	if m.refs--; m.refs > 0 {
		return func() error { return nil }
	}
	return func() error {
		err := m.snap.Close()
		s.mu.Lock()
		m.home.moments--
		retired := m.home.retired
		if m.home.moments > 0 {
			retired = nil
		} else if s.closed && retired == nil {
			close(s.unviewed)
		}
		s.mu.Unlock()
		if retired != nil {
			retired()
		}
		return err
	}
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
	end := s.dropLocked(old)
	s.mu.Unlock()
	return end()
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
	case <-w.done: // by an entry, or by Close; a Swap may have gone back since
		if s.now.Load().index < index && s.isClosed() {
			return ErrClosed
		}
		return nil
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
