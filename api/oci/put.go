package oci

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// putManifest is end-7: by tag, by digest, or by digest with tags (7b).
func (c *call) putManifest() error {
	tag, d, err := reference(c.ref)
	if err != nil {
		return err
	}
	tags, err := c.tags(tag)
	if err != nil {
		return err
	}
	condition, err := c.tagCondition()
	if err != nil {
		return err
	}
	if condition != nil && len(tags) == 0 {
		return invalid(metav1.Noun_NOUN_TAG, "precondition: it speaks of tags, and the request writes none")
	}
	body, err := c.manifestBody()
	if err != nil {
		return err
	}
	if d, err = checkDigest(d, body); err != nil {
		return err
	}
	facts, err := meta.ParseManifest(mediaType(c.r.Header.Get("Content-Type")), body)
	if err != nil {
		return unsupportedManifest(err)
	}
	put := putCommand(c.name, d, facts, int64(len(body)))
	put.Tags, put.Condition = tags, condition
	if err := c.commitManifest(put, body); err != nil {
		return missingContent(err)
	}
	c.Metrics.Pushed("manifests")
	return c.manifestCreated(d, facts)
}

func (c *call) manifestCreated(d meta.Digest, facts *meta.Facts) error {
	header := c.w.Header()
	c.location("/v2/" + c.name + "/manifests/" + d.String())
	header.Set(headerDigest, d.String())
	header.Set("ETag", etag(d))
	if facts.Subject != "" {
		header.Set("OCI-Subject", facts.Subject.String())
	}
	for _, tag := range c.query["tag"] {
		header.Add("OCI-Tag", tag)
	}
	return c.empty(http.StatusCreated)
}

// tags answers the tags that a PUT sets, each once: all or none.
func (c *call) tags(tag string) ([]string, error) {
	var tags []string
	if tag != "" {
		tags = []string{tag}
	}
	for _, t := range c.query["tag"] {
		if err := meta.ParseTag(t); err != nil {
			return nil, err
		}
		if !slices.Contains(tags, t) {
			tags = append(tags, t)
		}
	}
	if len(tags) > meta.MaxTags {
		return nil, tooManyTags(len(tags))
	}
	return tags, nil
}

// manifestBody reads the body, at most meta.MaxManifest bytes of it.
func (c *call) manifestBody() ([]byte, error) {
	tooLarge := meta.Refuse(metav1.Kind_KIND_TOO_LARGE, metav1.Noun_NOUN_MANIFEST,
		"manifest: expected at most %d bytes, got more", meta.MaxManifest)
	if c.r.ContentLength > meta.MaxManifest {
		return nil, tooLarge
	}
	body, err := io.ReadAll(io.LimitReader(newBody(c), meta.MaxManifest+1))
	switch {
	case errors.Is(err, errStalled):
		return nil, stalled(fmt.Errorf("manifest: %w", err))
	case err != nil:
		return nil, c.bodyError(err)
	case len(body) > meta.MaxManifest:
		return nil, tooLarge
	case len(body) == 0:
		return nil, invalid(metav1.Noun_NOUN_MANIFEST, "manifest: got an empty body")
	}
	return body, nil
}

// checkDigest computes the digest by the algorithm that is claimed; a tag claims sha256.
func checkDigest(claimed meta.Digest, body []byte) (meta.Digest, error) {
	algorithm := meta.SHA256
	if claimed != "" {
		algorithm = claimed.Algorithm()
	}
	s := newSum(algorithm)
	_, _ = s.Write(body) // a hash never fails
	computed, err := s.digest()
	if err == nil && claimed != "" && claimed != computed {
		err = digestMismatch(claimed, computed)
	}
	return computed, err
}

// mediaType takes the parameters off a Content-Type, as the specification says.
func mediaType(contentType string) string {
	base, _, _ := strings.Cut(contentType, ";")
	return strings.TrimSpace(base)
}

func putCommand(repository string, d meta.Digest, facts *meta.Facts, size int64) *metav1.PutManifest {
	put := &metav1.PutManifest{
		Repository: repository, Digest: d.Bytes(), MediaType: facts.MediaType, Size: size,
		Blobs: packed(facts.Blobs), Children: packed(facts.Children),
		ArtifactType: facts.ArtifactType,
	}
	if facts.Subject != "" {
		put.Subject = facts.Subject.Bytes()
	}
	if size <= meta.MaxInlineBody {
		put.Annotations = facts.Annotations
	}
	return put
}

func packed(digests []meta.Digest) [][]byte {
	var out [][]byte
	for _, d := range digests {
		out = append(out, d.Bytes())
	}
	return out
}

// commitManifest proposes the manifest. A body too large for the log is an
// upload like any other, which the same command commits (R-C1).
func (c *call) commitManifest(put *metav1.PutManifest, body []byte) error {
	if len(body) <= meta.MaxInlineBody {
		put.Body = body
		return c.proposeManifest(put)
	}
	d, err := meta.UnpackDigest(put.GetDigest())
	if err != nil {
		return err
	}
	a, err := c.ownUpload(d, int64(len(body)))
	if err != nil {
		return err
	}
	if err := a.write(c.r.Context(), body); err != nil {
		a.abandon()
		c.dropUpload(a.id)
		return err
	}
	if put.Upload, err = c.finishBytes(c.r.Context(), a, d); err != nil {
		c.dropUpload(a.id)
		return err
	}
	err = c.proposeManifest(put)
	if err != nil && meta.KindOf(err) != metav1.Kind_KIND_OUTCOME_UNKNOWN {
		c.dropUpload(a.id)
	}
	return err
}

func (c *call) proposeManifest(put *metav1.PutManifest) error {
	_, err := c.propose(c.r.Context(), &metav1.Command{Kind: &metav1.Command_PutManifest{PutManifest: put}})
	return err
}
