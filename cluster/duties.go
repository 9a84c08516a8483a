package cluster

import (
	"context"
	"time"

	"github.com/hashicorp/raft"

	clusterv1 "github.com/pontoon-registry/pontoon/proto/pontoon/cluster/v1"
)

const (
	promoteEvery = 250 * time.Millisecond
	// caughtUp is how many entries a node may lack and still get a vote.
	caughtUp = 256
)

// allDuties are the built-in ones and those of Lead.
func (n *Node) allDuties() []Duty {
	return append([]Duty{{Name: "admit", Run: n.promote}, {Name: "tidy", Run: (&tidier{node: n}).run}}, n.duties...)
}

// every calls fn now and then until ctx ends or fn fails.
func every(ctx context.Context, d time.Duration, fn func(context.Context) error) error {
	tick := time.NewTicker(d)
	defer tick.Stop()
	for {
		if err := fn(ctx); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// promote gives a vote to nodes that have caught up, up to Config.Voters: a new
// voter that lacks the log would only make the quorum larger.
func (n *Node) promote(ctx context.Context, _ Leadership) error {
	ready := map[raft.ServerID]int{}
	return every(ctx, n.cfg.brisk(promoteEvery), func(ctx context.Context) error {
		config := n.raft().GetConfiguration().Configuration()
		if len(voters(config)) >= n.cfg.Voters {
			return nil
		}
		for _, s := range config.Servers {
			if s.Suffrage == raft.Voter {
				continue
			}
			if !n.hasCaughtUp(ctx, string(s.ID)) {
				ready[s.ID] = 0
				continue
			}
			// Twice in a row: once may be the moment before it falls behind.
			if ready[s.ID]++; ready[s.ID] < 2 {
				continue
			}
			if err := n.raft().AddVoter(s.ID, s.Address, 0, time.Second).Error(); err != nil {
				return err
			}
			n.log.Info("a node votes from now on", "voter", s.ID)
			return nil // one at a time
		}
		return nil
	})
}

func (n *Node) hasCaughtUp(ctx context.Context, id string) bool {
	peer, err := n.peer(id)
	if err != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	goal := n.applied()
	at, err := peer.Term(ctx, &clusterv1.TermRequest{})
	return err == nil && at.GetApplied() > 0 && at.GetApplied()+caughtUp >= goal
}
