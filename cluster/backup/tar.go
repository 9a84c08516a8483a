package backup

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/pontoon-registry/pontoon/meta"
)

const (
	tarBlock = 512
	// tarTail ends a tar: two blocks of zeros.
	tarTail = 2 * tarBlock
)

// WriteFile writes the state that v sees as one file to w. progress is as in Verify, but of bytes stored.
func WriteFile(ctx context.Context, v *meta.View, release string, w io.Writer, progress func(stored int64)) (*Written, error) {
	out := tarSink{tar.NewWriter(w)}
	written, err := write(ctx, v, release, out, progress)
	if err != nil {
		return nil, err
	}
	if err := out.w.Close(); err != nil {
		return nil, fmt.Errorf("write snapshot: %w", err)
	}
	return written, nil
}

type tarSink struct{ w *tar.Writer }

func (t tarSink) put(_ context.Context, file string, body []byte) error {
	if err := t.w.WriteHeader(tarHeader(file, int64(len(body)))); err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	if _, err := t.w.Write(body); err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	return nil
}

// tarHeader has nothing of the node or the hour (K2).
func tarHeader(file string, size int64) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeReg, Name: file, Size: size, Mode: 0o600, ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR}
}

// OpenFile opens a snapshot in a file. Close it.
func OpenFile(path string) (*Snapshot, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open snapshot: %w", err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("open snapshot: %s is not a regular file", path)
	}
	var s *Snapshot
	if err == nil {
		s, err = OpenTar(path, f, info.Size())
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return s, nil
}

// OpenTar opens a snapshot in the size bytes of r; path names it in errors. Close closes r if it is an io.Closer.
func OpenTar(path string, r io.ReaderAt, size int64) (*Snapshot, error) {
	t := &tarSource{path: path, r: r, files: map[string]*io.SectionReader{}}
	if err := t.index(size); err != nil {
		return nil, fmt.Errorf("open snapshot: %w", err)
	}
	return open(context.Background(), t)
}

// tarSource reads files out of a tar by their places.
type tarSource struct {
	path  string
	r     io.ReaderAt
	files map[string]*io.SectionReader
}

// index notes where each file is. The tar must be exactly what WriteFile makes: these names in this order, plain files, and its end.
func (t *tarSource) index(size int64) error {
	at := int64(0)
	block := make([]byte, tarBlock)
	for n := 0; ; n++ {
		if n > maxChunks {
			return fileError(t.path, ErrAltered, "it has over %d files", maxChunks)
		}
		if _, err := t.r.ReadAt(block, at); err != nil {
			return t.broken(err, at, size)
		}
		h, err := tar.NewReader(bytes.NewReader(block)).Next()
		if err != nil || h.Typeflag != tar.TypeReg || h.Format != tar.FormatUSTAR || h.Size < 0 || h.Size > maxManifest {
			return fileError(t.path, ErrAltered, "at byte %d there is no header of a file of a snapshot", at)
		}
		if h.Name != chunkName(n) && h.Name != manifestName {
			return fileError(t.path, ErrAltered, "at byte %d there is %.100q, expected %s or %s", at, h.Name, chunkName(n), manifestName)
		}
		at += tarBlock
		end := at + (h.Size+tarBlock-1)/tarBlock*tarBlock
		if end > size {
			return fileError(t.full(h.Name), ErrTruncated, "the file has %d bytes, needs %d for it", size, end)
		}
		t.files[h.Name] = io.NewSectionReader(t.r, at, h.Size)
		if err := t.zeros(at+h.Size, end-at-h.Size); err != nil {
			return err
		}
		if at = end; h.Name == manifestName {
			return t.tail(at, size)
		}
	}
}

// tail checks that the tar ends as it must.
func (t *tarSource) tail(at, size int64) error {
	if size < at+tarTail {
		return fileError(t.path, ErrTruncated, "it has %d bytes of %d", size, at+tarTail)
	}
	if size > at+tarTail {
		return fileError(t.path, ErrAltered, "it has %d bytes after its end", size-at-tarTail)
	}
	return t.zeros(at, tarTail)
}

// zeros checks the bytes that no sum covers.
func (t *tarSource) zeros(at, n int64) error {
	b := make([]byte, n)
	if _, err := io.ReadFull(io.NewSectionReader(t.r, at, n), b); err != nil {
		return fmt.Errorf("read %s: %w", t.path, err)
	}
	if len(bytes.TrimLeft(b, "\x00")) > 0 {
		return fileError(t.path, ErrAltered, "from byte %d on there are not %d zeros", at, n)
	}
	return nil
}

func (t *tarSource) broken(err error, at, size int64) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fileError(t.path, ErrTruncated, "it has %d bytes, and no %s before byte %d", size, manifestName, at)
	}
	return fmt.Errorf("read %s: %w", t.path, err)
}

func (t *tarSource) get(_ context.Context, file string, limit int64) ([]byte, error) {
	section := t.files[file]
	if section == nil {
		return nil, &FileError{File: t.full(file), Err: ErrMissing}
	}
	body, err := io.ReadAll(io.LimitReader(io.NewSectionReader(section, 0, section.Size()), limit))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", t.full(file), err)
	}
	return body, nil
}

func (t *tarSource) full(file string) string { return t.path + ": " + file }

func (t *tarSource) Close() error {
	if c, ok := t.r.(io.Closer); ok {
		return c.Close()
	}
	return nil
}
