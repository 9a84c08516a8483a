package oci

import (
	"context"
	"net/http"
	"strconv"

	"github.com/pontoon-registry/pontoon/meta"
	"github.com/pontoon-registry/pontoon/meta/policy"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// postUpload is end-4 and end-11: a mount, a whole blob in one request, or an open upload.
func (c *call) postUpload() error {
	if c.query.Has("mount") {
		if done, err := c.mount(); done || err != nil {
			return err
		}
	}
	if c.query.Has("digest") {
		return c.postBlob()
	}
	algorithm := meta.SHA256
	if name := c.query.Get("digest-algorithm"); name != "" {
		var err error
		if algorithm, err = meta.ParseAlgorithm(name); err != nil {
			return err
		}
	}
	id, _, err := c.open(algorithm)
	if err != nil {
		return err
	}
	c.uploadHeaders(id, 0)
	return c.empty(http.StatusAccepted)
}

// open proposes an upload: it is in the ledger before its bytes exist (G1).
func (c *call) open(algorithm byte) (id string, revision uint64, err error) {
	id = randomName()
	res, err := c.propose(c.r.Context(), &metav1.Command{Kind: &metav1.Command_OpenUpload{OpenUpload: &metav1.OpenUpload{
		Repository: c.name, Id: id, Algorithm: uint32(algorithm), Store: c.StoreName,
	}}})
	return id, res.GetUpload().GetRevision(), err
}

// uploadHeaders say where the upload goes on. For no bytes at all the range is
// "0-0" like everywhere: the grammar has no empty range.
func (c *call) uploadHeaders(id string, offset int64) {
	c.location("/v2/" + c.name + "/blobs/uploads/" + id)
	c.w.Header().Set("Docker-Upload-UUID", id)
	c.w.Header().Set("Range", "0-"+strconv.FormatInt(max(offset-1, 0), 10))
}

// mount is end-11. It answers false when nothing can be mounted, and the caller opens an upload.
func (c *call) mount() (done bool, err error) {
	d, err := meta.ParseDigest(c.query.Get("mount"))
	if err != nil {
		return false, err
	}
	from := c.query.Get("from")
	if from != "" {
		if err := meta.ParseRepository(from); err != nil {
			return false, err
		}
	}
	source, err := c.mountSource(d, from)
	if meta.KindOf(err) == metav1.Kind_KIND_UNKNOWN {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	_, err = c.propose(c.r.Context(), &metav1.Command{Kind: &metav1.Command_MountBlob{MountBlob: &metav1.MountBlob{
		Repository: c.name, From: source, Digest: d.Bytes(),
	}}})
	if meta.KindOf(err) == metav1.Kind_KIND_UNKNOWN {
		return false, nil // deleted since the View: the client uploads
	}
	if err != nil {
		return false, err
	}
	c.blobLocation(d)
	return true, c.empty(http.StatusCreated)
}

// mountSource answers a repository that has the blob and that the caller may
// pull from: the one that was named, else any.
func (c *call) mountSource(d meta.Digest, from string) (source string, err error) {
	readable := func(repository string) bool { return c.may(repository, policy.Pull) }
	err = c.view(false, func(v *meta.View) error {
		if from != "" && readable(from) {
			if _, err := v.Blob(from, d); err == nil {
				source = from
				return nil
			} else if meta.KindOf(err) != metav1.Kind_KIND_UNKNOWN {
				return err
			}
		}
		source, err = v.MountSource(d, readable)
		return err
	})
	return source, err
}

// getUpload is end-13.
func (c *call) getUpload() error {
	u, err := c.lookUpload()
	if err != nil {
		return err
	}
	if err := u.mustBeOpen(); err != nil {
		return err
	}
	c.uploadHeaders(u.id, u.row.GetOffset())
	return c.empty(http.StatusNoContent)
}

func (u *openUpload) mustBeOpen() error {
	if u.row.GetOutcome() == metav1.UploadOutcome_UPLOAD_OUTCOME_UNSPECIFIED {
		return nil
	}
	return unknown(metav1.Noun_NOUN_UPLOAD, "upload %s: it has ended", u.id)
}

// deleteUpload is end-14; repeated, it answers the same (R-A5).
func (c *call) deleteUpload() error {
	leave, err := c.writers.enter(c.r.Context(), c.upload(), func() {})
	if err != nil {
		return err
	}
	defer leave()
	u, err := c.lookUpload()
	if err != nil {
		return err
	}
	if u.row.GetOutcome() == metav1.UploadOutcome_UPLOAD_OUTCOME_CANCELLED {
		return c.empty(http.StatusNoContent)
	}
	if err := u.mustBeOpen(); err != nil {
		return err
	}
	if err := c.cancel(c.r.Context(), u.id); err != nil {
		return err
	}
	return c.empty(http.StatusNoContent)
}

func (c *call) cancel(ctx context.Context, id string) error {
	_, err := c.propose(ctx, &metav1.Command{Kind: &metav1.Command_CancelUpload{CancelUpload: &metav1.CancelUpload{
		Id: id, Repository: c.name,
	}}})
	return err
}

// dropUpload cancels an upload that is of no use any more. If that fails it expires by itself.
func (c *call) dropUpload(id string) {
	ctx, cancel := c.lasting(settle)
	defer cancel()
	if err := c.cancel(ctx, id); err != nil {
		c.Log.DebugContext(ctx, "upload left to expire", "upload", id, "error", err)
	}
}
