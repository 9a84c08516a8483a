package cluster

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// village is nodes that see some of each other and decide in any order.
type village struct {
	expect  int
	ids     []string
	pledges map[string]*pledge
	sees    map[string]map[string]bool
	founded []string
}

func (v *village) step(me string) {
	if slices.Contains(v.founded, me) {
		return
	}
	seen := map[string]*pledge{}
	for _, id := range v.ids {
		if id != me && v.sees[me][id] {
			seen[id] = v.pledges[id]
		}
	}
	v.pledges[me] = decide(me, v.expect, v.pledges[me], seen)
	p := v.pledges[me]
	if p == nil || p.Founder != me {
		return
	}
	for _, m := range p.Members {
		if m != me && (!v.sees[me][m] || !p.equal(v.pledges[m])) {
			return
		}
	}
	v.founded = append(v.founded, me)
}

// TestAnyOrderOfPledgesYieldsOneFounder is R-D2: nodes that see different parts
// of each other never found two clusters of overlapping sets, and found one
// once all see all.
func TestAnyOrderOfPledgesYieldsOneFounder(t *testing.T) {
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 1))
		v := &village{expect: 2 + r.IntN(3), pledges: map[string]*pledge{}, sees: map[string]map[string]bool{}}
		n := v.expect + r.IntN(min(3, v.expect)) // fewer than twice expect: any two sets overlap
		for i := range n {
			v.ids = append(v.ids, fmt.Sprintf("n%d", i))
			v.sees[v.ids[i]] = map[string]bool{}
		}
		for range r.IntN(200) {
			me, other := v.ids[r.IntN(n)], v.ids[r.IntN(n)]
			v.sees[me][other] = r.IntN(3) > 0
			v.step(v.ids[r.IntN(n)])
		}
		for _, a := range v.ids {
			for _, b := range v.ids {
				v.sees[a][b] = true
			}
		}
		for range 20 {
			for _, id := range v.ids {
				v.step(id)
			}
		}
		if len(v.founded) != 1 {
			t.Fatalf("seed %d: expect %d of %d nodes: founders %v, pledges %+v", seed, v.expect, n, v.founded, v.pledges)
		}
	}
}

func TestALateFourthNodePledgesToNobody(t *testing.T) {
	seen := map[string]*pledge{"a": nil, "b": nil, "c": nil}
	if p := decide("d", 3, nil, seen); p != nil {
		t.Errorf("got %+v", p)
	}
	if p := decide("a", 3, nil, map[string]*pledge{"b": nil}); p != nil {
		t.Errorf("two of three in sight: got %+v", p)
	}
}
