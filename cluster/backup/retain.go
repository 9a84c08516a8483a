package backup

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// retainStep retires what is no longer to be kept, and removes what is retired. done says that it did anything.
// The order is that of G6: the row is retired before an object goes, and forgotten after the last.
func (k *Keeper) retainStep(ctx context.Context, s *seen) (done bool, err error) {
	for _, b := range k.superfluous(s) {
		if err := k.propose(ctx, retireBackup(b.ID, false)); err != nil {
			return done, fmt.Errorf("retire backup %s: %w", b.ID, err)
		}
		k.cfg.Logger.Info("backup retired", "backup", b.ID, "state", b.GetState().String(), "index", b.GetIndex())
		done = true
	}
	for _, b := range s.rows {
		if b.GetState() != metav1.BackupState_BACKUP_STATE_RETIRED || b.GetPlace() == PlaceArchive && k.cfg.Archive == nil {
			continue // without a place this node cannot reach what there may be
		}
		if err := k.forget(ctx, s, b); err != nil {
			return done, fmt.Errorf("remove backup %s: %w", b.ID, err)
		}
		done = true
	}
	return done, nil
}

// superfluous answers the backups that retention gives up. One on hold is never among them. In the archive, a complete
// one stays while it is one of the newest Keep, or younger than KeepFor. A file is protected for KeepFor. An open one is given up
// after a day: whoever wrote it is gone.
func (k *Keeper) superfluous(s *seen) (out []meta.BackupItem) {
	var complete []meta.BackupItem
	for _, b := range s.rows {
		switch {
		case b.GetHold() || b.GetState() == metav1.BackupState_BACKUP_STATE_RETIRED:
		case b.GetState() == metav1.BackupState_BACKUP_STATE_OPEN:
			if s.abandoned(b) {
				out = append(out, b)
			}
		case b.GetPlace() == PlaceArchive:
			complete = append(complete, b)
		case s.age(b) > int64(k.cfg.KeepFor):
			out = append(out, b)
		}
	}
	slices.SortFunc(complete, func(a, b meta.BackupItem) int { return cmp.Compare(b.GetIndex(), a.GetIndex()) })
	for n, b := range complete {
		if n >= k.cfg.Keep && s.age(b) > int64(k.cfg.KeepFor) {
			out = append(out, b)
		}
	}
	return out
}

func (s *seen) age(b meta.BackupItem) int64 { return s.clock - b.GetCompleted().GetClusterTime() }

// forget removes the objects of a retired backup and then its row.
func (k *Keeper) forget(ctx context.Context, s *seen, b meta.BackupItem) error {
	if b.GetPlace() == PlaceArchive {
		if err := k.removeBackup(ctx, s, b.ID); err != nil {
			return err
		}
	}
	c := &metav1.Command{Kind: &metav1.Command_ForgetBackup{ForgetBackup: &metav1.ForgetBackup{Id: b.ID}}}
	if err := k.propose(ctx, c); err != nil && meta.KindOf(err) != metav1.Kind_KIND_UNKNOWN {
		return fmt.Errorf("forget: %w", err)
	}
	return nil
}

// removeBackup removes every folder of a backup: tries at several indexes may have left some.
func (k *Keeper) removeBackup(ctx context.Context, s *seen, id string) error {
	if err := k.cfg.Owns(ctx); err != nil {
		return fmt.Errorf("nothing is deleted: %w", err)
	}
	all, err := List(ctx, k.cfg.Archive, s.clusterID)
	if err != nil {
		return err
	}
	for _, there := range all {
		if there.ID != id {
			continue
		}
		if err := k.removeFolder(ctx, there.Folder); err != nil {
			return err
		}
	}
	return nil
}

// removeFolder removes a snapshot's objects, the manifest first: a half removed one is no snapshot.
func (k *Keeper) removeFolder(ctx context.Context, folder string) error {
	if err := k.cfg.Archive.Delete(ctx, folder+manifestName); err != nil {
		return err
	}
	return k.removeAll(ctx, folder, func(string) bool { return true })
}

// removeAll removes the objects under a prefix that which chooses.
func (k *Keeper) removeAll(ctx context.Context, prefix string, which func(name string) bool) error {
	const batch = 1000
	var names []string
	flush := func() error {
		if len(names) == 0 {
			return nil
		}
		err := k.cfg.Archive.Delete(ctx, names...)
		names = names[:0]
		return err
	}
	for o, err := range k.cfg.Archive.List(ctx, prefix, "") {
		if err != nil {
			return err
		}
		if !which(o.Key) {
			continue
		}
		if names = append(names, o.Key); len(names) == batch {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}
