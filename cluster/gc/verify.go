package gc

import (
	"context"
	"errors"
	"fmt"

	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// Kind is what is wrong.
type Kind string

// Kinds of differences.
const (
	// Unrecorded: a manifest needs a blob and no row says so. Danger: garbage collection may take it.
	Unrecorded Kind = "unrecorded"
	// Unfounded: a row says that a manifest needs or names what it does not. What it keeps never goes.
	Unfounded Kind = "unfounded"
	// Dangling: a manifest or tag needs what the ledger does not have.
	Dangling Kind = "dangling"
	// Body: a manifest's body is missing, is not what its digest says, or is no manifest.
	Body Kind = "body"
	// Counter: a sum that the ledger keeps is wrong.
	Counter Kind = "counter"
	// Key: a blob, an upload and a storage key do not say the same of each other.
	Key Kind = "key"
	// Missing: the store does not have the bytes of a blob.
	Missing Kind = "missing"
	// Size: the store has another number of bytes.
	Size Kind = "size"
	// Lost: a blob that manifests need is marked lost; pushing it again heals it.
	Lost Kind = "lost"
	// Orphan: the store has an object that the ledger does not know, and a cycle should have deleted it.
	Orphan Kind = "orphan"
)

// Difference is one thing that is not as it should be. Of the names only those that it is about are set.
type Difference struct {
	Kind       Kind
	Repository string
	Manifest   meta.Digest
	Blob       meta.Digest
	Key        string
	// Detail says it to a person.
	Detail string
}

// Verified sums a verification.
type Verified struct {
	// Index is the log index of the state that was recomputed.
	Index uint64
	// What was looked at.
	Manifests, References, Blobs, Keys int64
	// Differences that were told, and blobs that were marked lost.
	Differences, MarkedLost int64
	// Unneeded are bytes of keys that wait to be deleted; Orphans are objects that a later cycle deletes: no differences.
	UnneededKeys, UnneededBytes, OrphanKeys, OrphanBytes int64
}

// VerifyOptions say how to verify.
type VerifyOptions struct {
	// Folder is where a temporary store of the recomputed rows is made, about as large as the state; "" is the system's.
	Folder string
	// MarkLost proposes MarkLost for each blob whose bytes are missing (B7). Otherwise nothing is written.
	MarkLost bool
}

// Verify recomputes from the bodies of the manifests alone who needs what, and compares it with the ledger's rows and
// counters, at one index; then it compares the ledger with the store's list. It tells report every difference and decides
// nothing. It runs on any node beside everything else: the store is listed first, and the ledger read after that; what
// looks wrong then is asked of the store and the ledger again. Its memory has a bound; an error of report ends it.
func (c *Collector) Verify(ctx context.Context, o VerifyOptions, report func(Difference) error) (sum Verified, err error) {
	s, err := openScratch(o.Folder)
	if err != nil {
		return sum, fmt.Errorf("verify: %w", err)
	}
	defer func() { err = errors.Join(err, s.close()) }()
	w := &verification{Collector: c, ctx: ctx, options: o, scratch: s, sum: &sum, report: report}
	// Not c.view: it has a deadline, and this one view lasts as long as it takes.
	err = c.cfg.Ledger.View(ctx, meta.Read{}, func(v *meta.View) error {
		if v.Stale() {
			return errStale()
		}
		sum.Index = v.Index()
		return w.ledger(v)
	})
	if err != nil {
		return sum, fmt.Errorf("verify the ledger: %w", err)
	}
	if err := w.stored(); err != nil {
		return sum, fmt.Errorf("verify the store: %w", err)
	}
	return sum, nil
}

// verification is one run of Verify.
type verification struct {
	*Collector
	// ctx is Verify's own: the walks of a view take no context.
	ctx     context.Context
	options VerifyOptions
	scratch *scratch
	sum     *Verified
	report  func(Difference) error
	seen    int
}

func (w *verification) differ(d Difference) error {
	w.sum.Differences++
	return w.report(d)
}

// alive ends a walk when nobody waits for it any more.
func (w *verification) alive() error {
	if w.seen++; w.seen%1024 == 0 && w.ctx.Err() != nil {
		return context.Cause(w.ctx)
	}
	return w.scratch.err
}

// ledger compares the ledger with itself.
func (w *verification) ledger(v *meta.View) error {
	for _, step := range []func(*meta.View) error{
		w.manifests, w.tags, w.graces, // what is true
		w.references, w.absents, w.children, w.referrers, w.tagged, w.graced, // what follows from it
		w.links, w.repositories, w.projects, w.bodies, w.blobs, w.uploads,
	} {
		if err := step(v); err != nil {
			return err
		}
	}
	return w.scratch.err
}

func errStale() error {
	return meta.Refuse(metav1.Kind_KIND_UNAVAILABLE, metav1.Noun_NOUN_CLUSTER, "garbage collection: no quorum proves the state fresh")
}
