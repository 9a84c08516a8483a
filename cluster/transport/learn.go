package transport

import (
	"context"

	"github.com/hashicorp/raft"
)

// Commit is an entry that a leader says it has committed.
type Commit struct {
	// Leader is the node id of the leader, Term its term.
	Leader string
	Term   uint64
	// Index and EntryTerm name the entry.
	Index, EntryTerm uint64
}

// Learn tells the Raft that runs here what a leader has said outside Raft's own
// calls: that an entry is committed. It does so in the words that the leader's
// next append would use, an append of nothing after that entry with the entry
// as commit index. Every word is true when the leader said it, and a true
// append may come late, twice or out of order without harm (Raft dissertation,
// section 3.6): a log that lacks the entry, or has another there, refuses it, and
// so does a node in a later term. Learn waits until Raft has taken it or ctx ends.
func (r *Raft) Learn(ctx context.Context, c Commit) {
	i := r.current.Load()
	if i == nil {
		return
	}
	id := []byte(c.Leader)
	// What Raft answers is for the leader's books; nobody keeps any here.
	_, _ = i.deliver(ctx, &raft.AppendEntriesRequest{
		RPCHeader:    raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: id, Addr: id},
		Term:         c.Term,
		PrevLogEntry: c.Index, PrevLogTerm: c.EntryTerm, LeaderCommitIndex: c.Index,
	})
}
