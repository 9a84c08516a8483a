package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// giveUpTime bounds the retiring of a snapshot whose writing failed, after its caller is gone.
const giveUpTime = 5 * time.Second

// Request asks the leader for a snapshot in the archive, and answers its id: the row is the request. Works on any node.
func (k *Keeper) Request(ctx context.Context, by *metav1.Envelope, hold bool) (id string, err error) {
	if k.cfg.Archive == nil {
		return "", meta.Refuse(metav1.Kind_KIND_UNSUPPORTED, metav1.Noun_NOUN_BACKUP,
			"backups have no place here: set backup.enabled and backup.directory or backup.s3.bucket, or name a file")
	}
	id = NewID()
	if err := k.proposeAs(ctx, by, openBackup(id, PlaceArchive, hold)); err != nil {
		return "", fmt.Errorf("open backup: %w", err)
	}
	return id, nil
}

// SaveFile writes the state, with everything acknowledged before the call, to w as one file. The backup is open in the ledger, and
// protects what it holds, from before its view on; whoever has the file safe calls CompleteFile. On an
// error it is given up. Works on any node.
func (k *Keeper) SaveFile(ctx context.Context, by *metav1.Envelope, hold bool, w io.Writer, progress func(id string, stored int64)) (id string, out *Written, err error) {
	id = NewID()
	if err := k.proposeAs(ctx, by, openBackup(id, PlaceFile, hold)); err != nil {
		return "", nil, fmt.Errorf("open backup: %w", err)
	}
	progress(id, 0)
	err = k.view(ctx, func(v *meta.View) (err error) {
		out, err = WriteFile(ctx, v, k.cfg.Release, w, func(stored int64) { progress(id, stored) })
		return err
	})
	if err != nil {
		after, cancel := context.WithTimeout(context.WithoutCancel(ctx), giveUpTime)
		defer cancel()
		return id, nil, errors.Join(err, k.Retire(after, by, id, true))
	}
	return id, out, nil
}

// CompleteFile says that the file of an open backup was read back.
func (k *Keeper) CompleteFile(ctx context.Context, by *metav1.Envelope, c *metav1.CompleteBackup) error {
	if err := k.proposeAs(ctx, by, &metav1.Command{Kind: &metav1.Command_CompleteBackup{CompleteBackup: c}}); err != nil {
		return fmt.Errorf("complete backup: %w", err)
	}
	return nil
}

// Retire gives a backup up: what it alone protected may be deleted, and the leader removes its objects. With release also one on hold.
func (k *Keeper) Retire(ctx context.Context, by *metav1.Envelope, id string, release bool) error {
	if err := k.proposeAs(ctx, by, retireBackup(id, release)); err != nil {
		return fmt.Errorf("retire backup: %w", err)
	}
	return nil
}
