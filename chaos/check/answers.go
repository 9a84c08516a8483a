package check

import (
	"cmp"
	"fmt"
	"maps"
	"math"
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

// oneEffect is I9 by what the events say themselves: no request has the same effect twice.
func oneEffect(f *Facts) Finding {
	found := Finding{Rule: "I9 requests", Text: "each request has one effect"}
	asked := map[Effect]int{}
	for _, e := range f.Effects {
		if e.Request == "" {
			continue
		}
		found.Judged++
		if asked[e]++; asked[e] == 2 {
			found.broken(e.Repo+":"+e.Tag, "request %s had the effect %s of %s%s twice", e.Request, e.Kind, short(e.Digest), e.Subject)
		}
	}
	return found
}

// writesTakeEffect is I9 by what clients saw, for the digests that were written once: a write of a tag is in the events once if
// it was done, never if it was refused, at most once if nobody knows.
func writesTakeEffect(f *Facts) Finding {
	found := Finding{Rule: "I9 writes", Text: "each write of a tag takes effect once, a refused one never"}
	count := map[Effect]int{} // without the request
	for _, e := range f.Effects {
		e.Request = ""
		count[e]++
	}
	writes := writesOnce(f.Writes)
	since := firstTold(f, writes)
	for e, o := range writes {
		if o.Call <= since {
			continue
		}
		found.Judged++
		switch n := count[e]; {
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

// writesOnce are the writes whose digest nobody wrote to the same tag a second time, by the effect that they should have.
func writesOnce(ops []Operation) map[Effect]*Operation {
	writes := map[Effect]*Operation{}
	for i := range ops {
		if ops[i].Kind != TagPut {
			continue
		}
		for tag := range strings.SplitSeq(ops[i].Key, ",") {
			e, by := Effect{Kind: TagPut, Repo: ops[i].Repo, Tag: tag, Digest: ops[i].Input}, &ops[i]
			if _, again := writes[e]; again {
				by = nil
			}
			writes[e] = by
		}
	}
	maps.DeleteFunc(writes, func(_ Effect, o *Operation) bool { return o == nil })
	return writes
}

// firstTold is the time from which on every effect is in the events: after the oldest write in them was answered. Without
// any effect it is never; where none were trimmed, always.
func firstTold(f *Facts, writes map[Effect]*Operation) time.Duration {
	if len(f.Effects) > 0 && !f.EffectsTrimmed {
		return -1
	}
	for _, e := range f.Effects {
		e.Request = ""
		if o := writes[e]; o != nil && o.Outcome == Done {
			return o.Return
		}
	}
	return math.MaxInt64
}

// removedTakesNoWrites is I10, by the writes that a node answered while it was no member, whatever it said.
func removedTakesNoWrites(ops []Operation, absences []Absence) Finding {
	found := Finding{Rule: "I10", Text: "a removed node never answers success to a write"}
	for i := range ops {
		o := &ops[i]
		for _, a := range absences {
			if !o.writes() || o.Node != a.Node || o.Call <= a.From || a.Until > 0 && o.Call >= a.Until {
				continue
			}
			if o.Status == 0 && o.Outcome == Unknown {
				continue // nobody answered: most of these find that it has ended
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
