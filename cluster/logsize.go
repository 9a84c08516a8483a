package cluster

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"
)

// segmentBytes is how finely the size of the log is known.
const segmentBytes = 256 << 10

// logSizes knows about how many bytes the entries of the log take, and where in
// it. Entries lo up to the next segment's lo are one segment. It guards nothing: logStore.mu does.
type logSizes struct {
	segments []segment
	// next is the index after the last entry.
	next  uint64
	total int64
	// grain is how large a segment becomes; 0 means segmentBytes.
	grain int64
}

type segment struct {
	lo    uint64
	bytes int64
}

// add counts an entry. One that does not follow begins anew: Raft never leaves a gap.
func (z *logSizes) add(index uint64, bytes int64) {
	if len(z.segments) == 0 || index != z.next {
		z.cutAbove(index - 1)
	}
	if n := len(z.segments); n == 0 || z.segments[n-1].bytes >= cmp.Or(z.grain, segmentBytes) {
		z.segments = append(z.segments, segment{lo: index})
	}
	z.segments[len(z.segments)-1].bytes += bytes
	z.next, z.total = index+1, z.total+bytes
}

// cutAbove forgets what is above index.
func (z *logSizes) cutAbove(index uint64) {
	for n := len(z.segments); n > 0; n-- {
		s := &z.segments[n-1]
		if s.lo <= index {
			z.shrink(s, z.next-s.lo, index+1-min(index+1, s.lo))
			break
		}
		z.total -= s.bytes
		z.next = s.lo
		z.segments = z.segments[:n-1]
	}
	if len(z.segments) > 0 {
		z.next = min(z.next, index+1)
	}
}

// cutBelow forgets what is below index.
func (z *logSizes) cutBelow(index uint64) {
	for len(z.segments) > 0 {
		s, end := &z.segments[0], z.next
		if len(z.segments) > 1 {
			end = z.segments[1].lo
		}
		if end > index {
			if s.lo < index {
				z.shrink(s, end-s.lo, end-index)
				s.lo = index
			}
			return
		}
		z.total -= s.bytes
		z.segments = z.segments[1:]
	}
}

// shrink keeps a share of a segment: to of its from entries.
func (z *logSizes) shrink(s *segment, from, to uint64) {
	if to >= from {
		return
	}
	kept := int64(float64(s.bytes) * float64(to) / float64(from))
	z.total -= s.bytes - kept
	s.bytes = kept
}

// tail answers the lowest index so that what is from there on takes at most bytes, to a segment.
func (z *logSizes) tail(bytes int64) uint64 {
	at, sum := z.next, int64(0)
	for i := len(z.segments) - 1; i >= 0; i-- {
		if sum += z.segments[i].bytes; sum > bytes {
			break
		}
		at = z.segments[i].lo
	}
	return at
}

// measureLog reads how large the entries of a log file are. It walks the leaves,
// which opening a file without a saved freelist does as well.
func measureLog(path string) (logSizes, error) {
	var z logSizes
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return z, nil
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		return z, fmt.Errorf("measure log: %w", err)
	}
	err = db.View(func(tx *bbolt.Tx) error {
		logs := tx.Bucket([]byte("logs"))
		if logs == nil { // a first start that was cut short
			return nil
		}
		return logs.ForEach(func(k, v []byte) error {
			if len(k) == 8 {
				z.add(binary.BigEndian.Uint64(k), int64(len(v)+logOverhead))
			}
			return nil
		})
	})
	if err := errors.Join(err, db.Close()); err != nil {
		return z, fmt.Errorf("measure log: %w", err)
	}
	return z, nil
}

// logOverhead is about what an entry takes besides its bytes, in memory and on disk.
const logOverhead = 128

// logBytes is about what an entry costs.
func logBytes(l *raft.Log) int64 { return int64(len(l.Data)+len(l.Extensions)) + logOverhead }

// Bytes is about what the entries of the log take on disk.
func (s *logStore) Bytes() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sizes.total
}

// tail answers the lowest index from which on entries take at most bytes, and the index after the last.
func (s *logStore) tail(bytes int64) (from, next uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sizes.tail(bytes), s.sizes.next
}

// holds says whether the log has the entry at index.
func (s *logStore) holds(index uint64) bool {
	var l raft.Log
	return index > 0 && s.GetLog(index, &l) == nil
}
