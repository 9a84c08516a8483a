package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"github.com/pontoon-registry/pontoon/api"
	"github.com/pontoon-registry/pontoon/cluster"
	"github.com/pontoon-registry/pontoon/cluster/backup"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// restoring is one `pontoon snapshot restore`.
type restoring struct {
	choice
	ifEmpty, acceptMissing bool
}

func newSnapshotRestore(a *app) *cobra.Command {
	r := restoring{}
	cmd := &cobra.Command{
		Use: "restore SRC", Short: "Build the first node of a new cluster from a snapshot, offline",
		Long: "Build the first node of a new cluster from a snapshot, in the empty data directory of this node, which does not run.\n" +
			"All other nodes join it with empty directories. " + sourceHelp + "\n" +
			"The new cluster has an id and an epoch of its own. It reads the layers that the old one stored, writes under its own\n" +
			"names, and deletes nothing from the store before `pontoon gc adopt`. The old cluster loses nothing by it, even if it runs.\n\n" +
			"It is refused when layers that the snapshot needs may have been deleted since. With --accept-missing each is looked for;\n" +
			"those that are gone are named, and marked lost: the next push of one brings it back.\n\n" +
			"Killed at any moment it leaves a directory on which no node starts; call it again.",
		Example: "  pontoon snapshot restore latest\n" +
			"  pontoon snapshot restore latest --to 10m              # as it was ten minutes ago\n" +
			"  pontoon snapshot restore s3://other-bucket --to 2026-11-26T09:30:00Z\n" +
			"  pontoon snapshot restore /mnt/pontoon.tar --if-empty   # in a start script: does nothing where a node lives",
		Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r.src = args[0]
			return a.restore(cmd.Context(), r)
		},
	}
	cmd.Flags().StringVar(&r.to, "to", "", "the moment: a log index, a time (RFC 3339), how long ago (10m), or latest, with all of the log. Default: that of NAME, else latest")
	cmd.Flags().StringVar(&r.cluster, "cluster", "", "whose snapshots, when there are those of several clusters")
	cmd.Flags().BoolVar(&r.ifEmpty, "if-empty", false, "do nothing, with success, when the data directory holds a node already")
	cmd.Flags().BoolVar(&r.acceptMissing, "accept-missing", false, "look for every layer, name those that are gone and mark them lost, and go on")
	return cmd
}

func (a *app) restore(ctx context.Context, r restoring) (err error) {
	c, err := loadConfig(a.config, a.host)
	if err != nil {
		return err
	}
	if err := cluster.HasState(c.Cluster.DataDir); errors.Is(err, cluster.ErrHasState) && !errors.Is(err, cluster.ErrUnclaimed) && r.ifEmpty {
		return a.leftAlone(err)
	} else if err != nil {
		return &codedError{exitConflict, err}
	}
	log := slog.New(slog.DiscardHandler)
	store, err := openStore(ctx, c.Config, api.NewMetrics())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.close()) }()
	from, err := a.choose(ctx, c.Config, r.choice)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	into, err := cluster.OpenRestoration(c.Cluster.DataDir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, into.Close()) }()
	done := &restored{from: from.Manifest()}
	if done.Loaded, err = from.load(ctx, into.Store(), a.meter()); err != nil {
		return err
	}
	if err := done.judge(ctx, store.mark(log), r.acceptMissing); err != nil {
		return err
	}
	if err := into.Found(time.Now()); err != nil {
		return err
	}
	if r.acceptMissing {
		if err := a.markMissing(ctx, into, store, done); err != nil {
			return err
		}
	}
	if done.system, err = into.Finish(); err != nil {
		return err
	}
	return a.showRestored(c.Config, done)
}

// leftAlone is the success of --if-empty.
func (a *app) leftAlone(why error) error {
	if a.json() {
		return a.showJSON(struct {
			Restored bool   `json:"restored"`
			Why      string `json:"why"`
		}{false, why.Error()})
	}
	_, err := fmt.Fprintf(a.out, "nothing was restored: %s\n", why)
	return err
}

// restored is what a restore has done so far.
type restored struct {
	*backup.Loaded
	from *backup.Manifest
	// system is the new cluster's row.
	system *metav1.System
	// unproven says why layers were looked for; missing are those that were not found.
	unproven string
	missing  []backup.Layer
}

// judge refuses a state whose layers may be gone, unless they are looked for. It only reads the mark.
func (d *restored) judge(ctx context.Context, m ownerMark, acceptMissing bool) error {
	o, _, err := m.read(ctx)
	marked := !errors.Is(err, errNoMark)
	if err != nil && marked {
		return fmt.Errorf("ask the store what was swept from it: %w", err)
	}
	d.unproven = lineageOf(o, marked, d.System, d.Index).unproven
	if d.unproven == "" || acceptMissing {
		return nil
	}
	return &codedError{exitConflict, fmt.Errorf("layers that this state needs may be gone from the store: %s. Restore to a later moment, or say --accept-missing: "+
		"every layer is looked for then, and those that are gone are named and marked lost", d.unproven)}
}

// lostAtOnce bounds the commands of one entry.
const lostAtOnce = 500

// markMissing looks for every layer, names those that are gone on standard error, and marks them lost.
func (a *app) markMissing(ctx context.Context, into *cluster.Restoration, s *store, d *restored) error {
	v, m := into.View(), a.meter()
	defer v.Close()
	defer m.end()
	var batch []*metav1.Command
	mark := func() (err error) {
		if len(batch) > 0 {
			err = into.Record(time.Now(), batch...)
		}
		batch = batch[:0]
		return err
	}
	looked := int64(0)
	err := backup.Layers(ctx, v, s.blobs, s.name, func(l backup.Layer) error {
		looked++
		m.draw("looking for layers", looked, 0, count)
		if l.Wrong == nil {
			return nil
		}
		d.missing = append(d.missing, l)
		batch = append(batch, &metav1.Command{Kind: &metav1.Command_MarkLost{MarkLost: &metav1.MarkLost{Digest: l.Digest.Bytes(), Store: l.GetStore(), Key: l.GetKey()}}})
		if len(batch) < lostAtOnce {
			return nil
		}
		return mark()
	})
	if err != nil {
		return err
	}
	return mark()
}

// missingLayer is a layer that is not as it should be, for JSON.
type missingLayer struct {
	Digest       string   `json:"digest"`
	Size         int64    `json:"size"`
	Key          string   `json:"key"`
	Wrong        string   `json:"wrong"`
	Repositories []string `json:"repositories"`
}

func missingOf(l backup.Layer) missingLayer {
	return missingLayer{l.Digest.String(), l.GetSize(), l.GetKey(), l.Wrong.Error(), l.Repositories}
}

// stateOf names a state for JSON.
type stateOf struct {
	Cluster     string    `json:"cluster"`
	Name        string    `json:"name"`
	Epoch       string    `json:"epoch"`
	Incarnation uint64    `json:"incarnation"`
	Index       uint64    `json:"index"`
	Time        time.Time `json:"time"`
	// Snapshot is the index of the snapshot, Replayed how many entries of the log were added.
	Snapshot uint64 `json:"snapshot"`
	Replayed int64  `json:"replayed"`
}

func stateFrom(l *backup.Loaded) stateOf {
	return stateOf{l.System.GetClusterId(), l.System.GetName(), l.System.GetEpoch(), l.System.GetIncarnation(), l.Index,
		time.Unix(0, l.WallTime).UTC(), l.Snapshot.Index, l.Replayed}
}

func (a *app) showRestored(c *Config, d *restored) error {
	if a.json() {
		out := struct {
			Restored bool           `json:"restored"`
			From     stateOf        `json:"from"`
			Cluster  string         `json:"cluster"`
			Epoch    string         `json:"epoch"`
			Missing  []missingLayer `json:"missing"`
		}{true, stateFrom(d.Loaded), d.system.GetClusterId(), d.system.GetEpoch(), []missingLayer{}}
		for _, l := range d.missing {
			out.Missing = append(out.Missing, missingOf(l))
		}
		return a.showJSON(out)
	}
	return a.write(func(w io.Writer) {
		_, _ = fmt.Fprintf(w, "Restored cluster %s as it was at index %d, %s (snapshot of index %d, %d log entries behind it).\n"+
			"It is cluster %s now, with this node as its only voter.\n", d.from.ClusterID, d.Index, stamp(d.WallTime), d.from.Index, d.Replayed, d.system.GetClusterId())
		describeMissing(w, d)
		nextSteps(w, c, d)
	})
}

func describeMissing(w io.Writer, d *restored) {
	if d.unproven != "" {
		_, _ = fmt.Fprintf(w, "\nThe store was searched for every layer (%s): %d are gone and marked lost.\n", d.unproven, len(d.missing))
	}
	for _, l := range d.missing {
		_, _ = fmt.Fprintf(w, "  %s  %s  %s: %v\n", l.Digest, size(l.GetSize()), listed(l.Repositories), l.Wrong)
	}
}

func nextSteps(w io.Writer, c *Config, d *restored) {
	_, _ = fmt.Fprintf(w, "\nWhat to do next:\n"+
		"  1. Start this node: pontoon serve. `pontoon status` says when it is ready; `pontoon repo list` shows what is there.\n"+
		"  2. Empty the data directories of all other nodes and start them with cluster.join set to this one: they join as new nodes.\n"+
		"  3. Nothing is deleted from the store yet. When the old cluster is gone for good, and this is the right moment:\n"+
		"     pontoon gc adopt --from %s\n"+
		"     What the old one wrote and is deleted here goes with --forget-epoch %s, later: there is no way back from that.\n"+
		"     Wrong moment? Stop, empty the data directories and restore to another: nothing is lost before step 3.\n", d.from.ClusterID, d.from.Epoch)
	if c.Cluster.ID != "" && c.Cluster.ID != d.system.GetClusterId() {
		_, _ = fmt.Fprintf(w, "\nThe configuration says cluster.id: %s. Set it to %s, or take it out, on all nodes, or none starts.\n", c.Cluster.ID, d.system.GetClusterId())
	}
}

// stamp is a wall time of a state for people.
func stamp(wall int64) string { return time.Unix(0, wall).UTC().Format(time.RFC3339) }
