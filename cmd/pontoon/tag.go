package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	adminv1 "github.com/pontoon-registry/pontoon/proto/pontoon/admin/v1"
)

func newTag(a *app) *cobra.Command {
	return group("tag", "List and remove tags", newTagList(a), newTagRemove(a))
}

func newTagList(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "list REPOSITORY", Short: "List the tags of a repository",
		Example: "  pontoon tag list team/app",
		Args:    exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.dial(cmd.Context())
			if err != nil {
				return err
			}
			all := &adminv1.ListTagsResponse{}
			err = pages(cmd.Context(), func(ctx context.Context, token string) (string, error) {
				page, err := c.repositories.ListTags(ctx, &adminv1.ListTagsRequest{Repository: args[0], PageSize: pageSize, PageToken: token})
				all.Tags = append(all.Tags, page.GetTags()...)
				return page.GetNextPageToken(), err
			})
			if err != nil {
				return err
			}
			return a.show(all, func(w io.Writer) {
				rows := make([][]string, 0, len(all.GetTags()))
				for _, t := range all.GetTags() {
					rows = append(rows, []string{t.GetName(), t.GetDigest(), when(t.GetPushed()), dash(t.GetPushedBy())})
				}
				columns(w, "TAG\tDIGEST\tPUSHED\tBY", rows)
			})
		},
	}
}

func newTagRemove(a *app) *cobra.Command {
	var d destructive
	var digest string
	cmd := &cobra.Command{
		Use: "remove REPOSITORY:TAG", Short: "Remove a tag; its manifest stays",
		Example: "  pontoon tag remove team/app:v1 --dry-run\n  pontoon tag remove team/app:v1 --if-digest sha256:... --yes",
		Args:    exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			repository, tag, err := splitReference(cmd, args[0], ":", "REPOSITORY:TAG")
			if err != nil {
				return err
			}
			return a.removeTag(cmd, d, &adminv1.RemoveTagRequest{Repository: repository, Tag: tag, Digest: digest})
		},
	}
	d.flags(cmd)
	cmd.Flags().StringVar(&digest, "if-digest", "", "only if the tag names this digest")
	return cmd
}

// removeTag shows what the tag is, and removes just that: a tag that has moved in between is left alone.
func (a *app) removeTag(cmd *cobra.Command, d destructive, req *adminv1.RemoveTagRequest) error {
	c, err := a.dial(cmd.Context())
	if err != nil {
		return err
	}
	if d.dry || !d.yes {
		req.Preview = true
		res, err := c.repositories.RemoveTag(cmd.Context(), req)
		if err != nil {
			return err
		}
		if d.dry {
			return a.show(res, func(w io.Writer) { describeTag(w, "would remove", req.GetRepository(), res) })
		}
		if err := a.confirm(cmd, d, textOf(func(w io.Writer) { describeTag(w, "This removes", req.GetRepository(), res) })); err != nil {
			return err
		}
		req.Preview, req.Digest = false, orText(req.GetDigest(), res.GetTag().GetDigest())
	}
	res, err := c.repositories.RemoveTag(cmd.Context(), req)
	if err != nil {
		return err
	}
	return a.show(res, func(w io.Writer) { describeTag(w, "removed", req.GetRepository(), res) })
}

func describeTag(w io.Writer, verb, repository string, res *adminv1.RemoveTagResponse) {
	_, _ = fmt.Fprintf(w, "%s %s:%s, which names %s\n", verb, repository, res.GetTag().GetName(), res.GetTag().GetDigest())
	if others := res.GetRemainingTags(); len(others) > 0 {
		_, _ = fmt.Fprintf(w, "the manifest keeps the tags %s\n", strings.Join(others, ", "))
	} else {
		_, _ = fmt.Fprintln(w, "the manifest has no other tag and is then reached by digest only")
	}
}

// splitReference cuts name<sep>rest at the last sep.
func splitReference(cmd *cobra.Command, s, sep, form string) (name, rest string, err error) {
	i := strings.LastIndex(s, sep)
	if i <= 0 || i == len(s)-1 {
		return "", "", usage(cmd, "got %q, expected %s", s, form)
	}
	return s[:i], s[i+1:], nil
}

func textOf(write func(io.Writer)) string {
	var b strings.Builder
	write(&b)
	return b.String()
}
