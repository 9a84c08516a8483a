package meta

import (
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// UntaggedCursor is where a search for untagged manifests goes on; zero begins.
type UntaggedCursor struct {
	Repository string
	Digest     Digest
}

// UntaggedManifest is a manifest that DeleteUntagged would remove at the view's index.
type UntaggedManifest struct {
	Repository string
	Digest     Digest
	*metav1.Manifest
	Why WhyUntagged
}

// Untagged finds the manifests that nothing keeps, in (repository, digest) order above after: at most limit of them,
// among at most visit manifests. next is where to go on unless done; visited is how many were looked at. Repositories
// that are being deleted are passed over.
func (v *View) Untagged(after UntaggedCursor, limit, visit int) (rows []UntaggedManifest, next UntaggedCursor, done bool, visited int64, err error) {
	from := func(r byte) []byte {
		if after == (UntaggedCursor{}) {
			return oneRow(nil, r)
		}
		return beyond(inRepository(nil, r, after.Repository, after.Digest))
	}
	s := keeping{
		view:      v,
		manifests: v.cursor(from(rangeManifest), oneRow(nil, rangeManifest+1)),
		tagged:    v.cursor(from(rangeTagged), oneRow(nil, rangeTagged+1)),
		children:  v.cursor(from(rangeChild), oneRow(nil, rangeChild+1)),
	}
	next = after
	for ; s.manifests.ok && v.err == nil; s.manifests.next() {
		if len(rows) >= limit || visited >= int64(visit) {
			break
		}
		visited++
		row, goes := s.judge()
		next = UntaggedCursor{row.Repository, row.Digest}
		if goes {
			rows = append(rows, row)
		}
	}
	done = !s.manifests.ok
	v.closeAll(s.manifests, s.tagged, s.children)
	if v.err != nil {
		return nil, after, false, 0, v.err
	}
	return rows, next, done, visited, nil
}

// keeping merges the manifests with what keeps them.
type keeping struct {
	view                        *View
	manifests, tagged, children *cursor
	// prefix is reused.
	prefix []byte
}

// judge is the decision of DeleteUntagged on the next manifest; the cursors spare it most lookups.
func (s *keeping) judge() (out UntaggedManifest, goes bool) {
	v, key := s.view, s.manifests.it.Key()
	var digest []byte
	out.Repository, digest = cutName(key[1:])
	out.Digest, _ = cutDigest(digest)
	if s.kept(s.tagged, rangeTagged, key) || s.kept(s.children, rangeChild, key) ||
		v.visible(out.Repository, metav1.Noun_NOUN_REPOSITORY) != nil {
		return out, false
	}
	out.Manifest = &metav1.Manifest{}
	if !v.decode(key, s.manifests.it.Value(), out.Manifest) {
		return out, false
	}
	out.Why, goes = v.untagged(out.Repository, out.Digest, out.Manifest, v.ClusterTime(), v.settings().GetGrace())
	return out, goes
}

// kept says whether the range has a row of the manifest whose key is given.
func (s *keeping) kept(c *cursor, r byte, key []byte) bool {
	s.prefix = append(append(s.prefix[:0], r), key[1:]...)
	return c.within(s.prefix)
}
