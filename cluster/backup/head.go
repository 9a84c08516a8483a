package backup

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// find finds the head of the archived log; ready is false while the cluster is too old to have backups.
func (s *shipper) find(ctx context.Context) (ready bool, err error) {
	var last *meta.BackupItem
	err = s.k.view(ctx, func(v *meta.View) error {
		system, err := v.System()
		if err != nil {
			return err
		}
		s.clusterID, s.incarnation, s.life = system.GetClusterId(), system.GetIncarnation(), system.GetLife()
		ready = system.GetVersion() >= neededVersion
		rows, err := v.Backups()
		last = (&seen{rows: rows}).latest()
		return err
	})
	if err != nil || !ready {
		return false, err
	}
	all, err := OpenLog(s.k.cfg.Archive, s.clusterID, s.incarnation).Segments(ctx)
	if err != nil {
		return false, err
	}
	// The leader has every committed entry, so whatever of this log was archived is applied here.
	applied, _ := s.k.cfg.Log.State()
	from, head := lastRun(all)
	switch {
	case head > applied:
		return false, fmt.Errorf("%w: the archive has the log up to entry %d, this cluster has %d: another cluster with id %s writes here; "+
			"stop it, or give this one another place for its backups", ErrOtherCluster, head, applied, s.clusterID)
	case head == 0:
		from, head = s.begin(last, applied)
	default:
		if head, err = s.proven(ctx, all, head); err != nil {
			return false, err
		}
	}
	s.found, s.head, s.shipped = true, head, time.Now()
	s.k.setLogFrom(from)
	return true, nil
}

// begin is where a log begins that has no segment yet: at the last snapshot, if the log goes back to there.
func (s *shipper) begin(last *meta.BackupItem, applied uint64) (from, head uint64) {
	if last != nil {
		if _, _, err := s.k.cfg.Log.Entries(last.GetIndex(), 1); err == nil {
			return last.GetIndex(), last.GetIndex()
		}
	}
	return applied, applied
}

// lastRun answers the range of the unbroken run of segments that ends with the highest; zeros when there is none.
func lastRun(all []Listed) (from, head uint64) {
	for _, s := range all { // by first index
		if head == 0 || s.First > head+1 {
			from = s.First - 1
		}
		head = max(head, s.Last)
	}
	return from, head
}

// proven compares the last segment with this node's own log, and answers from where on it goes. One that is damaged is
// written again: the log goes on before it.
func (s *shipper) proven(ctx context.Context, all []Listed, head uint64) (uint64, error) {
	var last Listed
	for _, l := range all {
		if l.Last == head {
			last = l
			break // the longest of those that end there
		}
	}
	theirs, err := OpenLog(s.k.cfg.Archive, s.clusterID, s.incarnation).Read(ctx, last)
	var damaged *FileError
	if errors.As(err, &damaged) && !errors.Is(err, ErrOtherCluster) {
		s.k.cfg.Logger.Error("the last segment of the archived log is damaged; its range is archived again", "error", err)
		return last.First - 1, nil
	}
	if err != nil {
		return 0, err
	}
	entries, _, err := s.k.cfg.Log.Entries(theirs.After, 2*segmentBytes)
	if meta.KindOf(err) == metav1.Kind_KIND_UNKNOWN {
		return head, nil // compacted: nothing to compare with
	}
	if err != nil {
		return 0, err
	}
	for n, e := range entries {
		if e.Index > theirs.Through {
			entries = entries[:n]
			break
		}
	}
	return head, s.sameAs(last.Name, theirs, entries)
}
