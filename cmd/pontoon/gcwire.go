package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/pontoon-registry/pontoon/api"
	"github.com/pontoon-registry/pontoon/cluster"
	"github.com/pontoon-registry/pontoon/cluster/gc"
	"github.com/pontoon-registry/pontoon/meta"
	adminv1 "github.com/pontoon-registry/pontoon/proto/pontoon/admin/v1"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// forgetting is this node's part in garbage collection: the collector that runs while it leads, the owner mark, and
// what it has seen of both, for status and metrics.
type forgetting struct {
	cfg       GCConfig
	ledger    meta.Ledger
	store     *store
	mark      *heldMark
	collector *gc.Collector
	// scratch is a folder with room for as much as the state has.
	scratch string
	log     *slog.Logger

	// seen is what the last look found; never nil.
	seen atomic.Pointer[storeSeen]
}

// storeSeen is what the last looks found beside the mark. Immutable.
type storeSeen struct {
	// findings are of the last look at the bucket.
	findings []finding
	// cycles: running and last were read.
	cycles        bool
	running, last *metav1.Cycle
}

// finding is a setting of the bucket that stands against the registry; see s3.Finding.
type finding struct {
	name  string
	grave bool
	text  string
}

// gcWatch is gc.Watcher over the server's metrics.
type gcWatch struct{ m *api.Metrics }

// Running shows the phase.
func (w gcWatch) Running(phase metav1.CyclePhase) { w.m.Collecting(phase) }

// Ended counts the cycle.
func (w gcWatch) Ended(cycle *metav1.Cycle) { w.m.Collected(cycle) }

// newForgetting wires collector, mark and metrics.
func newForgetting(c *Config, ledger meta.Ledger, s *store, between *faults, m *api.Metrics, log *slog.Logger) (*forgetting, error) {
	f := &forgetting{cfg: c.GC, ledger: ledger, store: s, scratch: filepath.Join(c.Cluster.DataDir, scratchName), log: log}
	f.seen.Store(&storeSeen{})
	if err := emptyFolder(f.scratch); err != nil {
		return nil, err
	}
	f.mark = newHeldMark(s.objects, f.we, log)
	var err error
	f.collector, err = gc.New(gc.Config{
		Ledger: ledger, Store: between.store("gc", s.blobs), StoreName: s.name, Mark: f, Schedule: c.GC.Schedule, Untagged: c.GC.Untagged,
		DeletesPerSecond: int(c.GC.DeletesPerSecond), OrphanAge: c.GC.Orphans, UnsafeShort: c.GC.UnsafeShort, Watcher: gcWatch{m}, Log: log, Now: between.now(),
	})
	if err != nil {
		return nil, err
	}
	return f, m.WatchCollection(f.figures)
}

// scratchName is the folder in the data directory for what a verification computes; nothing in it outlives a process.
const scratchName = "scratch"

// emptyFolder makes a folder that holds nothing: what a process left behind that was killed goes.
func emptyFolder(path string) error {
	if err := errors.Join(os.RemoveAll(path), os.MkdirAll(path, 0o700)); err != nil {
		return fmt.Errorf("empty the folder %s: %w", path, err)
	}
	return nil
}

// duty is the collector as cluster leads it; none where gc.enabled is false.
func (f *forgetting) duty(n *cluster.Node) {
	if !f.cfg.Enabled {
		f.log.Warn("gc.enabled is false: while this node leads, nothing is collected and no space is freed")
		return
	}
	n.Lead(cluster.Duty{Name: "gc", Run: func(ctx context.Context, _ cluster.Leadership) error { return f.collector.Run(ctx) }})
}

// Raise is gc.Mark's.
func (f *forgetting) Raise(ctx context.Context, sweptThrough uint64) error {
	err := f.mark.Raise(ctx, sweptThrough)
	if errors.Is(err, errNotOwner) {
		return fmt.Errorf("%w: %w", gc.ErrNotOwner, err)
	}
	return err
}

// we is what the mark must say to be ours (G9).
func (f *forgetting) we(ctx context.Context) (ownership, error) {
	system, err := f.system(ctx)
	return ownershipOf(system), err
}

func (f *forgetting) system(ctx context.Context) (system *metav1.System, err error) {
	err = f.ledger.View(ctx, meta.Read{}, func(v *meta.View) error {
		system, err = v.System()
		return err
	})
	return system, err
}

// owned answers nil where a layer that is missing is really lost (B7): the store is this cluster's, or that of the cluster
// which it was restored from. A restored one that has not adopted the store still reads its layers there.
func (f *forgetting) owned(ctx context.Context) error {
	system, err := f.system(ctx)
	if err != nil {
		return err
	}
	return f.mark.holds(ctx, system.GetClusterId(), system.GetRestored().GetClusterId())
}

// figures are what a scrape shows.
func (f *forgetting) figures() api.CollectionFigures {
	s := f.seen.Load()
	out := api.CollectionFigures{Cycles: s.cycles, Kept: s.kept(), Findings: len(s.findings)}
	for _, found := range s.findings {
		if found.grave {
			out.Grave++
		}
	}
	if mark := f.mark.seen.Load(); mark != nil {
		out.Looked, out.MarkHeld, out.SweptThrough = true, mark.held == nil, mark.ownership.SweptThrough
	}
	if ended := s.last.GetEnded(); ended != nil {
		out.LastEnded = time.Unix(0, ended.GetWallTime())
	}
	return out
}

// kept is what is condemned and waits, as the newest cycle knows it that has swept.
func (s *storeSeen) kept() *metav1.CycleKept {
	if s.running.GetPhase() >= metav1.CyclePhase_CYCLE_PHASE_ORPHANS {
		return s.running.GetKept()
	}
	return s.last.GetKept()
}

// status is what GetStatus shows; it asks nobody.
func (f *forgetting) status() *adminv1.StoreStatus {
	s := f.seen.Load()
	out := &adminv1.StoreStatus{Reclaimable: s.kept().GetBytes(), Findings: int32(len(s.findings))}
	if mark := f.mark.seen.Load(); mark != nil {
		out.Known, out.Owned, out.Problem = true, mark.held == nil, mark.problem()
	}
	if s.last.GetEnded() != nil {
		out.Collected, out.Outcome = timestamppb.New(time.Unix(0, s.last.GetEnded().GetWallTime())), outcomeText(s.last.GetOutcome())
	}
	return out
}

// Settings is admin.Collector's: it looks anew, and falls back on what was seen where the store does not answer in time.
func (f *forgetting) Settings(ctx context.Context, into *adminv1.GetCollectionResponse) {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	into.Enabled, into.Schedule, into.UnsafeShort = f.cfg.Enabled, f.cfg.Schedule, f.cfg.UnsafeShort
	mark, err := f.mark.look(ctx)
	switch seen := f.mark.seen.Load(); {
	case err == nil:
		into.Mark = markOf(mark)
	case seen != nil:
		into.Mark = markOf(*seen)
		into.Mark.Problem = fmt.Sprintf("the store does not answer now (%v); this was seen before", err)
	default:
		into.Mark = &adminv1.OwnerMark{Problem: fmt.Sprintf("not known: %v", err)}
	}
	found, err := f.store.inspect(ctx, f.cfg.Uploads)
	if err != nil {
		found = append(f.seen.Load().findings, finding{name: "unread", text: fmt.Sprintf("the settings of the bucket could not be read now: %v", err)})
	}
	into.Findings = findingsOf(found)
}

func markOf(s markSeen) *adminv1.OwnerMark {
	o := s.ownership
	return &adminv1.OwnerMark{Held: s.held == nil, Problem: s.problem(), Cluster: o.Cluster, Epoch: o.Epoch,
		Incarnation: o.Incarnation, SweptThrough: o.SweptThrough, Seen: timestamppb.New(s.at)}
}

func findingsOf(all []finding) (out []*adminv1.Finding) {
	for _, found := range all {
		out = append(out, &adminv1.Finding{Name: found.name, Grave: found.grave, Text: found.text})
	}
	return out
}
