package admin

import (
	"context"

	"github.com/pontoon-registry/pontoon/meta"
	adminv1 "github.com/pontoon-registry/pontoon/proto/pontoon/admin/v1"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// GiveUpRestore judges all backups at one index, then retires them one by one: one that was retired meanwhile is no error.
func (c *collection) GiveUpRestore(ctx context.Context, req *adminv1.GiveUpRestoreRequest) (*adminv1.GiveUpRestoreResponse, error) {
	if req.GetBefore() == nil || !req.GetBefore().IsValid() {
		return nil, invalid(metav1.Noun_NOUN_BACKUP, "before: is missing or no date, expected a time: backups of earlier states are given up")
	}
	before := req.GetBefore().AsTime().UnixNano()
	out := &adminv1.GiveUpRestoreResponse{}
	err := c.ledger.View(ctx, meta.Read{}, func(v *meta.View) error {
		all, err := v.Backups()
		if err != nil {
			return err
		}
		gone := map[string]bool{}
		for _, b := range all {
			switch {
			case b.GetState() == metav1.BackupState_BACKUP_STATE_RETIRED || contentTime(b.Backup) >= before:
			case b.GetHold():
				out.Held = append(out.Held, restorableOf(b))
			default:
				out.GivenUp = append(out.GivenUp, restorableOf(b))
				gone[b.ID] = true
			}
		}
		out.Oldest, err = oldestOf(v, gone)
		return err
	})
	if err != nil || req.GetDryRun() {
		return out, err
	}
	for _, b := range out.GetGivenUp() {
		_, err := c.ledger.Propose(ctx, &metav1.Command{Envelope: envelope(ctx),
			Kind: &metav1.Command_RetireBackup{RetireBackup: &metav1.RetireBackup{Id: b.GetBackup()}}})
		if err != nil && meta.KindOf(err) != metav1.Kind_KIND_UNKNOWN {
			return nil, err
		}
	}
	return out, nil
}

// contentTime is the wall time of what a backup holds; of one that is not complete only its beginning is known.
func contentTime(b *metav1.Backup) int64 {
	if b.GetState() == metav1.BackupState_BACKUP_STATE_COMPLETE {
		return b.GetWallTime()
	}
	return b.GetOpened().GetWallTime()
}

func restorableOf(b meta.BackupItem) *adminv1.Restorable {
	out := &adminv1.Restorable{Backup: b.ID, Index: b.GetOpened().GetIndex(), Time: wallTime(contentTime(b.Backup)), Hold: b.GetHold(), Size: b.GetSize(), Place: b.GetPlace()}
	if b.GetState() == metav1.BackupState_BACKUP_STATE_COMPLETE {
		out.Index, out.Complete = b.GetIndex(), true
	}
	return out
}

// oldestOf is the backup that reaches back furthest, but for those that are gone; nil without any (G6).
func oldestOf(v *meta.View, gone map[string]bool) (*adminv1.Restorable, error) {
	all, err := v.Backups()
	if err != nil {
		return nil, err
	}
	var oldest *adminv1.Restorable
	for _, b := range all {
		if b.GetState() == metav1.BackupState_BACKUP_STATE_RETIRED || gone[b.ID] {
			continue
		}
		if r := restorableOf(b); oldest == nil || r.GetIndex() < oldest.GetIndex() {
			oldest = r
		}
	}
	return oldest, nil
}
