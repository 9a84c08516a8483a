package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/pontoon-registry/pontoon/blobs"
)

// heldMark is the owner mark in the hands of one cluster: what gives its collector leave to delete (G9).
type heldMark struct {
	ownerMark
	// we answers what the mark must say to be ours, from a linearizable read of the state.
	we func(context.Context) (ownership, error)
	// proven is set once the store has refused a write whose condition did not hold.
	proven atomic.Bool
	// seen is the last look, for status and metrics. Nothing that deletes may believe it.
	seen atomic.Pointer[markSeen]
}

// markSeen is what one look at the mark found.
type markSeen struct {
	at time.Time
	// Of the mark, zero without one.
	ownership ownership
	version   string
	// missing: the store was asked and has no mark.
	missing  bool
	standing standing
	// held is nil when deleting is allowed, and says why not otherwise.
	held error
}

// errNotOwner: the store is not this cluster's, or cannot say whose it is, so nothing may be deleted from it.
var errNotOwner = errors.New("the store's owner mark is not this cluster's: nothing is deleted")

const (
	// markRounds bounds the rounds of a change of the mark that somebody else's keeps undoing.
	markRounds = 8
	// probeName is the object on which a store shows that it honours conditions.
	probeName = "pontoon-probe"
	// probeVersion is one that no object has: it looks like an ETag, since some stores refuse other text as malformed.
	probeVersion = `"00000000000000000000000000000000"`
)

func newHeldMark(objects blobs.Objects, we func(context.Context) (ownership, error), log *slog.Logger) *heldMark {
	return &heldMark{ownerMark: ownerMark{objects, log}, we: we}
}

// Raise is gc.Mark's: nil says that the store was this cluster's just now, and that its mark says so of sweptThrough. Keys
// condemned up to there may be deleted then, however late: whoever takes the mark afterwards was restored to a later
// point, or has looked for each of its layers (G9, R-C8). It reads the mark each time, and writes it if it says less.
func (m *heldMark) Raise(ctx context.Context, sweptThrough uint64) error {
	if err := m.prove(ctx); err != nil {
		return err
	}
	var last error
	for range markRounds {
		s, err := m.look(ctx)
		switch {
		case err != nil:
			return fmt.Errorf("look at the owner mark: %w", err)
		case s.held != nil:
			return s.held
		case s.standing == owner && s.ownership.SweptThrough >= sweptThrough:
			return nil
		}
		taken, err := m.take(ctx, s, sweptThrough)
		if err == nil {
			if s.standing == earlier {
				m.tellTakenUp(s.ownership, taken.ownership)
			}
			return nil
		}
		if last = err; !undecided(err) {
			break
		}
		// The next round reads whether it had its effect.
	}
	return fmt.Errorf("raise the owner mark to %d: %w", sweptThrough, last)
}

// tellTakenUp says what it may mean that the mark was of an earlier life. The log was cut then: what was condemned by
// entries that are lost may be swept, and needed once more; no row says which (B7).
func (m *heldMark) tellTakenUp(was, is ownership) {
	switch {
	case was.Incarnation == 0:
		m.log.Info("the owner mark of an earlier release was taken up", "incarnation", is.Incarnation)
	case was.SweptThrough == 0:
		m.log.Info("the owner mark was taken up after a recovery", "incarnation", is.Incarnation)
	default:
		m.log.Warn("the owner mark was taken up after a recovery: layers may be gone that entries of the log condemned which are lost now; "+
			"look for them with pontoon gc verify --mark-lost", "incarnation", is.Incarnation, "swept_through", was.SweptThrough)
	}
}

// undecided says that a write of the mark lost against another, or that its answer did: a look tells.
func undecided(err error) bool {
	return errors.Is(err, blobs.ErrChanged) || errors.Is(err, blobs.ErrExists) || errors.Is(err, blobs.ErrNotFound) || errors.Is(err, blobs.ErrUnavailable)
}

// look reads the mark and says how it stands to this cluster now. Its error says that nobody knows.
func (m *heldMark) look(ctx context.Context) (markSeen, error) {
	if m.objects == nil {
		return m.note(markSeen{at: time.Now(), missing: true, held: fmt.Errorf("%w: the store can hold no mark %s", errNotOwner, markName)}), nil
	}
	we, err := m.we(ctx)
	if err != nil {
		return markSeen{}, err
	}
	o, version, err := m.read(ctx)
	s := markSeen{at: time.Now(), ownership: o, version: version}
	switch {
	case errors.Is(err, errNoMark):
		s.missing = true
		s.held = fmt.Errorf("%w: %w", errNotOwner, errNoMark)
	case errors.Is(err, blobs.ErrCorrupt):
		s.held = fmt.Errorf("%w: %w", errNotOwner, err)
	case err != nil:
		return markSeen{}, err
	default:
		if s.standing = o.to(we); s.standing == stranger {
			s.held = fmt.Errorf("%w: %s", errNotOwner, o.whose(we))
		}
	}
	return m.note(s), nil
}

// note keeps a look for status and metrics, and says loudly when this cluster may not delete: at the first look, and
// whenever that changes.
func (m *heldMark) note(s markSeen) markSeen {
	switch before := m.seen.Swap(&s); {
	case s.held != nil && (before == nil || before.problem() != s.problem()):
		m.log.Error("NOTHING IS DELETED from the store of layers: " + s.problem())
	case s.held == nil && before != nil && before.held != nil:
		m.log.Info("the store's owner mark is this cluster's: what nothing needs is deleted", "swept_through", s.ownership.SweptThrough)
	}
	return s
}

// problem says why nothing is deleted, and what to do; empty when the mark is held.
func (s markSeen) problem() string {
	switch {
	case s.held == nil:
		return ""
	case errors.Is(s.held, errNoMark):
		return fmt.Sprintf("%v: somebody removed it. If no other cluster uses this store: pontoon gc adopt", s.held)
	case s.standing == stranger && s.ownership.Cluster != "":
		return fmt.Sprintf("%v. If this cluster is a copy beside that one, all is well; if that one is gone for good: pontoon gc adopt --from %s",
			s.held, s.ownership.Cluster)
	case errors.Is(s.held, blobs.ErrCorrupt):
		return fmt.Sprintf("%v: look at it, and remove it if no other cluster uses this store; then: pontoon gc adopt", s.held)
	}
	return s.held.Error()
}

// take writes the mark as ours over what s saw, never with a lower index. blobs.ErrChanged or ErrExists: it was changed since.
func (m *heldMark) take(ctx context.Context, s markSeen, sweptThrough uint64) (markSeen, error) {
	we, err := m.we(ctx)
	if err != nil {
		return s, err
	}
	we.SweptThrough = max(s.ownership.SweptThrough, sweptThrough)
	var version string
	if s.missing {
		version, err = m.create(ctx, we)
	} else {
		version, err = m.replace(ctx, we, s.version)
	}
	if errors.Is(err, blobs.ErrUnsupported) {
		return s, fmt.Errorf("%w: the store has no conditional writes: %w", errNotOwner, err)
	}
	if err != nil {
		return s, fmt.Errorf("write the owner mark: %w", err)
	}
	return m.note(markSeen{at: time.Now(), ownership: we, version: version, standing: owner}), nil
}

// prove has the store refuse, once in a process, what it must refuse: some take a conditional write and ignore
// the condition, and with those a mark guards nothing.
func (m *heldMark) prove(ctx context.Context) error {
	if m.objects == nil || m.proven.Load() {
		return nil // without objects look says why nothing is held
	}
	_, err := m.objects.PutIfAbsent(ctx, probeName, []byte("pontoon tries whether conditions hold\n"))
	if err == nil { // it is there now: the next one must be refused
		_, err = m.objects.PutIfAbsent(ctx, probeName, []byte("this must not be written\n"))
	}
	if err := refusal("if absent", err, blobs.ErrExists); err != nil {
		return err
	}
	_, err = m.objects.PutIfMatch(ctx, probeName, []byte("nor this\n"), probeVersion)
	if err := refusal("if it matches", err, blobs.ErrChanged); err != nil {
		return err
	}
	m.proven.Store(true)
	return nil
}

// refusal judges the answer to a write that had to be refused.
func refusal(condition string, err, want error) error {
	switch {
	case errors.Is(err, want):
		return nil
	case err == nil:
		return fmt.Errorf("%w: the store takes a write %s and ignores the condition, so two clusters could own it", errNotOwner, condition)
	case errors.Is(err, blobs.ErrUnsupported):
		return fmt.Errorf("%w: the store has no conditional writes: %w", errNotOwner, err)
	}
	return fmt.Errorf("try a conditional write: %w", err)
}
