package cluster

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// manifests is how many the figures are about: PONTOON_BENCH_MANIFESTS, or a million.
func manifests(b *testing.B) int {
	b.Helper()
	n, err := strconv.Atoi(os.Getenv("PONTOON_BENCH_MANIFESTS"))
	if err != nil {
		return 1_000_000
	}
	return n
}

// fillManifests commits so many manifests of 700 bytes, in groups as the committer
// makes them, through Raft's log, without the calls around it.
func fillManifests(b *testing.B, n *running, count int) {
	b.Helper()
	body := bytes.Repeat([]byte("m"), 700)
	var flight []raft.ApplyFuture
	wait := func(left int) {
		for ; len(flight) > left; flight = flight[1:] {
			if err := flight[0].Error(); err != nil {
				b.Fatal(err)
			}
			results, _ := flight[0].Response().([]*metav1.Result)
			for _, r := range results {
				if err := meta.FromRefusal(r.GetRefusal()); err != nil {
					b.Fatal(err)
				}
			}
		}
	}
	for i := 0; i < count; {
		calls := make([]*call, 0, 200)
		for ; len(calls) < 200 && i < count; i++ {
			sum := sha256.Sum256(strconv.AppendInt(nil, int64(i), 10))
			digest, err := meta.PackDigest(1, sum[:])
			if err != nil {
				b.Fatal(err)
			}
			encoded, err := proto.Marshal(n.systemCommand(&metav1.Command{Kind: &metav1.Command_PutManifest{PutManifest: &metav1.PutManifest{
				Repository: fmt.Sprintf("team-%d/app-%d", i%100, i%5000), Digest: digest.Bytes(), MediaType: meta.MediaTypeImage,
				Body: body, Size: int64(len(body)), Tags: []string{fmt.Sprint("v", i/5000)}}}}))
			if err != nil {
				b.Fatal(err)
			}
			calls = append(calls, newCall(encoded))
		}
		clusterTime, wallTime, err := n.stamp()
		if err != nil {
			b.Fatal(err)
		}
		flight = append(flight, n.handle.apply(encodeEntry(clusterTime, wallTime, calls), time.Minute))
		wait(entriesInFlight)
	}
	wait(0)
}

// hammering is writers that write all the time and remember how long each write took.
type hammering struct {
	stop  context.CancelFunc
	done  sync.WaitGroup
	mu    sync.Mutex
	took  []time.Duration
	fails int
}

func writers(b *testing.B, n *running, count int) *hammering {
	b.Helper()
	ctx, cancel := context.WithCancel(b.Context())
	l := &hammering{stop: cancel}
	for range count {
		l.done.Go(func() {
			for ctx.Err() == nil {
				began := time.Now()
				_, err := n.Propose(context.WithoutCancel(ctx), n.systemCommand(&metav1.Command{Kind: &metav1.Command_TrimEvents{TrimEvents: &metav1.TrimEvents{Limit: 1}}}))
				l.mu.Lock()
				l.took = append(l.took, time.Since(began))
				if err != nil {
					l.fails++
				}
				l.mu.Unlock()
			}
		})
	}
	b.Cleanup(func() { cancel(); l.done.Wait() })
	return l
}

// take answers what was measured since the last time: how many, the 99th percentile, the longest.
func (l *hammering) take() (count int, p99, longest time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.took
	l.took = nil
	if len(t) == 0 {
		return 0, 0, 0
	}
	slices.Sort(t)
	return len(t), t[len(t)*99/100], t[len(t)-1]
}

// BenchmarkMillionManifests is what issue 3 asks of the seam: a compaction of
// the log of a million manifests and the longest write meanwhile, a restart until ready,
// and a node that joins under load. Small figures: PONTOON_BENCH_MANIFESTS=20000.
func BenchmarkMillionManifests(b *testing.B) {
	count := manifests(b)
	cfg := testConfig(b, &testMark{})
	cfg.hurry, cfg.LogBytes = 1, 1<<40 // nothing is compacted before it is measured
	one := start(b, cfg)
	eventually(b, "it is ready", func() error { return one.Ready(b.Context()) })
	began := time.Now()
	fillManifests(b, one, count)
	b.Logf("%d manifests in %v: log %d MiB, state %d MiB", count, time.Since(began).Round(time.Millisecond), one.logs.Bytes()>>20, one.stores.now.Size()>>20)

	l := writers(b, one, 16)
	<-time.After(3 * time.Second)
	writes, p99, longest := l.take()
	b.Logf("before: %d writes, p99 %v, longest %v", writes, p99, longest)

	first := standingOf(b, one.Node).first
	from, _ := one.logs.tail(one.logs.Bytes() / 2)
	began = time.Now()
	compactAll(b, one.Node, one.raft().LastIndex()-from+1)
	took := time.Since(began)
	writes, p99, longest = l.take()
	b.Logf("compaction of entries %d to %d in %v: %d writes, p99 %v, longest %v; log %d MiB", first, standingOf(b, one.Node).first, took, writes, p99, longest, one.logs.Bytes()>>20)
	b.ReportMetric(float64(took.Milliseconds()), "compaction-ms")
	b.ReportMetric(float64(longest.Microseconds())/1000, "longest-write-ms")

	<-time.After(3 * time.Second)
	_, before, longest := l.take()
	b.Logf("before the join: p99 %v, longest %v", before, longest)
	second := testConfig(b, nil)
	_, gossip := one.Addresses()
	second.hurry, second.Join = 1, []string{gossip}
	began = time.Now()
	two := start(b, second)
	for two.Ready(b.Context()) != nil && time.Since(began) < 5*time.Minute {
		<-time.After(5 * time.Millisecond)
	}
	if err := two.Ready(b.Context()); err != nil {
		b.Fatal(err)
	}
	took = time.Since(began)
	writes, during, longest := l.take()
	b.Logf("joined in %v: %d writes, p99 %v, longest %v", took, writes, during, longest)
	b.ReportMetric(took.Seconds(), "join-s")
	b.ReportMetric(float64(during)/float64(before), "p99-ratio")
	l.stop()
	l.done.Wait()
	if l.fails > 0 {
		b.Errorf("%d writes failed", l.fails)
	}
	same(b, one, two)
	for _, r := range []struct {
		name string
		node *running
	}{{"joined", two}, {"filled", one}} {
		cfg := r.node.cfg
		cfg.Listen, cfg.GossipListen, cfg.Join = r.node.advertise, r.node.gossip.Addr().String(), []string{gossip}
		r.node.halt(b)
		began := time.Now()
		again := start(b, cfg)
		opened := time.Since(began)
		eventually(b, "it is ready again", func() error { return again.Ready(b.Context()) })
		b.Logf("restart of the node that was %s: log %d MiB, open after %v, ready after %v", r.name, again.logs.Bytes()>>20, opened, time.Since(began))
		b.ReportMetric(time.Since(began).Seconds(), "restart-"+r.name+"-s")
	}
}

// BenchmarkCompaction fills a log to 512 MiB, deletes half of it as a compaction does, and
// writes meanwhile: entries of few commands, and full groups.
func BenchmarkCompaction(b *testing.B) {
	for _, size := range []int{400, 4 << 10, 170 << 10} {
		b.Run(fmt.Sprintf("entry=%d", size), func(b *testing.B) {
			logs, err := openLog(b.TempDir(), func(err error) { b.Error(err) })
			if err != nil {
				b.Fatal(err)
			}
			data, next := bytes.Repeat([]byte("x"), size), uint64(1)
			store := func(n int) {
				entries := make([]*raft.Log, n)
				for i := range entries {
					entries[i] = &raft.Log{Index: next, Term: 1, Data: data}
					next++
				}
				if err := logs.StoreLogs(entries); err != nil {
					b.Fatal(err)
				}
			}
			for logs.Bytes() < 512<<20 {
				store(max(1, (32<<20)/size))
			}
			var longest, quiet time.Duration
			timed := func() time.Duration { began := time.Now(); store(1); return time.Since(began) }
			for range 50 {
				quiet = max(quiet, timed())
			}
			from, _ := logs.tail(256 << 20)
			done := make(chan time.Duration, 1)
			go func() {
				began := time.Now()
				if err := logs.DeleteRange(1, from-1); err != nil {
					b.Error(err)
				}
				done <- time.Since(began)
			}()
			writes := 0
			for {
				select {
				case took := <-done:
					b.Logf("%d entries in %v: %d writes, longest %v (before: %v)", from-1, took, writes, longest, quiet)
					b.ReportMetric(float64(took.Milliseconds()), "compaction-ms")
					b.ReportMetric(float64(longest.Microseconds())/1000, "longest-write-ms")
					if err := logs.Close(); err != nil {
						b.Error(err)
					}
					return
				default:
					longest, writes = max(longest, timed()), writes+1
				}
			}
		})
	}
}
