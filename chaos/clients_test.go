package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestClientsPushAndPullWhileTheLeaderDies lets skopeo, crane and podman push and pull real images through the balancer
// while the leader is killed and restarted over and over. Every digest is compared. A push may fail and must succeed
// when repeated; a pull may fail only because its own connection was cut, and must succeed when repeated.
func TestClientsPushAndPullWhileTheLeaderDies(t *testing.T) {
	p := newPictures(t)
	d := newDeployment(t, newBucket(t), options{})
	tally := &tally{t: t}

	during, whole := 45*time.Second, 4*time.Second
	if *long {
		// A layer over 1 GiB takes longer than a few seconds: between two kills there is time to push it again.
		during, whole = 10*time.Minute, 45*time.Second
	}
	ctx, cancel := context.WithTimeout(context.Background(), during+8*time.Minute)
	defer cancel()
	killing, stop := context.WithCancel(ctx)
	defer stop()
	var killer, group sync.WaitGroup
	killer.Go(func() { tally.leadersKilled = d.killLeaders(killing, whole) })

	began := time.Now()
	// again runs one round after the other, each to repositories of its own, so that nothing is there already.
	again := func(round func(i int)) {
		group.Go(func() {
			for i := 0; (i == 0 || time.Since(began) < during) && !t.Failed(); i++ {
				round(i)
			}
		})
	}
	for name, c := range map[string]client{"skopeo": newSkopeo(t, d), "crane": newCrane(t, d)} {
		again(func(i int) {
			tally.roundTrip(ctx, c, p.debian, fmt.Sprintf("%s/debian%d:v1", name, i))
			tally.roundTrip(ctx, c, p.multi, fmt.Sprintf("%s/multi%d:v1", name, i))
			if p.giant != nil && i%10 == 0 {
				tally.roundTrip(ctx, c, p.giant, fmt.Sprintf("%s/giant%d:v1", name, i))
			}
		})
	}
	m := newPodman(t, d)
	again(func(i int) { m.roundTrip(ctx, tally, p.debian, fmt.Sprintf("podman/debian%d:v1", i)) })
	artifacts := 0
	again(func(i int) {
		tally.artifact(ctx, d, i)
		artifacts++
		pause(ctx, 200*time.Millisecond)
	})
	group.Wait()
	stop()
	killer.Wait()

	for _, n := range d.nodes {
		n.waitReady()
	}
	tally.artifactsAreListed(ctx, d, artifacts)
	d.agree()
	t.Logf("leader killed %d times; %d pushes and %d pulls, %d artifacts with a subject among them; cut and repeated: %d pushes, %d pulls",
		tally.leadersKilled, tally.pushes, tally.pulls, artifacts, tally.pushFailures, tally.pullFailures)
	if tally.leadersKilled < 2 {
		t.Errorf("the leader was killed only %d times: the test shows little", tally.leadersKilled)
	}
}

// killLeaders kills the leader, brings it back, lets the cluster be whole for a time, and begins again until the context
// ends. It leaves all nodes running and returns how many it killed.
func (d *deployment) killLeaders(ctx context.Context, whole time.Duration) (killed int) {
	for {
		pause(ctx, whole)
		if ctx.Err() != nil {
			return killed
		}
		victim := d.leader(30 * time.Second)
		victim.proc.kill()
		killed++
		pause(ctx, 500*time.Millisecond)
		victim.start()
		victim.waitReady()
	}
}

// client is a program that moves whole images between a layout and a registry.
type client interface {
	// push and pull run the program once. reference is repository:tag.
	push(ctx context.Context, from *layout, reference string) error
	pull(ctx context.Context, reference string, to *layout) error
}

// tally counts what clients did and judges their failures.
type tally struct {
	t             testing.TB
	leadersKilled int

	mu                                        sync.Mutex // guards the counts
	pushes, pulls, pushFailures, pullFailures int
}

// cut is how clients say that their connection ended under them.
var cut = regexp.MustCompile(`EOF|connection reset|connection refused|broken pipe|closed network connection|server closed`)

const attempts = 4

// roundTrip pushes a layout, pulls it into an empty one, and compares all that both hold.
func (y *tally) roundTrip(ctx context.Context, c client, from *layout, reference string) {
	y.push(reference, func() error { return c.push(ctx, from, reference) })
	var to *layout
	y.pull(reference, func() error {
		to = newLayout(y.t)
		return c.pull(ctx, reference, to)
	})
	want, err := from.contents()
	if err != nil {
		y.t.Errorf("%s: %v", reference, err)
		return
	}
	got, err := to.contents()
	if err != nil {
		y.t.Errorf("%s: pulled: %v", reference, err)
		return
	}
	if !maps.Equal(got, want) {
		y.t.Errorf("%s: pulled %v, pushed %v", reference, got, want)
	}
	if err := os.RemoveAll(to.dir); err != nil {
		y.t.Errorf("%s: %v", reference, err)
	}
}

func (y *tally) push(reference string, once func() error) {
	failures := y.repeat("push "+reference, once, func(error) bool { return true })
	y.mu.Lock()
	defer y.mu.Unlock()
	y.pushes++
	y.pushFailures += failures
}

func (y *tally) pull(reference string, once func() error) {
	failures := y.repeat("pull "+reference, once, func(err error) bool { return cut.MatchString(err.Error()) })
	y.mu.Lock()
	defer y.mu.Unlock()
	y.pulls++
	y.pullFailures += failures
}

// repeat runs once until it succeeds, and reports failures that are not excused.
func (y *tally) repeat(what string, once func() error, excused func(error) bool) (failures int) {
	for {
		err := once()
		if err == nil {
			return failures
		}
		failures++
		if !excused(err) {
			y.t.Errorf("%s failed, and not because its connection was cut: %v", what, err)
		}
		if failures == attempts {
			y.t.Errorf("%s failed %d times: %v", what, failures, err)
			return failures
		}
		y.t.Logf("%s: attempt %d: %v", what, failures, err)
	}
}

const subjectRepo = "artifacts/subject"

// artifact pushes the number-th artifact that refers to one image, and first that image, through the balancer, every
// request to the next node.
func (y *tally) artifact(ctx context.Context, d *deployment, number int) {
	r := at(d.url())
	r.client.Transport.(*http.Transport).DisableKeepAlives = true
	subject, config := artifactSubject()
	if number == 0 {
		y.push(subjectRepo, func() error {
			if err := r.pushBlob(ctx, subjectRepo, config); err != nil {
				return err
			}
			return r.putManifest(ctx, subjectRepo, "subject", mediaManifest, subject)
		})
	}
	body := artifact(number)
	y.push(fmt.Sprintf("%s artifact %d", subjectRepo, number), func() error {
		return r.putManifest(ctx, subjectRepo, digestOf(body), mediaManifest, body)
	})
}

func artifactSubject() (subject, config []byte) {
	config = []byte("{}")
	return manifest{MediaType: mediaManifest, ArtifactType: "chaos/subject", Config: new(describe(mediaEmpty, config))}.encode(), config
}

func artifact(i int) []byte {
	subject, config := artifactSubject()
	return manifest{
		MediaType: mediaManifest, ArtifactType: "chaos/signature",
		Config:      new(describe(mediaEmpty, config)),
		Subject:     new(describe(mediaManifest, subject)),
		Annotations: map[string]string{"number": fmt.Sprint(i)},
	}.encode()
}

// artifactsAreListed asks every node for the referrers of the subject.
func (y *tally) artifactsAreListed(ctx context.Context, d *deployment, count int) {
	subject, _ := artifactSubject()
	var want []string
	for i := range count {
		want = append(want, digestOf(artifact(i)))
	}
	slices.Sort(want)
	for _, n := range d.nodes {
		var got []string
		path := "/v2/" + subjectRepo + "/referrers/" + digestOf(subject)
		for path != "" {
			a, err := at(n.url()).want(ctx, http.StatusOK, http.MethodGet, path, nil, nil)
			if err != nil {
				y.t.Errorf("referrers on %s: %v", n.name, err)
				return
			}
			var index manifest
			if err := json.Unmarshal(a.body, &index); err != nil {
				y.t.Errorf("referrers on %s: %v", n.name, err)
				return
			}
			for _, d := range index.Manifests {
				got = append(got, d.Digest)
			}
			path, _, _ = strings.Cut(strings.TrimPrefix(a.header.Get("Link"), "<"), ">")
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			y.t.Errorf("%s lists %d referrers, want %d", n.name, len(got), len(want))
		}
	}
}

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
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, p.path, args...)
	cmd.Env, cmd.Dir = p.env, p.home
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", filepath.Base(p.path), args[0], err, lastLines(out, 3))
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

func newSkopeo(t testing.TB, d *deployment) client {
	return skopeo{newProgram(t, "skopeo"), d.balancer}
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

func newCrane(t testing.TB, d *deployment) client {
	return crane{newProgram(t, "crane"), d.balancer}
}

func (c crane) push(ctx context.Context, from *layout, reference string) error {
	_, err := c.run(ctx, "push", "--insecure", from.dir, c.registry+"/"+reference)
	return err
}

func (c crane) pull(ctx context.Context, reference string, to *layout) error {
	_, err := c.run(ctx, "pull", "--insecure", "--format=oci", c.registry+"/"+reference, to.dir)
	return err
}

// podman keeps images unpacked and packs them anew to push, so it is compared by the digest that it says it pushed.
type podman struct {
	program
	registry string
}

func newPodman(t testing.TB, d *deployment) podman {
	return podman{newProgram(t, "podman"), d.balancer}
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
