//go:build faults

package main

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/pontoon-registry/pontoon/cluster"
	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// diskSetting is what a disk does to each write.
type diskSetting struct {
	Delay duration `json:"delay,omitempty"`
	Hang  bool     `json:"hang,omitempty"`
}

// slowDisk delays writes, or holds them until it is set anew.
type slowDisk struct {
	mu      sync.Mutex // guards what follows
	now     diskSetting
	changed chan struct{}
}

func (d *slowDisk) set(s diskSetting) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.now = s
	if d.changed != nil {
		close(d.changed)
		d.changed = nil
	}
}

func (d *slowDisk) get() diskSetting {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.now
}

// write waits as the disk is set. A hang ends only with the setting, or with the process.
func (d *slowDisk) write() {
	d.mu.Lock()
	if d.changed == nil {
		d.changed = make(chan struct{})
	}
	s, changed := d.now, d.changed
	d.mu.Unlock()
	switch {
	case s.Hang:
		<-changed
	case s.Delay > 0:
		rest(time.Duration(s.Delay), changed)
	}
}

func diskNames() map[string]int { return map[string]int{"log": logDisk, "state": stateDisk} }

func (f *faults) setDisks(to map[string]diskSetting) error {
	names := diskNames()
	for name, s := range to {
		if _, known := names[name]; !known || s.Delay < 0 {
			return fmt.Errorf("disk %q with a delay of %v: must be log or state, with a delay of 0 or more", name, time.Duration(s.Delay))
		}
	}
	for name, i := range names {
		f.disks[i].set(to[name])
	}
	return nil
}

func (f *faults) diskSettings() map[string]diskSetting {
	out := map[string]diskSetting{}
	for name, i := range diskNames() {
		out[name] = f.disks[i].get()
	}
	return out
}

// faultyLog is Raft's log on a disk that misbehaves.
type faultyLog struct {
	cluster.LogDisk
	f *faults
}

func (f *faults) logDisk(disk cluster.LogDisk) cluster.LogDisk { return faultyLog{disk, f} }

// write makes one change between its two points.
func (l faultyLog) write(point string, detail func() string, change func() error) error {
	return l.f.around(point, detail, func() error {
		l.f.disks[logDisk].write()
		return change()
	})
}

// around makes a call between its two points; an injected error is its error.
func (f *faults) around(point string, detail func() string, call func() error) error {
	if err := f.rules.at(point+".before", detail); err != nil {
		return err
	}
	err := call()
	if after := f.rules.at(point+".after", func() string { return fmt.Sprintf("%s error=%v", detail(), err) }); after != nil {
		return after
	}
	return err
}

func (l faultyLog) StoreLog(e *raft.Log) error { return l.StoreLogs([]*raft.Log{e}) }

func (l faultyLog) StoreLogs(entries []*raft.Log) error {
	return l.write("log.store", func() string { return describeLogs(entries) }, func() error { return l.LogDisk.StoreLogs(entries) })
}

func (l faultyLog) DeleteRange(low, high uint64) error {
	return l.write("log.delete", func() string { return fmt.Sprintf("%d to %d", low, high) }, func() error { return l.LogDisk.DeleteRange(low, high) })
}

func (l faultyLog) Set(key, value []byte) error {
	return l.write("log.set", func() string { return fmt.Sprintf("%s=%s", key, value) }, func() error { return l.LogDisk.Set(key, value) })
}

func (l faultyLog) SetUint64(key []byte, value uint64) error {
	return l.write("log.set", func() string { return fmt.Sprintf("%s=%d", key, value) }, func() error { return l.LogDisk.SetUint64(key, value) })
}

// stateDisk is the disk of the state, while a write of it is under way.
func (f *faults) stateDisk(what string) (done func()) {
	f.disks[stateDisk].write()
	if what != "commit to the state" {
		return func() {}
	}
	nothing := func() string { return "" }
	_ = f.rules.at("state.commit.before", nothing) // it cannot fail
	return func() { _ = f.rules.at("state.commit.after", nothing) }
}

// faultyApplier stands between Raft and the state.
type faultyApplier struct {
	cluster.Applier
	f *faults
}

func (f *faults) applier(state cluster.Applier) cluster.Applier { return faultyApplier{state, f} }

func (a faultyApplier) Apply(entries []meta.LogEntry) (results [][]*metav1.Result, err error) {
	err = a.f.around("state.apply", func() string { return describeEntries(entries) }, func() error {
		results, err = a.Applier.Apply(entries)
		return err
	})
	return results, err
}

func (f *faults) step(name string) error {
	return f.rules.at("node.step", func() string { return name })
}

// passing is a state on its way.
type passing struct {
	r     io.Reader
	f     *faults
	point string
	bytes int64
}

func (f *faults) stream(which string, r io.Reader) io.Reader {
	return &passing{r: r, f: f, point: "stream." + which}
}

func (p *passing) Read(into []byte) (int, error) {
	if err := p.f.rules.at(p.point, func() string { return fmt.Sprintf("bytes=%d", p.bytes) }); err != nil {
		return 0, err
	}
	n, err := p.r.Read(into)
	p.bytes += int64(n)
	return n, err
}
