package kv

import (
	"math/rand/v2"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Memory is a file system in memory that can be cloned as a power cut would
// leave it, and that can hang as a disk does.
type Memory struct {
	*vfs.MemFS

	mu sync.Mutex // guards stuck
	// stuck is closed when writes go on; nil while they do.
	stuck chan struct{}
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

func (m *Memory) wait() {
	m.mu.Lock()
	stuck := m.stuck
	m.mu.Unlock()
	if stuck != nil {
		<-stuck
	}
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
	f.m.wait()
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
