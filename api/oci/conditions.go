package oci

import (
	"net/http"
	"strings"

	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

func etag(d meta.Digest) string { return `"` + d.String() + `"` }

// notModified says whether If-None-Match names d (RFC 9110, 13.1.2: weak comparison).
func (c *call) notModified(d meta.Digest) bool {
	for _, value := range c.r.Header.Values("If-None-Match") {
		for one := range strings.SplitSeq(value, ",") {
			one = strings.TrimPrefix(strings.TrimSpace(one), "W/")
			if one == "*" || one == etag(d) {
				return true
			}
		}
	}
	return false
}

// notChanged answers 304, which has no body and no length.
func (c *call) notChanged() error {
	c.sent = true
	c.w.WriteHeader(http.StatusNotModified)
	return nil
}

// tagCondition reads the precondition of a tag write (M6): If-Match with the digest that the
// tag must have, or If-None-Match: *. Nil is none. What cannot be promised is refused, never ignored.
func (c *call) tagCondition() (*metav1.TagCondition, error) {
	match, none := c.r.Header.Values("If-Match"), c.r.Header.Values("If-None-Match")
	switch {
	case len(match) == 0 && len(none) == 0:
		return nil, nil
	case len(match)+len(none) > 1:
		return nil, invalid(metav1.Noun_NOUN_TAG, "precondition: got several, expected one If-Match or one If-None-Match")
	case len(none) == 1:
		if strings.TrimSpace(none[0]) != "*" {
			return nil, invalid(metav1.Noun_NOUN_TAG, "If-None-Match: got %q, expected * for a write", clip(none[0]))
		}
		return &metav1.TagCondition{Absent: true}, nil
	}
	value, quoted := strings.CutPrefix(strings.TrimSpace(match[0]), `"`)
	value, ended := strings.CutSuffix(value, `"`)
	d, err := meta.ParseDigest(value)
	if !quoted || !ended || err != nil {
		return nil, invalid(metav1.Noun_NOUN_TAG, `If-Match: got %s, expected "<digest>" of the manifest that the tag must have`, clip(match[0]))
	}
	return &metav1.TagCondition{Digest: d.Bytes()}, nil
}
