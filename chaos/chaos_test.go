package chaos

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pontoon-registry/pontoon/chaos/check"
)

var (
	chaosDuration = flag.Duration("chaos.duration", 0, "how long TestChaos does harm; 0: about 25 s with the few faults of make check")
	chaosSeed     = flag.Uint64("chaos.seed", 0, "of the faults of TestChaos; 0: a new one, which is printed")
	chaosDir      = flag.String("chaos.dir", "", "folder for what a run of TestChaos leaves; empty: one in the folder for temporary files, with the seed in its name")
	chaosFaults   = flag.String("chaos.faults", "", "only these faults, with commas between; empty: all that have a weight")
	chaosBalanced = flag.Bool("chaos.balanced", false, "measure availability: no client of TestChaos asks a node itself, all go through HAProxy, and no two faults overlap")
	chaosScale    = flag.Float64("chaos.scale", 2, "what the ten seconds are multiplied by in which a cluster is healthy after its faults: servers, clients and checkers share a machine")
)

const (
	// healthy is how long after the last fault everything works again (I11).
	healthy = 10 * time.Second
	// calmTime is how long nothing is done to a healthy cluster before the next storm.
	calmTime = 3 * time.Second
	// quickTime and quickFaults are what make check runs.
	quickTime   = 15 * time.Second
	quickAtMost = 3 * time.Minute
	quickFaults = "kill-leader,pause-leader,kill-node"
	// mostOperations bounds what a history keeps at a time.
	mostOperations = 500_000
)

// TestChaos does harm to a cluster while clients use it in all ways that there are, and holds what they saw against what the
// registry promises. See doc.go for what it does and how to repeat a run.
func TestChaos(t *testing.T) {
	r := newChaos(t)
	defer r.leave()
	r.begin()
	// A quick run goes on until it shows something: on a slow machine that takes longer.
	for r.ctx.Err() == nil && (time.Since(r.began) < r.during || r.quick && !r.shown() && time.Since(r.began) < quickAtMost) {
		s := r.nemesis.plan.next()
		r.nemesis.storm(r.ctx, s)
		r.calm()
	}
	r.end()
	r.finale()
}

// chaos is one run.
type chaos struct {
	t       testing.TB
	a       *arena
	c       *guests
	nemesis *nemesis
	watcher *watcher
	gc      *collector
	seasons *seasons
	shelf   *shelf
	ctx     context.Context // of the guests
	stop    context.CancelFunc
	giveUp  context.CancelFunc // of who deletes what the guests wrote
	group   sync.WaitGroup
	sweeps  sync.WaitGroup
	during  time.Duration
	quick   bool
	began   time.Time
	took    time.Duration // with traffic
	ended   bool          // as it should
	healed  []time.Duration
	history *os.File
	effects []check.Effect // at the end (I9)
	trimmed bool           // their oldest
}

func newChaos(t *testing.T) *chaos {
	t.Helper()
	r := &chaos{t: t, during: *chaosDuration, quick: *chaosDuration == 0}
	names, given := *chaosFaults, *chaosSeed
	if r.quick {
		r.during = quickTime
		if names == "" {
			names = quickFaults
		}
	}
	if given == 0 {
		given = rand.Uint64N(1 << 32)
	}
	named := *chaosDir
	if r.quick && named == "" {
		named = scratch(t) // kept only where the test fails
	}
	verdict.ran, verdict.Verdict = true, check.Verdict{Seed: given, Void: []string{"it did not end"}}
	dir := runFolder(t, named, given)
	t.Logf("seed %d: -chaos.seed=%d -chaos.duration=%v does the same faults again; all that the run leaves is in %s", given, given, r.during, dir)
	kinds, err := chosen(faults(), names)
	if err != nil {
		t.Fatal(err)
	}
	for i := range kinds {
		kinds[i].alone = kinds[i].alone || *chaosBalanced
	}
	r.a = newArena(t, dir, given)
	if r.history, err = os.Create(filepath.Join(dir, "history.jsonl")); err != nil {
		t.Fatal(err)
	}
	h := check.NewHistory(r.history, given, mostOperations)
	r.c = &guests{a: r.a, history: h, judgement: check.NewJudgement()}
	r.nemesis = &nemesis{a: r.a, plan: newPlan(given, kinds), history: h, missed: map[string]int{}, kinds: map[string]int{}}
	r.shelf = newShelf()
	r.gc = &collector{c: r.c, binary: pontoon(t), failed: map[string]int{}}
	t.Cleanup(r.close) // before the processes end
	return r
}

// chosen are the faults of those names, or all.
func chosen(all []fault, names string) ([]fault, error) {
	if names == "" {
		return slices.DeleteFunc(all, func(f fault) bool { return f.weight == 0 }), nil
	}
	var kinds []fault
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(all, func(f fault) bool { return f.name == name })
		if i < 0 {
			return nil, fmt.Errorf("-chaos.faults: got %q, there is no such fault", name)
		}
		kind := all[i]
		kind.weight = max(1, kind.weight)
		kinds = append(kinds, kind)
	}
	return kinds, nil
}

// begin lets the guests in.
func (r *chaos) begin() {
	r.t.Helper()
	r.ctx, r.stop = context.WithCancel(context.Background())
	janitor := r.c.guest(0)
	fixed := small("fixed", 0)
	if !r.within(settling, func(ctx context.Context) bool {
		_, err := exchange(ctx, janitor.client, r.a.d.url(), request{method: http.MethodPut, path: "/v2/fixed/manifests/" + digestOf(fixed), header: typed(mediaManifest), body: fixed})
		return err == nil && janitor.pushBlob(ctx, "fixed", emptyConfig) && janitor.put(ctx, "fixed", fixed)
	}) {
		r.t.Fatal("the first push does not succeed")
	}
	r.watcher = newWatcher(r.c, "/v2/fixed/manifests/"+digestOf(fixed))
	first := newSeason(1)
	if !r.within(settling, func(ctx context.Context) bool { return first.open(ctx, janitor) }) {
		r.t.Fatal("the first season does not open")
	}
	r.seasons = &seasons{c: r.c, over: make(chan *season, seasonsUnjudged), judged: make(chan *season, seasonsUnjudged), janitor: janitor, now: first}
	r.began = time.Now()
	id := 0
	come := func(count int, what func(v *guest, i int)) {
		for i := range count {
			id++
			v := r.c.guest(id)
			r.group.Go(func() { defer v.leave(); what(v, i) })
		}
	}
	come(tagWorkers, func(v *guest, _ int) { r.seasons.work(r.ctx, v, tagPause, (*guest).tags) })
	come(setWorkers, func(v *guest, _ int) { r.seasons.work(r.ctx, v, tagPause, (*guest).sets) })
	come(lockWorkers, func(v *guest, _ int) { r.seasons.work(r.ctx, v, 4*tagPause, (*guest).locks) })
	come(imageWorkers, func(v *guest, i int) { v.owner(r.ctx, r.shelf, i) })
	come(imagePullers, func(v *guest, _ int) { v.puller(r.ctx, r.shelf) })
	come(2, func(v *guest, _ int) { v.lister(r.ctx, r.shelf) })
	come(1, func(v *guest, _ int) { v.referrer(r.ctx) })
	r.group.Go(func() { r.watcher.run(r.ctx) })
	r.group.Go(func() { r.gc.run(r.ctx) })
	r.group.Go(func() { r.seasons.turn(r.ctx) })
	r.sweeps.Go(r.seasons.judge)
	// Longer than the run: what was written is deleted when everything works again.
	ctx, giveUp := context.WithTimeout(context.Background(), r.during+20*time.Minute)
	r.giveUp = giveUp
	r.sweeps.Go(func() {
		defer giveUp()
		r.seasons.sweep(ctx)
	})
	pause(r.ctx, calmTime)
}

// shown says whether some of each load, and some fault, has come by: without it a run shows nothing.
func (r *chaos) shown() bool {
	if r.watcher == nil {
		return false
	}
	r.shelf.mu.Lock()
	count := r.shelf.count
	r.shelf.mu.Unlock()
	r.gc.mu.Lock()
	keys := r.gc.keys
	r.gc.mu.Unlock()
	r.watcher.mu.Lock()
	asked := r.watcher.asked
	r.watcher.mu.Unlock()
	return r.nemesis.done > 0 && count.pulls > 0 && count.again > 0 && keys > 0 && asked > 0
}

// put pushes a manifest by its digest.
func (v *guest) put(ctx context.Context, repo string, body []byte) bool {
	_, o := v.do(ctx, check.Operation{Class: check.PutManifest, Kind: "put", Repo: "anchors", Key: repo, Input: digestOf(body)},
		request{method: http.MethodPut, path: "/v2/" + repo + "/manifests/" + digestOf(body), header: typed(mediaManifest), body: body})
	return o.Status == http.StatusCreated
}

// within repeats until it holds, for a time.
func (r *chaos) within(during time.Duration, holds func(context.Context) bool) bool {
	ctx, cancel := context.WithTimeout(context.Background(), during)
	defer cancel()
	for ctx.Err() == nil {
		if holds(ctx) {
			return true
		}
		pause(ctx, 50*time.Millisecond)
	}
	return false
}

// calm demands that everything works again soon, with all faults healed, and leaves it alone for a moment (I11).
func (r *chaos) calm() {
	r.t.Helper()
	began, bound := time.Now(), time.Duration(float64(healthy)*(*chaosScale))
	var err error
	well := false
	for left := bound; !well && left > 0; left = bound - machine.took(began) {
		well = r.within(left, func(context.Context) bool { err = r.sound(); return err == nil })
	}
	if !well {
		r.c.violated("I11", "%v after the last fault was healed: %v", bound, err)
		if !r.within(settling, func(context.Context) bool { err = r.sound(); return err == nil }) {
			r.t.Fatalf("the cluster does not heal: %v", err)
		}
	}
	healed := machine.took(began)
	r.healed = append(r.healed, healed)
	for _, n := range r.a.d.nodes {
		r.watcher.recovered(check.Recovery{Node: n.name, Healthy: healed})
	}
	if !r.within(settling, func(context.Context) bool { err = r.spare(); return err == nil }) {
		r.c.violated("I11", "%v after it was healthy: %v", settling, err)
	}
	r.a.route()
	pause(r.ctx, calmTime)
}

// sound says what does not work: every node is ready, has applied what the others had, and takes a write.
func (r *chaos) sound() error {
	highest := uint64(0)
	for _, n := range r.a.d.nodes {
		if _, err := get("http://"+n.debug+"/readyz", time.Second); err != nil {
			return fmt.Errorf("%s is not ready: %w", n.name, err)
		}
		s, err := n.state()
		if err != nil {
			return err
		}
		highest = max(highest, s.Applied)
	}
	if _, err := r.a.leads(0); err != nil {
		return err
	}
	for i, n := range r.a.d.nodes {
		v := r.seasons.janitor
		body := small("calm "+n.name, int(time.Now().UnixNano()))
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		err := wanted(http.StatusCreated)(exchange(ctx, v.client, n.url(), request{method: http.MethodPut,
			path: fmt.Sprintf("/v2/fixed/manifests/calm%d", i), header: typed(mediaManifest), body: body}))
		if err == nil {
			err = wanted(http.StatusAccepted)(exchange(ctx, v.client, n.url(), request{method: http.MethodDelete, path: "/v2/fixed/manifests/" + digestOf(body)}))
		}
		cancel()
		if err != nil {
			return fmt.Errorf("write through %s: %w", n.name, err)
		}
		s, err := n.state()
		if err != nil {
			return err
		}
		if s.Applied < highest {
			return fmt.Errorf("%s has applied %d, another %d before", n.name, s.Applied, highest)
		}
	}
	return nil
}

// wanted makes an error of any other status.
func wanted(status int) func(answer, error) error {
	return func(a answer, err error) error {
		if err == nil && a.status != status {
			err = fmt.Errorf("answered %d, want %d: %.200s", a.status, status, a.body)
		}
		return err
	}
}

// spare says why no node may fail.
func (r *chaos) spare() error {
	for _, n := range r.a.d.nodes {
		tolerance, err := n.metric("pontoon_failure_tolerance")
		if err != nil {
			return err
		}
		if tolerance < 1 {
			return fmt.Errorf("%s says that no node may fail", n.name)
		}
	}
	return nil
}

// end sends the guests away.
func (r *chaos) end() {
	r.t.Helper()
	if r.stop == nil {
		return
	}
	r.stop()
	r.group.Wait()
	if r.took == 0 {
		r.took = time.Since(r.began)
	}
	r.sweeps.Wait()
}

// leave sends them away where the run failed on its way: before the processes end, which is none of the product's doing.
func (r *chaos) leave() {
	if !r.ended && r.giveUp != nil {
		r.giveUp()
	}
	r.end()
}
