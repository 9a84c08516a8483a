package cluster

import (
	"testing"
	"time"
)

// TestAGrantThatComesTooLateIsNoLock: by then the ledger may have let somebody else in (C4).
func TestAGrantThatComesTooLateIsNoLock(t *testing.T) {
	cfg := testConfig(t, nil)
	cfg.Listen, cfg.GossipListen, cfg.Secrets = "", "", nil
	n := start(t, cfg)
	settle(t, []*running{n})
	n.proposer.hold = 10 * time.Second
	slow := time.NewTimer(1100 * time.Millisecond)
	real := n.commit.stamp
	n.commit.stamp = func() (int64, int64, error) { // only the first command is slow
		<-slow.C
		n.commit.stamp = real
		return real()
	}
	if _, token, _, err := n.Lock(t.Context(), "late", time.Second); !isUnavailable(err) {
		t.Errorf("token %d, %v; want unavailable", token, err)
	}
	_, _, release, err := n.Lock(t.Context(), "late", time.Second)
	if err != nil {
		t.Fatalf("the next one: %v", err)
	}
	if err := release(); err != nil {
		t.Error(err)
	}
}
