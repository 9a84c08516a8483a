package blobs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// queued is how many calls may wait for each that is in flight. A store that is well works off a burst, such as a
// hundred clients that pull at once, long before anybody's patience ends; a heap without a bound would only be memory.
const queued = 16

// Limit answers a Store that has at most calls calls to store in flight, and sixteen
// times as many that wait for their turn (B5). A call beyond both is refused at once, one that waits longer than wait
// then: ErrUnavailable and ErrRefused. So a slow store turns into refusals and not into a heap of waiting requests.
//
// A stream counts until Open answers, not until it is closed: slow clients must
// not use the store up. Lists, Presign and the calls of a Writer after its
// beginning do not count; a store bounds those itself. calls must be at least 1.
func Limit(store Store, calls int, wait time.Duration, w Watcher) Store {
	calls = max(calls, 1)
	return &limit{Store: store, slots: make(chan struct{}, calls), queue: make(chan struct{}, queued*calls), wait: wait, watch: w}
}

type limit struct {
	Store
	// slots has one in it for each call in flight, queue for each that waits.
	slots, queue chan struct{}
	wait         time.Duration
	watch        Watcher
}

// errBusy is the cause with which waiting ends, to tell it from the caller's own deadline.
var errBusy = errors.New("too many calls in flight")

func (l *limit) enter(ctx context.Context, verb string) (leave func(), err error) {
	leave = func() { <-l.slots }
	select {
	case l.slots <- struct{}{}:
		return leave, nil
	default:
	}
	select {
	case l.queue <- struct{}{}:
		defer func() { <-l.queue }()
	default:
		return nil, l.refuse(verb, fmt.Sprintf("and %d wait", cap(l.queue)))
	}
	ctx, cancel := context.WithTimeoutCause(ctx, l.wait, errBusy)
	defer cancel()
	select {
	case l.slots <- struct{}{}:
		return leave, nil
	case <-ctx.Done():
		if cause := context.Cause(ctx); errors.Is(cause, errBusy) {
			return nil, l.refuse(verb, fmt.Sprintf("for %v", l.wait))
		}
		return nil, fmt.Errorf("%s: %w", verb, context.Cause(ctx))
	}
}

func (l *limit) refuse(verb, how string) error {
	l.watch.Refused(RefusedBusy)
	return fmt.Errorf("%s: %w: %w %s (limit %d): %w", verb, ErrRefused, errBusy, how, cap(l.slots), ErrUnavailable)
}

func (l *limit) Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	leave, err := l.enter(ctx, "open "+key)
	if err != nil {
		return nil, err
	}
	defer leave()
	return l.Store.Open(ctx, key, offset, length)
}

func (l *limit) Stat(ctx context.Context, key string) (int64, error) {
	leave, err := l.enter(ctx, "stat "+key)
	if err != nil {
		return 0, err
	}
	defer leave()
	return l.Store.Stat(ctx, key)
}

func (l *limit) Writer(ctx context.Context, a Attempt) (Writer, error) {
	leave, err := l.enter(ctx, "begin "+a.Key(0))
	if err != nil {
		return nil, err
	}
	defer leave()
	return l.Store.Writer(ctx, a)
}

func (l *limit) Finish(ctx context.Context, attempt Name, p Progress) (Finished, error) {
	leave, err := l.enter(ctx, "finish "+attempt.Key(0))
	if err != nil {
		return Finished{}, err
	}
	defer leave()
	return l.Store.Finish(ctx, attempt, p)
}

func (l *limit) AbortMultipart(ctx context.Context, key, id string) error {
	leave, err := l.enter(ctx, "abort "+key)
	if err != nil {
		return err
	}
	defer leave()
	return l.Store.AbortMultipart(ctx, key, id)
}

func (l *limit) Delete(ctx context.Context, keys ...string) error {
	leave, err := l.enter(ctx, "delete")
	if err != nil {
		return err
	}
	defer leave()
	return l.Store.Delete(ctx, keys...)
}
