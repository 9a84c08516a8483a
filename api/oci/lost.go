package oci

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/pontoon-registry/pontoon/blobs"
	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// What a reader finds wrong with the bytes of a live blob (B7). Keys are written
// once, so bytes that are missing, or too few, do not come back by waiting: the
// blob is marked lost, HEAD says 404, and the next push of it, in any
// repository, heals it for all. Nothing is marked by what may mend itself: a store
// that is down, denies, has no owner mark of this cluster, or a 404 that is not its own (blobs/s3).
//
// A byte that changed is not looked for: clients compare digests. Where the store keeps a checksum of the
// whole object and finds it wrong (S3 of a layer that fits one part), the answer is cut before it is whole. The object is then read
// a few times more, and marked if its digest is wrong each time, and the same: what spoils bytes on their way spoils others each time.
// Of another one that an operator learns of, the object is deleted, and the next pull marks it (RUNBOOK).

// markLost tells the ledger that the bytes of a blob are not there, and answers what the client hears.
func (c *call) markLost(d meta.Digest, b *metav1.Blob, why string) error {
	ctx, cancel := c.lasting(settle)
	defer cancel()
	if c.Owned != nil {
		if err := c.Owned(ctx); err != nil {
			c.Log.ErrorContext(ctx, "blob is not in the store, and not marked lost, since the store may be another than it was: "+
				"look at the bucket, the root directory and its mount", "why", why, "digest", d.String(), "key", b.GetKey(), "error", err)
			return meta.Refuse(metav1.Kind_KIND_UNAVAILABLE, metav1.Noun_NOUN_STORE, "blob %s: the store is not the one that it was pushed to", d)
		}
	}
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

// suspect looks at a blob whose stream failed for another reason than its client, and marks it lost if what is stored
// is not what the ledger says. It answers the error to go on with.
func (c *call) suspect(d meta.Digest, b *metav1.Blob, err error) error {
	if errors.Is(err, blobs.ErrUnavailable) || answerOf(err).status == statusClientClosed {
		return err
	}
	ctx, cancel := c.lasting(settle)
	defer cancel()
	size, serr := c.Store.Stat(ctx, b.GetKey())
	why := ""
	switch {
	case serr != nil:
		return err
	case size != b.GetSize():
		why = fmt.Sprintf("the store has %d bytes of it", size)
	case !errors.Is(err, blobs.ErrCorrupt):
		return err
	case !c.damaged(ctx, d, b, err):
		if c.sent {
			return err
		}
		return meta.Refuse(metav1.Kind_KIND_UNAVAILABLE, metav1.Noun_NOUN_STORE, "blob %s: its bytes were damaged on their way from the store", d)
	default:
		why = "its bytes are not those of its digest"
	}
	lost := c.markLost(d, b, why)
	if c.sent { // the answer is cut, whatever is said
		return err
	}
	return lost
}

// looks is how often a blob is read before it counts as damaged.
const looks = 3

// damaged reads a blob again, as far as ctx allows, and says whether it came whole and wrong, each time in the same way. If
// not, the log is told why it is not marked. found is what made it suspect.
func (c *call) damaged(ctx context.Context, d meta.Digest, b *metav1.Blob, found error) bool {
	var wrong meta.Digest
	for i := range looks {
		computed, err := c.reread(ctx, d, b)
		if err != nil {
			c.Log.WarnContext(ctx, "blob came damaged from the store, and could not be read again: it is not marked lost now, the next pull looks again",
				"digest", d.String(), "key", b.GetKey(), "found", found, "error", err)
			return false
		}
		if computed == d || i > 0 && computed != wrong {
			c.Log.WarnContext(ctx, "blob came damaged from the store, and not each time in the same way: it is not marked lost, look at what lies between",
				"digest", d.String(), "key", b.GetKey(), "error", found)
			return false
		}
		wrong = computed
	}
	return true
}

// reread answers the digest of what the store has, which must be as long as the ledger says.
func (c *call) reread(ctx context.Context, d meta.Digest, b *metav1.Blob) (computed meta.Digest, err error) {
	in, err := c.Store.Open(ctx, b.GetKey(), 0, b.GetSize())
	if err != nil {
		return computed, err
	}
	defer func() { _ = in.Close() }() // only read
	s := newSum(d.Algorithm())
	n, err := io.Copy(s, in)
	if err != nil && !errors.Is(err, blobs.ErrCorrupt) {
		return computed, err
	}
	if n != b.GetSize() {
		return computed, io.ErrUnexpectedEOF
	}
	return s.digest()
}
