package admin

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/pontoon-registry/pontoon/meta"
	adminv1 "github.com/pontoon-registry/pontoon/proto/pontoon/admin/v1"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// namesBound is how many tags or referrers of a manifest an answer names.
const namesBound = 100

// repositories serves RepositoryService: the lists here, the removals in removals.go.
type repositories struct{ ledger meta.Ledger }

func (r *repositories) ListRepositories(ctx context.Context, req *adminv1.ListRepositoriesRequest) (*adminv1.ListRepositoriesResponse, error) {
	n, err := pageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	out := &adminv1.ListRepositoriesResponse{}
	err = r.ledger.View(ctx, meta.Read{}, func(v *meta.View) error {
		names, more, err := v.Repositories(req.GetPageToken(), n)
		if err != nil {
			return err
		}
		for _, name := range names {
			row, err := v.Repository(name)
			if err != nil {
				return err
			}
			out.Repositories = append(out.Repositories, repositoryOf(name, row))
		}
		if more {
			out.NextPageToken = names[len(names)-1]
		}
		return nil
	})
	return out, err
}

func (r *repositories) ListTags(ctx context.Context, req *adminv1.ListTagsRequest) (*adminv1.ListTagsResponse, error) {
	n, err := pageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	if err := meta.ParseRepository(req.GetRepository()); err != nil {
		return nil, err
	}
	out := &adminv1.ListTagsResponse{}
	err = r.ledger.View(ctx, meta.Read{}, func(v *meta.View) error {
		if _, err := v.Repository(req.GetRepository()); err != nil {
			return err
		}
		rows, more, err := v.Tags(req.GetRepository(), req.GetPageToken(), n)
		if err != nil {
			return err
		}
		for _, row := range rows {
			out.Tags = append(out.Tags, tagOf(row.Name, row.Tag))
		}
		if more {
			out.NextPageToken = rows[len(rows)-1].Name
		}
		return nil
	})
	return out, err
}

func (r *repositories) ListManifests(ctx context.Context, req *adminv1.ListManifestsRequest) (*adminv1.ListManifestsResponse, error) {
	n, err := pageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	if err := meta.ParseRepository(req.GetRepository()); err != nil {
		return nil, err
	}
	var after meta.Digest
	if req.GetPageToken() != "" {
		if after, err = meta.ParseDigest(req.GetPageToken()); err != nil {
			return nil, invalid(metav1.Noun_NOUN_CURSOR, "page_token: %s", err)
		}
	}
	out := &adminv1.ListManifestsResponse{}
	err = r.ledger.View(ctx, meta.Read{}, func(v *meta.View) error {
		if _, err := v.Repository(req.GetRepository()); err != nil {
			return err
		}
		rows, more, err := v.Manifests(req.GetRepository(), after, n)
		if err != nil {
			return err
		}
		for _, row := range rows {
			m, err := manifestOf(v, req.GetRepository(), row.Digest, row.Manifest)
			if err != nil {
				return err
			}
			out.Manifests = append(out.Manifests, m)
		}
		if more {
			out.NextPageToken = rows[len(rows)-1].Digest.String()
		}
		return nil
	})
	return out, err
}

func repositoryOf(name string, row *metav1.Repository) *adminv1.Repository {
	return &adminv1.Repository{
		Name:      name,
		Created:   wall(row.GetCreated()),
		Bytes:     row.GetBytes(),
		Manifests: row.GetManifests(),
		Tags:      row.GetTags(),
	}
}

func tagOf(name string, row *metav1.Tag) *adminv1.Tag {
	return &adminv1.Tag{
		Name:     name,
		Digest:   meta.Digest(row.GetDigest()).String(),
		Pushed:   wall(row.GetPushed()),
		PushedBy: row.GetPushed().GetActor(),
		Revision: row.GetRevision(),
	}
}

func manifestOf(v *meta.View, repository string, d meta.Digest, row *metav1.Manifest) (*adminv1.Manifest, error) {
	tags, err := v.TagsOf(repository, d, namesBound)
	if err != nil {
		return nil, err
	}
	return &adminv1.Manifest{
		Digest:       d.String(),
		MediaType:    row.GetMediaType(),
		ArtifactType: row.GetArtifactType(),
		Size:         row.GetSize(),
		Pushed:       wall(row.GetPushed()),
		PushedBy:     row.GetPushed().GetActor(),
		Subject:      meta.Digest(row.GetSubject()).String(),
		Tags:         tags,
	}, nil
}

// wall is a stamp's time for people (M1).
func wall(s *metav1.Stamp) *timestamppb.Timestamp {
	if s.GetWallTime() == 0 {
		return nil
	}
	return timestamppb.New(time.Unix(0, s.GetWallTime()))
}
