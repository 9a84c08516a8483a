package chaos

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestFiguresOfForgettingAndRemembering measures what garbage collection and backups cost with as many blobs, and as many
// manifests, in the state as -million says: a cycle and the pushes meanwhile, a snapshot, a restore until the first pull,
// and the memory of each. It judges nothing but that nothing is lost.
func TestFiguresOfForgettingAndRemembering(t *testing.T) {
	if *million == 0 {
		t.Log("NOT RUN: make bench-million asks for it")
		return
	}
	backups := t.TempDir()
	// With the shortest delay, so that there is something to sweep too; the schedule stays out of the way.
	extra := "gc:\n  unsafeshort: true\n  grace: 10s\n  delay: 3s\nbackup:\n  enabled: true\n  schedule: \"@yearly\"\n  directory: " + backups + "\n"
	d := newDeployment(t, newDirectory(t), options{drain: "0s", first: 1, quiet: true, extra: extra})
	n := d.nodes[0]
	const lot = 50_000
	for first := 0; first < *million; first += lot {
		began, count := time.Now(), min(lot, *million-first)
		fillBlobs(t, n, first, count)
		t.Logf("%d blobs and manifests: the last %d came at %.0f/s", first+count, count, float64(count)/time.Since(began).Seconds())
	}
	d.sizes("with all of them")

	// The probes' config; within the grace the first of them needs it.
	if err := at(n.url()).pushBlob(t.Context(), millionRepo, []byte("{}")); err != nil {
		t.Fatal(err)
	}
	calm := probing(t, n, "calm", func(*probe) { pause(t.Context(), 20*time.Second) })
	t.Logf("pushes before: %v", calm)
	busy := probing(t, n, "collecting", func(*probe) {
		for range 3 {
			began := time.Now()
			if _, err := n.cli("gc", "run", "--wait"); err != nil {
				t.Error(err)
			}
			t.Logf("a cycle over %d blobs took %v", *million, time.Since(began).Round(time.Millisecond))
		}
	})
	before, meanwhile := calm.during(time.Time{}, time.Now()), busy.during(time.Time{}, time.Now())
	t.Logf("pushes meanwhile: %v; p99 %.2f times that before", busy, float64(percentile(meanwhile, 99))/float64(percentile(before, 99)))
	out, err := n.cli("gc", "status")
	t.Logf("gc status: %v\n%s", err, out)
	d.sizes("after three cycles")

	saving := probing(t, n, "saving", func(*probe) {
		began := time.Now()
		if _, err := n.cli("snapshot", "save"); err != nil {
			t.Fatal(err)
		}
		t.Logf("a snapshot was written and verified in %v", time.Since(began).Round(time.Millisecond))
	})
	during := saving.during(time.Time{}, time.Now())
	t.Logf("pushes meanwhile: %v; p99 %.2f times that before", saving, float64(percentile(during, 99))/float64(percentile(before, 99)))
	d.sizes("after a snapshot")
	n.proc.kill()

	o := d.beside("restored", extra)
	began := time.Now()
	out, peak, err := o.nodes[0].measured("snapshot", "restore", "latest")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("restored in %v, peak memory %d MiB: %s", time.Since(began).Round(time.Millisecond), peak/mib, out)
	o.nodes[0].start()
	last := digestOf(millionthOf(*million - 1))
	eventually(t, 5*time.Minute, "the first pull", func() error {
		_, err := at(o.nodes[0].url()).image(t.Context(), millionRepo, last)
		return err
	})
	t.Logf("the first pull %v after the begin of the restore", time.Since(began).Round(time.Millisecond))
	o.sizes("restored")
	for _, i := range []int{0, *million / 2, *million - 1} {
		if _, err := at(o.nodes[0].url()).image(t.Context(), millionRepo, digestOf(millionthOf(i))); err != nil {
			t.Error(err)
		}
	}
}

// measured runs the node's binary like cli, and tells the most memory that it took.
func (n *node) measured(args ...string) (out string, peak int64, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, pontoon(n.t), append(args, "--config", n.config)...)
	all, err := cmd.CombinedOutput()
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		peak = usage.Maxrss << 10
	}
	return strings.TrimSpace(string(all)), peak, err
}

// fillBlobs pushes small blobs numbered from first on, and to each a manifest, over many connections to one node.
func fillBlobs(t testing.TB, n *node, first, count int) {
	t.Helper()
	const connections = 64
	failures := make([]error, connections)
	var group sync.WaitGroup
	for c := range connections {
		group.Go(func() {
			failures[c] = fillBlobsOn(t.Context(), n.addr, first+c, first+count, connections)
		})
	}
	group.Wait()
	if err := errors.Join(failures...); err != nil {
		t.Fatal(err)
	}
}

// fillBlobsOn pushes every step-th on one connection, a blob in one request. It writes HTTP by itself, as fillOne does.
func fillBlobsOn(ctx context.Context, addr string, from, until, step int) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	in := bufio.NewReader(conn)
	for i := from; i < until && ctx.Err() == nil; i += step {
		blob, body := millionthBlob(i), millionthOf(i)
		for _, request := range []string{
			fmt.Sprintf("POST /v2/%s/blobs/uploads/?digest=%s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n%s",
				millionRepo, digestOf(blob), addr, len(blob), blob),
			fmt.Sprintf("PUT /v2/%s/manifests/%s HTTP/1.1\r\nHost: %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s",
				millionRepo, digestOf(body), addr, mediaManifest, len(body), body),
		} {
			if _, err := conn.Write([]byte(request)); err != nil {
				return err
			}
			if ok, err := skipAnswer(in, "201"); err != nil || !ok {
				return fmt.Errorf("push of blob and manifest %d: created %v, %w", i, ok, err)
			}
		}
	}
	return nil
}

func millionthBlob(i int) []byte { return fmt.Appendf(nil, `{"number":%d}`, i) }

// millionthOf is a manifest of about 500 bytes with a config of its own.
func millionthOf(i int) []byte {
	return manifest{MediaType: mediaManifest, ArtifactType: "chaos/million", Config: new(describe(mediaConfig, millionthBlob(i))),
		Annotations: map[string]string{"number": fmt.Sprint(i), "padding": strings.Repeat("x", 150)}}.encode()
}
