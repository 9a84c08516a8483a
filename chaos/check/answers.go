package check

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// bytesMatch is I3.
func bytesMatch(ops []Operation) Finding {
	found := Finding{Rule: "I3", Text: "no answer of success for a digest whose bytes do not match"}
	for i := range ops {
		o := &ops[i]
		if o.Outcome != Done || o.Input == "" || o.Output == "" {
			continue
		}
		switch o.Kind {
		case ManifestGet, BlobGet, TagGet:
			found.Judged++
			if o.Output != o.Input {
				found.brokenBy(o.Repo+"@"+o.Input, "the bytes are those of "+o.Output, o)
			}
		case BlobPut, ManifestPut, TagPut: // Output is of the bytes, or what the answer calls them
			found.Judged++
			if o.Output != o.Input {
				found.brokenBy(o.Repo+"@"+o.Input, o.Output+" was taken for it", o)
			}
		}
	}
	return found
}

// answersNeverGoBack is the half of I6 that clients see: an answer that was asked for after another was there is made of
// the same state or a later one, whatever nodes gave the two.
func answersNeverGoBack(ops []Operation) Finding {
	found := Finding{Rule: "I6 answers", Text: "the state that answers are made of never goes back, across nodes and leaders"}
	var told []*Operation
	for i := range ops {
		if o := &ops[i]; o.Revision > 0 && !o.Stale && o.Outcome == Done {
			told = append(told, o)
		}
	}
	byEnd := slices.Clone(told)
	slices.SortStableFunc(told, func(a, b *Operation) int { return cmp.Compare(a.Call, b.Call) })
	slices.SortStableFunc(byEnd, func(a, b *Operation) int { return cmp.Compare(a.Return, b.Return) })
	var highest *Operation
	next := 0
	for _, o := range told {
		for ; next < len(byEnd) && byEnd[next].Return < o.Call; next++ {
			if highest == nil || byEnd[next].Revision > highest.Revision {
				highest = byEnd[next]
			}
		}
		if highest == nil {
			continue
		}
		found.Judged++
		if o.Revision < highest.Revision {
			found.brokenBy(o.Repo+" "+o.Key, fmt.Sprintf("the answer is of index %d, one that was there before it was asked for is of %d", o.Revision, highest.Revision), highest, o)
		}
	}
	return found
}

// staleIsBounded is I7, for the answers that say they may be old. Content by digest never changes, so old means: it was
// pushed by then, and it was not gone for longer than the bound.
func staleIsBounded(ops []Operation, bound time.Duration) Finding {
	found := Finding{Rule: "I7", Text: fmt.Sprintf("an answer that says it may be old is at most %v old", bound)}
	type content struct{ repo, digest string }
	changes, stale := map[content][]*Operation{}, []*Operation(nil)
	for i := range ops {
		o := &ops[i]
		switch {
		case o.Stale && o.Outcome == Done && o.Kind == ManifestGet:
			stale = append(stale, o)
		case o.Stale && o.Outcome == Done && o.Kind == TagGet:
			found.Judged++
			found.brokenBy(o.Repo+":"+o.Key, "a tag was answered from a state that may be old", o)
		case o.Outcome != Refused && (o.Kind == ManifestPut || o.Kind == TagPut || o.Kind == ManifestDelete):
			changes[content{o.Repo, o.Input}] = append(changes[content{o.Repo, o.Input}], o)
		}
	}
	for _, o := range stale {
		found.Judged++
		possible := false
		// The state may be that of any instant from bound before the call to the return.
		window := [2]time.Duration{o.Call - bound, o.Return}
		if o.Output == "" {
			possible = mayBeAbsent(changes[content{o.Repo, o.Input}], window)
		} else {
			possible = mayBePresent(changes[content{o.Repo, o.Input}], window)
		}
		if !possible {
			found.brokenBy(o.Repo+"@"+o.Input, fmt.Sprintf("it was not so at any time within %v", bound), o)
		}
	}
	return found
}

// mayBePresent: some push may have taken effect before the end, and no deletion that is certain lies between it and the
// beginning.
func mayBePresent(changes []*Operation, window [2]time.Duration) bool {
	return slices.ContainsFunc(changes, func(p *Operation) bool {
		return p.Kind != ManifestDelete && p.Call <= window[1] && !slices.ContainsFunc(changes, func(d *Operation) bool {
			return d.Kind == ManifestDelete && d.Outcome == Done && d.Call > p.end() && d.Return < window[0]
		})
	})
}

// mayBeAbsent: no push was certainly over before the beginning, or a deletion may have come after it.
func mayBeAbsent(changes []*Operation, window [2]time.Duration) bool {
	return !slices.ContainsFunc(changes, func(p *Operation) bool {
		return p.Kind != ManifestDelete && p.Outcome == Done && p.Return < window[0] && !slices.ContainsFunc(changes, func(d *Operation) bool {
			return d.Kind == ManifestDelete && d.end() >= p.Call && d.Call <= window[1]
		})
	})
}

// oneEffect is I9, by the digests that were written once: such a write is in the events once if it was done, never if it
// was refused, at most once if nobody knows.
func oneEffect(ops []Operation, effects []Effect) Finding {
	found := Finding{Rule: "I9", Text: "each request has one effect"}
	if len(effects) == 0 {
		return found
	}
	count := map[Effect]int{}
	for _, e := range effects {
		count[e]++
	}
	writes := map[Effect][]*Operation{}
	for i := range ops {
		if o := &ops[i]; o.Kind == TagPut {
			for tag := range strings.SplitSeq(o.Key, ",") {
				e := Effect{o.Repo, tag, o.Input}
				writes[e] = append(writes[e], o)
			}
		}
	}
	for e, by := range writes {
		if len(by) > 1 {
			continue
		}
		found.Judged++
		switch o, n := by[0], count[e]; {
		case n > 1:
			found.brokenBy(e.Repo+":"+e.Tag, fmt.Sprintf("one write of %s took effect %d times", short(e.Digest), n), o)
		case o.Outcome == Done && n == 0:
			found.brokenBy(e.Repo+":"+e.Tag, "an acknowledged write of "+short(e.Digest)+" took no effect", o)
		case o.Outcome == Refused && n > 0:
			found.brokenBy(e.Repo+":"+e.Tag, "a refused write of "+short(e.Digest)+" took effect", o)
		}
	}
	return found
}

// removedTakesNoWrites is I10.
func removedTakesNoWrites(ops []Operation, absences []Absence) Finding {
	found := Finding{Rule: "I10", Text: "a removed node never answers success to a write"}
	for i := range ops {
		o := &ops[i]
		for _, a := range absences {
			if !o.writes() || o.Node != a.Node || o.Call <= a.From || a.Until > 0 && o.Call >= a.Until {
				continue
			}
			found.Judged++
			if o.Outcome == Done {
				found.brokenBy(o.Node, fmt.Sprintf("it was removed at %v", a.From), o)
			}
		}
	}
	return found
}

// servesWithoutQuorum is I13. That the answer is right is for the models and I7.
func servesWithoutQuorum(ops []Operation, losses []Loss) Finding {
	found := Finding{Rule: "I13", Text: "without a quorum every live node serves content by digest"}
	for i := range ops {
		o := &ops[i]
		if o.Class != PullByDigest {
			continue
		}
		for _, l := range losses {
			if o.Call < l.From || o.Return > l.Until || !slices.Contains(l.Live, o.Node) {
				continue
			}
			found.Judged++
			if o.Outcome != Done {
				found.brokenBy(o.Node, "it lived, and did not serve: "+o.Error, o)
			}
		}
	}
	return found
}
