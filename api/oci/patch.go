package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// session is what a request that writes an upload holds.
type session struct {
	body *body
	end  func()
}

// upload names the upload among the writers. The repository is part of it, so that
// whoever knows an id cannot end the writer of a repository that is not theirs.
func (c *call) upload() string { return c.name + "/" + c.ref }

// hold makes this request the upload's writer on this node (B6). The context
// outlives the client, and ends when a later request takes the upload over.
func (c *call) hold() (context.Context, *session, error) {
	s := &session{body: newBody(c)}
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(c.r.Context()))
	leave, err := c.writers.enter(c.r.Context(), c.upload(), func() {
		cancel(errTakenOver)
		s.body.interrupt()
	})
	if err != nil {
		cancel(nil)
		return nil, nil, err
	}
	s.end = func() { leave(); cancel(nil) }
	return ctx, s, nil
}

// patchUpload is end-5: one chunk, or a stream of unknown length.
func (c *call) patchUpload() error {
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
	if err := u.mustBeOpen(); err != nil {
		return err
	}
	a := c.newAttempt(u, c.r.ContentLength)
	if err := c.inOrder(u, chunk, ranged); err != nil {
		return err
	}
	a.saves = true
	if err := a.receive(held, limited(s.body, chunk, ranged)); err != nil {
		return c.breakOff(held, a, err, true)
	}
	// All bytes are here: what remains is not for a later request to cut.
	ctx, cancel := c.lasting(c.ProposeTimeout + settle)
	defer cancel()
	if err := a.finish(ctx); err != nil {
		a.abandon()
		return err
	}
	if err := checkChunk(s.body, chunk, ranged); err != nil {
		return err
	}
	c.uploadHeaders(u.id, a.offset)
	return c.empty(http.StatusAccepted)
}

// chunk reads Content-Range and holds it against Content-Length.
func (c *call) chunk() (span, bool, error) {
	chunk, ranged, err := parseContentRange(c.r.Header.Get("Content-Range"))
	if err != nil || !ranged {
		return chunk, ranged, err
	}
	if n := c.r.ContentLength; n >= 0 && n != chunk.length {
		return chunk, ranged, invalid(metav1.Noun_NOUN_SIZE,
			"Content-Length: got %d, expected %d, the length of Content-Range", n, chunk.length)
	}
	return chunk, ranged, nil
}

// inOrder answers 416 for a chunk that does not begin where the upload ends.
func (c *call) inOrder(u *openUpload, chunk span, ranged bool) error {
	if !ranged || chunk.offset == u.row.GetOffset() {
		return nil
	}
	c.uploadHeaders(u.id, u.row.GetOffset())
	return outOfOrder("Content-Range: got a chunk that begins at %d, expected %d", chunk.offset, u.row.GetOffset())
}

// limited keeps a chunk without Content-Length within its Content-Range.
func limited(b *body, chunk span, ranged bool) io.Reader {
	if !ranged {
		return b
	}
	return io.LimitReader(b, chunk.length)
}

// checkChunk answers an error when the body was shorter or longer than its range.
func checkChunk(b *body, chunk span, ranged bool) error {
	if !ranged {
		return nil
	}
	if b.taken < chunk.length {
		return invalid(metav1.Noun_NOUN_SIZE, "body: got %d bytes, expected %d of Content-Range", b.taken, chunk.length)
	}
	var probe [1]byte
	if n, _ := b.Read(probe[:]); n > 0 {
		return invalid(metav1.Noun_NOUN_SIZE, "body: got more than the %d bytes of Content-Range", chunk.length)
	}
	return nil
}

// breakOff ends an attempt that did not end well. What a client sent before it
// broke off or stalled is saved if keep says so; what a later request interrupts, or the
// store refuses, is left at its last save.
func (c *call) breakOff(held context.Context, a *attempt, err error, keep bool) error {
	b, bodyBroke := isBroken(err)
	if context.Cause(held) != nil || (bodyBroke && errors.Is(b.err, errTakenOver)) {
		a.abandon()
		return takenOver()
	}
	if !bodyBroke || !keep {
		a.abandon()
	} else {
		ctx, cancel := c.lasting(settle)
		defer cancel()
		if serr := a.finish(ctx); serr != nil {
			a.abandon()
			c.Log.InfoContext(ctx, "upload not saved after its client broke off", "upload", a.id, "error", serr)
		}
	}
	switch {
	case !bodyBroke:
		return err
	case errors.Is(b.err, errStalled):
		return stalled(fmt.Errorf("upload %s: %w", a.id, errStalled))
	}
	return c.bodyError(b.err)
}
