package backup

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// source reads the files of one snapshot, each whole. A file that is not there is a FileError of ErrMissing.
type source interface {
	get(ctx context.Context, file string, limit int64) ([]byte, error)
	// full is the file's whole name, for errors.
	full(file string) string
	io.Closer
}

// Snapshot is a full snapshot whose manifest was read and believed. Close it.
type Snapshot struct {
	from     source
	manifest *Manifest
	sha256   []byte
	size     int64
	log      *Log
}

// open reads and checks the manifest.
func open(ctx context.Context, from source) (*Snapshot, error) {
	body, err := from.get(ctx, manifestName, maxManifest)
	if err != nil {
		return nil, fmt.Errorf("open snapshot: %w", err)
	}
	m, err := decodeManifest(from.full(manifestName), body)
	if err != nil {
		return nil, fmt.Errorf("open snapshot: %w", err)
	}
	sum := sha256.Sum256(body)
	return &Snapshot{from: from, manifest: m, sha256: sum[:], size: m.Stored() + int64(len(body))}, nil
}

// Manifest says what the snapshot holds; do not change it.
func (s *Snapshot) Manifest() *Manifest { return s.manifest }

// SHA256 is that of manifest.json, as the ledger's row has it.
func (s *Snapshot) SHA256() []byte { return s.sha256 }

// Size is how many bytes are stored.
func (s *Snapshot) Size() int64 { return s.size }

// Log is the log of the same life of the cluster; nil for a snapshot in a file.
func (s *Snapshot) Log() *Log { return s.log }

// Close lets go of the file.
func (s *Snapshot) Close() error { return s.from.Close() }

// Rows streams meta's Export of the state: what Import takes. Every chunk is
// verified before a byte of it is handed out; the first thing wrong ends the
// stream with a FileError (K3). It holds one chunk and one window in memory (K4). ctx bounds the stream; close it.
func (s *Snapshot) Rows(ctx context.Context) io.ReadCloser {
	chunks := &chunkReader{ctx: ctx, s: s}
	plain, err := zstd.NewReader(chunks, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(2*window))
	return &rowsReader{s: s, chunks: chunks, plain: plain, err: err}
}

// Verify reads everything back and compares all sums, the Export stream's own included (K1). progress, if not nil,
// hears of the bytes of the Export stream so far, of Manifest().Size.
func (s *Snapshot) Verify(ctx context.Context, progress func(read int64)) error {
	rows := s.Rows(ctx)
	defer func() { _ = rows.Close() }() // only read
	sum, buf := sha256.New(), make([]byte, 1<<18)
	var held []byte // the last bytes so far: the stream ends with the sum of all before it
	for done := int64(0); ; {
		n, err := rows.Read(buf)
		held = append(held, buf[:n]...)
		if over := len(held) - sha256.Size; over > 0 {
			sum.Write(held[:over])
			held = append(held[:0], held[over:]...)
		}
		if done += int64(n); progress != nil && n > 0 {
			progress(done)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("verify snapshot: %w", err)
		}
	}
	if !bytes.Equal(held, sum.Sum(nil)) {
		return fmt.Errorf("verify snapshot: %w", fileError(s.from.full(manifestName), ErrAltered, "the sum of all rows differs"))
	}
	return nil
}

// rowsReader is the decompressed stream, held to the manifest's length.
type rowsReader struct {
	s      *Snapshot
	chunks *chunkReader
	plain  *zstd.Decoder
	read   int64
	err    error
}

func (r *rowsReader) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	n, err := r.plain.Read(p)
	r.read += int64(n)
	size, file := r.s.manifest.Size, r.s.from.full(manifestName)
	switch {
	case r.chunks.err != nil && !errors.Is(r.chunks.err, io.EOF):
		err = r.chunks.err // it names the chunk
	case r.read > size:
		n, err = 0, fileError(file, ErrAltered, "its chunks hold more than the %d bytes that it says", size)
	case errors.Is(err, io.EOF) && r.read < size:
		err = fileError(file, ErrAltered, "its chunks hold %d of the %d bytes that it says", r.read, size)
	case err != nil && !errors.Is(err, io.EOF):
		err = fileError(file, ErrAltered, "its chunks cannot be decompressed: %v", err)
	}
	r.err = err
	return n, err
}

func (r *rowsReader) Close() error {
	if r.plain != nil {
		r.plain.Close()
	}
	if r.err == nil {
		r.err = errors.New("the stream is closed")
	}
	return nil
}

// chunkReader reads the chunks as one stream, each verified first.
type chunkReader struct {
	ctx  context.Context // of the stream
	s    *Snapshot
	next int
	rest []byte
	err  error
}

func (c *chunkReader) Read(p []byte) (int, error) {
	for len(c.rest) == 0 && c.err == nil {
		if c.next == len(c.s.manifest.Chunks) {
			c.err = io.EOF
			break
		}
		c.rest, c.err = c.s.chunk(c.ctx, c.s.manifest.Chunks[c.next])
		c.next++
	}
	if c.err != nil {
		return 0, c.err
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

// chunk reads one and compares it with the manifest.
func (s *Snapshot) chunk(ctx context.Context, c Chunk) ([]byte, error) {
	body, err := s.from.get(ctx, c.Name, c.Size+1)
	if err != nil {
		return nil, err
	}
	file := s.from.full(c.Name)
	if int64(len(body)) < c.Size {
		return nil, fileError(file, ErrTruncated, "it has %d bytes of %d", len(body), c.Size)
	}
	sum := sha256.Sum256(body)
	if int64(len(body)) != c.Size || hex.EncodeToString(sum[:]) != c.SHA256 {
		return nil, fileError(file, ErrAltered, "its SHA-256 differs from the manifest's")
	}
	return body, nil
}
