package backup

import (
	"context"
	"sync"
)

const (
	// aheadSegments and aheadBytes bound what is read before it is wanted, in bytes as they are stored. One is always read.
	aheadSegments = 16
	aheadBytes    = 8 << 20
)

// readAhead reads the segments that cover a range, a few at once, and answers them in order.
type readAhead struct {
	ctx    context.Context // of the one call of Entries
	log    *Log
	chosen chain
	to     uint64
	reads  sync.WaitGroup
	// waiting are begun and not answered yet, bytes is their size; ended says that no other will be begun.
	waiting []*aheadRead
	bytes   int64
	ended   bool
}

// aheadRead is a segment that is being read; segment and err may be looked at when done is closed.
type aheadRead struct {
	link    *link
	done    chan struct{}
	segment *Segment
	err     error
}

// next answers the next segment, and the index above which its entries count; nil at the end.
func (r *readAhead) next() (*Segment, uint64, error) {
	for !r.ended && len(r.waiting) < aheadSegments && (len(r.waiting) == 0 || r.bytes < aheadBytes) {
		r.begin()
	}
	if len(r.waiting) == 0 {
		return nil, 0, nil
	}
	first := r.waiting[0]
	r.waiting = r.waiting[1:]
	<-first.done // a read ends with its context
	if first.err != nil {
		return nil, 0, first.err
	}
	r.bytes -= first.link.Object.Size
	return first.segment, first.link.from, nil
}

// begin begins to read one more. A gap waits for its turn as a segment does: all before it counts.
func (r *readAhead) begin() {
	if r.to != 0 && r.chosen.at >= r.to {
		r.ended = true
		return
	}
	read := &aheadRead{done: make(chan struct{})}
	var err error
	switch read.link, err = r.chosen.next(); {
	case err != nil:
		read.err = fileError(logFolder(r.log.clusterID, r.log.incarnation), ErrGap, "%v", err)
		close(read.done)
		r.ended = true
	case read.link == nil:
		r.ended = true
		return
	default:
		r.bytes += read.link.Object.Size
		r.reads.Go(func() {
			defer close(read.done)
			read.segment, read.err = r.log.Read(r.ctx, read.link.Listed)
		})
	}
	r.waiting = append(r.waiting, read)
}
