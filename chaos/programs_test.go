package chaos

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// program runs one of the clients with a home of its own.
type program struct {
	path string
	home string
	env  []string
}

func newProgram(t testing.TB, name string) program {
	t.Helper()
	home, err := os.MkdirTemp("", "chaos-") // short: podman bounds the length of its runroot
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(home) })
	auth := filepath.Join(home, "auth.json")
	if err := os.WriteFile(auth, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	return program{path: need(t, name), home: home, env: append(os.Environ(),
		"HOME="+home, "XDG_RUNTIME_DIR="+home, "TMPDIR="+home, "REGISTRY_AUTH_FILE="+auth)}
}

func (p program) run(ctx context.Context, args ...string) (string, error) {
	within := 3 * time.Minute
	if *long { // 1 GiB beside eight other clients
		within = 10 * time.Minute
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	cmd := exec.CommandContext(ctx, p.path, args...)
	cmd.Env, cmd.Dir = p.env, p.home
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", filepath.Base(p.path), err, lastLines(complaints.Bytes(), 3))
	}
	return strings.TrimSpace(string(out)), nil
}

func lastLines(out []byte, n int) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], " / ")
}

type skopeo struct {
	program
	registry string
}

func newSkopeo(t testing.TB, registry string) client {
	return skopeo{newProgram(t, "skopeo"), registry}
}

func (s skopeo) push(ctx context.Context, from *layout, reference string) error {
	_, err := s.run(ctx, "copy", "--insecure-policy", "--all", "--preserve-digests", "--quiet",
		"--dest-tls-verify=false", "oci:"+from.dir+":v1", "docker://"+s.registry+"/"+reference)
	return err
}

func (s skopeo) pull(ctx context.Context, reference string, to *layout) error {
	_, err := s.run(ctx, "copy", "--insecure-policy", "--all", "--preserve-digests", "--quiet",
		"--src-tls-verify=false", "docker://"+s.registry+"/"+reference, "oci:"+to.dir+":v1")
	return err
}

type crane struct {
	program
	registry string
}

func newCrane(t testing.TB, registry string) client {
	return crane{newProgram(t, "crane"), registry}
}

func (c crane) push(ctx context.Context, from *layout, reference string) error {
	_, err := c.run(ctx, "push", "--insecure", from.dir, c.registry+"/"+reference)
	return err
}

func (c crane) pull(ctx context.Context, reference string, to *layout) error {
	_, err := c.run(ctx, "pull", "--insecure", "--format=oci", c.registry+"/"+reference, to.dir)
	return err
}

// regctl uploads in chunks of a fixed size whatever is larger than one, and goes on with an upload that was cut.
type regctl struct {
	program
	registry string
}

const regctlChunk = 8<<20 + 1

func newRegctl(t testing.TB, registry string) client {
	t.Helper()
	r := regctl{newProgram(t, "regctl"), registry}
	size := strconv.Itoa(regctlChunk)
	if _, err := r.run(t.Context(), "registry", "set", registry, "--tls", "disabled", "--skip-check",
		"--blob-chunk", size, "--blob-max", size); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r regctl) push(ctx context.Context, from *layout, reference string) error {
	_, err := r.run(ctx, "image", "copy", "ocidir://"+from.dir+":v1", r.registry+"/"+reference)
	return err
}

func (r regctl) pull(ctx context.Context, reference string, to *layout) error {
	_, err := r.run(ctx, "image", "copy", r.registry+"/"+reference, "ocidir://"+to.dir+":v1")
	return err
}
