package meta

import (
	"bytes"

	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// Who needs a blob, and where it may be read. A blob is linked to a repository by
//
//	reference   a manifest there names it, and it was live there at that index (M4)
//	grace       it was pushed, mounted or confirmed there and no manifest there needs it now
//	absent      a sparse manifest there names it, and it is not live there: grants nothing
//
// Live in a repository = it has bytes, and a reference or a grace that has not run
// out. An absent row never makes a blob readable, or naming a digest in a sparse
// manifest would be a way to read what lies in another repository; it becomes a reference when
// somebody who has the bytes, or may read them, pushes or mounts them here.
//
// Every manifest references itself (R-C1). That row makes a blob of a body above
// 64 KiB live and needed; for a small body there is no blob, and the row counts for nothing here.

// namesBound is how many users or missing digests a refusal names.
const namesBound = 10

func (r *rows) grace(repository string, d Digest) *metav1.Grace {
	row := &metav1.Grace{}
	if !r.read(ofBlob(r.key[:0], rangeGrace, d, repository), row) {
		return nil
	}
	return row
}

// liveBlob answers the blob if it is live in the repository at cluster time clock.
func (r *rows) liveBlob(repository string, d Digest, clock, grace int64) *metav1.Blob {
	blob := r.blob(d)
	if blob == nil || blob.GetLost() {
		return nil
	}
	if g := r.grace(repository, d); g != nil && clock-g.GetSince() < grace {
		return blob
	}
	if r.needed(repository, d) {
		return blob
	}
	return nil
}

// needed says whether a manifest of the repository needs the blob.
func (r *rows) needed(repository string, d Digest) bool {
	return len(r.users(repository, d, 1)) > 0
}

// users answers at most n manifests of the repository that need the blob.
func (r *rows) users(repository string, d Digest, n int) (out []Digest) {
	prefix := ofBlob(nil, rangeReference, d, repository)
	self := false
	r.scan(prefix, nil, func(k, _ []byte) bool {
		m, _ := cutDigest(k[len(prefix):])
		if m == d {
			self = true
			return true
		}
		out = append(out, m)
		return len(out) < n
	})
	if self && len(out) < n && r.manifest(repository, d).GetLarge() {
		out = append(out, d)
	}
	return out
}

// link makes a blob live in a repository for somebody who has its bytes or may
// read them: its absent rows become references, else it gets its grace from now.
func (t *txn) link(repository string, d Digest, size int64) {
	linked := t.needed(repository, d) || t.grace(repository, d) != nil
	t.moveLinks(rangeAbsent, rangeReference, repository, d)
	if t.needed(repository, d) {
		t.dropGrace(repository, d)
	} else {
		t.putGrace(repository, d)
	}
	if !linked {
		t.count(repository, tally{bytes: size})
	}
}

// moveLinks turns all rows of a blob in a repository from one range into
// another. It costs a write per manifest there that names the blob.
func (t *txn) moveLinks(from, to byte, repository string, d Digest) {
	prefix := ofBlob(nil, from, d, repository)
	t.scan(prefix, nil, func(k, _ []byte) bool {
		m, _ := cutDigest(k[len(prefix):])
		if m != d {
			t.buf.del(bytes.Clone(k))
			t.buf.set(linkKey(nil, to, d, repository, m), nil)
		}
		return true
	})
}

func (t *txn) putGrace(repository string, d Digest) {
	t.put(ofBlob(nil, rangeGrace, d, repository), &metav1.Grace{Since: t.clock})
	t.mark(inRepository(nil, rangeGraced, repository, d))
}

func (t *txn) dropGrace(repository string, d Digest) {
	t.del(ofBlob(nil, rangeGrace, d, repository))
	t.del(inRepository(nil, rangeGraced, repository, d))
}

// refer writes that manifest m needs a blob that is live in the repository.
func (t *txn) refer(repository string, blob, m Digest) {
	t.mark(linkKey(nil, rangeReference, blob, repository, m))
	t.dropGrace(repository, blob)
}

// unrefer takes back that manifest m needs a blob. One that nothing needs then
// keeps a grace from now, if graced, so that it can be pushed or mounted again; else its link ends.
func (t *txn) unrefer(repository string, blob, m Digest, graced bool) {
	t.del(linkKey(nil, rangeAbsent, blob, repository, m))
	key := linkKey(nil, rangeReference, blob, repository, m)
	if !t.has(key) {
		return
	}
	t.del(key)
	row := t.blob(blob)
	if row == nil || t.needed(repository, blob) {
		return
	}
	switch {
	case graced:
		t.putGrace(repository, blob)
	case t.grace(repository, blob) == nil:
		t.count(repository, tally{bytes: -row.GetSize()})
	}
}

func digestNames(ds []Digest) (out []string) {
	for _, d := range ds {
		out = append(out, d.String())
	}
	return out
}
