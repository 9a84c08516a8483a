package cluster

import (
	"context"
	"time"

	"github.com/hashicorp/raft"

	clusterv1 "github.com/pontoon-registry/pontoon/proto/pontoon/cluster/v1"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

const (
	promoteEvery = 250 * time.Millisecond
	// caughtUp is how many entries a node may lack and still get a vote.
	caughtUp = 256
	// tickMost is how old the clock of an idle cluster's views becomes at most.
	tickMost  = time.Minute
	tickLeast = 50 * time.Millisecond
)

// allDuties are the built-in ones and those of Lead.
func (n *Node) allDuties() []Duty {
	return append([]Duty{
		{Name: "admit", Run: n.promote}, {Name: "tidy", Run: (&tidier{node: n}).run},
		{Name: "clock", Run: n.tick}}, n.duties...)
}

// tick keeps the clock going while nobody writes: a view's clock is that of the
// last entry, and what is judged by it (renewals within the grace, G8; what has
// expired) must not be judged by one that stands still.
func (n *Node) tick(ctx context.Context, _ Leadership) error {
	longest := min(tickMost, max(tickLeast, time.Duration(n.cfg.Settings.GetGrace()/4)))
	return every(ctx, longest/4, func(ctx context.Context) error {
		now, _, err := n.stamp()
		if err != nil {
			return nil // deposed: ctx ends soon
		}
		v := n.state.View()
		behind := time.Duration(now - v.ClusterTime())
		v.Close()
		if behind < longest/2 {
			return nil
		}
		// Trimming what lies before the first entry trims nothing.
		_, err = n.Propose(ctx, n.systemCommand(&metav1.Command{Kind: &metav1.Command_TrimEvents{TrimEvents: &metav1.TrimEvents{Limit: 1}}}))
		return err
	})
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
