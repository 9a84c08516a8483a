package cluster

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// TestNodesThatSwappedAddressesAreReachedAtOnce: gossip alone takes until it has found each dead where the other answers now.
func TestNodesThatSwappedAddressesAreReachedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSimCluster(t, 1, 3, nil)
		defer s.end()
		if err := s.form(); err != nil {
			t.Fatal(err)
		}
		one, other := s.slots[0], s.slots[1]
		// There, and back before gossip has found out.
		for _, most := range []time.Duration{3 * time.Second, 8 * time.Second} {
			one.live().halt()
			other.live().halt()
			one.ip, other.ip = other.ip, one.ip
			began := time.Now()
			if err := errors.Join(one.start(), other.start(), s.settled(time.Minute)); err != nil {
				t.Fatal(err)
			}
			for err := s.reached(t); err != nil; err = s.reached(t) {
				if time.Since(began) > time.Minute {
					t.Fatal(err)
				}
				time.Sleep(20 * time.Millisecond)
			}
			took := time.Since(began)
			t.Logf("after %v all reach all", took)
			if took > most {
				t.Errorf("all reach all only after %v", took)
			}
		}
		for _, problem := range s.failed() {
			t.Error(problem)
		}
	})
}

// reached wants every node to find every other.
func (s *simCluster) reached(t *testing.T) error {
	for _, from := range s.slots {
		for _, to := range s.slots {
			id := to.live().id
			if at, _ := from.live().resolve(id); from != to && (at != to.ip+":7947" || !from.live().isAt(t.Context(), id, at)) {
				return fmt.Errorf("%d seeks %d at %s, it is at %s", from.i, to.i, at, to.ip)
			}
		}
	}
	return nil
}
