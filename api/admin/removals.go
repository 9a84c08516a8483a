package admin

import (
	"context"

	"github.com/pontoon-registry/pontoon/meta"
	adminv1 "github.com/pontoon-registry/pontoon/proto/pontoon/admin/v1"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

const (
	// removalStep is how many rows one DeleteRepository command removes: small
	// enough that pushes of others are not held up behind it.
	removalStep = 1000
	usersBound  = 10
)

func (r *repositories) RemoveRepository(ctx context.Context, req *adminv1.RemoveRepositoryRequest) (*adminv1.RemoveRepositoryResponse, error) {
	if err := meta.ParseRepository(req.GetName()); err != nil {
		return nil, err
	}
	out := &adminv1.RemoveRepositoryResponse{}
	err := r.ledger.View(ctx, meta.Read{}, func(v *meta.View) error {
		row, err := v.Repository(req.GetName())
		if err != nil {
			return err
		}
		out.Repository = repositoryOf(req.GetName(), row)
		return nil
	})
	if req.GetPreview() {
		return out, err
	}
	// Unknown may mean hidden by a removal that was cut: the command goes on with it.
	if err != nil && meta.KindOf(err) != metav1.Kind_KIND_UNKNOWN {
		return nil, err
	}
	if out.Repository == nil {
		out.Repository = &adminv1.Repository{Name: req.GetName()}
	}
	return out, r.removeRows(ctx, req.GetName())
}

// removeRows repeats the command until nothing of the repository is left. Each step
// removes rows or is the last, so it ends; ctx bounds it.
func (r *repositories) removeRows(ctx context.Context, name string) error {
	for {
		res, err := r.ledger.Propose(ctx, &metav1.Command{
			Envelope: envelope(ctx),
			Kind: &metav1.Command_DeleteRepository{DeleteRepository: &metav1.DeleteRepository{
				Repository: name, Limit: removalStep,
			}},
		})
		if err != nil {
			return err
		}
		if !res.GetCount().GetMore() {
			return nil
		}
	}
}

func (r *repositories) RemoveTag(ctx context.Context, req *adminv1.RemoveTagRequest) (*adminv1.RemoveTagResponse, error) {
	if err := meta.ParseRepository(req.GetRepository()); err != nil {
		return nil, err
	}
	if err := meta.ParseTag(req.GetTag()); err != nil {
		return nil, err
	}
	var condition *metav1.TagCondition
	if req.GetDigest() != "" {
		d, err := meta.ParseDigest(req.GetDigest())
		if err != nil {
			return nil, err
		}
		condition = &metav1.TagCondition{Digest: d.Bytes()}
	}
	out := &adminv1.RemoveTagResponse{}
	err := r.ledger.View(ctx, meta.Read{}, func(v *meta.View) error {
		row, err := v.Tag(req.GetRepository(), req.GetTag())
		if err != nil {
			return err
		}
		out.Tag = tagOf(req.GetTag(), row)
		out.RemainingTags, err = otherTags(v, req.GetRepository(), req.GetTag(), meta.Digest(row.GetDigest()))
		return err
	})
	if err != nil || req.GetPreview() {
		return out, err
	}
	_, err = r.ledger.Propose(ctx, &metav1.Command{
		Envelope: envelope(ctx),
		Kind: &metav1.Command_DeleteTag{DeleteTag: &metav1.DeleteTag{
			Repository: req.GetRepository(), Tag: req.GetTag(), Condition: condition,
		}},
	})
	return out, err
}

// otherTags lists the tags of a manifest but one.
func otherTags(v *meta.View, repository, tag string, d meta.Digest) ([]string, error) {
	tags, err := v.TagsOf(repository, d, namesBound+1)
	if err != nil {
		return nil, err
	}
	var others []string
	for _, name := range tags {
		if name != tag && len(others) < namesBound {
			others = append(others, name)
		}
	}
	return others, nil
}

func (r *repositories) RemoveManifest(ctx context.Context, req *adminv1.RemoveManifestRequest) (*adminv1.RemoveManifestResponse, error) {
	if err := meta.ParseRepository(req.GetRepository()); err != nil {
		return nil, err
	}
	d, err := meta.ParseDigest(req.GetDigest())
	if err != nil {
		return nil, err
	}
	out := &adminv1.RemoveManifestResponse{}
	err = r.ledger.View(ctx, meta.Read{}, func(v *meta.View) error { return describe(v, req.GetRepository(), d, out) })
	if err != nil || req.GetPreview() {
		return out, err
	}
	_, err = r.ledger.Propose(ctx, &metav1.Command{
		Envelope: envelope(ctx),
		Kind: &metav1.Command_DeleteManifest{DeleteManifest: &metav1.DeleteManifest{
			Repository: req.GetRepository(), Digest: d.Bytes(),
		}},
	})
	return out, err
}

// describe fills in what goes with a manifest, what stands against its removal, and what stays behind.
func describe(v *meta.View, repository string, d meta.Digest, out *adminv1.RemoveManifestResponse) error {
	row, err := v.Manifest(repository, d)
	if err != nil {
		return err
	}
	if out.Manifest, err = manifestOf(v, repository, d, row); err != nil {
		return err
	}
	users, err := v.Users(repository, d, usersBound)
	if err != nil {
		return err
	}
	for _, u := range users {
		// A manifest references itself: that is no user.
		if u != d {
			out.Users = append(out.Users, u.String())
		}
	}
	referrers, _, err := v.Referrers(repository, d, "", meta.ReferrerCursor{}, namesBound)
	if err != nil {
		return err
	}
	for _, item := range referrers {
		out.Referrers = append(out.Referrers, item.Digest.String())
	}
	return nil
}
