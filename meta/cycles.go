package meta

import (
	"slices"
	"strconv"

	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// A cycle of garbage collection, in the one row that any leader goes on from (C3):
//
//	              request                     begin, by request
//	(nothing) ────────────► requested ──────────────────────────► running ── advance, with an outcome ──► history
//	    └────────────────────── begin, by schedule ──────────────────▲ └┘ advance: a later phase, another cursor
//
// While one runs another may be asked for: it waits. A cycle decides nothing: what goes is decided by CondemnBlobs,
// DeleteUntagged and ForgetKeys, each for itself.

// Bounds of a cycle's row.
const (
	// cyclesKept bounds the history.
	cyclesKept = 100
	maxCursor  = 2 << 10
	maxTrouble = 500
	maxForget  = 100
	// maxForgotten bounds those of all requests together.
	maxForgotten = 1000
)

// collection answers the row about garbage collection, empty if there is none.
func (r *rows) collection() *metav1.Collection {
	row := &metav1.Collection{}
	r.read(oneRow(r.key[:0], rangeCollection), row)
	return row
}

func (t *txn) putCollection(row *metav1.Collection) { t.put(oneRow(nil, rangeCollection), row) }

// requestCycle asks for a cycle, or joins who asked before.
func (t *txn) requestCycle(c *metav1.RequestCycle) (*metav1.Result, error) {
	row := t.collection()
	ask := row.GetRequested()
	if ask == nil {
		ask = &metav1.CycleRequest{First: t.stamp()}
	}
	ask.Last = t.stamp()
	for _, epoch := range c.GetForgetEpochs() {
		if !isEpoch(epoch) || epoch == t.system.GetEpoch() {
			return nil, invalid(metav1.Noun_NOUN_CYCLE,
				"epoch to forget: got %q, expected 1 to 32 lowercase letters and digits, and not this cluster's own", clip(epoch))
		}
		ask.ForgetEpochs = append(ask.ForgetEpochs, epoch)
	}
	slices.Sort(ask.ForgetEpochs)
	ask.ForgetEpochs = slices.Compact(ask.ForgetEpochs)
	if n := len(ask.GetForgetEpochs()); n > maxForget {
		return nil, tooLarge(metav1.Noun_NOUN_CYCLE, "epochs to forget: got %d, at most %d are accepted", n, maxForget)
	}
	row.Requested = ask
	row.Forgotten = append(row.Forgotten, c.GetForgetEpochs()...)
	slices.Sort(row.Forgotten)
	row.Forgotten = slices.Compact(row.Forgotten)
	if n := len(row.Forgotten); n > maxForgotten {
		return nil, tooLarge(metav1.Noun_NOUN_CYCLE, "epochs that were ever forgotten: got %d, at most %d are kept", n, maxForgotten)
	}
	t.putCollection(row)
	t.event(&metav1.Event{Action: metav1.Action_ACTION_REQUEST_CYCLE})
	return nil, nil
}

// beginCycle opens a cycle. Its id is the log index.
func (t *txn) beginCycle(c *metav1.BeginCycle) (*metav1.Result, error) {
	row := t.collection()
	if run := row.GetRunning(); run != nil {
		return nil, conflict(metav1.Noun_NOUN_CYCLE, "cycle: %d runs already", run.GetBegun().GetIndex())
	}
	if t.has(indexKey(nil, rangeCycle, t.index)) {
		return nil, conflict(metav1.Noun_NOUN_CYCLE, "cycle: one began and ended at this very moment; try again")
	}
	run := &metav1.Cycle{
		Begun: t.stamp(), Trigger: c.GetTrigger(), Untagged: c.GetUntagged(), Phase: metav1.CyclePhase_CYCLE_PHASE_UNTAGGED,
		Count: &metav1.CycleCount{}, Kept: &metav1.CycleKept{}, Revision: t.index,
	}
	switch c.GetTrigger() {
	case metav1.CycleTrigger_CYCLE_TRIGGER_SCHEDULE:
	case metav1.CycleTrigger_CYCLE_TRIGGER_REQUEST:
		if row.GetRequested() == nil {
			return nil, Refuse(metav1.Kind_KIND_PRECONDITION, metav1.Noun_NOUN_CYCLE, "cycle: nobody asks for one")
		}
		run.Request, run.ForgetEpochs = row.GetRequested(), row.GetRequested().GetForgetEpochs()
		row.Requested = nil
	default:
		return nil, invalid(metav1.Noun_NOUN_CYCLE, "cycle: got trigger %d, expected schedule or request", c.GetTrigger())
	}
	row.Running = run
	t.putCollection(row)
	return nil, nil
}

// runs answers the row with the cycle that runs; a conflict when that is another, or none: its leader was deposed.
func (t *txn) runs(cycle uint64) (*metav1.Collection, error) {
	row := t.collection()
	if run := row.GetRunning(); run == nil || run.GetBegun().GetIndex() != cycle {
		return nil, conflict(metav1.Noun_NOUN_CYCLE, "cycle %d: does not run", cycle)
	}
	return row, nil
}

// advanceCycle records how far a cycle has come, or its end.
func (t *txn) advanceCycle(c *metav1.AdvanceCycle) (*metav1.Result, error) {
	row, err := t.runs(c.GetCycle())
	if err != nil {
		return nil, err
	}
	run := row.GetRunning()
	if err := checkAdvance(run, c); err != nil {
		return nil, err
	}
	if p := c.GetPhase(); p != metav1.CyclePhase_CYCLE_PHASE_UNSPECIFIED {
		run.Phase = p
	}
	run.Revision = t.index
	run.Cursor = c.GetCursor()
	addCount(run.GetCount(), c.GetCount())
	if k := c.GetKept(); k != nil {
		run.Kept = k
	}
	if s := c.GetTrouble(); s != "" {
		run.Trouble = s
	}
	if c.GetOutcome() != metav1.CycleOutcome_CYCLE_OUTCOME_UNSPECIFIED {
		run.Outcome, run.Ended, run.Cursor = c.GetOutcome(), t.stamp(), nil
		t.keepCycle(row, run)
		row.Running = nil
	}
	t.putCollection(row)
	return nil, nil
}

func checkAdvance(run *metav1.Cycle, c *metav1.AdvanceCycle) error {
	if r := c.GetRevision(); r != 0 && r != run.GetRevision() {
		return conflict(metav1.Noun_NOUN_CYCLE, "cycle %d: somebody else has moved it on: expected revision %d, it is %d", c.GetCycle(), r, run.GetRevision())
	}
	if p := c.GetPhase(); p != metav1.CyclePhase_CYCLE_PHASE_UNSPECIFIED &&
		(p < run.GetPhase() || p > metav1.CyclePhase_CYCLE_PHASE_ORPHANS) {
		return invalid(metav1.Noun_NOUN_CYCLE, "cycle %d: got phase %d, it is in %d, and %d is the last",
			c.GetCycle(), p, run.GetPhase(), metav1.CyclePhase_CYCLE_PHASE_ORPHANS)
	}
	if n := len(c.GetCursor()); n > maxCursor {
		return tooLarge(metav1.Noun_NOUN_CYCLE, "cycle %d: cursor: got %d bytes, at most %d are accepted", c.GetCycle(), n, maxCursor)
	}
	if n := len(c.GetTrouble()); n > maxTrouble {
		return tooLarge(metav1.Noun_NOUN_CYCLE, "cycle %d: trouble: got %d bytes, at most %d are accepted", c.GetCycle(), n, maxTrouble)
	}
	if o := c.GetOutcome(); o < 0 || o > metav1.CycleOutcome_CYCLE_OUTCOME_TROUBLED {
		return invalid(metav1.Noun_NOUN_CYCLE, "cycle %d: got outcome %d, expected done or troubled", c.GetCycle(), o)
	}
	n, k := c.GetCount(), c.GetKept()
	if min(n.GetMarked(), n.GetUntaggedManifests(), n.GetCondemnedBlobs(), n.GetCondemnedBytes(), n.GetDeletedKeys(), n.GetDeletedBytes(),
		n.GetOrphanKeys(), n.GetOrphanBytes(), n.GetAbortedMultiparts(), n.GetFailed(),
		k.GetKeys(), k.GetBytes(), k.GetForBackup(), k.GetForDelay(), k.GetForMark()) < 0 {
		return invalid(metav1.Noun_NOUN_CYCLE, "cycle %d: got a count below 0", c.GetCycle())
	}
	return nil
}

// countInCycle counts what a command of a cycle did, in the command itself: so it is counted once, whatever happens to
// the leader between the command and its next record.
func (t *txn) countInCycle(row *metav1.Collection, n *metav1.CycleCount) {
	addCount(row.GetRunning().GetCount(), n)
	t.putCollection(row)
}

func addCount(sum, n *metav1.CycleCount) {
	sum.Marked += n.GetMarked()
	sum.UntaggedManifests += n.GetUntaggedManifests()
	sum.CondemnedBlobs += n.GetCondemnedBlobs()
	sum.CondemnedBytes += n.GetCondemnedBytes()
	sum.DeletedKeys += n.GetDeletedKeys()
	sum.DeletedBytes += n.GetDeletedBytes()
	sum.OrphanKeys += n.GetOrphanKeys()
	sum.OrphanBytes += n.GetOrphanBytes()
	sum.AbortedMultiparts += n.GetAbortedMultiparts()
	sum.Failed += n.GetFailed()
}

// keepCycle puts a cycle that ended into the history, and forgets the oldest beyond the bound.
func (t *txn) keepCycle(row *metav1.Collection, run *metav1.Cycle) {
	id := run.GetBegun().GetIndex()
	t.put(indexKey(nil, rangeCycle, id), run)
	row.Kept++
	prefix := oneRow(nil, rangeCycle)
	if row.GetKept() > cyclesKept {
		t.del(t.first(prefix, beyond(prefix)))
		row.Kept--
	}
	t.event(&metav1.Event{Action: metav1.Action_ACTION_END_CYCLE, Subject: strconv.FormatUint(id, 10)})
}

// Collection is what of garbage collection is asked for and what runs.
func (v *View) Collection() (*metav1.Collection, error) {
	row := v.collection()
	return row, v.err
}

// Cycles is the history of garbage collection, at most n, the newest first.
func (v *View) Cycles(n int) ([]*metav1.Cycle, error) {
	all, _, err := list(&v.rows, oneRow(nil, rangeCycle), nil, cyclesKept, func(rest, value []byte) (*metav1.Cycle, bool) {
		row := &metav1.Cycle{}
		return row, v.decode(rest, value, row)
	})
	slices.Reverse(all)
	return all[:min(len(all), max(n, 0))], err
}
