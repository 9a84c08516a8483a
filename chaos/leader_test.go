package chaos

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const writers = 32

// TestLeaderKilledUnderWritersLosesNoAcknowledgedWrite kills the leader again and again while writers push tags through
// the balancer and readers fetch a manifest by its digest from every node that lives. It prints the longest time without
// any acknowledged write after each kill.
func TestLeaderKilledUnderWritersLosesNoAcknowledgedWrite(t *testing.T) {
	rounds := *kills
	if rounds == 0 {
		rounds = 2
		if *long {
			rounds = 20
		}
	}
	d := newDeployment(t, newBucket(t), options{})
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(rounds+2)*time.Minute)
	defer cancel()

	const repo = "chaos/writers"
	config := []byte("{}")
	if err := at(d.url()).pushBlob(ctx, repo, config); err != nil {
		t.Fatal(err)
	}
	fixed := manifest{MediaType: mediaManifest, Config: new(describe(mediaEmpty, config)), ArtifactType: "chaos/fixed"}.encode()
	if err := at(d.url()).putManifest(ctx, repo, "fixed", mediaManifest, fixed); err != nil {
		t.Fatal(err)
	}

	working, stop := context.WithCancel(ctx)
	defer stop()
	var group sync.WaitGroup
	crew := make([]*writer, writers)
	for i := range crew {
		crew[i] = &writer{id: i, repo: repo, config: describe(mediaEmpty, config), registry: at(d.url())}
		group.Go(func() { crew[i].run(working) })
	}
	watch := make([]*reader, len(d.nodes))
	for i, n := range d.nodes {
		watch[i] = &reader{node: n, path: "/v2/" + repo + "/manifests/" + digestOf(fixed), registry: at(n.url())}
		group.Go(func() { watch[i].run(working) })
	}

	var killed []time.Time
	for round := range rounds {
		settle(t, crew)
		victim := d.leader(30 * time.Second)
		r := watch[slices.Index(d.nodes, victim)]
		r.down.Store(true)
		killed = append(killed, time.Now())
		victim.proc.kill()
		settle(t, crew)
		victim.start()
		victim.waitReady()
		r.down.Store(false)
		t.Logf("kill %d of %d: %s", round+1, rounds, victim.name)
	}
	settle(t, crew)
	end := time.Now()
	stop()
	group.Wait()

	var acks []time.Time
	var latencies []time.Duration
	written, failed := 0, 0
	for _, w := range crew {
		written += len(w.acked)
		failed += w.failed
		for _, a := range w.acked {
			acks = append(acks, a.at)
			latencies = append(latencies, a.took)
		}
	}
	slices.SortFunc(acks, time.Time.Compare)
	gaps := gapsAfter(acks, killed, end)
	for i, gap := range gaps {
		t.Logf("kill %2d: longest time without an acknowledged write %v", i+1, gap.Round(time.Millisecond))
	}
	slices.Sort(latencies)
	t.Logf("%d writers, %d kills: %d writes acknowledged, %d attempts failed and were retried", writers, rounds, written, failed)
	t.Logf("write gap p50 %v, p99 %v, longest %v; one write p50 %v, p99 %v, longest %v",
		percentile(gaps, 50), percentile(gaps, 99), slices.Max(gaps),
		percentile(latencies, 50), percentile(latencies, 99), percentile(latencies, 100))

	for _, r := range watch {
		t.Logf("%s: %d reads by digest, longest %v", r.node.name, r.reads, r.longest.Round(time.Millisecond))
		for _, failure := range r.failures {
			t.Errorf("read by digest on %s, which lived: %s", r.node.name, failure)
		}
		if r.longest > time.Second { // without a leader they are answered after 250 ms from local state
			t.Errorf("a read by digest on %s, which lived, took %v", r.node.name, r.longest)
		}
	}
	d.agree()
	verifyTags(t, d, repo, crew)
}

// acked is one acknowledged write.
type acked struct {
	tag, digest string
	at          time.Time
	took        time.Duration // from its first attempt to its answer
}

// writer pushes one manifest after the other under a new tag each, and remembers what was acknowledged.
type writer struct {
	id       int
	repo     string
	config   descriptor
	registry *registry
	acked    []acked // read by others only after run
	failed   int
	count    atomic.Int64
}

func (w *writer) run(ctx context.Context) {
	for i := 0; ctx.Err() == nil; i++ {
		tag := fmt.Sprintf("w%02d-%06d", w.id, i)
		body := manifest{MediaType: mediaManifest, ArtifactType: "chaos/write", Config: &w.config,
			Annotations: map[string]string{"write": tag}}.encode()
		began := time.Now()
		for ctx.Err() == nil {
			attempt, cancel := context.WithTimeout(ctx, 10*time.Second)
			err := w.registry.putManifest(attempt, w.repo, tag, mediaManifest, body)
			cancel()
			if err == nil {
				now := time.Now()
				w.acked = append(w.acked, acked{tag, digestOf(body), now, now.Sub(began)})
				w.count.Add(1)
				break
			}
			w.failed++
			select {
			case <-ctx.Done():
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	w.registry.client.CloseIdleConnections()
}

// settle waits until every writer has had ten more writes acknowledged.
func settle(t *testing.T, crew []*writer) {
	t.Helper()
	before := make([]int64, len(crew))
	for i, w := range crew {
		before[i] = w.count.Load()
	}
	eventually(t, time.Minute, "every writer to go on", func() error {
		for i, w := range crew {
			if w.count.Load() < before[i]+10 {
				return fmt.Errorf("writer %d had %d writes acknowledged since", i, w.count.Load()-before[i])
			}
		}
		return nil
	})
}

// reader fetches one manifest by digest from one node while that node lives.
type reader struct {
	node     *node
	path     string
	registry *registry
	down     atomic.Bool // the node is being killed, or starts
	reads    int
	longest  time.Duration
	failures []string
}

func (r *reader) run(ctx context.Context) {
	for ctx.Err() == nil {
		if r.down.Load() {
			r.registry.client.CloseIdleConnections()
			pause(ctx, 5*time.Millisecond)
			continue
		}
		began := time.Now()
		_, err := r.registry.want(ctx, http.StatusOK, http.MethodGet, r.path, http.Header{"Accept": {mediaManifest}}, nil)
		if r.down.Load() || ctx.Err() != nil {
			continue
		}
		r.reads++
		r.longest = max(r.longest, machine.took(began))
		if err != nil && len(r.failures) < 10 {
			r.failures = append(r.failures, err.Error())
		}
		pause(ctx, 2*time.Millisecond)
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// gapsAfter returns for each kill the longest time between two acknowledged writes until the next kill.
func gapsAfter(acks, killed []time.Time, end time.Time) []time.Duration {
	gaps := make([]time.Duration, len(killed))
	for i, from := range killed {
		until := end
		if i+1 < len(killed) {
			until = killed[i+1]
		}
		last := from
		for _, at := range acks {
			if at.Before(from) {
				continue
			}
			if at.After(until) {
				break
			}
			gaps[i] = max(gaps[i], at.Sub(last))
			last = at
		}
		gaps[i] = max(gaps[i], until.Sub(last))
	}
	return gaps
}

// percentile of durations, by the nearest rank; it sorts a copy.
func percentile(all []time.Duration, p int) time.Duration {
	if len(all) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(all))
	rank := (len(sorted)*p + 99) / 100
	return sorted[max(rank, 1)-1].Round(10 * time.Microsecond)
}

// verifyTags asks for every acknowledged tag, each on another node.
func verifyTags(t *testing.T, d *deployment, repo string, crew []*writer) {
	t.Helper()
	var lost atomic.Int64
	var group sync.WaitGroup
	for i, w := range crew {
		client := at(d.nodes[i%len(d.nodes)].url())
		group.Go(func() {
			for _, a := range w.acked {
				ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
				digest, err := client.resolve(ctx, repo, a.tag)
				cancel()
				if err == nil && digest == a.digest {
					continue
				}
				if lost.Add(1) <= 10 {
					t.Errorf("tag %s was acknowledged as %s at %s; now %q, %v",
						a.tag, a.digest, a.at.Format("15:04:05.000"), digest, err)
				}
			}
			client.client.CloseIdleConnections()
		})
	}
	group.Wait()
	t.Logf("%d acknowledged writes lost", lost.Load())
}

func TestGapsAreMeasuredFromTheKillToTheNext(t *testing.T) {
	at := func(ms int) time.Time { return time.UnixMilli(int64(ms)) }
	acks := []time.Time{at(0), at(90), at(100), at(700), at(710), at(1990), at(2000), at(2100)}
	gaps := gapsAfter(acks, []time.Time{at(95), at(1995)}, at(2150))
	want := []time.Duration{1280 * time.Millisecond, 100 * time.Millisecond}
	if !slices.Equal(gaps, want) {
		t.Fatalf("gaps are %v, want %v", gaps, want)
	}
	if got := percentile([]time.Duration{4, 1, 3, 2}, 50); got != 0 { // nanoseconds round to nothing
		t.Fatalf("p50 is %v", got)
	}
	if got := percentile([]time.Duration{time.Second, time.Minute, time.Hour}, 99); got != time.Hour {
		t.Fatalf("p99 is %v", got)
	}
	if strings.Contains(fmt.Sprint(gaps), "-") {
		t.Fatalf("negative gap: %v", gaps)
	}
}
