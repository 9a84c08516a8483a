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
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// mayMount says whether this machine lets us mount: a container may keep even root from it.
func mayMount(t testing.TB) bool {
	t.Helper()
	dir := t.TempDir()
	err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m,mode=0700")
	if errors.Is(err, syscall.EPERM) && os.Geteuid() == 0 {
		return false
	}
	if err != nil {
		t.Fatalf("mount a small file system: %v: this test fills a real disk and must be run as root, as CI does, or within `unshare -Urm`", err)
	}
	if err := syscall.Unmount(dir, 0); err != nil {
		t.Errorf("unmount %s: %v", dir, err)
	}
	return true
}

// smallDisk mounts a file system of its own, of so many MiB, for the node's data.
func smallDisk(t testing.TB, path string, mebibytes int) {
	t.Helper()
	if err := os.MkdirAll(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", path, "tmpfs", 0, fmt.Sprintf("size=%dm,mode=0700", mebibytes)); err != nil {
		t.Fatalf("mount a small file system: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(path, 0); err != nil {
			t.Errorf("unmount %s: %v", path, err)
		}
	})
}

// fillUp leaves so many bytes free on the file system of the folder, in real blocks.
func fillUp(folder string, leave int64) error {
	var s syscall.Statfs_t
	if err := syscall.Statfs(folder, &s); err != nil {
		return fmt.Errorf("free space of %s: %w", folder, err)
	}
	f, err := os.OpenFile(filepath.Join(folder, "filler"), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if more := int64(s.Bavail)*s.Bsize - leave; more > 0 {
		// To the last block a file system needs a few for itself: it is full all the same.
		if err := syscall.Fallocate(int(f.Fd()), 0, info.Size(), more); err != nil && (leave != 0 || !errors.Is(err, syscall.ENOSPC)) {
			return fmt.Errorf("fill %s: %w", folder, err)
		}
	}
	return nil
}

// mustFill is fillUp of a test that cannot go on without.
func mustFill(t testing.TB, folder string, leave int64) {
	t.Helper()
	if err := fillUp(folder, leave); err != nil {
		t.Fatal(err)
	}
}

// giveBack removes all that fillUp has taken.
func giveBack(folder string) error { return os.Remove(filepath.Join(folder, "filler")) }

// empty is giveBack of a test that cannot go on without.
func empty(t testing.TB, folder string) {
	t.Helper()
	if err := giveBack(folder); err != nil {
		t.Fatal(err)
	}
}

// says waits until the node's readiness, in detail, contains the text.
func (n *node) says(within time.Duration, text string) {
	n.t.Helper()
	eventually(n.t, within, n.name+" to say "+text, func() error { return n.saying(text) })
}

// saying is nil while the node is not ready and its readiness, in detail, contains the text.
func (n *node) saying(text string) error {
	err := n.ready()
	if err == nil || !strings.Contains(err.Error(), text) {
		return fmt.Errorf("it says %w", err)
	}
	return nil
}

// status is what the operator sees on that host, whatever the exit code.
func (n *node) status() string {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, pontoon(n.t), "status", "--config", n.config).CombinedOutput()
	return fmt.Sprintf("%s (%v)", out, err)
}

// pusher pushes and resolves through the balancer, a connection for each request, never retrying, until stop, which answers how many pushes there were.
func (d *deployment) pusher(repo string, clients int) (stop func() int64) {
	d.t.Helper()
	config := []byte("{}")
	if err := at(d.url()).pushBlob(d.t.Context(), repo, config); err != nil {
		d.t.Fatal(err)
	}
	working, end := context.WithCancel(context.Background())
	var group sync.WaitGroup
	var done atomic.Int64
	for c := range clients {
		group.Go(func() {
			r := &registry{base: d.url(), client: &http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true}}}
			for i := 0; working.Err() == nil && !d.t.Failed(); i++ {
				tag := fmt.Sprintf("c%d-%d-%d", c, i, time.Now().UnixNano())
				body := manifest{MediaType: mediaManifest, ArtifactType: "chaos/disk", Config: new(describe(mediaEmpty, config)),
					Annotations: map[string]string{"tag": tag}}.encode()
				began := time.Now()
				if err := r.putManifest(context.Background(), repo, tag, mediaManifest, body); err != nil {
					if machine.excuses(d.t, began, err) {
						pause(context.Background(), calmTime/100) // or it burns the time of those who elect
						continue
					}
					d.t.Errorf("push of %s: %v", tag, err)
				}
				if digest, err := r.resolve(context.Background(), repo, tag); err != nil && !machine.excuses(d.t, began, err) || err == nil && digest != digestOf(body) {
					d.t.Errorf("tag %s resolves to %q, %v; pushed as %s", tag, digest, err, digestOf(body))
				}
				done.Add(1)
				pause(working, 10*time.Millisecond)
			}
		})
	}
	return sync.OnceValue(func() int64 {
		end()
		group.Wait()
		return done.Load()
	})
}

const mebibyte = 1 << 20

// TestAFullDiskTakesItsNodeOutAndNothingElse fills the disk under one node slowly, then all at once, with the node killed and
// started on it, and frees it. The disk is a real file system of 192 MiB. It runs wherever root may mount one.
func TestAFullDiskTakesItsNodeOutAndNothingElse(t *testing.T) {
	if !mayMount(t) {
		t.Log("NOT RUN: root may not mount here (CAP_SYS_ADMIN); the tests of cluster and cmd fill a disk in thought only")
		return
	}
	var small string
	d := newDeployment(t, newBucket(t), options{
		cluster: []string{"disk: {minfree: 32MiB, ballast: 16MiB}"}, slots: 3,
		before: func(d *deployment) {
			small = filepath.Join(d.data, d.nodes[0].name)
			smallDisk(t, small, 192)
		},
	})
	victim := d.nodes[0]
	ballast := filepath.Join(small, "ballast")
	if info, err := os.Stat(ballast); err != nil || info.Sys().(*syscall.Stat_t).Blocks*512 < 16*mebibyte {
		t.Fatalf("the ballast is no file of 16 MiB of blocks: %v", err)
	}

	// Low: whoever leads, it is not the victim for long; the balancer turns away; no request fails.
	stop := d.pusher("chaos/disk", 4)
	leader := d.leader(10 * time.Second)
	t.Logf("the node with the small disk leads: %v", leader == victim)
	mustFill(t, small, 20*mebibyte)
	victim.says(20*time.Second, "disk full: "+small+" has ")
	eventually(t, 20*time.Second, "another node to lead", func() error {
		if leads, err := victim.metric("pontoon_raft_leader"); err != nil || leads != 0 {
			return fmt.Errorf("the victim leads: %v, %w", leads, err)
		}
		return nil
	})
	d.slots.waitDown(victim.slot) // so that no request goes to it that it must refuse
	// Full: it leaves Raft before a write can fail.
	mustFill(t, small, 6*mebibyte)
	eventually(t, 10*time.Second, "the victim to keep out of Raft", func() error {
		if level, err := victim.metric("pontoon_disk_level"); err != nil || level != 2 {
			return fmt.Errorf("level %v, %w", level, err)
		}
		return nil
	})
	pause(t.Context(), 2*time.Second)
	if n := stop(); n == 0 {
		t.Error("nothing was pushed meanwhile")
	} else {
		t.Logf("%d pushes while the disk filled, none failed", n)
	}

	// Started on a full disk: the ballast is given back, and every door says what is wrong.
	victim.proc.kill()
	mustFill(t, small, 0)
	victim.start()
	victim.says(30*time.Second, "disk full: "+small+" has ")
	if _, err := os.Stat(ballast); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the ballast is still there: %v", err)
	}
	if out := victim.status(); !strings.Contains(out, "NOT READY") || !strings.Contains(out, "disk full: "+small) || !strings.Contains(out, "exit status 5") {
		t.Errorf("pontoon status says %s", out)
	}
	if _, err := get(victim.url()+"/livez", 2*time.Second); err != nil {
		t.Errorf("it does not live: %v", err)
	}
	for path, status := range map[string]int{"/readyz": http.StatusServiceUnavailable, "/v2/": http.StatusServiceUnavailable} {
		if a, err := at(victim.url()).want(t.Context(), status, http.MethodGet, path, nil, nil); err != nil {
			t.Errorf("%v %s", err, a.body)
		}
	}
	stop = d.pusher("chaos/disk", 2)
	pause(t.Context(), time.Second)
	stop()

	// Space again: it goes on by itself, in the same process, and takes its ballast back.
	pid := victim.proc.cmd.Process.Pid
	empty(t, small)
	victim.waitReady()
	if victim.proc.cmd.Process.Pid != pid {
		t.Error("it is another process")
	}
	eventually(t, 10*time.Second, "the ballast to be whole", func() error {
		_, err := os.Stat(ballast)
		return err
	})
	d.agree()

	// All at once, with writes under way: the node may end by itself, and is started by its supervisor, here us.
	victim.proc.mu.Lock()
	victim.proc.expected = true
	victim.proc.mu.Unlock()
	mustFill(t, small, 0)
	stop = (&deployment{t: t, nodes: d.nodes[1:], balancer: d.nodes[1].addr}).pusher("chaos/disk", 2)
	pause(t.Context(), 4*time.Second)
	stop()
	restarted := false
	eventually(t, 45*time.Second, victim.name+" to wait for space, running on or started again", func() error {
		select {
		case <-victim.proc.done:
			restarted = true
			victim.start()
		default:
		}
		_, err := get("http://"+victim.debug+"/readyz", 2*time.Second)
		if err == nil || !strings.Contains(err.Error(), "disk full: "+small+" has ") {
			return fmt.Errorf("it says %w", err)
		}
		return nil
	})
	t.Logf("the node ended by itself on the full disk: %v", restarted)
	empty(t, small)
	victim.waitReady()
	d.agree()
}
