package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/pontoon-registry/pontoon/api"
	"github.com/pontoon-registry/pontoon/blobs"
	"github.com/pontoon-registry/pontoon/blobs/fs"
)

// store is where the bytes are, as configured.
type store struct {
	blobs blobs.Store
	// objects is nil when the store has no conditional writes.
	objects blobs.Objects
	// name is how the ledger knows the store: rows hold it, so it never changes.
	name string
	// where is for people.
	where string
	// ready answers nil while the store answers, for people: readiness does not depend on it (design, 7).
	ready func(context.Context) error
	// check answers blobs.ErrUnavailable when nobody answers; any other error is for good.
	check func(context.Context) error
	// inspect answers which settings of the bucket stand against the registry; a directory has none.
	inspect func(ctx context.Context, uploads time.Duration) ([]finding, error)
	close   func() error
}

const (
	// storeName is the name of the one store that a registry has now.
	storeName = "main"
	// storeCalls is how many calls to a directory may be in flight, storeWait how long one more waits for its turn (B5).
	storeCalls = 512
	storeWait  = 10 * time.Second
)

// openStore opens the configured store, bounded and metered.
func openStore(ctx context.Context, c *Config, m *api.Metrics) (*store, error) {
	watch := storageMetrics{m, "fs"}
	if c.Storage.Driver == "s3" {
		watch.driver = "s3"
		return openS3(ctx, c.Storage.S3, watch)
	}
	return openDirectory(ctx, c.Storage.Filesystem, watch)
}

// mark is the owner mark in the store, which has objects.
func (s *store) mark(log *slog.Logger) ownerMark { return ownerMark{s.objects, log} }

// openDirectory has no breaker: a system call that hangs says nothing (see blobs).
func openDirectory(ctx context.Context, c FilesystemConfig, watch storageMetrics) (*store, error) {
	s, err := fs.Open(ctx, fs.Config{Root: c.RootDirectory})
	if err != nil {
		return nil, fmt.Errorf("open storage.filesystem: %w", err)
	}
	well := func(context.Context) error { return nil }
	limited := blobs.Limit(blobs.Meter(s, watch), storeCalls, storeWait, watch)
	return &store{
		blobs: blobs.Retry(limited, watch), objects: s, name: storeName, where: "filesystem " + c.RootDirectory,
		ready: well, check: well, close: s.Close,
		inspect: func(context.Context, time.Duration) ([]finding, error) { return nil, nil },
	}, nil
}

// storageMetrics is blobs.Observer and blobs.Watcher over the server's metrics.
type storageMetrics struct {
	m      *api.Metrics
	driver string
}

// Observe counts a call to the store.
func (s storageMetrics) Observe(c blobs.Call) {
	s.m.ObserveStorage(s.driver, c.Action, c.Took, c.Bytes, c.Err)
}

// Refused counts a call that the store was not asked.
func (s storageMetrics) Refused(why string) { s.m.StorageRefused(s.driver, why) }

// Repeated counts what was done again.
func (s storageMetrics) Repeated(action string) { s.m.StorageRepeated(s.driver, action) }

// Opened shows the breaker.
func (s storageMetrics) Opened(open bool) { s.m.StorageOpened(s.driver, open) }
