package mem

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/pontoon-registry/pontoon/blobs"
)

// Archive implements blobs.Archive beside the blobs of a Store.
type Archive struct{ s *Store }

// Archive answers the archive in this store.
func (s *Store) Archive() *Archive { return &Archive{s} }

// Put implements blobs.Archive.
func (a *Archive) Put(ctx context.Context, name string, body []byte) error {
	if err := blobs.ValidateArchived(name, body); err != nil {
		return fmt.Errorf("put: %w", err)
	}
	if ctx.Err() != nil {
		return fmt.Errorf("put %s: %w", name, context.Cause(ctx))
	}
	a.s.mu.Lock()
	defer a.s.mu.Unlock()
	if _, there := a.s.archived[name]; there {
		return fmt.Errorf("put %s: %w", name, blobs.ErrExists)
	}
	a.s.archived[name] = object{data: bytes.Clone(body), modified: time.Now()}
	return nil
}

// Get implements blobs.Archive.
func (a *Archive) Get(ctx context.Context, name string) ([]byte, error) {
	if err := blobs.ValidateArchiveName(name); err != nil {
		return nil, fmt.Errorf("get: %w", err)
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("get %s: %w", name, context.Cause(ctx))
	}
	a.s.mu.Lock()
	defer a.s.mu.Unlock()
	o, there := a.s.archived[name]
	if !there {
		return nil, fmt.Errorf("get %s: %w", name, blobs.ErrNotFound)
	}
	if len(o.data) > blobs.MaxArchived {
		return nil, fmt.Errorf("get %s: over %d bytes: %w", name, blobs.MaxArchived, blobs.ErrCorrupt)
	}
	return bytes.Clone(o.data), nil
}

// List implements blobs.Archive; it yields what is there when it begins.
func (a *Archive) List(ctx context.Context, prefix, after string) iter.Seq2[blobs.Object, error] {
	return func(yield func(blobs.Object, error) bool) {
		if ctx.Err() != nil {
			yield(blobs.Object{}, fmt.Errorf("list %q: %w", prefix, context.Cause(ctx)))
			return
		}
		a.s.mu.Lock()
		var all []blobs.Object
		for _, k := range slices.Sorted(maps.Keys(a.s.archived)) {
			if o := a.s.archived[k]; strings.HasPrefix(k, prefix) && k > after {
				all = append(all, blobs.Object{Key: k, Size: int64(len(o.data)), Modified: o.modified})
			}
		}
		a.s.mu.Unlock()
		for _, o := range all {
			if !yield(o, nil) {
				return
			}
		}
	}
}

// Delete implements blobs.Archive.
func (a *Archive) Delete(ctx context.Context, names ...string) error {
	a.s.mu.Lock()
	defer a.s.mu.Unlock()
	var failed []error
	for _, name := range names {
		if err := blobs.ValidateArchiveName(name); err != nil {
			failed = append(failed, fmt.Errorf("delete: %w", err))
			continue
		}
		if ctx.Err() != nil {
			failed = append(failed, fmt.Errorf("delete %s: %w", name, context.Cause(ctx)))
			break
		}
		delete(a.s.archived, name)
	}
	return errors.Join(failed...)
}

// Change replaces the bytes of an object behind the archive's back, nil to remove it: for tests of damage.
func (a *Archive) Change(name string, change func(body []byte) []byte) {
	a.s.mu.Lock()
	defer a.s.mu.Unlock()
	o := a.s.archived[name]
	if o.data = change(bytes.Clone(o.data)); o.data == nil {
		delete(a.s.archived, name)
		return
	}
	a.s.archived[name] = o
}
