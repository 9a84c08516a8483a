package s3

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"

	"github.com/pontoon-registry/pontoon/blobs"
)

// stageSize is what an upload holds besides the pool, in bytes: so a client that
// sends a few bytes now and then takes no slab for them.
const stageSize = 32 << 10

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// pending is the part that is being filled: spilled objects, then slabs, then
// the stage. Write adds to it; a spill, from any goroutine, turns the slabs into an object.
type pending struct {
	// mu guards all below. It is not held while a slab is waited for.
	mu      sync.Mutex
	spilled []blobs.Piece
	slabs   [][]byte
	stage   []byte
	size    int64
	crc     uint32
}

// content is a part that is complete: nobody changes it any more.
type content struct {
	spilled []blobs.Piece
	slabs   [][]byte
	stage   []byte
	size    int64
	crc     uint32
}

// add appends some of b: n is 0 when a slab is needed first.
func (p *pending) add(b []byte) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	last := len(p.slabs) - 1
	switch {
	case last >= 0 && len(p.slabs[last]) < cap(p.slabs[last]):
		n = min(len(b), cap(p.slabs[last])-len(p.slabs[last]))
		p.slabs[last] = append(p.slabs[last], b[:n]...)
	case len(p.stage)+len(b) <= stageSize:
		n = len(b)
		p.stage = append(p.stage, b...)
	default:
		return 0
	}
	p.size += int64(n)
	p.crc = crc32.Update(p.crc, castagnoli, b[:n])
	return n
}

// grow adds an empty slab; the stage, which comes next, moves into it.
func (p *pending) grow(slab []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.slabs = append(p.slabs, append(slab, p.stage...))
	p.stage = p.stage[:0]
}

// take answers what is there and begins anew.
func (p *pending) take() content {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := content{spilled: p.spilled, slabs: p.slabs, stage: p.stage, size: p.size, crc: p.crc}
	p.spilled, p.slabs, p.stage, p.size, p.crc = nil, nil, nil, 0, 0
	return c
}

// errBusy says that a spill cannot be now.
var errBusy = errors.New("the upload is busy")

// spill hands the slabs to put and keeps the piece that it answers in their
// place. It frees nothing itself: the slabs that may be freed are answered.
func (p *pending) spill(put func(content) (blobs.Piece, error)) ([][]byte, error) {
	if !p.mu.TryLock() {
		return nil, errBusy
	}
	defer p.mu.Unlock()
	if len(p.slabs) == 0 {
		return nil, errBusy
	}
	c := content{slabs: p.slabs}
	for _, slab := range p.slabs {
		c.size += int64(len(slab))
		c.crc = crc32.Update(c.crc, castagnoli, slab)
	}
	if c.size == 0 {
		return nil, errBusy
	}
	piece, err := put(c)
	if err != nil {
		return nil, err
	}
	p.spilled = append(p.spilled, piece)
	slabs := p.slabs
	p.slabs = nil
	return slabs, nil
}

// body reads a content as often as the SDK seeks back: it hashes, sends, repeats.
// Spilled objects are read from the store again, and verified (B6).
type body struct {
	ctx context.Context // of the one call that it is the body of
	s   *Store
	c   content
	at  int64
	r   io.ReadCloser // the spilled object that is being read, or nil
	crc uint32        // of what was read of it
	err error         // the first error of the store, which the SDK may hide
}

// newBody answers the body of a call. It reads within a limit of its own: it is
// read inside a call, and if all calls waited for a second place none would end.
func (s *Store) newBody(ctx context.Context, c content) *body {
	reader := *s
	reader.calls = make(chan struct{}, 1)
	return &body{ctx: ctx, s: &reader, c: c}
}

func (b *body) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	offset := b.at
	for _, piece := range b.c.spilled {
		if offset < piece.Size {
			n, err := b.readPiece(p[:min(int64(len(p)), piece.Size-offset)], piece, offset)
			if err != nil {
				b.err = errors.Join(b.err, err)
			}
			return n, err
		}
		offset -= piece.Size
	}
	for _, slab := range append(b.c.slabs[:len(b.c.slabs):len(b.c.slabs)], b.c.stage) {
		if offset < int64(len(slab)) {
			n := copy(p, slab[offset:])
			b.at += int64(n)
			return n, nil
		}
		offset -= int64(len(slab))
	}
	return 0, io.EOF
}

// readPiece reads on in a spilled object. Its last bytes are handed out only when all of them were right.
func (b *body) readPiece(p []byte, piece blobs.Piece, offset int64) (int, error) {
	if b.r == nil {
		if offset != 0 { // the SDK seeks to the beginning only
			return 0, fmt.Errorf("piece %s: cannot be read from its middle", piece.Key)
		}
		size, err := b.s.Stat(b.ctx, piece.Key)
		if err == nil && size != piece.Size {
			err = fmt.Errorf("piece %s has %d bytes, the ledger says %d: %w", piece.Key, size, piece.Size, blobs.ErrCorrupt)
		}
		if err != nil {
			return 0, err
		}
		if b.r, err = b.s.openSteady(b.ctx, piece.Key, piece.Size); err != nil {
			return 0, err
		}
		b.crc = 0
	}
	n, err := io.ReadFull(b.r, p)
	if err != nil {
		return 0, fmt.Errorf("piece %s: %w", piece.Key, err)
	}
	b.crc = crc32.Update(b.crc, castagnoli, p)
	b.at += int64(n)
	if offset+int64(n) < piece.Size {
		return n, nil
	}
	b.closePiece()
	if b.crc != piece.CRC32C {
		return 0, fmt.Errorf("piece %s: CRC-32C is %08x, want %08x: %w", piece.Key, b.crc, piece.CRC32C, blobs.ErrCorrupt)
	}
	return n, nil
}

func (b *body) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += b.at
	case io.SeekEnd:
		offset += b.c.size
	}
	if offset < 0 || offset > b.c.size {
		return 0, fmt.Errorf("seek to %d of %d bytes", offset, b.c.size)
	}
	if offset != b.at {
		b.closePiece()
	}
	b.at = offset
	return offset, nil
}

func (b *body) Close() error {
	b.closePiece()
	return nil
}

func (b *body) closePiece() {
	if b.r != nil {
		_ = b.r.Close() // only read; what was wrong with it was said
		b.r = nil
	}
}
