package transport

import (
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/hashicorp/raft"

	raftv1 "github.com/pontoon-registry/pontoon/proto/pontoon/raft/v1"
)

// A large append on the wire:
//
//	frame 1     request without entries, count, size
//	frame 2…    entries, as many as fit in 1 MiB
//	            or one entry without its bytes, followed by frames that hold
//	            its data and extensions in pieces of at most 1 MiB
//
// The sender never leaves an entry out: the leader counts as sent what the
// request it built holds.

// entryOverhead bounds what an entry takes on the wire beside its bytes.
const entryOverhead = 64

// payload is the bytes of all entries, which is what the bounds are about.
func payload(entries []*raft.Log) (size, overhead int) {
	for _, l := range entries {
		size += len(l.Data) + len(l.Extensions)
		overhead += entryOverhead
	}
	return size, overhead
}

// sendFrames sends a request of the given payload cut into frames.
func sendFrames(r *raft.AppendEntriesRequest, size int, send func(*raftv1.AppendEntriesStreamRequest) error) error {
	if len(r.Entries) > math.MaxUint32 {
		return fmt.Errorf("append has %d entries, must be at most %d", len(r.Entries), uint32(math.MaxUint32))
	}
	head := &raftv1.AppendEntriesStreamRequest{Request: appendHeadToWire(r), Count: uint32(len(r.Entries)), Size: uint64(size)}
	if err := send(head); err != nil {
		return err
	}
	var batch []*raftv1.Entry
	used := 0
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		f := &raftv1.AppendEntriesStreamRequest{Entries: batch}
		batch, used = nil, 0
		return send(f)
	}
	for _, l := range r.Entries {
		e := entryToWire(l)
		n := len(l.Data) + len(l.Extensions) + entryOverhead
		if used+n > frameSize {
			if err := flush(); err != nil {
				return err
			}
		}
		if n > frameSize {
			if err := sendPieces(e, send); err != nil {
				return err
			}
			continue
		}
		batch, used = append(batch, e), used+n
	}
	return flush()
}

// sendPieces sends one entry that is larger than a frame.
func sendPieces(e *raftv1.Entry, send func(*raftv1.AppendEntriesStreamRequest) error) error {
	data, ext := e.Data, e.Extensions
	e.Data, e.Extensions = nil, nil
	if err := send(&raftv1.AppendEntriesStreamRequest{Entries: []*raftv1.Entry{e}}); err != nil {
		return err
	}
	for len(data) > 0 {
		n := min(len(data), frameSize)
		if err := send(&raftv1.AppendEntriesStreamRequest{Data: data[:n]}); err != nil {
			return err
		}
		data = data[n:]
	}
	for len(ext) > 0 {
		n := min(len(ext), frameSize)
		if err := send(&raftv1.AppendEntriesStreamRequest{Extensions: ext[:n]}); err != nil {
			return err
		}
		ext = ext[n:]
	}
	return nil
}

// errTooLarge is a request beyond Config.MaxAppend.
var errTooLarge = errors.New("append is too large")

// receiveFrames puts a request together again. It holds at most max bytes of
// entries (and errors with errTooLarge beyond), and no more than has come.
func receiveFrames(limit int, recv func() (*raftv1.AppendEntriesStreamRequest, error)) (*raft.AppendEntriesRequest, error) {
	head, err := recv()
	if err != nil {
		return nil, fmt.Errorf("first frame: %w", err)
	}
	a := &assembly{limit: limit}
	if err := a.begin(head); err != nil {
		return nil, err
	}
	for {
		f, err := recv()
		if errors.Is(err, io.EOF) {
			return a.finish()
		}
		if err != nil {
			return nil, fmt.Errorf("frame after entry %d of %d: %w", len(a.req.Entries), a.count, err)
		}
		if err := a.add(f); err != nil {
			return nil, err
		}
	}
}

// assembly is a request of which some frames have come.
type assembly struct {
	limit int
	req   *raft.AppendEntriesRequest
	count uint32 // entries announced
	size  uint64 // bytes announced
	got   uint64 // bytes received
}

func (a *assembly) begin(f *raftv1.AppendEntriesStreamRequest) error {
	switch {
	case f.GetRequest() == nil:
		return errors.New("first frame: request is missing")
	case len(f.GetRequest().GetEntries()) > 0, len(f.GetEntries()) > 0, len(f.GetData()) > 0, len(f.GetExtensions()) > 0:
		return errors.New("first frame: must hold no entries")
	case f.GetSize() > uint64(a.limit):
		return fmt.Errorf("%w: size is %d bytes, must be at most %d", errTooLarge, f.GetSize(), a.limit)
	case uint64(f.GetCount())*entryOverhead > uint64(a.limit):
		return fmt.Errorf("%w: count is %d entries, must be at most %d", errTooLarge, f.GetCount(), a.limit/entryOverhead)
	}
	a.count, a.size = f.GetCount(), f.GetSize()
	var err error
	a.req, err = appendFromWire(f.GetRequest())
	return err
}

func (a *assembly) add(f *raftv1.AppendEntriesStreamRequest) error {
	if f.GetRequest() != nil || f.GetCount() != 0 || f.GetSize() != 0 {
		return errors.New("frame: a second request in one stream")
	}
	for _, e := range f.GetEntries() {
		l, err := entryFromWire(e)
		if err != nil {
			return err
		}
		a.req.Entries = append(a.req.Entries, l)
		a.got += uint64(len(l.Data) + len(l.Extensions))
	}
	a.got += uint64(len(f.GetData()) + len(f.GetExtensions()))
	if uint32(len(a.req.Entries)) > a.count || a.got > a.size {
		return fmt.Errorf("frame: %d entries and %d bytes have come, %d and %d were announced", len(a.req.Entries), a.got, a.count, a.size)
	}
	if len(f.GetData())+len(f.GetExtensions()) == 0 {
		return nil
	}
	if len(a.req.Entries) == 0 {
		return errors.New("frame: a piece before the first entry")
	}
	last := a.req.Entries[len(a.req.Entries)-1]
	last.Data = append(last.Data, f.GetData()...)
	last.Extensions = append(last.Extensions, f.GetExtensions()...)
	return nil
}

func (a *assembly) finish() (*raft.AppendEntriesRequest, error) {
	if uint32(len(a.req.Entries)) != a.count || a.got != a.size {
		return nil, fmt.Errorf("stream ended after %d entries and %d bytes, %d and %d were announced", len(a.req.Entries), a.got, a.count, a.size)
	}
	return a.req, nil
}
