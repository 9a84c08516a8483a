package main

import (
	"context"
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	adminv1 "github.com/pontoon-registry/pontoon/proto/pontoon/admin/v1"
)

func newRepo(a *app) *cobra.Command {
	return group("repo", "List and remove repositories", newRepoList(a), newRepoRemove(a))
}

func newRepoList(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List repositories with what they hold",
		Example: "  pontoon repo list\n  pontoon repo list -o json | jq -r '.repositories[].name'",
		Args:    exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.dial(cmd.Context())
			if err != nil {
				return err
			}
			all := &adminv1.ListRepositoriesResponse{}
			err = pages(cmd.Context(), func(ctx context.Context, token string) (string, error) {
				page, err := c.repositories.ListRepositories(ctx, &adminv1.ListRepositoriesRequest{PageSize: pageSize, PageToken: token})
				all.Repositories = append(all.Repositories, page.GetRepositories()...)
				return page.GetNextPageToken(), err
			})
			if err != nil {
				return err
			}
			return a.show(all, func(w io.Writer) {
				rows := make([][]string, 0, len(all.GetRepositories()))
				for _, r := range all.GetRepositories() {
					rows = append(rows, []string{r.GetName(), strconv.FormatInt(r.GetTags(), 10),
						strconv.FormatInt(r.GetManifests(), 10), size(r.GetBytes()), when(r.GetCreated())})
				}
				columns(w, "REPOSITORY\tTAGS\tMANIFESTS\tSIZE\tCREATED", rows)
			})
		},
	}
}

func newRepoRemove(a *app) *cobra.Command {
	var d destructive
	cmd := &cobra.Command{
		Use: "remove NAME", Short: "Remove a repository with all its tags and manifests",
		Long: "Remove a repository with all its tags and manifests. Storage is freed later, by garbage collection.\n\n" +
			"A removal that was cut may be repeated.",
		Example: "  pontoon repo remove team/app --dry-run\n  pontoon repo remove team/app --yes",
		Args:    exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.dial(cmd.Context())
			if err != nil {
				return err
			}
			call := func(preview bool) (*adminv1.RemoveRepositoryResponse, error) {
				return c.repositories.RemoveRepository(cmd.Context(), &adminv1.RemoveRepositoryRequest{Name: args[0], Preview: preview})
			}
			if d.dry || !d.yes {
				res, err := call(true)
				if err != nil {
					return err
				}
				if d.dry {
					return a.show(res, func(w io.Writer) { describeRepository(w, "would remove", res.GetRepository()) })
				}
				if err := a.confirm(cmd, d, textOf(func(w io.Writer) { describeRepository(w, "This removes", res.GetRepository()) })); err != nil {
					return err
				}
			}
			res, err := call(false)
			if err != nil {
				return err
			}
			return a.show(res, func(w io.Writer) { describeRepository(w, "removed", res.GetRepository()) })
		},
	}
	d.flags(cmd)
	return cmd
}

func describeRepository(w io.Writer, verb string, r *adminv1.Repository) {
	_, _ = fmt.Fprintf(w, "%s %s: %d tags, %d manifests, %s\n", verb, r.GetName(), r.GetTags(), r.GetManifests(), size(r.GetBytes()))
}

// pageSize is what lists of the CLI ask for at once.
const pageSize = 1000

// pages calls next until it answers no further token. Each page has its own deadline.
func pages(ctx context.Context, next func(ctx context.Context, token string) (string, error)) error {
	for token := ""; ; {
		pageCtx, cancel := context.WithTimeout(ctx, callTime)
		following, err := next(pageCtx, token)
		cancel()
		if err != nil || following == "" {
			return err
		}
		token = following
	}
}
