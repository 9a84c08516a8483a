package oci

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/pontoon-registry/pontoon/blobs"
	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// reference reads <tag-or-digest>: exactly one of the two is set.
func reference(ref string) (tag string, d meta.Digest, err error) {
	if strings.Contains(ref, ":") {
		d, err = meta.ParseDigest(ref)
		return "", d, err
	}
	return ref, "", meta.ParseTag(ref)
}

// found is a manifest as one View saw it.
type found struct {
	digest meta.Digest
	row    *metav1.Manifest
	// body is there for a GET of a manifest that the ledger holds; blob says where a larger one is.
	body []byte
	blob *metav1.Blob
	// renew: a pusher's HEAD must renew the grace (G8).
	renew bool
}

// getManifest is end-3. The stored media type is served whatever Accept says:
// a client that cannot use it finds out itself, and those that send no or a short list go on working.
func (c *call) getManifest() error {
	tag, d, err := reference(c.ref)
	if err != nil {
		return err
	}
	head := c.r.Method == http.MethodHead
	f, err := c.lookManifest(tag, d, head)
	if err != nil {
		return err
	}
	if f.renew {
		if err := c.confirm(&metav1.ConfirmContent{Repository: c.name, Manifests: [][]byte{f.digest.Bytes()}}); err != nil {
			return err
		}
	}
	header := c.w.Header()
	header.Set(headerDigest, f.digest.String())
	header.Set("ETag", etag(f.digest))
	if c.notModified(f.digest) {
		return c.notChanged()
	}
	if head {
		header.Set("Content-Type", f.row.GetMediaType())
		header.Set("Content-Length", strconv.FormatInt(f.row.GetSize(), 10))
		c.sent = true
		c.w.WriteHeader(http.StatusOK)
		return nil
	}
	if f.blob != nil {
		if f.body, err = c.largeBody(f.digest, f.blob); err != nil {
			return err
		}
	}
	c.pulls.add(c.name, f.digest)
	return c.writeJSON(http.StatusOK, f.row.GetMediaType(), f.body)
}

// lookManifest reads all that an answer needs at one index. A read by tag never falls back to a stale state.
func (c *call) lookManifest(tag string, d meta.Digest, head bool) (*found, error) {
	f := &found{digest: d}
	err := c.view(tag == "", func(v *meta.View) (err error) {
		if tag != "" {
			if f.digest, err = tagged(v, c.name, tag); err != nil {
				return c.orNoRepository(v, err)
			}
		}
		if f.row, err = v.Manifest(c.name, f.digest); err != nil {
			return c.orNoRepository(v, err)
		}
		if f.row.GetLarge() {
			// Also for a HEAD: one that is lost must be pushed again (B7).
			if f.blob, err = v.BlobLocation(f.digest); err != nil {
				return lostManifest(f.digest, err)
			}
		}
		switch {
		case head && c.mayPush():
			f.renew, err = v.NeedsConfirm(c.name, f.digest)
		case !head && f.blob == nil:
			f.body, err = v.ManifestBody(f.digest)
		}
		return err
	})
	return f, err
}

func tagged(v *meta.View, repository, tag string) (meta.Digest, error) {
	row, err := v.Tag(repository, tag)
	if err != nil {
		return "", err
	}
	return meta.UnpackDigest(row.GetDigest())
}

// largeBody reads the body of a manifest that is a blob (R-C1).
func (c *call) largeBody(d meta.Digest, b *metav1.Blob) ([]byte, error) {
	if b.GetSize() > meta.MaxManifest {
		return nil, fmt.Errorf("read manifest %s: it has %d bytes", d, b.GetSize())
	}
	in, err := c.openBlob(d, b, span{0, b.GetSize()})
	if err != nil {
		return nil, lostManifest(d, err)
	}
	body := make([]byte, b.GetSize())
	_, err = io.ReadFull(in, body)
	if cerr := in.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = isOf(d, body)
	}
	if err != nil {
		return nil, lostManifest(d, c.suspect(d, b, fmt.Errorf("read manifest %s: %w", d, err)))
	}
	return body, nil
}

// isOf answers blobs.ErrCorrupt unless a body is what its digest says.
func isOf(d meta.Digest, body []byte) error {
	s := newSum(d.Algorithm())
	_, _ = s.Write(body) // a hash takes all
	computed, err := s.digest()
	if err == nil && computed != d {
		err = fmt.Errorf("%w: its digest is %s", blobs.ErrCorrupt, computed)
	}
	return err
}

// lostManifest names the manifest where a blob is not there that is its body.
func lostManifest(d meta.Digest, err error) error {
	if meta.KindOf(err) != metav1.Kind_KIND_UNKNOWN {
		return err
	}
	return unknown(metav1.Noun_NOUN_MANIFEST, "manifest %s: its bytes are lost; push it again", d)
}

// deleteManifest is end-9: of a tag, or of a manifest with all its tags.
func (c *call) deleteManifest() error {
	tag, d, err := reference(c.ref)
	if err != nil {
		return err
	}
	if err := c.deletionOn(); err != nil {
		return err
	}
	condition, err := c.tagCondition()
	if err != nil {
		return err
	}
	if condition.GetAbsent() || (condition != nil && tag == "") {
		return invalid(metav1.Noun_NOUN_TAG, "precondition: expected If-Match on DELETE of a tag, got another")
	}
	cmd := &metav1.Command{Kind: &metav1.Command_DeleteManifest{DeleteManifest: &metav1.DeleteManifest{
		Repository: c.name, Digest: d.Bytes(),
	}}}
	if tag != "" {
		cmd.Kind = &metav1.Command_DeleteTag{DeleteTag: &metav1.DeleteTag{
			Repository: c.name, Tag: tag, Condition: condition,
		}}
	}
	if _, err := c.propose(c.r.Context(), cmd); err != nil {
		return c.notDeleted(err)
	}
	if d != "" {
		c.w.Header().Set(headerDigest, d.String())
	}
	return c.empty(http.StatusAccepted)
}
