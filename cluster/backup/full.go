package backup

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pontoon-registry/pontoon/blobs"
	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// fullStep finishes the open snapshots, or opens one that is due.
func (k *Keeper) fullStep(ctx context.Context, s *seen) error {
	if k.cfg.Archive == nil {
		return nil
	}
	open := 0
	for _, b := range s.rows {
		if b.GetPlace() != PlaceArchive || b.GetState() != metav1.BackupState_BACKUP_STATE_OPEN || s.abandoned(b) {
			continue
		}
		open++
		if err := k.finish(ctx, b.ID); err != nil {
			return fmt.Errorf("backup %s: %w", b.ID, err)
		}
	}
	if open > 0 {
		return nil
	}
	why := k.due(s, k.cfg.Now())
	if why == "" {
		return nil
	}
	id := NewID()
	k.cfg.Logger.Info("a backup is due", "backup", id, "why", why)
	if err := k.propose(ctx, openBackup(id, PlaceArchive, false)); err != nil {
		return fmt.Errorf("open backup %s: %w", id, err)
	}
	return nil
}

// abandoned says that an open backup is so old that it is given up, unless somebody holds it.
func (s *seen) abandoned(b meta.BackupItem) bool {
	return !b.GetHold() && s.clock-b.GetOpened().GetClusterTime() > int64(abandonAfter)
}

// due says why a snapshot must be taken now; empty: it need not be.
func (k *Keeper) due(s *seen, now time.Time) string {
	s = s.without(k.missing)
	var opened *metav1.Stamp // of the latest that is or will be complete
	for _, b := range s.rows {
		if b.GetPlace() == PlaceArchive && b.GetState() == metav1.BackupState_BACKUP_STATE_COMPLETE && b.GetOpened().GetIndex() >= opened.GetIndex() {
			opened = b.GetOpened()
		}
	}
	if opened == nil {
		return "there is none"
	}
	if last := s.latest(); last.GetIndex() < k.needFrom() {
		return fmt.Sprintf("the archived log goes on from index %d, beyond the last backup, which is of index %d", k.needFrom(), last.GetIndex())
	}
	if p, ok := parseName(s.latest().GetName() + manifestName); !ok || p.Incarnation != s.incarnation {
		return "the last one is of this cluster's life before a recovery"
	}
	if !k.schedule.Next(s.openedAt(opened, now)).After(now) {
		return "the schedule says so"
	}
	return ""
}

// without answers what the ledger says of all other backups.
func (s *seen) without(ids map[string]bool) *seen {
	out := *s
	out.rows = slices.DeleteFunc(slices.Clone(s.rows), func(b meta.BackupItem) bool { return ids[b.ID] })
	return &out
}

// openedAt answers when a backup was opened, by the clock that says now. The stamp's wall time may be a jump ahead of it, and
// would put the next backup off for as long; the cluster's clock does not jump, but stands while the cluster is down. So
// the earlier of the two counts: after a jump, a backup may come too early once.
func (s *seen) openedAt(stamp *metav1.Stamp, now time.Time) time.Time {
	byWall := time.Unix(0, stamp.GetWallTime())
	byCluster := now.Add(-time.Duration(s.clock - stamp.GetClusterTime()))
	if byCluster.Before(byWall) {
		return byCluster
	}
	return byWall
}

// finish takes a snapshot for an open row: view, upload, read back, complete.
func (k *Keeper) finish(ctx context.Context, id string) error {
	var w *Written
	var place Place
	err := k.view(ctx, func(v *meta.View) error {
		row, err := v.Backup(id)
		if err != nil || row.GetState() != metav1.BackupState_BACKUP_STATE_OPEN {
			return err // somebody else was quicker
		}
		system, err := v.System()
		if err != nil {
			return err
		}
		place = snapshotPlace(system, v.Index(), id)
		w, err = write(ctx, v, k.cfg.Release, &idempotentSink{bucketSink{k.cfg.Archive, place.Folder}}, nil)
		return err
	})
	if err != nil || w == nil {
		return err
	}
	if err := k.readBack(ctx, place, w); err != nil {
		return err
	}
	m := w.Manifest
	err = k.propose(ctx, &metav1.Command{Kind: &metav1.Command_CompleteBackup{CompleteBackup: &metav1.CompleteBackup{
		Id: id, Index: m.Index, Term: m.Term, ClusterTime: m.ClusterTime, WallTime: m.WallTime, Name: place.Folder, Size: w.Size, Sha256: w.SHA256,
	}}})
	if meta.KindOf(err) == metav1.Kind_KIND_CONFLICT {
		return nil // another leader was quicker, or it was given up; the sweep removes what was written
	}
	if err != nil {
		return fmt.Errorf("complete: %w", err)
	}
	k.cfg.Logger.Info("backup complete and verified", "backup", id, "index", m.Index, "bytes", w.Size, "name", place.Folder)
	return nil
}

func snapshotPlace(system *metav1.System, index uint64, id string) Place {
	return Place{ClusterID: system.GetClusterId(), Incarnation: system.GetIncarnation(), Index: index, ID: id,
		Folder: fmt.Sprintf("%s%020d-%s/", fullFolder(system.GetClusterId(), system.GetIncarnation()), index, id)}
}

// readBack is K1. What turns out to be damaged is removed, so that it is neither taken for a backup nor in the way of the next try.
func (k *Keeper) readBack(ctx context.Context, place Place, w *Written) error {
	s, err := OpenStored(ctx, k.cfg.Archive, place)
	if err == nil {
		err = s.Verify(ctx, nil)
		if err == nil && !bytes.Equal(s.SHA256(), w.SHA256) {
			err = fileError(place.Folder+manifestName, ErrAltered, "it is another than was written")
		}
	}
	var damaged *FileError
	if errors.As(err, &damaged) {
		err = errors.Join(err, k.removeFolder(ctx, place.Folder))
	}
	if err != nil {
		return fmt.Errorf("read back: %w", err)
	}
	return nil
}

// idempotentSink takes what is there already with the same bytes for written: another leader's, or an earlier try's (K2).
type idempotentSink struct{ bucketSink }

func (s *idempotentSink) put(ctx context.Context, file string, body []byte) error {
	err := s.bucketSink.put(ctx, file, body)
	if !errors.Is(err, blobs.ErrExists) {
		return err
	}
	found, read := s.archive.Get(ctx, s.folder+file)
	if read != nil {
		return read
	}
	if !bytes.Equal(found, body) {
		return fmt.Errorf("%w, with other bytes: another release wrote it at this index; the next try is of a later one", err)
	}
	return nil
}

func openBackup(id, place string, hold bool) *metav1.Command {
	return &metav1.Command{Kind: &metav1.Command_OpenBackup{OpenBackup: &metav1.OpenBackup{Id: id, Place: place, Hold: hold}}}
}

func retireBackup(id string, release bool) *metav1.Command {
	return &metav1.Command{Kind: &metav1.Command_RetireBackup{RetireBackup: &metav1.RetireBackup{Id: id, Release: release}}}
}

// NewID makes the random id of a backup.
func NewID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
