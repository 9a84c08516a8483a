package cluster

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/pontoon-registry/pontoon/meta"
	"github.com/pontoon-registry/pontoon/meta/kv"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

const (
	// checkpointIdle is for how long one is kept that nobody reads: a peer that is
	// tried again, or the next laggard, gets it too.
	checkpointIdle = 30 * time.Second
	// checkpointsKept bounds those on disk: the latest, and one that is still being sent.
	checkpointsKept = 2
	// checkpointFresh is for how long one serves whoever comes: a node that heals itself
	// needs one of after it was found odd, and asks until it gets it (M9).
	checkpointFresh = 30 * time.Second
)

// checkpoints makes the files of the state available to those that lack it. A
// checkpoint is hard links: it costs little to make, but pins what the state has
// rewritten since, so there are few and none for long. Safe for concurrent use.
type checkpoints struct {
	dir   string
	state *meta.State
	// held says whether the log has an entry: without the one that a checkpoint ends at it is of no use any more.
	held func(index uint64) bool
	// stream is Seams.Stream.
	stream func(which string, r io.Reader) io.Reader

	// mu guards what follows, and is held while one is made.
	mu  sync.Mutex
	all []*checkpoint
}

type checkpoint struct {
	path    string
	witness *metav1.Witness
	files   []archived
	made    time.Time
	readers int
	since   time.Time // of the last reader's end
}

// open answers the archive of a checkpoint that a follower of this log can go on from.
func (c *checkpoints) open() (*raft.SnapshotMeta, io.ReadCloser, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	cp, err := c.usable()
	if err != nil {
		return nil, nil, fmt.Errorf("open a checkpoint to send: %w", err)
	}
	m := metaOf(cp.witness)
	m.Size = archiveSize(cp.files)
	cp.readers++
	archive := &archiveReader{dir: cp.path, files: cp.files, closed: func() { c.release(cp) }}
	return m, struct {
		io.Reader
		io.Closer
	}{c.stream("give", archive), archive}, nil
}

// usable is the latest if it will do, or a new one. An older one does only while there is no room for a new one.
func (c *checkpoints) usable() (*checkpoint, error) {
	if cp := c.latest(); cp != nil && time.Since(cp.made) < checkpointFresh {
		return cp, nil
	}
	if err := c.drop(0); err != nil {
		return nil, err
	}
	if len(c.all) >= checkpointsKept {
		if cp := c.latest(); cp != nil {
			return cp, nil
		}
		return nil, fmt.Errorf("%d are being sent already", len(c.all))
	}
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return nil, err
	}
	path := filepath.Join(c.dir, randomID())
	cp, err := c.make(path)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(path))
	}
	c.all = append(c.all, cp)
	return cp, nil
}

// latest is the newest if the log still goes on from it, else nil.
func (c *checkpoints) latest() *checkpoint {
	if n := len(c.all); n > 0 && c.held(c.all[n-1].witness.GetIndex()) {
		return c.all[n-1]
	}
	return nil
}

// make takes a checkpoint while entries go on being applied, and lets it witness
// what it then turns out to hold: index, term, configuration and rows are of one moment.
func (c *checkpoints) make(path string) (*checkpoint, error) {
	if err := c.state.Checkpoint(path); err != nil {
		return nil, err
	}
	store, err := kv.Open(path, kv.Options{Still: true}) // compacting it would take longer than sending it
	if err != nil {
		return nil, err
	}
	w, err := meta.Seal(store)
	if err := errors.Join(err, store.Close()); err != nil {
		return nil, err
	}
	files, err := archivable(path)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	return &checkpoint{path: path, witness: w, files: files, made: now, since: now}, nil
}

func (c *checkpoints) release(cp *checkpoint) {
	c.mu.Lock()
	defer c.mu.Unlock()
	cp.readers--
	cp.since = time.Now()
}

// sweep removes what nobody has read for a while.
func (c *checkpoints) sweep(idle time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.drop(idle)
}

func (c *checkpoints) drop(idle time.Duration) error {
	var errs []error
	rest := c.all[:0]
	for _, cp := range c.all {
		if cp.readers > 0 || time.Since(cp.since) < idle {
			rest = append(rest, cp)
			continue
		}
		errs = append(errs, os.RemoveAll(cp.path))
	}
	clear(c.all[len(rest):])
	c.all = rest
	return errors.Join(errs...)
}
