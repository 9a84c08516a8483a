package oci

import (
	"encoding/base64"

	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// maxCursor bounds an encoded cursor, in bytes: an artifact type is at most 255 bytes,
// a digest 65.
const maxCursor = 1024

// The phases of a referrers list: what refers by its subject, then what only
// the legacy fallback tag lists.
const (
	bySubject byte = 's'
	byTag     byte = 't'
)

// cursor is the place in a referrers list after which the next page begins.
type cursor struct {
	phase byte
	after meta.ReferrerCursor
}

// encode makes the opaque form: phase, length of the packed digest, digest, artifact type.
func (c cursor) encode() string {
	b := []byte{c.phase, byte(len(c.after.Digest))}
	b = append(b, c.after.Digest...)
	b = append(b, c.after.ArtifactType...)
	return base64.RawURLEncoding.EncodeToString(b)
}

// parseCursor reads what encode made; "" is the beginning.
func parseCursor(s string) (cursor, error) {
	if s == "" {
		return cursor{phase: bySubject}, nil
	}
	if len(s) > maxCursor {
		return cursor{}, invalid(metav1.Noun_NOUN_CURSOR, "next: got %d bytes, expected at most %d", len(s), maxCursor)
	}
	malformed := invalid(metav1.Noun_NOUN_CURSOR, "next: got %q, expected the cursor of a Link header of ours", clip(s))
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || len(b) < 2 || (b[0] != bySubject && b[0] != byTag) {
		return cursor{}, malformed
	}
	n := int(b[1])
	if len(b) < 2+n {
		return cursor{}, malformed
	}
	c := cursor{phase: b[0], after: meta.ReferrerCursor{ArtifactType: string(b[2+n:])}}
	if n == 0 {
		// Only the beginning of the second phase has no digest before it.
		if c.phase != byTag || c.after.ArtifactType != "" {
			return cursor{}, malformed
		}
		return c, nil
	}
	if c.after.Digest, err = meta.UnpackDigest(b[2 : 2+n]); err != nil {
		return cursor{}, malformed
	}
	return c, nil
}
