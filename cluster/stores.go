package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/pontoon-registry/pontoon/meta/kv"
)

// The state in the data directory:
//
//	CURRENT      the name of the store in use; absent: "state"
//	state        the store of a node that has never installed a snapshot
//	state-<hex>  one that was installed, or is being downloaded
//	outgoing     checkpoints that are being sent
//
// A snapshot is brought in beside the store in use, and one rename of CURRENT
// makes it the state (R-B2). What CURRENT does not name is removed at start.
const (
	pointerFile  = "CURRENT"
	firstStore   = "state"
	storePrefix  = firstStore + "-"
	outgoingName = "outgoing"
)

// stores owns the stores of one data directory. Safe for concurrent use.
type stores struct {
	dir string
	// options are those of every store.
	options kv.Options
	// left is signalled when a store may be closed.
	left chan struct{}

	// mu guards what follows.
	mu   sync.Mutex
	path string
	now  *kv.Store
	// old are stores that were left, with views perhaps still open on them.
	old []*oldStore
}

type oldStore struct {
	path  string
	store *kv.Store
	free  bool
}

// statePath answers where the state of a data directory is.
func statePath(dataDir string) (string, error) {
	name, err := os.ReadFile(filepath.Join(dataDir, pointerFile))
	if errors.Is(err, fs.ErrNotExist) {
		return filepath.Join(dataDir, firstStore), nil
	}
	if err != nil {
		return "", fmt.Errorf("find the state: %w", err)
	}
	at := strings.TrimSpace(string(name))
	if at != firstStore && (!strings.HasPrefix(at, storePrefix) || at != filepath.Base(at)) {
		return "", fmt.Errorf("find the state: %s in %s names %q, which is no store; replace this node: "+
			"empty its data directory and let it join as a new one", pointerFile, dataDir, at)
	}
	path := filepath.Join(dataDir, at)
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("find the state: %s names a store that is gone: %w; replace this node: "+
			"empty its data directory and let it join as a new one", pointerFile, err)
	}
	return path, nil
}

// openStores opens the state, and removes what an earlier process left half done.
func openStores(dataDir string, o kv.Options) (*stores, error) {
	path, err := statePath(dataDir)
	if err != nil {
		return nil, err
	}
	s := &stores{dir: dataDir, options: o, left: make(chan struct{}, 1), path: path}
	if err := s.sweep(); err != nil {
		return nil, fmt.Errorf("remove stale files of the state: %w", err)
	}
	if s.now, err = s.open(path); err != nil {
		return nil, fmt.Errorf("open state: %w", err)
	}
	return s, nil
}

// openStore opens a store that only one goroutine looks into, such as a checkpoint.
func openStore(path string) (*kv.Store, error) { return kv.Open(path, kv.Options{}) }

// open opens one store as this node uses it.
func (s *stores) open(path string) (*kv.Store, error) { return kv.Open(path, s.options) }

func (s *stores) sweep() error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := e.Name()
		stale := name == outgoingName || (name == firstStore || strings.HasPrefix(name, storePrefix)) && name != filepath.Base(s.path)
		if stale {
			err = errors.Join(err, os.RemoveAll(filepath.Join(s.dir, name)))
		}
	}
	return err
}

// stage answers a new place for a store, which nobody uses before point.
func (s *stores) stage() string { return filepath.Join(s.dir, storePrefix+randomID()) }

// point makes the store at path the one that the next start opens. This is the moment of an install.
func (s *stores) point(path string) error {
	return writeFile(filepath.Join(s.dir, pointerFile), []byte(filepath.Base(path)+"\n"))
}

// move makes store the one in use and answers what to call when the one before is no longer looked at.
func (s *stores) move(path string, store *kv.Store) (retired func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := &oldStore{path: s.path, store: s.now}
	s.old = append(s.old, o)
	s.path, s.now = path, store
	return func() {
		s.mu.Lock()
		o.free = true
		s.mu.Unlock()
		select {
		case s.left <- struct{}{}:
		default:
		}
	}
}

// uses says whether the store at path is the one in use.
func (s *stores) uses(path string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.path == path
}

// clear closes and removes the stores that nobody looks at any more.
func (s *stores) clear() error {
	s.mu.Lock()
	var free []*oldStore
	rest := s.old[:0]
	for _, o := range s.old {
		if o.free {
			free = append(free, o)
		} else {
			rest = append(rest, o)
		}
	}
	s.old = rest
	s.mu.Unlock()
	var errs []error
	for _, o := range free {
		errs = append(errs, o.store.Close(), os.RemoveAll(o.path))
	}
	return errors.Join(errs...)
}

// size is how much disk the store in use takes.
func (s *stores) size() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now.Size()
}

// Close closes all of them; the state must be closed, and all its views.
func (s *stores) Close() error {
	s.mu.Lock()
	for _, o := range s.old {
		o.free = true
	}
	s.mu.Unlock()
	return errors.Join(s.clear(), s.now.Close())
}
