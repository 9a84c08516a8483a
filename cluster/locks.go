package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// ErrLockLost ends the context of a lock that was not renewed in time, or whose
// token the ledger no longer knows.
var ErrLockLost = errors.New("the lock was lost")

// Lock acquires a lock of the whole cluster. The context that it answers ends
// with the lock: at the monotonic instant before the last successful renewal
// was sent, plus ttl (C4), so always before the ledger lets anybody else in,
// clocks of equal speed given. The token must travel with whatever the lock
// guards, since a paused holder does not know that it is late. ttl is 1 s to
// 24 h; it is renewed every third of it. A lock that somebody holds is refused,
// KIND_CONFLICT.
//
// release gives the lock back and waits for the renewing to end; call it
// exactly once, before Run ends. Its error means that the lock goes by itself after ttl.
func (n *Node) Lock(ctx context.Context, name string, ttl time.Duration) (_ context.Context, token uint64, release func() error, err error) {
	h := &holding{node: n, name: name, ttl: ttl}
	sent := time.Now()
	result, err := n.Propose(ctx, h.command(&metav1.Command{Kind: &metav1.Command_AcquireLock{
		AcquireLock: &metav1.AcquireLock{Name: name, Holder: n.id + "/" + randomID(), Ttl: int64(ttl)}}}))
	if err != nil {
		return nil, 0, nil, fmt.Errorf("lock %s: %w", name, err)
	}
	h.token = result.GetLock().GetToken()
	if late := time.Since(sent); late >= ttl {
		// The ledger may have let somebody else in already: such a context would be dead from the start.
		_ = h.release(ctx) // else it goes by itself
		return nil, 0, nil, fmt.Errorf("lock %s: %w", name, unavailable("the grant took %v to come, longer than the lock lasts", late.Round(time.Millisecond)))
	}
	held, lose := context.WithCancelCause(ctx)
	renewed := make(chan struct{})
	if !n.locks.start(func() {
		defer close(renewed)
		lose(h.keep(held, sent))
	}) {
		lose(context.Canceled)
		_ = h.release(ctx) // else it goes by itself
		return nil, 0, nil, fmt.Errorf("lock %s: %w", name, unavailable("node %s stops", n.id))
	}
	return held, h.token, sync.OnceValue(func() error {
		lose(context.Canceled)
		<-renewed
		return h.release(ctx)
	}), nil
}

// holdings are the locks that the node renews. Run owns their goroutines: none begins once it waits for the last.
type holdings struct {
	renewing sync.WaitGroup

	mu     sync.Mutex // guards what follows
	closed bool
}

// start runs fn, or answers false after wait.
func (h *holdings) start(fn func()) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.closed {
		h.renewing.Go(fn)
	}
	return !h.closed
}

// wait ends start, and waits for what it started.
func (h *holdings) wait() {
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	h.renewing.Wait()
}

// holding is one held lock.
type holding struct {
	node  *Node
	name  string
	ttl   time.Duration
	token uint64
}

// keep renews until ctx ends, or the lock is lost.
func (h *holding) keep(ctx context.Context, sent time.Time) error {
	for {
		if !until(ctx, sent.Add(h.ttl/3)) {
			return context.Cause(ctx)
		}
		next, err := h.renew(ctx, sent.Add(h.ttl))
		if err != nil {
			return err
		}
		sent = next
	}
}

// renew tries until the deadline, which is when the lock is lost.
func (h *holding) renew(ctx context.Context, deadline time.Time) (sent time.Time, err error) {
	ctx, cancel := context.WithDeadlineCause(ctx, deadline, ErrLockLost)
	defer cancel()
	for attempt := 0; ; attempt++ {
		sent = time.Now()
		_, err := h.node.Propose(ctx, h.command(&metav1.Command{Kind: &metav1.Command_RenewLock{
			RenewLock: &metav1.RenewLock{Name: h.name, Token: h.token, Ttl: int64(h.ttl)}}}))
		switch {
		case err == nil && ctx.Err() == nil:
			return sent, nil
		case ctx.Err() != nil:
			return sent, context.Cause(ctx)
		case !isRefusal(err), isUnavailable(err):
			_, tenure := h.node.leaders.now()
			pause(ctx, tenure, attempt)
		default:
			return sent, fmt.Errorf("%w: renew lock %s: %w", ErrLockLost, h.name, err)
		}
	}
}

func (h *holding) release(ctx context.Context) error {
	// The caller's context may be over, which is often why it lets go.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), h.node.cfg.Hold)
	defer cancel()
	_, err := h.node.Propose(ctx, h.command(&metav1.Command{Kind: &metav1.Command_ReleaseLock{
		ReleaseLock: &metav1.ReleaseLock{Name: h.name, Token: h.token}}}))
	if err != nil {
		return fmt.Errorf("release lock %s: %w", h.name, err)
	}
	return nil
}

func (h *holding) command(c *metav1.Command) *metav1.Command { return h.node.systemCommand(c) }

// until waits for an instant; false when ctx ends first.
func until(ctx context.Context, at time.Time) bool {
	t := time.NewTimer(time.Until(at))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
