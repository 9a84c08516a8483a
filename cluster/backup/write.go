package backup

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"

	"github.com/pontoon-registry/pontoon/blobs"
	"github.com/pontoon-registry/pontoon/meta"
)

const (
	// chunkSize is the length of every chunk but the last, in bytes.
	chunkSize = 8 << 20
	// window is how far back the compressor looks, and what a reader must remember, in bytes.
	window = 4 << 20
)

// sink takes the files of one snapshot, each whole and once. The body is valid until it answers.
type sink interface {
	put(ctx context.Context, file string, body []byte) error
}

// bucketSink puts files into a folder of an archive.
type bucketSink struct {
	archive blobs.Archive
	folder  string
}

func (b *bucketSink) put(ctx context.Context, file string, body []byte) error {
	return b.archive.Put(ctx, b.folder+file, body)
}

// Written is a snapshot that was handed to its place.
type Written struct {
	Manifest *Manifest
	// Size is all bytes stored; SHA256 is that of manifest.json.
	Size   int64
	SHA256 []byte
}

// write writes the state that v sees: chunks first, the manifest last. progress, if not nil, hears of the bytes stored so far.
func write(ctx context.Context, v *meta.View, release string, to sink, progress func(stored int64)) (*Written, error) {
	system, err := v.System()
	if err != nil {
		return nil, err
	}
	m := &Manifest{
		Format: manifestFormat, ClusterID: system.GetClusterId(), Name: system.GetName(), Epoch: system.GetEpoch(),
		Incarnation: system.GetIncarnation(), Life: system.GetLife(), CommandVersion: system.GetVersion(),
		Index: v.Index(), Term: v.Term(), ClusterTime: v.ClusterTime(), WallTime: v.WallTime(),
		Chain: hex.EncodeToString(v.Hash()), Release: release,
	}
	c := &cutter{ctx: ctx, to: to, buf: make([]byte, 0, chunkSize), progress: progress}
	// One goroutine, so that the same input gives the same bytes (K2), and none is left behind.
	packed, err := zstd.NewWriter(c, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithWindowSize(window))
	if err != nil {
		return nil, fmt.Errorf("begin snapshot: %w", err)
	}
	stream := &counted{w: packed}
	if m.Rows, err = v.ExportRows(stream); err == nil {
		err = packed.Close()
	}
	if err == nil {
		err = c.flush()
	}
	if err != nil {
		return nil, fmt.Errorf("write snapshot of index %d: %w", m.Index, err)
	}
	m.Size, m.Chunks = stream.n, c.chunks
	body, err := m.encode()
	if err != nil {
		return nil, err
	}
	if err := to.put(ctx, manifestName, body); err != nil {
		return nil, fmt.Errorf("write snapshot of index %d: %w", m.Index, err)
	}
	sum := sha256.Sum256(body)
	return &Written{Manifest: m, Size: m.Stored() + int64(len(body)), SHA256: sum[:]}, nil
}

// cutter cuts what is written to it into chunks.
type cutter struct {
	ctx      context.Context // of the one write that it is made for
	to       sink
	buf      []byte
	chunks   []Chunk
	stored   int64
	progress func(int64)
}

func (c *cutter) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		take := min(len(p), chunkSize-len(c.buf))
		c.buf = append(c.buf, p[:take]...)
		p = p[take:]
		if len(c.buf) == chunkSize {
			if err := c.flush(); err != nil {
				return 0, err
			}
		}
	}
	return n, nil
}

// flush puts what is gathered.
func (c *cutter) flush() error {
	switch {
	case len(c.buf) == 0:
		return nil
	case c.ctx.Err() != nil:
		return context.Cause(c.ctx)
	case len(c.chunks) == maxChunks:
		return fmt.Errorf("a snapshot has at most %d chunks of %d bytes", maxChunks, chunkSize)
	}
	sum := sha256.Sum256(c.buf)
	chunk := Chunk{Name: chunkName(len(c.chunks)), Size: int64(len(c.buf)), SHA256: hex.EncodeToString(sum[:])}
	if err := c.to.put(c.ctx, chunk.Name, c.buf); err != nil {
		return err
	}
	c.chunks = append(c.chunks, chunk)
	c.stored += chunk.Size
	c.buf = c.buf[:0]
	if c.progress != nil {
		c.progress(c.stored)
	}
	return nil
}

// counted counts what is written through it.
type counted struct {
	w io.Writer
	n int64
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
