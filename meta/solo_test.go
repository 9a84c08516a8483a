package meta

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/pontoon-registry/pontoon/meta/kv"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

func newSolo(t *testing.T, store *kv.Store, now func() int64) *Solo {
	t.Helper()
	s, err := NewSolo(store, now)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestSoloIsALedger: what Propose answered is in the next View, for many at once.
func TestSoloIsALedger(t *testing.T) {
	store, err := kv.OpenMemory()
	if err != nil {
		t.Fatal(err)
	}
	wall := int64(1_700_000_000_000_000_000)
	s := newSolo(t, store, func() int64 { return wall })
	ctx := t.Context()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			name := string(rune('a' + i))
			r, err := s.Propose(ctx, lockCommand(name))
			if err != nil {
				t.Error(err)
				return
			}
			err = s.View(ctx, Read{MinIndex: r.GetIndex()}, func(v *View) error {
				l, err := v.Lock(name)
				if err == nil && l.GetToken() != r.GetLock().GetToken() {
					t.Errorf("lock %s: token %d, granted %d", name, l.GetToken(), r.GetLock().GetToken())
				}
				return err
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if _, err := s.Propose(ctx, lockCommand("a")); KindOf(err) != metav1.Kind_KIND_CONFLICT {
		t.Errorf("a refusal comes as %v", err)
	}
	wall += 2 * second
	if _, err := s.Propose(ctx, lockCommand("a")); err != nil {
		t.Errorf("after the lock's time: %v", err)
	}
	index, _ := s.State().Applied()
	err = s.View(ctx, Read{MinIndex: index + 1}, func(*View) error { return nil })
	if KindOf(err) != metav1.Kind_KIND_PRECONDITION {
		t.Errorf("a revision beyond the latest: %v", err)
	}
	mine := errors.New("mine")
	if err := s.View(ctx, Read{}, func(*View) error { return mine }); err != mine { //nolint:errorlint // unchanged is the promise
		t.Errorf("fn's error came as %v", err)
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := s.Propose(ended, lockCommand("z")); KindOf(err) != metav1.Kind_KIND_UNAVAILABLE {
		t.Errorf("propose with an ended context: %v", err)
	}
	if err := s.View(ended, Read{}, func(*View) error { return nil }); KindOf(err) != metav1.Kind_KIND_UNAVAILABLE {
		t.Errorf("view with an ended context: %v", err)
	}
	big := lockCommand("big")
	big.GetAcquireLock().Holder = string(make([]byte, MaxCommand))
	if _, err := s.Propose(ctx, big); KindOf(err) != metav1.Kind_KIND_TOO_LARGE {
		t.Errorf("a command above the bound: %v", err)
	}
	closed(t, s.Close())

	// Opened again it goes on: the same cluster, a clock that does not fall.
	again := newSolo(t, store, func() int64 { return 5 })
	settings := DefaultSettings()
	settings.SparseImages = true
	if err := again.Configure(ctx, settings); err != nil {
		t.Fatal(err)
	}
	err = again.View(ctx, Read{}, func(v *View) error {
		row, err := v.System()
		if err == nil && (!row.GetSettings().GetSparseImages() || v.ClusterTime() < 2*second) {
			t.Errorf("after the restart: %v at %d", row, v.ClusterTime())
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	closed(t, again.Close())
	closed(t, store.Close())
}

// TestAnEmptyStateHasNoSystem until the cluster has a name.
func TestAnEmptyStateHasNoSystem(t *testing.T) {
	s := newState(t)
	v := s.View()
	defer v.Close()
	if _, err := v.System(); KindOf(err) != metav1.Kind_KIND_UNKNOWN {
		t.Errorf("system of an empty state: %v", err)
	}
	if v.Index() != 0 || v.ClusterTime() != 0 || v.Stale() {
		t.Errorf("an empty state is at %d, %d, stale %t", v.Index(), v.ClusterTime(), v.Stale())
	}
	v.MarkStale()
	if !v.Stale() {
		t.Error("marked, and not stale")
	}
}
