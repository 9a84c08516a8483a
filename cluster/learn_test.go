package cluster

import (
	"fmt"
	"testing"
	"time"
)

// TestFollowersLearnOfACommitFromTheLeadersAnswer makes Raft itself tell its
// followers of a commit only after a second: what is written and read through
// them must not wait for that.
func TestFollowersLearnOfACommitFromTheLeadersAnswer(t *testing.T) {
	t.Parallel()
	const late = time.Second
	nodes, _ := formWith(t, 3, &testMark{}, func(_ int, c *Config) { c.commitTimeout = late }, func(*Node) {})
	_, followers := leaderOf(t, nodes)
	roundTrip(t, followers[0], followers[1], "warm:1")
	const trips = 20
	began := time.Now()
	for i := range trips {
		roundTrip(t, followers[i%2], followers[(i+1)%2], fmt.Sprintf("host-%d:1", i))
	}
	// A follower that is behind with the entry itself still waits: a few of them may.
	if took := time.Since(began); took > trips*late/4 {
		t.Fatalf("%d writes and reads through followers took %v although no commit need be waited for", trips, took)
	}
}
