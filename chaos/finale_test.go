package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/pontoon-registry/pontoon/chaos/check"
)

// finale judges what is left, once all faults are healed and nobody works any more.
func (r *chaos) finale() {
	t, d := r.t, r.a.d
	t.Helper()
	d.settle(settling)
	d.agree()
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	defer cancel()
	v := r.seasons.janitor
	for _, m := range r.shelf.held(limbo) { // nobody knows; now it is away
		v.deleteLimbo(ctx, r.shelf, m)
	}
	images := r.shelf.held(here)
	for _, n := range d.nodes {
		r.pullAll(n, images)
	}
	r.restored(images)
	r.bucketHolds(ctx, images)
	for _, n := range d.nodes {
		r.pullAll(n, images)
	}
	d.agree()
	r.bandsHold()
	var err error
	if r.effects, r.trimmed, err = d.nodes[0].points.effects(); err != nil {
		t.Errorf("%s: %v", d.nodes[0].name, err)
	}
	if !slices.ContainsFunc(r.effects, func(e check.Effect) bool { return e.Kind == check.TagPut }) {
		t.Error("the ledger's events tell of no tag that was written")
	}
	t.Logf("at the end %d images are there, whole on %d nodes", len(images), len(d.nodes))
	if len(images) == 0 {
		t.Error("no image is left: the end shows nothing")
	}
	r.ended = true
}

func (v *guest) deleteLimbo(ctx context.Context, s *shelf, m *shelved) {
	if v.until(ctx, func() bool {
		_, o := v.do(ctx, check.Operation{Class: check.Delete, Kind: "image-delete", Repo: "images", Key: m.repo + ":" + m.tag, Input: m.digest},
			request{method: http.MethodDelete, path: "/v2/" + m.repo + "/manifests/" + m.digest})
		v.explain(o, http.StatusAccepted, http.StatusNotFound)
		return o.Status == http.StatusAccepted || o.Status == http.StatusNotFound
	}) {
		s.set(m, away)
	}
}

// pullAll pulls images from one node, byte for byte (I1).
func (r *chaos) pullAll(n *node, images []*shelved) {
	const parallel = 6
	var group sync.WaitGroup
	for p := range parallel {
		group.Go(func() {
			from := at(n.url())
			defer from.client.CloseIdleConnections()
			for i := p; i < len(images); i += parallel {
				m := images[i]
				r.c.looked("I1")
				digest, err := from.image(context.Background(), m.repo, m.tag)
				if err == nil && digest != m.digest {
					err = fmt.Errorf("it is %s, pushed was %s", digest, m.digest)
				}
				if err != nil {
					r.c.violated("I1", "at the end %s:%s from %s: %v", m.repo, m.tag, n.name, err)
				}
			}
		})
	}
	group.Wait()
}

// restored takes a backup, restores it beside the cluster, and pulls all images from there.
func (r *chaos) restored(images []*shelved) {
	r.t.Helper()
	if _, err := r.a.d.nodes[0].cli("snapshot", "save"); err != nil {
		r.c.violated("backup", "a backup at the end: %v", err)
		return
	}
	beside := r.a.d.beside("drill", unarchived)
	beside.restore("latest")
	beside.begin()
	r.pullAll(beside.nodes[0], images)
	beside.nodes[0].proc.kill()
}

// bucketHolds collects until the bucket holds what the images need and no more (I2, I4).
func (r *chaos) bucketHolds(ctx context.Context, images []*shelved) {
	r.t.Helper()
	needed := map[string]int64{digestOf(emptyConfig): int64(len(emptyConfig))}
	for _, m := range images {
		for _, content := range m.blobs {
			needed[digestOf(content)] = int64(len(content))
		}
	}
	// What is late arrives under keys that nobody knows: it must be there to be collected.
	if !r.within(lateAtMost+lateAnswer, func(context.Context) bool { return r.a.s3.Pending() == 0 }) {
		r.t.Errorf("%d late requests did not arrive", r.a.s3.Pending())
	}
	began := time.Now()
	r.c.looked("I4")
	r.c.looked("I2")
	var err error
	if !r.within(3*time.Minute, func(context.Context) bool {
		_, gcErr := r.a.d.nodes[0].cli("gc", "run", "--wait")
		err = errors.Join(gcErr, r.a.bucket.holds(ctx, needed))
		return err == nil
	}) {
		r.c.violated("I4", "the bucket does not come to hold just what is needed: %v", err)
	}
	r.t.Logf("%d images need %d blobs, and the bucket held just these %v after the run", len(images), len(needed), time.Since(began).Round(100*time.Millisecond))
	if out, err := r.a.d.nodes[0].cli("gc", "verify"); err != nil {
		r.c.violated("I2", "gc verify: %v\n%s", err, out)
	}
}

// bandsHold demands that nodes need at the end what they needed under load, or less (I12).
func (r *chaos) bandsHold() {
	r.t.Helper()
	for _, n := range r.a.d.nodes {
		body, err := get("http://"+n.debug+"/metrics", 5*time.Second)
		if err != nil {
			r.t.Errorf("metrics of %s at the end: %v", n.name, err)
			continue
		}
		m := readMetrics(body)
		for measure, most := range map[string]float64{"go_goroutines": 400, "process_open_fds": 300} {
			if _, told := m[measure]; !told {
				r.t.Errorf("%s does not tell %s", n.name, measure)
			}
			r.c.looked("I12")
			if m[measure] > most {
				r.c.violated("I12", "%s has %s %v at the end, with nobody there; at most %v are its own", n.name, measure, m[measure], most)
			}
		}
		told, _ := json.Marshal(map[string]float64{"goroutines": m["go_goroutines"], "fds": m["process_open_fds"], "MiB": m["process_resident_memory_bytes"] / mib})
		r.t.Logf("%s at the end: %s", n.name, told)
	}
}
