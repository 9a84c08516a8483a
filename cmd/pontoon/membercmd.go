package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	adminv1 "github.com/pontoon-registry/pontoon/proto/pontoon/admin/v1"
)

func newClusterMembers(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "members", Short: "List the members of the cluster",
		Long: "List the members of the cluster: their role, whether they answer, when they last heard the leader, how far they\n" +
			"are behind, and which release and command versions they run. It answers without a quorum too.",
		Example: "  pontoon cluster members\n  pontoon cluster members -o json | jq .cluster.failureTolerance",
		Args:    exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.dial(cmd.Context())
			if err != nil {
				return err
			}
			res, err := call(cmd.Context(), func(ctx context.Context) (*adminv1.ListMembersResponse, error) {
				return c.members.ListMembers(ctx, &adminv1.ListMembersRequest{})
			})
			if err != nil {
				return err
			}
			return a.show(res, func(w io.Writer) {
				_, _ = fmt.Fprintf(w, "%s; command version %d\n\n", tolerance(res.GetCluster()), res.GetCluster().GetVersion())
				writeMembers(w, res.GetMembers())
			})
		},
	}
}

// leaveTime bounds a leave: http.draintimeout may be long.
const leaveTime = 10 * time.Minute

func newClusterLeave(a *app) *cobra.Command {
	var d destructive
	var force bool
	cmd := &cobra.Command{
		Use: "leave", Short: "Let the node here leave the cluster for good, and stop",
		Long: "Let the node here leave the cluster for good: it turns unready, lets running requests end (http.draintimeout), hands\n" +
			"leadership over, is removed, and its process ends with 0. Its data directory is then of no use: empty it\n" +
			"to join as a new node. To stop a node and start it again, send SIGTERM instead.\n\n" +
			"It is refused when fewer than a majority would be left, or when the last failure that the cluster tolerates\n" +
			"would be lost: let another node join first, or say --force. The last voter cannot leave.",
		Example: "  pontoon cluster leave --dry-run\n  pontoon cluster leave --yes",
		Args:    exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.dial(cmd.Context())
			if err != nil {
				return err
			}
			judged, err := call(cmd.Context(), func(ctx context.Context) (*adminv1.LeaveClusterResponse, error) {
				return c.members.LeaveCluster(ctx, &adminv1.LeaveClusterRequest{Force: force, DryRun: true})
			})
			if err != nil {
				return err
			}
			if d.dry {
				return a.show(judged, func(w io.Writer) { _, _ = fmt.Fprintf(w, "node %s may leave\n", judged.GetId()) })
			}
			if err := a.confirm(cmd, d, fmt.Sprintf("Node %s leaves the cluster for good and stops.\n", judged.GetId())); err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), leaveTime)
			defer cancel()
			res, err := c.members.LeaveCluster(ctx, &adminv1.LeaveClusterRequest{Force: force})
			if err != nil {
				return err
			}
			return a.show(res, func(w io.Writer) {
				_, _ = fmt.Fprintf(w, "node %s left the cluster; empty its data directory before it joins one again\n", res.GetId())
			})
		},
	}
	d.flags(cmd)
	cmd.Flags().BoolVar(&force, "force", false, "although it costs the quorum or the last tolerated failure")
	return cmd
}

func newClusterRemove(a *app) *cobra.Command {
	var d destructive
	var force bool
	cmd := &cobra.Command{
		Use: "remove NODE", Short: "Remove another node, such as one that died for good",
		Long: "Remove a node for good, by its id or by its name, from any node. If it still runs it notices, stops and says so.\n" +
			"A dead node need not be removed by hand: one that stands by takes its vote (cluster.dead.replace), and it is\n" +
			"forgotten in time (cluster.dead.forget).\n\n" +
			"It is refused when fewer than a majority would be left, or when the last failure that the cluster tolerates\n" +
			"would be lost, unless --force says so.",
		Example: "  pontoon cluster remove node-3 --dry-run\n  pontoon cluster remove node-3 --yes",
		Args:    exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.dial(cmd.Context())
			if err != nil {
				return err
			}
			remove := func(dry bool) (*adminv1.RemoveMemberResponse, error) {
				return call(cmd.Context(), func(ctx context.Context) (*adminv1.RemoveMemberResponse, error) {
					return c.members.RemoveMember(ctx, &adminv1.RemoveMemberRequest{Node: args[0], Force: force, DryRun: dry})
				})
			}
			judged, err := remove(true)
			if err != nil {
				return err
			}
			if d.dry {
				return a.show(judged, func(w io.Writer) { _, _ = fmt.Fprintf(w, "node %s would be removed\n", judged.GetId()) })
			}
			if err := a.confirm(cmd, d, fmt.Sprintf("Node %s is removed for good.\n", judged.GetId())); err != nil {
				return err
			}
			res, err := remove(false)
			if err != nil {
				return err
			}
			return a.show(res, func(w io.Writer) { _, _ = fmt.Fprintf(w, "removed node %s\n", res.GetId()) })
		},
	}
	d.flags(cmd)
	cmd.Flags().BoolVar(&force, "force", false, "although it costs the quorum or the last tolerated failure")
	return cmd
}

func newClusterTransfer(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "transfer [NODE]", Short: "Hand leadership to another node",
		Long:    "Hand leadership to a voter, by its id or name; without one the leader chooses. Writes pause for milliseconds.",
		Example: "  pontoon cluster transfer\n  pontoon cluster transfer node-2",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usage(cmd, "got %d arguments, expected one node at most", len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.dial(cmd.Context())
			if err != nil {
				return err
			}
			req := &adminv1.TransferLeadershipRequest{}
			if len(args) == 1 {
				req.Node = args[0]
			}
			res, err := call(cmd.Context(), func(ctx context.Context) (*adminv1.TransferLeadershipResponse, error) {
				return c.members.TransferLeadership(ctx, req)
			})
			if err != nil {
				return err
			}
			return a.show(res, func(w io.Writer) { _, _ = fmt.Fprintf(w, "node %s leads\n", orText(res.GetLeader(), "unknown")) })
		},
	}
}

func newClusterFinalize(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "finalize", Short: "End an upgrade: raise the cluster's command version",
		Long: "Raise the cluster's command version to the newest that all members understand. Afterwards the release before can\n" +
			"neither be installed again nor join. With cluster.upgrade: auto the leader does it by itself, a minute after the\n" +
			"last node was upgraded.",
		Example: "  pontoon cluster finalize",
		Args:    exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.dial(cmd.Context())
			if err != nil {
				return err
			}
			res, err := call(cmd.Context(), func(ctx context.Context) (*adminv1.FinalizeUpgradeResponse, error) {
				return c.members.FinalizeUpgrade(ctx, &adminv1.FinalizeUpgradeRequest{})
			})
			if err != nil {
				return err
			}
			return a.show(res, func(w io.Writer) {
				if res.GetBefore() == res.GetVersion() {
					_, _ = fmt.Fprintf(w, "nothing to do: the command version is %d\n", res.GetVersion())
					return
				}
				_, _ = fmt.Fprintf(w, "the command version rose from %d to %d\n", res.GetBefore(), res.GetVersion())
			})
		},
	}
}
