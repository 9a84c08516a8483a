package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/pontoon-registry/pontoon/cluster"
	"github.com/pontoon-registry/pontoon/cluster/backup"
	"github.com/pontoon-registry/pontoon/meta"
	"github.com/pontoon-registry/pontoon/meta/kv"
)

// choice is how an operator names a state in an archive.
type choice struct {
	src, to, cluster string
}

// chosen is an opened snapshot and the moment that is wanted of it.
type chosen struct {
	*backup.Snapshot
	target backup.Target
	source *snapshotSource
}

// choose opens what a choice names. A snapshot that is named is meant as it is: the log behind it counts only up to --to,
// which is latest for all of it: so an older snapshot stands in for a damaged one, and nothing is lost by it.
func (a *app) choose(ctx context.Context, c *Config, what choice) (*chosen, error) {
	target, err := parseTarget(what.to, time.Now())
	if err != nil {
		return nil, err
	}
	source, err := openSource(ctx, c, what.src)
	if err != nil {
		return nil, coded(err)
	}
	snap, err := source.open(ctx, what.cluster, target)
	if err != nil {
		return nil, errors.Join(coded(err), source.close())
	}
	if source.sel.Name != "" && what.to == "" {
		target.Index = snap.Manifest().Index
	}
	return &chosen{Snapshot: snap, target: target, source: source}, nil
}

// Close lets go of the snapshot and its place.
func (c *chosen) Close() error { return errors.Join(c.Snapshot.Close(), c.source.close()) }

// load fills an empty store with the chosen state.
func (c *chosen) load(ctx context.Context, store *kv.Store, m *meter) (*backup.Loaded, error) {
	defer m.end()
	loaded, err := backup.Load(ctx, c.Snapshot, store, c.target, func(p backup.Progress) {
		if p.Entries > 0 {
			m.draw("replaying the log, entries", p.Entries, 0, count)
			return
		}
		m.draw("reading the snapshot", p.Rows, p.Size, size)
	})
	return loaded, coded(err)
}

// coded gives errors of an archive their exit codes.
func coded(err error) error {
	if errors.Is(err, backup.ErrNoSnapshot) || errors.Is(err, backup.ErrUnreached) || errors.Is(err, os.ErrNotExist) {
		return &codedError{exitNotFound, err}
	}
	return err
}

// looking is a state that was loaded to be looked at, in a folder for the time being.
type looking struct {
	*backup.Loaded
	*meta.State
	store *kv.Store
	dir   string
}

// look loads a choice into a folder below $TMPDIR. The state takes the disk there that it takes on a node.
func (a *app) look(ctx context.Context, c *Config, what choice) (_ *looking, err error) {
	from, err := a.choose(ctx, c, what)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	return a.lookAt(ctx, from)
}

func (a *app) lookAt(ctx context.Context, from *chosen) (_ *looking, err error) {
	l := &looking{}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.Close())
		}
	}()
	if l.dir, err = os.MkdirTemp("", "pontoon-snapshot-"); err != nil {
		return nil, fmt.Errorf("make a folder for the state ($TMPDIR says where): %w", err)
	}
	if l.store, err = kv.Open(l.dir, kv.Options{Room: cluster.Room(l.dir)}); err != nil {
		return nil, err
	}
	if l.Loaded, err = from.load(ctx, l.store, a.meter()); err != nil {
		return nil, err
	}
	l.State, err = meta.Open(l.store)
	return l, err
}

// Close removes the folder.
func (l *looking) Close() error {
	var errs []error
	if l.State != nil {
		errs = append(errs, l.State.Close())
	}
	if l.store != nil {
		errs = append(errs, l.store.Close())
	}
	if l.dir != "" {
		errs = append(errs, os.RemoveAll(l.dir))
	}
	return errors.Join(errs...)
}
