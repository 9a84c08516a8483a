package cluster

import (
	"errors"
	"fmt"

	"github.com/hashicorp/raft"

	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// Entries answers the entries above after that this node's state has applied, in order, from this node's log: what an
// archive of the log keeps. Those of Raft that reach the state have no data. It stops after limit bytes of data, with one
// entry at least. chain is the head of the hash chain (M9) after the last of them, nil when there are more.
//
// A refusal KIND_UNKNOWN means that the log no longer goes back to after: it was compacted, or an installed state took its place.
func (n *Node) Entries(after uint64, limit int64) (entries []meta.LogEntry, chain []byte, err error) {
	through, head := n.state.Hash()
	if through <= after {
		return nil, head, nil
	}
	if err := n.logs.reachesBack(after); err != nil {
		return nil, nil, err
	}
	for index, size := after+1, int64(0); index <= through && size < limit; index++ {
		var l raft.Log
		err := n.logs.GetLog(index, &l)
		if errors.Is(err, raft.ErrLogNotFound) {
			return nil, nil, compacted(after)
		}
		if err != nil {
			return nil, nil, fmt.Errorf("read entry %d: %w", index, err)
		}
		switch l.Type {
		case raft.LogCommand:
			entries = append(entries, meta.LogEntry{Index: l.Index, Term: l.Term, Data: l.Data})
		case raft.LogConfiguration:
			entries = append(entries, meta.LogEntry{Index: l.Index, Term: l.Term})
		}
		size += int64(len(l.Data))
	}
	// A stub in place of an entry looks like one of Raft's own; it is always the first of its log (R-B3), which only moves up.
	if err := n.logs.reachesBack(after); err != nil {
		return nil, nil, err
	}
	if len(entries) > 0 && entries[len(entries)-1].Index == through {
		chain = head
	}
	return entries, chain, nil
}

// reachesBack refuses when the entry at index, after which somebody wants to read, is in the log no more.
func (s *logStore) reachesBack(index uint64) error {
	first, err := s.FirstIndex()
	if err != nil {
		return fmt.Errorf("read first index of the log: %w", err)
	}
	if first <= index && first > 0 || index == 0 && first == 1 {
		return nil
	}
	return compacted(index)
}

func compacted(after uint64) error {
	return meta.Refuse(metav1.Kind_KIND_UNKNOWN, metav1.Noun_NOUN_CURSOR, "the log no longer goes back to entry %d", after)
}
