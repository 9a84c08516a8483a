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
// protects what it holds, from before its view on; whoever has the file safe
// proposes CompleteBackup. opened hears the id before the first byte. On an error it is given up. Works on any node.
func (k *Keeper) SaveFile(ctx context.Context, by *metav1.Envelope, hold bool, opened func(id string) error, w io.Writer) (id string, out *Written, err error) {
	id = NewID()
	if err := k.proposeAs(ctx, by, openBackup(id, PlaceFile, hold)); err != nil {
		return "", nil, fmt.Errorf("open backup: %w", err)
	}
	if err = opened(id); err == nil {
		err = k.view(ctx, func(v *meta.View) (err error) {
			out, err = WriteFile(ctx, v, k.cfg.Release, w, nil)
			return err
		})
	}
	if err != nil {
		after, cancel := context.WithTimeout(context.WithoutCancel(ctx), giveUpTime)
		defer cancel()
		return id, nil, errors.Join(err, k.retire(after, by, id))
	}
	return id, out, nil
}

// retire gives up a file that was not written.
func (k *Keeper) retire(ctx context.Context, by *metav1.Envelope, id string) error {
	if err := k.proposeAs(ctx, by, retireBackup(id, true)); err != nil {
		return fmt.Errorf("retire backup %s: %w", id, err)
	}
	return nil
}
