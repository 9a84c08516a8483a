package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sync/semaphore"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	raftv1 "github.com/pontoon-registry/pontoon/proto/pontoon/raft/v1"
)

// Raft is the endpoint for Raft calls. It lives as long as its Host, while
// Raft itself may be stopped and made again: each time it gets an Instance.
type Raft struct {
	host *Host
	// streams bounds the large appends that are held in memory at once: one of
	// the leader and one of a leader that is being deposed.
	streams chan struct{}
	// receiving are the goroutines that read snapshots off the wire.
	receiving sync.WaitGroup

	mu   sync.Mutex // orders the replacement of current, guards last
	last *Instance  // the one that was replaced last, until Quiesce
	// current is nil while no Raft runs here.
	current atomic.Pointer[Instance]
}

func newRaft(h *Host) *Raft {
	return &Raft{host: h, streams: make(chan struct{}, 2)}
}

// Instance is a transport for one raft.Raft. Incoming calls go to it from now
// on, and the Instance before is detached: its calls fail in both directions.
func (r *Raft) Instance() *Instance {
	ctx, end := context.WithCancel(context.Background())
	i := &Instance{raft: r, calls: make(chan raft.RPC), ctx: ctx, end: end, beating: semaphore.NewWeighted(allBeats)}
	r.replace(i)
	return i
}

// Detach refuses Raft calls, in both directions, until the next Instance, and
// ends those in progress. Call it before raft.Raft.Shutdown, which waits for
// appends to peers out of reach: those last for AppendTimeout otherwise.
func (r *Raft) Detach() { r.replace(nil) }

func (r *Raft) replace(i *Instance) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if old := r.current.Swap(i); old != nil {
		old.end()
		r.last = old
	}
}

// Quiesce waits, after Detach, until no heartbeat is in Raft's handler any more, and lets none
// in again. Raft's shutdown does not wait for them, and one that was overtaken by
// it writes the term that it carries, over a later one that the next Raft has voted in (C1).
func (r *Raft) Quiesce() {
	r.mu.Lock()
	old := r.last
	r.last = nil
	r.mu.Unlock()
	if old != nil {
		_ = old.beating.Acquire(context.Background(), allBeats) // fails only when the context ends
	}
}

// Instance implements raft.Transport and raft.WithPreVote, and deliberately
// not raft.WithClose: Raft closes its transport when it shuts down, and the
// Host outlives it.
type Instance struct {
	raft *Raft
	// calls is unbuffered: a caller that gives up leaves nothing behind that
	// Raft could execute later (T3).
	calls chan raft.RPC
	// ctx ends when the instance is replaced. It is a field since the methods
	// of raft.Transport take none.
	ctx       context.Context
	end       context.CancelFunc
	heartbeat atomic.Pointer[func(raft.RPC)]
	// beating has one share for each heartbeat that Raft's handler is in; Quiesce takes all for good.
	beating *semaphore.Weighted
}

const allBeats = 1 << 30

var (
	_ raft.Transport   = (*Instance)(nil)
	_ raft.WithPreVote = (*Instance)(nil)
)

// Consumer implements raft.Transport.
func (i *Instance) Consumer() <-chan raft.RPC { return i.calls }

// LocalAddr implements raft.Transport. Addresses are node ids.
func (i *Instance) LocalAddr() raft.ServerAddress {
	return raft.ServerAddress(i.raft.host.cfg.NodeID)
}

// EncodePeer implements raft.Transport.
func (i *Instance) EncodePeer(_ raft.ServerID, addr raft.ServerAddress) []byte { return []byte(addr) }

// DecodePeer implements raft.Transport.
func (i *Instance) DecodePeer(b []byte) raft.ServerAddress { return raft.ServerAddress(b) }

// SetHeartbeatHandler implements raft.Transport.
func (i *Instance) SetHeartbeatHandler(cb func(raft.RPC)) {
	if cb == nil {
		i.heartbeat.Store(nil)
		return
	}
	i.heartbeat.Store(&cb)
}

// AppendEntriesPipeline implements raft.Transport: there is none (see the
// package's documentation).
func (i *Instance) AppendEntriesPipeline(raft.ServerID, raft.ServerAddress) (raft.AppendPipeline, error) {
	return nil, raft.ErrPipelineReplicationNotSupported
}

// isHeartbeat tells heartbeats as Raft builds them: nothing but a term.
func isHeartbeat(r *raft.AppendEntriesRequest) bool {
	return r.Term != 0 && r.PrevLogEntry == 0 && r.PrevLogTerm == 0 && len(r.Entries) == 0 && r.LeaderCommitIndex == 0
}

// AppendEntries implements raft.Transport.
func (i *Instance) AppendEntries(id raft.ServerID, _ raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	cfg := &i.raft.host.cfg
	if isHeartbeat(args) {
		return i.call(id, Control, cfg.HeartbeatTimeout, func(ctx context.Context, c raftv1.RaftServiceClient) error {
			return appendUnary(ctx, c, args, resp)
		})
	}
	size, overhead := payload(args.Entries)
	if size > cfg.MaxAppend {
		return fmt.Errorf("append to node %s: %w: %d bytes, must be at most %d", id, errTooLarge, size, cfg.MaxAppend)
	}
	timeout := cfg.AppendTimeout + time.Duration(float64(size)/appendRate*float64(time.Second))
	return i.call(id, Log, timeout, func(ctx context.Context, c raftv1.RaftServiceClient) error {
		return i.patiently(ctx, func() error {
			if size+overhead > frameSize {
				return appendStream(ctx, c, args, size, resp, grpc.WaitForReady(true))
			}
			return appendUnary(ctx, c, args, resp, grpc.WaitForReady(true))
		})
	})
}

// patiently makes a call that a peer out of reach, or not ready yet (no Raft
// runs there, or it has been admitted and does not know of its cluster), fails
// only at its deadline. Were it to fail at once, Raft would double its pause
// after each append, to 10 s after a dozen, and nothing shortens the pause when
// the peer is there. Appends may be repeated: they say where they belong.
func (i *Instance) patiently(ctx context.Context, call func() error) error {
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, 250*time.Millisecond) {
		err := call()
		if c := status.Code(err); c != codes.Unavailable && c != codes.FailedPrecondition {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return err
		}
		if closed := i.raft.host.cfg.Gate(); closed != nil {
			return closed
		}
	}
}

func appendUnary(ctx context.Context, c raftv1.RaftServiceClient, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse, opts ...grpc.CallOption) error {
	w, err := c.AppendEntries(ctx, appendToWire(args), opts...)
	if err != nil {
		return err
	}
	*resp = appendedFromWire(w)
	return nil
}

func appendStream(ctx context.Context, c raftv1.RaftServiceClient, args *raft.AppendEntriesRequest, size int, resp *raft.AppendEntriesResponse, opts ...grpc.CallOption) error {
	stream, err := c.AppendEntriesStream(ctx, opts...)
	if err != nil {
		return err
	}
	// A send fails with io.EOF when the peer has answered early: the answer,
	// which CloseAndRecv reads, says why.
	if err := sendFrames(args, size, stream.Send); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	w, err := stream.CloseAndRecv()
	if err != nil {
		return err
	}
	*resp = appendedFromWire(w.GetResponse())
	return nil
}

// RequestVote implements raft.Transport.
func (i *Instance) RequestVote(id raft.ServerID, _ raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	return i.call(id, Control, i.raft.host.cfg.VoteTimeout, func(ctx context.Context, c raftv1.RaftServiceClient) error {
		w, err := c.RequestVote(ctx, voteToWire(args))
		if err != nil {
			return err
		}
		*resp = votedFromWire(w)
		return nil
	})
}

// RequestPreVote implements raft.WithPreVote.
func (i *Instance) RequestPreVote(id raft.ServerID, _ raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	return i.call(id, Control, i.raft.host.cfg.VoteTimeout, func(ctx context.Context, c raftv1.RaftServiceClient) error {
		w, err := c.RequestPreVote(ctx, preVoteToWire(args))
		if err != nil {
			return err
		}
		*resp = preVotedFromWire(w)
		return nil
	})
}

// TimeoutNow implements raft.Transport.
func (i *Instance) TimeoutNow(id raft.ServerID, _ raft.ServerAddress, args *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	return i.call(id, Control, i.raft.host.cfg.VoteTimeout, func(ctx context.Context, c raftv1.RaftServiceClient) error {
		w, err := c.TimeoutNow(ctx, timeoutNowToWire(args))
		if err != nil {
			return err
		}
		*resp = timedOutFromWire(w)
		return nil
	})
}

// call makes one call to a peer, with a deadline, if the gate is open. All calls
// go through the gate: with a short CommitTimeout a leader whose main loop hangs
// goes on sending appends without entries, which keep its followers from
// electing another one as well as heartbeats do (T6).
func (i *Instance) call(id raft.ServerID, l Lane, timeout time.Duration, do func(context.Context, raftv1.RaftServiceClient) error) error {
	if err := i.raft.host.cfg.Gate(); err != nil {
		return fmt.Errorf("call node %s: %w", id, err)
	}
	cc, err := i.raft.host.Conn(string(id), l)
	if err != nil {
		return err
	}
	// Raft's interface has no context: what ends a call is the deadline, the
	// end of this instance, or of the host (which closes the connection).
	ctx, cancel := context.WithTimeout(i.ctx, timeout)
	defer cancel()
	err = do(ctx, raftv1.NewRaftServiceClient(cc))
	if err != nil && i.ctx.Err() != nil {
		return status.Error(codes.Unavailable, "this raft instance was replaced")
	}
	return err
}
