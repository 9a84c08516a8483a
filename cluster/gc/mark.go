package gc

import (
	"context"
	"fmt"

	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// untagged deletes manifests that nothing keeps, if the cycle was begun so. Their blobs keep a grace from then (G8).
func (t *turn) untagged(ctx context.Context) error {
	if !t.row.GetUntagged() {
		return t.next(ctx, metav1.CyclePhase_CYCLE_PHASE_MARK)
	}
	p := t.place()
	at := meta.UntaggedCursor{Repository: p.Repository, Digest: p.digest()}
	for {
		found, next, done, err := t.findUntagged(ctx, at)
		if err != nil {
			return err
		}
		if err := t.deleteUntagged(ctx, found); err != nil {
			return err
		}
		if done {
			return t.next(ctx, metav1.CyclePhase_CYCLE_PHASE_MARK)
		}
		at = next
		if err := t.recordNowAndThen(ctx, place{Repository: at.Repository, Digest: at.Digest.String()}); err != nil {
			return err
		}
		if err := t.rest(ctx); err != nil {
			return err
		}
	}
}

func (c *Collector) findUntagged(ctx context.Context, at meta.UntaggedCursor) (found []meta.UntaggedManifest, next meta.UntaggedCursor, done bool, err error) {
	err = c.view(ctx, func(v *meta.View) error {
		found, next, done, _, err = v.Untagged(at, c.sizes.find, c.sizes.visit)
		return err
	})
	return found, next, done, err
}

// deleteUntagged proposes one command for each repository, until it is done with all of the list.
func (t *turn) deleteUntagged(ctx context.Context, found []meta.UntaggedManifest) error {
	for len(found) > 0 {
		repository := found[0].Repository
		var digests [][]byte
		for len(found) > 0 && found[0].Repository == repository {
			digests = append(digests, found[0].Digest.Bytes())
			found = found[1:]
		}
		for range len(digests) { // each step takes one at least
			result, err := t.decide(ctx, "delete untagged manifests of "+repository, &metav1.Command{
				Kind: &metav1.Command_DeleteUntagged{DeleteUntagged: &metav1.DeleteUntagged{
					Cycle: t.row.GetBegun().GetIndex(), Repository: repository, Digests: digests,
				}}})
			if err != nil {
				return err
			}
			if !result.GetCount().GetMore() {
				break
			}
		}
	}
	return nil
}

// mark condemns the blobs that nothing needs.
func (t *turn) mark(ctx context.Context) error {
	at := t.place().digest()
	for {
		found, next, done, visited, err := t.findUnneeded(ctx, at)
		if err != nil {
			return err
		}
		if err := t.condemn(ctx, found); err != nil {
			return err
		}
		t.count.Marked += visited
		if done {
			return t.next(ctx, metav1.CyclePhase_CYCLE_PHASE_SWEEP)
		}
		at = next
		if err := t.recordNowAndThen(ctx, place{Digest: at.String()}); err != nil {
			return err
		}
		if err := t.rest(ctx); err != nil {
			return err
		}
	}
}

func (c *Collector) findUnneeded(ctx context.Context, at meta.Digest) (found []meta.UnneededBlob, next meta.Digest, done bool, visited int64, err error) {
	err = c.view(ctx, func(v *meta.View) error {
		found, next, done, visited, err = v.Unneeded(at, min(c.sizes.find, c.batch()), c.sizes.visit)
		return err
	})
	return found, next, done, visited, err
}

// condemn proposes to take the blobs away; Apply decides each again (G3) and counts those that go.
func (t *turn) condemn(ctx context.Context, found []meta.UnneededBlob) error {
	if len(found) == 0 {
		return nil
	}
	if err := t.deletes.WaitN(ctx, len(found)); err != nil {
		return fmt.Errorf("wait for the budget of deletes: %w", err)
	}
	c := &metav1.CondemnBlobs{Cycle: t.row.GetBegun().GetIndex()}
	for _, b := range found {
		c.Digests = append(c.Digests, b.Digest.Bytes())
	}
	_, err := t.decide(ctx, "condemn blobs from "+found[0].Digest.String(), &metav1.Command{Kind: &metav1.Command_CondemnBlobs{CondemnBlobs: c}})
	return err
}
