package cluster

import (
	"context"
	"io"
	"net"
	"time"

	"github.com/hashicorp/raft"

	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// Seams are for tests that break things: between a node and its network, disks and clock. All are nil in a release, whose
// binary has nothing to put there (cmd/pontoon/faults_off.go); nil is the real thing. What stands in one is called on hot
// paths and from many goroutines.
type Seams struct {
	// Dial opens every connection to another node but gossip's.
	Dial func(ctx context.Context, addr string) (net.Conn, error)
	// LogDisk answers what stands under Raft's log and votes, in place of the disk that it is given.
	LogDisk func(LogDisk) LogDisk
	// StateDisk is told as a write of the state begins, and by its answer as it ends. Both count as the disk's time: who
	// waits in there is a disk that hangs.
	StateDisk func(what string) (done func())
	// Applier answers what stands between Raft and the state.
	Applier func(Applier) Applier
	// Step is told between any two steps of an install, and before a term is opened; its error ends the node there, or
	// fails the opening.
	Step func(name string) error
	// Stream answers what a state is read from on its way: "give" on the node that sends it, "install" on the one that gets it.
	Stream func(which string, r io.Reader) io.Reader
	// FreeSpace answers for the file system of a node that runs.
	FreeSpace func(dir string) (int64, error)
	// Now is the wall clock: of entries, and of certificates between nodes. Nothing else here tells time by it.
	Now func() time.Time
}

// LogDisk is what Raft's log stands on; raft-boltdb is it.
type LogDisk interface {
	raft.LogStore
	raft.StableStore
	Close() error
}

// Applier is what Raft feeds its entries to; meta.State is it.
type Applier interface {
	Apply([]meta.LogEntry) ([][]*metav1.Result, error)
}

func (s *Seams) fill() {
	if s.LogDisk == nil {
		s.LogDisk = func(disk LogDisk) LogDisk { return disk }
	}
	if s.StateDisk == nil {
		s.StateDisk = func(string) func() { return func() {} }
	}
	if s.Applier == nil {
		s.Applier = func(state Applier) Applier { return state }
	}
	if s.Step == nil {
		s.Step = func(string) error { return nil }
	}
	if s.Stream == nil {
		s.Stream = func(_ string, r io.Reader) io.Reader { return r }
	}
	if s.Now == nil {
		s.Now = time.Now
	}
}
