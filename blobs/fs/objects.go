package fs

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"os"
	"path"
	"strings"
	"syscall"
	"time"

	"github.com/pontoon-registry/pontoon/blobs"
)

const (
	objectsDir = "_objects"
	// magic begins every object's file; the version follows up to the end of the line, then the body.
	magic = "pontoon object "
	// maxFile bounds an object's file: the line and 1 MiB.
	maxFile = 1<<20 + 256
	// lockWait bounds waiting for another process' lock, lockPoll is how often it is tried.
	lockWait, lockPoll = 10 * time.Second, 5 * time.Millisecond
)

// Get implements blobs.Objects.
func (s *Store) Get(_ context.Context, name string) ([]byte, string, error) {
	body, version, err := s.get(name)
	if err != nil {
		return nil, "", fmt.Errorf("get %s: %w", name, err)
	}
	return body, version, nil
}

func (s *Store) get(name string) ([]byte, string, error) {
	if err := blobs.ValidateObjectName(name); err != nil {
		return nil, "", err
	}
	f, err := s.root.Open(objectsDir + "/" + name)
	if err != nil {
		return nil, "", known(err)
	}
	defer func() { _ = f.Close() }() // only read
	all, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, "", known(err)
	}
	line, body, ok := bytes.Cut(all, []byte("\n"))
	version, isObject := strings.CutPrefix(string(line), magic)
	if !ok || !isObject || version == "" || len(all) > maxFile {
		return nil, "", fmt.Errorf("the file has no line with a version, or over 1 MiB: %w", blobs.ErrCorrupt)
	}
	return body, version, nil
}

// PutIfAbsent implements blobs.Objects: link(2) never replaces, so one of any number wins.
func (s *Store) PutIfAbsent(_ context.Context, name string, body []byte) (string, error) {
	version, err := s.put(name, body, func(temporary, target string) error {
		err := s.root.Link(temporary, target)
		if errors.Is(err, iofs.ErrExist) {
			return blobs.ErrExists
		}
		_ = s.root.Remove(temporary) // its second name; what remains is passed over
		return err
	})
	if err != nil {
		return "", fmt.Errorf("put %s: %w", name, err)
	}
	return version, nil
}

// PutIfMatch implements blobs.Objects: compare and rename under a lock that the
// system takes back when its holder dies.
func (s *Store) PutIfMatch(ctx context.Context, name string, body []byte, version string) (string, error) {
	unlock, err := s.lock(ctx, name)
	if err != nil {
		return "", fmt.Errorf("put %s: %w", name, err)
	}
	defer unlock()
	_, current, err := s.get(name)
	if err == nil && current != version {
		err = blobs.ErrChanged
	}
	if err == nil {
		version, err = s.put(name, body, s.root.Rename)
	}
	if err != nil {
		return "", fmt.Errorf("put %s: %w", name, err)
	}
	return version, nil
}

// put writes a durable temporary file, has publish give it its name, and makes the name durable.
func (s *Store) put(name string, body []byte, publish func(temporary, target string) error) (string, error) {
	if err := blobs.ValidateObject(name, body); err != nil {
		return "", err
	}
	target := objectsDir + "/" + name
	if err := s.root.MkdirAll(path.Dir(target), s.perm); err != nil {
		return "", known(err)
	}
	version := rand.Text()
	temporary := path.Dir(target) + "/." + version
	f, err := s.root.OpenFile(temporary, os.O_CREATE|os.O_EXCL|os.O_WRONLY, s.perm&0o666)
	if err != nil {
		return "", known(err)
	}
	_, err = f.Write(append([]byte(magic+version+"\n"), body...))
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = publish(temporary, target)
	}
	if err != nil {
		_ = s.root.Remove(temporary) // the first error says why
		return "", known(err)
	}
	for folder := path.Dir(target); folder != "."; folder = path.Dir(folder) {
		if err := s.syncFolder(folder); err != nil {
			return "", known(err)
		}
	}
	return version, known(s.syncFolder("."))
}

// lock takes the lock of an object's name, between processes and nodes.
func (s *Store) lock(ctx context.Context, name string) (unlock func(), err error) {
	if err := blobs.ValidateObjectName(name); err != nil {
		return nil, err
	}
	folder := objectsDir + "/" + path.Dir(name)
	f, err := s.root.OpenFile(folder+"/."+path.Base(name)+".lock", os.O_CREATE|os.O_RDWR, s.perm&0o666)
	if err != nil {
		return nil, known(err)
	}
	ctx, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	tick := time.NewTicker(lockPoll)
	defer tick.Stop()
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil // closing unlocks
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			_ = f.Close() // the lock's error says why
			return nil, fmt.Errorf("lock: %w: %w", blobs.ErrUnsupported, err)
		}
		select {
		case <-ctx.Done():
			_ = f.Close() // only a lock
			return nil, fmt.Errorf("lock: %w: %w", blobs.ErrUnavailable, context.Cause(ctx))
		case <-tick.C:
		}
	}
}
