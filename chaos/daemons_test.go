package chaos

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// daemons are containerd and dockerd, each with folders and a socket of its own, so that nothing that the machine runs
// is touched. They need root.
type daemons struct {
	home                   string
	containerd, dockerd    *process
	containerdAt, dockerAt string // sockets
}

// newDaemons starts containerd, and dockerd on top of it, without any network: images are moved, nothing is run.
func newDaemons(t testing.TB) *daemons {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("containerd and dockerd need root: run make e2e as root")
	}
	home, err := os.MkdirTemp("", "chaos-") // short: sockets have short names
	if err != nil {
		t.Fatal(err)
	}
	in := func(name string) string { return filepath.Join(home, name) }
	s := &daemons{home: home, containerdAt: in("containerd.sock"), dockerAt: in("docker.sock")}
	t.Cleanup(s.stop)
	config := fmt.Sprintf("version = 2\nroot = %q\nstate = %q\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\n  address = %q\n",
		in("containerd"), in("containerd.run"), s.containerdAt)
	for file, content := range map[string]string{"containerd.toml": config, "docker.json": "{}"} {
		if err := os.WriteFile(in(file), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.containerd = start(t, home, "containerd", nil, need(t, "containerd"), "--config", in("containerd.toml"))
	answers(t, s.containerdAt)
	s.dockerd = start(t, home, "dockerd", nil, need(t, "dockerd"), "--containerd", s.containerdAt, "--host", "unix://"+s.dockerAt,
		"--data-root", in("docker"), "--exec-root", in("docker.run"), "--pidfile", in("docker.pid"), "--config-file", in("docker.json"),
		"--bridge", "none", "--iptables=false", "--ip-masq=false", "--ip-forward=false")
	answers(t, s.dockerAt)
	return s
}

// answers waits for a socket to accept.
func answers(t testing.TB, socket string) {
	t.Helper()
	eventually(t, time.Minute, socket+" to accept", func() error {
		conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(t.Context(), "unix", socket)
		if err == nil {
			conn.Close()
		}
		return err
	})
}

// stop ends both in order and removes what they kept. What is still mounted then is unmounted first: dockerd mounts its
// own folder.
func (s *daemons) stop() {
	for _, p := range []*process{s.dockerd, s.containerd} {
		if p != nil {
			_ = p.terminate(30 * time.Second) // how it ends is not our matter, that it does is
		}
	}
	mounts, _ := os.ReadFile("/proc/self/mounts")
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); len(fields) > 1 && strings.HasPrefix(fields[1], s.home+"/") {
			_ = syscall.Unmount(fields[1], syscall.MNT_DETACH)
		}
	}
	os.RemoveAll(s.home)
}

// ctr drives containerd. It reads layers in ranges when it has to go on.
type ctr struct {
	program
	daemons  *daemons
	registry string
}

func newCtr(t testing.TB, s *daemons, registry string) client {
	return ctr{newProgram(t, "ctr"), s, registry}
}

func (c ctr) ctr(ctx context.Context, args ...string) (string, error) {
	out, err := c.run(ctx, append([]string{"--address", c.daemons.containerdAt, "--namespace", "chaos"}, args...)...)
	if err != nil {
		return out, fmt.Errorf("ctr %s %s: %w", args[0], args[1], err)
	}
	return out, nil
}

// push imports the layout and pushes it; afterwards containerd has forgotten it, so that a pull asks the registry.
func (c ctr) push(ctx context.Context, from *layout, reference string) error {
	archive := filepath.Join(c.home, "push.tar")
	defer os.Remove(archive)
	if err := tarFolder(ctx, from.dir, archive); err != nil {
		return err
	}
	remote, name := c.registry+"/"+reference, c.registry+"/"+strings.TrimSuffix(reference, ":v1")
	if _, err := c.ctr(ctx, "images", "import", "--no-unpack", "--all-platforms", "--base-name", name, archive); err != nil {
		return err
	}
	_, err := c.ctr(ctx, "images", "push", "--plain-http", remote)
	return errors.Join(err, c.forget(ctx, remote))
}

// pull fetches without unpacking, exports and unpacks the export.
func (c ctr) pull(ctx context.Context, reference string, to *layout) error {
	remote, archive := c.registry+"/"+reference, filepath.Join(c.home, "pull.tar")
	defer os.Remove(archive)
	if _, err := c.ctr(ctx, "content", "fetch", "--plain-http", "--all-platforms", remote); err != nil {
		return err
	}
	if _, err := c.ctr(ctx, "images", "export", "--all-platforms", archive, remote); err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, "tar", "--extract", "--file", archive, "--directory", to.dir).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("unpack %s: %w: %s", reference, err, lastLines(out, 3))
	}
	return errors.Join(err, c.forget(ctx, remote))
}

func (c ctr) forget(ctx context.Context, remote string) error {
	_, err := c.ctr(ctx, "images", "rm", "--sync", remote)
	return err
}

func tarFolder(ctx context.Context, dir, archive string) error {
	out, err := exec.CommandContext(ctx, "tar", "--create", "--file", archive, "--directory", dir, ".").CombinedOutput()
	if err != nil {
		return fmt.Errorf("pack %s: %w: %s", dir, err, lastLines(out, 3))
	}
	return nil
}

// docker drives dockerd, which keeps images unpacked and packs them anew to push: five layers at a time up, three down.
type docker struct {
	program
	packer   program // skopeo, which makes the archives that docker loads
	daemons  *daemons
	registry string
}

func newDocker(t testing.TB, s *daemons, registry string) docker {
	return docker{newProgram(t, "docker"), newProgram(t, "skopeo"), s, registry}
}

func (k docker) docker(ctx context.Context, args ...string) (string, error) {
	return k.run(ctx, append([]string{"--host", "unix://" + k.daemons.dockerAt}, args...)...)
}

var pushedDigest = regexp.MustCompile(`digest: (sha256:[0-9a-f]{64}) `)

// roundTrip pushes an image, pulls it after docker has forgotten it, and compares: the digest that docker pushed, the one
// it pulled, the ID, which is the digest of the config that names every layer unpacked, and what the registry holds.
func (k docker) roundTrip(ctx context.Context, y *tally, from *layout, reference string) {
	remote := k.registry + "/" + reference
	if err := k.load(ctx, from, remote); err != nil {
		y.t.Errorf("docker loads the image: %v", err)
		return
	}
	id, err := k.docker(ctx, "image", "inspect", "--format", "{{.Id}}", remote)
	if err != nil {
		y.t.Error(err)
	}
	pushed := ""
	y.push(reference, func() error {
		out, err := k.docker(ctx, "push", remote)
		if found := pushedDigest.FindStringSubmatch(out); found != nil {
			pushed = found[1]
		}
		return err
	})
	k.forget(ctx, y)
	y.pull(reference, func() error {
		_, err := k.docker(ctx, "pull", "--quiet", remote)
		return err
	})
	pulled, err := k.docker(ctx, "image", "inspect", "--format", "{{.Id}} {{index .RepoDigests 0}}", remote)
	if err != nil {
		y.t.Error(err)
	}
	if want := id + " " + strings.TrimSuffix(remote, ":v1") + "@" + pushed; pulled != want {
		y.t.Errorf("%s: docker pushed %s and pulled %s", reference, want, pulled)
	}
	y.holds(ctx, at("http://"+k.registry), reference, pushed)
	k.forget(ctx, y)
}

func (k docker) load(ctx context.Context, from *layout, name string) error {
	archive := filepath.Join(k.home, "load.tar")
	defer os.Remove(archive)
	_, err := k.packer.run(ctx, "copy", "--insecure-policy", "--quiet", "oci:"+from.dir+":v1", "docker-archive:"+archive+":"+name)
	if err != nil {
		return err
	}
	_, err = k.docker(ctx, "load", "--quiet", "--input", archive)
	return err
}

func (k docker) forget(ctx context.Context, y *tally) {
	if _, err := k.docker(ctx, "image", "prune", "--all", "--force"); err != nil {
		y.t.Error(err)
	}
}
