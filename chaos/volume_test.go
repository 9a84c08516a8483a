package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// volume is an ext4 file system for the data of one node: an image file, mounted over a loop device. Its power can be cut,
// it can be filled, and it can be replaced by an empty one.
type volume struct {
	path      string // where it is mounted
	file      string // the image
	mebibytes int
}

// newVolume makes and mounts one. It is unmounted when the test ends; its image stays as long as its folder.
func newVolume(t testing.TB, path string, mebibytes int) (*volume, error) {
	v := &volume{path: path, file: path + ".img", mebibytes: mebibytes}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, err
	}
	if err := v.format(); err != nil {
		return nil, err
	}
	t.Cleanup(func() {
		if err := v.unmount(); err != nil {
			t.Error(err)
		}
	})
	return v, nil
}

// noVolumes says why this machine has no volumes; nil: it has.
func noVolumes(t testing.TB) error {
	if os.Geteuid() != 0 {
		return errors.New("only root mounts an image")
	}
	v := &volume{path: t.TempDir(), file: filepath.Join(t.TempDir(), "probe.img"), mebibytes: 8}
	if err := v.format(); err != nil {
		return err
	}
	_, err := v.writes()
	return errors.Join(err, v.unmount())
}

// format makes the volume empty, as a new disk is.
func (v *volume) format() error {
	if err := v.unmount(); err != nil {
		return err
	}
	if err := os.RemoveAll(v.file); err != nil {
		return err
	}
	f, err := os.OpenFile(v.file, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Truncate(int64(v.mebibytes)*mebibyte), f.Close()); err != nil {
		return err
	}
	// Not lazily: what the kernel still writes for itself would be taken for the node's.
	if err := run("mkfs.ext4", "-q", "-F", "-m", "0", "-N", "4096", "-E", "lazy_itable_init=0,lazy_journal_init=0", v.file); err != nil {
		return err
	}
	return v.mount()
}

func (v *volume) mount() error { return run("mount", "-o", "loop", v.file, v.path) }

// unmount waits until nobody uses the volume; one that is not mounted is no error.
func (v *volume) unmount() error {
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		err := syscall.Unmount(v.path, 0)
		switch {
		case err == nil, errors.Is(err, syscall.EINVAL), errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.EPERM) && os.Geteuid() != 0:
			return nil
		case time.Now().After(deadline):
			return fmt.Errorf("unmount %s: %w", v.path, err)
		}
	}
}

// snapshot copies the image as a power cut at this moment would leave it: with what the file system has written, without
// what it still has in memory. Whoever uses the volume is stopped meanwhile. The file system itself may write now and then;
// then the copy may be torn in a way that no power cut tears a disk, and is made again.
func (v *volume) snapshot(to string) error {
	for range 50 {
		before, err := v.writes()
		if err != nil {
			return err
		}
		if err := run("cp", "--sparse=always", "--reflink=never", v.file, to); err != nil {
			return err
		}
		after, err := v.writes()
		if err != nil {
			return err
		}
		if before == after && before.inFlight == "0" {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return fmt.Errorf("the file system of %s never stood still for as long as a copy takes", v.file)
}

// become puts a copy in the place of the image. Its journal is replayed as after any power cut.
func (v *volume) become(file string) error {
	if err := v.unmount(); err != nil {
		return err
	}
	if err := os.Rename(file, v.file); err != nil {
		return err
	}
	return v.mount()
}

// writes are how many writes the loop device has done, and does.
type writes struct{ done, inFlight string }

// writes reads /sys/block/loopN/stat of the device under the volume.
func (v *volume) writes() (writes, error) {
	devices, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return writes{}, err
	}
	for _, device := range devices {
		backing, err := os.ReadFile(device)
		if err != nil || strings.TrimSpace(string(backing)) != v.file {
			continue // unmounted meanwhile, or another
		}
		stat, err := os.ReadFile(filepath.Join(filepath.Dir(filepath.Dir(device)), "stat"))
		if err != nil {
			return writes{}, err
		}
		// Documentation/block/stat.rst: the fifth counts writes that have ended, the ninth requests that have not.
		if fields := strings.Fields(string(stat)); len(fields) > 8 {
			return writes{fields[4], fields[8]}, nil
		}
		return writes{}, fmt.Errorf("%s has too few fields: %s", device, stat)
	}
	return writes{}, fmt.Errorf("no loop device has %s", v.file)
}

// run runs a program of the system, which takes no long time.
func run(program string, args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	path, err := exec.LookPath(program)
	if err != nil {
		path = "/usr/sbin/" + program // not on everybody's PATH
	}
	if out, err := exec.CommandContext(ctx, path, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, out)
	}
	return nil
}

// volume is that of a node by its name, which keeps it when another node comes in its place; nil: this cluster has none.
func (d *deployment) volume(name string) *volume {
	d.t.Helper()
	if d.options.disk == 0 {
		return nil
	}
	v := d.volumes[name]
	if v == nil {
		var err error
		if v, err = newVolume(d.t, filepath.Join(d.data, name), d.options.disk); err != nil {
			d.t.Fatal(err)
		}
		d.volumes[name] = v
	}
	return v
}

// cutPower takes the power from nodes at one moment. Their disks keep what was synced; nothing runs afterwards.
func (d *deployment) cutPower(nodes ...*node) error {
	for _, n := range nodes {
		n.proc.pause()
	}
	for _, n := range nodes {
		if err := n.proc.stopped(5 * time.Second); err != nil {
			return err
		}
	}
	for _, n := range nodes {
		if err := n.volume.snapshot(n.volume.file + ".cut"); err != nil {
			return err
		}
	}
	for _, n := range nodes {
		n.proc.kill()
		if err := n.volume.become(n.volume.file + ".cut"); err != nil {
			return err
		}
	}
	return nil
}

// stopped waits until no thread of a paused process runs: one that waits for its disk stops only then.
func (p *process) stopped(within time.Duration) error {
	for deadline := time.Now().Add(within); ; time.Sleep(time.Millisecond) {
		select {
		case <-p.done:
			return nil
		default:
		}
		running, err := p.running()
		if err != nil || running == "" {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s was told to stop %v ago, and a thread does not: %s", p.name, within, running)
		}
	}
}

// running is a thread of the process that is not stopped, as the kernel describes it; "": none.
func (p *process) running() (string, error) {
	stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.cmd.Process.Pid))
	if err != nil || len(stats) == 0 {
		return "", fmt.Errorf("%s has no threads: %w", p.name, err)
	}
	for _, file := range stats {
		stat, err := os.ReadFile(file)
		if err != nil {
			continue // that thread has ended
		}
		// proc(5): the state stands behind the name, which is in brackets and may hold anything.
		if s := string(stat); !strings.HasPrefix(s[strings.LastIndexByte(s, ')')+1:], " T") {
			return s, nil
		}
	}
	return "", nil
}

// TestAPowerCutTakesWhatWasNotSynced shows that the cut is one: it would prove nothing if it kept what it must not.
func TestAPowerCutTakesWhatWasNotSynced(t *testing.T) {
	if err := noVolumes(t); err != nil {
		t.Log("NOT RUN, and no power cut of a node is: ", err)
		return
	}
	v, err := newVolume(t, filepath.Join(t.TempDir(), "disk"), 32)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"synced", "not synced"} {
		f, err := os.Create(filepath.Join(v.path, name))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(noise(name, 100_000)); err != nil {
			t.Fatal(err)
		}
		if name == "synced" {
			if err := f.Sync(); err != nil {
				t.Fatal(err)
			}
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := v.snapshot(v.file + ".cut"); err != nil {
		t.Fatal(err)
	}
	if err := v.become(v.file + ".cut"); err != nil {
		t.Fatal(err)
	}
	if content, err := os.ReadFile(filepath.Join(v.path, "synced")); err != nil || digestOf(content) != digestOf(noise("synced", 100_000)) {
		t.Errorf("what was synced came back as %d bytes, %v", len(content), err)
	}
	if content, err := os.ReadFile(filepath.Join(v.path, "not synced")); err == nil && len(content) > 0 {
		t.Errorf("what was not synced came back: %d bytes", len(content))
	}
}
