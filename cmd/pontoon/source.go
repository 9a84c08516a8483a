package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pontoon-registry/pontoon/blobs"
	"github.com/pontoon-registry/pontoon/cluster/backup"
)

// latestSource is the name of the newest snapshot in the configured place.
const latestSource = "latest"

// sourceHelp says in every verb what SRC may be.
const sourceHelp = "SRC is one of\n" +
	"  latest                    the newest snapshot in the configured place of backups, and the log behind it\n" +
	"  NAME                      one that `pontoon snapshot list` names, there\n" +
	"  s3://BUCKET[/PREFIX]      the newest in another bucket (prefix: its rootdirectory); all else as the configured one\n" +
	"  DIRECTORY                 the newest in a directory of backups\n" +
	"  FILE.tar                  a snapshot that was saved to a file\n" +
	"A bucket or directory may be followed by /pontoon-backup/CLUSTER[/INCARNATION[/full/SNAPSHOT]].\n"

// snapshotSource is a place of snapshots as an operator names it.
type snapshotSource struct {
	// file is the path of a snapshot's file; else archive has it.
	file    string
	archive blobs.Archive
	sel     backup.Selector
	close   func() error
}

// snapshotName is what `pontoon snapshot list` shows: a folder in the place of backups, or its last element.
var snapshotName = regexp.MustCompile(`^(pontoon-backup/.*/)?[0-9]{20}-[0-9a-zA-Z]+/?$`)

// openSource opens the place; it reads nothing of it yet.
func openSource(ctx context.Context, c *Config, src string) (*snapshotSource, error) {
	s := &snapshotSource{close: func() error { return nil }}
	var err error
	switch {
	case src == latestSource:
		s.archive, s.close, err = openBackups(ctx, c)
	case snapshotName.MatchString(src):
		if _, selected, ok := splitArchive(src); ok {
			s.sel = selected
		}
		s.sel.Name = src
		s.archive, s.close, err = openBackups(ctx, c)
	case strings.HasPrefix(src, "s3://"):
		s.archive, s.close, s.sel, err = openBucketSource(ctx, c, src)
	default:
		err = s.openPath(ctx, src)
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", src, err)
	}
	return s, nil
}

// openBucketSource opens s3://BUCKET/PREFIX with the keys of backup.s3 otherwise, which are those of storage.s3 unless they say more.
func openBucketSource(ctx context.Context, c *Config, src string) (blobs.Archive, func() error, backup.Selector, error) {
	u, err := url.Parse(src)
	if err != nil || u.Host == "" {
		return nil, nil, backup.Selector{}, &usageError{fmt.Sprintf("got %q, expected s3://BUCKET or s3://BUCKET/PREFIX", src)}
	}
	root, sel, _ := splitArchive(strings.Trim(u.Path, "/"))
	config := c.Backup.S3
	config.Bucket, config.RootDirectory = u.Host, root
	archive, shut, err := openBucketArchive(ctx, config)
	return archive, shut, sel, err
}

// openPath opens a file or a directory. It must be there: opening a store would make it.
func (s *snapshotSource) openPath(ctx context.Context, src string) error {
	root, sel, _ := splitArchive(filepath.ToSlash(src))
	info, err := os.Stat(src)
	switch {
	case err != nil:
		return err
	case !info.IsDir():
		s.file = src
		return nil
	}
	s.sel = sel
	s.archive, s.close, err = openDirectoryArchive(ctx, filepath.FromSlash(orText(root, ".")))
	return err
}

// splitArchive cuts a path where the names of backups begin.
func splitArchive(p string) (root string, sel backup.Selector, cut bool) {
	e := strings.Split(strings.TrimRight(p, "/"), "/")
	at := slices.Index(e, strings.TrimSuffix(backup.Prefix, "/"))
	if at < 0 {
		return p, sel, false
	}
	root = strings.Join(e[:at], "/")
	if root == "" && strings.HasPrefix(p, "/") {
		root = "/"
	}
	if rest := e[at+1:]; len(rest) > 0 {
		sel.ClusterID = rest[0]
		if len(rest) > 1 {
			sel.Incarnation, _ = strconv.ParseUint(rest[1], 10, 64) // 0 is any
		}
		if len(rest) > 3 {
			sel.Name = path.Join(e[at:]...)
		}
	}
	return root, sel, true
}

// open chooses the snapshot from which the target is reached. The caller closes it.
func (s *snapshotSource) open(ctx context.Context, clusterID string, to backup.Target) (*backup.Snapshot, error) {
	if s.file != "" {
		return backup.OpenFile(s.file)
	}
	sel := s.sel
	if clusterID != "" {
		sel.ClusterID = clusterID
	}
	sel.MaxIndex, sel.MaxWallTime = to.Index, to.WallTime
	snap, err := backup.OpenBucket(ctx, s.archive, sel)
	if errors.Is(err, backup.ErrNoSnapshot) {
		return nil, s.none(ctx, sel, to)
	}
	return snap, err
}

// none says what is there instead.
func (s *snapshotSource) none(ctx context.Context, sel backup.Selector, to backup.Target) error {
	all, err := backup.List(ctx, s.archive, sel.ClusterID)
	if err != nil {
		return err
	}
	all = slices.DeleteFunc(all, func(s backup.Stored) bool { return !s.Complete })
	if len(all) == 0 {
		return fmt.Errorf("%w: there is no complete snapshot", backup.ErrNoSnapshot)
	}
	first, err := backup.OpenStored(ctx, s.archive, all[0].Place)
	if err != nil {
		return err
	}
	defer func() { _ = first.Close() }() // nothing was written
	m := first.Manifest()
	return fmt.Errorf("%w for %s: there are %d, the oldest of index %d, %s, of cluster %s", backup.ErrNoSnapshot,
		to, len(all), m.Index, time.Unix(0, m.WallTime).UTC().Format(time.RFC3339), m.ClusterID)
}

// parseTarget reads --to: an index, a date, how long ago, or the last moment that there is.
func parseTarget(s string, now time.Time) (backup.Target, error) {
	if s == "" || s == latestSource {
		return backup.Target{}, nil
	}
	if index, err := strconv.ParseUint(s, 10, 64); err == nil && index > 0 {
		return backup.Target{Index: index}, nil
	}
	if ago, err := time.ParseDuration(s); err == nil && ago > 0 {
		return backup.Target{WallTime: now.Add(-ago).UnixNano()}, nil
	}
	if at, err := time.Parse(time.RFC3339, s); err == nil && at.Unix() > 0 {
		return backup.Target{WallTime: at.UnixNano()}, nil
	}
	return backup.Target{}, &usageError{fmt.Sprintf("--to: got %q, expected an index such as 48213, a time such as 2026-11-26T09:30:00Z, how long ago, such as 10m, or latest", s)}
}
