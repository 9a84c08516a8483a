package fs

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"iter"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/pontoon-registry/pontoon/blobs"
)

const (
	// halfDir holds what a Put has not given its name yet. No key and no archived name begins with an underscore.
	halfDir = "_archive"
	// halfLife is when a file there was left by a process that is gone.
	halfLife = time.Hour
)

// Archive implements blobs.Archive: a file of plain bytes under the root for each object, so that any tool can copy a backup.
type Archive struct{ s *Store }

// Archive answers the archive in this directory.
func (s *Store) Archive() *Archive { return &Archive{s} }

// Put implements blobs.Archive: a durable file gets its name by link(2), which never replaces.
func (a *Archive) Put(ctx context.Context, name string, body []byte) error {
	if err := blobs.ValidateArchived(name, body); err != nil {
		return fmt.Errorf("put: %w", err)
	}
	if ctx.Err() != nil {
		return fmt.Errorf("put %s: %w", name, context.Cause(ctx))
	}
	if err := a.put(name, body); err != nil {
		return fmt.Errorf("put %s: %w", name, known(err))
	}
	return nil
}

func (a *Archive) put(name string, body []byte) (err error) {
	if err := a.s.mkdir(halfDir); err != nil {
		return err
	}
	a.tidy()
	half := halfDir + "/" + rand.Text()
	f, err := a.s.root.OpenFile(half, os.O_CREATE|os.O_EXCL|os.O_WRONLY, a.s.perm&0o666)
	if err != nil {
		return err
	}
	defer func() { _ = a.s.root.Remove(half) }() // its first name; what remains is tidied up
	_, err = f.Write(body)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := a.s.root.MkdirAll(path.Dir(name), a.s.perm); err != nil {
		return err
	}
	err = a.s.root.Link(half, name)
	if errors.Is(err, iofs.ErrNotExist) {
		// Another's Delete took the folder away while it was empty.
		err = errors.Join(a.s.root.MkdirAll(path.Dir(name), a.s.perm), a.s.root.Link(half, name))
	}
	if errors.Is(err, iofs.ErrExist) {
		return blobs.ErrExists
	}
	for folder := path.Dir(name); err == nil; folder = path.Dir(folder) {
		if err = a.s.syncFolder(folder); folder == "." {
			break
		}
	}
	return err
}

// tidy removes what processes left that died within a Put.
func (a *Archive) tidy() {
	names, err := a.s.names(halfDir + "/")
	if err != nil {
		return // the next Put tries again
	}
	for _, name := range names {
		if info, err := a.s.root.Lstat(halfDir + "/" + name); err == nil && time.Since(info.ModTime()) > halfLife {
			_ = a.s.root.Remove(halfDir + "/" + name) // the next Put tries again
		}
	}
}

// Get implements blobs.Archive.
func (a *Archive) Get(ctx context.Context, name string) ([]byte, error) {
	if err := blobs.ValidateArchiveName(name); err != nil {
		return nil, fmt.Errorf("get: %w", err)
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("get %s: %w", name, context.Cause(ctx))
	}
	body, err := a.get(name)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", name, known(err))
	}
	return body, nil
}

func (a *Archive) get(name string) ([]byte, error) {
	f, err := a.s.root.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(err, fmt.Errorf("not a regular file: %w", blobs.ErrCorrupt))
	}
	body, err := io.ReadAll(io.LimitReader(f, blobs.MaxArchived+1))
	if err == nil && len(body) > blobs.MaxArchived {
		err = fmt.Errorf("over %d bytes: %w", blobs.MaxArchived, blobs.ErrCorrupt)
	}
	return body, err
}

// List implements blobs.Archive. It reads one folder at a time; what comes or goes meanwhile may or may not be seen.
func (a *Archive) List(ctx context.Context, prefix, after string) iter.Seq2[blobs.Object, error] {
	return func(yield func(blobs.Object, error) bool) {
		_, err := a.walk(ctx, "", prefix, after, func(o blobs.Object) bool { return yield(o, nil) })
		if err != nil {
			yield(blobs.Object{}, fmt.Errorf("list %q: %w", prefix, err))
		}
	}
}

// walk goes through a folder in the order of whole names: a folder's own name counts with its slash.
func (a *Archive) walk(ctx context.Context, folder, prefix, after string, yield func(blobs.Object) bool) (more bool, err error) {
	names, err := a.s.names(folder)
	if err != nil {
		return false, err
	}
	infos := make(map[string]os.FileInfo, len(names))
	kept := names[:0]
	for _, name := range names {
		info, err := a.s.root.Lstat(folder + name)
		if errors.Is(err, iofs.ErrNotExist) {
			continue
		}
		if err != nil {
			return false, known(err)
		}
		if info.IsDir() {
			name += "/"
		}
		if blobs.ValidateArchiveName(folder+strings.TrimSuffix(name, "/")) == nil {
			kept, infos[name] = append(kept, name), info
		}
	}
	slices.Sort(kept)
	for _, name := range kept {
		full := folder + name
		more := true
		switch {
		case ctx.Err() != nil:
			return false, context.Cause(ctx)
		case infos[name].IsDir():
			if overlap(full, prefix) && (full > after || strings.HasPrefix(after, full)) {
				more, err = a.walk(ctx, full, prefix, after, yield)
			}
		case infos[name].Mode().IsRegular() && strings.HasPrefix(full, prefix) && full > after:
			more = yield(blobs.Object{Key: full, Size: infos[name].Size(), Modified: infos[name].ModTime()})
		}
		if err != nil || !more {
			return false, err
		}
	}
	return true, nil
}

// Delete implements blobs.Archive. Folders that become empty go with their last file.
func (a *Archive) Delete(ctx context.Context, names ...string) error {
	var failed []error
	for _, name := range names {
		if ctx.Err() != nil {
			return errors.Join(append(failed, fmt.Errorf("delete %s: %w", name, context.Cause(ctx)))...)
		}
		if err := blobs.ValidateArchiveName(name); err != nil {
			failed = append(failed, fmt.Errorf("delete: %w", err))
			continue
		}
		if err := a.s.root.Remove(name); err != nil && !errors.Is(err, iofs.ErrNotExist) {
			failed = append(failed, fmt.Errorf("delete %s: %w", name, known(err)))
			continue
		}
		for folder := path.Dir(name); folder != "."; folder = path.Dir(folder) {
			if a.s.root.Remove(folder) != nil { // refused by the system unless empty
				break
			}
		}
	}
	return errors.Join(failed...)
}
