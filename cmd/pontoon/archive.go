package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/pontoon-registry/pontoon/blobs"
	"github.com/pontoon-registry/pontoon/blobs/fs"
	"github.com/pontoon-registry/pontoon/blobs/s3"
)

// openBackups opens the configured place of backups, also one to which nothing is written now.
func openBackups(ctx context.Context, c *Config) (blobs.Archive, func() error, error) {
	if c.Backup.Directory == "" && c.Backup.S3.Bucket != "" {
		return openBucketArchive(ctx, c.Backup.S3)
	}
	return openDirectoryArchive(ctx, orText(c.Backup.Directory, c.Storage.Filesystem.RootDirectory))
}

// openBucketArchive opens a bucket, which must be there.
func openBucketArchive(ctx context.Context, c S3Config) (blobs.Archive, func() error, error) {
	s, err := s3.Open(ctx, c.config())
	if err != nil {
		return nil, nil, err
	}
	if err := s.Check(ctx); err != nil {
		return nil, nil, errors.Join(err, s.Close())
	}
	return blobs.RetryArchive(s.Archive(), unwatched{}), s.Close, nil
}

func openDirectoryArchive(ctx context.Context, dir string) (blobs.Archive, func() error, error) {
	s, err := fs.Open(ctx, fs.Config{Root: dir})
	if err != nil {
		return nil, nil, fmt.Errorf("open directory of backups: %w", err)
	}
	return s.Archive(), s.Close, nil
}

// unwatched is blobs.Watcher for verbs that count nothing.
type unwatched struct{}

func (unwatched) Refused(string)  {}
func (unwatched) Repeated(string) {}
func (unwatched) Opened(bool)     {}
