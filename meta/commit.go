package meta

import (
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// commitUpload makes the bytes at a key the blob of a digest, and links it to
// the upload's repository. The caller has hashed what the client sent (B2) and checked the length
// of what the store holds (B6).
func (t *txn) commitUpload(c *metav1.CommitUpload) (*metav1.Result, error) {
	d, err := UnpackDigest(c.GetDigest())
	if err != nil {
		return nil, err
	}
	if done, err := t.committedBefore(c, d); done != nil || err != nil {
		return done, err
	}
	u, err := t.uploadAt(c.GetId(), c.GetRepository(), c.GetRevision())
	if err != nil {
		return nil, err
	}
	if err := t.checkCommit(u, c); err != nil {
		return nil, err
	}
	how := ended{digest: d, size: c.GetSize(), key: c.GetKey(), completed: c.GetCompleted()}
	blob := t.blob(d)
	switch {
	case blob != nil && blob.GetSize() != c.GetSize():
		return nil, invalid(metav1.Noun_NOUN_SIZE, "blob %s: got %d bytes, it has %d", d, c.GetSize(), blob.GetSize())
	case blob == nil || blob.GetLost():
		if blob != nil {
			// The bytes were found missing (B7): this push heals them everywhere.
			t.condemn(blob.GetStore(), blob.GetKey(), blob.GetSize(), "")
		}
		t.put(digestKey(nil, rangeBlob, d), &metav1.Blob{Size: c.GetSize(), Store: u.GetStore(), Key: c.GetKey()})
		t.putLive(u.GetStore(), c.GetKey(), d)
		how.kept = true
	}
	t.endUpload(c.GetId(), u.Upload, metav1.UploadOutcome_UPLOAD_OUTCOME_COMMITTED, how)
	if !how.kept && t.object(u.GetStore(), c.GetKey()).GetCondemned() == nil {
		// The loser of two pushers of one digest: its key, made for this commit, was never live.
		t.condemn(u.GetStore(), c.GetKey(), c.GetSize(), "")
	}
	t.ensureRepository(c.GetRepository())
	t.link(c.GetRepository(), d, c.GetSize())
	t.event(&metav1.Event{Action: metav1.Action_ACTION_PUSH_BLOB, Repository: c.GetRepository(), After: d.Bytes()})
	return sized(c.GetSize()), nil
}

// committedBefore answers a commit that is repeated after its success (R-A5). It tells a pusher once more that the blob
// is there, so from version 3 on it must be, and for another grace (G8).
func (t *txn) committedBefore(c *metav1.CommitUpload, d Digest) (*metav1.Result, error) {
	u, err := t.uploadOf(c.GetId(), c.GetRepository())
	if err != nil {
		return nil, err
	}
	if u.GetOutcome() != metav1.UploadOutcome_UPLOAD_OUTCOME_COMMITTED {
		return nil, nil
	}
	if Digest(u.GetDigest()) != d {
		return nil, invalid(metav1.Noun_NOUN_DIGEST, "upload %s: was committed as %s, got %s", c.GetId(), Digest(u.GetDigest()), d)
	}
	if t.system.GetVersion() >= versionOfGC {
		if t.liveBlob(c.GetRepository(), d, t.clock, t.settings().GetGrace()) == nil {
			return nil, noUpload(c.GetId())
		}
		t.link(c.GetRepository(), d, u.GetSize())
	}
	return sized(u.GetSize()), nil
}

func (t *txn) checkCommit(u uploadStep, c *metav1.CommitUpload) error {
	if c.GetSize() < u.GetOffset() {
		return invalid(metav1.Noun_NOUN_SIZE, "upload %s: got %d bytes, %d are saved", c.GetId(), c.GetSize(), u.GetOffset())
	}
	if u.GetMultipartId() != "" && c.GetKey() == u.GetMultipartKey() && !c.GetCompleted() {
		return invalid(metav1.Noun_NOUN_UPLOAD, "upload %s: the multipart upload under the key is not completed", c.GetId())
	}
	return t.claim(u.GetStore(), c.GetId(), "", c.GetKey())
}

func sized(n int64) *metav1.Result {
	return &metav1.Result{Value: &metav1.Result_Blob{Blob: &metav1.BlobResult{Size: n}}}
}
