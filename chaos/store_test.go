package chaos

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pontoon-registry/pontoon/chaos/proxy"
)

// outage is a cluster whose store is taken away.
type outage struct {
	t      *testing.T
	d      *deployment
	b      *bucket
	node   *node
	repo   string
	layer  []byte
	digest string
}

func newOutage(t *testing.T, extra string) *outage {
	t.Helper()
	o := &outage{t: t, b: newBucket(t), repo: "chaos/outage", layer: noise("outage", 400_000)}
	o.d = newDeployment(t, &tuned{o.b, extra}, options{})
	o.node, o.digest = o.d.nodes[0], digestOf(o.layer)
	if err := at(o.d.url()).pushBlob(t.Context(), o.repo, o.layer); err != nil {
		t.Fatal(err)
	}
	body := manifest{MediaType: mediaManifest, ArtifactType: "chaos/outage", Config: new(describe(mediaConfig, o.layer))}.encode()
	if err := at(o.d.url()).putManifest(t.Context(), o.repo, "v1", mediaManifest, body); err != nil {
		t.Fatal(err)
	}
	return o
}

// tuned is a store with further keys.
type tuned struct {
	store
	extra string
}

func (s *tuned) yaml() string { return strings.TrimRight(s.store.yaml(), "\n") + "\n" + s.extra }

// get asks one node for the layer.
func (o *outage) get(n *node) (answer, time.Duration, error) {
	began := time.Now()
	r := at(n.url())
	defer r.client.CloseIdleConnections()
	a, err := r.do(o.t.Context(), http.MethodGet, "/v2/"+o.repo+"/blobs/"+o.digest, nil, nil)
	return a, machine.took(began), err
}

// metadata asks one node for all that needs no store, and pushes a tag.
func (o *outage) metadata(n *node) {
	o.t.Helper()
	r := at(n.url())
	defer r.client.CloseIdleConnections()
	for _, path := range []string{"/manifests/v1", "/tags/list", "/blobs/" + o.digest} {
		method := http.MethodGet
		if strings.HasPrefix(path, "/blobs/") {
			method = http.MethodHead
		}
		began := time.Now()
		if _, err := r.want(o.t.Context(), http.StatusOK, method, "/v2/"+o.repo+path, http.Header{"Accept": {mediaManifest}}, nil); err != nil {
			o.t.Error(err)
		}
		if took := machine.took(began); took > 5*time.Second { // far above what a busy machine needs, far below a store's timeout
			o.t.Errorf("%s took %v without a store", path, took)
		}
	}
	body := manifest{MediaType: mediaManifest, ArtifactType: "chaos/outage", Config: new(describe(mediaConfig, o.layer)),
		Annotations: map[string]string{"at": time.Now().String()}}.encode()
	if err := r.putManifest(o.t.Context(), o.repo, "during", mediaManifest, body); err != nil {
		o.t.Error(err)
	}
}

// opens waits until a node's breaker is open, with many clients asking for the layer, none of which may get anything but
// a 503 that says when to come back.
func (o *outage) opens(n *node, within time.Duration) {
	o.t.Helper()
	ctx, cancel := context.WithTimeout(o.t.Context(), within)
	defer cancel()
	var group sync.WaitGroup
	var open atomic.Bool
	for range 8 {
		group.Go(func() {
			for !open.Load() && ctx.Err() == nil {
				a, took, err := o.get(n)
				if err != nil || a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" {
					o.t.Errorf("layer from a dead store: %d %v %v after %v", a.status, a.header, err, took)
					return
				}
				if v, err := n.metric("pontoon_storage_breaker_open"); err == nil && v == 1 {
					open.Store(true)
				}
			}
		})
	}
	group.Wait()
	if !open.Load() && !o.t.Failed() {
		o.t.Errorf("%s: the breaker did not open within %v", n.name, within)
	}
}

// refuses checks that an open breaker answers without asking: of many requests most are quick, since only one in three
// seconds is the probe.
func (o *outage) refuses(n *node) {
	o.t.Helper()
	quick := 0
	for range 20 {
		a, took, err := o.get(n)
		if err != nil || a.status != http.StatusServiceUnavailable {
			o.t.Errorf("open breaker: %d %v", a.status, err)
		}
		if took < time.Second {
			quick++
		}
	}
	if quick < 17 {
		o.t.Errorf("%d of 20 refusals were quick", quick)
	}
	if v, err := n.metric("pontoon_storage_refused_total"); err != nil || v < 1 {
		o.t.Errorf("pontoon_storage_refused_total is %v, %v", v, err)
	}
	eventually(o.t, 10*time.Second, "health to be 200 and to name the store", func() error { // its results are kept for a second
		health, err := get("http://"+n.debug+"/debug/health", 10*time.Second)
		if err == nil && (!strings.Contains(string(health), `"name": "store"`) || !strings.Contains(string(health), `"ok": false`)) {
			err = fmt.Errorf("it says %s", health)
		}
		return err
	})
}

// recovers waits until a node serves the layer again.
func (o *outage) recovers(n *node) {
	o.t.Helper()
	began := time.Now()
	eventually(o.t, 20*time.Second, n.name+" to serve layers again", func() error {
		a, _, err := o.get(n)
		if err == nil && (a.status != http.StatusOK || digestOf(a.body) != o.digest) {
			err = fmt.Errorf("answered %d", a.status)
		}
		return err
	})
	o.t.Logf("%s served layers %v after the store was back", n.name, time.Since(began).Round(time.Millisecond))
}

// TestADeadStoreIsAQuick503ForLayersOnly takes the store away in the two ways in which they go, and gives it back.
func TestADeadStoreIsAQuick503ForLayersOnly(t *testing.T) {
	o := newOutage(t, "    calltimeout: 3s")
	r := at(o.d.nodes[1].url())
	half := noise("outage upload", 9<<20) // a part and a tail
	location, err := r.openUpload(t.Context(), o.repo)
	if err == nil {
		location, err = r.patch(t.Context(), location, 0, half[:len(half)-1000])
	}
	if err != nil {
		t.Fatal(err)
	}
	ends := map[string]struct{ take, give func() }{
		"hangs": {o.b.server.pause, o.b.server.wake},
		"dies":  {o.b.server.kill, o.b.restart},
	}
	for _, how := range []string{"hangs", "dies"} {
		t.Run("it "+how, func(t *testing.T) {
			o.t = t
			o.node.proc.forgetPeak()
			ends[how].take()
			o.opens(o.node, time.Minute)
			o.refuses(o.node)
			o.pushesAreRefused(o.node)
			for _, n := range o.d.nodes {
				o.metadata(n)
			}
			// Again where a leader is elected just now: the store is away as long as this is asked.
			eventually(t, 20*time.Second, "all nodes to be ready without a store", o.ready)
			if peak := o.node.proc.peakMemory(); peak > 500<<20 {
				t.Errorf("%d MiB were used without a store", peak>>20)
			}
			ends[how].give()
			o.recovers(o.node)
			for _, n := range o.d.nodes {
				o.recovers(n)
			}
		})
	}
	o.t = t
	if _, err := r.patch(t.Context(), location, len(half)-1000, half[len(half)-1000:]); err != nil {
		t.Errorf("an upload that was saved before: %v", err)
	}
	if err := r.commit(t.Context(), location, digestOf(half)); err != nil {
		t.Errorf("an upload that was saved before: %v", err)
	}
	if err := r.blob(t.Context(), o.repo, digestOf(half)); err != nil {
		t.Error(err)
	}
	o.d.agree()
}

// pushesAreRefused pushes many large layers at once while the store is away: none is answered as stored, none hangs.
func (o *outage) pushesAreRefused(n *node) {
	o.t.Helper()
	content := noise("refused", 12<<20)
	var group sync.WaitGroup
	for range 16 {
		group.Go(func() {
			r := at(n.url())
			defer r.client.CloseIdleConnections()
			if err := r.pushBlob(o.t.Context(), o.repo, content); err == nil {
				o.t.Error("a push without a store was answered as stored")
			}
		})
	}
	group.Wait()
}

// ready says whether every node and the balancer's view of it stayed ready.
func (o *outage) ready() error {
	var errs []error
	for _, n := range o.d.nodes {
		_, err := get(n.url()+"/readyz", 10*time.Second)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// restart starts the server that was killed, on its folder and port.
func (b *bucket) restart() {
	b.server = start(b.server.t, filepath.Dir(b.server.log.Name()), "versitygw", nil, b.server.cmd.Path, b.server.cmd.Args[1:]...)
}

// TestASlowStoreIsUsedAllTheSame: every answer takes longer, none fails.
func TestASlowStoreIsUsedAllTheSame(t *testing.T) {
	b := newBucket(t)
	line := newLine(t, strings.TrimPrefix(b.endpoint, "http://"), proxy.Mode{Down: proxy.Flow{Delay: 700 * time.Millisecond}})
	b.endpoint = "http://" + line.Addr()
	d := newDeployment(t, b, options{})
	var group sync.WaitGroup
	for n := range 12 {
		group.Go(func() {
			r, content := at(d.url()), noise(fmt.Sprint("slow", n), int64(100_000+n))
			if err := r.pushBlob(t.Context(), "chaos/slow", content); err != nil {
				t.Error(err)
			}
			if err := r.blob(t.Context(), "chaos/slow", digestOf(content)); err != nil {
				t.Error(err)
			}
			r.client.CloseIdleConnections()
		})
	}
	group.Wait()
	for _, n := range d.nodes {
		if v, err := n.metric("pontoon_storage_refused_total"); err == nil && v != 0 {
			t.Errorf("%s refused %v calls to a store that answers", n.name, v)
		}
	}
}

// objects are the layers' files below the bucket's folder.
func (b *bucket) objects(t *testing.T) (files []string) {
	t.Helper()
	root := b.server.cmd.Args[len(b.server.cmd.Args)-1]
	err := filepath.WalkDir(filepath.Join(root, b.name), func(path string, e os.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// object is the one of a size.
func (b *bucket) object(t *testing.T, size int) string {
	t.Helper()
	for _, f := range b.objects(t) {
		if info, err := os.Stat(f); err == nil && info.Size() == int64(size) {
			return f
		}
	}
	t.Fatalf("no object of %d bytes in the bucket", size)
	return ""
}

// flip changes a byte in place: of a layer of one part the store has a checksum.
func flip(file string) error {
	content, err := os.ReadFile(file)
	if err == nil {
		content[len(content)/2] ^= 1
		f, oerr := os.OpenFile(file, os.O_WRONLY, 0) // in place: attributes of the file are the server's
		if oerr != nil {
			return oerr
		}
		_, err = f.WriteAt(content, 0)
		err = errors.Join(err, f.Close())
	}
	return err
}

// TestALostLayerIsHealedByTheNextPush deletes or truncates what the store has, behind the registry's back.
func TestALostLayerIsHealedByTheNextPush(t *testing.T) {
	b := newBucket(t)
	d := newDeployment(t, b, options{})
	damage := map[string]func(string) error{
		"deleted":   os.Remove,
		"truncated": func(f string) error { return os.Truncate(f, 1000) },
		"emptied":   func(f string) error { return os.Truncate(f, 0) },
		"flipped":   flip,
	}
	i := 0
	for how, do := range damage {
		i++
		repo, other, content := fmt.Sprintf("chaos/lost%d", i), fmt.Sprintf("chaos/other%d", i), noise("lost "+how, int64(70_000+i))
		digest := digestOf(content)
		t.Run(how, func(t *testing.T) {
			a, c := at(d.nodes[0].url()), at(d.nodes[2].url())
			if err := a.pushBlob(t.Context(), repo, content); err != nil {
				t.Fatal(err)
			}
			body := manifest{MediaType: mediaManifest, ArtifactType: "chaos/lost", Config: new(describe(mediaConfig, content))}.encode()
			if err := a.putManifest(t.Context(), repo, "v1", mediaManifest, body); err != nil {
				t.Fatal(err)
			}
			if err := do(b.object(t, len(content))); err != nil {
				t.Fatal(err)
			}
			if err := a.blob(t.Context(), repo, digest); err == nil {
				t.Fatal("a damaged layer was served")
			}
			// From now on every node knows: a client's HEAD makes it push again, and there is nothing to mount.
			for _, n := range d.nodes {
				// A wrong byte is found after the last one was sent: the client may have its answer before the ledger.
				eventually(t, 10*time.Second, n.name+" to say that the layer is not there", func() error {
					_, err := at(n.url()).want(t.Context(), http.StatusNotFound, http.MethodHead, "/v2/"+repo+"/blobs/"+digest, nil, nil)
					return err
				})
			}
			if _, err := c.want(t.Context(), http.StatusAccepted, http.MethodPost, "/v2/"+other+"/blobs/uploads/?from="+repo+"&mount="+digest, nil, nil); err != nil {
				t.Error(err)
			}
			if err := c.pushBlob(t.Context(), other, content); err != nil {
				t.Fatal(err)
			}
			for _, n := range d.nodes {
				for _, r := range []string{repo, other} {
					if err := at(n.url()).blob(t.Context(), r, digest); err != nil {
						t.Errorf("%s, %s: %v", n.name, r, err)
					}
				}
			}
			if lost, err := d.nodes[0].metric("pontoon_blobs_lost_total"); err != nil || lost < 1 {
				t.Errorf("pontoon_blobs_lost_total is %v, %v", lost, err)
			}
		})
	}
	d.agree()
}

// TestAStoreThatCannotTellLosesNothing: with other credentials the store says no to all, and another bucket under the same
// name says that nothing is there. Neither may be taken for the loss of a layer.
func TestAStoreThatCannotTellLosesNothing(t *testing.T) {
	o := newOutage(t, "")
	logs, program := filepath.Dir(o.b.server.log.Name()), o.b.server.cmd.Path
	right := slices.Clone(o.b.server.cmd.Args[1:])
	empty := t.TempDir()
	if err := os.Mkdir(filepath.Join(empty, o.b.name), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		args   []string
		status int
	}{
		{"other credentials", replaced(right, secretKey, "rotated-away"), http.StatusInternalServerError},
		{"an empty bucket", replaced(right, right[len(right)-1], empty), http.StatusServiceUnavailable},
	} {
		o.b.server.kill()
		o.b.server = start(t, logs, "versitygw", nil, program, c.args...)
		asked := 0
		eventually(t, 30*time.Second, c.name+" to be told by five answers", func() error {
			a, _, err := o.get(o.node)
			if err != nil || a.status < 500 {
				t.Errorf("%s: answered %d, %v", c.name, a.status, err)
			}
			// While the server starts it is a 503 of another cause.
			if a.status == c.status && !strings.Contains(string(a.body), `"message":"service unavailable"`) {
				asked++
			}
			if asked < 5 {
				return fmt.Errorf("last answer %d %s, %d as wanted", a.status, a.body, asked)
			}
			return nil
		})
		o.metadata(o.node)
	}
	o.b.server.kill()
	o.b.server = start(t, logs, "versitygw", nil, program, right...)
	for _, n := range o.d.nodes {
		o.recovers(n)
		if lost, err := n.metric("pontoon_blobs_lost_total"); err != nil || lost != 0 {
			t.Errorf("%s marked %v lost, %v", n.name, lost, err)
		}
	}
}

func replaced(args []string, one, by string) []string {
	args = slices.Clone(args)
	for i, a := range args {
		if a == one {
			args[i] = by
		}
	}
	return args
}
