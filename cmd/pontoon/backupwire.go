package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"

	"github.com/pontoon-registry/pontoon/api"
	"github.com/pontoon-registry/pontoon/blobs"
	"github.com/pontoon-registry/pontoon/blobs/fs"
	"github.com/pontoon-registry/pontoon/blobs/s3"
	"github.com/pontoon-registry/pontoon/cluster"
	"github.com/pontoon-registry/pontoon/cluster/backup"
	"github.com/pontoon-registry/pontoon/meta"
	adminv1 "github.com/pontoon-registry/pontoon/proto/pontoon/admin/v1"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// remembering is this node's part in backups: the keeper that runs while it leads, and the place they go to.
type remembering struct {
	keeper *backup.Keeper
	close  func() error
}

// newRemembering opens the place of backups. owns proves that the layers are this cluster's (G9): a copy of it that was
// recovered or restored elsewhere is another life, and must not remove what this one needs. A copy of all disks that goes
// on as it was has the same life, and is not told apart.
func newRemembering(ctx context.Context, c *Config, n *cluster.Node, ledger meta.Ledger, owns func(context.Context) error,
	f *faults, m *api.Metrics, log *slog.Logger) (*remembering, error) {
	archive, where, shut, err := c.openBackupPlace(ctx, storageMetrics{m, "backup"})
	if err != nil {
		return nil, err
	}
	r := &remembering{close: shut}
	cfg := backup.Config{
		Ledger: ledger, Schedule: c.Backup.Schedule, Keep: int(c.Backup.Keep), KeepFor: c.Backup.KeepFor,
		Release: releaseName(), Logger: log, Metrics: m, Now: f.now(),
	}
	if archive != nil {
		cfg.Archive, cfg.Owns = f.archive(archive), owns
		log.Info("backups go to "+where, "schedule", c.Backup.Schedule, "log", c.Backup.Log)
	}
	if archive != nil && c.Backup.Log {
		cfg.Log = n
	}
	if r.keeper, err = backup.New(cfg); err != nil {
		return r, err
	}
	n.Lead(cluster.Duty{Name: "backup", Run: func(ctx context.Context, _ cluster.Leadership) error { return r.keeper.Run(ctx) }})
	return r, nil
}

// openBackupPlace opens where backups go, as configured: nil when there are none. A place that does not answer is no reason not
// to start: the duty says loudly that backups fail.
func (c *Config) openBackupPlace(ctx context.Context, w blobs.Watcher) (archive blobs.Archive, where string, shut func() error, err error) {
	b := c.Backup
	switch {
	case !b.Enabled:
		return nil, "", func() error { return nil }, nil
	case b.Directory == "" && b.S3.Bucket != "":
		s, err := s3.Open(ctx, b.S3.config())
		if err != nil {
			return nil, "", nil, fmt.Errorf("open the place of backups: %w", err)
		}
		return blobs.RetryArchive(s.Archive(), w), "s3 " + b.S3.RegionEndpoint + "/" + b.S3.Bucket, s.Close, nil
	}
	dir := orText(b.Directory, c.Storage.Filesystem.RootDirectory)
	s, err := fs.Open(ctx, fs.Config{Root: dir})
	if err != nil {
		return nil, "", nil, fmt.Errorf("open backup.directory: %w", err)
	}
	return blobs.RetryArchive(s.Archive(), w), "directory " + dir, s.Close, nil
}

// Request is admin.Backups'.
func (r *remembering) Request(ctx context.Context, by *metav1.Envelope, hold bool) (string, error) {
	return r.keeper.Request(ctx, by, hold)
}

// Read is admin.Backups'.
func (r *remembering) Read(ctx context.Context, by *metav1.Envelope, hold bool, opened func(string) error, w io.Writer) (*adminv1.WrittenSnapshot, error) {
	id, out, err := r.keeper.SaveFile(ctx, by, hold, opened, w)
	if err != nil {
		return nil, err
	}
	m := out.Manifest
	return &adminv1.WrittenSnapshot{Id: id, Index: m.Index, Term: m.Term, ClusterTime: m.ClusterTime, WallTime: m.WallTime,
		Size: out.Size, Sha256: out.SHA256}, nil
}
