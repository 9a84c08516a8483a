package cluster

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
)

// logCacheBytes bounds the recent entries kept in memory: what followers that
// keep up are sent, and what the state is about to apply (R-B9).
const logCacheBytes = 16 << 20

// logStore is Raft's log and stable store: raft-boltdb under a cache bounded in
// bytes. It reports itself monotonic, shows its writes to watch,
// and calls fail on the first error of a write: a log write that was given
// up may still land, so the process ends rather than going on (consensus.md
// 2.2, R-B2). Safe for concurrent use as raft.LogStore demands.
type logStore struct {
	disk  LogDisk
	fail  func(error)
	limit int64

	// watch sees every write, and how long it takes; nil: nobody does.
	watch *diskWatch
	// writes has room for one write: Raft has one writer for
	// the log and another for votes. A channel, since the wait for a disk may be long
	// and the simulation's time passes only while no goroutine waits for a mutex.
	writes chan struct{}

	// interrupt ends a compaction between two of its steps.
	interrupt atomic.Bool

	// mu guards the cache: entries lo..lo+len-1, bytes in all; and sizes.
	mu     sync.Mutex
	lo     uint64
	recent []*raft.Log
	bytes  int64
	sizes  logSizes
}

// openLog opens or makes the log in dir.
func openLog(dir string, fail func(error)) (*logStore, error) {
	sizes, err := measureLog(filepath.Join(dir, "log.db"))
	if err != nil {
		return nil, fmt.Errorf("open log in %s: %w", dir, err)
	}
	bolt, err := raftboltdb.New(raftboltdb.Options{
		Path:                    filepath.Join(dir, "log.db"),
		MsgpackUseNewTimeFormat: true,
		BoltOptions: &bbolt.Options{
			Timeout:        time.Second,
			NoFreelistSync: true,
			FreelistType:   bbolt.FreelistMapType,
		},
	})
	if err != nil {
		return nil, fmt.Errorf("open log in %s: %w", dir, err)
	}
	// A synced file whose name is lost in a power cut is lost (C1).
	if err := errors.Join(syncFolder(dir), syncFolder(filepath.Dir(dir))); err != nil {
		return nil, errors.Join(fmt.Errorf("open log in %s: %w", dir, err), bolt.Close())
	}
	s := newLogStore(bolt, fail)
	s.sizes = sizes
	return s, nil
}

func newLogStore(disk LogDisk, fail func(error)) *logStore {
	return &logStore{disk: disk, fail: fail, limit: logCacheBytes, writes: make(chan struct{}, 1)}
}

// IsMonotonic makes Raft empty the log after a snapshot was installed, rather
// than leave a gap with stale entries below it (consensus.md 1.5).
func (s *logStore) IsMonotonic() bool { return true }

// write runs one change of the disk where everybody can see how long it takes.
func (s *logStore) write(what string, change func() error) error {
	done := s.watch.begin(what + " in the log")
	s.writes <- struct{}{}
	err := change()
	<-s.writes
	done()
	if err != nil {
		err = fmt.Errorf("%s in the log: %w", what, err)
		s.fail(err)
	}
	return err
}

func (s *logStore) FirstIndex() (uint64, error) { return s.disk.FirstIndex() }
func (s *logStore) LastIndex() (uint64, error)  { return s.disk.LastIndex() }

func (s *logStore) GetLog(index uint64, out *raft.Log) error {
	s.mu.Lock()
	if index >= s.lo && index-s.lo < uint64(len(s.recent)) {
		*out = *s.recent[index-s.lo]
		s.mu.Unlock()
		return nil
	}
	s.mu.Unlock()
	return s.disk.GetLog(index, out)
}

func (s *logStore) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

func (s *logStore) StoreLogs(logs []*raft.Log) error {
	if err := s.write("store entries", func() error { return s.disk.StoreLogs(logs) }); err != nil {
		return err
	}
	s.remember(logs)
	return nil
}

// remember adds entries that are durable and forgets the oldest beyond the bound.
func (s *logStore) remember(logs []*raft.Log) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range logs {
		s.sizes.add(l.Index, logBytes(l))
		if len(s.recent) == 0 || l.Index != s.lo+uint64(len(s.recent)) {
			s.recent, s.bytes, s.lo = s.recent[:0:0], 0, l.Index
		}
		s.recent = append(s.recent, l)
		s.bytes += logBytes(l)
	}
	for s.bytes > s.limit && len(s.recent) > 0 {
		s.bytes -= logBytes(s.recent[0])
		s.recent[0] = nil
		s.recent = s.recent[1:]
		s.lo++
	}
}

func (s *logStore) Set(key, value []byte) error {
	return s.write("store "+string(key), func() error { return s.disk.Set(key, value) })
}

func (s *logStore) Get(key []byte) ([]byte, error) { return s.disk.Get(key) }

func (s *logStore) SetUint64(key []byte, value uint64) error {
	return s.write("store "+string(key), func() error { return s.disk.SetUint64(key, value) })
}

func (s *logStore) GetUint64(key []byte) (uint64, error) { return s.disk.GetUint64(key) }

func (s *logStore) Close() error { return s.disk.Close() }
