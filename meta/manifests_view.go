package meta

import (
	"bytes"

	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// Manifest looks a manifest up in a repository, without its body.
func (v *View) Manifest(repository string, d Digest) (*metav1.Manifest, error) {
	if err := v.visible(repository, metav1.Noun_NOUN_MANIFEST); err != nil {
		return nil, err
	}
	row := v.manifest(repository, d)
	if v.err == nil && row == nil {
		return nil, noManifest(repository, d)
	}
	return row, v.err
}

// ManifestItem is a manifest with its digest.
type ManifestItem struct {
	Digest Digest
	*metav1.Manifest
}

// Manifests lists the manifests of a repository in digest order above after.
func (v *View) Manifests(repository string, after Digest, n int) (rows []ManifestItem, more bool, err error) {
	if err := v.visible(repository, metav1.Noun_NOUN_REPOSITORY); err != nil {
		return nil, false, err
	}
	prefix := nameKey(nil, rangeManifest, repository)
	return list(&v.rows, prefix, afterDigest(prefix, after), n, func(rest, value []byte) (ManifestItem, bool) {
		it := ManifestItem{Manifest: &metav1.Manifest{}}
		it.Digest, _ = cutDigest(rest)
		return it, v.decode(rest, value, it.Manifest)
	})
}

// ManifestBody is the body of a manifest at most 64 KiB long; a larger one is
// the blob of its digest (BlobLocation), and its body is unknown here. It says nothing of who may read it.
func (v *View) ManifestBody(d Digest) ([]byte, error) {
	var row metav1.ManifestBody
	found := v.read(digestKey(v.key[:0], rangeManifestBody, d), &row)
	return answer(v, row.GetBody(), found && len(row.GetBody()) > 0, metav1.Noun_NOUN_MANIFEST, "manifest %s: has no body in the ledger", d)
}

// ReferrerCursor names the last item of a page; zero begins.
type ReferrerCursor struct {
	ArtifactType string
	Digest       Digest
}

// ReferrerItem is one referrer.
type ReferrerItem struct {
	ArtifactType string
	Digest       Digest
	*metav1.Referrer
}

// Referrers lists what refers to subject, in (artifact type, digest) order after
// the cursor, at most n; artifactType "" means all. A repository that is not there has none.
func (v *View) Referrers(repository string, subject Digest, artifactType string, after ReferrerCursor, n int) (rows []ReferrerItem, more bool, err error) {
	if err := v.visible(repository, metav1.Noun_NOUN_REPOSITORY); err != nil {
		if KindOf(err) == metav1.Kind_KIND_UNKNOWN {
			return nil, false, nil
		}
		return nil, false, err
	}
	all := inRepository(nil, rangeReferrer, repository, subject)
	prefix := all
	if hasNUL(artifactType) {
		return nil, false, v.err // no manifest has such a type, and it would end elsewhere in the key
	}
	if artifactType != "" {
		prefix = addName(inRepository(nil, rangeReferrer, repository, subject), artifactType)
	}
	var low []byte
	if after != (ReferrerCursor{}) {
		// A cursor comes from a client: outside the type it begins before it, or ends.
		low = referrerKey(nil, repository, subject, after.ArtifactType, after.Digest)
		switch {
		case bytes.HasPrefix(low, prefix):
		case bytes.Compare(low, prefix) < 0:
			low = nil
		default:
			return nil, false, v.err
		}
	}
	cut := len(all) - len(prefix)
	return list(&v.rows, prefix, low, n, func(rest, value []byte) (ReferrerItem, bool) {
		it := ReferrerItem{ArtifactType: artifactType, Referrer: &metav1.Referrer{}}
		if cut == 0 {
			it.ArtifactType, rest = cutName(rest)
		}
		it.Digest, _ = cutDigest(rest)
		return it, v.decode(rest, value, it.Referrer)
	})
}
