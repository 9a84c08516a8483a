package cluster

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

var (
	simDuration = flag.Duration("sim.duration", simDefault(), "cluster time of TestTheClusterKeepsItsPromisesUnderSimulatedFaults")
	simSeed     = flag.Uint64("sim.seed", 1, "seed of its faults and clients; 0: a new one, as make sim takes")
	simNodes    = flag.Int("sim.nodes", 3, "its nodes")
)

// simDefault is ten minutes, or two under the race detector, which takes several times as long.
func simDefault() time.Duration {
	info, _ := debug.ReadBuildInfo()
	if info != nil && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		return 2 * time.Minute
	}
	return 10 * time.Minute
}

// simulation is one run.
type simulation struct {
	seed     uint64
	nodes    int
	duration time.Duration
	// change is a defect, put into every node between Open and Run; lying one of the disks.
	change func(*Node)
	lying  bool
	// patient makes one node's lease outlast the others' elections.
	patient bool
}

// outcome of a run: what went against the promises, and what was done.
type simReport struct {
	problems []string
	summary  string
}

// run simulates in a bubble of its own.
func (r simulation) run(t *testing.T) (report simReport) {
	// In a bubble time passes when the last goroutine has come to rest. One processor
	// finds that several times faster than two that wake each other.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	synctest.Test(t, func(t *testing.T) {
		s := newSimCluster(t, r.seed, r.nodes, func(n *Node) {
			n.Lead(simDuty(n))
			if r.change != nil {
				r.change(n)
			}
		})
		if r.patient {
			pick(rand.New(rand.NewPCG(s.seed, 1)), s.slots).scale = 8
		}
		if err := s.form(); err != nil {
			s.problem("first start: %v", err)
			s.end()
			report.problems = s.failed()
			return
		}
		d, h, l := newDriver(s), newHistory(), newLockWatch()
		d.lying = r.lying
		ctx, stop := context.WithCancel(context.Background())
		var clients sync.WaitGroup
		for i := range 6 {
			clients.Go(func() { s.client(i, h).run(ctx, 800*time.Millisecond) })
		}
		for i := range 3 {
			clients.Go(func() { s.lockClient(ctx, i, l) })
		}
		if err := d.run(r.duration); err != nil {
			s.problem("%v", err)
		}
		stop()
		clients.Wait()
		for _, sl := range s.slots {
			for sl.busy.Load() {
				time.Sleep(10 * time.Millisecond)
			}
			d.revive(sl)
		}
		if len(s.failed()) == 0 {
			s.checkEnd(h, d.seen)
		}
		s.end()
		report.problems = s.failed()
		report.summary = fmt.Sprintf("%s; %d locks; %d compactions, %d installs; faults:", h.summary(), l.grants, d.seen.compactions, d.seen.installs)
		for _, k := range slices.Sorted(maps.Keys(d.counts)) {
			report.summary += fmt.Sprintf(" %s %d,", k, d.counts[k])
		}
	})
	return report
}

func TestTheClusterKeepsItsPromisesUnderSimulatedFaults(t *testing.T) {
	seed := *simSeed
	if seed == 0 {
		seed = rand.Uint64() >> 32
	}
	t.Logf("seed %d, %d nodes, %v of cluster time; repeat with: go test ./cluster -run '^%s$' -sim.seed=%d -sim.nodes=%d -sim.duration=%v",
		seed, *simNodes, *simDuration, t.Name(), seed, *simNodes, *simDuration)
	began := time.Now()
	report := simulation{seed: seed, nodes: *simNodes, duration: *simDuration, patient: seed%2 == 0}.run(t)
	t.Logf("%v: %s", time.Since(began).Round(time.Millisecond), report.summary)
	if len(report.problems) > 0 {
		t.Errorf("seed %d:\n%s", seed, strings.Join(report.problems, "\n"))
	}
}
