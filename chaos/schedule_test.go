package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pontoon-registry/pontoon/chaos/check"
)

// strike is one fault of the plan.
type strike struct {
	fault  fault
	chance uint64        // the seed of what the fault itself draws
	after  time.Duration // the pause before it
	hold   time.Duration // for how long it stays, from its injection on
}

// storm is what happens between two calms: one fault, or two that overlap. The first is healed before or after the second.
type storm []strike

// plan draws storms: a pure function of the seed and of the kinds of faults. What happens to the cluster has no part in it.
type plan struct {
	seed   uint64
	chance *rand.Rand
	kinds  []fault
	deck   []int
	count  uint64
}

func newPlan(seed uint64, kinds []fault) *plan {
	return &plan{seed: seed, chance: rand.New(rand.NewPCG(seed, 0)), kinds: kinds}
}

// deal draws a kind. Each kind comes as often as it weighs before the deck is shuffled again, so that none is left out by chance.
func (p *plan) deal() fault {
	if len(p.deck) == 0 {
		for i, kind := range p.kinds {
			for range kind.weight {
				p.deck = append(p.deck, i)
			}
		}
		p.chance.Shuffle(len(p.deck), func(i, j int) { p.deck[i], p.deck[j] = p.deck[j], p.deck[i] })
	}
	kind := p.kinds[p.deck[0]]
	p.deck = p.deck[1:]
	return kind
}

func (p *plan) strike() strike {
	kind := p.deal()
	hold := kind.hold
	if hold == ([2]time.Duration{}) {
		hold = [2]time.Duration{time.Second, 6 * time.Second}
	}
	p.count++
	return strike{fault: kind, chance: p.count, after: p.between(0, 2*time.Second), hold: p.between(hold[0], hold[1])}
}

func (p *plan) between(low, high time.Duration) time.Duration {
	return low + time.Duration(p.chance.Int64N(int64(max(1, high-low)))).Round(time.Millisecond)
}

// next draws a storm. Every second one is of two faults, where both may have company.
func (p *plan) next() storm {
	s := storm{p.strike()}
	if two := p.chance.IntN(2) == 0; two && !s[0].fault.alone {
		if second := p.strike(); !second.fault.alone {
			second.after = min(second.after, s[0].hold*3/4)
			return append(s, second)
		} else {
			p.deck = append(p.deck, slices.IndexFunc(p.kinds, func(k fault) bool { return k.name == second.fault.name })) // later
		}
	}
	return s
}

func TestAPlanIsAFunctionOfItsSeed(t *testing.T) {
	kinds := append(faults(), fault{name: "alone", weight: 3, alone: true})
	storms := 0 // a whole deck
	for _, kind := range kinds {
		storms += kind.weight
	}
	tell := func(seed uint64) string {
		var told strings.Builder
		p := newPlan(seed, kinds)
		drawn := map[string]int{}
		for range storms {
			s := p.next()
			if len(s) > 2 || len(s) == 2 && (s[0].fault.alone || s[1].fault.alone) {
				t.Errorf("a storm of %d faults, %s", len(s), s[0].fault.name)
			}
			for _, k := range s {
				drawn[k.fault.name]++
				fmt.Fprintf(&told, "%s %d %v %v;", k.fault.name, k.chance, k.after, k.hold)
			}
		}
		for _, kind := range kinds {
			if kind.weight > 0 && drawn[kind.name] == 0 {
				t.Errorf("%s never came in %d storms", kind.name, storms)
			}
		}
		return told.String()
	}
	if one, again, other := tell(7), tell(7), tell(8); one != again || one == other {
		t.Errorf("the same seed gave\n%s\nand\n%s\nanother\n%s", one, again, other)
	}
}

// nemesis does what the plan says, on the goroutine of the test.
type nemesis struct {
	a       *arena
	plan    *plan
	history *check.History
	done    int            // faults that were injected
	missed  map[string]int // that found nobody to harm
	kinds   map[string]int
}

// injected is a fault that is not healed.
type injected struct {
	strike
	heal    func(context.Context) error
	detail  string
	at      time.Time
	from    time.Duration
	claimed []*node
}

// healTime bounds an injection or a healing.
const healTime = 3 * time.Minute

// storm does one storm and leaves nothing unhealed. Ways are opened first: who starts a node waits until it serves, which it
// cannot while it has no way to the leader.
func (m *nemesis) storm(ctx context.Context, s storm) {
	var there []*injected
	for _, one := range s {
		pause(ctx, one.after)
		if i := m.inject(ctx, one); i != nil {
			there = append(there, i)
		}
	}
	for _, i := range inOrder(there) {
		pause(ctx, time.Until(i.at.Add(i.hold)))
		m.heal(i)
	}
}

// inOrder is the order in which faults are healed.
func inOrder(there []*injected) []*injected {
	slices.SortStableFunc(there, func(a, b *injected) int {
		switch {
		case a.fault.ways && !b.fault.ways:
			return -1
		case b.fault.ways && !a.fault.ways:
			return 1
		}
		return a.at.Add(a.hold).Compare(b.at.Add(b.hold))
	})
	return there
}

func TestWaysAreOpenedBeforeNodesAreStarted(t *testing.T) {
	kind := func(name string) fault {
		all := faults()
		return all[slices.IndexFunc(all, func(f fault) bool { return f.name == name })]
	}
	began := time.Now()
	late := &injected{strike: strike{fault: kind("net-asymmetric"), hold: 10 * time.Second}, at: began}
	soon := &injected{strike: strike{fault: kind("power-cut"), hold: 6 * time.Second}, at: began}
	later := &injected{strike: strike{fault: kind("kill-node"), hold: 7 * time.Second}, at: began}
	if got := inOrder([]*injected{later, soon, late}); got[0] != late || got[1] != soon || got[2] != later {
		t.Errorf("%s, %s, %s", got[0].fault.name, got[1].fault.name, got[2].fault.name)
	}
}

func (m *nemesis) inject(ctx context.Context, s strike) *injected {
	m.a.t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), healTime)
	defer cancel()
	m.a.claimed = nil
	i := &injected{strike: s, at: time.Now(), from: m.history.Now()}
	m.a.active.Store(s.fault.name, s.fault.confined)
	heal, detail, err := s.fault.inject(ctx, m.a, rand.New(rand.NewPCG(m.plan.seed, s.chance)))
	i.heal, i.detail, i.claimed = heal, detail, m.a.claimed
	m.a.publish()
	switch {
	case errors.Is(err, errNobody):
		m.mend(i)
		m.missed[s.fault.name]++
		m.a.active.Delete(s.fault.name)
		m.release(i)
		m.a.t.Logf("fault %d %s: %v", s.chance, s.fault.name, err)
		return nil
	case err != nil:
		m.a.t.Errorf("fault %d %s cannot be injected: %v", s.chance, s.fault.name, err)
		m.mend(i)
	}
	m.done++
	m.kinds[s.fault.name]++
	m.a.t.Logf("fault %d at %v: %s %s for %v", s.chance, i.from.Round(time.Millisecond), s.fault.name, detail, s.hold)
	return i
}

func (m *nemesis) heal(i *injected) {
	m.a.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), healTime)
	defer cancel()
	began := time.Now()
	if i.heal != nil {
		if err := i.heal(ctx); err != nil {
			m.a.t.Errorf("fault %d %s %s cannot be healed: %v", i.chance, i.fault.name, i.detail, err)
		}
	}
	m.a.active.Delete(i.fault.name)
	m.release(i)
	m.history.AddFault(check.Fault{Name: i.fault.name, Target: i.detail, From: i.from, Until: m.history.Now()})
	// The time of I11 begins now. What the healing itself waited for, as for nodes that start again, is not in it.
	m.a.t.Logf("fault %d at %v: %s healed in %v", i.chance, m.history.Now().Round(time.Millisecond), i.fault.name, time.Since(began).Round(time.Millisecond))
}

// mend undoes what a fault did to the nodes that it took, where it did not come to be.
func (m *nemesis) mend(i *injected) {
	if i.heal != nil {
		return // that does it
	}
	for _, n := range i.claimed {
		if n.proc.over() {
			n.start()
		} else {
			n.proc.wake()
		}
	}
}

// release gives the nodes of a fault back.
func (m *nemesis) release(i *injected) {
	m.a.taken = slices.DeleteFunc(m.a.taken, func(n *node) bool { return slices.Contains(i.claimed, n) })
	m.a.publish()
}
