package oci

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/pontoon-registry/pontoon/blobs"
	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// getBlob is end-2. HEAD makes no storage call.
func (c *call) getBlob() error {
	d, err := meta.ParseDigest(c.ref)
	if err != nil {
		return err
	}
	head := c.r.Method == http.MethodHead
	b, renew, err := c.lookBlob(d, head)
	if err != nil {
		return err
	}
	if renew {
		if err := c.confirm(&metav1.ConfirmContent{Repository: c.name, Blobs: [][]byte{d.Bytes()}}); err != nil {
			return err
		}
	}
	header := c.w.Header()
	header.Set(headerDigest, d.String())
	header.Set("ETag", etag(d))
	header.Set("Accept-Ranges", "bytes")
	if c.notModified(d) {
		return c.notChanged()
	}
	header.Set("Content-Type", "application/octet-stream")
	if head {
		header.Set("Content-Length", strconv.FormatInt(b.GetSize(), 10))
		c.sent = true
		c.w.WriteHeader(http.StatusOK)
		return nil
	}
	if url, ok := c.presign(b); ok {
		header.Set("Location", url)
		return c.empty(http.StatusTemporaryRedirect)
	}
	return c.serveBlob(d, b)
}

// lookBlob finds where a blob is, and whether a pusher's HEAD must renew its grace (G8).
func (c *call) lookBlob(d meta.Digest, head bool) (b *metav1.Blob, renew bool, err error) {
	err = c.view(true, func(v *meta.View) error {
		if b, err = v.Blob(c.name, d); err != nil {
			return c.orNoRepository(v, err)
		}
		if head && c.mayPush() {
			renew, err = v.NeedsConfirm(c.name, d)
		}
		return err
	})
	return b, renew, err
}

// orNoRepository turns "no such content" into "no such repository" where that is
// the reason: clients treat the two differently.
func (c *call) orNoRepository(v *meta.View, err error) error {
	if meta.KindOf(err) != metav1.Kind_KIND_UNKNOWN {
		return err
	}
	if _, rerr := v.Repository(c.name); rerr != nil {
		return rerr
	}
	return err
}

// confirm renews the grace of what a pusher is about to be told exists; without
// it the answer would promise what garbage collection may break (G8).
func (c *call) confirm(content *metav1.ConfirmContent) error {
	_, err := c.propose(c.r.Context(), &metav1.Command{Kind: &metav1.Command_ConfirmContent{ConfirmContent: content}})
	return err
}

// presign answers a URL of the store, if redirects are on and the store can make one.
func (c *call) presign(b *metav1.Blob) (url string, ok bool) {
	if !c.Redirect || b.GetStore() != c.StoreName || b.GetSize() == 0 {
		return "", false
	}
	url, err := c.Store.Presign(c.r.Context(), b.GetKey(), c.RedirectLifetime)
	if err != nil && !errors.Is(err, blobs.ErrUnsupported) {
		c.Log.InfoContext(c.r.Context(), "presign failed, blob is streamed", "key", b.GetKey(), "error", err)
	}
	return url, err == nil
}

// serveBlob streams a blob or a part of it. Content is never encoded, whatever
// the client accepts: its digest is that of these bytes.
func (c *call) serveBlob(d meta.Digest, b *metav1.Blob) error {
	part, is := c.requestedRange(d, b.GetSize())
	header := c.w.Header()
	status := http.StatusOK
	switch is {
	case unsatisfiable:
		header.Set("Content-Range", fmt.Sprintf("bytes */%d", b.GetSize()))
		return notInBlob(c.r.Header.Get("Range"), b.GetSize())
	case partial:
		status = http.StatusPartialContent
		header.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", part.offset, part.offset+part.length-1, b.GetSize()))
	case whole:
		part = span{0, b.GetSize()}
	}
	in, err := c.openBlob(d, b, part)
	if err != nil {
		header.Del("Content-Range")
		return err
	}
	if err = c.stream(status, in, part.length); err != nil {
		err = c.suspect(d, b, err)
	}
	if cerr := in.Close(); err == nil && cerr != nil {
		err = fmt.Errorf("close %s: %w", b.GetKey(), cerr)
	}
	return err
}

func (c *call) requestedRange(d meta.Digest, size int64) (span, verdict) {
	if condition := c.r.Header.Get("If-Range"); condition != "" && condition != etag(d) {
		return span{}, whole
	}
	return parseRange(c.r.Header.Get("Range"), size)
}

// openBlob opens a part of a blob. Bytes that the store does not have any more
// are reported, so that HEAD says 404 and the next push heals the blob (B7).
func (c *call) openBlob(d meta.Digest, b *metav1.Blob, part span) (io.ReadCloser, error) {
	if b.GetStore() != c.StoreName {
		return nil, meta.Refuse(metav1.Kind_KIND_UNAVAILABLE, metav1.Noun_NOUN_STORE,
			"blob %s is in store %q, this node has %q", d, b.GetStore(), c.StoreName)
	}
	if part.length == 0 {
		return http.NoBody, nil
	}
	began := time.Now()
	in, err := c.Store.Open(c.r.Context(), b.GetKey(), part.offset, part.length)
	c.Timing(c.r.Context(), "store", time.Since(began))
	if errors.Is(err, blobs.ErrNotFound) {
		return nil, c.markLost(d, b, "the store has no such object")
	}
	if err != nil {
		return nil, c.suspect(d, b, fmt.Errorf("open blob %s: %w", d, err))
	}
	return in, nil
}

// stream sends length bytes of in. The first of them are read before the header
// is sent, so that a store that fails at once is a 503 and no broken answer; the last are sent
// when the store has said what it has to say of all, so that bytes that are found wrong never make a whole answer.
func (c *call) stream(status int, in io.Reader, length int64) error {
	buffer := c.buffers.Get().(*[]byte)
	defer c.buffers.Put(buffer)
	first, err := readSome(in, (*buffer)[:min(int64(len(*buffer)), length)])
	if err == nil && int64(len(first)) == length {
		err = atEnd(in)
	}
	if err != nil {
		return fmt.Errorf("read blob: %w", err)
	}
	c.w.Header().Set("Content-Length", strconv.FormatInt(length, 10))
	ctl := http.NewResponseController(c.w)
	c.sent = true
	_ = ctl.SetWriteDeadline(time.Now().Add(c.IdleTimeout)) // a writer without deadlines is a test's
	c.w.WriteHeader(status)
	n, err := c.w.Write(first)
	sent := int64(n)
	for err == nil && sent < length {
		_ = ctl.SetWriteDeadline(time.Now().Add(c.IdleTimeout))
		var m int64
		if left := length - sent; left > int64(len(*buffer)) {
			m, err = io.CopyN(c.w, in, int64(len(*buffer)))
		} else {
			m, err = c.last(ctl, in, (*buffer)[:left])
		}
		sent += m
	}
	c.Metrics.Sent(sent)
	if err == nil {
		err = ctl.Flush()
		if errors.Is(err, http.ErrNotSupported) {
			err = nil
		}
		_ = ctl.SetWriteDeadline(time.Time{})
	}
	if err != nil {
		return c.cut(err)
	}
	return nil
}

// last sends the last bytes of a stream, as many as p holds, and answers how many it sent.
func (c *call) last(ctl *http.ResponseController, in io.Reader, p []byte) (int64, error) {
	n, err := io.ReadFull(in, p)
	if err == nil {
		err = atEnd(in)
	}
	if errors.Is(err, blobs.ErrCorrupt) {
		return 0, err
	}
	_ = ctl.SetWriteDeadline(time.Now().Add(c.IdleTimeout)) // the store may have taken its time
	sent, werr := c.w.Write(p[:n])                          // also what came before it broke: a client goes on from there
	if werr != nil {
		return int64(sent), werr
	}
	return int64(sent), err
}

// atEnd hears what a store that keeps checksums says once all was read.
func atEnd(in io.Reader) error {
	var probe [1]byte
	if _, err := in.Read(probe[:]); errors.Is(err, blobs.ErrCorrupt) {
		return err
	}
	return nil
}

// cut names who ended a stream early: the client, or the store.
func (c *call) cut(err error) error {
	if errors.Is(err, blobs.ErrUnavailable) || errors.Is(err, blobs.ErrCorrupt) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		if c.r.Context().Err() == nil {
			return fmt.Errorf("read blob: %w", err)
		}
	}
	return clientGone(err)
}

// readSome reads until there is at least a byte.
func readSome(in io.Reader, p []byte) ([]byte, error) {
	if len(p) == 0 {
		return nil, nil
	}
	n, err := io.ReadAtLeast(in, p, 1)
	if n > 0 {
		return p[:n], nil
	}
	return nil, err
}

// deleteBlob is end-10.
func (c *call) deleteBlob() error {
	d, err := meta.ParseDigest(c.ref)
	if err != nil {
		return err
	}
	if err := c.deletionOn(); err != nil {
		return err
	}
	_, err = c.propose(c.r.Context(), &metav1.Command{Kind: &metav1.Command_DeleteBlob{DeleteBlob: &metav1.DeleteBlob{
		Repository: c.name, Digest: d.Bytes(),
	}}})
	if err != nil {
		return c.notDeleted(err)
	}
	c.w.Header().Set(headerDigest, d.String())
	return c.empty(http.StatusAccepted)
}

// notDeleted names the repository if that is what is missing.
func (c *call) notDeleted(refusal error) error {
	if meta.KindOf(refusal) != metav1.Kind_KIND_UNKNOWN {
		return refusal
	}
	return c.view(false, func(v *meta.View) error { return c.orNoRepository(v, refusal) })
}

func (c *call) deletionOn() error {
	if c.Delete {
		return nil
	}
	return meta.Refuse(metav1.Kind_KIND_UNSUPPORTED, metav1.Noun_NOUN_UNSPECIFIED, "deletion is switched off by the configuration")
}
