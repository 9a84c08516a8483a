package backup

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// sweepEvery is how often the archive is searched for what no row needs.
const sweepEvery = 6 * time.Hour

// sweep removes what is in the archive for nobody (K5): folders of tries that another one overtook, snapshots without a
// row, and log segments that no kept snapshot leads to. It lists first and looks at the ledger then (as G7): a
// snapshot that is being written has a row before it has an object.
func (k *Keeper) sweep(ctx context.Context) error {
	before, err := k.look(ctx)
	if err != nil {
		return err
	}
	stored, err := List(ctx, k.cfg.Archive, before.clusterID)
	if err != nil {
		return err
	}
	k.miss(before, stored)
	s, err := k.look(ctx)
	if err != nil {
		return err
	}
	if err := k.cfg.Owns(ctx); err != nil {
		return fmt.Errorf("nothing is deleted: %w", err)
	}
	kept := map[uint64][]Stored{} // by incarnation
	for _, there := range stored {
		if !s.stray(there) {
			kept[there.Incarnation] = append(kept[there.Incarnation], there)
			continue
		}
		k.cfg.Logger.Info("what is left of a backup is removed", "name", there.Folder, "bytes", there.Size)
		if err := k.removeFolder(ctx, there.Folder); err != nil {
			return err
		}
	}
	for life, err := range k.lives(ctx, s.clusterID) {
		if err != nil {
			return err
		}
		if life > s.incarnation {
			return fmt.Errorf("%w: the archive has backups of incarnation %d of cluster %s, this is incarnation %d: "+
				"a copy of this cluster was recovered elsewhere; find out which of the two is to live", ErrOtherCluster, life, s.clusterID, s.incarnation)
		}
		if err := k.sweepLog(ctx, s, life, kept[life]); err != nil {
			return err
		}
	}
	return nil
}

// miss notes the complete backups that are not in the archive: it was changed in the configuration, or somebody emptied it.
// Another one is due then. before was read before the archive was listed.
func (k *Keeper) miss(before *seen, stored []Stored) {
	k.missing = map[string]bool{}
	for _, b := range before.rows {
		if b.GetPlace() != PlaceArchive || b.GetState() != metav1.BackupState_BACKUP_STATE_COMPLETE {
			continue
		}
		if !slices.ContainsFunc(stored, func(there Stored) bool { return there.Folder == b.GetName() && there.Complete }) {
			k.missing[b.ID] = true
			k.cfg.Logger.Error("a complete backup is not in the place of backups; was the place changed, or emptied?", "backup", b.ID, "name", b.GetName())
		}
	}
}

// lives yields the incarnations of which anything is in the archive, also those of which only the log is left.
func (k *Keeper) lives(ctx context.Context, clusterID string) iter.Seq2[uint64, error] {
	return func(yield func(uint64, error) bool) {
		for after, more := "", true; more; {
			more = false
			for o, err := range k.cfg.Archive.List(ctx, Prefix+clusterID+"/", after) {
				p, ok := parseName(o.Key)
				if err != nil || ok {
					if !yield(p.Incarnation, err) || err != nil {
						return
					}
					// Go on behind all of this life.
					after, more = strings.TrimSuffix(folder(clusterID, p.Incarnation), "/")+"~", true
					break
				}
			}
		}
	}
}

// stray says that no row needs what is in a folder. Of an earlier incarnation, what has no row at all stays: its row may be
// among what the recovery lost, and it may be the last of its kind.
func (s *seen) stray(there Stored) bool {
	for _, b := range s.rows {
		if b.ID != there.ID {
			continue
		}
		switch b.GetState() {
		case metav1.BackupState_BACKUP_STATE_COMPLETE:
			return b.GetName() != there.Folder
		case metav1.BackupState_BACKUP_STATE_RETIRED:
			return true
		}
		return false
	}
	return there.Incarnation == s.incarnation
}

// sweepLog removes the segments that no restore of a kept snapshot reads: those at or below the oldest complete one, or all of an
// earlier incarnation that has none left.
func (k *Keeper) sweepLog(ctx context.Context, s *seen, life uint64, kept []Stored) error {
	oldest, any := uint64(0), false
	for _, there := range kept {
		if there.Complete && s.restorable(there) && (!any || there.Index < oldest) {
			oldest, any = there.Index, true
		}
	}
	if !any && life == s.incarnation {
		return nil // the first snapshot of this life is still to come
	}
	return k.removeAll(ctx, logFolder(s.clusterID, life), func(name string) bool {
		p, ok := parseName(name)
		return ok && p.First > 0 && (!any || p.Last <= oldest)
	})
}

// restorable says that a folder's row is complete, or that it has none, which keeps it (stray).
func (s *seen) restorable(there Stored) bool {
	for _, b := range s.rows {
		if b.ID == there.ID {
			return b.GetState() == metav1.BackupState_BACKUP_STATE_COMPLETE
		}
	}
	return true
}
