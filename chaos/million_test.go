package chaos

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestFiguresOfManyManifests measures what grows with the state: the time and pause of a compaction, of a restart, and of a
// new node that has to be sent everything, with as many manifests in the state as -million says. It judges nothing but that
// all nodes hold the same in the end.
func TestFiguresOfManyManifests(t *testing.T) {
	if *million == 0 {
		t.Log("NOT RUN: make bench-million asks for it")
		return
	}
	// One node is filled alone, which is faster, and the others join; a small log is compacted often.
	d := newDeployment(t, newDirectory(t), options{drain: "0s", first: 1, quiet: true, cluster: []string{"log:", "  size: 64MiB"}})
	leader := d.leader(20 * time.Second)
	if err := at(leader.url()).pushBlob(t.Context(), millionRepo, []byte("{}")); err != nil {
		t.Fatal(err)
	}
	const lot = 100_000
	for first := 0; first < *million; first += lot {
		began, count := time.Now(), min(lot, *million-first)
		fill(t, leader, first, count)
		t.Logf("%d manifests: the last %d came at %.0f/s", first+count, count, float64(count)/time.Since(began).Seconds())
	}
	d.sizes("one node with all of them")
	for range 2 {
		began := time.Now()
		d.caughtUp(d.join(), leader)
		t.Logf("a node joined and caught up in %v, without load", time.Since(began).Round(10*time.Millisecond))
	}
	d.voting()

	restarts(t, d)
	compaction(t, d)
	d.sizes("after a compaction")
	newcomer(t, d)
	d.sizes("with a fourth node")
	d.agree()
}

const millionRepo = "bench/million"

// fill pushes manifests numbered from first on, which share one config, over many connections to one node.
func fill(t testing.TB, n *node, first, count int) {
	t.Helper()
	const connections = 64
	failures := make([]error, connections)
	var group sync.WaitGroup
	for c := range connections {
		group.Go(func() {
			failures[c] = fillOne(t.Context(), n.addr, first+c, first+count, connections)
		})
	}
	group.Wait()
	if err := errors.Join(failures...); err != nil {
		t.Fatal(err)
	}
}

// fillOne pushes every step-th manifest on one connection. It writes HTTP by itself, like hammer and for its reason.
func fillOne(ctx context.Context, addr string, from, until, step int) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	in := bufio.NewReader(conn)
	for i := from; i < until && ctx.Err() == nil; i += step {
		body := millionth(i)
		request := fmt.Sprintf("PUT /v2/%s/manifests/%s HTTP/1.1\r\nHost: %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s",
			millionRepo, digestOf(body), addr, mediaManifest, len(body), body)
		if _, err := conn.Write([]byte(request)); err != nil {
			return err
		}
		if ok, err := skipAnswer(in, "201"); err != nil || !ok {
			return fmt.Errorf("push of manifest %d: created %v, %w", i, ok, err)
		}
	}
	return nil
}

// millionth is a manifest of about 500 bytes.
func millionth(i int) []byte {
	return manifest{MediaType: mediaManifest, ArtifactType: "chaos/million", Config: new(describe(mediaEmpty, []byte("{}"))),
		Annotations: map[string]string{"number": fmt.Sprint(i), "padding": strings.Repeat("x", 150)}}.encode()
}

// restarts measures how long a node is away: from its start to readiness, after it was stopped and after it was killed.
func restarts(t *testing.T, d *deployment) {
	t.Helper()
	n := d.others(d.leader(20 * time.Second))[0]
	for _, way := range []string{"stopped", "killed"} {
		if way == "stopped" {
			if err := n.proc.terminate(90 * time.Second); err != nil {
				t.Errorf("%s ended with %v", n.name, err)
			}
		} else {
			n.proc.kill()
		}
		began := time.Now()
		n.start()
		n.waitReady()
		t.Logf("a node that was %s: ready %v after its start", way, time.Since(began).Round(10*time.Millisecond))
	}
}

// probe pushes one manifest after the other with a few writers, at a moderate pace, and keeps every latency.
type probe struct {
	mu   sync.Mutex // guards what follows
	done []acked
	err  error
}

func (p *probe) run(ctx context.Context, addr string, name string) {
	const probers = 8
	var group sync.WaitGroup
	for c := range probers {
		group.Go(func() {
			r := at("http://" + addr)
			defer r.client.CloseIdleConnections()
			for i := 0; ctx.Err() == nil; i++ {
				tag := fmt.Sprintf("%s-%d-%d", name, c, i)
				body := manifest{MediaType: mediaManifest, ArtifactType: "chaos/probe", Config: new(describe(mediaEmpty, []byte("{}"))),
					Annotations: map[string]string{"tag": tag}}.encode()
				began := time.Now()
				err := r.putManifest(context.WithoutCancel(ctx), millionRepo, tag, mediaManifest, body)
				p.mu.Lock()
				p.err = errors.Join(p.err, err)
				p.done = append(p.done, acked{tag: tag, at: time.Now(), took: time.Since(began)})
				p.mu.Unlock()
				pause(ctx, 20*time.Millisecond)
			}
		})
	}
	group.Wait()
}

// during are the latencies of all writes that ran at some moment between two.
func (p *probe) during(from, until time.Time) (took []time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range p.done {
		if a.at.After(from) && a.at.Add(-a.took).Before(until) {
			took = append(took, a.took)
		}
	}
	return took
}

func (p *probe) String() string {
	took := p.during(time.Time{}, time.Now())
	return fmt.Sprintf("%d writes, p50 %v, p99 %v, longest %v", len(took), percentile(took, 50), percentile(took, 99), percentile(took, 100))
}

// probing runs a probe on the leader for as long as something takes.
func probing(t *testing.T, leader *node, name string, what func(p *probe)) *probe {
	t.Helper()
	p := &probe{}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var group sync.WaitGroup
	group.Go(func() { p.run(ctx, leader.addr, name) })
	what(p)
	stop()
	group.Wait()
	if p.err != nil {
		t.Errorf("writes while %s: %.500v", name, p.err)
	}
	return p
}

// compaction pushes on until the leader compacts its log, and measures the writes meanwhile.
func compaction(t *testing.T, d *deployment) {
	t.Helper()
	leader := d.leader(20 * time.Second)
	seen, next := len(compactions(t, leader)), *million
	var last struct {
		Time time.Time
		Took time.Duration
	}
	p := probing(t, leader, "compaction", func(*probe) {
		for end := time.Now().Add(20 * time.Minute); len(compactions(t, leader)) == seen && time.Now().Before(end); next += 20_000 {
			fill(t, leader, next, 20_000)
		}
	})
	all := compactions(t, leader)
	for _, c := range all {
		t.Logf("the leader compacted: %s", c)
	}
	if len(all) == seen {
		t.Errorf("the leader did not compact its log while %d manifests more were pushed", next-*million)
		return
	}
	if err := json.Unmarshal([]byte(all[len(all)-1]), &last); err != nil {
		t.Fatal(err)
	}
	busy := p.during(last.Time.Add(-last.Took), last.Time)
	calm := p.during(time.Time{}, last.Time.Add(-last.Took))
	t.Logf("compaction with %d manifests took %v; writes meanwhile: %d, p99 %v, longest %v; before, under the same load: p99 %v, longest %v",
		next, last.Took.Round(time.Millisecond), len(busy), percentile(busy, 99), percentile(busy, 100), percentile(calm, 99), percentile(calm, 100))
}

// compactions are the lines in which a node says that it compacted its log.
func compactions(t testing.TB, n *node) (lines []string) {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(n.logs, n.name+".log"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(content)) {
		if strings.Contains(line, `"the log was compacted"`) {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

// newcomer lets a fourth node join, which lacks everything, and measures the leader's writes before and meanwhile.
func newcomer(t *testing.T, d *deployment) {
	t.Helper()
	leader := d.leader(20 * time.Second)
	calm := probing(t, leader, "calm", func(*probe) { pause(t.Context(), 20*time.Second) })
	t.Logf("the leader's writes before: %v", calm)
	busy := probing(t, leader, "joining", func(*probe) {
		began := time.Now()
		n := d.join()
		ready := time.Since(began)
		d.caughtUp(n, leader)
		t.Logf("a new node: ready after %v, caught up after %v", ready.Round(10*time.Millisecond), time.Since(began).Round(10*time.Millisecond))
	})
	before, meanwhile := calm.during(time.Time{}, time.Now()), busy.during(time.Time{}, time.Now())
	t.Logf("the leader's writes meanwhile: %v; p99 %.2f times that before", busy,
		float64(percentile(meanwhile, 99))/float64(percentile(before, 99)))
}

// caughtUp waits until a node lacks next to nothing of what the leader has.
func (d *deployment) caughtUp(n, leader *node) {
	d.t.Helper()
	eventually(d.t, 10*time.Minute, n.name+" to have caught up", func() error {
		own, err := n.state()
		if err != nil {
			return err
		}
		leads, err := leader.state()
		if err == nil && own.Applied+100 < leads.Applied {
			err = fmt.Errorf("%d entries behind", leads.Applied-own.Applied)
		}
		return err
	})
}

// sizes logs the memory and the disk that every node takes.
func (d *deployment) sizes(when string) {
	d.t.Helper()
	var rows []string
	for _, n := range d.nodes {
		var disk int64
		err := filepath.WalkDir(filepath.Join(d.data, n.name), func(_ string, e os.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return nil // files come and go
			}
			if info, err := e.Info(); err == nil {
				disk += info.Size()
			}
			return nil
		})
		if err != nil {
			d.t.Error(err)
		}
		rows = append(rows, fmt.Sprintf("%s peak memory %d MiB, disk %d MiB", n.name, n.proc.peakMemory()/mib, disk/mib))
		n.proc.forgetPeak()
	}
	slices.Sort(rows)
	d.t.Logf("%s: %s", when, strings.Join(rows, "; "))
}
