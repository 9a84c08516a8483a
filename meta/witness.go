package meta

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/pontoon-registry/pontoon/meta/kv"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// The witness is Raft's index, term and configuration at a place that the state
// has reached (R-B1), in a row outside the hash. It only rises. Apply writes it
// in the batch of what it witnesses, so every prefix of the batches that a power cut
// leaves, and every checkpoint, has the configuration that is right for it.

// Witness answers it; zero when never.
func (s *State) Witness() *metav1.Witness { return proto.CloneOf(s.witness.Load()) }

// SetWitness records it, unless a later one is there. When it returns, that and
// everything applied before the call is durable: that is what lets the log be compacted (R-B8).
func (s *State) SetWitness(w *metav1.Witness) error {
	store, release, err := s.raise(w)
	if err != nil {
		return fmt.Errorf("write witness: %w", err)
	}
	defer release()
	if err := store.Sync(); err != nil { // without the lock: Apply goes on meanwhile
		return fmt.Errorf("write witness: %w", err)
	}
	return nil
}

// raise writes the row, unsynced, and holds the store open until release.
func (s *State) raise(w *metav1.Witness) (_ *kv.Store, release func(), err error) {
	s.applying.Lock()
	defer s.applying.Unlock()
	v := s.View()
	if v.err != nil {
		return nil, nil, v.err
	}
	store := s.home.store
	if w.GetIndex() > s.witness.Load().GetIndex() {
		value, err := proto.Marshal(w)
		if err == nil {
			err = store.Set(oneRow(nil, rangeWitness), value)
		}
		if err != nil {
			v.Close()
			return nil, nil, err
		}
		s.witness.Store(proto.CloneOf(w))
	}
	return store, v.Close, nil
}

// witnessed adds the last witness of the entries to their batch, and answers it; nil when there is none, or a later one is there.
func (s *State) witnessed(entries []LogEntry, batch *kv.Batch) (*metav1.Witness, error) {
	for i := len(entries) - 1; i >= 0; i-- {
		w := entries[i].Witness
		if w == nil {
			continue
		}
		if w.GetIndex() <= s.witness.Load().GetIndex() {
			return nil, nil
		}
		value, err := proto.Marshal(w)
		if err != nil {
			return nil, err
		}
		return w, batch.Set(oneRow(nil, rangeWitness), value)
	}
	return nil, nil
}
