package meta

import (
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

func (r *rows) blob(d Digest) *metav1.Blob {
	row := &metav1.Blob{}
	if !r.read(digestKey(r.key[:0], rangeBlob, d), row) {
		return nil
	}
	return row
}

// mountBlob links a blob that is live in one repository to another.
func (t *txn) mountBlob(c *metav1.MountBlob) (*metav1.Result, error) {
	d, err := UnpackDigest(c.GetDigest())
	if err != nil {
		return nil, err
	}
	if err := t.pushable(c.GetRepository()); err != nil {
		return nil, err
	}
	if err := checkName(metav1.Noun_NOUN_NAME, "repository name", c.GetFrom()); err != nil {
		return nil, err
	}
	blob := t.liveBlob(c.GetFrom(), d, t.clock, t.settings().GetGrace())
	if blob == nil || t.repository(c.GetFrom()).GetDeleting() {
		return nil, noBlob(c.GetFrom(), d)
	}
	t.ensureRepository(c.GetRepository())
	t.link(c.GetRepository(), d, blob.GetSize())
	t.event(&metav1.Event{Action: metav1.Action_ACTION_MOUNT_BLOB, Repository: c.GetRepository(), After: d.Bytes(), Subject: c.GetFrom()})
	return sized(blob.GetSize()), nil
}

// confirmContent renews the grace of what a pusher was told exists (G8). All or
// none: what is gone since is named, and the door answers 404.
func (t *txn) confirmContent(c *metav1.ConfirmContent) (*metav1.Result, error) {
	if err := bounded("blobs", len(c.GetBlobs())); err != nil {
		return nil, err
	}
	if err := bounded("manifests", len(c.GetManifests())); err != nil {
		return nil, err
	}
	repository := c.GetRepository()
	if err := t.pushable(repository); err != nil {
		return nil, err
	}
	for _, packed := range c.GetBlobs() {
		d, err := UnpackDigest(packed)
		if err != nil {
			return nil, err
		}
		if t.liveBlob(repository, d, t.clock, t.settings().GetGrace()) == nil {
			return nil, noBlob(repository, d)
		}
		if !t.needed(repository, d) {
			t.putGrace(repository, d)
		}
	}
	for _, packed := range c.GetManifests() {
		d, err := UnpackDigest(packed)
		if err != nil {
			return nil, err
		}
		row := t.manifest(repository, d)
		if row == nil {
			return nil, noManifest(repository, d)
		}
		row.Confirmed = t.clock
		t.put(inRepository(nil, rangeManifest, repository, d), row)
	}
	return nil, nil
}

// deleteBlob drops a blob's link to a repository (R-C9). With sparse images what
// needs it keeps naming it, as absent.
func (t *txn) deleteBlob(c *metav1.DeleteBlob) (*metav1.Result, error) {
	d, err := UnpackDigest(c.GetDigest())
	if err != nil {
		return nil, err
	}
	repository := c.GetRepository()
	if err := t.pushable(repository); err != nil {
		return nil, err
	}
	blob := t.liveBlob(repository, d, t.clock, t.settings().GetGrace())
	if blob == nil {
		return nil, noBlob(repository, d)
	}
	self := t.manifest(repository, d).GetLarge()
	if t.needed(repository, d) && (self || !t.settings().GetSparseImages()) {
		refusal := Refuse(metav1.Kind_KIND_UNSUPPORTED, metav1.Noun_NOUN_BLOB,
			"blob %s: manifests of repository %s need it; delete them first", d, repository)
		refusal.Names = digestNames(t.users(repository, d, namesBound))
		return nil, refusal
	}
	t.moveLinks(rangeReference, rangeAbsent, repository, d)
	t.dropGrace(repository, d)
	t.count(repository, tally{bytes: -blob.GetSize()})
	t.event(&metav1.Event{Action: metav1.Action_ACTION_DELETE_BLOB, Repository: repository, Before: d.Bytes()})
	return sized(blob.GetSize()), nil
}

// markLost says that a reader found the bytes missing (B7): from now on the blob
// is answered as absent, and the next push of it heals it.
func (t *txn) markLost(c *metav1.MarkLost) (*metav1.Result, error) {
	d, err := UnpackDigest(c.GetDigest())
	if err != nil {
		return nil, err
	}
	blob := t.blob(d)
	if blob == nil {
		return nil, unknown(metav1.Noun_NOUN_BLOB, "blob %s: is not there", d)
	}
	if blob.GetStore() != c.GetStore() || blob.GetKey() != c.GetKey() {
		return nil, conflict(metav1.Noun_NOUN_BLOB, "blob %s: is stored elsewhere by now", d)
	}
	if blob.GetLost() {
		return nil, nil
	}
	blob.Lost = true
	t.put(digestKey(nil, rangeBlob, d), blob)
	t.event(&metav1.Event{Action: metav1.Action_ACTION_LOSE_BLOB, Before: d.Bytes()})
	return nil, nil
}

func noBlob(repository string, d Digest) *Error {
	e := unknown(metav1.Noun_NOUN_BLOB, "blob %s: is not in repository %s", d, clip(repository))
	e.Names = []string{d.String()}
	return e
}

// Blob looks up a blob that is live in the repository: needed by a manifest
// there, or within its grace, and not lost. Unknown otherwise, wherever else it may live.
func (v *View) Blob(repository string, d Digest) (*metav1.Blob, error) {
	if err := v.visible(repository, metav1.Noun_NOUN_BLOB); err != nil {
		return nil, err
	}
	row := v.liveBlob(repository, d, v.ClusterTime(), v.settings().GetGrace())
	if v.err == nil && row == nil {
		return nil, noBlob(repository, d)
	}
	return row, v.err
}

// BlobLocation is where a digest's bytes are, whatever repository holds it: for
// large manifest bodies and for GC, never to answer who may read. A lost one is unknown.
func (v *View) BlobLocation(d Digest) (*metav1.Blob, error) {
	row := v.blob(d)
	return answer(v, row, row != nil && !row.GetLost(), metav1.Noun_NOUN_BLOB, "blob %s: is not there", d)
}

// MountSource answers a repository in which the blob is live and that may accepts; unknown if there is none
// among the first 1,000.
func (v *View) MountSource(d Digest, may func(repository string) bool) (string, error) {
	const bound = 1000
	if blob := v.blob(d); v.err == nil && (blob == nil || blob.GetLost()) {
		return "", unknown(metav1.Noun_NOUN_BLOB, "blob %s: is not there", d)
	}
	tried := 0
	for _, r := range []byte{rangeReference, rangeGrace} {
		prefix := digestKey(nil, r, d)
		low, high := prefix, beyond(prefix)
		for ; tried < bound; tried++ {
			key := v.first(low, high)
			if key == nil {
				break
			}
			repository, _ := cutName(key[len(prefix):])
			low = beyond(ofBlob(nil, r, d, repository))
			if !may(repository) {
				continue
			}
			if _, err := v.Blob(repository, d); err == nil {
				return repository, nil
			}
		}
	}
	return answer(v, "", false, metav1.Noun_NOUN_BLOB, "blob %s: is in no repository that may be read", d)
}

// NeedsConfirm says whether what a pusher was just told exists should be
// renewed by ConfirmContent: nothing references it and a quarter of its grace has passed (G8).
func (v *View) NeedsConfirm(repository string, d Digest) (bool, error) {
	quarter := v.settings().GetGrace() / 4
	if row := v.manifest(repository, d); row != nil && v.ClusterTime() >= row.GetConfirmed()+quarter &&
		!v.any(inRepository(nil, rangeTagged, repository, d)) && !v.any(inRepository(nil, rangeChild, repository, d)) {
		return true, v.err
	}
	grace := v.grace(repository, d)
	return grace != nil && v.ClusterTime() >= grace.GetSince()+quarter && !v.needed(repository, d), v.err
}

// Users lists up to n manifests of the repository that need a blob or name a child.
func (v *View) Users(repository string, d Digest, n int) ([]Digest, error) {
	if err := v.visible(repository, metav1.Noun_NOUN_BLOB); err != nil {
		return nil, err
	}
	out := v.users(repository, d, n)
	if len(out) < n {
		out = append(out, v.parents(repository, d, n-len(out))...)
	}
	return out, v.err
}
