package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "github.com/pontoon-registry/pontoon/proto/pontoon/admin/v1"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

func newGC(a *app) *cobra.Command {
	return group("gc", "Garbage collection: run it, look at it, check it, and whose the store is",
		newGCRun(a), newGCStatus(a), newGCHistory(a), newGCVerify(a), newGCAdopt(a))
}

// gcRun is what `gc run` was told.
type gcRun struct {
	destructive
	wait   bool
	giveUp string
}

func newGCRun(a *app) *cobra.Command {
	var r gcRun
	cmd := &cobra.Command{
		Use: "run", Short: "Ask for a cycle of garbage collection now",
		Long: "Ask the leader for a cycle now; pushes and pulls go on meanwhile. It condemns layers that no manifest needs, and\n" +
			"deletes from the store what is condemned, once gc.delay is over and no backup needs it any more.\n\n" +
			"--dry-run lists what a cycle would take now, with the reason for each, and changes nothing.\n\n" +
			"--give-up-restore-before T frees space sooner: backups of states before T are given up, so that what only they\n" +
			"protect may go. What can then no longer be restored is named and asked for first. Backups on hold stay.\n" +
			"gc.delay still counts: a key is deleted no sooner than that after it was condemned.",
		Example: "  pontoon gc run --dry-run\n  pontoon gc run --wait\n" +
			"  pontoon gc run --give-up-restore-before 72h --wait           # 72 hours ago; also now, 2026-11-20, RFC 3339",
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.gcRun(cmd, r) },
	}
	cmd.Flags().BoolVar(&r.wait, "wait", false, "wait until the cycle has ended; 1 if it left something undone")
	cmd.Flags().StringVar(&r.giveUp, "give-up-restore-before", "", "give up backups of states before this time")
	cmd.Flags().BoolVarP(&r.yes, "yes", "y", false, "give backups up without asking")
	cmd.Flags().BoolVar(&r.dry, "dry-run", false, "list what would go, and change nothing")
	return cmd
}

func (a *app) gcRun(cmd *cobra.Command, r gcRun) error {
	if r.wait && r.dry {
		return usage(cmd, "--wait and --dry-run: a dry run has nothing to wait for")
	}
	var before time.Time
	if cmd.Flags().Changed("give-up-restore-before") {
		var err error
		if before, err = parseMoment(r.giveUp, time.Now()); err != nil {
			return usage(cmd, "--give-up-restore-before: %s", err)
		}
	}
	c, err := a.dial(cmd.Context())
	if err != nil {
		return err
	}
	if !before.IsZero() {
		if err := a.giveUp(cmd, c, r, before); err != nil {
			return err
		}
	}
	if r.dry {
		return a.gcPlan(cmd.Context(), c)
	}
	return a.gcCycle(cmd.Context(), c, r.wait)
}

// parseMoment reads a time in the past: now, a duration ago, a day, or RFC 3339.
func parseMoment(s string, now time.Time) (time.Time, error) {
	at := now
	if ago, err := time.ParseDuration(s); err == nil && ago >= 0 {
		at = now.Add(-ago)
	} else if day, err := time.ParseInLocation(time.DateOnly, s, now.Location()); err == nil {
		at = day
	} else if full, err := time.Parse(time.RFC3339, s); err == nil {
		at = full
	} else if s != "now" {
		return time.Time{}, fmt.Errorf("got %q, expected now, a duration ago such as 72h, a day such as 2026-11-20, or a time such as 2026-11-20T15:04:05Z", s)
	}
	if at.After(now) {
		return time.Time{}, fmt.Errorf("got %s, which is to come: backups are of times before now", s)
	}
	return at, nil
}

// giveUp shows what can no longer be restored, asks, and gives it up.
func (a *app) giveUp(cmd *cobra.Command, c *client, r gcRun, before time.Time) error {
	req := &adminv1.GiveUpRestoreRequest{Before: timestamppb.New(before), DryRun: true}
	ask := func(ctx context.Context) (*adminv1.GiveUpRestoreResponse, error) {
		return c.collection.GiveUpRestore(ctx, req)
	}
	res, err := call(cmd.Context(), ask)
	if err != nil {
		return err
	}
	preview := textOf(func(w io.Writer) { writeGivenUp(w, res, "would be given up") })
	if !r.dry && len(res.GetGivenUp()) > 0 {
		if err := a.confirm(cmd, r.destructive, preview); err != nil {
			return err
		}
		req.DryRun = false
		if res, err = call(cmd.Context(), ask); err != nil {
			return err
		}
		preview = textOf(func(w io.Writer) { writeGivenUp(w, res, "given up") })
	}
	if a.json() {
		return a.showLine(res)
	}
	_, err = io.WriteString(a.out, preview)
	return err
}

func writeGivenUp(w io.Writer, res *adminv1.GiveUpRestoreResponse, verb string) {
	say := func(format string, args ...any) { _, _ = fmt.Fprintf(w, format+"\n", args...) }
	for _, b := range res.GetGivenUp() {
		say("%s: %s", verb, restorableText(b))
	}
	for _, b := range res.GetHeld() {
		say("on hold, stays with all that it protects: %s (pontoon snapshot release)", restorableText(b))
	}
	switch o := res.GetOldest(); {
	case len(res.GetGivenUp()) == 0:
		say("no backup is given up")
		return
	case o == nil:
		say("NO BACKUP IS LEFT then: no earlier state can be restored, and what is deleted is gone for good")
	case !o.GetComplete():
		say("NO COMPLETE BACKUP IS LEFT then: only one that was begun at %s and may never be", when(o.GetTime()))
	default:
		say("states before %s (index %d) can no longer be restored then", when(o.GetTime()), o.GetIndex())
	}
	say("gc.delay still counts: a key is deleted no sooner than that after it was condemned")
}

func restorableText(b *adminv1.Restorable) string {
	if !b.GetComplete() {
		return fmt.Sprintf("backup %s in %s, begun %s and not complete", b.GetBackup(), b.GetPlace(), when(b.GetTime()))
	}
	return fmt.Sprintf("backup %s in %s, state of %s, index %d, %s", b.GetBackup(), b.GetPlace(), when(b.GetTime()), b.GetIndex(), size(b.GetSize()))
}

// gcPlan lists what a cycle would take.
func (a *app) gcPlan(ctx context.Context, c *client) error {
	stream, err := c.collection.PlanCycle(ctx, &adminv1.PlanCycleRequest{})
	if err != nil {
		return err
	}
	return receive(stream, func(m *adminv1.PlanCycleResponse) error {
		if a.json() {
			return a.showLine(m)
		}
		return writePlan(a.out, m)
	})
}

func writePlan(w io.Writer, m *adminv1.PlanCycleResponse) error {
	if i := m.GetItem(); i != nil {
		what := i.GetDigest()
		if i.GetRepository() != "" {
			what = i.GetRepository() + "@" + what
		}
		what = orText(what, i.GetKey())
		if i.GetMultipart() != "" {
			what += " upload " + i.GetMultipart()
		}
		_, err := fmt.Fprintf(w, "%-15s %10s  %s: %s\n", i.GetAction(), size(i.GetBytes()), what, i.GetReason())
		return err
	}
	totals := m.GetSum().GetTotals()
	for _, action := range []string{"delete-manifest", "condemn-blob", "delete-key", "delete-orphan", "abort-multipart", "keep-key"} {
		if t := totals[action]; t != nil {
			if _, err := fmt.Fprintf(w, "sum of %-15s %d, %s\n", action, t.GetCount(), size(t.GetBytes())); err != nil {
				return err
			}
		}
	}
	if len(totals) == 0 {
		_, err := fmt.Fprintln(w, "nothing to collect")
		return err
	}
	if p := m.GetSum().GetProblem(); p != "" {
		_, err := fmt.Fprintf(w, "NOTHING IS DELETED from the store all the same: %s\n", p)
		return err
	}
	return nil
}

// receive calls take with each message of a stream, to its end.
func receive[T any](stream *connect.ServerStreamForClient[T], take func(*T) error) (err error) {
	defer func() { err = errors.Join(err, stream.Close()) }()
	for stream.Receive() {
		if err := take(stream.Msg()); err != nil {
			return err
		}
	}
	return stream.Err()
}

// gcCycle asks for a cycle, and waits for its end if told to.
func (a *app) gcCycle(ctx context.Context, c *client, wait bool) error {
	s, err := call(ctx, func(ctx context.Context) (*adminv1.GetCollectionResponse, error) {
		return c.collection.GetCollection(ctx, &adminv1.GetCollectionRequest{})
	})
	if err != nil {
		return err
	}
	if !s.GetEnabled() {
		_, _ = fmt.Fprintln(a.err, "gc.enabled is false on this node: if it is on the leader too, no cycle begins") // only a hint
	}
	stream, err := c.collection.RunCycle(ctx, &adminv1.RunCycleRequest{Wait: wait})
	if err != nil {
		return err
	}
	var last *adminv1.RunCycleResponse
	p := a.progress()
	err = receive(stream, func(m *adminv1.RunCycleResponse) error {
		last = m
		p.show(cycleProgress(m))
		return nil
	})
	p.end()
	if err != nil {
		return err
	}
	if err := a.show(last, func(w io.Writer) { writeCycleEnd(w, last, wait) }); err != nil {
		return err
	}
	if wait && last.GetCycle().GetOutcome() != metav1.CycleOutcome_CYCLE_OUTCOME_DONE {
		return &codedError{exitFailure, fmt.Errorf("cycle %d left something undone: %s", last.GetCycle().GetId(), orText(last.GetCycle().GetTrouble(), outcomeText(last.GetCycle().GetOutcome())))}
	}
	return nil
}

func cycleProgress(m *adminv1.RunCycleResponse) string {
	c := m.GetCycle()
	if c == nil {
		return "waiting for the leader to begin"
	}
	return fmt.Sprintf("cycle %d: %s, %s", c.GetId(), phaseText(c.GetPhase()), countText(c.GetCount()))
}

func writeCycleEnd(w io.Writer, m *adminv1.RunCycleResponse, wait bool) {
	if !wait {
		_, _ = fmt.Fprintln(w, "a cycle is asked for: see `pontoon gc status`")
		return
	}
	c := m.GetCycle()
	_, _ = fmt.Fprintf(w, "cycle %d %s: %s\n", c.GetId(), outcomeText(c.GetOutcome()), countText(c.GetCount()))
	if c.GetTrouble() != "" {
		_, _ = fmt.Fprintf(w, "trouble: %s\n", c.GetTrouble())
	}
	if slices.Max([]int64{c.GetKept().GetKeys(), c.GetKept().GetBytes()}) > 0 {
		_, _ = fmt.Fprintf(w, "waiting: %s\n", keptText(c.GetKept()))
	}
}
