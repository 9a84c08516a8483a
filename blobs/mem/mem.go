// Package mem keeps blobs in memory, for tests of what stands above: a whole
// Store, Objects and Archive with the shape of S3 (multipart uploads, part numbers,
// ETags, a tail), so that a caller who treats it well treats S3 well.
//
// It promises what blobs promises except durability: all is gone with the
// process. It bounds no memory and is not for production. Several "nodes" share
// one Store value.
package mem

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pontoon-registry/pontoon/blobs"
)

// DefaultPartSize is the part size of New(0), in bytes.
const DefaultPartSize = 1 << 20

// maxParts is S3's bound on part numbers.
const maxParts = 10_000

// Store implements blobs.Store and blobs.Objects.
type Store struct {
	partSize int64

	// mu guards all below. The byte slices are never changed once they are here.
	mu         sync.Mutex
	objects    map[string]object
	multiparts map[string]*multipart
	named      map[string]named
	archived   map[string]object
	counter    int
}

type object struct {
	data     []byte
	modified time.Time
}

type multipart struct {
	key       string
	initiated time.Time
	parts     map[int32]part
}

type part struct {
	data []byte
	etag string
}

type named struct {
	body    []byte
	version int
}

// New answers an empty store whose parts have partSize bytes (0: DefaultPartSize);
// a small one makes many parts of little data.
func New(partSize int64) *Store {
	if partSize <= 0 {
		partSize = DefaultPartSize
	}
	return &Store{
		partSize: partSize, objects: map[string]object{}, multiparts: map[string]*multipart{}, named: map[string]named{},
		archived: map[string]object{},
	}
}

// Open implements blobs.Store.
func (s *Store) Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.objects[key]
	switch {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("open %s: %w", key, context.Cause(ctx))
	case !ok:
		return nil, fmt.Errorf("open %s: %w", key, blobs.ErrNotFound)
	case offset < 0 || offset > int64(len(o.data)):
		return nil, fmt.Errorf("open %s: offset %d is outside its %d bytes", key, offset, len(o.data))
	}
	rest := o.data[offset:]
	if length < 0 || length == int64(len(rest)) {
		return io.NopCloser(bytes.NewReader(rest)), nil
	}
	if length > int64(len(rest)) {
		return io.NopCloser(io.MultiReader(bytes.NewReader(rest), cut{})), nil
	}
	return io.NopCloser(bytes.NewReader(rest[:length])), nil
}

// cut is the end of a stream that has less than was asked for.
type cut struct{}

func (cut) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// Stat implements blobs.Store.
func (s *Store) Stat(_ context.Context, key string) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.objects[key]
	if !ok {
		return 0, fmt.Errorf("stat %s: %w", key, blobs.ErrNotFound)
	}
	return int64(len(o.data)), nil
}

// Delete implements blobs.Store.
func (s *Store) Delete(_ context.Context, keys ...string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var failed []error
	for _, k := range keys {
		if _, _, err := blobs.ParseKey(k); err != nil {
			failed = append(failed, fmt.Errorf("delete: %w", err))
		}
		delete(s.objects, k)
	}
	return errors.Join(failed...)
}

// List implements blobs.Store; it yields what is there when it begins.
func (s *Store) List(_ context.Context, prefix, after string) iter.Seq2[blobs.Object, error] {
	return func(yield func(blobs.Object, error) bool) {
		s.mu.Lock()
		var all []blobs.Object
		for _, k := range slices.Sorted(maps.Keys(s.objects)) {
			if strings.HasPrefix(k, prefix) && k > after {
				all = append(all, blobs.Object{Key: k, Size: int64(len(s.objects[k].data)), Modified: s.objects[k].modified})
			}
		}
		s.mu.Unlock()
		for _, o := range all {
			if !yield(o, nil) {
				return
			}
		}
	}
}

// ListMultiparts implements blobs.Store.
func (s *Store) ListMultiparts(_ context.Context, prefix string) iter.Seq2[blobs.Multipart, error] {
	return func(yield func(blobs.Multipart, error) bool) {
		s.mu.Lock()
		var all []blobs.Multipart
		for id, m := range s.multiparts {
			if strings.HasPrefix(m.key, prefix) {
				all = append(all, blobs.Multipart{Key: m.key, ID: id, Initiated: m.initiated})
			}
		}
		s.mu.Unlock()
		slices.SortFunc(all, func(a, b blobs.Multipart) int { return strings.Compare(a.Key, b.Key) })
		for _, m := range all {
			if !yield(m, nil) {
				return
			}
		}
	}
}

// AbortMultipart implements blobs.Store.
func (s *Store) AbortMultipart(_ context.Context, key, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m := s.multiparts[id]; m != nil && m.key == key {
		delete(s.multiparts, id)
	}
	return nil
}

// Presign implements blobs.Store: there is no URL of memory.
func (s *Store) Presign(_ context.Context, key string, _ time.Duration) (string, error) {
	return "", fmt.Errorf("presign %s: %w", key, blobs.ErrUnsupported)
}

// Boundary implements blobs.Store.
func (s *Store) Boundary(offset int64) int64 { return (offset/s.partSize + 1) * s.partSize }

// Reserve implements blobs.Store.
func (s *Store) Reserve(p blobs.Progress, length int64) int32 {
	if length < 0 {
		return blobs.MaxUnsaved
	}
	return int32(min((p.Size+length)/s.partSize-p.Size/s.partSize, maxParts))
}

// Get implements blobs.Objects.
func (s *Store) Get(_ context.Context, name string) ([]byte, string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, ok := s.named[name]
	if !ok {
		return nil, "", fmt.Errorf("get %s: %w", name, blobs.ErrNotFound)
	}
	return bytes.Clone(n.body), strconv.Itoa(n.version), nil
}

// PutIfAbsent implements blobs.Objects.
func (s *Store) PutIfAbsent(_ context.Context, name string, body []byte) (string, error) {
	return s.put(name, body, "")
}

// PutIfMatch implements blobs.Objects.
func (s *Store) PutIfMatch(_ context.Context, name string, body []byte, version string) (string, error) {
	if version == "" {
		return "", fmt.Errorf("put %s: version must not be empty", name)
	}
	return s.put(name, body, version)
}

func (s *Store) put(name string, body []byte, version string) (string, error) {
	if err := blobs.ValidateObject(name, body); err != nil {
		return "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old, ok := s.named[name]
	switch {
	case version == "" && ok:
		return "", fmt.Errorf("put %s: %w", name, blobs.ErrExists)
	case version != "" && !ok:
		return "", fmt.Errorf("put %s: %w", name, blobs.ErrNotFound)
	case version != "" && version != strconv.Itoa(old.version):
		return "", fmt.Errorf("put %s: %w", name, blobs.ErrChanged)
	}
	s.counter++
	s.named[name] = named{body: bytes.Clone(body), version: s.counter}
	return strconv.Itoa(s.counter), nil
}
