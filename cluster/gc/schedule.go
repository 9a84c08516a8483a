package gc

import (
	"time"

	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// neededVersion is the version of the cluster from which on it knows cycles (M7).
const neededVersion = 3

// situation is what the ledger says about garbage collection.
type situation struct {
	version    uint32
	collection *metav1.Collection
	// last is the cycle that ended last, nil if none ever did.
	last *metav1.Cycle
	// clock is cluster time.
	clock int64
}

func look(v *meta.View) (s situation, err error) {
	system, err := v.System()
	if meta.KindOf(err) == metav1.Kind_KIND_UNKNOWN {
		return s, nil // no cluster yet
	}
	if err != nil {
		return s, err
	}
	if s.collection, err = v.Collection(); err != nil {
		return s, err
	}
	history, err := v.Cycles(1)
	if err != nil {
		return s, err
	}
	if len(history) > 0 {
		s.last = history[0]
	}
	s.version, s.clock = system.GetVersion(), v.ClusterTime()
	return s, nil
}

// due answers why a cycle should begin now, UNSPECIFIED if none should. Only the ledger decides: a new leader neither
// skips a cycle nor repeats one. A cluster without history has its first cycle at once.
func (c *Collector) due(s situation) metav1.CycleTrigger {
	switch {
	case s.collection.GetRequested() != nil:
		return metav1.CycleTrigger_CYCLE_TRIGGER_REQUEST
	case c.schedule == nil:
		return metav1.CycleTrigger_CYCLE_TRIGGER_UNSPECIFIED
	case s.last == nil || !c.schedule.Next(s.lastEnd(c.cfg.Now())).After(c.cfg.Now()):
		return metav1.CycleTrigger_CYCLE_TRIGGER_SCHEDULE
	}
	return metav1.CycleTrigger_CYCLE_TRIGGER_UNSPECIFIED
}

// lastEnd answers when the last cycle ended, by the clock that says now. The stamp's wall time may be a jump ahead of
// it, and then nothing would be due for years; the cluster's clock does not jump, but stands while the cluster is
// down. So the earlier of the two counts: after a jump, a cycle may come too early once.
func (s situation) lastEnd(now time.Time) time.Time {
	stamp := s.last.GetEnded()
	byWall := time.Unix(0, stamp.GetWallTime())
	byCluster := now.Add(-time.Duration(s.clock - stamp.GetClusterTime()))
	if byCluster.Before(byWall) {
		return byCluster
	}
	return byWall
}
