package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	adminv1 "github.com/pontoon-registry/pontoon/proto/pontoon/admin/v1"
)

func newManifest(a *app) *cobra.Command {
	return group("manifest", "List and remove manifests", newManifestList(a), newManifestRemove(a))
}

func newManifestList(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "list REPOSITORY", Short: "List the manifests of a repository, tagged or not",
		Example: "  pontoon manifest list team/app\n  pontoon manifest list team/app -o json | jq -r '.manifests[] | select(.tags == []) | .digest'",
		Args:    exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.dial(cmd.Context())
			if err != nil {
				return err
			}
			all := &adminv1.ListManifestsResponse{}
			err = pages(cmd.Context(), func(ctx context.Context, token string) (string, error) {
				page, err := c.repositories.ListManifests(ctx, &adminv1.ListManifestsRequest{Repository: args[0], PageSize: pageSize, PageToken: token})
				all.Manifests = append(all.Manifests, page.GetManifests()...)
				return page.GetNextPageToken(), err
			})
			if err != nil {
				return err
			}
			return a.show(all, func(w io.Writer) {
				rows := make([][]string, 0, len(all.GetManifests()))
				for _, m := range all.GetManifests() {
					rows = append(rows, []string{m.GetDigest(), dash(strings.Join(m.GetTags(), ",")),
						orText(m.GetArtifactType(), m.GetMediaType()), when(m.GetPushed()), dash(m.GetSubject())})
				}
				columns(w, "DIGEST\tTAGS\tTYPE\tPUSHED\tSUBJECT", rows)
			})
		},
	}
}

func newManifestRemove(a *app) *cobra.Command {
	var d destructive
	cmd := &cobra.Command{
		Use: "remove REPOSITORY@DIGEST", Short: "Remove a manifest and its tags",
		Long: "Remove a manifest and its tags. Refused (exit code 4) while an index in the repository names it.\n" +
			"What refers to it (signatures, SBOMs) stays.",
		Example: "  pontoon manifest remove team/app@sha256:... --dry-run\n  pontoon manifest remove team/app@sha256:... --yes",
		Args:    exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			repository, digest, err := splitReference(cmd, args[0], "@", "REPOSITORY@DIGEST")
			if err != nil {
				return err
			}
			return a.removeManifest(cmd, d, &adminv1.RemoveManifestRequest{Repository: repository, Digest: digest})
		},
	}
	d.flags(cmd)
	return cmd
}

func (a *app) removeManifest(cmd *cobra.Command, d destructive, req *adminv1.RemoveManifestRequest) error {
	c, err := a.dial(cmd.Context())
	if err != nil {
		return err
	}
	if d.dry || !d.yes {
		req.Preview = true
		res, err := c.repositories.RemoveManifest(cmd.Context(), req)
		if err != nil {
			return err
		}
		if d.dry {
			return a.show(res, func(w io.Writer) { describeManifest(w, "would remove", req.GetRepository(), res) })
		}
		if err := a.confirm(cmd, d, textOf(func(w io.Writer) { describeManifest(w, "This removes", req.GetRepository(), res) })); err != nil {
			return err
		}
		req.Preview = false
	}
	res, err := c.repositories.RemoveManifest(cmd.Context(), req)
	if err != nil {
		return err
	}
	return a.show(res, func(w io.Writer) { describeManifest(w, "removed", req.GetRepository(), res) })
}

func describeManifest(w io.Writer, verb, repository string, res *adminv1.RemoveManifestResponse) {
	_, _ = fmt.Fprintf(w, "%s %s@%s\n", verb, repository, res.GetManifest().GetDigest())
	if tags := res.GetManifest().GetTags(); len(tags) > 0 {
		_, _ = fmt.Fprintf(w, "with the tags %s\n", strings.Join(tags, ", "))
	}
	if users := res.GetUsers(); len(users) > 0 {
		_, _ = fmt.Fprintf(w, "it is named by %s, so it stays until those are removed\n", strings.Join(users, ", "))
	}
	if referrers := res.GetReferrers(); len(referrers) > 0 {
		_, _ = fmt.Fprintf(w, "%d manifests refer to it and stay: %s\n", len(referrers), strings.Join(referrers, ", "))
	}
}
