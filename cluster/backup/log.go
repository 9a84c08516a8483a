package backup

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"

	"github.com/pontoon-registry/pontoon/blobs"
	"github.com/pontoon-registry/pontoon/meta"
)

// Log is the archived log of one life of a cluster.
type Log struct {
	archive     blobs.Archive
	clusterID   string
	incarnation uint64
}

// OpenLog answers the log of a cluster's life; it reads nothing yet.
func OpenLog(archive blobs.Archive, clusterID string, incarnation uint64) *Log {
	return &Log{archive: archive, clusterID: clusterID, incarnation: incarnation}
}

// Listed is a segment by its name.
type Listed struct {
	Name        string
	First, Last uint64
	Object      blobs.Object
}

// Entry is one entry of the archived log.
type Entry struct {
	meta.LogEntry
	// Chain is the head of the hash chain after this entry (M9), nil where none was recorded.
	Chain []byte
}

// Segments lists all, by first index and then last.
func (l *Log) Segments(ctx context.Context) ([]Listed, error) {
	var all []Listed
	for o, err := range l.archive.List(ctx, logFolder(l.clusterID, l.incarnation), "") {
		if err != nil {
			return nil, fmt.Errorf("list log: %w", err)
		}
		if p, ok := parseName(o.Key); ok && p.First > 0 {
			all = append(all, Listed{Name: o.Key, First: p.First, Last: p.Last, Object: o})
		}
	}
	return all, nil
}

// Entries yields the entries above from, up to and with to, in order; to 0 is to the
// end of the archive. It ends without an error where the archive ends. Whatever is wrong
// before that ends it with a FileError: a segment that is damaged, or a range that is in none (ErrGap).
// A few segments are read ahead, of a bounded size (K4): one after another, a day of them would take half an hour.
func (l *Log) Entries(ctx context.Context, from, to uint64) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		all, err := l.Segments(ctx)
		if err != nil {
			yield(Entry{}, err)
			return
		}
		ahead := readAhead{log: l, chosen: chain{all: all, at: from}, to: to}
		var stop context.CancelFunc
		ahead.ctx, stop = context.WithCancel(ctx)
		defer ahead.reads.Wait()
		defer stop()
		for {
			s, after, err := ahead.next()
			if err != nil {
				yield(Entry{}, err)
				return
			}
			if s == nil || !s.entries(after, to, yield) {
				return
			}
		}
	}
}

// chain chooses segments that together cover a range: of those that go on from where it stands, the one that reaches
// farthest, so that a segment whose range is within others is never needed.
type chain struct {
	all []Listed // in order
	at  uint64
}

// link is a chosen segment, and the index up to which the ones before it reach.
type link struct {
	Listed
	from uint64
}

// next answers nil at the end.
func (c *chain) next() (*link, error) {
	var best *Listed
	for len(c.all) > 0 && c.all[0].First <= c.at+1 {
		if s := &c.all[0]; s.Last > c.at && (best == nil || s.Last > best.Last) {
			best = s
		}
		c.all = c.all[1:] // those passed over reach no farther than the best
	}
	switch {
	case best != nil:
		out := &link{Listed: *best, from: c.at}
		c.at = best.Last
		return out, nil
	case len(c.all) > 0:
		return nil, fmt.Errorf("entries %d to %d are in no segment", c.at+1, c.all[0].First-1)
	}
	return nil, nil
}

// entries yields those in (from, to]; false to go no further.
func (s *Segment) entries(from, to uint64, yield func(Entry, error) bool) bool {
	chain, _ := hex.DecodeString(s.Chain) // check has judged it
	for _, e := range s.Entries {
		switch {
		case e.Index <= from:
			continue
		case to != 0 && e.Index > to:
			return false
		}
		entry := Entry{LogEntry: e}
		if e.Index == s.Through && len(chain) > 0 {
			entry.Chain = chain
		}
		if !yield(entry, nil) {
			return false
		}
	}
	return true
}

// Read reads one segment whole and checks that it is what its name says.
func (l *Log) Read(ctx context.Context, s Listed) (*Segment, error) {
	body, err := l.archive.Get(ctx, s.Name)
	if errors.Is(err, blobs.ErrNotFound) {
		return nil, &FileError{File: s.Name, Err: ErrMissing}
	}
	if err != nil {
		return nil, fmt.Errorf("read log: %w", err)
	}
	out, err := decodeSegment(s.Name, body)
	if err != nil {
		return nil, fmt.Errorf("read log: %w", err)
	}
	if out.ClusterID != l.clusterID || out.Incarnation != l.incarnation {
		return nil, fmt.Errorf("read log: %w", fileError(s.Name, ErrOtherCluster, "it says cluster %s, incarnation %d", out.ClusterID, out.Incarnation))
	}
	if out.After+1 != s.First || out.Through != s.Last {
		return nil, fmt.Errorf("read log: %w", fileError(s.Name, ErrAltered, "it holds entries %d to %d", out.After+1, out.Through))
	}
	return out, nil
}
