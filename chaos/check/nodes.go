package check

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// statesAgree is I5 (M9). Judged are the indexes that two nodes or more told of.
func statesAgree(states []State) Finding {
	found := Finding{Rule: "I5", Text: "at equal indexes all states are equal"}
	first, shared := map[uint64]State{}, map[uint64]bool{}
	for _, s := range states {
		if s.Hash == "" {
			continue
		}
		other, known := first[s.Index]
		switch {
		case !known:
			first[s.Index] = s
		case other.Hash != s.Hash:
			found.broken(fmt.Sprintf("index %d", s.Index), "%s has %s at %v, %s has %s at %v", other.Node, other.Hash, other.At, s.Node, s.Hash, s.At)
		}
		if known && other.Node != s.Node && !shared[s.Index] {
			shared[s.Index] = true
			found.Judged++
		}
	}
	return found
}

// stateNeverGoesBack is the half of I6 that nodes tell.
func stateNeverGoesBack(states []State) Finding {
	found := Finding{Rule: "I6 nodes", Text: "the state of a node never goes back, across restarts"}
	ordered := slices.Clone(states)
	slices.SortStableFunc(ordered, func(a, b State) int { return cmp.Compare(a.At, b.At) })
	last := map[string]State{}
	for _, s := range ordered {
		before, known := last[s.Node]
		if known {
			found.Judged++
			if s.Index < before.Index {
				found.broken(s.Node, "ready at index %d at %v, it had %d at %v", s.Index, s.At, before.Index, before.At)
				continue
			}
		}
		last[s.Node] = s
	}
	return found
}

// oneLeader is I8.
func oneLeader(leaders []Leader) Finding {
	found := Finding{Rule: "I8", Text: "at most one leader opens a term"}
	opener := map[uint64]string{}
	for _, l := range leaders {
		other, known := opener[l.Term]
		if !known {
			found.Judged++
			opener[l.Term] = l.Node
		} else if other != l.Node {
			found.broken(fmt.Sprintf("term %d", l.Term), "opened by %s and by %s", other, l.Node)
		}
	}
	return found
}

// heals is I11.
func heals(recoveries []Recovery, bound time.Duration) Finding {
	found := Finding{Rule: "I11", Text: fmt.Sprintf("%v after the last fault every node is healthy, writes and lags nowhere", bound)}
	for _, r := range recoveries {
		found.Judged++
		if r.Healthy > bound {
			found.broken(r.Node, "healthy after %v", r.Healthy)
		}
		if r.Write != "" {
			found.broken(r.Node, "a write failed: %s", r.Write)
		}
		if r.Lag > 0 {
			found.broken(r.Node, "its state lacks %d entries", r.Lag)
		}
	}
	return found
}

// returnsToBand is I12.
func returnsToBand(before, after []Gauge, bands map[string]Band) Finding {
	found := Finding{Rule: "I12", Text: "goroutines, descriptors, memory and disk return to a band"}
	type name struct{ node, name string }
	was := map[name]float64{}
	for _, g := range before {
		was[name{g.Node, g.Name}] = g.Value
	}
	for _, g := range after {
		band, judged := bands[g.Name]
		if !judged {
			continue
		}
		found.Judged++
		base := was[name{g.Node, g.Name}] // a node that was not there before began with nothing
		if most := base*band.Factor + band.More; g.Value > most {
			found.broken(g.Node, "%s is %.0f, it was %.0f: at most %.0f", g.Name, g.Value, base, most)
		}
	}
	return found
}
