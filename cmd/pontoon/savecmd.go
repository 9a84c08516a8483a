package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/pontoon-registry/pontoon/cluster/backup"
	adminv1 "github.com/pontoon-registry/pontoon/proto/pontoon/admin/v1"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// snapshotSave is what `snapshot save` was told.
type snapshotSave struct {
	file         string
	hold, noWait bool
}

func newSnapshotSave(a *app) *cobra.Command {
	var s snapshotSave
	cmd := &cobra.Command{
		Use: "save [FILE]", Short: "Save the state of now, in the place of backups or in a file",
		Long: "Save the state of the cluster as it is now, with everything acknowledged before. It holds no layers: those are\n" +
			"in the store, which keeps what a snapshot needs.\n\n" +
			"Without FILE the leader writes it where backups go (section backup of the configuration), reads it back, and\n" +
			"this waits until it has. With FILE it is written here, read back, and only then has its name.\n\n" +
			"A snapshot protects what it needs in the store for as long as backup.keep and backup.keepfor say, one in a file\n" +
			"for backup.keepfor alone. With --hold it does so until `pontoon snapshot release`.",
		Example: "  pontoon snapshot save\n  pontoon snapshot save before-upgrade.tar --hold",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 || s.noWait && len(args) == 1 {
				return usage(cmd, "expected at most one file, and none with --no-wait")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.dial(cmd.Context())
			if err != nil {
				return err
			}
			if len(args) == 0 {
				return a.saveInPlace(cmd.Context(), c, s)
			}
			s.file = args[0]
			return a.saveFile(cmd.Context(), c, s)
		},
	}
	cmd.Flags().BoolVar(&s.hold, "hold", false, "keep it, and what it needs, until it is released")
	cmd.Flags().BoolVar(&s.noWait, "no-wait", false, "only ask the leader for it")
	return cmd
}

// saveInPlace asks the leader and waits.
func (a *app) saveInPlace(ctx context.Context, c *client, s snapshotSave) error {
	stream, err := c.snapshots.SaveSnapshot(ctx, &adminv1.SaveSnapshotRequest{Hold: s.hold, NoWait: s.noWait})
	if err != nil {
		return err
	}
	defer func() { _ = stream.Close() }() // what was said counts
	line := a.progress()
	defer line.end()
	var last *adminv1.Snapshot
	for stream.Receive() {
		last = stream.Msg().GetSnapshot()
		line.show(fmt.Sprintf("snapshot %s: %s", last.GetId(), stateText(last.GetState())))
	}
	line.end()
	if err := stream.Err(); err != nil {
		return err
	}
	return a.show(last, func(w io.Writer) {
		if last.GetState() != metav1.BackupState_BACKUP_STATE_COMPLETE {
			_, _ = fmt.Fprintf(w, "asked for snapshot %s\n", last.GetId())
			return
		}
		_, _ = fmt.Fprintf(w, "saved %s, %s, the state of index %d: %s\n", last.GetId(), size(last.GetSize()), last.GetIndex(), last.GetName())
	})
}

// saveFile writes a file, reads it back, gives it its name, and says so to the ledger.
func (a *app) saveFile(ctx context.Context, c *client, s snapshotSave) (err error) {
	path, err := filepath.Abs(s.file)
	if err != nil {
		return err
	}
	if _, err := os.Lstat(path); err == nil {
		return &codedError{exitConflict, fmt.Errorf("%s is there already: name another file", path)}
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("save snapshot: %w", err)
	}
	id := ""
	defer func() {
		_ = f.Close() // closed before it counts
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()), giveUp(ctx, c, id))
		}
	}()
	written, err := a.receive(ctx, c, s.hold, f, &id)
	if err != nil {
		return fmt.Errorf("save snapshot to %s: %w", path, err)
	}
	if err := checkSaved(ctx, f.Name(), written); err != nil {
		return fmt.Errorf("save snapshot to %s: read back: %w", path, err)
	}
	// A link never replaces what somebody else put there meanwhile.
	if err := os.Link(f.Name(), path); err != nil {
		return fmt.Errorf("save snapshot: %w", err)
	}
	res, err := call(ctx, func(ctx context.Context) (*adminv1.CompleteSnapshotResponse, error) {
		return c.snapshots.CompleteSnapshot(ctx, &adminv1.CompleteSnapshotRequest{Written: written, Name: path})
	})
	if err != nil {
		return errors.Join(err, os.Remove(path))
	}
	if err := errors.Join(os.Remove(f.Name()), syncDirectory(filepath.Dir(path))); err != nil {
		return fmt.Errorf("save snapshot: %w", err)
	}
	done := res.GetSnapshot()
	return a.show(done, func(w io.Writer) {
		_, _ = fmt.Fprintf(w, "saved %s, %s, the state of index %d: %s\n", done.GetId(), size(done.GetSize()), done.GetIndex(), path)
	})
}

// receive writes what comes to f, durably; id is set as soon as it is known.
func (a *app) receive(ctx context.Context, c *client, hold bool, f *os.File, id *string) (*adminv1.WrittenSnapshot, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // a stream that is left early gives the snapshot up
	stream, err := c.snapshots.ReadSnapshot(ctx, &adminv1.ReadSnapshotRequest{Hold: hold})
	if err != nil {
		return nil, err
	}
	defer func() { _ = stream.Close() }() // what was received counts
	line := a.progress()
	defer line.end()
	var written *adminv1.WrittenSnapshot
	for total := int64(0); stream.Receive(); {
		m := stream.Msg()
		if m.GetId() != "" {
			*id = m.GetId()
		}
		n, err := f.Write(m.GetData())
		if err != nil {
			return nil, err
		}
		total += int64(n)
		line.show(fmt.Sprintf("snapshot %s: %s", *id, size(total)))
		written = m.GetWritten()
	}
	if err := stream.Err(); err != nil {
		return nil, err
	}
	if written == nil {
		return nil, errors.New("the node ended before the file was whole")
	}
	return written, f.Sync()
}

// checkSaved reads the file back and compares it with what the node says that it wrote.
func checkSaved(ctx context.Context, path string, w *adminv1.WrittenSnapshot) error {
	s, err := backup.OpenFile(path)
	if err != nil {
		return err
	}
	err = s.Verify(ctx, nil)
	if err == nil && string(s.SHA256()) != string(w.GetSha256()) {
		err = errors.New("it is not what the node wrote")
	}
	return errors.Join(err, s.Close())
}

// giveUp retires a snapshot that came to nothing; the node does too, when it notices.
func giveUp(ctx context.Context, c *client, id string) error {
	if id == "" {
		return nil
	}
	_, err := call(context.WithoutCancel(ctx), func(ctx context.Context) (*adminv1.RetireSnapshotResponse, error) {
		return c.snapshots.RetireSnapshot(ctx, &adminv1.RetireSnapshotRequest{Id: id, Release: true})
	})
	if err != nil && exitCode(err) != exitNotFound {
		return fmt.Errorf("give snapshot %s up (pontoon snapshot release %s does): %w", id, id, err)
	}
	return nil
}

func syncDirectory(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
