package gc

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/pontoon-registry/pontoon/blobs"
	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// stored compares the ledger's keys with all that the store lists, page by page, the ledger after each. Both are in key
// order.
func (w *verification) stored() error {
	swept, err := w.lastSwept()
	if err != nil {
		return err
	}
	after := ""
	everything := func(ctx context.Context) iter.Seq2[blobs.Object, error] { return w.cfg.Store.List(ctx, "", "") }
	err = pages(w.ctx, w.sizes.page, everything, func(listed []blobs.Object) error {
		last := listed[len(listed)-1].Key
		if err := w.between(after, last, listed); err != nil {
			return err
		}
		after = last
		return w.unknown(listed, swept)
	})
	if err != nil {
		return err
	}
	return w.between(after, "", nil)
}

// lastSwept is the beginning of the last cycle that deleted all orphans that it found; nil if none did.
func (w *verification) lastSwept() (begun *metav1.Stamp, err error) {
	err = w.view(w.ctx, func(v *meta.View) error {
		history, err := v.Cycles(100)
		for _, c := range history {
			if c.GetOutcome() == metav1.CycleOutcome_CYCLE_OUTCOME_DONE {
				begun = c.GetBegun()
				break
			}
		}
		return err
	})
	return begun, err
}

// live is a blob's key, as one view had it.
type live struct {
	digest meta.Digest
	key    string
	size   int64
}

// between checks the ledger's live keys above after, up to last ("": to the end), against what was listed there.
func (w *verification) between(after, last string, listed []blobs.Object) error {
	for more := true; more; {
		var suspects []live
		err := w.view(w.ctx, func(v *meta.View) error {
			rows, next, err := v.Objects(w.cfg.StoreName, "", after, w.sizes.page)
			if err != nil {
				return err
			}
			more = next
			for _, row := range rows {
				if last != "" && row.Key > last {
					more = false
					break
				}
				after = row.Key
				suspect, err := w.suspect(v, row, listed)
				if err != nil {
					return err
				}
				if suspect != nil {
					suspects = append(suspects, *suspect)
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		for _, s := range suspects {
			if err := w.confirm(s); err != nil {
				return err
			}
		}
	}
	return nil
}

// suspect answers a live key that the listing does not have, or with another size.
func (w *verification) suspect(v *meta.View, row meta.ObjectItem, listed []blobs.Object) (*live, error) {
	d := meta.Digest(row.GetLive().GetDigest())
	if d == "" {
		return nil, nil
	}
	blob, err := v.StoredBlob(d)
	if err != nil || blob.GetKey() != row.Key || blob.GetLost() {
		return nil, err
	}
	i, found := slices.BinarySearchFunc(listed, row.Key, func(o blobs.Object, key string) int { return strings.Compare(o.Key, key) })
	if found && listed[i].Size == blob.GetSize() {
		return nil, nil
	}
	return &live{digest: d, key: row.Key, size: blob.GetSize()}, nil
}

// confirm asks the store for the key itself, and then the ledger whether it still is the blob's: it may have come after the
// listing, or gone since.
func (w *verification) confirm(s live) error {
	var size int64
	err := w.asked(w.ctx, "stat", func(ctx context.Context) (err error) {
		size, err = w.cfg.Store.Stat(ctx, s.key)
		return err
	})
	missing := errors.Is(err, blobs.ErrNotFound)
	if err != nil && !missing {
		return fmt.Errorf("stat %s: %w", s.key, err)
	}
	if !missing && size == s.size {
		return nil
	}
	still := false
	err = w.view(w.ctx, func(v *meta.View) error {
		blob, err := v.StoredBlob(s.digest)
		still = blob.GetKey() == s.key && blob.GetStore() == w.cfg.StoreName && !blob.GetLost()
		return err
	})
	if err != nil || !still {
		return err
	}
	if !missing {
		return w.differ(Difference{Kind: Size, Blob: s.digest, Key: s.key, Detail: fmt.Sprintf("the store has %d bytes, the ledger says %d", size, s.size)})
	}
	if err := w.differ(Difference{Kind: Missing, Blob: s.digest, Key: s.key, Detail: fmt.Sprintf("the store does not have its %d bytes", s.size)}); err != nil {
		return err
	}
	return w.markLost(s)
}

// markLost says that the bytes are missing, if asked to (B7). Apply refuses it if the blob has another key by then.
func (w *verification) markLost(s live) error {
	if !w.options.MarkLost {
		return nil
	}
	_, err := w.propose(w.ctx, &metav1.Command{Kind: &metav1.Command_MarkLost{MarkLost: &metav1.MarkLost{
		Digest: s.digest.Bytes(), Store: w.cfg.StoreName, Key: s.key}}})
	switch meta.KindOf(err) {
	case metav1.Kind_KIND_CONFLICT, metav1.Kind_KIND_UNKNOWN:
		return nil // healed or gone meanwhile
	}
	if err != nil {
		return fmt.Errorf("mark %s lost: %w", s.digest, err)
	}
	w.sum.MarkedLost++
	return nil
}

// unknown counts the objects of our epoch that the ledger does not know. One that the last whole cycle should have
// deleted is a difference; the others go in a later one.
func (w *verification) unknown(listed []blobs.Object, swept *metav1.Stamp) error {
	var strays, left []blobs.Object
	err := w.view(w.ctx, func(v *meta.View) error {
		system, err := v.System()
		if err != nil {
			return err
		}
		for _, o := range listed {
			// Of any age: what is young is counted too.
			stray, err := w.stray(v, stored{epoch: system.GetEpoch(), key: o.Key, date: o.Modified}, o.Modified)
			if err != nil {
				return err
			}
			if !stray {
				continue
			}
			strays = append(strays, o)
			due, err := w.wasDue(v, o, system.GetSettings().GetUploadLifetime(), swept)
			if err != nil {
				return err
			}
			if due {
				left = append(left, o)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, o := range strays {
		w.sum.OrphanKeys++
		w.sum.OrphanBytes += o.Size
	}
	for _, o := range left {
		if err := w.differ(Difference{Kind: Orphan, Key: o.Key, Detail: "the ledger does not know it, and the last cycle did not delete it"}); err != nil {
			return err
		}
	}
	return nil
}

// wasDue says whether a cycle that began at swept should have deleted a stray: it was old enough by then, and its upload
// had ended. When that was is known until the upload's row goes, a lifetime later.
func (w *verification) wasDue(v *meta.View, o blobs.Object, lifetime int64, swept *metav1.Stamp) (bool, error) {
	if swept == nil || !o.Modified.Add(w.cfg.OrphanAge).Before(time.Unix(0, swept.GetWallTime())) {
		return false, nil
	}
	name, _, err := blobs.ParseKey(o.Key)
	if err != nil {
		return false, nil //nolint:nilerr // not ours: no stray either
	}
	u, err := v.StoredUpload(name.Upload)
	if err != nil || u == nil {
		return err == nil, err
	}
	ended := u.GetExpires() // of one that ran out and was not ended yet
	if u.GetOutcome() != metav1.UploadOutcome_UPLOAD_OUTCOME_UNSPECIFIED {
		ended -= lifetime
	}
	return ended <= swept.GetClusterTime(), nil
}
