package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	adminv1 "github.com/pontoon-registry/pontoon/proto/pontoon/admin/v1"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

func newSnapshotList(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "list [SRC]", Short: "List the snapshots that the cluster knows, or those that lie in a place",
		Long: "List the snapshots that the cluster knows, the oldest first. While one is listed as open or complete, the store keeps\n" +
			"what it needs.\n\n" +
			"With SRC no node is asked: those are listed that lie there. SRC is `latest` for the configured place of backups,\n" +
			"s3://BUCKET[/PREFIX] or a directory.",
		Example: "  pontoon snapshot list -o json\n  pontoon snapshot list latest           # after a disaster\n  pontoon snapshot list s3://other-bucket",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				return a.listPlace(cmd.Context(), args[0])
			}
			c, err := a.dial(cmd.Context())
			if err != nil {
				return err
			}
			res, err := call(cmd.Context(), func(ctx context.Context) (*adminv1.ListSnapshotsResponse, error) {
				return c.snapshots.ListSnapshots(ctx, &adminv1.ListSnapshotsRequest{})
			})
			if err != nil {
				return err
			}
			return a.show(res, func(w io.Writer) { writeSnapshots(w, res) })
		},
	}
}

func writeSnapshots(w io.Writer, res *adminv1.ListSnapshotsResponse) {
	rows := make([][]string, 0, len(res.GetSnapshots()))
	for _, s := range res.GetSnapshots() {
		state := stateText(s.GetState())
		if s.GetHold() {
			state += ", held"
		}
		index, stored := "-", "-"
		if s.GetIndex() > 0 {
			index, stored = strconv.FormatUint(s.GetIndex(), 10), size(s.GetSize())
		}
		rows = append(rows, []string{s.GetId(), state, s.GetPlace(), index, when(s.GetTime()), stored, dash(s.GetName())})
	}
	columns(w, "SNAPSHOT\tSTATE\tPLACE\tINDEX\tOF\tSIZE\tNAME", rows)
	if res.GetOldestRestorable() > 0 {
		_, _ = fmt.Fprintf(w, "the store keeps what was needed at index %d or later\n", res.GetOldestRestorable())
	}
}

func stateText(s metav1.BackupState) string {
	return strings.ToLower(strings.TrimPrefix(s.String(), "BACKUP_STATE_"))
}

func newSnapshotRelease(a *app) *cobra.Command {
	return newSnapshotGiveUp(a, true, &cobra.Command{
		Use: "release ID", Short: "Give a snapshot up, also one on hold",
		Long: "Give a snapshot up, also one on hold: what only it protects in the store may be deleted from now on, and its objects\n" +
			"are, unless it is in a file.",
		Example: "  pontoon snapshot release 6f0e4c0d9a3b4f0f8c0a4f6d1e2b3c4d",
	})
}

func newSnapshotRetire(a *app) *cobra.Command {
	return newSnapshotGiveUp(a, false, &cobra.Command{
		Use: "retire ID", Short: "Give a snapshot up, unless it is on hold",
		Long:    "Give a snapshot up as retention would, unless it is on hold.",
		Example: "  pontoon snapshot retire 6f0e4c0d9a3b4f0f8c0a4f6d1e2b3c4d",
	})
}

func newSnapshotGiveUp(a *app, release bool, cmd *cobra.Command) *cobra.Command {
	cmd.Args = exactly(1)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := a.dial(cmd.Context())
		if err != nil {
			return err
		}
		res, err := call(cmd.Context(), func(ctx context.Context) (*adminv1.RetireSnapshotResponse, error) {
			return c.snapshots.RetireSnapshot(ctx, &adminv1.RetireSnapshotRequest{Id: args[0], Release: release})
		})
		if err != nil {
			return err
		}
		return a.show(res, func(w io.Writer) { _, _ = fmt.Fprintf(w, "gave up %s\n", args[0]) })
	}
	return cmd
}
