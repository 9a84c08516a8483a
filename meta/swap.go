package meta

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/pontoon-registry/pontoon/meta/kv"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// Swap moves the state to another store. One that is older is refused unless
// back says that reads may go back in time. Views from now on see the new one; who
// waited for an index that it has wakes. Views that are open stay good: retired is
// called when the last of them is closed, by whoever closes it, and only then the old
// store may be closed. The caller closes both stores.
func (s *State) Swap(store *kv.Store, back bool, retired func()) error {
	s.applying.Lock()
	defer s.applying.Unlock()
	if s.isClosed() {
		return ErrClosed
	}
	next := &home{store: store}
	m, w, err := load(next)
	if err != nil {
		return fmt.Errorf("swap state: %w", err)
	}
	if at := s.now.Load().index; m.index < at && !back {
		return errors.Join(fmt.Errorf("swap state: the other is at index %d, this one at %d: reads would go back in time", m.index, at), m.snap.Close())
	}
	old := s.home
	s.mu.Lock()
	old.retired = retired
	s.mu.Unlock()
	s.home = next
	s.witness.Store(w)
	return s.publish(m)
}

// Checkpoint makes a durable copy of the state in dir, which must not exist, by
// hard links, without stopping Apply: what is applied meanwhile may be in it or
// not, in order. Seal the copy before anybody else gets it.
func (s *State) Checkpoint(dir string) error {
	v := s.View()
	defer v.Close()
	if v.err != nil {
		return v.err
	}
	return v.at.home.store.Checkpoint(dir)
}

// Seal makes a checkpoint a snapshot for Raft: it witnesses exactly what the
// checkpoint has applied, so that index, term and configuration, as Raft will
// name them, are of one moment with the rows. It answers that witness.
func Seal(store *kv.Store) (*metav1.Witness, error) {
	r := rows{src: stored{store}}
	var applied metav1.Applied
	w := &metav1.Witness{}
	r.read(oneRow(nil, rangeApplied), &applied)
	r.read(oneRow(nil, rangeWitness), w)
	if r.err != nil {
		return nil, fmt.Errorf("seal checkpoint: %w", r.err)
	}
	if len(w.GetConfiguration()) == 0 {
		return nil, errors.New("seal checkpoint: the state has witnessed no configuration yet")
	}
	// A witness of Raft's own entries, which the state never sees, may be ahead of what is applied.
	if w.GetIndex() < applied.GetIndex() {
		w.Index, w.Term = applied.GetIndex(), applied.GetTerm()
	}
	value, err := proto.Marshal(w)
	if err != nil {
		return nil, fmt.Errorf("seal checkpoint: %w", err)
	}
	if err := errors.Join(store.Set(oneRow(nil, rangeWitness), value), store.Sync()); err != nil {
		return nil, fmt.Errorf("seal checkpoint: %w", err)
	}
	return w, nil
}
