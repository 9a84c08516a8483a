package gc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

const (
	// recordEvery is how often a phase that changes nothing records how far it is: so much is done again after a crash.
	recordEvery = time.Second
	// restLeast and restMost bound the rest after each step; in between it is as long as the step was, so that pushes
	// have at least half of the node.
	restLeast = time.Millisecond
	restMost  = 50 * time.Millisecond
	// troubleMost bounds Cycle.trouble, in bytes.
	troubleMost = 500
)

// turn is one collector's work on one cycle.
//
//	UNTAGGED ──► MARK ──► SWEEP ──► ORPHANS ──► done | troubled
//
// Each phase is a loop of small steps: look, act, record. What acts is a command that Apply decides again, or a delete of
// keys that nobody can use again (C3); so a step may be done twice, or by two. A record names the revision of the one
// before it: of two collectors one is refused and reads the cycle again, and nothing is counted twice.
type turn struct {
	*Collector
	// row is the cycle as of the last record that the ledger accepted; its counts are not kept up.
	row *metav1.Cycle
	// troubled says whether anything was left for the next cycle; warned is the last phase for which the log heard of it.
	troubled bool
	warned   metav1.CyclePhase
	// refused is how many keys in a row the store did not let go.
	refused int

	// What the next record will say.
	count   *metav1.CycleCount
	kept    *metav1.CycleKept
	trouble string
	// recorded is when the last record was made, and stepped when the last rest ended.
	recorded, stepped time.Time
}

// run does what is left of the cycle.
func (t *turn) run(ctx context.Context) error {
	id := t.row.GetBegun().GetIndex()
	t.clear()
	for t.row.GetOutcome() == metav1.CycleOutcome_CYCLE_OUTCOME_UNSPECIFIED {
		t.cfg.Watcher.Running(t.row.GetPhase())
		t.refused = 0
		if err := t.phase(ctx); err != nil {
			return fmt.Errorf("cycle %d, %s: %w", id, t.row.GetPhase(), err)
		}
	}
	return t.report(ctx, id)
}

func (t *turn) phase(ctx context.Context) error {
	switch t.row.GetPhase() {
	case metav1.CyclePhase_CYCLE_PHASE_UNSPECIFIED, metav1.CyclePhase_CYCLE_PHASE_UNTAGGED:
		return t.untagged(ctx)
	case metav1.CyclePhase_CYCLE_PHASE_MARK:
		return t.mark(ctx)
	case metav1.CyclePhase_CYCLE_PHASE_SWEEP:
		return t.sweep(ctx)
	case metav1.CyclePhase_CYCLE_PHASE_ORPHANS:
		return t.orphans(ctx)
	}
	return errors.New("the phase is not known to this release of Pontoon: a newer one must go on")
}

// report tells of a cycle that ended, as the ledger has it.
func (t *turn) report(ctx context.Context, id uint64) error {
	s, err := t.situation(ctx)
	if err != nil {
		return fmt.Errorf("cycle %d ended: %w", id, err)
	}
	if s.last.GetBegun().GetIndex() != id {
		return nil // another one has ended since
	}
	n, kept := s.last.GetCount(), s.last.GetKept()
	t.cfg.Log.Info("garbage collection: a cycle ended", "cycle", id, "outcome", s.last.GetOutcome().String(),
		"untagged", n.GetUntaggedManifests(), "condemned", n.GetCondemnedBlobs(), "deleted", n.GetDeletedKeys(),
		"orphans", n.GetOrphanKeys(), "bytes", n.GetDeletedBytes()+n.GetOrphanBytes(), "failed", n.GetFailed(),
		"kept", kept.GetKeys(), "kept_bytes", kept.GetBytes(), "trouble", s.last.GetTrouble())
	t.cfg.Watcher.Ended(s.last)
	return nil
}

// place is where a phase goes on. Of its fields a phase uses what it needs.
type place struct {
	Repository string `json:"repository,omitempty"`
	Digest     string `json:"digest,omitempty"`
	// Epoch and Multiparts say which listing of the orphans phase is next, Key where.
	Epoch      string `json:"epoch,omitempty"`
	Multiparts bool   `json:"multiparts,omitempty"`
	Key        string `json:"key,omitempty"`
}

// place reads the cursor. One that this release does not understand is the beginning: every step may be done again.
func (t *turn) place() (p place) {
	if raw := t.row.GetCursor(); len(raw) > 0 {
		if err := json.Unmarshal(raw, &p); err != nil {
			t.cfg.Log.Info("garbage collection: the cursor is another release's, the phase begins again", "error", err)
			return place{}
		}
	}
	return p
}

// digest is the place of a phase that goes by digest.
func (p place) digest() meta.Digest {
	d, err := meta.ParseDigest(p.Digest)
	if err != nil {
		return "" // the beginning
	}
	return d
}

// record says how far the phase has come.
func (t *turn) record(ctx context.Context, p place) error {
	cursor, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("encode the cursor: %w", err)
	}
	return t.advance(ctx, &metav1.AdvanceCycle{Phase: t.row.GetPhase(), Cursor: cursor})
}

// recordNow and then: when the last record is old enough.
func (t *turn) recordNowAndThen(ctx context.Context, p place) error {
	if time.Since(t.recorded) < recordEvery {
		return nil
	}
	return t.record(ctx, p)
}

// next ends the phase.
func (t *turn) next(ctx context.Context, phase metav1.CyclePhase) error {
	return t.advance(ctx, &metav1.AdvanceCycle{Phase: phase})
}

// end ends the cycle.
func (t *turn) end(ctx context.Context) error {
	outcome := metav1.CycleOutcome_CYCLE_OUTCOME_DONE
	if t.troubled {
		outcome = metav1.CycleOutcome_CYCLE_OUTCOME_TROUBLED
	}
	return t.advance(ctx, &metav1.AdvanceCycle{Phase: t.row.GetPhase(), Outcome: outcome})
}

// advance proposes a record. If its outcome stays unknown the cycle is read again, and shows it.
func (t *turn) advance(ctx context.Context, c *metav1.AdvanceCycle) error {
	c.Cycle, c.Revision = t.row.GetBegun().GetIndex(), t.row.GetRevision()
	c.Count, c.Kept, c.Trouble = t.count, t.kept, t.trouble
	result, err := t.propose(ctx, &metav1.Command{Kind: &metav1.Command_AdvanceCycle{AdvanceCycle: c}})
	if err != nil {
		return fmt.Errorf("record how far it is: %w", err)
	}
	t.row.Revision, t.row.Phase, t.row.Cursor, t.row.Outcome = result.GetIndex(), c.GetPhase(), c.GetCursor(), c.GetOutcome()
	if c.GetKept() != nil {
		t.row.Kept = proto.CloneOf(c.GetKept())
	}
	t.clear()
	return nil
}

func (t *turn) clear() {
	t.count, t.kept, t.trouble = &metav1.CycleCount{}, nil, ""
	t.recorded, t.stepped = time.Now(), time.Now()
}

// fail notes what must be left for the next cycle; the log hears of the first in each phase.
func (t *turn) fail(what string, err error) {
	if t.warned != t.row.GetPhase() {
		t.warned = t.row.GetPhase()
		t.cfg.Log.Warn("garbage collection: something is left for the next cycle",
			"cycle", t.row.GetBegun().GetIndex(), "phase", t.row.GetPhase().String(), "what", what, "error", err)
	}
	t.troubled = true
	t.trouble = clip(fmt.Sprintf("%s: %v", what, err))
}

// refuses counts the keys that a store did not let go, and says whether it should be left alone for the rest of the
// phase: it asks to slow down, or refuses as many in a row as make a page.
func (t *turn) refuses(asked, gone int, err error) bool {
	t.count.Failed += int64(asked - gone)
	if gone > 0 {
		t.refused = 0
	}
	t.refused += asked - gone
	return unavailable(err) || t.refused >= t.sizes.page
}

// clip makes a text one line of at most troubleMost bytes.
func clip(s string) string {
	s = strings.ReplaceAll(s, "\n", "; ")
	return strings.ToValidUTF8(s[:min(len(s), troubleMost)], "")
}

func (t *turn) rest(ctx context.Context) error { return rest(ctx, &t.stepped) }

// rest makes a pause as long as the step was that began at stepped.
func rest(ctx context.Context, stepped *time.Time) error {
	if !sleep(ctx, min(max(time.Since(*stepped), restLeast), restMost)) {
		return context.Cause(ctx)
	}
	*stepped = time.Now()
	return nil
}

// decide proposes what Apply decides again. A refusal of the command as such is trouble, and no reason to stop.
func (t *turn) decide(ctx context.Context, what string, c *metav1.Command) (*metav1.Result, error) {
	result, err := t.propose(ctx, c)
	if err == nil {
		return result, nil
	}
	if passing(err) {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	t.fail(what, err)
	return nil, nil
}
