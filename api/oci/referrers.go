package oci

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	godigest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// referrerRows is how many rows are read from the ledger at a time: their
// annotations may be 64 KiB each.
const referrerRows = 64

// maxIndex bounds the body of a referrers answer, like every manifest.
const maxIndex = meta.MaxManifest

// indexOverhead is what surrounds the descriptors of an index.
const indexOverhead = 256

// referrerList gathers one page.
type referrerList struct {
	subject meta.Digest
	// filter is applied when filtered is true, also if it is empty.
	filter   string
	filtered bool
	at       cursor
	items    []json.RawMessage
	size     int
	// full: the page ends before the list does.
	full bool
}

// listReferrers is end-12. It never answers 404: for clients that would mean
// that there is no such API. What only the legacy fallback tag lists comes after what refers by its subject.
func (c *call) listReferrers() error {
	subject, err := meta.ParseDigest(c.ref)
	if err != nil {
		return err
	}
	at, err := parseCursor(c.query.Get("next"))
	if err != nil {
		return err
	}
	l := &referrerList{
		subject: subject, filter: c.query.Get("artifactType"), filtered: c.query.Has("artifactType"),
		at: at, size: indexOverhead,
	}
	if l.at.phase == bySubject {
		if err := c.gatherBySubject(l); err != nil {
			return err
		}
	}
	if l.at.phase == byTag && !l.full {
		if err := c.gatherByTag(l); err != nil {
			return err
		}
	}
	return c.writeReferrers(l)
}

// referrer is one row with what is needed to describe it.
type referrer struct {
	meta.ReferrerItem
	// blob is where a large manifest is: its annotations are in the body.
	blob *metav1.Blob
}

// gatherBySubject fills the page from the ledger's rows.
func (c *call) gatherBySubject(l *referrerList) error {
	for {
		rows, more, err := c.referrerPage(l)
		if err != nil {
			return err
		}
		for _, row := range rows {
			if l.filtered && row.ArtifactType != l.filter {
				more = false // an empty filter: rows without a type come first
				break
			}
			item, err := c.describe(row)
			if err != nil {
				return err
			}
			if !l.add(item) {
				return nil
			}
			l.at.after = meta.ReferrerCursor{ArtifactType: row.ArtifactType, Digest: row.Digest}
		}
		if !more {
			l.at = cursor{phase: byTag}
			return nil
		}
	}
}

func (c *call) referrerPage(l *referrerList) (rows []referrer, more bool, err error) {
	err = c.view(false, func(v *meta.View) error {
		items, m, err := v.Referrers(c.name, l.subject, l.filter, l.at.after, referrerRows)
		more = m
		for _, item := range items {
			row := referrer{ReferrerItem: item}
			if item.GetLarge() && err == nil {
				row.blob, err = bodyOf(v, item.Digest)
			}
			rows = append(rows, row)
		}
		return err
	})
	return rows, more, err
}

// bodyOf answers where a large manifest is, nil if it is lost: it refers all the same.
func bodyOf(v *meta.View, d meta.Digest) (*metav1.Blob, error) {
	b, err := v.BlobLocation(d)
	if meta.KindOf(err) == metav1.Kind_KIND_UNKNOWN {
		return nil, nil
	}
	return b, err
}

// describe makes the descriptor of a referrer; a large manifest's annotations are read from its body (R-C4).
func (c *call) describe(row referrer) (json.RawMessage, error) {
	annotations := row.GetAnnotations()
	if row.blob != nil {
		body, err := c.largeBody(row.Digest, row.blob)
		switch {
		case meta.KindOf(err) == metav1.Kind_KIND_UNKNOWN:
			// It refers, though its bytes are lost: one lost manifest must not hide the others.
			return descriptor(row.GetMediaType(), row.Digest, row.GetSize(), row.ArtifactType, nil)
		case err != nil:
			return nil, err
		}
		facts, err := meta.ParseManifest(row.GetMediaType(), body)
		if err != nil {
			return nil, fmt.Errorf("read annotations of %s: %w", row.Digest, err)
		}
		annotations = facts.Annotations
	}
	return descriptor(row.GetMediaType(), row.Digest, row.GetSize(), row.ArtifactType, annotations)
}

func descriptor(mediaType string, d meta.Digest, size int64, artifactType string, annotations []*metav1.Annotation) (json.RawMessage, error) {
	out := ocispec.Descriptor{MediaType: mediaType, Digest: godigest.Digest(d.String()), Size: size, ArtifactType: artifactType}
	for _, a := range annotations {
		if out.Annotations == nil {
			out.Annotations = map[string]string{}
		}
		out.Annotations[a.GetKey()] = a.GetValue()
	}
	return json.Marshal(out)
}

// add appends an item, or answers false when the page has no room for it. A page takes at least one.
func (l *referrerList) add(item json.RawMessage) bool {
	if len(l.items) > 0 && l.size+len(item)+1 > maxIndex {
		l.full = true
		return false
	}
	l.items = append(l.items, item)
	l.size += len(item) + 1
	return true
}

func (c *call) writeReferrers(l *referrerList) error {
	if l.items == nil {
		l.items = []json.RawMessage{}
	}
	body, err := json.Marshal(struct {
		SchemaVersion int               `json:"schemaVersion"`
		MediaType     string            `json:"mediaType"`
		Manifests     []json.RawMessage `json:"manifests"`
	}{2, ocispec.MediaTypeImageIndex, l.items})
	if err != nil {
		return err
	}
	query := url.Values{}
	if l.filtered {
		c.w.Header().Set("OCI-Filters-Applied", "artifactType")
		query.Set("artifactType", l.filter)
	}
	if l.full {
		query.Set("next", l.at.encode())
		c.link("/v2/"+c.name+"/referrers/"+l.subject.String(), query)
	}
	return c.writeJSON(http.StatusOK, ocispec.MediaTypeImageIndex, body)
}

// fallbackTag is the tag under which clients keep referrers of a digest in
// registries without this API (section "Referrers Tag Schema").
func fallbackTag(d meta.Digest) string {
	algorithm, encoded, _ := strings.Cut(d.String(), ":")
	return algorithm[:min(len(algorithm), 32)] + "-" + encoded[:min(len(encoded), 64)]
}

// gatherByTag adds what the index under the fallback tag lists and the ledger's
// rows do not: manifests of this repository that name no subject of their own. Those that name
// this subject are there already; those that name another do not belong here.
func (c *call) gatherByTag(l *referrerList) error {
	listed, err := c.fallbackIndex(l.subject)
	if err != nil {
		return err
	}
	rest, _ := slices.BinarySearch(listed, l.at.after.Digest+"\x00")
	for some := range slices.Chunk(listed[rest:], referrerRows) {
		rows, err := c.listedRows(l, some)
		if err != nil {
			return err
		}
		for _, row := range rows {
			item, err := c.describe(row)
			if err != nil {
				return err
			}
			if !l.add(item) {
				return nil
			}
			l.at.after.Digest = row.Digest
		}
	}
	return nil
}

// fallbackIndex answers the digests that the index under the fallback tag lists,
// in order and each once; none when there is no such tag or it is no index.
func (c *call) fallbackIndex(subject meta.Digest) ([]meta.Digest, error) {
	f, err := c.lookManifest(fallbackTag(subject), "", false)
	if meta.KindOf(err) == metav1.Kind_KIND_UNKNOWN {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if f.blob != nil {
		if f.body, err = c.largeBody(f.digest, f.blob); err != nil {
			return nil, notMissing(err)
		}
	}
	facts, err := meta.ParseManifest(f.row.GetMediaType(), f.body)
	if err != nil {
		return nil, fmt.Errorf("read fallback index %s: %w", f.digest, err)
	}
	children := slices.Clone(facts.Children)
	slices.Sort(children)
	return slices.Compact(children), nil
}

// listedRows looks up those of the listed manifests that belong here. A sparse
// index may list others, which are left out.
func (c *call) listedRows(l *referrerList, listed []meta.Digest) (rows []referrer, err error) {
	err = c.view(false, func(v *meta.View) error {
		for _, d := range listed {
			m, err := v.Manifest(c.name, d)
			if meta.KindOf(err) == metav1.Kind_KIND_UNKNOWN {
				continue
			}
			if err != nil {
				return err
			}
			if len(m.GetSubject()) > 0 || (l.filtered && m.GetArtifactType() != l.filter) {
				continue
			}
			row := referrer{ReferrerItem: meta.ReferrerItem{ArtifactType: m.GetArtifactType(), Digest: d, Referrer: &metav1.Referrer{
				MediaType: m.GetMediaType(), Size: m.GetSize(), Annotations: m.GetAnnotations(), Large: m.GetLarge(),
			}}}
			if m.GetLarge() {
				if row.blob, err = bodyOf(v, d); err != nil {
					return err
				}
			}
			rows = append(rows, row)
		}
		return nil
	})
	return rows, err
}
