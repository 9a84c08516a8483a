package meta

import (
	"bytes"
	"slices"

	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// named is what a PutManifest names, unpacked.
type named struct {
	digest, subject Digest
	blobs, children []Digest
}

// checkManifest checks bounds and unpacks digests; what they mean was judged at the door (M1).
func checkManifest(c *metav1.PutManifest) (m named, err error) {
	if m.digest, err = UnpackDigest(c.GetDigest()); err != nil {
		return m, err
	}
	if len(c.GetSubject()) > 0 {
		if m.subject, err = UnpackDigest(c.GetSubject()); err != nil {
			return m, err
		}
	}
	if n := len(c.GetBlobs()) + len(c.GetChildren()); n > MaxReferences {
		return m, tooLarge(metav1.Noun_NOUN_MANIFEST, "manifest: got %d references, at most %d are accepted", n, MaxReferences)
	}
	if m.blobs, err = unpackAll(c.GetBlobs()); err != nil {
		return m, err
	}
	if m.children, err = unpackAll(c.GetChildren()); err != nil {
		return m, err
	}
	if n := len(c.GetTags()); n > MaxTags {
		return m, tooLarge(metav1.Noun_NOUN_TAG, "manifest: got %d tags, at most %d are accepted", n, MaxTags)
	}
	for _, tag := range c.GetTags() {
		if err := checkName(metav1.Noun_NOUN_TAG, "tag", tag); err != nil {
			return m, err
		}
	}
	return m, checkBody(c)
}

func checkBody(c *metav1.PutManifest) error {
	size, body := c.GetSize(), len(c.GetBody())
	inline := c.GetUpload() == nil
	if size < 1 || size > MaxManifest || inline != (size <= MaxInlineBody) || inline && size != int64(body) || !inline && body != 0 {
		return invalid(metav1.Noun_NOUN_SIZE,
			"manifest: got size %d with %d bytes of body, expected the body up to %d bytes, an upload above, %d at most", size, body, MaxInlineBody, MaxManifest)
	}
	if n := len(c.GetMediaType()); n == 0 || n > maxName {
		return invalid(metav1.Noun_NOUN_MANIFEST, "manifest: media type: got %d bytes, expected 1 to %d", n, maxName)
	}
	if a := c.GetArtifactType(); len(a) > maxName || hasNUL(a) {
		return invalid(metav1.Noun_NOUN_MANIFEST, "manifest: artifact type: got %q, expected at most %d bytes without NUL", clip(a), maxName)
	}
	total := 0
	for _, a := range c.GetAnnotations() {
		total += len(a.GetKey()) + len(a.GetValue())
	}
	if !inline && total > 0 || total > MaxInlineBody {
		return invalid(metav1.Noun_NOUN_MANIFEST, "manifest: annotations: got %d bytes, expected at most %d, and none with a body that is not inline", total, MaxInlineBody)
	}
	return nil
}

func unpackAll(packed [][]byte) ([]Digest, error) {
	out := make([]Digest, 0, len(packed))
	for _, b := range packed {
		d, err := UnpackDigest(b)
		if err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

func sameFacts(a, b *metav1.Manifest) bool {
	equal := func(x, y [][]byte) bool { return slices.EqualFunc(x, y, bytes.Equal) }
	return a.GetMediaType() == b.GetMediaType() && a.GetArtifactType() == b.GetArtifactType() &&
		bytes.Equal(a.GetSubject(), b.GetSubject()) && equal(a.GetBlobs(), b.GetBlobs()) && equal(a.GetChildren(), b.GetChildren())
}

func packAll(ds []Digest) [][]byte {
	out := make([][]byte, 0, len(ds))
	for _, d := range ds {
		out = append(out, d.Bytes())
	}
	return out
}
