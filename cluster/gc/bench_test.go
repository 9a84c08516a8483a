package gc

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/pontoon-registry/pontoon/blobs/mem"
	"github.com/pontoon-registry/pontoon/meta"
	"github.com/pontoon-registry/pontoon/meta/kv"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// blobCount is how many the figures are about: PONTOON_BENCH_BLOBS, or a million.
func blobCount(b *testing.B) int {
	b.Helper()
	n, err := strconv.Atoi(os.Getenv("PONTOON_BENCH_BLOBS"))
	if err != nil {
		return 1_000_000
	}
	return n
}

// filled is a ledger on disk with so many blobs, ten to a manifest; every garbageOf-th manifest was never pushed.
func filled(b *testing.B, count, garbageOf int) *meta.Solo {
	b.Helper()
	store, err := kv.Open(b.TempDir(), kv.Options{})
	if err != nil {
		b.Fatal(err)
	}
	solo, err := meta.NewSolo(store, func() int64 { return 1 })
	if err != nil {
		b.Fatal(err)
	}
	v := solo.State().View()
	f := &filling{b: b, state: solo.State(), index: v.Index()}
	v.Close()
	for group := range count / 10 {
		f.image(group, 10, group%garbageOf == 0)
	}
	f.flush()
	if err := solo.Close(); err != nil {
		b.Fatal(err)
	}
	// The graces are over by the clock of the ledger that goes on.
	began := time.Now()
	solo, err = meta.NewSolo(store, func() int64 { return int64(time.Since(began)) })
	if err != nil {
		b.Fatal(err)
	}
	settings := meta.DefaultSettings()
	settings.Grace = 1
	if err := solo.Configure(b.Context(), settings); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := solo.Close(); err != nil {
			b.Error(err)
		}
		if err := store.Close(); err != nil {
			b.Error(err)
		}
	})
	return solo
}

// filling applies commands in entries as the committer makes them, without the calls around it.
type filling struct {
	b        *testing.B
	state    *meta.State
	index    uint64
	commands []*metav1.Command
}

func (f *filling) add(c *metav1.Command) {
	f.commands = append(f.commands, c)
}

func (f *filling) flush() {
	f.b.Helper()
	data, err := proto.Marshal(&metav1.Entry{Format: 1, ClusterTime: 1, WallTime: 1, Commands: f.commands})
	if err != nil {
		f.b.Fatal(err)
	}
	f.index++
	results, err := f.state.Apply([]meta.LogEntry{{Index: f.index, Term: 1, Data: data}})
	if err != nil {
		f.b.Fatal(err)
	}
	for _, r := range results[0] {
		if r.GetRefusal() != nil {
			f.b.Fatal(r.GetRefusal())
		}
	}
	f.commands = nil
}

// image adds blobs and, unless they are garbage, the manifest that needs them.
func (f *filling) image(group, count int, garbage bool) {
	repository := fmt.Sprintf("team-%d/app-%d", group%100, group%5000)
	put := &metav1.PutManifest{Repository: repository, MediaType: meta.MediaTypeImage, Tags: []string{fmt.Sprint("v", group/5000)},
		Body: []byte(fmt.Sprint("manifest ", group))}
	put.Digest, put.Size = digestOf(put.GetBody()).Bytes(), int64(len(put.GetBody()))
	var commits []*metav1.CommitUpload
	for n := range count {
		sum := sha256.Sum256([]byte(fmt.Sprint(group, n)))
		id, digest := hex.EncodeToString(sum[:16]), append([]byte{1}, sum[:]...)
		f.add(&metav1.Command{Kind: &metav1.Command_OpenUpload{OpenUpload: &metav1.OpenUpload{
			Repository: repository, Id: id, Algorithm: 1, Store: "main"}}})
		commits = append(commits, &metav1.CommitUpload{Id: id, Repository: repository, Digest: digest, Size: 1000, Key: "solo/" + id + "/a"})
		put.Blobs = append(put.Blobs, digest)
	}
	f.flush() // the commits name the revision
	for _, c := range commits {
		c.Revision = f.index
		f.add(&metav1.Command{Kind: &metav1.Command_CommitUpload{CommitUpload: c}})
	}
	if !garbage {
		f.add(&metav1.Command{Kind: &metav1.Command_PutManifest{PutManifest: put}})
	}
}

// pushing is clients that push small images all the time.
type pushing struct {
	stop context.CancelFunc
	done sync.WaitGroup
	mu   sync.Mutex
	took []time.Duration
}

func pushers(b *testing.B, solo *meta.Solo, count int) *pushing {
	b.Helper()
	ctx, cancel := context.WithCancel(b.Context())
	p := &pushing{stop: cancel}
	for range count {
		p.done.Go(func() {
			for ctx.Err() == nil {
				began := time.Now()
				body := []byte(randomID())
				_, err := solo.Propose(context.WithoutCancel(ctx), &metav1.Command{Kind: &metav1.Command_PutManifest{PutManifest: &metav1.PutManifest{
					Repository: "load/x", Digest: digestOf(body).Bytes(), MediaType: meta.MediaTypeImage, Body: body, Size: int64(len(body)), Tags: []string{"t"}}}})
				if err != nil {
					b.Error(err)
					return
				}
				p.mu.Lock()
				p.took = append(p.took, time.Since(began))
				p.mu.Unlock()
				time.Sleep(2 * time.Millisecond) // a round trip
			}
		})
	}
	b.Cleanup(func() { cancel(); p.done.Wait() })
	return p
}

func (p *pushing) take() (count int, p99 time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.took
	p.took = nil
	slices.Sort(t)
	if len(t) == 0 {
		return 0, 0
	}
	return len(t), t[len(t)*99/100]
}

// BenchmarkMark is the figure of the design: a mark over a million blobs, a hundredth of them garbage, in less than 10 s
// with all its proposals, and the 99th percentile of writes meanwhile against before.
func BenchmarkMark(b *testing.B) {
	for _, garbageOf := range []int{100, 10} {
		b.Run(fmt.Sprintf("garbage=1in%d", garbageOf), func(b *testing.B) {
			count := blobCount(b)
			solo := filled(b, count, garbageOf)
			c, err := New(Config{Ledger: solo, Store: mem.New(0), StoreName: "main", Mark: &markRecorder{}, Schedule: "never"})
			if err != nil {
				b.Fatal(err)
			}
			load := pushers(b, solo, 8)
			time.Sleep(3 * time.Second)
			writes, before := load.take()
			b.ResetTimer()
			for b.Loop() {
				s, err := c.begin(b.Context(), metav1.CycleTrigger_CYCLE_TRIGGER_SCHEDULE)
				if err != nil {
					b.Fatal(err)
				}
				t := &turn{Collector: c, row: s.collection.GetRunning()}
				t.clear()
				load.take()
				began := time.Now()
				if err := t.next(b.Context(), metav1.CyclePhase_CYCLE_PHASE_MARK); err != nil {
					b.Fatal(err)
				}
				if err := t.mark(b.Context()); err != nil {
					b.Fatal(err)
				}
				took := time.Since(began)
				during, p99 := load.take()
				if s, err = c.situation(b.Context()); err != nil {
					b.Fatal(err)
				}
				b.Logf("marked %v in %v; p99 of writes %v before (%.0f/s), %v during (%.0f/s)", s.collection.GetRunning().GetCount(), took,
					before, float64(writes)/3, p99, float64(during)/took.Seconds())
				b.ReportMetric(took.Seconds(), "s/mark")
				b.ReportMetric(float64(p99)/float64(before), "p99ratio")
				if err := t.end(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
			load.stop()
			load.done.Wait()
		})
	}
}
