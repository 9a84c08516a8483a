package cluster

import (
	"runtime"
	"testing"
	"time"
)

// TestAGrantThatComesTooLateIsNoLock: by then the ledger may have let somebody else in (C4).
func TestAGrantThatComesTooLateIsNoLock(t *testing.T) {
	t.Parallel()
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

// TestNoLockIsRenewedByANodeThatStopped: nobody would wait for its goroutine.
func TestNoLockIsRenewedByANodeThatStopped(t *testing.T) {
	var h holdings
	held, done := make(chan struct{}), make(chan struct{})
	if !h.start(func() { <-held }) {
		t.Fatal("a lock was refused before the end")
	}
	go func() { defer close(done); h.wait() }()
	for h.start(func() {}) { // until wait has closed it; the first lock keeps it from ending
		runtime.Gosched()
	}
	select {
	case <-done:
		t.Error("wait ended before the lock that it had to wait for")
	default:
	}
	close(held)
	<-done
}
