package cluster

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/pontoon-registry/pontoon/meta"
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
	var tie *verdict
	for _, index := range indexes {
		v := verdict{index: index, by: map[string]string{self: own[index]}}
		votes := map[string]int{}
		for _, id := range voters {
			sum, there := answers[id][index]
			if id == self {
				sum, there = own[index], true
			}
			if there {
				v.by[id] = sum
				votes[sum]++
			}
		}
		differ := false
		for id, sum := range v.by {
			if votes[sum] > len(voters)/2 {
				v.theirs = sum
			}
			if sum != own[index] {
				differ = true
				v.odd = append(v.odd, id)
			}
		}
		slices.Sort(v.odd)
		switch {
		case v.theirs == "" && differ && tie == nil:
			v.says = notesDiffer
			tie = &v
		case v.theirs == "":
		case v.theirs != own[index]:
			v.says = selfOdd
			return v
		case tie != nil:
			return *tie // it was well here, and newer notes differ
		case differ:
			v.says = othersOdd
			return v
		default:
			v.says = notesAgree
			return v
		}
	}
	if tie != nil {
		return *tie
	}
	return verdict{says: notesMissing}
}

// mend goes on with healing: each failure is tried again at the next comparison.
func (n *Node) mend(ctx context.Context) {
	d := n.diverged.Load()
	err := func() error {
		if d.healed {
			return n.resume(d)
		}
		if _, leads := n.leads(); leads {
			ctx, cancel := context.WithTimeout(ctx, stopPatience)
			defer cancel()
			return n.StepDown(ctx) // its answers would be wrong, and its state is no model
		}
		return n.heal(ctx, d)
	}()
	if err != nil && ctx.Err() == nil {
		n.log.Warn("the state of this node was not replaced yet, it will be tried again", "error", err)
	}
}

// resume serves again once the replay has come to where this node was.
func (n *Node) resume(d *divergence) error {
	if at := n.applied(); at < d.applied {
		return fmt.Errorf("the log is being replayed: at %d of %d", at, d.applied)
	}
	n.diverged.CompareAndSwap(d, nil)
	n.log.Info("the state of this node was replaced; it serves again", "index", n.applied())
	return nil
}

// heal replaces the state by the leader's, and keeps the log: entries above the
// state that it gets were acknowledged by this node, and may count (C1).
func (n *Node) heal(ctx context.Context, d *divergence) error {
	if !n.installing.TryLock() {
		return errors.New("a snapshot is being installed")
	}
	defer n.installing.Unlock()
	leader, tenure := n.leaders.now()
	if leader == "" || leader == n.id {
		return errors.New("no other node leads")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(tenure, cancel)()
	var in *incoming
	err := n.host.Raft().Pull(ctx, leader, func(_ context.Context, req *raft.InstallSnapshotRequest, data io.Reader) (err error) {
		in, err = n.download(req, data)
		return err
	})
	if err != nil {
		return fmt.Errorf("pull the state of leader %s: %w", leader, err)
	}
	in.heals = true
	if err := n.agreesWith(in, d); err != nil {
		return errors.Join(err, in.store.Close(), os.RemoveAll(in.path))
	}
	answer, err := n.replace(ctx, in, func() (*raft.InstallSnapshotResponse, error) { return n.unfit(in) })
	if err != nil {
		return err
	}
	if !answer.Success {
		return fmt.Errorf("the log of this node no longer holds entry %d, where the state of leader %s ends", in.witness.GetIndex(), leader)
	}
	healed := *d
	healed.healed = true
	n.diverged.CompareAndSwap(d, &healed)
	return nil
}

// agreesWith believes a state only if it has the majority's hash where this node's was found odd.
func (n *Node) agreesWith(in *incoming, d *divergence) (err error) {
	state, err := meta.Open(in.store)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, state.Close()) }()
	sum, err := state.HashAt(d.index)
	if err != nil {
		return err
	}
	if string(sum) != d.theirs {
		return fmt.Errorf("the state that came differs from the majority's at %d as well", d.index)
	}
	return nil
}

// unfit refuses a state that this log does not go on from and that lies within it:
// wiping the log would forget what this node has acknowledged. A log that ends
// below the state, or has another term there, has nothing above it that ever counted (R-B2).
func (n *Node) unfit(in *incoming) (*raft.InstallSnapshotResponse, error) {
	first, err := n.logs.FirstIndex()
	if err != nil {
		return nil, err
	}
	if !n.logs.continues(in.witness) && first > in.witness.GetIndex() {
		return &raft.InstallSnapshotResponse{}, nil
	}
	return nil, nil
}
