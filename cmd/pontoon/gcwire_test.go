package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pontoon-registry/pontoon/api"
	"github.com/pontoon-registry/pontoon/blobs"
	"github.com/pontoon-registry/pontoon/blobs/mem"
	"github.com/pontoon-registry/pontoon/cluster/gc"
	"github.com/pontoon-registry/pontoon/meta"
	"github.com/pontoon-registry/pontoon/meta/kv"
	adminv1 "github.com/pontoon-registry/pontoon/proto/pontoon/admin/v1"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// forgetful is a forgetting over the real rules and a store in memory, whose cluster is "solo".
type forgetful struct {
	*forgetting
	solo *meta.Solo
	mem  *mem.Store
	log  *strings.Builder
	// down makes the store not answer; found are the settings of its bucket.
	down  atomic.Bool
	found []finding
}

// shaky is the objects of a store that may be down.
type shaky struct {
	blobs.Objects
	down *atomic.Bool
}

func (s shaky) Get(ctx context.Context, name string) ([]byte, string, error) {
	if s.down.Load() {
		return nil, "", blobs.ErrUnavailable
	}
	return s.Objects.Get(ctx, name)
}

func newForgetful(t *testing.T) *forgetful {
	t.Helper()
	state, err := kv.OpenMemory()
	if err != nil {
		t.Fatal(err)
	}
	f := &forgetful{mem: mem.New(0), log: &strings.Builder{}}
	if f.solo, err = meta.NewSolo(state, func() int64 { return time.Now().UnixNano() }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(f.solo.Close(), state.Close()); err != nil {
			t.Error(err)
		}
	})
	c := mustParse(t, "").Config
	c.Cluster.DataDir = t.TempDir()
	s := &store{blobs: f.mem, objects: shaky{f.mem, &f.down}, name: storeName, inspect: func(context.Context, time.Duration) ([]finding, error) {
		if f.down.Load() {
			return nil, blobs.ErrUnavailable
		}
		return f.found, nil
	}}
	f.forgetting, err = newForgetting(c, f.solo, s, nil, api.NewMetrics(), slog.New(slog.NewTextHandler(f.log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// whose makes the store that cluster's.
func (f *forgetful) whose(t *testing.T, cluster, epoch string) {
	t.Helper()
	m := ownerMark{objects: f.mem, log: slog.New(slog.DiscardHandler)}
	if _, version, err := m.read(t.Context()); err == nil {
		_, err = m.replace(t.Context(), ownership{Cluster: cluster, Epoch: epoch, Incarnation: 1}, version)
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	if err := m.Claim(t.Context(), cluster, epoch); err != nil {
		t.Fatal(err)
	}
}

func (f *forgetful) settings(t *testing.T) *adminv1.GetCollectionResponse {
	t.Helper()
	out := &adminv1.GetCollectionResponse{}
	f.Settings(t.Context(), out)
	return out
}

func TestALostMarkIsSaidOnceLoudlyAndEverywhere(t *testing.T) {
	f := newForgetful(t)
	if s := f.status(); s.GetKnown() || s.GetProblem() != "" {
		t.Errorf("before a look: %v", s)
	}
	if fig := f.figures(); fig.Looked {
		t.Errorf("before a look: %+v", fig)
	}
	for step, want := range []struct {
		cluster string
		loud    int
		held    bool
		problem string
	}{{"", 1, false, "no owner mark"}, {"", 1, false, "pontoon gc adopt"}, {"other", 2, false, "belongs to cluster other"},
		{"other", 2, false, "pontoon gc adopt --from other"}, {"solo", 2, true, ""}, {"other", 3, false, "belongs to cluster other"}} {
		if want.cluster != "" {
			f.whose(t, want.cluster, want.cluster)
		}
		if !f.lookAtMark(t.Context()) {
			t.Fatal("the store does not answer")
		}
		if got := strings.Count(f.log.String(), "level=ERROR msg=\"NOTHING IS DELETED"); got != want.loud {
			t.Errorf("step %d: said %d times, expected %d:\n%s", step, got, want.loud, f.log)
		}
		s, fig, full := f.status(), f.figures(), f.settings(t).GetMark()
		if !s.GetKnown() || s.GetOwned() != want.held || fig.MarkHeld != want.held || !fig.Looked || full.GetHeld() != want.held ||
			!strings.Contains(s.GetProblem(), want.problem) || full.GetProblem() != s.GetProblem() || (want.problem == "") != (s.GetProblem() == "") {
			t.Errorf("step %d: status %v, figures %+v, settings %v", step, s, fig, full)
		}
		if err := f.Raise(t.Context(), 0); (err == nil) != want.held || err != nil && !errors.Is(err, gc.ErrNotOwner) {
			t.Errorf("step %d: the collector is told %v", step, err)
		}
	}
	f.down.Store(true)
	if f.lookAtMark(t.Context()) {
		t.Error("a store that is down was looked at")
	}
	if m := f.settings(t).GetMark(); m.GetCluster() != "other" || !strings.Contains(m.GetProblem(), "does not answer now") {
		t.Errorf("down: settings say %v", m)
	}
}

func TestFindingsAreSaidOnceAndGraveOnesLoudly(t *testing.T) {
	f := newForgetful(t)
	f.found = []finding{{"versioning", false, "keeps versions"}, {"expiration", true, "eats layers"}}
	seen := storeSeen{}
	for range 2 {
		if !f.lookAtBucket(t.Context(), &seen) {
			t.Fatal("not looked at")
		}
	}
	f.seen.Store(&seen)
	if log := f.log.String(); strings.Count(log, "keeps versions") != 1 || strings.Count(log, "level=ERROR msg=\"the bucket is DANGEROUS for a registry: eats layers") != 1 {
		t.Errorf("said\n%s", log)
	}
	if fig := f.figures(); fig.Findings != 2 || fig.Grave != 1 || f.status().GetFindings() != 2 {
		t.Errorf("figures %+v", fig)
	}
	if got := f.settings(t).GetFindings(); len(got) != 2 || !got[1].GetGrave() || got[1].GetText() != "eats layers" {
		t.Errorf("settings %v", got)
	}
	f.down.Store(true)
	if f.lookAtBucket(t.Context(), &seen) || len(seen.findings) != 2 {
		t.Error("what was found is forgotten while the store is down")
	}
	if got := f.settings(t).GetFindings(); len(got) != 3 || got[2].GetName() != "unread" {
		t.Errorf("down: settings %v", got)
	}
}

func TestWatchingSeesCyclesAndEnds(t *testing.T) {
	f := newForgetful(t)
	f.whose(t, "solo", "solo")
	run := func(c *metav1.Command) uint64 {
		t.Helper()
		res, err := f.solo.Propose(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		return res.GetIndex()
	}
	id := run(&metav1.Command{Kind: &metav1.Command_BeginCycle{BeginCycle: &metav1.BeginCycle{Trigger: metav1.CycleTrigger_CYCLE_TRIGGER_SCHEDULE}}})
	run(&metav1.Command{Kind: &metav1.Command_AdvanceCycle{AdvanceCycle: &metav1.AdvanceCycle{
		Cycle: id, Kept: &metav1.CycleKept{Keys: 2, Bytes: 77}, Outcome: metav1.CycleOutcome_CYCLE_OUTCOME_TROUBLED}}})
	ctx, cancel := context.WithCancel(t.Context())
	watched := make(chan error, 1)
	go func() { watched <- f.watch(ctx) }()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(time.Minute); f.status().GetCollected() == nil && time.Now().Before(end); { // the first look is at once
		select {
		case err := <-watched:
			t.Fatalf("it ended: %v", err)
		case <-tick.C:
		}
	}
	cancel()
	if err := <-watched; err != nil {
		t.Error(err)
	}
	if s := f.status(); s.GetReclaimable() != 77 || s.GetOutcome() != "troubled" || !s.GetOwned() {
		t.Errorf("status %v", s)
	}
	if fig := f.figures(); !fig.Cycles || fig.Kept.GetKeys() != 2 || time.Since(fig.LastEnded) > time.Minute {
		t.Errorf("figures %+v", fig)
	}
}

func TestLayersCountAsLostOnlyInAStoreThatIsOursOrWasOurParents(t *testing.T) {
	f := newForgetful(t)
	if err := f.owned(t.Context()); err == nil {
		t.Error("without a mark: owned")
	}
	refused := func(when string) {
		t.Helper()
		err := f.Verify(t.Context(), true, nil, func(*adminv1.VerifyStoreResponse) error { return nil })
		if meta.KindOf(err) != metav1.Kind_KIND_UNSUPPORTED || !strings.Contains(err.Error(), "no layer of this store counts as lost") {
			t.Errorf("%s: got %v", when, err)
		}
	}
	refused("without a mark")
	f.whose(t, "other", "other")
	refused("another's store")
	if err := f.mark.holds(t.Context(), "solo", "other"); err != nil {
		t.Errorf("restored from the owner: %v", err)
	}
	if err := f.mark.holds(t.Context(), "solo", ""); err == nil {
		t.Error("restored from nobody: owned")
	}
	f.whose(t, "solo", "solo")
	if err := f.owned(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestAMarkMadeAnewSaysAllThatMayBeSwept(t *testing.T) {
	f := newForgetful(t)
	floor := func() uint64 {
		t.Helper()
		n, err := f.sweptFloor(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	var index uint64
	if err := f.solo.View(t.Context(), meta.Read{}, func(v *meta.View) error { index = v.Index(); return nil }); err != nil {
		t.Fatal(err)
	}
	if got := floor(); got != index {
		t.Errorf("without a backup: %d, expected %d", got, index)
	}
	res, err := f.solo.Propose(t.Context(), &metav1.Command{Kind: &metav1.Command_OpenBackup{OpenBackup: &metav1.OpenBackup{Id: strings.Repeat("a", 32), Place: "backup"}}})
	if err != nil {
		t.Fatal(err)
	}
	if got := floor(); got != res.GetIndex()-1 {
		t.Errorf("with a backup at %d: %d", res.GetIndex(), got)
	}
}

func TestWhatAVerificationLeftBehindIsRemovedAtTheNextStart(t *testing.T) {
	path := t.TempDir() + "/scratch"
	if err := os.MkdirAll(path+"/pontoon-verify-1/x", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := emptyFolder(path); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(path); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	if err := emptyFolder("/dev/null/x"); err == nil {
		t.Error("a folder that cannot be made is no error")
	}
}

func TestMomentsArePastAndManyForms(t *testing.T) {
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"now": now, "0s": now, "72h": now.Add(-72 * time.Hour), "2026-11-26": now.Add(-12 * time.Hour), "2026-11-26T11:00:00+01:00": now.Add(-2 * time.Hour),
	} {
		if got, err := parseMoment(text, now); err != nil || !got.Equal(want) {
			t.Errorf("%s: got %v, %v", text, got, err)
		}
	}
	for _, bad := range []string{"", "-1h", "yesterday", "2026-11-27", "26.11.2026", "2026-11-26 11:00"} {
		if got, err := parseMoment(bad, now); err == nil {
			t.Errorf("%q: got %v", bad, got)
		}
	}
}
