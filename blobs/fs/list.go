package fs

import (
	"context"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"iter"
	"slices"
	"strings"

	"github.com/pontoon-registry/pontoon/blobs"
)

// List implements blobs.Store. It reads one folder at a time; an upload that
// comes or goes meanwhile may or may not be seen. Files that are no keys are passed over.
func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[blobs.Object, error] {
	return func(yield func(blobs.Object, error) bool) {
		_, err := s.walk(ctx, "", 0, prefix, after, func(o blobs.Object) bool { return yield(o, nil) })
		if err != nil {
			yield(blobs.Object{}, fmt.Errorf("list %q: %w", prefix, err))
		}
	}
}

// walk goes through a folder in the order of names, which is the order of keys
// because no element of a key has a character below the slash, but the dot of a last one.
func (s *Store) walk(ctx context.Context, folder string, depth int, prefix, after string, yield func(blobs.Object) bool) (bool, error) {
	names, err := s.names(folder)
	if err != nil {
		return false, err
	}
	for _, name := range names {
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		full := folder + name
		if depth < 2 {
			full += "/"
			if _, _, err := blobs.ParseKey(full + strings.Repeat("x/", 1-depth) + "x"); err != nil {
				continue // Objects, or not ours
			}
			if !overlap(full, prefix) || full < after && !strings.HasPrefix(after, full) {
				continue
			}
			more, err := s.walk(ctx, full, depth+1, prefix, after, yield)
			if err != nil || !more {
				return more, err
			}
			continue
		}
		if !strings.HasPrefix(full, prefix) || full <= after {
			continue
		}
		if _, _, err := blobs.ParseKey(full); err != nil {
			continue
		}
		info, err := s.root.Lstat(full)
		if errors.Is(err, iofs.ErrNotExist) {
			continue
		}
		if err != nil {
			return false, known(err)
		}
		if !yield(blobs.Object{Key: full, Size: info.Size(), Modified: info.ModTime()}) {
			return false, nil
		}
	}
	return true, nil
}

// overlap answers whether a folder can hold keys with the prefix.
func overlap(folder, prefix string) bool {
	return strings.HasPrefix(folder, prefix) || strings.HasPrefix(prefix, folder)
}

// names answers the sorted names in a folder; of one that is gone or is no folder, none.
func (s *Store) names(folder string) ([]string, error) {
	d, err := s.root.Open("./" + strings.TrimSuffix(folder, "/"))
	if errors.Is(err, iofs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, known(err)
	}
	defer func() { _ = d.Close() }() // only read
	if info, err := d.Stat(); err != nil || !info.IsDir() {
		return nil, known(err)
	}
	names, err := d.Readdirnames(-1)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, known(err)
	}
	slices.Sort(names)
	return names, nil
}

// ListMultiparts implements blobs.Store: there are none.
func (s *Store) ListMultiparts(context.Context, string) iter.Seq2[blobs.Multipart, error] {
	return func(func(blobs.Multipart, error) bool) {}
}
