package chaos

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// rollers is how many writers, and how many readers, work through a rolling restart.
const rollers = 16

// TestRollingRestartFailsNoRequest stops and starts one node after the other, the leader among them, as an upgrade does,
// while clients that repeat nothing push and pull through the balancer: half of them over kept connections, half over a
// new one for each request. No request may fail. One upload is longer than http.draintimeout and must go on elsewhere.
func TestRollingRestartFailsNoRequest(t *testing.T) {
	rounds := 1
	if *long {
		rounds = 5
	}
	d := newDeployment(t, newBucket(t), options{drain: "5s", cut: "4s"})
	const repo = "chaos/rolling"
	layer := noise("rolling", 300_000)
	if err := at(d.url()).pushBlob(t.Context(), repo, layer); err != nil {
		t.Fatal(err)
	}
	fixed := manifest{MediaType: mediaManifest, ArtifactType: "chaos/rolling", Config: new(describe(mediaConfig, layer))}.encode()
	if err := at(d.url()).putManifest(t.Context(), repo, "fixed", mediaManifest, fixed); err != nil {
		t.Fatal(err)
	}

	working, stop := context.WithCancel(t.Context())
	defer stop()
	var group sync.WaitGroup
	var done, failed atomic.Int64
	for n := range 2 * rollers {
		r := &roller{id: n, repo: repo, layer: layer, fixed: digestOf(fixed), caller: &caller{addr: d.balancer, keep: n%2 == 0}}
		work := r.read
		if n < rollers {
			work = r.write
		}
		group.Go(func() {
			defer r.caller.close()
			for i := 0; working.Err() == nil; i++ {
				// t.Context, not working: a request that has begun is finished.
				began := time.Now()
				if err := work(t.Context(), i); err != nil && !machine.excuses(t, began, err) {
					if failed.Add(1) <= 20 {
						t.Errorf("client %d, kept connections %v: %v", n, r.caller.keep, err)
					}
				}
				done.Add(1)
				pause(working, 10*time.Millisecond)
			}
		})
	}
	u := &upload{registry: at(d.url()), repo: repo, content: noise("long upload", 48<<20), hurry: working}
	group.Go(func() {
		if err := u.run(t.Context()); err != nil {
			t.Errorf("long upload: %v", err)
		}
	})

	for range rounds {
		d.roll(d.waitUntilDealt)
	}
	stop()
	group.Wait()
	t.Logf("%d rounds of work, %d failed; the long upload was cut %d times", done.Load(), failed.Load(), u.cuts)
	if u.cuts == 0 {
		t.Error("no restart cut the long upload: it proves nothing")
	}
	if err := at(d.url()).blob(t.Context(), repo, digestOf(u.content)); err != nil {
		t.Errorf("the long upload: %v", err)
	}
	d.agree()
}

// roll restarts one node after the other, the leader last, as an upgrade does, and waits for each.
func (d *deployment) roll(wait func(*node)) {
	d.t.Helper()
	leader := d.leader(20 * time.Second)
	for _, n := range append(d.others(leader), leader) {
		began := time.Now()
		d.stop(n)
		n.start()
		n.waitReady()
		wait(n)
		d.t.Logf("%s (leader %v) was restarted within %v", n.name, n == leader, time.Since(began).Round(time.Millisecond))
	}
}

// waitUntilDealt waits until the balancer deals requests to a node again, as its access counter shows.
func (d *deployment) waitUntilDealt(n *node) {
	d.t.Helper()
	eventually(d.t, 20*time.Second, "the balancer to deal requests to "+n.name, func() error {
		served, err := n.metric("registry_pulls_total")
		if err == nil && served == 0 {
			err = fmt.Errorf("no pull yet")
		}
		return err
	})
}

// roller is one client.
type roller struct {
	id     int
	repo   string
	layer  []byte
	fixed  string
	caller *caller
}

// write pushes a manifest under a tag of its own, every fourth time with a layer of its own, and reads it back.
func (r *roller) write(ctx context.Context, i int) error {
	tag := fmt.Sprintf("r%02d-%05d", r.id, i)
	config := describe(mediaConfig, r.layer)
	if i%4 == 0 {
		own := noise(tag, 20_000)
		if err := r.caller.push(ctx, r.repo, own); err != nil {
			return err
		}
		config = describe(mediaConfig, own)
	}
	body := manifest{MediaType: mediaManifest, ArtifactType: "chaos/rolling", Config: &config, Annotations: map[string]string{"tag": tag}}.encode()
	path := "/v2/" + r.repo + "/manifests/" + tag
	if _, err := r.caller.want(ctx, http.StatusCreated, http.MethodPut, path, http.Header{"Content-Type": {mediaManifest}}, body); err != nil {
		return err
	}
	a, err := r.caller.want(ctx, http.StatusOK, http.MethodHead, path, http.Header{"Accept": {mediaManifest}}, nil)
	if got := a.header.Get("Docker-Content-Digest"); err == nil && got != digestOf(body) {
		err = fmt.Errorf("tag %s resolves to %q, pushed as %s", tag, got, digestOf(body))
	}
	return err
}

// read pulls the fixed image.
func (r *roller) read(ctx context.Context, _ int) error {
	a, err := r.caller.want(ctx, http.StatusOK, http.MethodGet, "/v2/"+r.repo+"/manifests/fixed", http.Header{"Accept": {mediaManifest}}, nil)
	if err != nil {
		return err
	}
	if got := digestOf(a.body); got != r.fixed {
		return fmt.Errorf("tag fixed came as %s, want %s", got, r.fixed)
	}
	a, err = r.caller.want(ctx, http.StatusOK, http.MethodGet, "/v2/"+r.repo+"/blobs/"+digestOf(r.layer), nil, nil)
	if err == nil && digestOf(a.body) != digestOf(r.layer) {
		err = fmt.Errorf("layer came as %s (%d bytes)", digestOf(a.body), len(a.body))
	}
	return err
}

// upload is one blob that comes slowly, in one PATCH if it may. Whenever that is cut, it asks how much was saved and
// goes on from there.
type upload struct {
	registry *registry
	repo     string
	content  []byte
	hurry    context.Context // once it has ended, the rest comes at once
	cuts     int
}

func (u *upload) run(ctx context.Context) error {
	location, err := u.registry.openUpload(ctx, u.repo)
	if err != nil {
		return err
	}
	u.registry.client.Timeout = 10 * time.Minute
	defer u.registry.client.CloseIdleConnections()
	for offset := 0; offset < len(u.content) && u.cuts < 100; {
		rest := u.content[offset:]
		header := http.Header{"Content-Range": {fmt.Sprintf("%d-%d", offset, len(u.content)-1)}}
		_, err := u.registry.do(ctx, http.MethodPatch, location, header, io.MultiReader(&dribble{rest, u.hurry}))
		if err != nil {
			u.cuts++
		}
		now, err := u.registry.offset(ctx, location)
		if err != nil {
			return fmt.Errorf("after %d bytes and %d cuts: %w", offset, u.cuts, err)
		}
		if now < offset {
			return fmt.Errorf("%d bytes are saved, there were %d", now, offset)
		}
		offset = now
	}
	return u.registry.commit(ctx, location, digestOf(u.content))
}

// dribble hands out 32 KiB every 40 ms until it is told to hurry.
type dribble struct {
	rest  []byte
	hurry context.Context
}

func (d *dribble) Read(p []byte) (int, error) {
	if len(d.rest) == 0 {
		return 0, io.EOF
	}
	pause(d.hurry, 40*time.Millisecond)
	n := copy(p, d.rest[:min(len(d.rest), 32<<10)])
	d.rest = d.rest[n:]
	return n, nil
}
