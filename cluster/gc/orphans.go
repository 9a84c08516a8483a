package gc

import (
	"context"
	"errors"
	"slices"

	"github.com/pontoon-registry/pontoon/blobs"
)

// errHalted ends the phase; what was wrong is noted already.
var errHalted = errors.New("the phase is over")

// orphans deletes what is in the store and the ledger never knew: bytes of attempts whose saves were refused or never
// made, writes that landed after their key was swept, multipart uploads whose id nobody saved.
//
//	list a page ─► view, which began after that (G7) ─► prove the store ours (G9) ─► delete
//
// An upload is in the ledger before its bytes (G1), so what was listed belongs to an upload that the view has, or to
// none that can ever commit: it is garbage unless the upload is open or the key has a row. Besides, it must be old.
func (t *turn) orphans(ctx context.Context) error {
	err := t.allOrphans(ctx)
	if err != nil && !errors.Is(err, errHalted) {
		return err
	}
	return t.end(ctx)
}

func (t *turn) allOrphans(ctx context.Context) error {
	if err := t.prove(ctx); err != nil {
		return err
	}
	epochs, err := t.epochs(ctx, t.row.GetForgetEpochs())
	if err != nil {
		return err
	}
	at := t.place()
	if i := slices.Index(epochs, at.Epoch); i >= 0 {
		epochs = epochs[i:]
	} else {
		at = place{}
	}
	for _, epoch := range epochs {
		if at.Epoch != epoch {
			at = place{Epoch: epoch}
		}
		if !at.Multiparts {
			if err := t.orphanObjects(ctx, at); err != nil {
				return err
			}
		}
		if err := t.orphanMultiparts(ctx, epoch); err != nil {
			return err
		}
	}
	return nil
}

// prove ends the phase unless the store is ours.
func (t *turn) prove(ctx context.Context) error {
	err := t.raise(ctx, 0)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, ErrNotOwner):
		t.fail("delete no orphans: `pontoon gc adopt` takes the store over", err)
	default:
		t.fail("read the owner mark", err)
	}
	return errHalted
}

func (t *turn) orphanObjects(ctx context.Context, at place) error {
	epoch := at.Epoch
	err := pages(ctx, t.sizes.page, t.listObjects(epoch, at.Key), func(listed []blobs.Object) error {
		at.Key = listed[len(listed)-1].Key
		strays, err := t.strayObjects(ctx, epoch, listed)
		if err != nil {
			return inner{err}
		}
		return inside(t.eraseOrphans(ctx, at, strays))
	})
	return t.listed(ctx, "list objects of epoch "+epoch, err)
}

// inner marks an error as not the listing's.
type inner struct{ error }

func (i inner) Unwrap() error { return i.error }

func inside(err error) error {
	if err == nil {
		return nil
	}
	return inner{err}
}

// listed judges how a listing ended: a store that did not answer is trouble, all else is passed on.
func (t *turn) listed(ctx context.Context, what string, err error) error {
	var in inner
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.As(err, &in):
		return in.error
	}
	t.fail(what, err)
	return errHalted
}

// eraseOrphans deletes the orphans of a page and records that it is done.
func (t *turn) eraseOrphans(ctx context.Context, at place, strays []blobs.Object) error {
	for chunk := range slices.Chunk(strays, t.batch()) {
		if err := t.eraseChunk(ctx, chunk); err != nil {
			return err
		}
	}
	if len(strays) > 0 {
		// At once: nothing but the record remembers what was deleted here.
		if err := t.record(ctx, at); err != nil {
			return err
		}
	} else if err := t.recordNowAndThen(ctx, at); err != nil {
		return err
	}
	return t.rest(ctx)
}

func (t *turn) eraseChunk(ctx context.Context, strays []blobs.Object) error {
	if err := t.prove(ctx); err != nil {
		return err
	}
	size := make(map[string]int64, len(strays))
	keys := make([]string, 0, len(strays))
	for _, o := range strays {
		size[o.Key] = o.Size
		keys = append(keys, o.Key)
	}
	gone, err := t.erase(ctx, keys)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	for _, key := range gone {
		t.count.OrphanKeys++
		t.count.OrphanBytes += size[key]
	}
	if err != nil {
		t.fail("delete orphans", err)
	}
	if t.refuses(len(keys), len(gone), err) {
		return errHalted
	}
	return nil
}

// orphanMultiparts aborts the multipart uploads of an epoch that nobody can complete. A store may list none.
func (t *turn) orphanMultiparts(ctx context.Context, epoch string) error {
	at := place{Epoch: epoch, Multiparts: true}
	err := pages(ctx, t.sizes.page, t.listMultiparts(epoch), func(listed []blobs.Multipart) error {
		strays, err := t.strayMultiparts(ctx, epoch, listed)
		if err != nil {
			return inner{err}
		}
		return inside(t.abortOrphans(ctx, at, strays))
	})
	return t.listed(ctx, "list multipart uploads of epoch "+epoch, err)
}

func (t *turn) abortOrphans(ctx context.Context, at place, strays []blobs.Multipart) error {
	if len(strays) > 0 {
		if err := t.prove(ctx); err != nil {
			return err
		}
	}
	for _, m := range strays {
		err := t.abort(ctx, m.Key, m.ID)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err == nil:
			t.count.AbortedMultiparts++
			continue
		}
		t.count.Failed++
		t.fail("abort a multipart upload", err)
		if unavailable(err) {
			return errHalted
		}
	}
	if len(strays) > 0 {
		if err := t.record(ctx, at); err != nil {
			return err
		}
	}
	return t.rest(ctx)
}
