package main

import (
	"fmt"

	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// lineage is how far the layers of a restored state can be trusted to be in a store, by its owner mark alone (G9).
//
// Whoever has the mark deletes keys that were condemned up to swept_through, in its own log. A state of that log at or
// above it has them condemned, too: nobody misses them. That is the only proof there is. What the mark cannot prove has
// to be looked for, layer by layer.
type lineage struct {
	// unproven says why layers may be gone; empty: none can be.
	unproven string
}

// lineageOf judges the state with this row about its cluster, at this index, by the mark; marked is false without one.
func lineageOf(o ownership, marked bool, s *metav1.System, index uint64) lineage {
	switch r := s.GetRestored(); {
	case !marked:
		return lineage{fmt.Sprintf("it has no owner mark %s: it may be another store than the one that the layers are in", markName)}
	case o.Cluster == s.GetClusterId() && o.Epoch == s.GetEpoch():
		return below(o, s.GetIncarnation(), index)
	case o.Cluster == r.GetClusterId() && o.Epoch == r.GetEpoch():
		// A restored cluster that never took the mark: the old one went on sweeping, by the log that both have up to there.
		return below(o, r.GetIncarnation(), r.GetIndex())
	}
	return lineage{fmt.Sprintf("it belongs to cluster %s, of which the snapshot knows nothing", o.Cluster)}
}

// below compares the mark with a state of its cluster. A recovery cuts the log: an index names other entries in the life
// before it and the one after it, so an index of one life proves nothing about a state of another.
func below(o ownership, incarnation, index uint64) lineage {
	switch {
	case o.SweptThrough == 0:
		return lineage{}
	case o.Incarnation != incarnation:
		return lineage{fmt.Sprintf("cluster %s was recovered: its incarnation %d has swept it through index %d of its own log, and this state is of incarnation %d",
			o.Cluster, o.Incarnation, o.SweptThrough, incarnation)}
	case o.SweptThrough > index:
		return lineage{fmt.Sprintf("cluster %s has swept it through index %d, above index %d", o.Cluster, o.SweptThrough, index)}
	}
	return lineage{}
}
