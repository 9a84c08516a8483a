package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pontoon-registry/pontoon/cluster/backup"
	"github.com/pontoon-registry/pontoon/meta"
)

func newSnapshotInspect(a *app) *cobra.Command {
	what := choice{}
	tags := false
	cmd := &cobra.Command{
		Use: "inspect SRC [SRC2]", Short: "Show what a snapshot holds, or what changed between two, without a cluster",
		Long: "Show repositories, tags and sizes of a snapshot, or what changed from SRC to SRC2. No node is asked. " + sourceHelp + "\n" +
			"The state is unpacked below $TMPDIR and removed again; it takes the disk there that it takes on a node.",
		Example: "  pontoon snapshot inspect latest --tags\n  pontoon snapshot inspect old.tar new.tar -o json",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 1 || len(args) > 2 {
				return usage(cmd, "got %d arguments, expected SRC, or SRC and SRC2", len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			what.src = args[0]
			if len(args) == 2 {
				if what.to != "" {
					return usage(cmd, "--to says nothing about two snapshots: name them")
				}
				return a.compare(cmd.Context(), what, args[1])
			}
			return a.inspect(cmd.Context(), what, tags)
		},
	}
	cmd.Flags().StringVar(&what.to, "to", "", "the moment, as in restore. Default: that of NAME, else latest")
	cmd.Flags().StringVar(&what.cluster, "cluster", "", "whose snapshots, when there are those of several clusters")
	cmd.Flags().BoolVar(&tags, "tags", false, "show every tag, too")
	return cmd
}

// inspectedRepository is a repository for JSON.
type inspectedRepository struct {
	Name      string         `json:"name"`
	Tags      int64          `json:"tags"`
	Manifests int64          `json:"manifests"`
	Bytes     int64          `json:"bytes"`
	Tagged    []inspectedTag `json:"tagged,omitempty"`
}

type inspectedTag struct {
	Tag    string `json:"tag"`
	Digest string `json:"digest"`
}

func (a *app) inspect(ctx context.Context, what choice, tags bool) (err error) {
	c, err := loadConfig(a.config, a.host)
	if err != nil {
		return err
	}
	l, err := a.look(ctx, c.Config, what)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	v := l.View()
	defer v.Close()
	repositories := []inspectedRepository{}
	err = backup.Repositories(v, func(r backup.Repository) error {
		row := inspectedRepository{Name: r.Name, Tags: r.GetTags(), Manifests: r.GetManifests(), Bytes: r.GetBytes()}
		if tags {
			if err := backup.Tags(v, r.Name, func(t meta.TagItem) error {
				row.Tagged = append(row.Tagged, inspectedTag{t.Name, meta.Digest(t.GetDigest()).String()})
				return nil
			}); err != nil {
				return err
			}
		}
		repositories = append(repositories, row)
		return nil
	})
	if err != nil {
		return err
	}
	if a.json() {
		return a.showJSON(struct {
			State        stateOf               `json:"state"`
			Release      string                `json:"release"`
			Rows         map[string]int64      `json:"rows"`
			Repositories []inspectedRepository `json:"repositories"`
		}{stateFrom(l.Loaded), l.Snapshot.Release, l.Snapshot.Rows, repositories})
	}
	return a.write(func(w io.Writer) { describeState(w, l.Loaded); describeRepositories(w, repositories) })
}

func describeState(w io.Writer, l *backup.Loaded) {
	_, _ = fmt.Fprintf(w, "cluster %s, incarnation %d, at index %d, %s\nsnapshot of index %d by release %s, %d log entries behind it\n\n",
		l.System.GetClusterId(), l.System.GetIncarnation(), l.Index, stamp(l.WallTime), l.Snapshot.Index, orText(l.Snapshot.Release, "(unknown)"), l.Replayed)
}

func describeRepositories(w io.Writer, all []inspectedRepository) {
	var rows [][]string
	var sum inspectedRepository
	for _, r := range all {
		rows = append(rows, []string{r.Name, strconv.FormatInt(r.Tags, 10), strconv.FormatInt(r.Manifests, 10), size(r.Bytes)})
		sum.Tags, sum.Manifests, sum.Bytes = sum.Tags+r.Tags, sum.Manifests+r.Manifests, sum.Bytes+r.Bytes
	}
	rows = append(rows, []string{fmt.Sprintf("(%d repositories)", len(all)), strconv.FormatInt(sum.Tags, 10), strconv.FormatInt(sum.Manifests, 10), size(sum.Bytes)})
	columns(w, "REPOSITORY\tTAGS\tMANIFESTS\tSIZE", rows)
	for _, r := range all {
		for _, t := range r.Tagged {
			_, _ = fmt.Fprintf(w, "%s:%s  %s\n", r.Name, t.Tag, t.Digest)
		}
	}
}

// changed is a difference for JSON; Tag is empty for a repository as a whole.
type changed struct {
	Repository string `json:"repository"`
	Tag        string `json:"tag,omitempty"`
	Change     string `json:"change"`
	Before     string `json:"before,omitempty"`
	After      string `json:"after,omitempty"`
	Manifests  int64  `json:"manifests,omitempty"`
	Bytes      int64  `json:"bytes,omitempty"`
}

func (a *app) compare(ctx context.Context, what choice, src2 string) (err error) {
	c, err := loadConfig(a.config, a.host)
	if err != nil {
		return err
	}
	var both [2]*looking
	for i, src := range []string{what.src, src2} {
		what.src = src
		if both[i], err = a.look(ctx, c.Config, what); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, both[i].Close()) }()
	}
	before, after := both[0].View(), both[1].View()
	defer before.Close()
	defer after.Close()
	changes := []changed{}
	if err := backup.Changes(before, after, func(c backup.Change) error {
		changes = append(changes, changedBy(c))
		return nil
	}); err != nil {
		return err
	}
	if a.json() {
		return a.showJSON(struct {
			Before  stateOf   `json:"before"`
			After   stateOf   `json:"after"`
			Changes []changed `json:"changes"`
		}{stateFrom(both[0].Loaded), stateFrom(both[1].Loaded), changes})
	}
	return a.write(func(w io.Writer) {
		for _, l := range both {
			describeState(w, l.Loaded)
		}
		for _, c := range changes {
			_, _ = fmt.Fprintln(w, c)
		}
		if len(changes) == 0 {
			_, _ = fmt.Fprintln(w, "no repository and no tag differs")
		}
	})
}

func changedBy(c backup.Change) changed {
	out := changed{Repository: c.Repository, Tag: c.Tag, Before: c.Before.String(), After: c.After.String(), Change: "changed"}
	gone, fresh := c.Before != "" && c.After == "", c.Before == "" && c.After != ""
	if c.Tag == "" {
		gone, fresh = c.New == nil, c.Old == nil
		out.Manifests, out.Bytes = c.New.GetManifests()-c.Old.GetManifests(), c.New.GetBytes()-c.Old.GetBytes()
	}
	switch {
	case gone:
		out.Change = "removed"
	case fresh:
		out.Change = "added"
	case c.Tag != "":
		out.Change = "moved"
	}
	return out
}

// String is a line for people.
func (c changed) String() string {
	sign := map[string]string{"removed": "-", "added": "+"}[c.Change]
	if sign == "" {
		sign = "~"
	}
	switch {
	case c.Tag == "":
		return fmt.Sprintf("%s %s  %+d manifests, %s", sign, c.Repository, c.Manifests, signedSize(c.Bytes))
	case c.Before == "" || c.After == "":
		return fmt.Sprintf("%s %s:%s  %s", sign, c.Repository, c.Tag, c.Before+c.After)
	}
	return fmt.Sprintf("%s %s:%s  %s -> %s", sign, c.Repository, c.Tag, c.Before, c.After)
}

func signedSize(n int64) string {
	if n < 0 {
		return "-" + size(-n)
	}
	return "+" + size(n)
}

// listed names at most ten of something.
func listed(names []string) string { return strings.Join(names, ", ") }
