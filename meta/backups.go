package meta

import (
	"cmp"
	"crypto/sha256"
	"slices"

	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// The life of a backup, and what it protects (G6):
//
//	(none) ── open ──► open ── complete ──► complete ── retire ──► retired ── forget ──► (none)
//	                    └──────────────────── retire ─────────────────▲
//
// While it is open it protects every key that was condemned at or after the index of its opening: its view is taken
// later, and so holds nothing that was condemned before. Once complete it protects those condemned at or after the
// index of its view. A retired one protects nothing; its objects are deleted only then.

// maxBackups bounds the rows: each sweep looks at all of them.
const maxBackups = 10_000

func (r *rows) backup(id string) *metav1.Backup {
	row := &metav1.Backup{}
	if !r.read(nameKey(r.key[:0], rangeBackup, id), row) {
		return nil
	}
	return row
}

func (r *rows) backups() ([]BackupItem, error) {
	all, _, err := list(r, oneRow(nil, rangeBackup), nil, maxBackups, func(rest, value []byte) (BackupItem, bool) {
		it := BackupItem{Backup: &metav1.Backup{}}
		it.ID, _ = cutName(rest)
		return it, r.decode(rest, value, it.Backup)
	})
	return all, err
}

// oldestRestorable answers the backup that reaches back furthest, and the index to which it does; nil when there is none.
func (r *rows) oldestRestorable() (oldest *BackupItem, index uint64) {
	all, _ := r.backups()
	for _, b := range all {
		var i uint64
		switch b.GetState() {
		case metav1.BackupState_BACKUP_STATE_OPEN:
			i = b.GetOpened().GetIndex()
		case metav1.BackupState_BACKUP_STATE_COMPLETE:
			i = b.GetIndex()
		default:
			continue
		}
		if oldest == nil || i < index {
			oldest, index = &b, i
		}
	}
	return oldest, index
}

// openBackup makes a backup known before its view is taken (G6).
func (t *txn) openBackup(c *metav1.OpenBackup) (*metav1.Result, error) {
	if !isUploadID(c.GetId()) {
		return nil, invalid(metav1.Noun_NOUN_BACKUP, "backup id: got %q, expected %d lowercase hexadecimal digits", clip(c.GetId()), idLength)
	}
	if err := checkName(metav1.Noun_NOUN_BACKUP, "place of backup", c.GetPlace()); err != nil {
		return nil, err
	}
	if t.backup(c.GetId()) != nil {
		return nil, conflict(metav1.Noun_NOUN_BACKUP, "backup %s: the id was used before", c.GetId())
	}
	if all, _ := t.backups(); len(all) >= maxBackups {
		return nil, tooLarge(metav1.Noun_NOUN_BACKUP, "backups: there are %d, at most %d are kept; release some of them first", len(all), maxBackups)
	}
	t.putBackup(c.GetId(), &metav1.Backup{
		State: metav1.BackupState_BACKUP_STATE_OPEN, Opened: t.stamp(), Place: c.GetPlace(), Hold: c.GetHold(),
	}, metav1.Action_ACTION_OPEN_BACKUP)
	return nil, nil
}

// completeBackup says that a backup was written and read back.
func (t *txn) completeBackup(c *metav1.CompleteBackup) (*metav1.Result, error) {
	row, err := t.backupOf(c.GetId())
	if err != nil {
		return nil, err
	}
	if row.GetState() != metav1.BackupState_BACKUP_STATE_OPEN {
		return nil, conflict(metav1.Noun_NOUN_BACKUP, "backup %s: is not open any more", c.GetId())
	}
	if i := c.GetIndex(); i < row.GetOpened().GetIndex() || i > t.index {
		return nil, invalid(metav1.Noun_NOUN_BACKUP, "backup %s: got a view of index %d, expected one from %d, where it was opened, to %d",
			c.GetId(), i, row.GetOpened().GetIndex(), t.index)
	}
	if n := len(c.GetName()); n == 0 || n > maxKey {
		return nil, invalid(metav1.Noun_NOUN_BACKUP, "backup %s: name: got %d bytes, expected 1 to %d", c.GetId(), n, maxKey)
	}
	if n := len(c.GetSha256()); n != sha256.Size || c.GetSize() < 0 {
		return nil, invalid(metav1.Noun_NOUN_BACKUP, "backup %s: got a sum of %d bytes and size %d, expected %d and at least 0",
			c.GetId(), n, c.GetSize(), sha256.Size)
	}
	row.State, row.Completed = metav1.BackupState_BACKUP_STATE_COMPLETE, t.stamp()
	row.Index, row.Term, row.ClusterTime, row.WallTime = c.GetIndex(), c.GetTerm(), c.GetClusterTime(), c.GetWallTime()
	row.Name, row.Size, row.Sha256 = c.GetName(), c.GetSize(), c.GetSha256()
	t.putBackup(c.GetId(), row, metav1.Action_ACTION_COMPLETE_BACKUP)
	return nil, nil
}

// retireBackup gives up restoring it: from now on it protects nothing (G6).
func (t *txn) retireBackup(c *metav1.RetireBackup) (*metav1.Result, error) {
	row, err := t.backupOf(c.GetId())
	if err != nil {
		return nil, err
	}
	if row.GetState() == metav1.BackupState_BACKUP_STATE_RETIRED {
		return nil, nil
	}
	if row.GetHold() && !c.GetRelease() {
		return nil, Refuse(metav1.Kind_KIND_UNSUPPORTED, metav1.Noun_NOUN_BACKUP,
			"backup %s: is on hold; `pontoon snapshot release` gives it up", c.GetId())
	}
	row.State, row.Retired = metav1.BackupState_BACKUP_STATE_RETIRED, t.stamp()
	t.putBackup(c.GetId(), row, metav1.Action_ACTION_RETIRE_BACKUP)
	return nil, nil
}

// forgetBackup drops the row of a backup whose objects are gone.
func (t *txn) forgetBackup(c *metav1.ForgetBackup) (*metav1.Result, error) {
	row, err := t.backupOf(c.GetId())
	if err != nil {
		return nil, err
	}
	if row.GetState() != metav1.BackupState_BACKUP_STATE_RETIRED {
		return nil, conflict(metav1.Noun_NOUN_BACKUP, "backup %s: is not retired", c.GetId())
	}
	t.del(nameKey(nil, rangeBackup, c.GetId()))
	return nil, nil
}

func (t *txn) backupOf(id string) (*metav1.Backup, error) {
	if !isUploadID(id) {
		return nil, noBackup(id)
	}
	row := t.backup(id)
	if row == nil {
		return nil, noBackup(id)
	}
	return row, nil
}

func noBackup(id string) *Error {
	return unknown(metav1.Noun_NOUN_BACKUP, "backup %s: is not there", clip(id))
}

func (t *txn) putBackup(id string, row *metav1.Backup, action metav1.Action) {
	t.put(nameKey(nil, rangeBackup, id), row)
	t.event(&metav1.Event{Action: action, Subject: id})
}

// BackupItem is a backup with its id.
type BackupItem struct {
	ID string
	*metav1.Backup
}

// Backup looks a backup up.
func (v *View) Backup(id string) (*metav1.Backup, error) {
	row := v.backup(id)
	if v.err == nil && row == nil {
		return nil, noBackup(id)
	}
	return row, v.err
}

// Backups lists all backups that have a row, the one that was opened first at first.
func (v *View) Backups() ([]BackupItem, error) {
	all, err := v.backups()
	slices.SortFunc(all, func(a, b BackupItem) int {
		return cmp.Or(cmp.Compare(a.GetOpened().GetIndex(), b.GetOpened().GetIndex()), cmp.Compare(a.ID, b.ID))
	})
	return all, err
}

// OldestRestorable is the index up to which keys that were condemned before it may be deleted (G6); any is false when
// no backup protects anything.
func (v *View) OldestRestorable() (index uint64, any bool, err error) {
	oldest, index := v.oldestRestorable()
	return index, oldest != nil, v.err
}
