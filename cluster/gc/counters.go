package gc

import (
	"fmt"

	"github.com/pontoon-registry/pontoon/blobs"
	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// tags notes what the tags name, and finds those that name nothing.
func (w *verification) tags(v *meta.View) error {
	return v.EachTag(func(repository, tag string, d meta.Digest) error {
		if err := w.alive(); err != nil {
			return err
		}
		w.scratch.set(addName(inRepository(scratchTagged, repository, d), tag), nil)
		w.scratch.add(nameKey(scratchSum, repository), tally{tags: 1})
		if _, there := w.scratch.get(linkKey(scratchNeed, meta.Link{Blob: d, Repository: repository, Manifest: d})); !there {
			return w.differ(Difference{Kind: Dangling, Repository: repository, Manifest: d, Detail: "tag " + tag + " names a manifest that is not there"})
		}
		return nil
	})
}

func (w *verification) tagged(v *meta.View) error {
	text := func(rest []byte) (d Difference) {
		d.Repository, rest = cutName(rest)
		d.Manifest, rest = cutDigest(rest)
		tag, _ := cutName(rest)
		d.Detail = "tag " + tag + " names manifest " + d.Manifest.String()
		return d
	}
	return w.mirror(scratchTagged, text, func(found func([]byte) error) error {
		return v.EachTagged(func(repository string, d meta.Digest, tag string) error {
			return found(addName(inRepository(scratchTagged, repository, d), tag))
		})
	})
}

// graces notes which blobs a repository keeps without a manifest.
func (w *verification) graces(v *meta.View) error {
	return v.EachGrace(func(blob meta.Digest, repository string) error {
		if err := w.alive(); err != nil {
			return err
		}
		w.scratch.set(inRepository(scratchGraced, repository, blob), nil)
		w.scratch.set(addName(digestKey(scratchLink, blob), repository), []byte{0})
		return nil
	})
}

func (w *verification) graced(v *meta.View) error {
	text := func(rest []byte) (d Difference) {
		d.Repository, rest = cutName(rest)
		d.Blob, _ = cutDigest(rest)
		d.Detail = "the repository keeps blob " + d.Blob.String() + " for its grace"
		return d
	}
	return w.mirror(scratchGraced, text, func(found func([]byte) error) error {
		return v.EachGraced(func(repository string, blob meta.Digest) error {
			return found(inRepository(scratchGraced, repository, blob))
		})
	})
}

// links sums the bytes of each repository: every blob that is linked to it, once. A blob that manifests need must be there.
func (w *verification) links(v *meta.View) error {
	var last meta.Digest
	var blob *metav1.Blob
	return w.scratch.each(scratchLink, func(rest, value []byte) (err error) {
		if err := w.alive(); err != nil {
			return err
		}
		d, rest := cutDigest(rest)
		repository, _ := cutName(rest)
		if d != last {
			if blob, err = v.StoredBlob(d); err != nil {
				return err
			}
			last = d
		}
		needed := len(value) > 0 && value[0] == 1
		switch {
		case blob == nil:
			return w.differ(Difference{Kind: Dangling, Repository: repository, Blob: d, Detail: "the repository needs the blob, and the ledger does not have it"})
		case blob.GetLost() && needed:
			if err := w.differ(Difference{Kind: Lost, Repository: repository, Blob: d, Key: blob.GetKey(),
				Detail: "manifests need the blob and its bytes are lost; pushing it again heals it"}); err != nil {
				return err
			}
		}
		w.scratch.add(nameKey(scratchSum, repository), tally{bytes: blob.GetSize()})
		return w.scratch.err
	})
}

// repositories compares the counters of each with the sums, and sums the projects.
func (w *verification) repositories(v *meta.View) error {
	missing := func(rest []byte) error {
		name, _ := cutName(rest)
		return w.differ(Difference{Kind: Counter, Repository: name, Detail: "the repository has rows and does not exist"})
	}
	return w.scratch.compare(scratchSum, missing, func(found func([]byte) ([]byte, bool, error)) error {
		return v.EachRepository(func(name string, row *metav1.Repository) error {
			if err := w.alive(); err != nil {
				return err
			}
			value, _, err := found(nameKey(scratchSum, name)[1:])
			if err != nil {
				return err
			}
			sum := decodeTally(value)
			got := tally{bytes: row.GetBytes(), manifests: row.GetManifests(), tags: row.GetTags()}
			w.scratch.add(nameKey(scratchProject, meta.ProjectOf(name)), tally{1, sum.bytes, sum.manifests, sum.tags})
			return w.counted(name, "repository "+name, got, sum)
		})
	})
}

func (w *verification) counted(repository, what string, got, want tally) error {
	if got == want {
		return nil
	}
	return w.differ(Difference{Kind: Counter, Repository: repository, Detail: fmt.Sprintf(
		"%s counts %d repositories, %d bytes, %d manifests and %d tags; it has %d, %d, %d and %d",
		what, got.repositories, got.bytes, got.manifests, got.tags, want.repositories, want.bytes, want.manifests, want.tags)})
}

// projects compares the sums of each. One without repositories keeps its row.
func (w *verification) projects(v *meta.View) error {
	missing := func(rest []byte) error {
		name, _ := cutName(rest)
		return w.differ(Difference{Kind: Counter, Detail: "project " + name + " has repositories and does not exist"})
	}
	return w.scratch.compare(scratchProject, missing, func(found func([]byte) ([]byte, bool, error)) error {
		return v.EachUsage(func(project string, row *metav1.Usage) error {
			value, _, err := found(nameKey(scratchProject, project)[1:])
			if err != nil {
				return err
			}
			got := tally{row.GetRepositories(), row.GetBytes(), row.GetManifests(), row.GetTags()}
			return w.counted("", "project "+project, got, decodeTally(value))
		})
	})
}

// bodies compares how many repositories have each.
func (w *verification) bodies(v *meta.View) error {
	missing := func([]byte) error { return nil } // told as a body that is not there
	return w.scratch.compare(scratchBody, missing, func(found func([]byte) ([]byte, bool, error)) error {
		return v.EachBody(func(d meta.Digest, row *metav1.ManifestBody) error {
			if err := w.alive(); err != nil {
				return err
			}
			value, _, err := found(digestKey(scratchBody, d)[1:])
			if err != nil {
				return err
			}
			if got, want := row.GetRepositories(), decodeTally(value).manifests; got != want {
				return w.differ(Difference{Kind: Counter, Manifest: d, Detail: fmt.Sprintf("the body counts %d repositories, %d have it", got, want)})
			}
			return nil
		})
	})
}

// blobs checks that each blob's key says the same of it.
func (w *verification) blobs(v *meta.View) error {
	return v.EachBlob(func(d meta.Digest, row *metav1.Blob) error {
		if err := w.alive(); err != nil {
			return err
		}
		w.sum.Blobs++
		if row.GetStore() != w.cfg.StoreName {
			return w.differ(Difference{Kind: Key, Blob: d, Key: row.GetKey(), Detail: "the blob is in store " + row.GetStore() + ", which this node does not have"})
		}
		object, err := v.Object(row.GetStore(), row.GetKey())
		if err != nil && meta.KindOf(err) != metav1.Kind_KIND_UNKNOWN {
			return err
		}
		if meta.Digest(object.GetLive().GetDigest()) != d {
			return w.differ(Difference{Kind: Key, Blob: d, Key: row.GetKey(), Detail: "the blob's key does not say that it is the blob's; garbage collection may take it"})
		}
		return nil
	})
}

// uploads checks that each key that is written or live has its upload or blob, and counts the uploads.
func (w *verification) uploads(v *meta.View) error {
	for after, more := "", true; more; {
		rows, next, err := v.Objects(w.cfg.StoreName, "", after, w.sizes.page)
		if err != nil {
			return err
		}
		for _, row := range rows {
			if err := w.owner(v, row); err != nil {
				return err
			}
			after = row.Key
		}
		more = next
	}
	var count int64
	for after, more := "", true; more; {
		rows, next, err := v.Uploads(after, w.sizes.page)
		if err != nil {
			return err
		}
		for _, row := range rows {
			count, after = count+1, row.ID
		}
		if more = next; w.ctx.Err() != nil {
			return w.ctx.Err()
		}
	}
	system, err := v.System()
	if err != nil {
		return err
	}
	if system.GetUploads() != count {
		return w.differ(Difference{Kind: Counter, Detail: fmt.Sprintf("the cluster counts %d uploads, there are %d", system.GetUploads(), count)})
	}
	return nil
}

// owner checks that whom a key names also names the key.
func (w *verification) owner(v *meta.View, row meta.ObjectItem) error {
	if err := w.alive(); err != nil {
		return err
	}
	w.sum.Keys++
	switch {
	case row.GetCondemned() != nil:
		w.sum.UnneededKeys++
		w.sum.UnneededBytes += row.GetCondemned().GetSize()
	case row.GetLive() != nil:
		d := meta.Digest(row.GetLive().GetDigest())
		blob, err := v.StoredBlob(d)
		if err != nil {
			return err
		}
		if blob.GetKey() != row.Key || blob.GetStore() != w.cfg.StoreName {
			return w.differ(Difference{Kind: Key, Blob: d, Key: row.Key, Detail: "the key says that it is the blob's, the blob does not: it never goes"})
		}
	case row.GetUploading() != nil:
		u, err := v.StoredUpload(row.GetUploading().GetUpload())
		if err != nil {
			return err
		}
		if u == nil || u.GetOutcome() != metav1.UploadOutcome_UPLOAD_OUTCOME_UNSPECIFIED {
			return w.differ(Difference{Kind: Key, Key: row.Key, Detail: "the key is of an upload that is not open: it never goes"})
		}
	}
	if _, _, err := blobs.ParseKey(row.Key); err != nil {
		return w.differ(Difference{Kind: Key, Key: row.Key, Detail: "no store takes such a key: " + err.Error()})
	}
	return nil
}
