package cluster

import (
	"errors"
	"fmt"
	"time"
)

const (
	// A step of a deletion is one transaction, which other writes wait for. It costs
	// a sync, something for each entry, and little for their bytes, which are pages that are only given back.
	deleteEntries = 512
	deleteBytes   = 64 << 20
	// deletePause bounds the rest after a step.
	deletePause = 50 * time.Millisecond
)

// errInterrupted ends a compaction that the end of Raft would wait for. What was deleted is deleted.
var errInterrupted = errors.New("the deletion was interrupted: the node is stopping raft")

// DeleteRange deletes in steps, so that writes go on meanwhile, and in an order
// that leaves no hole and no log above the witness at any instant: the
// beginning of the log (a compaction) from below, all else from above. An error ends the node (R-B2).
func (s *logStore) DeleteRange(low, high uint64) error {
	first, err := s.disk.FirstIndex()
	if err != nil {
		return err
	}
	last, err := s.disk.LastIndex()
	if err != nil {
		return err
	}
	if first == 0 || high < first || low > last {
		return nil
	}
	low, high = max(low, first), min(high, last)
	if low == first && high < last {
		return s.deleteBelow(low, high)
	}
	return s.deleteAbove(low, high)
}

// deleteBelow is the compaction: writes of entries take turns with its steps. The last entry
// stays: it may be the witnessed one, which a later leader whose entries begin right
// after it compares (R-B3). Without it a node that holds others' entries above refuses that leader for ever.
func (s *logStore) deleteBelow(low, high uint64) error {
	for high--; low <= high; {
		if s.interrupt.Load() {
			return errInterrupted
		}
		began := time.Now()
		to := min(high, low+s.step()-1)
		if err := s.deleteStep(low, to); err != nil {
			return err
		}
		low = to + 1
		// The disk belongs to the writers half of the time at least.
		time.Sleep(min(time.Since(began), deletePause))
	}
	return nil
}

// deleteAbove is for entries that lost against another leader's, and for an install.
func (s *logStore) deleteAbove(low, high uint64) error {
	for low <= high {
		from := high - min(high-low, s.step()-1)
		if err := s.deleteStep(from, high); err != nil {
			return err
		}
		high = from - 1
	}
	return nil
}

// step is how many entries are deleted at once.
func (s *logStore) step() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	entries, each := int64(deleteEntries), int64(1)
	if len(s.sizes.segments) > 0 {
		each = max(1, s.sizes.total/max(1, int64(s.sizes.next-s.sizes.segments[0].lo)))
	}
	return uint64(max(1, min(entries, deleteBytes/each)))
}

func (s *logStore) deleteStep(low, high uint64) error {
	// The cache goes first: nobody may read an entry that the disk is about to lose.
	s.mu.Lock()
	s.uncache(low, high)
	s.mu.Unlock()
	err := s.write(fmt.Sprintf("delete %d to %d", low, high), func() error {
		return s.disk.DeleteRange(low, high)
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.sizes.segments) > 0 && low <= s.sizes.segments[0].lo {
		s.sizes.cutBelow(high + 1)
	} else {
		s.sizes.cutAbove(low - 1)
	}
	return nil
}

// uncache drops low to high from the cache, which stays contiguous: what is on the other side of a hole goes too.
func (s *logStore) uncache(low, high uint64) {
	end := s.lo + uint64(len(s.recent)) // exclusive
	switch {
	case len(s.recent) == 0 || high < s.lo || low >= end:
	case low <= s.lo && high+1 < end:
		for ; s.lo <= high; s.lo++ {
			s.bytes -= logBytes(s.recent[0])
			s.recent[0] = nil
			s.recent = s.recent[1:]
		}
	default:
		s.recent, s.bytes = nil, 0
	}
}
