package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/raft"

	"github.com/pontoon-registry/pontoon/cluster/transport"
	clusterv1 "github.com/pontoon-registry/pontoon/proto/pontoon/cluster/v1"
)

// Space is the free space of a data directory, and the ballast in it: a file of
// real blocks that holds room for a start on a disk that others have filled
// (R-D5). Safe for concurrent use.
//
//	free, less what the ballast still lacks:
//	roomy ──► below MinFree ──► low: leads only where nobody else can, unready; follows, reads go on
//	  ▲            below MinFree/4 ──► full: out of Raft; before a write fails, for then Raft panics
//	  └── back above 5/4 of MinFree ──┘
type Space struct {
	dir string
	// minFree and ballast are bytes; 0: no bound, none.
	minFree, ballast int64
	// free asks the file system; tests answer themselves.
	free func(dir string) (int64, error)

	mu sync.Mutex // guards last
	// last is what Look has found.
	last SpaceFigures
}

// SpaceFigures are where a data directory stands.
type SpaceFigures struct {
	Path string
	// Free bytes, MinFree what is asked for, Ballast the size of the ballast as it is, Wanted as it should be.
	Free, MinFree, Ballast, Wanted int64
	Level                          SpaceLevel
}

// SpaceLevel is how bad it is.
type SpaceLevel int

// Roomy, Low and Full are drawn at Space.
const (
	Roomy SpaceLevel = iota
	Low
	Full
)

// ballastName is the file in the data directory.
const ballastName = "ballast"

// NewSpace judges the data directory dir, which need not be there yet.
func NewSpace(dir string, minFree, ballast int64) *Space {
	return &Space{dir: dir, minFree: minFree, ballast: ballast, free: freeSpace}
}

// freeSpace is what this user may still write.
func freeSpace(dir string) (int64, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0, fmt.Errorf("ask for the free space of %s: %w", dir, err)
	}
	return int64(s.Bavail) * int64(s.Bsize), nil //nolint:unconvert // the types differ between systems
}

// Look asks the file system and answers where the directory stands now.
func (s *Space) Look() (SpaceFigures, error) {
	free, err := s.free(s.dir)
	if err != nil {
		return s.Last(), err
	}
	f := SpaceFigures{Path: s.dir, Free: free, MinFree: s.minFree, Wanted: s.ballast}
	if info, err := os.Stat(filepath.Join(s.dir, ballastName)); err == nil {
		f.Ballast = info.Size()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	f.Level = level(f, s.last.Level)
	s.last = f
	return f, nil
}

// usable is what is free once the ballast is whole.
func (f SpaceFigures) usable() int64 { return f.Free - max(f.Wanted-f.Ballast, 0) }

// level goes up at once and comes down only with room to spare, so that it does not flicker.
func level(f SpaceFigures, before SpaceLevel) SpaceLevel {
	switch usable := f.usable(); {
	case f.MinFree == 0:
		return Roomy
	case usable < f.MinFree/4:
		return Full
	case usable < f.MinFree+f.MinFree/4 && before > Roomy:
		return before
	case usable < f.MinFree:
		return Low
	}
	return Roomy
}

// Last is what Look has found last.
func (s *Space) Last() SpaceFigures {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

// Err says what is wrong and what to do; nil while there is room.
func (f SpaceFigures) Err() error {
	if f.Level == Roomy {
		return nil
	}
	need := f.MinFree + f.MinFree/4 + max(f.Wanted-f.Ballast, 0)
	return fmt.Errorf("disk full: %s has %d bytes (%s) free; free space until it has %d (%s), by cluster.disk.minfree and cluster.disk.ballast: the node goes on by itself then",
		f.Path, f.Free, mebibytes(f.Free), need, mebibytes(need))
}

func mebibytes(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

// roomFor refuses what would leave the node too little to stay in Raft: a write of the log that fails ends it.
func (s *Space) roomFor(size int64) error {
	f, err := s.Look()
	if err != nil {
		return err
	}
	if f.MinFree > 0 && f.usable()-size < f.MinFree/4 {
		return fmt.Errorf("disk full: %s has %d bytes (%s) free, and a state of %d bytes (%s) is to be stored beside the one in use: free space, the leader sends it again by itself",
			f.Path, f.Free, mebibytes(f.Free), size, mebibytes(size))
	}
	return nil
}

// closed is the reason for which the node keeps out of Raft; nil without one.
func (s *Space) closed() error {
	if f := s.Last(); f.Level == Full {
		return f.Err()
	}
	return nil
}

// low is the reason for which the node should not lead, and takes no writes when it does; nil without one.
func (s *Space) low() error { return s.Last().Err() }

// Secure makes the ballast when it is not whole and there is room for it.
func (s *Space) Secure() error {
	f, err := s.Look()
	if err != nil || f.Ballast == f.Wanted || f.Level != Roomy {
		return err
	}
	path := filepath.Join(s.dir, ballastName)
	if f.Ballast > f.Wanted {
		err = os.Truncate(path, f.Wanted)
	} else {
		err = makeBallast(path, f.Wanted)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("make ballast %s: %w", path, err), s.Release())
	}
	_, err = s.Look()
	return err
}

// Release gives the ballast's blocks back to the disk.
func (s *Space) Release() error {
	if err := os.Remove(filepath.Join(s.dir, ballastName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("release ballast: %w", err)
	}
	return nil
}

const (
	// spaceEvery is how often the free space is asked for, spaceClosely how often while it is low: what is
	// left then must last until the node is out of Raft.
	spaceEvery   = time.Second
	spaceClosely = 50 * time.Millisecond
	// handOverTime bounds one attempt to hand leadership over for want of space.
	handOverTime = 2 * time.Second
)

// watchSpace keeps the level current, the ballast whole, and leadership away from a node without space.
func (n *Node) watchSpace(ctx context.Context) error {
	tick := time.NewTimer(spaceEvery) // reset below
	defer tick.Stop()
	said := ""
	for before := Roomy; ; {
		now := n.lookAtSpace(&said)
		switch {
		case now != before && now == Roomy:
			n.log.Info("there is free space again: this node goes on")
		case now > before:
			n.log.Error("this node is not ready, and leads only where nobody else can", "error", n.space.low(), "raft", map[bool]string{true: "out", false: "follows"}[now == Full])
		}
		before = now
		if _, leads := n.leads(); leads && now > Roomy {
			n.yield(ctx)
		}
		if now == Roomy {
			tick.Reset(n.cfg.brisk(spaceEvery))
		} else {
			tick.Reset(spaceClosely)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// lookAtSpace answers the level, and says once what keeps it from knowing.
func (n *Node) lookAtSpace(said *string) SpaceLevel {
	done := n.disk.begin("ask for its free space") // a hung disk may not answer this either
	_, err := n.space.Look()
	done()
	if err == nil {
		// Not watched: where the file system cannot allocate it is written, and a large one takes longer than abortAfter.
		err = n.space.Secure()
	}
	if text := fmt.Sprint(err); err != nil && text != *said {
		n.log.Warn("the free space is not known, or the ballast could not be made", "error", err)
		*said = text
	}
	return n.space.Last().Level
}

// yield gives leadership to a voter with space. Where none has, this node goes on leading: it takes no
// writes (stamp), but reads need a leader.
func (n *Node) yield(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, handOverTime)
	defer cancel()
	for _, id := range voters(n.raft().GetConfiguration().Configuration()) {
		if id == n.id {
			continue
		}
		peer, err := n.peer(id)
		if err != nil {
			continue
		}
		if a, err := peer.Term(ctx, &clusterv1.TermRequest{}); err != nil || a.GetLowOnSpace() {
			continue
		}
		_, err = n.handOver(ctx, func() raft.Future {
			return n.raft().LeadershipTransferToServer(raft.ServerID(id), raft.ServerAddress(id))
		})
		if err == nil {
			return
		}
		n.log.Debug("leadership could not be handed over for want of space; it will be tried again", "to", id, "error", err)
	}
}

// lowPatience is for how long a node without space leaves it to others to be elected, in heartbeat timeouts. It is
// several elections: whoever has space wins one of them, if anybody has.
const lowPatience = 20

// reluctant is Raft's transport of a node that should not lead while its space is low: it asks nobody for a vote while
// anybody else may be elected. Where all are low, one must lead in the end, or nobody could read.
type reluctant struct {
	*transport.Instance
	stands func() error
}

// RequestVote implements raft.Transport.
func (r reluctant) RequestVote(id raft.ServerID, at raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	if err := r.stands(); err != nil && !args.LeadershipTransfer {
		return err // whoever hands over to this node has nobody better; to refuse would leave the cluster without a leader
	}
	return r.Instance.RequestVote(id, at, args, resp)
}

// RequestPreVote implements raft.WithPreVote.
func (r reluctant) RequestPreVote(id raft.ServerID, at raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	if err := r.stands(); err != nil {
		return err
	}
	return r.Instance.RequestPreVote(id, at, args, resp)
}

// stands is the reason for which this node asks for no votes now; nil without one.
func (n *Node) stands() error {
	low := n.space.low()
	r := n.raft()
	if low == nil || r == nil || n.space.closed() != nil {
		return low
	}
	heard := r.LastContact()
	if start := n.raftStarted.Load(); heard.Before(*start) {
		heard = *start
	}
	if time.Since(heard) < lowPatience*n.cfg.scaled(heartbeat) {
		return low
	}
	return nil
}

// Space is where this node's disk stands.
func (n *Node) Space() SpaceFigures { return n.space.Last() }
