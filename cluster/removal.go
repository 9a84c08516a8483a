package cluster

import (
	"context"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// removeHere is Remove on the leader.
func (n *Node) removeHere(ctx context.Context, node string, force, dryRun bool, by *metav1.Envelope) (string, error) {
	if n.opened.Load() == nil {
		return "", unavailable("node %s does not lead, or has just begun to", n.id)
	}
	id, err := n.named(node)
	if err != nil {
		return "", err
	}
	// One change at a time: each is judged by what the one before it left.
	n.changing.Lock()
	defer n.changing.Unlock()
	spare, err := n.removable(ctx, n.raft().GetConfiguration().Configuration().Servers, id, force)
	if err != nil || dryRun {
		return id, err
	}
	if id == n.id {
		// A leader does not remove itself: it would lead a cluster that it is not in until the entry is committed.
		if err := n.StepDown(ctx); err != nil {
			return "", unavailable("the leader cannot be removed before another leads: %v", err)
		}
		return "", unavailable("node %s has handed leadership over in order to be removed", n.id)
	}
	if spare != "" {
		if err := n.raft().AddVoter(raft.ServerID(spare), raft.ServerAddress(spare), 0, changeTime).Error(); err != nil {
			return "", unavailable("node %s could not be given the vote of %s: %v", spare, id, err)
		}
		n.log.Info("a node votes from now on", "voter", spare, "instead_of", id)
	}
	if err := n.expel(ctx, id, by); err != nil {
		return "", err
	}
	n.log.Info("removed a member", "member", id, "by", by.GetActor().GetName(), "forced", force)
	return id, nil
}

// removable judges the removal, and answers a healthy member without a vote that should get that of the removed one first.
func (n *Node) removable(ctx context.Context, servers []raft.Server, id string, force bool) (spare string, err error) {
	answers := n.whoAnswers(ctx, servers)
	var left, healthy, all, up int
	voter := false
	for _, s := range servers {
		own, ok := string(s.ID) == id, answers[string(s.ID)]
		switch {
		case s.Suffrage != raft.Voter && !own && ok && spare == "":
			spare = string(s.ID)
		case s.Suffrage == raft.Voter:
			all, voter = all+1, voter || own
			if ok {
				up++
			}
			if !own {
				left++
				if ok {
					healthy++
				}
			}
		}
	}
	if !voter {
		return "", nil
	}
	if spare != "" {
		left, healthy = left+1, healthy+1
	}
	return spare, judgeRemoval(id, toleranceOf(up, all), left, healthy, force)
}

// toleranceOf is how many more of all voters may fail when so many are up; negative: too many have.
func toleranceOf(up, all int) int { return up - (all/2 + 1) }

// judgeRemoval refuses the removal of a voter that the cluster needs.
func judgeRemoval(id string, before, left, healthy int, force bool) error {
	after := toleranceOf(healthy, left)
	refuse := func(format string, args ...any) error {
		return meta.Refuse(preconditionKind, metav1.Noun_NOUN_NODE, format, args...)
	}
	switch {
	case left == 0:
		return refuse("node %s is the last voter: without it there is no cluster; to end the cluster, stop its nodes", id)
	case after < 0 && !force:
		return refuse("without node %s only %d of %d voters answer, fewer than a majority: writes would stop; "+
			"bring the others back first, or say force", id, healthy, left)
	case before > 0 && after == 0 && !force:
		return refuse("without node %s no further voter may fail (%d voters are left): let another node join first, or say force", id, left)
	}
	return nil
}

// whoAnswers asks all members for their health.
func (n *Node) whoAnswers(ctx context.Context, servers []raft.Server) map[string]bool {
	ctx, cancel := context.WithTimeout(ctx, askHealth)
	defer cancel()
	answers := make(map[string]bool, len(servers))
	own := n.applied()
	var mu sync.Mutex
	var asking sync.WaitGroup
	for _, s := range servers {
		asking.Go(func() {
			h, err := n.healthOf(ctx, string(s.ID))
			mu.Lock()
			defer mu.Unlock()
			answers[string(s.ID)] = err == nil && h.GetApplied()+caughtUp >= own
		})
	}
	asking.Wait()
	return answers
}
