package gc

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/pontoon-registry/pontoon/blobs"
)

// raise asks the mark; see Mark.
func (c *Collector) raise(ctx context.Context, sweptThrough uint64) error {
	return c.asked(ctx, "owner mark", func(ctx context.Context) error { return c.cfg.Mark.Raise(ctx, sweptThrough) })
}

// erase deletes keys, at most as many as the budget has in a second, and answers those that are gone for certain. An
// error says why the others may not be.
func (c *Collector) erase(ctx context.Context, keys []string) (gone []string, err error) {
	if len(keys) == 0 {
		return nil, nil
	}
	if err := c.deletes.WaitN(ctx, len(keys)); err != nil {
		return nil, fmt.Errorf("wait for the budget of deletes: %w", err)
	}
	err = c.asked(ctx, "delete", func(ctx context.Context) error { return c.cfg.Store.Delete(ctx, keys...) })
	if err == nil {
		return keys, nil
	}
	if unavailable(err) || ctx.Err() != nil {
		return nil, err
	}
	// It let some go and refused others, such as locked ones; which, its joined errors do not say.
	for _, key := range keys {
		at := c.asked(ctx, "stat", func(ctx context.Context) error {
			_, err := c.cfg.Store.Stat(ctx, key)
			return err
		})
		switch {
		case errors.Is(at, blobs.ErrNotFound):
			gone = append(gone, key)
		case unavailable(at) || ctx.Err() != nil:
			return gone, errors.Join(err, at)
		}
	}
	return gone, err
}

// abort ends one multipart upload.
func (c *Collector) abort(ctx context.Context, key, id string) error {
	if err := c.deletes.Wait(ctx); err != nil {
		return fmt.Errorf("wait for the budget of deletes: %w", err)
	}
	return c.asked(ctx, "abort", func(ctx context.Context) error { return c.cfg.Store.AbortMultipart(ctx, key, id) })
}

// unavailable says whether a store that answered so should not be asked again for now.
func unavailable(err error) bool {
	return errors.Is(err, blobs.ErrUnavailable) || errors.Is(err, errHangs)
}

// pages reads a listing and calls fn for each page of it, after all of the page was listed (G7). A page must come within
// storeTime; what fn takes does not count. The page is valid until fn returns.
func pages[T any](ctx context.Context, size int, list func(context.Context) iter.Seq2[T, error], fn func([]T) error) error {
	listing, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	patience := time.AfterFunc(storeTime, func() { cancel(errHangs) })
	defer patience.Stop()
	batch := make([]T, 0, size)
	for item, err := range list(listing) {
		if err != nil {
			if ctx.Err() == nil && errors.Is(context.Cause(listing), errHangs) {
				return fmt.Errorf("no page within %v: %w: %w", storeTime, errHangs, err)
			}
			return err
		}
		if batch = append(batch, item); len(batch) < size {
			continue
		}
		patience.Stop()
		if err := fn(batch); err != nil {
			return err
		}
		batch = batch[:0]
		patience.Reset(storeTime)
	}
	patience.Stop()
	if len(batch) == 0 || ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return fn(batch)
}
