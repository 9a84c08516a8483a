package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/pontoon-registry/pontoon/blobs"
	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// maxDiscard bounds what is read and thrown away so that a client can hear that its blob is there already.
const maxDiscard = 64 << 20

// putUpload is end-6: the last bytes, if any, and the commit.
func (c *call) putUpload() error {
	d, err := meta.ParseDigest(c.query.Get("digest"))
	if err != nil {
		return err
	}
	chunk, ranged, err := c.chunk()
	if err != nil {
		return err
	}
	held, s, err := c.hold()
	if err != nil {
		return err
	}
	defer s.end()
	u, err := c.lookUpload()
	if err != nil {
		return err
	}
	if u.row.GetOutcome() == metav1.UploadOutcome_UPLOAD_OUTCOME_COMMITTED {
		s.body.discard(maxDiscard)
		return c.committed(u, d)
	}
	if err := u.mustBeOpen(); err != nil {
		return err
	}
	if err := c.inOrder(u, chunk, ranged); err != nil {
		return err
	}
	a := c.newAttempt(u, c.r.ContentLength)
	a.hashFor(d)
	if !ranged && c.r.ContentLength != 0 && a.holds(d) {
		// The same PUT came before and was saved, not committed: its bytes are here.
		s.body.discard(maxDiscard)
		return c.commit(a, d)
	}
	// Without Content-Range the same bytes are sent again when it breaks (package doc).
	a.saves = ranged || c.r.ContentLength < 0 // of unknown length the store takes only so much unsaved
	if err := a.receive(held, limited(s.body, chunk, ranged)); err != nil {
		return c.commitLost(a.id, d, c.breakOff(held, a, err, ranged))
	}
	if err := checkChunk(s.body, chunk, ranged); err != nil {
		return c.breakOff(held, a, err, false)
	}
	return c.commit(a, d)
}

// hashFor hashes by the algorithm that is claimed, where nothing was hashed yet.
// With another one the state of an upload in progress is of no use (B4).
func (a *attempt) hashFor(d meta.Digest) {
	switch {
	case a.offset == 0:
		a.sum = newSum(d.Algorithm())
	case a.sum != nil && a.sum.algorithm != d.Algorithm():
		a.sum = nil
	}
}

// committed answers a repeated PUT (R-A5). It tells a pusher once more that the blob is there: so it must be, and for
// another grace (G8).
func (c *call) committed(u *openUpload, d meta.Digest) error {
	was, err := meta.UnpackDigest(u.row.GetDigest())
	if err != nil {
		return err
	}
	if was != d {
		return digestMismatch(d, was)
	}
	renew := false
	err = c.view(false, func(v *meta.View) (err error) {
		if _, err = v.Blob(c.name, d); err == nil {
			renew, err = v.NeedsConfirm(c.name, d)
		}
		return err
	})
	if err == nil && renew {
		err = c.confirm(&metav1.ConfirmContent{Repository: c.name, Blobs: [][]byte{d.Bytes()}})
	}
	if meta.KindOf(err) == metav1.Kind_KIND_UNKNOWN {
		return unknown(metav1.Noun_NOUN_UPLOAD, "upload %s: its blob is not here any more, start over", u.id)
	}
	if err != nil {
		return err
	}
	c.blobLocation(d)
	return c.empty(http.StatusCreated)
}

// postBlob is end-4b: a whole blob in one request, two proposals.
func (c *call) postBlob() error {
	d, err := meta.ParseDigest(c.query.Get("digest"))
	if err != nil {
		return err
	}
	a, err := c.ownUpload(d, c.r.ContentLength)
	if err != nil {
		return err
	}
	a.saves = c.r.ContentLength < 0
	if err := a.receive(c.r.Context(), newBody(c)); err != nil {
		a.abandon()
		c.dropUpload(a.id)
		if b, ok := isBroken(err); ok && errors.Is(b.err, errStalled) {
			return stalled(err)
		} else if ok {
			return c.bodyError(b.err)
		}
		return err
	}
	return c.commit(a, d)
}

// ownUpload opens an upload that only this request will write.
func (c *call) ownUpload(d meta.Digest, length int64) (*attempt, error) {
	epoch := ""
	err := c.view(false, func(v *meta.View) error {
		system, err := v.System()
		epoch = system.GetEpoch()
		return err
	})
	if err != nil {
		return nil, err
	}
	id, revision, err := c.open(d.Algorithm())
	if err != nil {
		return nil, err
	}
	row := &metav1.Upload{Repository: c.name, Store: c.StoreName, Revision: revision, Algorithm: uint32(d.Algorithm())}
	return c.newAttempt(&openUpload{id: id, epoch: epoch, row: row}, length), nil
}

// commit makes the bytes of the attempt the blob d, and answers 201.
func (c *call) commit(a *attempt, d meta.Digest) error {
	cmd, err := c.finishBytes(c.r.Context(), a, d)
	if err == nil {
		_, err = c.propose(c.r.Context(), &metav1.Command{Kind: &metav1.Command_CommitUpload{CommitUpload: cmd}})
	}
	if err != nil {
		return c.commitLost(a.id, d, err)
	}
	c.Metrics.Pushed("blobs")
	c.blobLocation(d)
	return c.empty(http.StatusCreated)
}

// commitLost answers a PUT that found another revision, or the upload ended: perhaps the same PUT came twice.
func (c *call) commitLost(id string, d meta.Digest, refusal error) error {
	row := (*metav1.Upload)(nil)
	if kind := meta.KindOf(refusal); meta.NounOf(refusal) != metav1.Noun_NOUN_UPLOAD ||
		kind != metav1.Kind_KIND_CONFLICT && kind != metav1.Kind_KIND_UNKNOWN {
		return refusal
	}
	err := c.view(false, func(v *meta.View) (err error) {
		row, err = v.Upload(id)
		return err
	})
	if err != nil || row.GetOutcome() != metav1.UploadOutcome_UPLOAD_OUTCOME_COMMITTED {
		return refusal
	}
	return c.committed(&openUpload{id: id, row: row}, d)
}

// finishBytes verifies the digest, makes the bytes one object and answers the
// command that commits it. A mismatch cancels the upload: these bytes are nobody's.
func (c *call) finishBytes(ctx context.Context, a *attempt, d meta.Digest) (*metav1.CommitUpload, error) {
	p, err := a.closeOut(ctx)
	if err != nil {
		return nil, err
	}
	if a.sum != nil {
		if err := c.verify(a, d); err != nil {
			return nil, err
		}
	}
	if err := a.share(ctx, p); err != nil {
		return nil, err
	}
	began := time.Now()
	done, err := c.Store.Finish(ctx, a.name, p)
	c.Timing(c.r.Context(), "store", time.Since(began))
	if err != nil {
		return nil, lostUpload(a.id, fmt.Errorf("finish upload %s: %w", a.id, err))
	}
	if done.Size != p.Size {
		return nil, fmt.Errorf("finish upload %s: the store has %d bytes of %d", a.id, done.Size, p.Size)
	}
	if a.sum == nil {
		if a.sum, err = c.rehash(ctx, done, d.Algorithm()); err != nil {
			return nil, err
		}
		if err := c.verify(a, d); err != nil {
			return nil, err
		}
	}
	return &metav1.CommitUpload{
		Id: a.id, Repository: c.name, Revision: a.revision, Digest: d.Bytes(),
		Size: done.Size, Key: done.Key, Completed: done.Completed,
	}, nil
}

// verify compares the computed digest with the claimed one (B2).
func (c *call) verify(a *attempt, d meta.Digest) error {
	computed, err := a.sum.digest()
	if err != nil {
		return err
	}
	if computed != d {
		c.dropUpload(a.id)
		return digestMismatch(d, computed)
	}
	return nil
}

// rehash reads the finished object: for a hash state that could not travel, or
// an algorithm that was not known while the bytes came (B4).
func (c *call) rehash(ctx context.Context, done blobs.Finished, algorithm byte) (*sum, error) {
	s := newSum(algorithm)
	in, err := c.Store.Open(ctx, done.Key, 0, done.Size)
	if err != nil {
		return nil, fmt.Errorf("read %s again: %w", done.Key, err)
	}
	n, err := io.Copy(s, in)
	if cerr := in.Close(); err == nil {
		err = cerr
	}
	if err == nil && n != done.Size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, fmt.Errorf("read %s again: %w", done.Key, err)
	}
	return s, nil
}
