package transport

import (
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	raftv1 "github.com/pontoon-registry/pontoon/proto/pontoon/raft/v1"
)

// raftService hands incoming calls to the present Instance.
type raftService struct {
	raftv1.UnimplementedRaftServiceServer
	raft *Raft
}

func (s *raftService) AppendEntries(ctx context.Context, w *raftv1.AppendEntriesRequest) (*raftv1.AppendEntriesResponse, error) {
	req, err := appendFromWire(w)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	deliver := s.deliver
	if isHeartbeat(req) {
		if err := s.gate(); err != nil {
			return nil, err
		}
		deliver = s.beat
	}
	resp, err := answer[*raft.AppendEntriesResponse](deliver(ctx, req))
	if err != nil {
		return nil, err
	}
	return appendedToWire(resp), nil
}

func (s *raftService) AppendEntriesStream(stream raftv1.RaftService_AppendEntriesStreamServer) error {
	ctx := stream.Context()
	select {
	case s.raft.streams <- struct{}{}:
		defer func() { <-s.raft.streams }()
	case <-ctx.Done():
		return ctx.Err()
	}
	req, err := receiveFrames(s.raft.host.cfg.MaxAppend, stream.Recv)
	if err != nil {
		return frameStatus(err)
	}
	resp, err := answer[*raft.AppendEntriesResponse](s.deliver(ctx, req))
	if err != nil {
		return err
	}
	return stream.SendAndClose(&raftv1.AppendEntriesStreamResponse{Response: appendedToWire(resp)})
}

func (s *raftService) RequestVote(ctx context.Context, w *raftv1.RequestVoteRequest) (*raftv1.RequestVoteResponse, error) {
	if err := s.gate(); err != nil {
		return nil, err
	}
	resp, err := answer[*raft.RequestVoteResponse](s.deliver(ctx, voteFromWire(w)))
	if err != nil {
		return nil, err
	}
	return votedToWire(resp), nil
}

func (s *raftService) RequestPreVote(ctx context.Context, w *raftv1.RequestPreVoteRequest) (*raftv1.RequestPreVoteResponse, error) {
	if err := s.gate(); err != nil {
		return nil, err
	}
	resp, err := answer[*raft.RequestPreVoteResponse](s.deliver(ctx, preVoteFromWire(w)))
	if err != nil {
		return nil, err
	}
	return preVotedToWire(resp), nil
}

func (s *raftService) TimeoutNow(ctx context.Context, w *raftv1.TimeoutNowRequest) (*raftv1.TimeoutNowResponse, error) {
	if err := s.gate(); err != nil {
		return nil, err
	}
	resp, err := answer[*raft.TimeoutNowResponse](s.deliver(ctx, timeoutNowFromWire(w)))
	if err != nil {
		return nil, err
	}
	return timedOutToWire(resp), nil
}

func (s *raftService) gate() error {
	if err := s.raft.host.cfg.Gate(); err != nil {
		return status.Errorf(codes.Unavailable, "node %s: %v", s.raft.host.cfg.NodeID, err)
	}
	return nil
}

// admit finds the instance for a request, and refuses one that speaks for
// another node than the one that sent it.
func (s *raftService) admit(ctx context.Context, req raft.WithRPCHeader) (*Instance, error) {
	caller, _ := PeerID(ctx)
	if id := string(req.GetRPCHeader().ID); id != caller {
		return nil, status.Errorf(codes.PermissionDenied, "node %s sent a raft request that names node %q as its sender", caller, id)
	}
	i := s.raft.current.Load()
	if i == nil {
		return nil, status.Errorf(codes.Unavailable, "raft does not run on node %s", s.raft.host.cfg.NodeID)
	}
	return i, nil
}

// beat gives a heartbeat to Raft's handler, past the main loop, which may be
// waiting for its disk (T5).
func (s *raftService) beat(ctx context.Context, req raft.WithRPCHeader) (raft.RPCResponse, error) {
	i, err := s.admit(ctx, req)
	if err != nil {
		return raft.RPCResponse{}, err
	}
	handle := i.heartbeat.Load()
	if handle == nil {
		return i.deliver(ctx, req)
	}
	if !i.beating.TryAcquire(1) {
		return raft.RPCResponse{}, status.Error(codes.Unavailable, "this raft instance was replaced")
	}
	defer i.beating.Release(1)
	answers := make(chan raft.RPCResponse, 1)
	(*handle)(raft.RPC{Command: req, RespChan: answers})
	// The handler has answered when it returns, unless Raft is shut down.
	select {
	case resp := <-answers:
		return resp, nil
	default:
		i.end() // nobody will take what waits in deliver either
		return raft.RPCResponse{}, status.Error(codes.Unavailable, "raft has shut down")
	}
}

// deliver gives a request to Raft's main loop.
func (s *raftService) deliver(ctx context.Context, req raft.WithRPCHeader) (raft.RPCResponse, error) {
	i, err := s.admit(ctx, req)
	if err != nil {
		return raft.RPCResponse{}, err
	}
	return i.deliver(ctx, req)
}

// deliver waits for Raft to take the request and to answer it, no longer than
// the caller does (T3).
func (i *Instance) deliver(ctx context.Context, req raft.WithRPCHeader) (raft.RPCResponse, error) {
	answers := make(chan raft.RPCResponse, 1) // so that Raft never waits for us
	select {
	case i.calls <- raft.RPC{Command: req, RespChan: answers}:
	case <-ctx.Done():
		return raft.RPCResponse{}, status.FromContextError(ctx.Err()).Err()
	case <-i.ctx.Done():
		return raft.RPCResponse{}, status.Error(codes.Unavailable, "this raft instance was replaced")
	}
	select {
	case resp := <-answers:
		return resp, nil
	case <-ctx.Done():
		return raft.RPCResponse{}, status.FromContextError(ctx.Err()).Err()
	case <-i.ctx.Done():
		return raft.RPCResponse{}, status.Error(codes.Unavailable, "this raft instance was replaced")
	}
}

// answer unpacks what Raft answered.
func answer[T any](resp raft.RPCResponse, err error) (T, error) {
	var none T
	if err != nil {
		return none, err
	}
	if resp.Error != nil {
		// Raft matches on the text of some errors: it must stay whole.
		return none, status.Error(codes.Unknown, resp.Error.Error())
	}
	t, ok := resp.Response.(T)
	if !ok {
		return none, status.Error(codes.Internal, fmt.Sprintf("raft answered with %T, not %T", resp.Response, none))
	}
	return t, nil
}

// frameStatus keeps the status of a failed receive, and says of frames that
// make no sense that they do not.
func frameStatus(err error) error {
	var st interface{ GRPCStatus() *status.Status }
	switch {
	case errors.Is(err, errTooLarge):
		return status.Error(codes.ResourceExhausted, err.Error())
	case errors.As(err, &st):
		return st.GRPCStatus().Err()
	default:
		return status.Error(codes.InvalidArgument, err.Error())
	}
}
