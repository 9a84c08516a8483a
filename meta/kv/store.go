package kv

import (
	"context"
	"errors"
	"io"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
)

// Reader reads rows: a Store, a Snapshot or a Batch.
type Reader interface {
	// Get appends the value of key to buf and answers it; found is false, and
	// buf is returned as it came, when there is no such key.
	Get(key, buf []byte) (value []byte, found bool, err error)
	// Iterate walks the keys in [low, high) in order; a nil bound is open. The
	// caller closes the Iterator.
	Iterate(low, high []byte) (*Iterator, error)
}

// Store is an open store.
type Store struct {
	db    *pebble.DB
	dir   string
	opts  *pebble.Options
	watch func(what string) (done func())
	room  func() error
	// broken is what a panic in a write said.
	broken atomic.Pointer[error]
}

// Open opens or creates the store in dir.
func Open(dir string, o Options) (s *Store, err error) {
	defer guard("open "+dir, &err)
	opts := o.pebble()
	opts.EnsureDefaults()
	db, err := pebble.Open(dir, opts)
	if err != nil {
		return nil, err
	}
	if o.Watch == nil {
		o.Watch = func(string) func() { return func() {} }
	}
	if o.Room == nil {
		o.Room = func() error { return nil }
	}
	return &Store{db: db, dir: dir, opts: opts, watch: o.Watch, room: o.Room}, nil
}

// OpenMemory opens a new, empty store in memory.
func OpenMemory() (*Store, error) {
	return Open("state", Options{Memory: NewMemory(), Memtable: 1 << 20, Cache: 1 << 20})
}

// Close ends the store. Snapshots and iterators must be closed before; one that
// is not is reported in the error. What was committed and not synced is synced. After a write that panicked it lets go of
// nothing and says so: the process is to end, and its next start reads what the log has.
func (s *Store) Close() error {
	return s.write("close", s.db.Close)
}

// Get implements Reader.
func (s *Store) Get(key, buf []byte) ([]byte, bool, error) { return get(s.db, key, buf) }

// Iterate implements Reader.
func (s *Store) Iterate(low, high []byte) (*Iterator, error) { return iterate(s.db, low, high) }

// Set writes one row, unsynced.
func (s *Store) Set(key, value []byte) error {
	defer s.watch("write a row of the state")()
	return s.write("set", func() error { return s.db.Set(key, value, pebble.NoSync) })
}

// Delete removes one row, unsynced; an absent one is no error.
func (s *Store) Delete(key []byte) error {
	defer s.watch("delete a row of the state")()
	return s.write("delete", func() error { return s.db.Delete(key, pebble.NoSync) })
}

// Sync makes everything that was committed before it durable.
func (s *Store) Sync() error {
	defer s.watch("sync the state")()
	return s.write("sync", func() error { return s.db.LogData(nil, pebble.Sync) })
}

// Checkpoint makes a durable copy of the store in dir, which must not exist, by
// hard links. Everything committed before it is in the copy.
func (s *Store) Checkpoint(dir string) error {
	return s.write("checkpoint "+dir, func() error { return s.db.Checkpoint(dir, pebble.WithFlushedWAL()) })
}

// Ingest moves tables written by NewTable into the store, all or none. They
// must not overlap each other. See the package doc for what it breaks.
func (s *Store) Ingest(ctx context.Context, paths ...string) error {
	return s.write("ingest", func() error { return s.db.Ingest(ctx, paths) })
}

// Size answers how many bytes of disk the store takes.
func (s *Store) Size() uint64 { return s.db.Metrics().DiskSpaceUsage() }

// Snapshot is the store at one moment.
type Snapshot struct{ snap *pebble.Snapshot }

// Snapshot takes one. The caller closes it; while it is open, rows that were
// overwritten since take disk space.
func (s *Store) Snapshot() (sn *Snapshot, err error) {
	defer guard("snapshot", &err)
	return &Snapshot{snap: s.db.NewSnapshot()}, nil
}

// Get implements Reader. Safe for concurrent use.
func (s *Snapshot) Get(key, buf []byte) ([]byte, bool, error) { return get(s.snap, key, buf) }

// Iterate implements Reader. Safe for concurrent use.
func (s *Snapshot) Iterate(low, high []byte) (*Iterator, error) {
	return iterate(s.snap, low, high)
}

// Close ends the snapshot. It must not be used afterwards.
func (s *Snapshot) Close() (err error) {
	defer guard("close snapshot", &err)
	return s.snap.Close()
}

func get(r pebble.Reader, key, buf []byte) (_ []byte, _ bool, err error) {
	defer guard("get", &err)
	value, closer, err := r.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return buf, false, nil
	}
	if err != nil {
		return buf, false, err
	}
	buf = append(buf, value...)
	return buf, true, closeValue(closer)
}

func closeValue(c io.Closer) error {
	if c == nil {
		return nil
	}
	return c.Close()
}
