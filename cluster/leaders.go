package cluster

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"
)

// errLeaderChanged ends what was asked of a leader that is none any more.
var errLeaderChanged = errors.New("the leader changed")

// leaders is who leads, as far as this node knows. Each tenure has a context
// that ends when the leader changes, so that no call waits for a leader that is
// gone. One writer (Node.watchLeader); safe for concurrent use.
type leaders struct {
	// mu guards what follows.
	mu     sync.Mutex
	id     string
	tenure context.Context
	end    context.CancelCauseFunc
}

func newLeaders() *leaders {
	l := &leaders{}
	l.tenure, l.end = context.WithCancelCause(context.Background())
	return l
}

// now answers the leader's node id, empty when there is none, and its tenure.
func (l *leaders) now() (id string, tenure context.Context) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.id, l.tenure
}

func (l *leaders) set(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.id == id {
		return
	}
	l.end(errLeaderChanged)
	l.id = id
	l.tenure, l.end = context.WithCancelCause(context.Background())
}

func (l *leaders) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.end(errLeaderChanged)
	// What still tries again must pause as long as it would without a leader.
	l.id, l.tenure = "", context.Background()
}

// within is ctx, ended also by the tenure and after d. Call the cancel.
func within(ctx, tenure context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, d)
	stop := context.AfterFunc(tenure, cancel)
	return ctx, func() { stop(); cancel() }
}

// pause waits before attempt n+1: 5 ms doubling to 50 ms, with jitter; less when
// the leader changes, false when ctx ends.
func pause(ctx, tenure context.Context, n int) bool {
	d := 5 * time.Millisecond << min(n, 4)
	d = min(d, 50*time.Millisecond)/2 + rand.N(d/2+1)
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-tenure.Done():
	case <-ctx.Done():
		return false
	}
	return true
}
