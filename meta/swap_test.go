package meta

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/pontoon-registry/pontoon/meta/kv"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// storeAt answers a store whose state has applied entries 1 to index.
func storeAt(t *testing.T, index uint64) *kv.Store {
	t.Helper()
	store, err := kv.OpenMemory()
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(store)
	if err != nil {
		t.Fatal(err)
	}
	mustApply(t, s, entryOf(t, 1, begun()...))
	w := &metav1.Witness{Index: index, Term: 5, Configuration: []byte("conf"), ConfigurationIndex: 1}
	mustApply(t, s, LogEntry{Index: index, Term: 5, Witness: w})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return store
}

// TestASwapIsSeenByNewViewsAndLeavesOldOnesGood, wakes who waited, and says when the old store is free.
func TestASwapIsSeenByNewViewsAndLeavesOldOnesGood(t *testing.T) {
	first, second := storeAt(t, 10), storeAt(t, 20)
	s, err := Open(first)
	if err != nil {
		t.Fatal(err)
	}
	old := s.View()
	waited := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		waited <- s.Wait(ctx, 15)
	}()
	retired := 0
	if err := s.Swap(second, false, func() { retired++ }); err != nil {
		t.Fatal(err)
	}
	if err := <-waited; err != nil {
		t.Errorf("who waited for 15 got %v", err)
	}
	v := s.View()
	if v.Index() != 20 || old.Index() != 10 || s.Witness().GetIndex() != 20 {
		t.Errorf("a new view is at %d, the old one at %d, the witness is %v", v.Index(), old.Index(), s.Witness())
	}
	if _, err := old.System(); err != nil || old.has(oneRow(nil, rangeSystem)) == false {
		t.Errorf("the old view: %v", errors.Join(err, old.err))
	}
	v.Close()
	if retired != 0 {
		t.Error("the old store was given up while a view looks at it")
	}
	old.Close()
	if retired != 1 {
		t.Errorf("retired %d times", retired)
	}
	if err := first.Close(); err != nil { // reports what is still open
		t.Error(err)
	}
	mustApply(t, s, LogEntry{Index: 21, Term: 5})
	if index, _ := s.Applied(); index != 21 {
		t.Errorf("at %d", index)
	}
	if err := errors.Join(s.Close(), second.Close()); err != nil {
		t.Error(err)
	}
}

// TestASwapGoesBackOnlyWhenTold: reads must not go back in time by mistake.
func TestASwapGoesBackOnlyWhenTold(t *testing.T) {
	newer, older := storeAt(t, 20), storeAt(t, 10)
	s, err := Open(newer)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Swap(older, false, func() { t.Error("retired") }); err == nil {
		t.Error("an older state was taken")
	}
	if index, _ := s.Applied(); index != 20 {
		t.Errorf("at %d", index)
	}
	retired := false
	if err := s.Swap(older, true, func() { retired = true }); err != nil {
		t.Fatal(err)
	}
	if index, _ := s.Applied(); index != 10 || !retired || s.Witness().GetIndex() != 10 {
		t.Errorf("at %d, retired %v, witness %v", index, retired, s.Witness())
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := s.Swap(newer, true, nil); !errors.Is(err, ErrClosed) {
		t.Errorf("a swap after the close: %v", err)
	}
	if err := errors.Join(newer.Close(), older.Close()); err != nil {
		t.Error(err)
	}
}

// TestACheckpointWitnessesExactlyWhatItHolds, however far the state has gone on since its last witness.
func TestACheckpointWitnessesExactlyWhatItHolds(t *testing.T) {
	dir := t.TempDir()
	store, err := kv.Open(filepath.Join(dir, "state"), kv.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(store)
	if err != nil {
		t.Fatal(err)
	}
	mustApply(t, s, entryOf(t, 1, begun()...))
	seal := func(name string) (*metav1.Witness, error) {
		if err := s.Checkpoint(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		mustApply(t, s, LogEntry{Index: s.now.Load().index + 1, Term: 9}) // too late for it
		copied, err := kv.Open(filepath.Join(dir, name), kv.Options{})
		if err != nil {
			t.Fatal(err)
		}
		w, err := Seal(copied)
		return w, errors.Join(err, copied.Close())
	}
	if w, err := seal("none"); err == nil {
		t.Errorf("a state that knows no configuration was sealed as %v", w)
	}
	mustApply(t, s, LogEntry{Index: 5, Term: 2, Witness: &metav1.Witness{Index: 5, Term: 2, Configuration: []byte("c"), ConfigurationIndex: 5}})
	mustApply(t, s, LogEntry{Index: 8, Term: 3})
	if w, err := seal("behind"); err != nil || w.GetIndex() != 8 || w.GetTerm() != 3 || string(w.GetConfiguration()) != "c" || w.GetConfigurationIndex() != 5 {
		t.Errorf("sealed as %v, %v", w, err)
	}
	if err := s.SetWitness(&metav1.Witness{Index: 30, Term: 4, Configuration: []byte("c"), ConfigurationIndex: 5}); err != nil {
		t.Fatal(err)
	}
	if w, err := seal("ahead"); err != nil || w.GetIndex() != 30 || w.GetTerm() != 4 {
		t.Errorf("with Raft's own entries after it, sealed as %v, %v", w, err)
	}
	if err := errors.Join(s.Close(), store.Close()); err != nil {
		t.Error(err)
	}
}
