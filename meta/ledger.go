package meta

import (
	"context"

	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// Ledger is the first waist of Pontoon: all that is true goes through it.
// cluster.Node and Solo implement it. Safe for concurrent use.
type Ledger interface {
	// View calls fn with the state at one index, which contains everything
	// acknowledged anywhere before View began (C2), except that a Content read
	// may fall back (see Read). The View and what it returns are valid until fn
	// returns; rows may be kept. View answers fn's error unchanged, or a refusal
	// KIND_UNAVAILABLE when no such state can be had before ctx ends.
	View(ctx context.Context, read Read, fn func(*View) error) error

	// Propose commits a command and answers its result once this node's own
	// state contains it (C2). The ledger fills the envelope's origin, and its
	// node id when that is empty; the caller fills the rest. The error is the
	// result's refusal as *Error; or KIND_UNAVAILABLE (nothing changed) or
	// KIND_OUTCOME_UNKNOWN. The command must not be changed or reused.
	Propose(ctx context.Context, c *metav1.Command) (*metav1.Result, error)
}

// Read says what a View is for.
type Read struct {
	// Content marks a read of content by digest for a caller who may not push:
	// without a quorum it may be answered from this node's own state, within
	// cluster.reads.offline; View.Stale then says so. Never set it for a tag, a list or a HEAD
	// of a caller who may push.
	Content bool
	// MinIndex is the state that the caller must at least see
	// (Pontoon-Min-Revision): refused as KIND_PRECONDITION at once when it is beyond what
	// the leader knows.
	MinIndex uint64
}
