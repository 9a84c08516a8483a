// Package fs keeps blobs in a directory, which several nodes may share.
//
// It promises what blobs promises: what Save, Close and Finish answered is on
// disk, its folders included (fsync); Objects change atomically.
// It does not promise more than the file system keeps: a mount that lies about
// fsync, that has no O_EXCL, link(2) or flock(2) between the nodes, or that is
// lost, is beyond it. Checksums are verified when pieces are joined or resumed,
// not on every read.
//
// # Files
//
//	<root>/<epoch>/<upload>/<attempt>[.<n>]   one file for each key
//	<root>/_objects/<name>                    Objects, with a line that holds the version
//	<root>/<name with a dash>                 Archive, plain bytes
//	<root>/_archive/<random>                  of an Archive, until it has its name
//
// F1: a file is written by the one attempt that created it (O_EXCL), by
// appending only, so the bytes below a length that the ledger accepted never
// change, whoever still holds a descriptor (R-A4).
// F2: Close seals a file: the last thing done with the descriptor takes the
// write permission off. Only a sealed file of exactly the accepted length
// becomes a layer as it is; otherwise (the writer was cut off, or is paused and
// may still append) Finish copies the accepted bytes into a fresh file.
// F3: a piece below a bound is not kept beside the next attempt's file but
// copied into its beginning, so that an upload of small chunks has few pieces.
package fs

import (
	"context"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"os"
	"path"
	"sync"
	"syscall"
	"time"

	"github.com/pontoon-registry/pontoon/blobs"
)

// Config says where the files are.
type Config struct {
	// Root is the directory. No default. It is made if its parent exists. Nothing else may write below it.
	Root string
	// Perm is the permission of new folders; files have it without the x bits. Default 0750.
	// Danger: without r and w for all nodes that share a mount, they cannot resume each other's uploads.
	Perm os.FileMode
}

// Validate answers an error that names the field and the bound.
func (c Config) Validate() error {
	if c.Root == "" {
		return errors.New("fs: root must be set to a directory")
	}
	if c.Perm != 0 && c.Perm&0o700 != 0o700 || c.Perm&^0o777 != 0 {
		return fmt.Errorf("fs: perm %#o: must be within 0700 to 0777 and give the owner all", c.Perm)
	}
	return nil
}

// Store implements blobs.Store and blobs.Objects. Every path goes through an
// os.Root, so that no key and no symbolic link leads out of the directory.
type Store struct {
	root *os.Root
	perm os.FileMode

	// mu guards synced: epochs whose folder is known to be durable in the root.
	mu     sync.Mutex
	synced map[string]bool
}

// Open makes the directory if need be and checks that it can be written.
func Open(_ context.Context, c Config) (*Store, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if c.Perm == 0 {
		c.Perm = 0o750
	}
	if err := os.Mkdir(c.Root, c.Perm); err != nil && !errors.Is(err, iofs.ErrExist) {
		return nil, fmt.Errorf("open directory store %s: %w", c.Root, err)
	}
	root, err := os.OpenRoot(c.Root)
	if err != nil {
		return nil, fmt.Errorf("open directory store %s: %w", c.Root, err)
	}
	s := &Store{root: root, perm: c.Perm, synced: map[string]bool{}}
	if err := s.mkdir(objectsDir); err != nil {
		_ = root.Close() // the first error says why
		return nil, fmt.Errorf("open directory store %s: %w", c.Root, err)
	}
	return s, nil
}

// Close lets go of the directory. Streams and writers that are open go on.
func (s *Store) Close() error {
	return s.root.Close()
}

// Open implements blobs.Store.
func (s *Store) Open(_ context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	f, size, err := s.openKey(key)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", key, err)
	}
	if offset < 0 || offset > size {
		_ = f.Close() // only read
		return nil, fmt.Errorf("open %s: offset %d is outside its %d bytes", key, offset, size)
	}
	if length < 0 {
		length = size - offset
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		_ = f.Close() // the seek's error says why
		return nil, fmt.Errorf("open %s: %w", key, known(err))
	}
	return &stream{LimitedReader: io.LimitedReader{R: f, N: length}, f: f}, nil
}

// stream reads N more bytes of a file. Embedding LimitedReader lets net/http
// see the file below and use sendfile.
type stream struct {
	io.LimitedReader
	f *os.File
}

func (r *stream) Read(p []byte) (int, error) {
	n, err := r.LimitedReader.Read(p)
	if errors.Is(err, io.EOF) && r.N > 0 {
		return n, io.ErrUnexpectedEOF
	}
	return n, err
}

// WriteTo lets io.Copy send the file without copying it through this process.
func (r *stream) WriteTo(w io.Writer) (int64, error) {
	n, err := io.Copy(w, &r.LimitedReader)
	if err == nil && r.N > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func (r *stream) Close() error { return r.f.Close() }

// openKey opens the file of a key, which must be one: nothing else is ever opened.
func (s *Store) openKey(key string) (*os.File, int64, error) {
	if _, _, err := blobs.ParseKey(key); err != nil {
		return nil, 0, err
	}
	f, err := s.root.Open(key)
	if err != nil {
		return nil, 0, known(err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("not a regular file: %w", blobs.ErrCorrupt)
	}
	if err != nil {
		_ = f.Close() // only read
		return nil, 0, known(err)
	}
	return f, info.Size(), nil
}

// Stat implements blobs.Store.
func (s *Store) Stat(_ context.Context, key string) (int64, error) {
	if _, _, err := blobs.ParseKey(key); err != nil {
		return 0, fmt.Errorf("stat: %w", err)
	}
	info, err := s.root.Lstat(key)
	if err != nil {
		return 0, fmt.Errorf("stat %s: %w", key, known(err))
	}
	return info.Size(), nil
}

// Delete implements blobs.Store. A folder that becomes empty goes with its last file.
func (s *Store) Delete(ctx context.Context, keys ...string) error {
	var failed []error
	folders := map[string]bool{}
	for _, key := range keys {
		if ctx.Err() != nil {
			return errors.Join(append(failed, fmt.Errorf("delete: %w", context.Cause(ctx)))...)
		}
		if _, _, err := blobs.ParseKey(key); err != nil {
			failed = append(failed, fmt.Errorf("delete: %w", err))
			continue
		}
		if err := s.root.Remove(key); err != nil && !errors.Is(err, iofs.ErrNotExist) {
			failed = append(failed, fmt.Errorf("delete %s: %w", key, known(err)))
			continue
		}
		folders[path.Dir(key)] = true
	}
	for folder := range folders {
		_ = s.root.Remove(folder) // refused by the system unless empty; a writer that loses its folder makes it again
	}
	return errors.Join(failed...)
}

// AbortMultipart implements blobs.Store: there are none, so it is done.
func (s *Store) AbortMultipart(context.Context, string, string) error { return nil }

// Presign implements blobs.Store.
func (s *Store) Presign(_ context.Context, key string, _ time.Duration) (string, error) {
	return "", fmt.Errorf("presign %s: %w", key, blobs.ErrUnsupported)
}

// boundary is the distance of the offsets at which a Save may end, in bytes.
const boundary = 8 << 20

// Boundary implements blobs.Store.
func (s *Store) Boundary(offset int64) int64 { return (offset/boundary + 1) * boundary }

// Reserve implements blobs.Store: files have no part numbers.
func (s *Store) Reserve(blobs.Progress, int64) int32 { return 0 }

// known maps the system's errors to those of blobs, in this one place. Others stay as they are.
func known(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, iofs.ErrNotExist):
		return fmt.Errorf("%w: %w", blobs.ErrNotFound, err)
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EFBIG):
		return fmt.Errorf("%w: %w", blobs.ErrNoRoom, err)
	case errors.Is(err, syscall.EIO), errors.Is(err, syscall.ESTALE), errors.Is(err, syscall.ETIMEDOUT),
		errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%w: %w", blobs.ErrUnavailable, err)
	}
	return err
}
