package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	adminv1 "github.com/pontoon-registry/pontoon/proto/pontoon/admin/v1"
)

func newStatus(a *app) *cobra.Command {
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show how the node here and its cluster are",
		Long: "Show how the node here and its cluster are.\n\n" +
			"Exit code 0: the node is ready. 5: no node answers, or it is not ready; what is wrong is on standard output.",
		Example: "  pontoon status\n  pontoon status -o json | jq .cluster.leader\n  pontoon status --wait 1m     # until it is ready",
		Args:    exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			res, err := a.status(cmd.Context(), wait)
			if err != nil {
				return err
			}
			if err := a.show(res, func(w io.Writer) { writeStatus(w, res) }); err != nil {
				return err
			}
			if !res.GetNode().GetReady() {
				return &codedError{code: exitUnavailable}
			}
			return nil
		},
	}
	cmd.Flags().DurationVar(&wait, "wait", 0, "how long to wait until the node is ready")
	return cmd
}

// statusPoll is how often --wait asks.
const statusPoll = 200 * time.Millisecond

// status asks the node once, or until it is ready or wait is over.
func (a *app) status(ctx context.Context, wait time.Duration) (*adminv1.GetStatusResponse, error) {
	end := time.Now().Add(wait)
	tick := time.NewTicker(statusPoll)
	defer tick.Stop()
	for {
		res, err := a.statusOnce(ctx)
		if (err == nil && res.GetNode().GetReady()) || !time.Now().Before(end) {
			return res, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return res, context.Cause(ctx)
		}
	}
}

func (a *app) statusOnce(ctx context.Context) (*adminv1.GetStatusResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	c, err := a.dial(ctx)
	if err != nil {
		return nil, err
	}
	return c.status.GetStatus(ctx, &adminv1.GetStatusRequest{})
}

func writeStatus(w io.Writer, s *adminv1.GetStatusResponse) {
	n, c := s.GetNode(), s.GetCluster()
	state := "ready"
	if !n.GetReady() {
		state = "NOT READY"
	}
	line := func(name, format string, args ...any) {
		_, _ = fmt.Fprintf(w, "%-9s %s\n", name, fmt.Sprintf(format, args...))
	}
	line("node", "%s (%s), %s, release %s", n.GetId(), n.GetName(), state, n.GetRelease())
	line("registry", "%s", n.GetRegistryUrl())
	line("store", "%s", n.GetStore())
	line("data", "%s", n.GetDataDirectory())
	line("cluster", "%s (%s), incarnation %d", dash(c.GetId()), c.GetName(), c.GetIncarnation())
	line("leader", "%s, term %d, applied here %d", orText(c.GetLeader(), "none"), c.GetTerm(), n.GetAppliedIndex())
	line("quorum", "%s", tolerance(c))
	writeStore(line, s.GetStore())
	for _, check := range n.GetChecks() {
		if !check.GetOk() {
			line("problem", "%s: %s", check.GetName(), check.GetDetail())
		}
	}
	_, _ = fmt.Fprintln(w)
	writeMembers(w, s.GetMembers())
}

func writeMembers(w io.Writer, members []*adminv1.Member) {
	rows := make([][]string, 0, len(members))
	for _, m := range members {
		rows = append(rows, []string{m.GetId(), dash(m.GetName()), dash(m.GetAddress()), role(m), reach(m), lastHeard(m),
			strconv.FormatUint(m.GetLag(), 10), dash(m.GetRelease()), commands(m)})
	}
	columns(w, "MEMBER\tNAME\tADDRESS\tROLE\tANSWERS\tHEARD LEADER\tBEHIND\tRELEASE\tCOMMANDS", rows)
}

// lastHeard is how long ago the member heard from a leader.
func lastHeard(m *adminv1.Member) string {
	switch {
	case m.GetLastContact() == nil:
		return "-"
	case m.GetLeader():
		return "leads"
	}
	return m.GetLastContact().AsDuration().Round(time.Millisecond).String() + " ago"
}

// commands are the command versions that the member's release understands (M7).
func commands(m *adminv1.Member) string {
	if m.GetMaxVersion() == 0 {
		return "-"
	}
	return fmt.Sprintf("%d-%d", m.GetMinVersion(), m.GetMaxVersion())
}

func tolerance(c *adminv1.ClusterStatus) string {
	if c.GetVoters() == 0 {
		return "none yet: this node is in no cluster"
	}
	if c.GetFailureTolerance() < 0 {
		return fmt.Sprintf("LOST: fewer than a majority of %d voters answer; writes wait", c.GetVoters())
	}
	return fmt.Sprintf("%d voters, %d more may fail", c.GetVoters(), c.GetFailureTolerance())
}

func role(m *adminv1.Member) string {
	switch {
	case m.GetLeader():
		return "leader"
	case m.GetVoter():
		return "voter"
	}
	return "non-voter"
}

func reach(m *adminv1.Member) string {
	switch {
	case !m.GetReachable():
		return "NO"
	case m.GetContact() == nil:
		return "here"
	}
	return "in " + m.GetContact().AsDuration().Round(10*time.Microsecond).String()
}
