package cluster

import (
	"testing"
	"time"

	"github.com/pontoon-registry/pontoon/meta"
)

// TestAReadThatCannotFallBackWaitsForTheLeader is a pull that meets a node right
// after its start, during an election: a balancer may not have noticed that the node was away.
func TestAReadThatCannotFallBackWaitsForTheLeader(t *testing.T) {
	t.Parallel()
	nodes, network := formWith(t, 3, &testMark{}, func(_ int, c *Config) {
		c.ReadsOffline = time.Hour // an election takes longer than fallbackAfter
	}, func(*Node) {})
	leader, followers := leaderOf(t, nodes)
	network.isolate(leader.host.Addr().String())
	f := followers[0]
	f.fresh.nanos.Store(0) // as after a start
	began := time.Now()
	err := f.View(t.Context(), meta.Read{Content: true}, func(v *meta.View) error {
		if v.Stale() {
			t.Error("a state that was never proven fresh was served")
		}
		return nil
	})
	if err != nil {
		t.Fatalf("read during the election, after %v: %v", time.Since(began), err)
	}
}
