package main

import (
	"context"
	"errors"

	"github.com/pontoon-registry/pontoon/blobs"
	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// adoption is the taking of a mark that is not ours, as an operator asks for it: nothing else ever takes one.
//
//	judge ─► look for every layer, unless nothing can be gone ─► take, at the version that was judged
//
// Taking at that version means that the owner before has not raised the index since: what it deletes from then on, however
// late, was condemned up to the index that was judged (R-C8). Where that is at or below the point of our restore, none of
// it is ours. Where it is not, a delete that was on its way during the search may still take a layer that was found: its
// next pull finds it lost (B7), and so does `pontoon gc verify`.
type adoption struct {
	seen markSeen
	// from is who has the mark, empty when nobody has.
	from string
	// needless: the mark is ours already.
	needless bool
	// search: layers that this cluster needs may have been swept, so they are looked for first.
	search bool
}

// judgeAdoption says what an adoption from the named cluster would do, or refuses it.
func (m *heldMark) judgeAdoption(ctx context.Context, from string, restored *metav1.Restored) (adoption, error) {
	if err := m.prove(ctx); err != nil {
		return adoption{}, unadoptable(err)
	}
	s, err := m.look(ctx)
	if err != nil {
		return adoption{}, meta.Refuse(metav1.Kind_KIND_UNAVAILABLE, metav1.Noun_NOUN_STORE, "adopt: %s", err)
	}
	a := adoption{seen: s, from: s.ownership.Cluster}
	switch {
	case m.objects == nil || errors.Is(s.held, blobs.ErrCorrupt):
		return a, unadoptable(s.held)
	case !s.missing && s.standing != stranger:
		a.needless = s.standing == owner
		return a, nil
	case s.missing && from != "":
		return a, meta.Refuse(metav1.Kind_KIND_CONFLICT, metav1.Noun_NOUN_STORE,
			"adopt: got from %s, but the store has no owner mark: leave --from away to make a new one", from)
	case !s.missing && from == "":
		return a, meta.Refuse(metav1.Kind_KIND_CONFLICT, metav1.Noun_NOUN_STORE,
			"adopt: the store belongs to cluster %s: if that cluster is gone, or must never delete again, say --from %s", a.from, a.from)
	case from != a.from:
		return a, meta.Refuse(metav1.Kind_KIND_CONFLICT, metav1.Noun_NOUN_STORE,
			"adopt: got from %s, but the store belongs to cluster %s", from, a.from)
	}
	a.search = mayBeSwept(s, restored)
	return a, nil
}

func unadoptable(err error) error {
	if errors.Is(err, blobs.ErrUnavailable) {
		return meta.Refuse(metav1.Kind_KIND_UNAVAILABLE, metav1.Noun_NOUN_STORE, "adopt: %s", err)
	}
	return meta.Refuse(metav1.Kind_KIND_UNSUPPORTED, metav1.Noun_NOUN_STORE, "adopt: %s", err)
}

// mayBeSwept says whether layers that this cluster knows may have been deleted by who has the mark, or had it. Only one
// case is safe: restored from that very cluster, in that very life of it, to a point at or above all that it has swept (G9).
func mayBeSwept(s markSeen, restored *metav1.Restored) bool {
	o := s.ownership
	return s.missing || o.Cluster != restored.GetClusterId() || o.Epoch != restored.GetEpoch() ||
		below(o, restored.GetIncarnation(), restored.GetIndex()).unproven != ""
}

// adopt carries out what was judged. floor is what this cluster itself may have swept, for a mark that is made anew.
func (m *heldMark) adopt(ctx context.Context, a adoption, floor uint64) (markSeen, error) {
	if !a.seen.missing {
		floor = 0
	}
	s, err := m.take(ctx, a.seen, floor)
	switch {
	case err == nil:
		m.log.Warn("the owner mark was adopted: this cluster deletes from the store now", "from", a.from, "swept_through", s.ownership.SweptThrough)
		return s, nil
	case errors.Is(err, errNotOwner):
		return s, unadoptable(err)
	case undecided(err) && !errors.Is(err, blobs.ErrUnavailable):
		return s, meta.Refuse(metav1.Kind_KIND_CONFLICT, metav1.Noun_NOUN_STORE,
			"adopt: the owner mark was changed meanwhile, so cluster %s still sweeps: stop it, then adopt again", orText(a.from, "(unknown)"))
	}
	return s, meta.Refuse(metav1.Kind_KIND_UNAVAILABLE, metav1.Noun_NOUN_STORE,
		"adopt: %s: whether it was written is not known; adopting again is harmless", err)
}
