package cluster

import (
	"maps"
	"slices"
)

// decide is the whole of forming a cluster (R-D2), as a function: what a node
// that is in no cluster should be pledged to, given what it is pledged to and
// the pledges of the other such nodes in sight (nil: none yet).
//
//   - A node without a pledge follows the lowest founder in sight; else, once expect
//     nodes are in sight and it is among the lowest expect of them, it pledges to those.
//   - A pledge is always the founder's own: one to a node that has itself
//     pledged otherwise is void, and moves to what that node is pledged to.
//   - A founder that has not begun to found yields to a lower one.
//
// Why only one founder of overlapping sets can succeed: a founder founds when
// all of its set are pledged to it, and from then on never moves (identity.Founding).
// A member's pledge leaves a founder only after that founder's own has, and
// founders move to lower ones only, so never back.
func decide(me string, expect int, mine *pledge, seen map[string]*pledge) *pledge {
	founder := lowestFounder(seen, expect)
	switch {
	case mine == nil && founder != nil:
		return founder
	case mine == nil:
		return gather(me, expect, seen)
	case mine.Founder == me:
		if founder != nil && founder.Founder < me {
			return founder
		}
		return mine
	default:
		if theirs := seen[mine.Founder]; theirs != nil && len(theirs.Members) == expect {
			return theirs
		}
		return mine
	}
}

// lowestFounder answers the pledge of the lowest node that is pledged to itself.
func lowestFounder(seen map[string]*pledge, expect int) *pledge {
	for _, id := range slices.Sorted(maps.Keys(seen)) {
		if p := seen[id]; p != nil && p.Founder == id && len(p.Members) == expect {
			return p
		}
	}
	return nil
}

func gather(me string, expect int, seen map[string]*pledge) *pledge {
	ids := append(slices.Collect(maps.Keys(seen)), me)
	slices.Sort(ids)
	if len(ids) < expect {
		return nil
	}
	members := ids[:expect:expect]
	if !slices.Contains(members, me) {
		return nil // more nodes than expected: this one joins later
	}
	return &pledge{Members: members, Founder: members[0]}
}
