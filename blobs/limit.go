package blobs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// Limit answers a Store that has at most calls calls to store in flight (B5).
// A call that waits longer than wait for its turn is answered ErrUnavailable,
// so that a slow store turns into quick refusals and not into a heap of waiting requests.
//
// A stream counts until Open answers, not until it is closed: slow clients must
// not use the store up. Lists, Presign and the calls of a Writer after its
// beginning do not count; a store bounds those itself. calls must be at least 1.
func Limit(store Store, calls int, wait time.Duration) Store {
	return &limit{Store: store, slots: make(chan struct{}, max(calls, 1)), wait: wait}
}

type limit struct {
	Store
	slots chan struct{}
	wait  time.Duration
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
	ctx, cancel := context.WithTimeoutCause(ctx, l.wait, errBusy)
	defer cancel()
	select {
	case l.slots <- struct{}{}:
		return leave, nil
	case <-ctx.Done():
		if cause := context.Cause(ctx); errors.Is(cause, errBusy) {
			return nil, fmt.Errorf("%s: %w for %v (limit %d): %w", verb, errBusy, l.wait, cap(l.slots), ErrUnavailable)
		}
		return nil, fmt.Errorf("%s: %w", verb, context.Cause(ctx))
	}
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
