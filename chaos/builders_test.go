package chaos

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// podman keeps images unpacked and packs them anew to push, so it is compared by the digest that it says it pushed.
type podman struct {
	program
	registry string
}

func newPodman(t testing.TB, registry string) podman {
	return podman{newProgram(t, "podman"), registry}
}

func (m podman) podman(ctx context.Context, args ...string) (string, error) {
	all := []string{"--root", filepath.Join(m.home, "root"), "--runroot", filepath.Join(m.home, "runroot"),
		"--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "none"}
	return m.run(ctx, append(all, args...)...)
}

func (m podman) roundTrip(ctx context.Context, y *tally, from *layout, reference string) {
	if _, err := m.podman(ctx, "pull", "--quiet", "oci:"+from.dir+":v1"); err != nil {
		y.t.Errorf("podman reads the layout: %v", err)
		return
	}
	images, err := m.podman(ctx, "images", "--quiet", "--no-trunc")
	if err != nil {
		y.t.Error(err)
		return
	}
	image, _, _ := strings.Cut(images, "\n")
	remote := m.registry + "/" + reference
	digestFile := filepath.Join(m.home, "digest")
	y.push(reference, func() error {
		_, err := m.podman(ctx, "push", "--quiet", "--tls-verify=false", "--digestfile", digestFile, image, "docker://"+remote)
		return err
	})
	if _, err := m.podman(ctx, "rmi", "--all", "--force"); err != nil {
		y.t.Error(err)
	}
	y.pull(reference, func() error {
		_, err := m.podman(ctx, "pull", "--quiet", "--tls-verify=false", remote)
		return err
	})
	pushed, err := os.ReadFile(digestFile)
	if err != nil {
		y.t.Error(err)
		return
	}
	pulled, err := m.podman(ctx, "image", "inspect", "--format", "{{.Digest}}", remote)
	if err != nil {
		y.t.Error(err)
	}
	if pulled != strings.TrimSpace(string(pushed)) {
		y.t.Errorf("podman pushed %s as %s and pulled %s", reference, pushed, pulled)
	}
	if _, err := m.podman(ctx, "rmi", "--all", "--force"); err != nil {
		y.t.Error(err)
	}
}

// buildah builds: it pulls a base through the registry, puts a layer on it, and pushes the result packed anew.
type buildah struct {
	program
	registry string
}

func newBuildah(t testing.TB, registry string) buildah {
	return buildah{newProgram(t, "buildah"), registry}
}

func (b buildah) buildah(ctx context.Context, args ...string) (string, error) {
	all := []string{"--root", filepath.Join(b.home, "root"), "--runroot", filepath.Join(b.home, "runroot"), "--storage-driver", "vfs"}
	return b.run(ctx, append(all, args...)...)
}

// roundTrip builds one image on a base that is in the registry, pushes it, pulls it, and compares what was pushed with
// what came and with what the registry holds.
func (b buildah) roundTrip(ctx context.Context, y *tally, base, reference string) {
	recipe, extra, digestFile := filepath.Join(b.home, "Containerfile"), filepath.Join(b.home, "extra"), filepath.Join(b.home, "digest")
	remote := b.registry + "/" + reference
	for file, content := range map[string][]byte{
		recipe: []byte("FROM " + b.registry + "/" + base + "\nCOPY extra /extra\nLABEL made=" + reference + "\n"),
		extra:  noise(reference, 3<<20),
	} {
		if err := os.WriteFile(file, content, 0o644); err != nil {
			y.t.Error(err)
			return
		}
	}
	y.pull(base, func() error {
		_, err := b.buildah(ctx, "build", "--isolation", "chroot", "--tls-verify=false", "--pull-always", "--tag", remote,
			"--file", recipe, b.home)
		return err
	})
	y.push(reference, func() error {
		_, err := b.buildah(ctx, "push", "--quiet", "--tls-verify=false", "--digestfile", digestFile, remote, "docker://"+remote)
		return err
	})
	b.forget(ctx, y)
	y.pull(reference, func() error {
		_, err := b.buildah(ctx, "pull", "--quiet", "--tls-verify=false", remote)
		return err
	})
	pushed, err := os.ReadFile(digestFile)
	if err != nil {
		y.t.Error(err)
		return
	}
	pulled, err := b.buildah(ctx, "inspect", "--type", "image", "--format", "{{.FromImageDigest}}", remote)
	if err != nil {
		y.t.Error(err)
	}
	if pulled != string(pushed) {
		y.t.Errorf("buildah pushed %s as %s and pulled %s", reference, pushed, pulled)
	}
	y.holds(ctx, at("http://"+b.registry), reference, string(pushed))
	b.forget(ctx, y)
}

func (b buildah) forget(ctx context.Context, y *tally) {
	if _, err := b.buildah(ctx, "rmi", "--all", "--force"); err != nil {
		y.t.Error(err)
	}
}
