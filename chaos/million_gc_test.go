package chaos

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestFiguresOfForgettingAndRemembering measures what garbage collection and backups cost with so many manifests in the
// state as -million says, each with a tag and a blob of its own, and a tenth as many blobs that nothing needs: cycles, the
// pushes meanwhile, a snapshot, a restore until the first pull, and the memory of each. The state is filled without requests,
// by a test of cmd/pontoon, and no file of those layers exists; the image that is pulled is pushed here. It judges nothing
// but that nothing is lost.
func TestFiguresOfForgettingAndRemembering(t *testing.T) {
	if *million == 0 {
		t.Log("NOT RUN: make bench-million asks for it")
		return
	}
	backups := t.TempDir()
	// With the shortest delay and little retention, so that there is something to sweep too; the schedules stay out of the way.
	extra := "gc:\n  schedule: never\n  unsafeshort: true\n  grace: 10s\n  delay: 3s\n" +
		"backup:\n  enabled: true\n  schedule: \"@yearly\"\n  keep: 1\n  keepfor: 1s\n  directory: " + backups + "\n"
	over := newDirectory(t)
	began := time.Now()
	d := newDeployment(t, over, options{drain: "0s", first: 1, quiet: true, extra: extra, before: func(d *deployment) { prefilled(d, over) }})
	n := d.nodes[0]
	t.Logf("filled and ready after %v", time.Since(began).Round(time.Second))
	f := &forgettingFigures{T: t, d: d, node: n, memory: watchMemory(t, n.proc)}
	began = time.Now()
	eventually(t, 10*time.Minute, "the first snapshot", func() error { return f.snapshots(1) })
	t.Logf("the first snapshot was complete %v after the start", time.Since(began).Round(time.Millisecond))
	f.sizes("started")
	if err := pushSmall(t.Context(), at(n.url()), millionRepo, "pulled"); err != nil {
		t.Fatal(err)
	}
	// The probes' config; within the grace the first of them needs it.
	if err := at(n.url()).pushBlob(t.Context(), millionRepo, []byte("{}")); err != nil {
		t.Fatal(err)
	}
	f.cycles("one blob in eleven is garbage", 1)
	f.cycles("next to nothing is garbage", 6)
	f.during("a snapshot was written and verified", 1, func() {
		if _, err := n.cli("snapshot", "save"); err != nil {
			t.Fatal(err)
		}
	})
	eventually(t, time.Minute, "the older snapshot to be retired", func() error { return f.snapshots(1) })
	f.cycles("the condemned keys are due", 1)
	if out, err := n.cli("gc", "history"); err != nil {
		t.Error(err)
	} else {
		t.Logf("gc history:\n%s", out)
	}
	eventually(t, time.Minute, "the log to be archived", func() error { return f.archived() })
	n.proc.kill()
	restoreFigures(t, d.beside("restored", extra))
}

// forgettingFigures measures what a node does, and the pushes and the memory meanwhile.
type forgettingFigures struct {
	*testing.T
	d      *deployment
	node   *node
	memory *memoryWatch
}

// during measures one thing, done some times, and compares pushes meanwhile with those of quiet moments in between: what a
// disk of a busy host takes drifts by the minute.
func (f *forgettingFigures) during(what string, count int, do func()) {
	f.Helper()
	var took time.Duration
	quiet, busy := &probe{}, &probe{}
	for i := range count {
		name := fmt.Sprintf("%s-%d", strings.Map(onlyLetters, what), i)
		quiet.join(probing(f.T, f.node, "quiet-"+name, func(*probe) { pause(f.Context(), 15*time.Second) }))
		busy.join(probing(f.T, f.node, "busy-"+name, func(*probe) {
			began := time.Now()
			do()
			took += time.Since(began)
		}))
	}
	all := func(p *probe) []time.Duration { return p.during(time.Time{}, time.Now()) }
	f.Logf("%s in %v; pushes meanwhile: %v; in between: %v; p99 %.2f times that in between, p50 %.2f times", what, took.Round(time.Millisecond), busy, quiet,
		float64(percentile(all(busy), 99))/float64(percentile(all(quiet), 99)), float64(percentile(all(busy), 50))/float64(percentile(all(quiet), 50)))
	f.sizes("after that")
}

// join adds what another probe saw.
func (p *probe) join(other *probe) {
	p.done, p.err = append(p.done, other.done...), errors.Join(p.err, other.err)
}

// onlyLetters is strings.Map's, for tags.
func onlyLetters(r rune) rune {
	if r >= 'a' && r <= 'z' {
		return r
	}
	return -1
}

// cycles runs some, one after the other.
func (f *forgettingFigures) cycles(what string, count int) {
	f.Helper()
	f.during(fmt.Sprintf("%d cycles, %s,", count, what), count, func() {
		began := time.Now()
		out, _, err := f.node.measured("gc", "run", "--wait")
		if err != nil {
			f.Error(err)
		}
		f.Logf("after %v: %s", time.Since(began).Round(time.Millisecond), strings.TrimSpace(out))
	})
}

func (f *forgettingFigures) sizes(when string) {
	f.Helper()
	f.d.sizes(when)
	f.Logf("%s: %v", when, f.memory.take())
}

// snapshots wants the ledger to know so many complete ones, and no others.
func (f *forgettingFigures) snapshots(want int) error {
	out, err := f.node.cli("snapshot", "list", "-o", "json")
	if err != nil {
		return err
	}
	complete, all := strings.Count(out, "BACKUP_STATE_COMPLETE"), strings.Count(out, "BACKUP_STATE_")
	if complete != want || all != want {
		return fmt.Errorf("%d snapshots, %d of them complete, expected %d: %s", all, complete, want, out)
	}
	return nil
}

// archived wants the archive of the log to be as far as the log.
func (f *forgettingFigures) archived() error {
	lag, err := f.node.metric("pontoon_backup_log_lag_entries")
	if err == nil && lag > 0 {
		err = fmt.Errorf("%v entries are not archived", lag)
	}
	return err
}

// restoreFigures restores the last snapshot into an empty node, and pulls from it.
func restoreFigures(t *testing.T, o *deployment) {
	t.Helper()
	began := time.Now()
	out, peak, err := o.nodes[0].measured("snapshot", "restore", "latest")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("restored in %v, peak memory %d MiB: %s", time.Since(began).Round(time.Millisecond), peak/mib, out)
	o.nodes[0].start()
	memory := watchMemory(t, o.nodes[0].proc)
	eventually(t, 5*time.Minute, "the first pull", func() error {
		_, err := at(o.nodes[0].url()).image(t.Context(), millionRepo, "pulled")
		return err
	})
	t.Logf("the first pull %v after the begin of the restore", time.Since(began).Round(time.Millisecond))
	o.sizes("restored")
	t.Logf("restored: %v", memory.take())
	for _, i := range []int{0, *million / 2, *million - 1} {
		path := fmt.Sprintf("/v2/bench/app-%d/manifests/n%d", i%1000, i)
		a, err := at(o.nodes[0].url()).want(t.Context(), http.StatusOK, http.MethodGet, path, http.Header{"Accept": {mediaManifest}}, nil)
		if err != nil || digestOf(a.body) != a.header.Get("Docker-Content-Digest") || !strings.Contains(string(a.body), fmt.Sprintf(`"number":"%d"`, i)) {
			t.Errorf("manifest %d: %v: %.300s", i, err, a.body)
		}
	}
}

// prefilled gives the first node the data directory that the test of cmd/pontoon fills, or a copy of the one that an earlier
// run left in -prepared, and the store its owner mark.
func prefilled(d *deployment, over *directory) {
	d.t.Helper()
	n := d.nodes[0]
	kept := []string{filepath.Join(*prepared, "data"), filepath.Join(*prepared, "layers")}
	used := []string{filepath.Join(d.data, n.name), over.root}
	if _, err := os.Stat(kept[0]); *prepared != "" && err == nil {
		copyAll(d.t, kept, used)
		return
	}
	filler := filepath.Join(d.t.TempDir(), "filler")
	build := exec.Command("go", "test", "-c", "-o", filler, "./cmd/pontoon")
	build.Dir, build.Env = "..", append(os.Environ(), "CGO_ENABLED=0")
	fill := exec.Command(filler, "-test.run", "^TestADataDirectoryIsFilledWithoutRequests$", "-test.timeout", "2h",
		"-fill.config", n.config, "-fill.count", fmt.Sprint(*million))
	for _, cmd := range []*exec.Cmd{build, fill} {
		if out, err := cmd.CombinedOutput(); err != nil {
			d.t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
		}
	}
	if *prepared != "" {
		copyAll(d.t, used, kept)
	}
}

// copyAll copies folders into ones that need not exist.
func copyAll(t testing.TB, from, to []string) {
	t.Helper()
	for i := range from {
		if err := os.MkdirAll(to[i], 0o700); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("cp", "-a", from[i]+"/.", to[i]).CombinedOutput(); err != nil {
			t.Fatalf("copy %s: %v\n%s", from[i], err, out)
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

// memoryWatch keeps the most memory that a process had of its own, beside files that are mapped: the kernel takes those back.
type memoryWatch struct {
	mu        sync.Mutex // guards what follows
	own, file int64
}

// watchMemory watches until the test or the process ends.
func watchMemory(t testing.TB, p *process) *memoryWatch {
	t.Helper()
	w := &memoryWatch{}
	ctx, stop := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() {
		for ctx.Err() == nil {
			select {
			case <-p.done:
				return
			default:
				w.look(p)
				pause(ctx, 50*time.Millisecond)
			}
		}
	})
	t.Cleanup(func() { stop(); group.Wait() })
	return w
}

func (w *memoryWatch) look(p *process) {
	own, err := memoryOf(p, "RssAnon:")
	file, ferr := memoryOf(p, "RssFile:")
	w.mu.Lock()
	defer w.mu.Unlock()
	if err == nil && ferr == nil { // else it ends just now
		w.own, w.file = max(w.own, own), max(w.file, file)
	}
}

// take answers the peaks since the last time.
func (w *memoryWatch) take() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	own, file := w.own, w.file
	w.own, w.file = 0, 0
	return fmt.Sprintf("at most %d MiB of memory of its own, and %d MiB of files mapped", own/mib, file/mib)
}
