package cluster

import (
	"context"
	"time"

	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

const (
	// tickMost is how old the clock of an idle cluster's views becomes at most.
	tickMost  = time.Minute
	tickLeast = 50 * time.Millisecond
)

// allDuties are the built-in ones and those of Lead.
func (n *Node) allDuties() []Duty {
	return append([]Duty{
		{Name: "voters", Run: n.keepVoters}, {Name: "book", Run: (&bookkeeper{node: n}).run}, {Name: "upgrade", Run: n.upgrade},
		{Name: "tidy", Run: (&tidier{node: n}).run}, {Name: "clock", Run: n.tick}}, n.duties...)
}

// tick keeps the clock going while nobody writes: a view's clock is that of the
// last entry, and what is judged by it (renewals within the grace, G8; what has
// expired) must not be judged by one that stands still.
func (n *Node) tick(ctx context.Context, _ Leadership) error {
	longest := min(tickMost, max(tickLeast, time.Duration(n.cfg.Settings.GetGrace()/4)))
	return every(ctx, longest/4, func(ctx context.Context) error {
		now, _, err := n.stamp()
		if err != nil {
			return nil // deposed: ctx ends soon
		}
		v := n.state.View()
		behind := time.Duration(now - v.ClusterTime())
		v.Close()
		if behind < longest/2 {
			return nil
		}
		// Trimming what lies before the first entry trims nothing.
		_, err = n.Propose(ctx, n.systemCommand(&metav1.Command{Kind: &metav1.Command_TrimEvents{TrimEvents: &metav1.TrimEvents{Limit: 1}}}))
		return err
	})
}

// every calls fn now and then until ctx ends or fn fails.
func every(ctx context.Context, d time.Duration, fn func(context.Context) error) error {
	tick := time.NewTicker(d)
	defer tick.Stop()
	for {
		if err := fn(ctx); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
