package chaos

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/pontoon-registry/pontoon/chaos/check"
)

// verdict is the last line of the test binary, once TestChaos ran in it.
var verdict struct {
	ran bool
	check.Verdict
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
	if r.c.history.Flush() != nil { // some writes are missing, so none is known to be the only one
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
	r.t.Log(&machine)
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
	if !r.shown() {
		r.t.Error("some of the load, or all faults, were missing: the run shows nothing")
	}
}
