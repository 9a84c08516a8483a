package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	adminv1 "github.com/pontoon-registry/pontoon/proto/pontoon/admin/v1"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

func newGCStatus(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Show how garbage collection stands, and whose the store is",
		Long: "Show the cycle that runs and the last one, what is condemned and why it waits, whether this cluster owns the store\n" +
			"(it deletes nothing otherwise), how far back a restore may go, and settings of the bucket that stand against it.",
		Example: "  pontoon gc status\n  pontoon gc status -o json | jq .mark.held",
		Args:    exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.dial(cmd.Context())
			if err != nil {
				return err
			}
			res, err := call(cmd.Context(), func(ctx context.Context) (*adminv1.GetCollectionResponse, error) {
				return c.collection.GetCollection(ctx, &adminv1.GetCollectionRequest{})
			})
			if err != nil {
				return err
			}
			return a.show(res, func(w io.Writer) { writeCollection(w, res) })
		},
	}
}

func writeCollection(w io.Writer, s *adminv1.GetCollectionResponse) {
	line := func(name, format string, args ...any) {
		_, _ = fmt.Fprintf(w, "%-11s %s\n", name, fmt.Sprintf(format, args...))
	}
	switch {
	case !s.GetEnabled():
		line("collection", "OFF on this node (gc.enabled: false)")
	case s.GetUnsafeShort():
		line("collection", "on, %s, UNSAFE (gc.unsafeshort)", s.GetSchedule())
	default:
		line("collection", "on, %s", s.GetSchedule())
	}
	if s.GetRequested() != nil {
		line("asked for", "since %s", when(s.GetRequested()))
	}
	if c := s.GetRunning(); c != nil {
		line("running", "cycle %d since %s: %s, %s", c.GetId(), when(c.GetBegun()), phaseText(c.GetPhase()), countText(c.GetCount()))
	}
	if c := s.GetLast(); c != nil {
		line("last", "cycle %d, %s at %s after %s: %s", c.GetId(), outcomeText(c.GetOutcome()), when(c.GetEnded()), tookText(c), countText(c.GetCount()))
		line("waiting", "%s", keptText(c.GetKept()))
		if c.GetTrouble() != "" {
			line("trouble", "%s", c.GetTrouble())
		}
	} else {
		line("last", "none yet")
	}
	if m := s.GetMark(); m.GetHeld() {
		line("store", "ours, swept through index %d", m.GetSweptThrough())
	} else {
		line("store", "NOTHING IS DELETED: %s", m.GetProblem())
	}
	if o := s.GetOldest(); o != nil {
		line("restorable", "back to %s", restorableText(o))
	} else {
		line("restorable", "nothing: there is no backup, so what is condemned goes after gc.delay")
	}
	writeFindings(line, s.GetFindings())
}

func writeFindings(line func(name, format string, args ...any), all []*adminv1.Finding) {
	for _, f := range all {
		if f.GetGrave() {
			line("bucket", "DANGER: %s", f.GetText())
		} else {
			line("bucket", "%s", f.GetText())
		}
	}
}

func newGCHistory(a *app) *cobra.Command {
	var count int32
	cmd := &cobra.Command{
		Use: "history", Short: "List the cycles that ended, the last first",
		Example: "  pontoon gc history\n  pontoon gc history --count 100 -o json | jq '.cycles[].count.deletedBytes'",
		Args:    exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if count < 1 || count > 100 {
				return usage(cmd, "--count: got %d, expected 1 to 100", count)
			}
			c, err := a.dial(cmd.Context())
			if err != nil {
				return err
			}
			res, err := call(cmd.Context(), func(ctx context.Context) (*adminv1.ListCyclesResponse, error) {
				return c.collection.ListCycles(ctx, &adminv1.ListCyclesRequest{Count: count})
			})
			if err != nil {
				return err
			}
			return a.show(res, func(w io.Writer) { writeHistory(w, res.GetCycles()) })
		},
	}
	cmd.Flags().Int32Var(&count, "count", 20, "how many, at most 100")
	return cmd
}

func writeHistory(w io.Writer, cycles []*adminv1.Cycle) {
	rows := make([][]string, 0, len(cycles))
	for _, c := range cycles {
		n := c.GetCount()
		why := strings.ToLower(strings.TrimPrefix(c.GetTrigger().String(), "CYCLE_TRIGGER_"))
		rows = append(rows, []string{strconv.FormatUint(c.GetId(), 10), when(c.GetBegun()), tookText(c), why, outcomeText(c.GetOutcome()),
			strconv.FormatInt(n.GetMarked(), 10), pair(n.GetCondemnedBlobs(), n.GetCondemnedBytes()), pair(n.GetDeletedKeys(), n.GetDeletedBytes()),
			pair(n.GetOrphanKeys(), n.GetOrphanBytes()), pair(c.GetKept().GetKeys(), c.GetKept().GetBytes()), dash(c.GetTrouble())})
	}
	columns(w, "CYCLE\tBEGUN\tTOOK\tWHY\tOUTCOME\tBLOBS\tCONDEMNED\tDELETED\tORPHANS\tWAITING\tTROUBLE", rows)
}

func pair(n, bytes int64) string { return fmt.Sprintf("%d (%s)", n, size(bytes)) }

func tookText(c *adminv1.Cycle) string {
	if c.GetEnded() == nil {
		return "-"
	}
	return max(0, c.GetEnded().AsTime().Sub(c.GetBegun().AsTime())).Round(10 * time.Millisecond).String()
}

func phaseText(p metav1.CyclePhase) string {
	return strings.ToLower(strings.TrimPrefix(p.String(), "CYCLE_PHASE_"))
}

func outcomeText(o metav1.CycleOutcome) string {
	return strings.ToLower(strings.TrimPrefix(o.String(), "CYCLE_OUTCOME_"))
}

// countText says what a cycle did; what it did not, it does not say.
func countText(n *metav1.CycleCount) string {
	parts := []string{fmt.Sprintf("%d blobs looked at", n.GetMarked())}
	add := func(count int64, format string, args ...any) {
		if count > 0 {
			parts = append(parts, fmt.Sprintf(format, args...))
		}
	}
	add(n.GetUntaggedManifests(), "%d untagged manifests deleted", n.GetUntaggedManifests())
	add(n.GetCondemnedBlobs(), "%d condemned (%s)", n.GetCondemnedBlobs(), size(n.GetCondemnedBytes()))
	add(n.GetDeletedKeys(), "%d keys deleted (%s)", n.GetDeletedKeys(), size(n.GetDeletedBytes()))
	add(n.GetOrphanKeys(), "%d orphans deleted (%s)", n.GetOrphanKeys(), size(n.GetOrphanBytes()))
	add(n.GetAbortedMultiparts(), "%d multipart uploads aborted", n.GetAbortedMultiparts())
	add(n.GetFailed(), "%d FAILED", n.GetFailed())
	return strings.Join(parts, ", ")
}

// keptText says what is condemned and why it waits.
func keptText(k *metav1.CycleKept) string {
	if k.GetKeys() == 0 {
		return "nothing"
	}
	parts := []string{}
	add := func(n int64, why string) {
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, why))
		}
	}
	add(k.GetForDelay(), "until gc.delay is over")
	add(k.GetForBackup(), "because a backup may need them")
	add(k.GetForMark(), "because the store is not ours")
	add(k.GetForEpoch(), "because another cluster wrote them (see `pontoon gc adopt --forget-epoch`)")
	text := fmt.Sprintf("%d keys, %s", k.GetKeys(), size(k.GetBytes()))
	if len(parts) > 0 {
		text += ": " + strings.Join(parts, ", ")
	}
	return text
}

// writeStore is what `pontoon status` says of the store.
func writeStore(line func(name, format string, args ...any), s *adminv1.StoreStatus) {
	switch {
	case s == nil || !s.GetKnown():
	case !s.GetOwned():
		line("problem", "nothing is deleted: %s", s.GetProblem())
	case s.GetCollected() == nil:
		line("garbage", "no cycle has ended yet")
	default:
		line("garbage", "last cycle %s at %s, %s wait to be deleted", s.GetOutcome(), when(s.GetCollected()), size(s.GetReclaimable()))
	}
	if n := s.GetFindings(); n > 0 {
		line("problem", "%d settings of the bucket stand against the registry: see `pontoon gc status`", n)
	}
}
