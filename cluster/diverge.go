package cluster

import (
	"context"
	"encoding/hex"
	"slices"
	"sync"
	"time"

	clusterv1 "github.com/pontoon-registry/pontoon/proto/pontoon/cluster/v1"
)

// Divergence (M9). Every node notes the hash of its state at every 1,000th index.
// They are compared, and a node whose hash a majority of the voters contradicts
// knows that its state is wrong: a damaged row that a command read, a defect of a machine. Its log is right,
// every entry of it was agreed on; what it made of them is not. So it
//
//	stops serving ─ hands leadership over ─ pulls the leader's state ─ replays its own log on it ─ serves
//
// and votes all the while: a vote says what the log holds, nothing about the state.
const (
	// notesAsked bounds the indexes of one question.
	notesAsked = 64
	// firstCompare is how often it is tried until it has worked once: a node that
	// was odd when it stopped is odd when it starts.
	firstCompare = time.Second
)

// divergence is what is known of a state that differs from the majority's.
type divergence struct {
	// index is where it was noticed; theirs is the majority's hash there.
	index  uint64
	theirs string
	// applied is where this node was: it serves again when it is there again.
	applied uint64
	// healed is set when the state was replaced, and only the replay is missing.
	healed bool
}

// trusted refuses while this node's state is known to be wrong.
func (n *Node) trusted() error {
	d := n.diverged.Load()
	if d == nil {
		return nil
	}
	return unavailable("the state of node %s differs from that of a majority of the voters since index %d at the latest: "+
		"it serves nothing until it has replaced its state with the leader's, which it does by itself", n.id, d.index)
}

// compare keeps looking whether this node's state is the majority's, and heals it.
func (n *Node) compare(ctx context.Context) error {
	if n.host == nil {
		return nil // alone, and for good
	}
	wait := min(firstCompare, n.cfg.compareEvery)
	for {
		if n.compareOnce(ctx) {
			wait = n.cfg.compareEvery
		}
		if n.diverged.Load() != nil {
			wait = min(firstCompare, n.cfg.compareEvery)
			n.mend(ctx)
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil
		case <-t.C:
		}
	}
}

// compareOnce asks the voters, and answers whether a majority agrees on anything.
func (n *Node) compareOnce(ctx context.Context) bool {
	if n.diverged.Load() != nil {
		return false
	}
	own := map[uint64]string{}
	indexes := n.state.NotedIndexes(notesAsked)
	for _, index := range indexes {
		if sum, err := n.state.HashAt(index); err == nil {
			own[index] = string(sum)
		}
	}
	if len(own) == 0 {
		return false
	}
	voters := voters(n.raft().GetConfiguration().Configuration())
	v := judgeNotes(n.id, own, voters, n.askHashes(ctx, voters, indexes))
	switch v.says {
	case notesDiffer:
		n.cfg.Metrics.Diverged(false)
		n.log.Error("the states of voters differ and no majority tells which is right: nothing is stopped. "+
			"Compare them when all voters answer; see the runbook, \"a node's state diverged\"", "index", v.index, "hashes", v.hashes())
	case othersOdd:
		n.cfg.Metrics.Diverged(false)
		n.log.Warn("the state of another voter differs from the majority's; it replaces it by itself", "index", v.index, "odd", v.odd)
	case selfOdd:
		n.cfg.Metrics.Diverged(true)
		n.log.Error("the state of this node differs from the majority's: it stops serving and replaces its state", "index", v.index, "hashes", v.hashes())
		n.diverged.Store(&divergence{index: v.index, theirs: v.theirs, applied: n.applied()})
	}
	return v.says != notesMissing && v.says != notesDiffer
}

// askHashes asks the other voters; who does not answer is left out.
func (n *Node) askHashes(ctx context.Context, voters []string, indexes []uint64) map[string]map[uint64]string {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var asking sync.WaitGroup
	var mu sync.Mutex
	answers := map[string]map[uint64]string{}
	for _, v := range voters {
		if v == n.id {
			continue
		}
		asking.Go(func() {
			peer, err := n.peer(v)
			if err != nil {
				return
			}
			a, err := peer.Hashes(ctx, &clusterv1.HashesRequest{Indexes: indexes})
			if err != nil {
				return
			}
			notes := map[uint64]string{}
			for _, note := range a.GetNotes() {
				notes[note.GetIndex()] = string(note.GetSha256())
			}
			mu.Lock()
			defer mu.Unlock()
			answers[v] = notes
		})
	}
	asking.Wait()
	return answers
}

type opinion int

const (
	// notesMissing: no index has the notes of a majority.
	notesMissing opinion = iota
	// notesAgree: a majority agrees, this node with it, and nobody who answered differs.
	notesAgree
	// notesDiffer: they differ, and no majority agrees: a tie, or too few answered.
	notesDiffer
	// othersOdd: a majority agrees, this node with it; others do not.
	othersOdd
	// selfOdd: a majority agrees on another hash than this node's.
	selfOdd
)

// verdict is what the notes at one index say.
type verdict struct {
	says   opinion
	index  uint64
	theirs string
	odd    []string
	by     map[string]string // node id → hash
}

func (v verdict) hashes() map[string]string {
	short := map[string]string{}
	for id, sum := range v.by {
		short[id] = hex.EncodeToString([]byte(sum))[:16]
	}
	return short
}

// judgeNotes decides by the newest index at which a majority of the voters agrees;
// the hash is a chain, so what differed once differs for ever. Only voters count,
// and a voter that did not answer counts as one that does not agree.
func judgeNotes(self string, own map[uint64]string, voters []string, answers map[string]map[uint64]string) verdict {
	indexes := make([]uint64, 0, len(own))
	for index := range own {
		indexes = append(indexes, index)
	}
	slices.Sort(indexes)
	slices.Reverse(indexes)
	tie := verdict{says: notesMissing}
	for _, index := range indexes {
		v := countNotes(self, own[index], index, voters, answers)
		switch {
		case v.theirs == "" && len(v.odd) > 0 && tie.says == notesMissing:
			v.says = notesDiffer
			tie = v
		case v.theirs == "": // too few have come so far
		case v.theirs != own[index]:
			v.says = selfOdd
			return v
		case tie.says == notesDiffer:
			return tie // it was well here, and newer notes differ
		case len(v.odd) > 0:
			v.says = othersOdd
			return v
		default:
			v.says = notesAgree
			return v
		}
	}
	return tie
}

// countNotes counts the notes at one index: theirs is the hash that a majority of the
// voters has, if any, and odd are those that have another one than this node.
func countNotes(self, own string, index uint64, voters []string, answers map[string]map[uint64]string) verdict {
	v := verdict{index: index, by: map[string]string{self: own}}
	votes := map[string]int{}
	for _, id := range voters {
		sum, there := answers[id][index]
		if id == self {
			sum, there = own, true
		}
		if there {
			v.by[id] = sum
			votes[sum]++
		}
	}
	for id, sum := range v.by {
		if votes[sum] > len(voters)/2 {
			v.theirs = sum
		}
		if sum != own {
			v.odd = append(v.odd, id)
		}
	}
	slices.Sort(v.odd)
	return v
}
