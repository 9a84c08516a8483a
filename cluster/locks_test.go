package cluster

import (
	"runtime"
	"sync/atomic"
	"testing"
	"time"
)

// TestAGrantThatComesTooLateIsNoLock: by then the ledger may have let somebody else in (C4).
func TestAGrantThatComesTooLateIsNoLock(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t, nil)
	cfg.Listen, cfg.GossipListen, cfg.Secrets = "", "", nil
	var late atomic.Bool // of commands, the next one is slow
	n, err := startWith(t, cfg, func(n *Node) {
		n.proposer.hold = 10 * time.Second
		real := n.commit.stamp
		n.commit.stamp = func() (int64, int64, error) {
			if late.CompareAndSwap(true, false) {
				<-time.After(1100 * time.Millisecond)
			}
			return real()
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	settle(t, []*running{n})
	late.Store(true)
	if _, token, _, err := n.Lock(t.Context(), "late", time.Second); !isUnavailable(err) {
		t.Errorf("token %d, %v; want unavailable", token, err)
	}
	eventually(t, "the next one", func() error { // a busy machine may be as late
		_, _, release, err := n.Lock(t.Context(), "late", time.Second)
		if err != nil {
			return err
		}
		return release()
	})
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
