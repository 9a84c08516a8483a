package meta

import (
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// Whole ranges at one index, in key order, for who recomputes the state from what it was made of (`gc verify`). Nothing
// is hidden here: rows of repositories that are being deleted are walked too. Each walk ends with the first error of fn.
// A view that is held for long costs disk: what the state rewrites meanwhile stays.

// Link says that a manifest of a repository names a blob.
type Link struct {
	Blob       Digest
	Repository string
	Manifest   Digest
}

// each walks a range; rest is the key after its first byte.
func (v *View) each(r byte, fn func(rest, value []byte) error) error {
	var stop error
	v.scan(oneRow(nil, r), nil, func(k, value []byte) bool {
		stop = fn(k[1:], value)
		return stop == nil
	})
	if stop != nil {
		return stop
	}
	return v.err
}

func (v *View) eachLink(r byte, fn func(Link) error) error {
	return v.each(r, func(rest, _ []byte) error {
		var l Link
		l.Blob, rest = cutDigest(rest)
		l.Repository, rest = cutName(rest)
		l.Manifest, _ = cutDigest(rest)
		return fn(l)
	})
}

// EachReference walks the rows that say who needs a blob; every manifest references itself.
func (v *View) EachReference(fn func(Link) error) error { return v.eachLink(rangeReference, fn) }

// EachAbsent walks the rows of sparse manifests that name what is not live.
func (v *View) EachAbsent(fn func(Link) error) error { return v.eachLink(rangeAbsent, fn) }

// IsAbsent says whether there is such a row.
func (v *View) IsAbsent(l Link) (bool, error) {
	return v.has(linkKey(nil, rangeAbsent, l.Blob, l.Repository, l.Manifest)), v.err
}

// IsReferenced says whether a reference row has the link.
func (v *View) IsReferenced(l Link) (bool, error) {
	return v.has(linkKey(nil, rangeReference, l.Blob, l.Repository, l.Manifest)), v.err
}

// EachManifest walks the manifests of all repositories.
func (v *View) EachManifest(fn func(repository string, d Digest, row *metav1.Manifest) error) error {
	return v.each(rangeManifest, func(rest, value []byte) error {
		repository, rest := cutName(rest)
		d, _ := cutDigest(rest)
		row := &metav1.Manifest{}
		if !v.decode(rest, value, row) {
			return v.err
		}
		return fn(repository, d, row)
	})
}

// EachBody walks the bodies, those that are blobs included.
func (v *View) EachBody(fn func(d Digest, row *metav1.ManifestBody) error) error {
	return v.each(rangeManifestBody, func(rest, value []byte) error {
		d, _ := cutDigest(rest)
		row := &metav1.ManifestBody{}
		if !v.decode(rest, value, row) {
			return v.err
		}
		return fn(d, row)
	})
}

// EachGrace walks the grace rows, in the order of blobs.
func (v *View) EachGrace(fn func(blob Digest, repository string) error) error {
	return v.each(rangeGrace, func(rest, _ []byte) error {
		d, rest := cutDigest(rest)
		repository, _ := cutName(rest)
		return fn(d, repository)
	})
}

// EachGraced walks the mirror of the grace rows, in the order of repositories.
func (v *View) EachGraced(fn func(repository string, blob Digest) error) error {
	return v.each(rangeGraced, func(rest, _ []byte) error {
		repository, rest := cutName(rest)
		d, _ := cutDigest(rest)
		return fn(repository, d)
	})
}

// EachBlob walks the blobs, lost ones included.
func (v *View) EachBlob(fn func(d Digest, row *metav1.Blob) error) error {
	return v.each(rangeBlob, func(rest, value []byte) error {
		d, _ := cutDigest(rest)
		row := &metav1.Blob{}
		if !v.decode(rest, value, row) {
			return v.err
		}
		return fn(d, row)
	})
}

// StoredBlob is a blob's row, also when it is lost; nil when there is none.
func (v *View) StoredBlob(d Digest) (*metav1.Blob, error) { return v.blob(d), v.err }

// EachTag walks the tags of all repositories.
func (v *View) EachTag(fn func(repository, tag string, d Digest) error) error {
	return v.each(rangeTag, func(rest, value []byte) error {
		repository, rest := cutName(rest)
		tag, _ := cutName(rest)
		var row metav1.Tag
		if !v.decode(rest, value, &row) {
			return v.err
		}
		return fn(repository, tag, Digest(row.GetDigest()))
	})
}

// EachTagged walks the mirror of the tags, in the order of digests.
func (v *View) EachTagged(fn func(repository string, d Digest, tag string) error) error {
	return v.each(rangeTagged, func(rest, _ []byte) error {
		repository, rest := cutName(rest)
		d, rest := cutDigest(rest)
		tag, _ := cutName(rest)
		return fn(repository, d, tag)
	})
}

// EachChild walks the rows that say which index names a manifest.
func (v *View) EachChild(fn func(repository string, child, index Digest) error) error {
	return v.each(rangeChild, func(rest, _ []byte) error {
		repository, rest := cutName(rest)
		child, rest := cutDigest(rest)
		index, _ := cutDigest(rest)
		return fn(repository, child, index)
	})
}

// EachReferrer walks the rows that say what refers to a subject.
func (v *View) EachReferrer(fn func(repository string, subject Digest, artifactType string, d Digest) error) error {
	return v.each(rangeReferrer, func(rest, _ []byte) error {
		repository, rest := cutName(rest)
		subject, rest := cutDigest(rest)
		artifactType, rest := cutName(rest)
		d, _ := cutDigest(rest)
		return fn(repository, subject, artifactType, d)
	})
}

// EachRepository walks the repositories with their counters.
func (v *View) EachRepository(fn func(name string, row *metav1.Repository) error) error {
	return v.each(rangeRepository, func(rest, value []byte) error {
		name, _ := cutName(rest)
		row := &metav1.Repository{}
		if !v.decode(rest, value, row) {
			return v.err
		}
		return fn(name, row)
	})
}

// EachUsage walks the sums of the projects.
func (v *View) EachUsage(fn func(project string, row *metav1.Usage) error) error {
	return v.each(rangeUsage, func(rest, value []byte) error {
		project, _ := cutName(rest)
		row := &metav1.Usage{}
		if !v.decode(rest, value, row) {
			return v.err
		}
		return fn(project, row)
	})
}

// StoredUpload is an upload's row, also after its expiry; nil when there is none.
func (v *View) StoredUpload(id string) (*metav1.Upload, error) { return v.upload(id), v.err }
