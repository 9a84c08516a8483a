package meta

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/pontoon-registry/pontoon/meta/kv"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// ErrFormat stops a node whose release is too old for what it is asked to
// apply: going on would be divergence (M2, M7).
var ErrFormat = errors.New("not known to this release of Pontoon: install a newer one")

const (
	// entryFormat is the newest encoding of Entry that this code knows.
	entryFormat = 1
	// NewestVersion is the newest cluster version (M7) that this code knows; version.go says what came with which.
	NewestVersion = 3
)

// LogEntry is one entry of the log as it is delivered to the state.
type LogEntry struct {
	Index, Term uint64
	// Data is an encoded metav1.Entry; nil for an entry of Raft's own, which only moves the applied index.
	Data []byte
	// Witness is to be recorded with the entry, even if that is skipped; nil: nothing.
	Witness *metav1.Witness
}

// group is one call of Apply: one batch of the store for all its entries.
type group struct {
	state  *State
	batch  *kv.Batch
	txn    txn
	index  uint64
	term   uint64
	head   link
	clock  *metav1.Clock
	system *metav1.System
	// events of the current log entry.
	events uint32
	panics uint64
}

// Apply applies log entries in order, in one batch with the applied index; those
// at or below Applied are skipped and have nil results. Each of the others has one result per command.
//
// An error means that this node must stop (M2): the store failed (kv.IsError),
// or the log holds what this release does not know (ErrFormat). Nothing of the call is then visible;
// it may be durable, and is not applied twice.
func (s *State) Apply(entries []LogEntry) ([][]*metav1.Result, error) {
	s.applying.Lock()
	defer s.applying.Unlock()
	if s.isClosed() {
		return nil, ErrClosed
	}
	at := s.now.Load()
	g := &group{
		state: s, batch: s.home.store.Batch(), index: at.index, term: at.term, head: at.head,
		clock: proto.CloneOf(at.clock), system: at.system,
	}
	g.txn.buf = overlay{base: g.batch, writes: make(map[string]write)}
	g.txn.src = &g.txn.buf
	results := make([][]*metav1.Result, len(entries))
	for i, e := range entries {
		if e.Index <= g.index {
			continue
		}
		r, err := g.entry(e)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("apply log entry %d: %w", e.Index, err), g.batch.Discard())
		}
		results[i] = r
	}
	w, err := s.witnessed(entries, g.batch)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("witness log entry %d: %w", g.index, err), g.batch.Discard())
	}
	if g.index == at.index && w == nil {
		return results, g.batch.Discard()
	}
	if err := g.commit(); err != nil {
		return nil, fmt.Errorf("apply up to log entry %d: %w", g.index, err)
	}
	if w != nil {
		s.witness.Store(proto.CloneOf(w))
	}
	return results, nil
}

// entry applies one log entry.
func (g *group) entry(e LogEntry) ([]*metav1.Result, error) {
	at, passed := noteBefore(g.index, e.Index)
	if passed && at < e.Index {
		if err := g.note(at); err != nil {
			return nil, err
		}
	}
	results, err := g.commands(e)
	if err != nil {
		return nil, err
	}
	g.index, g.term = e.Index, e.Term
	if passed && at == e.Index {
		return results, g.note(at)
	}
	return results, nil
}

func (g *group) commands(e LogEntry) ([]*metav1.Result, error) {
	if e.Data == nil {
		return nil, nil
	}
	var entry metav1.Entry
	if err := proto.Unmarshal(e.Data, &entry); err != nil {
		return nil, fmt.Errorf("decode: %w: %w", err, ErrFormat)
	}
	if f := entry.GetFormat(); f != entryFormat {
		return nil, fmt.Errorf("entry format %d: %w", f, ErrFormat)
	}
	g.events = 0
	if err := g.tick(&entry); err != nil {
		return nil, err
	}
	results := make([]*metav1.Result, len(entry.GetCommands()))
	for i, c := range entry.GetCommands() {
		r, err := g.command(e.Index, uint32(i), c)
		if err != nil {
			return nil, fmt.Errorf("command %d: %w", i, err)
		}
		results[i] = r
	}
	return results, nil
}

// tick moves the cluster's clock, never back (M1).
func (g *group) tick(e *metav1.Entry) error {
	clock := &metav1.Clock{ClusterTime: max(g.clock.GetClusterTime(), e.GetClusterTime()), WallTime: e.GetWallTime()}
	g.clock = clock
	value, err := encoding.Marshal(clock)
	if err != nil {
		return err
	}
	key := oneRow(nil, rangeClock)
	g.head = g.head.extend([]write{{key: string(key), value: value}})
	return g.batch.Set(key, value)
}

// command applies one command: its writes, or none of them.
func (g *group) command(index uint64, n uint32, c *metav1.Command) (*metav1.Result, error) {
	if c.GetKind() == nil {
		return nil, fmt.Errorf("kind of command: %w", ErrFormat)
	}
	t := &g.txn
	t.index, t.clock, t.wall, t.env = index, g.clock.GetClusterTime(), g.clock.GetWallTime(), c.GetEnvelope()
	t.reset(g)
	var result *metav1.Result
	var err error
	if panicked := guarded(func() { result, err = g.judge(index, n, c) }); panicked != "" && t.err == nil {
		t.reset(g)
		result, err = g.panicked(index, n, c, panicked)
	}
	if t.err != nil {
		return nil, t.err
	}
	if err != nil {
		return nil, err
	}
	return result, g.keep()
}

// judge answers the result of c and leaves its writes in the buffer. It panics
// only in the bookkeeping around a command; the command's own panic is a refusal.
func (g *group) judge(index uint64, n uint32, c *metav1.Command) (*metav1.Result, error) {
	t := &g.txn
	if result := t.repeated(c); result != nil {
		return result, nil
	}
	var result *metav1.Result
	var err error
	panicked := guarded(func() { result, err = g.state.decide(t, c) })
	if t.err != nil {
		return nil, t.err
	}
	var refusal *Error
	switch {
	case panicked != "":
		t.reset(g)
		if result, err = g.panicked(index, n, c, panicked); err != nil {
			return nil, err
		}
	case errors.As(err, &refusal):
		t.reset(g)
		result = &metav1.Result{Refusal: refusal.Proto()}
	case err != nil:
		return nil, err
	case result == nil:
		result = &metav1.Result{}
	}
	result.Index = index
	t.remember(c, result)
	return result, nil
}

// keep moves the command's writes from the buffer into the batch and the chain.
func (g *group) keep() error {
	t := &g.txn
	g.events, g.system = t.events, t.system
	if len(t.buf.writes) == 0 {
		return nil
	}
	writes := t.buf.sorted()
	g.head = g.head.extend(writes)
	for _, w := range writes {
		var err error
		if w.del {
			err = g.batch.Delete([]byte(w.key))
		} else {
			err = g.batch.Set([]byte(w.key), w.value)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// note keeps the head of the chain as the hash at index, and forgets an old one.
func (g *group) note(index uint64) error {
	value, err := encoding.Marshal(&metav1.Chain{Index: index, Sha256: g.head[:]})
	if err != nil {
		return err
	}
	if err := g.batch.Set(indexKey(nil, rangeChainNote, index), value); err != nil {
		return err
	}
	if index <= notesKept*noteEvery {
		return nil
	}
	return g.batch.Delete(indexKey(nil, rangeChainNote, index-notesKept*noteEvery))
}

// commit writes the batch with the applied index and the chain in it, and publishes it.
func (g *group) commit() error {
	applied, err := encoding.Marshal(&metav1.Applied{Index: g.index, Term: g.term})
	if err != nil {
		return errors.Join(err, g.batch.Discard())
	}
	chain, err := encoding.Marshal(&metav1.Chain{Index: g.index, Sha256: g.head[:]})
	if err != nil {
		return errors.Join(err, g.batch.Discard())
	}
	if err := g.batch.Set(oneRow(nil, rangeApplied), applied); err != nil {
		return errors.Join(err, g.batch.Discard())
	}
	if err := g.batch.Set(oneRow(nil, rangeChain), chain); err != nil {
		return errors.Join(err, g.batch.Discard())
	}
	if err := g.batch.Commit(); err != nil {
		return err
	}
	home := g.state.home
	snap, err := home.store.Snapshot()
	if err != nil {
		return err
	}
	g.state.mu.Lock()
	home.moments++
	g.state.mu.Unlock()
	g.state.panics.Add(g.panics)
	return g.state.publish(&moment{
		snap: snap, home: home, refs: 1, index: g.index, term: g.term, head: g.head, clock: g.clock, system: g.system,
	})
}
