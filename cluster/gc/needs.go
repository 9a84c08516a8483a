package gc

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/pontoon-registry/pontoon/blobs"
	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// manifests reads every body and notes what it names.
func (w *verification) manifests(v *meta.View) error {
	return v.EachManifest(func(repository string, d meta.Digest, row *metav1.Manifest) error {
		if err := w.alive(); err != nil {
			return err
		}
		w.sum.Manifests++
		facts, err := w.facts(v, repository, d, row)
		if err != nil {
			return err
		}
		self := []byte{0}
		if row.GetLarge() {
			self = []byte{1}
		}
		w.scratch.set(linkKey(scratchNeed, meta.Link{Blob: d, Repository: repository, Manifest: d}), self)
		for _, b := range facts.Blobs {
			w.scratch.set(linkKey(scratchNeed, meta.Link{Blob: b, Repository: repository, Manifest: d}), []byte{1})
		}
		for _, child := range facts.Children {
			w.scratch.set(addDigest(inRepository(scratchChild, repository, child), d), nil)
		}
		if facts.Subject != "" {
			w.scratch.set(addDigest(addName(inRepository(scratchReferrer, repository, facts.Subject), facts.ArtifactType), d), nil)
		}
		w.scratch.add(nameKey(scratchSum, repository), tally{manifests: 1})
		w.scratch.add(digestKey(scratchBody, d), tally{manifests: 1})
		return w.scratch.err
	})
}

// facts reads a manifest's body. If it cannot be read that is a difference, and what the row says counts for the rest.
func (w *verification) facts(v *meta.View, repository string, d meta.Digest, row *metav1.Manifest) (*meta.Facts, error) {
	body, err := w.body(v, d, row)
	if err != nil && !wrong(err) {
		return nil, fmt.Errorf("read manifest %s: %w", d, err)
	}
	var facts *meta.Facts
	if err == nil {
		if facts, err = meta.ParseManifest(row.GetMediaType(), body); err == nil {
			return facts, nil
		}
	}
	facts = &meta.Facts{Subject: meta.Digest(row.GetSubject()), ArtifactType: row.GetArtifactType()}
	for _, b := range row.GetBlobs() {
		facts.Blobs = append(facts.Blobs, meta.Digest(b))
	}
	for _, b := range row.GetChildren() {
		facts.Children = append(facts.Children, meta.Digest(b))
	}
	return facts, w.differ(Difference{Kind: Body, Repository: repository, Manifest: d, Detail: err.Error()})
}

// wrong says whether an error is about what is stored, not about the way to it.
func wrong(err error) bool {
	return errors.Is(err, blobs.ErrNotFound) || errors.Is(err, blobs.ErrCorrupt) || errors.Is(err, io.ErrUnexpectedEOF) ||
		meta.KindOf(err) == metav1.Kind_KIND_UNKNOWN
}

// body reads a body of at most 4 MiB and checks its digest.
func (w *verification) body(v *meta.View, d meta.Digest, row *metav1.Manifest) (body []byte, err error) {
	if row.GetLarge() {
		body, err = w.largeBody(v, d)
	} else {
		body, err = v.ManifestBody(d)
	}
	if err != nil {
		return nil, err
	}
	h := hashOf(d)
	_, _ = h.Write(body) // never fails
	if got, err := meta.PackDigest(d.Algorithm(), h.Sum(nil)); err != nil || got != d {
		return nil, fmt.Errorf("body of %d bytes has digest %s: %w", len(body), got, blobs.ErrCorrupt)
	}
	return body, nil
}

func (w *verification) largeBody(v *meta.View, d meta.Digest) (body []byte, err error) {
	blob, err := v.BlobLocation(d)
	if err != nil {
		return nil, err
	}
	if blob.GetStore() != w.cfg.StoreName || blob.GetSize() > meta.MaxManifest {
		return nil, fmt.Errorf("body of %d bytes in store %s: %w", blob.GetSize(), blob.GetStore(), blobs.ErrCorrupt)
	}
	err = w.asked(w.ctx, "open", func(ctx context.Context) error {
		r, err := w.cfg.Store.Open(ctx, blob.GetKey(), 0, blob.GetSize())
		if err != nil {
			return err
		}
		defer func() { _ = r.Close() }() // only read
		body, err = io.ReadAll(r)
		return err
	})
	return body, err
}

func hashOf(d meta.Digest) hash.Hash {
	switch d.Algorithm() {
	case meta.SHA512:
		return sha512.New()
	case meta.SHA384:
		return sha512.New384()
	}
	return sha256.New()
}

// references compares who needs what with the rows that say so.
func (w *verification) references(v *meta.View) error {
	missing := func(rest []byte) error {
		l := cutLink(rest)
		if absent, err := v.IsAbsent(l); err != nil || absent {
			return err // a sparse manifest: it names what was not live
		}
		return w.differ(Difference{Kind: Unrecorded, Repository: l.Repository, Manifest: l.Manifest, Blob: l.Blob,
			Detail: "the manifest needs the blob, and no row says so"})
	}
	return w.scratch.compare(scratchNeed, missing, func(found func([]byte) ([]byte, bool, error)) error {
		return v.EachReference(func(l meta.Link) error {
			if err := w.alive(); err != nil {
				return err
			}
			w.sum.References++
			value, both, err := found(linkKey(scratchNeed, l)[1:])
			if err != nil {
				return err
			}
			if !both {
				return w.differ(unfounded(l))
			}
			if len(value) > 0 && value[0] == 1 {
				w.scratch.set(addName(digestKey(scratchLink, l.Blob), l.Repository), []byte{1})
			}
			return nil
		})
	})
}

func unfounded(l meta.Link) Difference {
	return Difference{Kind: Unfounded, Repository: l.Repository, Manifest: l.Manifest, Blob: l.Blob,
		Detail: "a row says that the manifest needs the blob; no such manifest does"}
}

// absents checks that what sparse manifests name without having it is named by them.
func (w *verification) absents(v *meta.View) error {
	return v.EachAbsent(func(l meta.Link) error {
		if err := w.alive(); err != nil {
			return err
		}
		_, named := w.scratch.get(linkKey(scratchNeed, l))
		both, err := v.IsReferenced(l)
		switch {
		case err != nil:
			return err
		case !named || l.Blob == l.Manifest:
			return w.differ(unfounded(l))
		case both:
			return w.differ(Difference{Kind: Key, Repository: l.Repository, Manifest: l.Manifest, Blob: l.Blob,
				Detail: "the blob is both needed and absent"})
		}
		return nil
	})
}

// mirror compares rows that follow from others with those that they follow from. text names a row for people.
func (w *verification) mirror(kind byte, text func(rest []byte) Difference, walk func(found func([]byte) error) error) error {
	missing := func(rest []byte) error {
		d := text(rest)
		d.Kind, d.Detail = Unrecorded, "no row says that "+d.Detail
		return w.differ(d)
	}
	return w.scratch.compare(kind, missing, func(found func([]byte) ([]byte, bool, error)) error {
		return walk(func(key []byte) error {
			if err := w.alive(); err != nil {
				return err
			}
			_, both, err := found(key[1:])
			if err != nil || both {
				return err
			}
			d := text(key[1:])
			d.Kind, d.Detail = Unfounded, "a row says that "+d.Detail+"; it is not so"
			return w.differ(d)
		})
	})
}

func (w *verification) children(v *meta.View) error {
	text := func(rest []byte) (d Difference) {
		d.Repository, rest = cutName(rest)
		child, rest := cutDigest(rest)
		d.Manifest, _ = cutDigest(rest)
		d.Detail = "index " + d.Manifest.String() + " names manifest " + child.String()
		return d
	}
	return w.mirror(scratchChild, text, func(found func([]byte) error) error {
		return v.EachChild(func(repository string, child, index meta.Digest) error {
			return found(addDigest(inRepository(scratchChild, repository, child), index))
		})
	})
}

func (w *verification) referrers(v *meta.View) error {
	text := func(rest []byte) (d Difference) {
		d.Repository, rest = cutName(rest)
		subject, rest := cutDigest(rest)
		_, rest = cutName(rest)
		d.Manifest, _ = cutDigest(rest)
		d.Detail = "manifest " + d.Manifest.String() + " refers to " + subject.String()
		return d
	}
	return w.mirror(scratchReferrer, text, func(found func([]byte) error) error {
		return v.EachReferrer(func(repository string, subject meta.Digest, artifactType string, d meta.Digest) error {
			return found(addDigest(addName(inRepository(scratchReferrer, repository, subject), artifactType), d))
		})
	})
}
