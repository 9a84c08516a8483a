package chaos

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/pontoon-registry/pontoon/chaos/check"
)

// seasons lets one season follow the other, and judges those that are over.
type seasons struct {
	c       *guests
	over    chan *season // whose last request was answered
	judged  chan *season // whose manifests may go
	janitor *guest

	mu  sync.Mutex // guards now; a guest enters under it, so that a season that was left gets no new one
	now *season
}

// enter is the season that is on, which waits until the guest has left it.
func (y *seasons) enter() *season {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.now.using.Add(1)
	return y.now
}

// work is one guest who does one thing after the other.
func (y *seasons) work(ctx context.Context, v *guest, between time.Duration, what func(*guest, context.Context, *season, int)) {
	for i := 0; ctx.Err() == nil; i++ {
		s := y.enter()
		what(v, ctx, s, i)
		s.using.Done()
		pause(ctx, between)
	}
}

// turn opens one season after the other until the run ends, then ends the last.
func (y *seasons) turn(ctx context.Context) {
	defer close(y.over)
	for number := y.now.number + 1; ; number++ {
		next := newSeason(number)
		ready := next.open(ctx, y.janitor)
		y.mu.Lock()
		last := y.now
		y.mu.Unlock()
		pause(ctx, time.Until(last.began.Add(seasonTime)))
		if ready {
			y.mu.Lock()
			y.now = next
			y.mu.Unlock()
		}
		last.using.Wait()
		y.over <- last
		if ctx.Err() != nil {
			if ready {
				next.using.Wait()
				y.over <- next
			} else {
				y.judged <- next // what it wrote before it was given up
			}
			return
		}
	}
}

// judge judges the seasons that are over, one at a time.
func (y *seasons) judge() {
	for s := range y.over {
		repos := append(slices.Concat(s.registers, s.sets), s.lockRepo())
		ops := y.c.history.Take(func(o *check.Operation) bool { return slices.Contains(repos, o.Repo) })
		others := y.c.history.Take(func(o *check.Operation) bool { return slices.Contains(unjudged, o.Repo) }) // by the models
		y.c.linearize(s, ops)
		s.held = check.HeldBy(ops)
		y.c.rules = check.JoinFindings(y.c.rules, check.CheckInvariants(&check.Facts{Operations: append(ops, others...),
			Absences: y.c.a.absences.since(y.c.history.Began())}))
		y.judged <- s
	}
	close(y.judged)
}

// unjudged are the names under which the history has what no model judges.
var unjudged = []string{"anchors", "uploads", "images", "referrers", "calm", "sentinel"}

// sweep deletes the manifests of seasons that were judged: all that was written, whether the write was answered or not.
// Some seasons are kept while the run lasts, so that there is something to lose; what is lost is missed here.
func (y *seasons) sweep(ctx context.Context) {
	var kept []*season
	for s := range y.judged {
		kept = append(kept, s)
		for len(kept) > seasonsToKeep {
			y.remove(ctx, kept[0])
			kept = kept[1:]
		}
	}
	for _, s := range kept {
		y.remove(ctx, s)
	}
}

// remove deletes until each manifest is certainly gone. It ends with its context, which is longer than the run. The first
// answer for one whose push was acknowledged, and whose deletion nobody else asked for, cannot be that it is not there (I1).
func (y *seasons) remove(ctx context.Context, s *season) {
	var group sync.WaitGroup
	work, held := make(chan [2]string), map[[2]string]bool{}
	for _, m := range s.held {
		held[[2]string{m.Repo, m.Digest}] = true
	}
	for range janitorsAtOnce {
		group.Go(func() {
			for one := range work {
				path, first := "/v2/"+one[0]+"/manifests/"+one[1], held[one]
				y.janitor.until(ctx, func() bool {
					asked, cancel := context.WithTimeout(ctx, requestTime)
					defer cancel()
					a, err := exchange(asked, y.janitor.client, "http://"+y.c.a.d.balancer, request{method: http.MethodDelete, path: path})
					certain := err == nil && (a.status == http.StatusAccepted || a.status == http.StatusNotFound)
					if first && certain {
						y.c.looked("I1")
					}
					if first && certain && a.status == http.StatusNotFound {
						y.c.violated("I1", "sweep of season %d: %s@%s is not there, its push was acknowledged: %.300s", s.number, one[0], one[1], a.body)
					}
					first = false
					return certain
				})
			}
		})
	}
	for one := range s.written {
		work <- one
	}
	close(work)
	group.Wait()
}
