package transport

import (
	"fmt"
	"math"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/types/known/timestamppb"

	raftv1 "github.com/pontoon-registry/pontoon/proto/pontoon/raft/v1"
)

// Every field of every Raft struct crosses the wire: Raft's bookkeeping uses
// the request it built. TestEveryFieldOfEveryRaftStructCrossesTheWire fails
// when the library gains a field that is missing here.

func headerToWire(h raft.RPCHeader) *raftv1.Header {
	return &raftv1.Header{ProtocolVersion: int64(h.ProtocolVersion), Id: h.ID, Addr: h.Addr}
}

func headerFromWire(h *raftv1.Header) raft.RPCHeader {
	return raft.RPCHeader{ProtocolVersion: raft.ProtocolVersion(h.GetProtocolVersion()), ID: h.GetId(), Addr: h.GetAddr()}
}

func entryToWire(l *raft.Log) *raftv1.Entry {
	e := &raftv1.Entry{Index: l.Index, Term: l.Term, Type: uint32(l.Type), Data: l.Data, Extensions: l.Extensions}
	if !l.AppendedAt.IsZero() {
		e.AppendedAt = timestamppb.New(l.AppendedAt)
	}
	return e
}

func entryFromWire(e *raftv1.Entry) (*raft.Log, error) {
	if e.GetType() > math.MaxUint8 {
		return nil, fmt.Errorf("entry %d: type is %d, must be at most %d", e.GetIndex(), e.GetType(), math.MaxUint8)
	}
	l := &raft.Log{Index: e.GetIndex(), Term: e.GetTerm(), Type: raft.LogType(e.GetType()), Data: e.GetData(), Extensions: e.GetExtensions()}
	if at := e.GetAppendedAt(); at != nil {
		if err := at.CheckValid(); err != nil {
			return nil, fmt.Errorf("entry %d: appended_at: %w", e.GetIndex(), err)
		}
		l.AppendedAt = at.AsTime()
	}
	return l, nil
}

// appendHeadToWire converts all but the entries.
func appendHeadToWire(r *raft.AppendEntriesRequest) *raftv1.AppendEntriesRequest {
	return &raftv1.AppendEntriesRequest{
		Header:            headerToWire(r.RPCHeader),
		Term:              r.Term,
		Leader:            r.Leader, //nolint:staticcheck // deprecated, yet Raft still fills it and may read it
		PrevLogEntry:      r.PrevLogEntry,
		PrevLogTerm:       r.PrevLogTerm,
		LeaderCommitIndex: r.LeaderCommitIndex,
	}
}

func appendToWire(r *raft.AppendEntriesRequest) *raftv1.AppendEntriesRequest {
	w := appendHeadToWire(r)
	for _, l := range r.Entries {
		w.Entries = append(w.Entries, entryToWire(l))
	}
	return w
}

func appendFromWire(w *raftv1.AppendEntriesRequest) (*raft.AppendEntriesRequest, error) {
	r := &raft.AppendEntriesRequest{
		RPCHeader:         headerFromWire(w.GetHeader()),
		Term:              w.GetTerm(),
		Leader:            w.GetLeader(), //nolint:staticcheck // deprecated, yet Raft still fills it and may read it
		PrevLogEntry:      w.GetPrevLogEntry(),
		PrevLogTerm:       w.GetPrevLogTerm(),
		LeaderCommitIndex: w.GetLeaderCommitIndex(),
	}
	for _, e := range w.GetEntries() {
		l, err := entryFromWire(e)
		if err != nil {
			return nil, err
		}
		r.Entries = append(r.Entries, l)
	}
	return r, nil
}

func appendedToWire(r *raft.AppendEntriesResponse) *raftv1.AppendEntriesResponse {
	return &raftv1.AppendEntriesResponse{
		Header:         headerToWire(r.RPCHeader),
		Term:           r.Term,
		LastLog:        r.LastLog,
		Success:        r.Success,
		NoRetryBackoff: r.NoRetryBackoff,
	}
}

func appendedFromWire(w *raftv1.AppendEntriesResponse) raft.AppendEntriesResponse {
	return raft.AppendEntriesResponse{
		RPCHeader:      headerFromWire(w.GetHeader()),
		Term:           w.GetTerm(),
		LastLog:        w.GetLastLog(),
		Success:        w.GetSuccess(),
		NoRetryBackoff: w.GetNoRetryBackoff(),
	}
}

func voteToWire(r *raft.RequestVoteRequest) *raftv1.RequestVoteRequest {
	return &raftv1.RequestVoteRequest{
		Header:             headerToWire(r.RPCHeader),
		Term:               r.Term,
		Candidate:          r.Candidate, //nolint:staticcheck // deprecated, yet Raft still fills it and may read it
		LastLogIndex:       r.LastLogIndex,
		LastLogTerm:        r.LastLogTerm,
		LeadershipTransfer: r.LeadershipTransfer,
	}
}

func voteFromWire(w *raftv1.RequestVoteRequest) *raft.RequestVoteRequest {
	return &raft.RequestVoteRequest{
		RPCHeader:          headerFromWire(w.GetHeader()),
		Term:               w.GetTerm(),
		Candidate:          w.GetCandidate(), //nolint:staticcheck // deprecated, yet Raft still fills it and may read it
		LastLogIndex:       w.GetLastLogIndex(),
		LastLogTerm:        w.GetLastLogTerm(),
		LeadershipTransfer: w.GetLeadershipTransfer(),
	}
}

func votedToWire(r *raft.RequestVoteResponse) *raftv1.RequestVoteResponse {
	return &raftv1.RequestVoteResponse{Header: headerToWire(r.RPCHeader), Term: r.Term, Peers: r.Peers, Granted: r.Granted}
}

func votedFromWire(w *raftv1.RequestVoteResponse) raft.RequestVoteResponse {
	return raft.RequestVoteResponse{RPCHeader: headerFromWire(w.GetHeader()), Term: w.GetTerm(), Peers: w.GetPeers(), Granted: w.GetGranted()}
}

func preVoteToWire(r *raft.RequestPreVoteRequest) *raftv1.RequestPreVoteRequest {
	return &raftv1.RequestPreVoteRequest{
		Header:       headerToWire(r.RPCHeader),
		Term:         r.Term,
		LastLogIndex: r.LastLogIndex,
		LastLogTerm:  r.LastLogTerm,
	}
}

func preVoteFromWire(w *raftv1.RequestPreVoteRequest) *raft.RequestPreVoteRequest {
	return &raft.RequestPreVoteRequest{
		RPCHeader:    headerFromWire(w.GetHeader()),
		Term:         w.GetTerm(),
		LastLogIndex: w.GetLastLogIndex(),
		LastLogTerm:  w.GetLastLogTerm(),
	}
}

func preVotedToWire(r *raft.RequestPreVoteResponse) *raftv1.RequestPreVoteResponse {
	return &raftv1.RequestPreVoteResponse{Header: headerToWire(r.RPCHeader), Term: r.Term, Granted: r.Granted}
}

func preVotedFromWire(w *raftv1.RequestPreVoteResponse) raft.RequestPreVoteResponse {
	return raft.RequestPreVoteResponse{RPCHeader: headerFromWire(w.GetHeader()), Term: w.GetTerm(), Granted: w.GetGranted()}
}

func timeoutNowToWire(r *raft.TimeoutNowRequest) *raftv1.TimeoutNowRequest {
	return &raftv1.TimeoutNowRequest{Header: headerToWire(r.RPCHeader)}
}

func timeoutNowFromWire(w *raftv1.TimeoutNowRequest) *raft.TimeoutNowRequest {
	return &raft.TimeoutNowRequest{RPCHeader: headerFromWire(w.GetHeader())}
}

func timedOutToWire(r *raft.TimeoutNowResponse) *raftv1.TimeoutNowResponse {
	return &raftv1.TimeoutNowResponse{Header: headerToWire(r.RPCHeader)}
}

func timedOutFromWire(w *raftv1.TimeoutNowResponse) raft.TimeoutNowResponse {
	return raft.TimeoutNowResponse{RPCHeader: headerFromWire(w.GetHeader())}
}

func installToWire(r *raft.InstallSnapshotRequest) *raftv1.SnapshotHead {
	return &raftv1.SnapshotHead{
		Header:             headerToWire(r.RPCHeader),
		SnapshotVersion:    int64(r.SnapshotVersion),
		Term:               r.Term,
		Leader:             r.Leader,
		LastLogIndex:       r.LastLogIndex,
		LastLogTerm:        r.LastLogTerm,
		Peers:              r.Peers,
		Configuration:      r.Configuration,
		ConfigurationIndex: r.ConfigurationIndex,
		Size:               r.Size,
	}
}

func installFromWire(w *raftv1.SnapshotHead) *raft.InstallSnapshotRequest {
	return &raft.InstallSnapshotRequest{
		RPCHeader:          headerFromWire(w.GetHeader()),
		SnapshotVersion:    raft.SnapshotVersion(w.GetSnapshotVersion()),
		Term:               w.GetTerm(),
		Leader:             w.GetLeader(),
		LastLogIndex:       w.GetLastLogIndex(),
		LastLogTerm:        w.GetLastLogTerm(),
		Peers:              w.GetPeers(),
		Configuration:      w.GetConfiguration(),
		ConfigurationIndex: w.GetConfigurationIndex(),
		Size:               w.GetSize(),
	}
}

func installedToWire(r *raft.InstallSnapshotResponse) *raftv1.InstallSnapshotResponse {
	return &raftv1.InstallSnapshotResponse{Header: headerToWire(r.RPCHeader), Term: r.Term, Success: r.Success}
}

func installedFromWire(w *raftv1.InstallSnapshotResponse) raft.InstallSnapshotResponse {
	return raft.InstallSnapshotResponse{RPCHeader: headerFromWire(w.GetHeader()), Term: w.GetTerm(), Success: w.GetSuccess()}
}
