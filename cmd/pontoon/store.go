package main

import (
	"context"
	"fmt"
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
	// check answers blobs.ErrUnavailable when nobody answers; any other error is for good.
	check func(context.Context) error
	close func() error
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
	var s *store
	var err error
	driver, calls := "fs", storeCalls
	if c.Storage.Driver == "s3" {
		driver, calls = "s3", int(c.Storage.S3.MaxCalls)
		s, err = openS3(ctx, c.Storage.S3)
	} else {
		s, err = openDirectory(ctx, c.Storage.Filesystem)
	}
	if err != nil {
		return nil, fmt.Errorf("open storage.%s: %w", c.Storage.Driver, err)
	}
	s.name = storeName
	s.blobs = blobs.Limit(blobs.Meter(s.blobs, storageMetrics{m, driver}), calls, storeWait)
	return s, nil
}

func openDirectory(ctx context.Context, c FilesystemConfig) (*store, error) {
	s, err := fs.Open(ctx, fs.Config{Root: c.RootDirectory})
	if err != nil {
		return nil, err
	}
	return &store{blobs: s, objects: s, where: "filesystem " + c.RootDirectory,
		check: func(context.Context) error { return nil }, close: s.Close}, nil
}

// storageMetrics is blobs.Observer over the server's metrics.
type storageMetrics struct {
	m      *api.Metrics
	driver string
}

// Observe counts a call to the store.
func (s storageMetrics) Observe(c blobs.Call) {
	s.m.ObserveStorage(s.driver, c.Action, c.Took, c.Bytes, c.Err)
}
