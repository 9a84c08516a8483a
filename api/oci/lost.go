package oci

import (
	"context"
	"errors"
	"fmt"

	"github.com/pontoon-registry/pontoon/blobs"
	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// What a reader finds wrong with the bytes of a live blob (B7). Keys are written
// once, so bytes that are missing, or too few, do not come back by waiting: the
// blob is marked lost, HEAD says 404, and the next push of it, in any
// repository, heals it for all. Nothing is marked by what may mend itself: a store
// that is down, denies, or a 404 that is not its own (blobs/s3).
//
// A byte that changed in place is not looked for: clients compare digests. An operator who learns of one deletes the
// object, and the next pull marks it (RUNBOOK).

// markLost tells the ledger that the bytes of a blob are not there, and answers what the client hears.
func (c *call) markLost(d meta.Digest, b *metav1.Blob, why string) error {
	ctx, cancel := c.lasting(settle)
	defer cancel()
	repositories := c.repositoriesOf(ctx, d)
	_, err := c.propose(ctx, &metav1.Command{Kind: &metav1.Command_MarkLost{MarkLost: &metav1.MarkLost{
		Digest: d.Bytes(), Store: b.GetStore(), Key: b.GetKey(),
	}}})
	c.Log.ErrorContext(ctx, "blob is lost: push it again, to any repository", "why", why, "digest", d.String(), "size", b.GetSize(),
		"store", b.GetStore(), "key", b.GetKey(), "repositories", repositories, "repository", c.name, "marked", err == nil)
	if err == nil {
		c.Metrics.Lost()
	}
	if err != nil && meta.KindOf(err) == metav1.Kind_KIND_UNAVAILABLE {
		return err
	}
	return unknown(metav1.Noun_NOUN_BLOB, "blob %s: its bytes are lost; push it again", d)
}

// repositoriesOf counts the repositories that hold a blob, up to 1,000, for the log.
func (c *call) repositoriesOf(ctx context.Context, d meta.Digest) (n int) {
	_ = c.Ledger.View(ctx, meta.Read{}, func(v *meta.View) error { // a count of 0 is no reason to leave it unmarked
		_, err := v.MountSource(d, func(string) bool { n++; return false })
		return err
	})
	return n
}

// suspect looks at a blob whose stream failed for another reason than its client, and marks it lost if its length
// is not the ledger's. It answers the error to go on with.
func (c *call) suspect(d meta.Digest, b *metav1.Blob, err error) error {
	if errors.Is(err, blobs.ErrUnavailable) || answerOf(err).status == statusClientClosed {
		return err
	}
	ctx, cancel := c.lasting(settle)
	defer cancel()
	size, serr := c.Store.Stat(ctx, b.GetKey())
	if serr != nil || size == b.GetSize() {
		return err
	}
	lost := c.markLost(d, b, fmt.Sprintf("the store has %d bytes of it", size))
	if c.sent { // the answer is cut, whatever is said
		return err
	}
	return lost
}
