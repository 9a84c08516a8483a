package check

import (
	"net/http"
	"strings"
	"time"
)

// This file says what can be known of unknown outcomes by other answers. Each operation that may take effect at any time
// doubles a search, so each bound counts. A bound is exact: an operation that is held to it could take effect later only
// without any effect, and then it has none at the bound either.

func settleBy(ops []*Operation, rank func(*Operation) int) []settled {
	out := make([]settled, len(ops))
	for i, o := range ops {
		out[i] = settled{Operation: o, until: o.end()}
		if o.Outcome == Unknown {
			out[i].spare = rank(o)
		}
	}
	return out
}

// by bounds an operation of unknown outcome; a bound from before its call is its call.
func (s *settled) by(bound time.Duration) {
	s.until = min(s.until, max(bound, s.Call))
}

func settleManifests(ops []*Operation) []settled {
	return settleBy(ops, func(*Operation) int { return optional })
}

// settleLocks: what was asked under a token has no effect any more once a higher one was granted, or has written.
func settleLocks(ops []*Operation) []settled {
	out := settleBy(ops, func(o *Operation) int {
		switch o.Kind {
		case LockRenew, GuardWrite:
			return idle
		case LockAcquire:
			return optional
		}
		return needed
	})
	for i := range out {
		s := &out[i]
		if s.Outcome != Unknown {
			continue
		}
		for _, o := range ops {
			higher := o.Outcome == Done && o.Token > s.Token
			switch {
			case o.Kind == LockAcquire && higher && (s.Kind == LockRenew || s.Kind == LockRelease && s.Token > 0),
				o.Kind == GuardWrite && higher && s.Kind == GuardWrite:
				s.by(o.Return)
			}
		}
	}
	return out
}

// tagDigest is a digest in the life of a tag.
type tagDigest struct{ tag, digest string }

// lives is when a tag certainly had been a digest, and when it certainly was another after that. Only digests that one
// operation wrote are here: they never come back.
type lives struct {
	writers map[tagDigest]int
	been    map[tagDigest]time.Duration
	past    map[tagDigest]time.Duration
}

func livesOf(ops []*Operation) *lives {
	l := &lives{map[tagDigest]int{}, map[tagDigest]time.Duration{}, map[tagDigest]time.Duration{}}
	for _, o := range ops {
		for tag := range strings.SplitSeq(o.Key, ",") {
			if o.Kind == TagPut {
				l.writers[tagDigest{tag, o.Input}]++
			}
			for _, digest := range observed(o) {
				l.note(l.been, tagDigest{tag, digest}, o.Return)
			}
			if o.Kind == TagPut && o.Outcome == Done {
				l.note(l.been, tagDigest{tag, o.Input}, o.Return)
			}
		}
	}
	for life, n := range l.writers {
		been, ok := l.been[life]
		if n > 1 || !ok {
			continue
		}
		for _, o := range ops {
			if now, sure := pinsTag(o); sure && now != life.digest && o.Call > been && has(o.Key, life.tag) {
				l.note(l.past, life, o.Return)
			}
		}
	}
	return l
}

func has(keys, tag string) bool {
	for key := range strings.SplitSeq(keys, ",") {
		if key == tag {
			return true
		}
	}
	return false
}

func (l *lives) note(m map[tagDigest]time.Duration, life tagDigest, at time.Duration) {
	if first, ok := m[life]; !ok || at < first {
		m[life] = at
	}
}

// observed are the digests that the answer proves to have been the tag's.
func observed(o *Operation) []string {
	switch {
	case o.Outcome == Unknown:
		return nil
	case o.Kind == TagGet, o.Outcome == Refused && o.Status == http.StatusPreconditionFailed && !strings.Contains(o.Key, ","):
		return []string{o.Output}
	case o.Outcome == Done && (o.Kind == TagPut || o.Kind == TagDelete) && o.Expect != Absent:
		return []string{o.Expect}
	}
	return nil
}

// settleTags: a write whose digest somebody saw took effect before that somebody had the answer; one that nobody saw is
// seldom needed to explain anything. What waits for a digest that is past has no effect any more.
func settleTags(ops []*Operation) []settled {
	l := livesOf(ops)
	out := settleBy(ops, func(o *Operation) int {
		if o.Kind == TagPut {
			return idle
		}
		return optional
	})
	for i := range out {
		s := &out[i]
		if s.Outcome != Unknown {
			continue
		}
		if s.Kind == ManifestDelete {
			s.by(l.allPast(s.Input))
			continue
		}
		for tag := range strings.SplitSeq(s.Key, ",") {
			if past, ok := l.past[tagDigest{tag, s.Expect}]; ok {
				s.by(past)
			}
			life := tagDigest{tag, s.Input}
			first, seen := l.been[life]
			if s.Kind != TagPut || !seen {
				continue
			}
			s.spare = min(s.spare, optional)
			if l.writers[life] == 1 {
				s.spare = needed
				s.by(first)
			}
		}
	}
	return out
}

// allPast is when no tag can be the digest any more.
func (l *lives) allPast(digest string) time.Duration {
	var last time.Duration
	for life := range l.writers {
		if life.digest != digest {
			continue
		}
		past, ok := l.past[life]
		if !ok {
			return never
		}
		last = max(last, past)
	}
	return last
}
