package cluster

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// simDisk is the disk under a log: each write takes a while, before and after it
// is durable, and hangs while the machine is paused or the disk is stuck.
type simDisk struct {
	LogDisk
	// mu guards what follows.
	mu   sync.Mutex
	rng  *rand.Rand
	slow time.Duration
	// hung is closed when the disk works again; nil: it works.
	hung chan struct{}
}

func newSimDisk(seed uint64, slow time.Duration) *simDisk {
	return &simDisk{rng: rand.New(rand.NewPCG(seed, 11)), slow: slow}
}

// hang stops the disk, work lets it go on.
func (d *simDisk) hang() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.hung == nil {
		d.hung = make(chan struct{})
	}
}

func (d *simDisk) hangs() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.hung != nil
}

func (d *simDisk) work() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.hung != nil {
		close(d.hung)
		d.hung = nil
	}
}

// free ends all waiting, when the machine is gone: what its process still writes,
// it writes into a directory that nobody opens again.
func (d *simDisk) free() {
	d.mu.Lock()
	d.slow = 0
	d.mu.Unlock()
	d.work()
}

// wait is one half of what a write takes.
func (d *simDisk) wait() {
	d.mu.Lock()
	hung, pause := d.hung, time.Duration(0)
	if d.slow > 0 {
		pause = time.Duration(d.rng.Int64N(int64(d.slow)))
	}
	d.mu.Unlock()
	if hung != nil {
		<-hung
	}
	if pause > 0 {
		time.Sleep(pause)
	}
}

func (d *simDisk) write(do func() error) error {
	d.wait()
	err := do()
	d.wait()
	return err
}

func (d *simDisk) StoreLog(l *raft.Log) error {
	return d.write(func() error { return d.LogDisk.StoreLog(l) })
}
func (d *simDisk) StoreLogs(l []*raft.Log) error {
	return d.write(func() error { return d.LogDisk.StoreLogs(l) })
}
func (d *simDisk) DeleteRange(low, high uint64) error {
	return d.write(func() error { return d.LogDisk.DeleteRange(low, high) })
}
func (d *simDisk) Set(k, v []byte) error {
	return d.write(func() error { return d.LogDisk.Set(k, v) })
}
func (d *simDisk) SetUint64(k []byte, v uint64) error {
	return d.write(func() error { return d.LogDisk.SetUint64(k, v) })
}

// simFolder is a folder for data whose syncs cost nothing, where the machine has one.
func simFolder(t testing.TB) string {
	if dir, err := os.MkdirTemp("/dev/shm", "pontoon-sim-"); err == nil {
		t.Cleanup(func() { _ = os.RemoveAll(dir) }) // nothing of it is needed
		return dir
	}
	return t.TempDir()
}

// image copies a data directory as a crash leaves it. Nothing else runs
// meanwhile: the caller has waited until all others wait, and time stands.
func image(from, to string) error {
	return os.CopyFS(to, os.DirFS(from))
}

// imageState takes only the state, for a power cut that loses what came after
// it. Not across a compaction or an install: those sync the state first.
func imageState(from, to string) error {
	old, err := statePath(from)
	if err != nil {
		return err
	}
	now, err := statePath(to)
	if err != nil || filepath.Base(old) != filepath.Base(now) {
		return err
	}
	return errors.Join(os.RemoveAll(now), os.CopyFS(now, os.DirFS(old)))
}
