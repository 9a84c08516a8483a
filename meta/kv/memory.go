package kv

import (
	"math/rand/v2"
	"sync"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Memory is a file system in memory that can be cloned as a power cut would
// leave it, and that can hang, or be full, as a disk can.
type Memory struct {
	*vfs.MemFS

	mu sync.Mutex // guards what follows
	// stuck is closed when writes go on; nil while they do.
	stuck chan struct{}
	full  bool
}

// NewMemory answers an empty file system.
func NewMemory() *Memory { return &Memory{MemFS: vfs.NewCrashableMem()} }

// Crash answers the files as a power cut now would leave them: everything that
// was synced, and each unsynced block with a chance of percent. seed makes it repeatable.
func (m *Memory) Crash(percent int, seed uint64) *Memory {
	return &Memory{MemFS: m.CrashClone(vfs.CrashCloneCfg{
		UnsyncedDataPercent: percent,
		RNG:                 rand.New(rand.NewPCG(seed, seed)),
	})}
}

// Hang lets every write and sync from now on wait until release.
func (m *Memory) Hang() (release func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	stuck := make(chan struct{})
	m.stuck = stuck
	return sync.OnceFunc(func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.stuck = nil
		close(stuck)
	})
}

// Fill lets every write from now on fail, as on a full disk.
func (m *Memory) Fill() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.full = true
}

// wait lasts while it hangs, and says whether it is full.
func (m *Memory) wait() (full bool) {
	m.mu.Lock()
	stuck, full := m.stuck, m.full
	m.mu.Unlock()
	if stuck != nil {
		<-stuck
	}
	return full
}

// Create implements vfs.FS.
func (m *Memory) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := m.MemFS.Create(name, c)
	return m.hanging(f, err)
}

// ReuseForWrite implements vfs.FS.
func (m *Memory) ReuseForWrite(oldname, newname string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := m.MemFS.ReuseForWrite(oldname, newname, c)
	return m.hanging(f, err)
}

func (m *Memory) hanging(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &hangingFile{f, m}, nil
}

// hangingFile writes when its Memory does not hang.
type hangingFile struct {
	vfs.File
	m *Memory
}

func (f *hangingFile) Write(p []byte) (int, error) {
	if f.m.wait() {
		return 0, syscall.ENOSPC
	}
	return f.File.Write(p)
}

func (f *hangingFile) Sync() error {
	f.m.wait()
	return f.File.Sync()
}

func (f *hangingFile) SyncData() error {
	f.m.wait()
	return f.File.SyncData()
}

func (f *hangingFile) SyncTo(length int64) (bool, error) {
	f.m.wait()
	return f.File.SyncTo(length)
}
