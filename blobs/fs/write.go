package fs

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	iofs "io/fs"
	"os"
	"path"
	"slices"

	"github.com/pontoon-registry/pontoon/blobs"
)

const (
	// writeBuffer is what one writer holds in memory, in bytes.
	writeBuffer = 256 << 10
	// maxPieces bounds the pieces of one upload: its row in the ledger must stay small.
	maxPieces = 4096
	// smallPiece and bigPiece bound the pieces that a resuming attempt copies (F3), in bytes; the bound
	// doubles from one to the other as pieces get more, so 4,096 of them hold at least 120 GiB however small the chunks.
	smallPiece, bigPiece = 4 << 20, 32 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// writer is one attempt and its file.
//
//	open ── Write, Save ──► open ── Close ──► sealed
//	  └────── an error, Abandon ──► abandoned (the file is garbage unless the ledger accepted a Save)
type writer struct {
	s    *Store
	a    blobs.Attempt
	base blobs.Progress // what stands before the file
	f    *os.File
	buf  *bufio.Writer
	err  error // the first error; nothing is written or saved after it
	// size and sum are of the file's bytes; at is their state at the last Boundary.
	size int64
	sum  uint32
	at   mark
	// synced is how many bytes of the file, its folders included, are durable.
	synced int64
}

// mark is a place in the file where a Save may end.
type mark struct {
	size int64
	sum  uint32
}

// Writer implements blobs.Store. A small last piece of a.From is verified and copied (F3).
func (s *Store) Writer(ctx context.Context, a blobs.Attempt) (blobs.Writer, error) {
	if err := a.Validate(); err != nil {
		return nil, err
	}
	if len(a.From.Parts) > 0 {
		return nil, fmt.Errorf("resume %s: a directory store has no parts", a.Key(0))
	}
	if len(a.From.Pieces) >= maxPieces {
		return nil, fmt.Errorf("resume %s: %d pieces, at most %d: %w", a.Key(0), len(a.From.Pieces), maxPieces, blobs.ErrNoRoom)
	}
	f, err := s.create(a.Key(0))
	if err != nil {
		return nil, fmt.Errorf("begin %s: %w", a.Key(0), err)
	}
	w := &writer{s: s, a: a, base: a.From, f: f, buf: bufio.NewWriterSize(f, writeBuffer)}
	if err := w.absorb(ctx); err != nil {
		w.Abandon()
		return nil, fmt.Errorf("resume %s: %w", a.Key(0), err)
	}
	return w, nil
}

// create makes the file of a new key and its folders. The folder may be
// removed by a Delete between the two steps: then they are repeated.
func (s *Store) create(key string) (*os.File, error) {
	for range 10 {
		if err := s.mkdir(path.Dir(path.Dir(key))); err != nil {
			return nil, known(err)
		}
		if err := s.mkdir(path.Dir(key)); err != nil {
			if errors.Is(err, iofs.ErrNotExist) {
				continue
			}
			return nil, known(err)
		}
		f, err := s.root.OpenFile(key, os.O_CREATE|os.O_EXCL|os.O_RDWR, s.perm&0o666)
		if errors.Is(err, iofs.ErrNotExist) {
			continue
		}
		if errors.Is(err, iofs.ErrExist) {
			return nil, fmt.Errorf("%w: keys are never used twice: %w", blobs.ErrExists, err)
		}
		return f, known(err)
	}
	return nil, fmt.Errorf("its folder is removed again and again: %w", blobs.ErrUnavailable)
}

// absorb copies a small last piece to the beginning of the file, verified (B6).
func (w *writer) absorb(ctx context.Context) error {
	n := len(w.base.Pieces)
	if n == 0 {
		return nil
	}
	last := w.base.Pieces[n-1]
	if last.Size >= min(int64(smallPiece)<<(n/64), bigPiece) {
		return w.s.statPiece(last)
	}
	w.base.Pieces = slices.Clone(w.base.Pieces[:n-1])
	w.base.Size -= last.Size
	return w.s.copyPiece(ctx, w, last)
}

// statPiece notices a piece that is gone or too short before bytes are added to it; its checksum is verified at Finish.
func (s *Store) statPiece(p blobs.Piece) error {
	size, err := s.Stat(context.Background(), p.Key)
	if err == nil && size < p.Size {
		err = fmt.Errorf("piece %s has %d bytes, the ledger says %d: %w", p.Key, size, p.Size, blobs.ErrCorrupt)
	}
	return err
}

// copyPiece writes the piece's bytes to w; they must be those that were saved.
func (s *Store) copyPiece(ctx context.Context, w io.Writer, p blobs.Piece) error {
	f, size, err := s.openKey(p.Key)
	if err != nil {
		return fmt.Errorf("piece %s: %w", p.Key, err)
	}
	defer func() { _ = f.Close() }() // only read
	if size < p.Size {
		return fmt.Errorf("piece %s has %d bytes, the ledger says %d: %w", p.Key, size, p.Size, blobs.ErrCorrupt)
	}
	buf := make([]byte, min(1<<20, p.Size))
	sum := uint32(0)
	for rest := p.Size; rest > 0; { // never beyond p.Size: a paused writer may have appended more (F1)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, err := io.ReadFull(f, buf[:min(rest, int64(len(buf)))])
		if err != nil {
			return fmt.Errorf("piece %s: %w", p.Key, known(err))
		}
		sum = crc32.Update(sum, castagnoli, buf[:n])
		if _, err := w.Write(buf[:n]); err != nil {
			return err
		}
		rest -= int64(n)
	}
	if sum != p.CRC32C {
		return fmt.Errorf("piece %s: CRC-32C is %08x, the ledger says %08x: %w", p.Key, sum, p.CRC32C, blobs.ErrCorrupt)
	}
	return nil
}

func (w *writer) Write(b []byte) (int, error) {
	total := 0
	for len(b) > 0 && w.err == nil {
		next := w.s.Boundary(w.base.Size + w.size)
		chunk := b[:min(int64(len(b)), next-w.base.Size-w.size)]
		n, err := w.buf.Write(chunk)
		total += n
		w.size += int64(n)
		w.sum = crc32.Update(w.sum, castagnoli, chunk[:n])
		if err != nil {
			w.fail(err)
			break
		}
		if w.base.Size+w.size == next {
			w.at = mark{size: w.size, sum: w.sum}
		}
		b = b[n:]
	}
	if w.err != nil {
		return total, fmt.Errorf("write %s: %w", w.a.Key(0), w.err)
	}
	return total, nil
}

// fail ends the attempt with its first error: after a failed write or fsync
// nothing can be said of the file's end, and a second fsync may wrongly succeed.
func (w *writer) fail(err error) {
	if w.err == nil {
		w.err = known(err)
	}
	_ = w.f.Close()    // the first error says why
	if w.synced == 0 { // no Save answered with it, so the ledger does not know it
		_ = w.s.root.Remove(w.a.Key(0)) // what remains is an orphan, which the sweep finds
	}
}

func (w *writer) Save(context.Context) (blobs.Progress, error) {
	if w.err != nil {
		return blobs.Progress{}, fmt.Errorf("save %s: %w", w.a.Key(0), w.err)
	}
	if w.base.Size+w.at.size <= w.a.From.Size {
		return w.a.From, nil
	}
	if err := w.sync(w.at.size); err != nil {
		return blobs.Progress{}, fmt.Errorf("save %s: %w", w.a.Key(0), err)
	}
	return w.progress(w.at), nil
}

// sync makes the first size bytes of the file and its name durable.
func (w *writer) sync(size int64) error {
	if w.synced >= size && size > 0 {
		return nil
	}
	flushed := w.size
	err := w.buf.Flush()
	if err == nil {
		err = w.f.Sync()
	}
	if err == nil && w.synced == 0 {
		err = w.s.syncFolders(w.a.Key(0))
	}
	if err != nil {
		w.fail(err)
		return w.err
	}
	w.synced = flushed
	return nil
}

func (w *writer) progress(m mark) blobs.Progress {
	p := w.base
	p.Pieces = append(slices.Clone(w.base.Pieces), blobs.Piece{Key: w.a.Key(0), Size: m.size, CRC32C: m.sum})
	p.Size += m.size
	return p
}

// errEnded is what a writer answers after Close or Abandon.
var errEnded = errors.New("the attempt has ended")

func (w *writer) Close(context.Context) (blobs.Progress, error) {
	if w.err != nil {
		return blobs.Progress{}, fmt.Errorf("close %s: %w", w.a.Key(0), w.err)
	}
	if w.base.Size+w.size == w.a.From.Size { // nothing came: the file is not needed
		w.Abandon()
		return w.a.From, nil
	}
	err := w.buf.Flush()
	if err == nil {
		err = w.f.Chmod(w.s.perm & 0o444) // F2
	}
	if err == nil {
		err = w.sync(w.size + 1) // always: the seal, too, must be durable
	}
	if err != nil {
		w.fail(err)
		return blobs.Progress{}, fmt.Errorf("close %s: %w", w.a.Key(0), w.err)
	}
	w.err = errEnded
	if err := w.f.Close(); err != nil {
		return blobs.Progress{}, fmt.Errorf("close %s: %w", w.a.Key(0), known(err))
	}
	return w.progress(mark{size: w.size, sum: w.sum}), nil
}

func (w *writer) Abandon() {
	if w.err == nil {
		w.fail(errEnded)
	}
}

// mkdir makes one folder; that it exists is fine.
func (s *Store) mkdir(name string) error {
	err := s.root.Mkdir(name, s.perm)
	if errors.Is(err, iofs.ErrExist) {
		return nil
	}
	return err
}

// syncFolders makes the name of a file durable: in its folder, that in the epoch's, that in the root.
func (s *Store) syncFolders(key string) error {
	upload := path.Dir(key)
	epoch := path.Dir(upload)
	for _, folder := range []string{upload, epoch} {
		if err := s.syncFolder(folder); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.synced[epoch] {
		return nil
	}
	if err := s.syncFolder("."); err != nil {
		return err
	}
	s.synced[epoch] = true
	return nil
}

func (s *Store) syncFolder(name string) error {
	d, err := s.root.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
