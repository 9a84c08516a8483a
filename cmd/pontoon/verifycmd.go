package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/spf13/cobra"

	"github.com/pontoon-registry/pontoon/api"
	"github.com/pontoon-registry/pontoon/cluster/backup"
)

// verifying is one `pontoon snapshot verify`.
type verifying struct {
	choice
	blobs, deep bool
}

func newSnapshotVerify(a *app) *cobra.Command {
	v := verifying{}
	cmd := &cobra.Command{
		Use: "verify SRC", Short: "Read a snapshot whole and check all that can be checked, without a cluster",
		Long: "Read every byte of a snapshot, and of the log behind it up to the moment, compare all sums, rebuild the state and compare its\n" +
			"hash. --blobs compares each layer that the state needs with what the store lists; --deep reads them all, which takes as\n" +
			"long as pulling everything once. It only reads. " + sourceHelp + "\n" +
			"The state is unpacked below $TMPDIR and removed again. Exit code 1: something is wrong, and is named.",
		Example: "  pontoon snapshot verify latest\n  pontoon snapshot verify latest --blobs -o json",
		Args:    exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			v.src = args[0]
			return a.verify(cmd.Context(), v)
		},
	}
	cmd.Flags().StringVar(&v.to, "to", "", "the moment, as in restore. Default: that of NAME, else latest")
	cmd.Flags().StringVar(&v.cluster, "cluster", "", "whose snapshots, when there are those of several clusters")
	cmd.Flags().BoolVar(&v.blobs, "blobs", false, "look for each layer in the store, and compare its size")
	cmd.Flags().BoolVar(&v.deep, "deep", false, "read each layer, and compare its digest")
	return cmd
}

// verification is what was found.
type verification struct {
	State stateOf `json:"state"`
	// Layers and Bytes are those that were compared; -1 when none were asked for.
	Layers int64          `json:"layers"`
	Bytes  int64          `json:"bytes"`
	Wrong  []missingLayer `json:"wrong"`
}

func (a *app) verify(ctx context.Context, what verifying) (err error) {
	c, err := loadConfig(a.config, a.host)
	if err != nil {
		return err
	}
	l, err := a.look(ctx, c.Config, what.choice)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	found := &verification{State: stateFrom(l.Loaded), Layers: -1, Bytes: -1, Wrong: []missingLayer{}}
	if what.blobs || what.deep {
		if err := a.verifyLayers(ctx, c.Config, l, what.deep, found); err != nil {
			return err
		}
	}
	if a.json() {
		err = a.showJSON(found)
	} else {
		err = a.write(func(w io.Writer) { found.describe(w, l.Loaded) })
	}
	if err == nil && len(found.Wrong) > 0 {
		return &codedError{exitFailure, fmt.Errorf("%d layers are not as they should be", len(found.Wrong))}
	}
	return err
}

func (a *app) verifyLayers(ctx context.Context, c *Config, l *looking, deep bool, found *verification) (err error) {
	s, err := openStore(ctx, c, api.NewMetrics())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	m := a.meter()
	defer m.end()
	found.Layers, found.Bytes = 0, 0
	each := func(l backup.Layer) error {
		found.Layers++
		found.Bytes += l.GetSize()
		if l.Wrong != nil {
			found.Wrong = append(found.Wrong, missingOf(l))
		}
		if !deep {
			m.draw("looking for layers", found.Layers, 0, count)
		}
		return nil
	}
	if !deep {
		v := l.View()
		defer v.Close()
		return backup.Layers(ctx, v, s.blobs, s.name, each)
	}
	var read atomic.Int64
	return backup.DeepLayers(ctx, l.State, s.blobs, s.name, each, func(n int64) { m.draw("reading layers", read.Add(n), 0, size) })
}

func (f *verification) describe(w io.Writer, l *backup.Loaded) {
	_, _ = fmt.Fprintf(w, "whole: cluster %s at index %d, %s (snapshot of index %d, %d log entries behind it)\n",
		f.State.Cluster, f.State.Index, stamp(l.WallTime), f.State.Snapshot, f.State.Replayed)
	if f.Layers >= 0 {
		_, _ = fmt.Fprintf(w, "layers: %d, %s, %d of them not as they should be\n", f.Layers, size(f.Bytes), len(f.Wrong))
	}
	for _, x := range f.Wrong {
		_, _ = fmt.Fprintf(w, "  %s  %s  %s: %s\n", x.Digest, size(x.Size), listed(x.Repositories), x.Wrong)
	}
}
