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
	case o.Cluster == s.GetClusterId() && o.Epoch == s.GetEpoch() && o.Incarnation > s.GetIncarnation() && o.SweptThrough > 0:
		// The log was cut by a recovery: an index names other entries before it and after it.
		return lineage{fmt.Sprintf("cluster %s was recovered since and has swept it through index %d of its new life", o.Cluster, o.SweptThrough)}
	case o.Cluster == s.GetClusterId() && o.Epoch == s.GetEpoch():
		return below(o, index)
	case o.Cluster == r.GetClusterId() && o.Epoch == r.GetEpoch():
		// A restored cluster that never took the mark: the old one went on sweeping, by the log that both have up to there.
		return below(o, r.GetIndex())
	}
	return lineage{fmt.Sprintf("it belongs to cluster %s, of which the snapshot knows nothing", o.Cluster)}
}

func below(o ownership, index uint64) lineage {
	if o.SweptThrough <= index {
		return lineage{}
	}
	return lineage{fmt.Sprintf("cluster %s has swept it through index %d, above index %d", o.Cluster, o.SweptThrough, index)}
}
