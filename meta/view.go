package meta

import (
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// View answers nouns at one index of the state. It is made by State.View or a
// Ledger, read by one goroutine at a time, and never seen half applied. A
// lookup of what is not there is a refusal KIND_UNKNOWN with the noun; any
// other error is the disk's. Rows that it answers may be kept and must not be changed.
type View struct {
	rows
	state *State
	at    *moment
	stale bool
	// shown and hidden remember the last repository that was asked about, so
	// that a request pays for the check once.
	shown, hidden string
}

// Index is the log index of the state (Pontoon-Revision).
func (v *View) Index() uint64 { return v.at.index }

// Term is that of the last entry in the state.
func (v *View) Term() uint64 { return v.at.term }

// Hash is the head of the chain (M9) at Index.
func (v *View) Hash() []byte { return append([]byte(nil), v.at.head[:]...) }

// ClusterTime is the state's clock, in nanoseconds; for durations only (M1).
func (v *View) ClusterTime() int64 { return v.at.clock.GetClusterTime() }

// WallTime is the wall time that the last entry was stamped with, in Unix
// nanoseconds; for showing only (M1).
func (v *View) WallTime() int64 { return v.at.clock.GetWallTime() }

// Stale is true when the view was not proven fresh (the fallback of Read.Content).
func (v *View) Stale() bool { return v.stale }

// MarkStale makes Stale true: for a Ledger that falls back.
func (v *View) MarkStale() { v.stale = true }

// Close gives the view back. Idempotent; nothing may be read afterwards.
func (v *View) Close() {
	if v.state != nil {
		v.state.release(v.at)
		v.state = nil
	}
}

// System is the row about the cluster, with its settings.
func (v *View) System() (*metav1.System, error) {
	if v.at.system.GetClusterId() == "" {
		return nil, unknown(metav1.Noun_NOUN_CLUSTER, "cluster: not initialised yet")
	}
	return v.at.system, nil
}

// settings answers the settings, zero before the first term.
func (v *View) settings() *metav1.Settings { return v.at.system.GetSettings() }

// visible refuses a repository that is being deleted: nothing in it is there
// any more, from the first step of the deletion on. One without a row has
// nothing in it either, but is not refused here: each lookup names its own noun.
func (v *View) visible(repository string, noun metav1.Noun) error {
	if repository != v.shown && repository != v.hidden {
		var row metav1.Repository
		if v.read(nameKey(v.key[:0], rangeRepository, repository), &row) && row.GetDeleting() {
			v.hidden = repository
		} else {
			v.shown = repository
		}
	}
	if v.err != nil {
		return v.err
	}
	if repository == v.hidden && repository != "" {
		return unknown(noun, "repository %s: is being deleted", clip(repository))
	}
	return nil
}

// answer ends a lookup of one row.
func answer[T any](v *View, row T, found bool, noun metav1.Noun, format string, args ...any) (T, error) {
	var none T
	if v.err != nil {
		return none, v.err
	}
	if !found {
		return none, unknown(noun, format, args...)
	}
	return row, nil
}
