package cluster

import (
	"cmp"
	"slices"
	"time"

	"github.com/hashicorp/raft"
	autopilot "github.com/hashicorp/raft-autopilot"
)

// candidate is a member as the choice of voters sees it.
type candidate struct {
	id            string
	voter, leader bool
	// healthy: it answers, hears the leader and keeps up.
	healthy bool
	// ready: it has been healthy for long enough to be given a vote.
	ready bool
	// dead: it has been silent for so long that its vote may go to another.
	dead bool
	// gone: another node has its place and its name, so it never comes back.
	gone bool
	// since is when healthy last changed.
	since time.Time
}

// chooseVoters answers who should get a vote and who should lose it, given that
// at most most may have one.
//
//   - The number of voters is odd: the fourth tolerates no more than three do,
//     and makes every commit dearer. Two are the exception: what two have acknowledged
//     survives the loss of either disk.
//   - The leader keeps its vote, then come those who have one and live, then those
//     who are ready, and last the dead: so a dead voter loses its vote only to a
//     node that is ready for it, or to make the number odd, and stays otherwise.
//   - A voter that is gone takes no seat while three others can: else an even number of
//     nodes would make their number odd with it, and keep it as a voter for ever.
//   - At most a minority loses its vote in one pass.
//
// Losing a vote is not losing membership: a node that comes back replicates, and may vote again.
func chooseVoters(members []candidate, most int) (promote, demote []string) {
	able := slices.DeleteFunc(slices.Clone(members), func(c candidate) bool { return !c.voter && !c.ready })
	slices.SortFunc(able, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.rank(), b.rank()), a.since.Compare(b.since), cmp.Compare(a.id, b.id))
	})
	voting, gone := 0, 0
	for _, c := range able {
		if c.voter {
			voting++
		}
		if c.gone {
			gone++
		}
	}
	if len(able)-gone < 3 {
		gone = 0
	}
	seats := oddly(min(most, len(able)-gone))
	for _, c := range able[:seats] {
		if !c.voter {
			promote = append(promote, c.id)
		}
	}
	for _, c := range slices.Backward(able[seats:]) { // the worst first: not all may go in this pass
		if c.voter && len(demote) < max(1, (voting-1)/2) {
			demote = append(demote, c.id)
		}
	}
	return promote, demote
}

// oddly is the largest number of voters, at most n, that is worth having.
func oddly(n int) int {
	if n > 2 && n%2 == 0 {
		return n - 1
	}
	return n
}

// rank is lowest for who should vote first.
func (c candidate) rank() int {
	switch {
	case c.leader:
		return 0
	case c.voter && c.healthy:
		return 1
	case c.voter && !c.dead:
		return 2 // it may only be restarting
	case !c.voter:
		return 3
	default:
		return 4
	}
}

// promoter is autopilot's view of chooseVoters.
type promoter struct{ pilot *pilot }

func (promoter) GetServerExt(*autopilot.Config, *autopilot.ServerState) any { return nil }
func (promoter) GetStateExt(*autopilot.Config, *autopilot.State) any        { return nil }

// GetNodeTypes says that any member may vote.
func (promoter) GetNodeTypes(_ *autopilot.Config, s *autopilot.State) map[raft.ServerID]autopilot.NodeType {
	types := make(map[raft.ServerID]autopilot.NodeType, len(s.Servers))
	for id := range s.Servers {
		types[id] = autopilot.NodeVoter
	}
	return types
}

func (promoter) IsPotentialVoter(t autopilot.NodeType) bool { return t == autopilot.NodeVoter }

func (p promoter) CalculatePromotionsAndDemotions(_ *autopilot.Config, s *autopilot.State) autopilot.RaftChanges {
	var changes autopilot.RaftChanges
	promote, demote := chooseVoters(p.pilot.candidates(s), p.pilot.node.cfg.Voters)
	for _, id := range promote {
		changes.Promotions = append(changes.Promotions, raft.ServerID(id))
	}
	for _, id := range demote {
		changes.Demotions = append(changes.Demotions, raft.ServerID(id))
	}
	return changes
}

// FilterFailedServerRemovals lets nobody be removed who still votes: a dead voter
// first loses its vote, which it does only to another; then time decides.
func (p promoter) FilterFailedServerRemovals(_ *autopilot.Config, _ *autopilot.State, f *autopilot.FailedServers) *autopilot.FailedServers {
	forgotten := slices.DeleteFunc(slices.Clone(f.FailedNonVoters), func(s *autopilot.Server) bool { return !p.pilot.forgotten(string(s.ID)) })
	return &autopilot.FailedServers{FailedNonVoters: forgotten}
}
