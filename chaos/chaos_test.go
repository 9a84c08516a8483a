package chaos

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
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
	quickFaults = "kill-leader,pause-leader,kill-node"
	// mostOperations bounds what a history keeps at a time.
	mostOperations = 500_000
)

// verdict is the last line of the test binary, once TestChaos ran in it.
var verdict struct {
	ran bool
	check.Verdict
}

// TestChaos does harm to a cluster while clients use it in all ways that there are, and holds what they saw against what the
// registry promises. See doc.go for what it does and how to repeat a run.
func TestChaos(t *testing.T) {
	r := newChaos(t)
	defer r.leave()
	r.begin()
	for r.ctx.Err() == nil && time.Since(r.began) < r.during {
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
	dir := runFolder(t, named, given)
	verdict.ran, verdict.Verdict = true, check.Verdict{Seed: given, Void: []string{"it did not end"}}
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
	if !r.within(30*time.Second, func(ctx context.Context) bool {
		_, err := exchange(ctx, janitor.client, r.a.d.url(), request{method: http.MethodPut, path: "/v2/fixed/manifests/" + digestOf(fixed), header: typed(mediaManifest), body: fixed})
		return err == nil && janitor.pushBlob(ctx, "fixed", emptyConfig) && janitor.put(ctx, "fixed", fixed)
	}) {
		r.t.Fatal("the first push does not succeed")
	}
	r.watcher = newWatcher(r.c, "/v2/fixed/manifests/"+digestOf(fixed))
	first := newSeason(1)
	if !r.within(30*time.Second, func(ctx context.Context) bool { return first.open(ctx, janitor) }) {
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
	if !r.within(bound, func(context.Context) bool { err = r.sound(); return err == nil }) {
		r.c.violated("I11", "%v after the last fault was healed: %v", bound, err)
		if !r.within(settling, func(context.Context) bool { err = r.sound(); return err == nil }) {
			r.t.Fatalf("the cluster does not heal: %v", err)
		}
	}
	r.healed = append(r.healed, time.Since(began))
	for _, n := range r.a.d.nodes {
		r.watcher.recovered(check.Recovery{Node: n.name, Healthy: time.Since(began)})
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

// close judges, and tells what was found, on every end of the test.
func (r *chaos) close() {
	if r.took == 0 {
		r.took = time.Since(r.began)
	}
	o := &check.Outcomes{
		Run: check.Run{Seed: r.nemesis.plan.seed, Began: r.c.history.Began()}, Took: r.took, Faults: r.c.history.Faults(),
		Judgement: r.c.judgement, Others: append(r.ends(), r.c.violations()...), Findings: r.c.rules, Required: required,
	}
	for _, s := range r.c.history.Samples() {
		if s.Class != guardClass && s.Class != sentinelClass {
			o.Samples = append(o.Samples, s)
		}
	}
	if r.watcher != nil {
		o.Findings = check.JoinFindings(o.Findings, check.CheckInvariants(r.watcher.facts()))
		o.Findings = check.JoinFindings(o.Findings, []check.Finding{{Rule: "I13", Judged: r.watcher.asked}}) // broken ones are in Others
	}
	effects := &check.Facts{Writes: r.c.history.Writes(), Effects: r.effects, EffectsTrimmed: r.trimmed}
	if errors.Is(r.c.history.Flush(), check.ErrFull) { // some writes are missing, so none is known to be the only one
		effects.Writes = nil
	}
	o.Findings = check.JoinFindings(o.Findings, check.CheckInvariants(effects))
	left := r.c.history.Take(nil)
	o.Findings = check.JoinFindings(o.Findings, check.CheckInvariants(&check.Facts{Operations: left, Absences: r.a.absences.since(r.c.history.Began())}))
	o.Findings = check.JoinFindings(o.Findings, r.c.observed())
	o.Notes = []string{fmt.Sprintf("-chaos.seed=%d -chaos.duration=%v -chaos.faults=%s", r.nemesis.plan.seed, r.during, *chaosFaults),
		r.shelf.count.String(), fmt.Sprintf("faults: %v; found nobody to harm: %v", r.nemesis.kinds, r.nemesis.missed)}
	o.History = r.c.history.Flush()
	r.history.Close()
	r.tell(o)
	if o.Short = r.during < leastTime; o.Short { // for every rule to come by, and for a rate
		o.Required = nil
	}
	for model, n := range check.CheckLinear(left, 0).Models { // which judge whole seasons only
		o.Void = append(o.Void, fmt.Sprintf("%d operations on %s are of no season that was judged", n.Operations, model))
	}
	if !r.ended {
		o.Void = append(o.Void, "it did not end")
	}
	if r.t.Failed() && len(o.Violations()) == 0 {
		o.Void = append(o.Void, "the suite failed")
	}
	verdict.Verdict = o.Verdict()
	if err := writeReport(o, r.a.dir); err != nil {
		r.t.Error(err)
		verdict.Void = append(verdict.Void, "the report could not be written")
	}
	for _, one := range o.Violations()[:min(30, len(o.Violations()))] {
		r.t.Errorf("%v\n\t%s", one, strings.Join(one.Evidence, "\n\t"))
	}
	if !verdict.Passed() {
		r.t.Errorf("%v", verdict.Verdict)
	}
}

// ends are the nodes that ended and should not have, or not so, or should have and did not: all that there ever were.
func (r *chaos) ends() (found []check.Violation) {
	for _, n := range *r.a.d.made {
		for _, p := range append(n.earlier, n.proc) {
			if p == nil { // it was never started
				continue
			}
			if text := p.misbehaved(); text != "" {
				found = append(found, check.Violation{Rule: "end", Where: n.name, Text: text})
			}
		}
	}
	logs, err := filepath.Glob(filepath.Join(r.a.dir, "*.log"))
	if err != nil || len(logs) == 0 {
		r.t.Errorf("no node has left a log: %v", err)
	}
	for _, name := range logs {
		log, err := os.ReadFile(name)
		if err != nil {
			r.t.Error(err)
		}
		if n := bytes.Count(log, []byte("the node does not come to its end and is cut off")); n > 0 { // cmd/pontoon/lastresort.go
			found = append(found, check.Violation{Rule: "end", Where: filepath.Base(name), Text: fmt.Sprintf("cut itself off %d times", n)})
		}
	}
	return found
}

// writeReport leaves the page that tells of the run.
func writeReport(o *check.Outcomes, dir string) error {
	f, err := os.Create(filepath.Join(dir, "report.html"))
	if err != nil {
		return err
	}
	return errors.Join(o.WriteReport(f), f.Close())
}

// required are the rules that a run of minutes must have had something to judge by.
var required = []string{"tags", "manifests", "locks", "I1", "I2", "I3", "I4", "I5", "I6 nodes", "I6 answers", "I8", "I9 requests", "I9 writes", "I11", "I12", "I13"}

// leastTime is how long a run is at least that can be void.
const leastTime = time.Minute

// tell prints what was done, and judges whether that was enough to show anything.
func (r *chaos) tell(o *check.Outcomes) {
	r.t.Logf("%d requests in %v, %.0f a second; %v", len(o.Samples), r.took.Round(time.Second), float64(len(o.Samples))/r.took.Seconds(), r.shelf.count)
	r.t.Logf("%d faults: %v; found nobody: %v; healthy again: p50 %v, longest %v", r.nemesis.done, r.nemesis.kinds, r.nemesis.missed,
		percentile(r.healed, 50).Round(time.Millisecond), percentile(r.healed, 100).Round(time.Millisecond))
	r.t.Logf("requests to the store: %v; met by its faults: %+v", r.a.s3.Requests(), r.a.s3.Counts())
	r.t.Logf("%d cycles of garbage collection deleted %d keys; failed: %v", r.gc.cycles, r.gc.keys, head(slices.Sorted(maps.Keys(r.gc.failed)), 5))
	for kind := range r.nemesis.kinds {
		gaps := check.WriteGaps(o.Samples, o.Faults, func(f check.Fault) bool { return f.Name == kind })
		r.t.Logf("longest time without an acknowledged write around %d of %s: p50 %v, p99 %v, longest %v", gaps.Faults, kind,
			gaps.P50.Round(time.Millisecond), gaps.P99.Round(time.Millisecond), gaps.Longest.Round(time.Millisecond))
	}
	for _, row := range check.Availability(o.Samples, o.Faults) {
		r.t.Logf("availability %-20s %-16s %7d requests %5d failed, p50 %v, p99 %v, longest until one succeeded %v", row.Window, row.Class, row.Attempts, row.Failed,
			row.P50.Round(time.Millisecond), row.P99.Round(time.Millisecond), row.Longest.Round(time.Millisecond))
	}
	r.t.Logf("judged: %v in %v, %d not decided in time", r.c.judgement.Models, r.c.judgement.Took.Round(time.Millisecond), r.c.judgement.Undecided())
	for _, f := range o.Findings {
		if f.Judged > 0 {
			r.t.Logf("%s, %s: %d judged, %d broken", f.Rule, f.Text, f.Judged, f.Broken)
		}
	}
	if r.nemesis.done == 0 || r.shelf.count.pulls == 0 || r.shelf.count.again == 0 || r.gc.keys == 0 || r.watcher == nil || r.watcher.asked == 0 {
		r.t.Error("some of the load, or all faults, were missing: the run shows nothing")
	}
}

// finale judges what is left, once all faults are healed and nobody works any more.
func (r *chaos) finale() {
	t, d := r.t, r.a.d
	t.Helper()
	d.settle(settling)
	d.agree()
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	defer cancel()
	v := r.seasons.janitor
	for _, m := range r.shelf.held(limbo) { // nobody knows; now it is away
		v.deleteLimbo(ctx, r.shelf, m)
	}
	images := r.shelf.held(here)
	for _, n := range d.nodes {
		r.pullAll(n, images)
	}
	r.restored(images)
	r.bucketHolds(ctx, images)
	for _, n := range d.nodes {
		r.pullAll(n, images)
	}
	d.agree()
	r.bandsHold()
	var err error
	if r.effects, r.trimmed, err = d.nodes[0].points.effects(); err != nil {
		t.Errorf("%s: %v", d.nodes[0].name, err)
	}
	if !slices.ContainsFunc(r.effects, func(e check.Effect) bool { return e.Kind == check.TagPut }) {
		t.Error("the ledger's events tell of no tag that was written")
	}
	t.Logf("at the end %d images are there, whole on %d nodes", len(images), len(d.nodes))
	if len(images) == 0 {
		t.Error("no image is left: the end shows nothing")
	}
	r.ended = true
}

func (v *guest) deleteLimbo(ctx context.Context, s *shelf, m *shelved) {
	if v.until(ctx, func() bool {
		_, o := v.do(ctx, check.Operation{Class: check.Delete, Kind: "image-delete", Repo: "images", Key: m.repo + ":" + m.tag, Input: m.digest},
			request{method: http.MethodDelete, path: "/v2/" + m.repo + "/manifests/" + m.digest})
		return o.Status == http.StatusAccepted || o.Status == http.StatusNotFound
	}) {
		s.set(m, away)
	}
}

// pullAll pulls images from one node, byte for byte (I1).
func (r *chaos) pullAll(n *node, images []*shelved) {
	const parallel = 6
	var group sync.WaitGroup
	for p := range parallel {
		group.Go(func() {
			from := at(n.url())
			defer from.client.CloseIdleConnections()
			for i := p; i < len(images); i += parallel {
				m := images[i]
				r.c.looked("I1")
				digest, err := from.image(context.Background(), m.repo, m.tag)
				if err == nil && digest != m.digest {
					err = fmt.Errorf("it is %s, pushed was %s", digest, m.digest)
				}
				if err != nil {
					r.c.violated("I1", "at the end %s:%s from %s: %v", m.repo, m.tag, n.name, err)
				}
			}
		})
	}
	group.Wait()
}

// restored takes a backup, restores it beside the cluster, and pulls all images from there.
func (r *chaos) restored(images []*shelved) {
	r.t.Helper()
	if _, err := r.a.d.nodes[0].cli("snapshot", "save"); err != nil {
		r.c.violated("backup", "a backup at the end: %v", err)
		return
	}
	beside := r.a.d.beside("drill", unarchived)
	beside.restore("latest")
	beside.begin()
	r.pullAll(beside.nodes[0], images)
	beside.nodes[0].proc.kill()
}

// bucketHolds collects until the bucket holds what the images need and no more (I2, I4).
func (r *chaos) bucketHolds(ctx context.Context, images []*shelved) {
	r.t.Helper()
	needed := map[string]int64{digestOf(emptyConfig): int64(len(emptyConfig))}
	for _, m := range images {
		for _, content := range m.blobs {
			needed[digestOf(content)] = int64(len(content))
		}
	}
	// What is late arrives under keys that nobody knows: it must be there to be collected.
	if !r.within(lateAtMost+lateAnswer, func(context.Context) bool { return r.a.s3.Pending() == 0 }) {
		r.t.Errorf("%d late requests did not arrive", r.a.s3.Pending())
	}
	began := time.Now()
	r.c.looked("I4")
	r.c.looked("I2")
	var err error
	if !r.within(2*time.Minute, func(context.Context) bool { return r.a.s3.Pending() == 0 }) { // writes that come late
		r.t.Errorf("%d requests to the store are still under way", r.a.s3.Pending())
	}
	if !r.within(3*time.Minute, func(context.Context) bool {
		_, gcErr := r.a.d.nodes[0].cli("gc", "run", "--wait")
		err = errors.Join(gcErr, r.a.bucket.holds(ctx, needed))
		return err == nil
	}) {
		r.c.violated("I4", "the bucket does not come to hold just what is needed: %v", err)
	}
	r.t.Logf("%d images need %d blobs, and the bucket held just these %v after the run", len(images), len(needed), time.Since(began).Round(100*time.Millisecond))
	if out, err := r.a.d.nodes[0].cli("gc", "verify"); err != nil {
		r.c.violated("I2", "gc verify: %v\n%s", err, out)
	}
}

// bandsHold demands that nodes need at the end what they needed under load, or less (I12).
func (r *chaos) bandsHold() {
	r.t.Helper()
	for _, n := range r.a.d.nodes {
		body, err := get("http://"+n.debug+"/metrics", 5*time.Second)
		if err != nil {
			r.t.Errorf("metrics of %s at the end: %v", n.name, err)
			continue
		}
		m := readMetrics(body)
		for measure, most := range map[string]float64{"go_goroutines": 400, "process_open_fds": 300} {
			if _, told := m[measure]; !told {
				r.t.Errorf("%s does not tell %s", n.name, measure)
			}
			r.c.looked("I12")
			if m[measure] > most {
				r.c.violated("I12", "%s has %s %v at the end, with nobody there; at most %v are its own", n.name, measure, m[measure], most)
			}
		}
		told, _ := json.Marshal(map[string]float64{"goroutines": m["go_goroutines"], "fds": m["process_open_fds"], "MiB": m["process_resident_memory_bytes"] / mib})
		r.t.Logf("%s at the end: %s", n.name, told)
	}
}
