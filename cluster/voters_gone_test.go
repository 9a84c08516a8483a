package cluster

import (
	"fmt"
	"slices"
	"testing"
)

// TestANodeWhosePlaceIsTakenLosesItsVote wipes one voter's disk in clusters of every size: once all nodes are ready, the
// voters are as many of the living as are worth having, and the one that is gone has no vote, so that it can be forgotten.
func TestANodeWhosePlaceIsTakenLosesItsVote(t *testing.T) {
	const most = 5
	for nodes := 3; nodes <= 7; nodes++ {
		members := []candidate{{id: "gone", voter: true, dead: true, gone: true}}
		for i := range nodes { // the last one is the gone one's heir
			members = append(members, candidate{id: fmt.Sprint("node", i), voter: i < nodes-1 && i < most-1, leader: i == 0, healthy: true, ready: true})
		}
		for range 5 { // passes of the duty
			promote, demote := chooseVoters(members, most)
			for i, m := range members {
				members[i].voter = m.voter && !slices.Contains(demote, m.id) || slices.Contains(promote, m.id)
			}
		}
		voting := 0
		for _, m := range members {
			if m.voter {
				voting++
			}
		}
		if members[0].voter || voting != oddly(min(most, nodes)) {
			t.Errorf("%d nodes: %d vote, the one that is gone: %v", nodes, voting, members[0].voter)
		}
	}
	if promote, demote := chooseVoters([]candidate{{id: "l", voter: true, leader: true, healthy: true, ready: true},
		{id: "v", voter: true, healthy: true, ready: true}, {id: "gone", voter: true, dead: true, gone: true}}, most); promote != nil || demote != nil {
		t.Errorf("of three with one gone and nobody ready: promote %v, demote %v", promote, demote)
	}
}
