package chaos

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"
)

// reached is a point, and what brings somebody by.
type reached struct {
	point, match string
	// stimulus is repeated until somebody has come by, and must end well once he was let go.
	stimulus func(ctx context.Context) error
	// behind says that stimulus does not wait for whom it brings by.
	behind bool
	// first are rules without which nobody comes.
	first []rule
}

// alone is one node that breaks on command, over a bucket.
type alone struct {
	t      testing.TB
	d      *deployment
	n      *node
	p      *points
	bucket *bucket
	count  atomic.Int64
}

const reachRepo = "chaos/points"

func newAlone(t testing.TB, extra string) *alone {
	t.Helper()
	a := &alone{t: t, bucket: newBucket(t)}
	a.d = newDeployment(t, &tuned{a.bucket, "  redirect:\n    disable: false"}, options{first: 1, slots: 1, quiet: true,
		cluster: []string{"log:", "  size: 1MiB"}, extra: extra,
		before: func(d *deployment) { a.p = withPoints(t, d.nodes[0], nil) },
	})
	a.n = a.d.nodes[0]
	return a
}

// registry is a client of the node that keeps no connection.
func (a *alone) registry() *registry {
	r := at(a.n.url())
	r.client.Transport.(*http.Transport).DisableKeepAlives = true
	return r
}

// content is like no other, and of another size.
func (a *alone) content(size int64) []byte {
	n := a.count.Add(1)
	return noise(fmt.Sprint("points", n), size+n)
}

func (a *alone) push(ctx context.Context) error {
	return a.registry().pushBlob(ctx, reachRepo, a.content(1000))
}

// large pushes a chunk of such a size that the upload is saved on its way.
func (a *alone) large(ctx context.Context) error {
	r, content := a.registry(), a.content(65<<20)
	location, err := r.openUpload(ctx, reachRepo)
	if err == nil {
		location, err = r.patch(ctx, location, 0, content)
	}
	if err != nil {
		return err
	}
	return r.commit(ctx, location, digestOf(content))
}

// begun begins an upload of parts.
func (a *alone) begun(ctx context.Context) (r *registry, location string, err error) {
	r = a.registry()
	if location, err = r.openUpload(ctx, reachRepo); err == nil {
		location, err = r.patch(ctx, location, 0, a.content(9<<20))
	}
	return r, location, err
}

func (a *alone) pull(ctx context.Context) error {
	r, content := a.registry(), a.content(1000)
	if err := r.pushBlob(ctx, reachRepo, content); err != nil {
		return err
	}
	return r.blob(ctx, reachRepo, digestOf(content))
}

// tag puts a manifest as large as they may be that lie in the state: twenty of them fill the log.
func (a *alone) tag(ctx context.Context) error {
	config := a.content(100)
	body := manifest{MediaType: mediaManifest, ArtifactType: "chaos/points", Config: new(describe(mediaConfig, config)),
		Annotations: map[string]string{"noise": fmt.Sprintf("%x", a.content(25_000))}}.encode()
	r := a.registry()
	if err := r.pushBlob(ctx, reachRepo, config); err != nil {
		return err
	}
	return r.putManifest(ctx, reachRepo, "latest", mediaManifest, body)
}

func (a *alone) collect(context.Context) error {
	_, err := a.n.cli("gc", "run", "--wait")
	return err
}

// garbage makes some and collects what is garbage already.
func (a *alone) garbage(ctx context.Context) error {
	if err := a.push(ctx); err != nil {
		return err
	}
	return a.collect(ctx)
}

// canceled leaves a multipart upload to be ended.
func (a *alone) canceled(ctx context.Context) error {
	r, location, err := a.begun(ctx)
	if err == nil {
		_, err = r.want(ctx, http.StatusNoContent, http.MethodDelete, location, nil, nil)
	}
	if err != nil {
		return err
	}
	return a.collect(ctx)
}

// verify loses a layer behind the registry's back, and lets it look.
func (a *alone) verify(ctx context.Context) error {
	content := a.content(4321)
	if err := a.registry().pushBlob(ctx, reachRepo, content); err != nil {
		return err
	}
	if err := a.bucket.lose(ctx, int64(len(content))); err != nil {
		return err
	}
	_, _ = a.n.cli("gc", "verify") // it complains, of course
	return nil
}

func (a *alone) snapshot(context.Context) error {
	_, err := a.n.cli("snapshot", "save")
	return err
}

// TestEveryPointHoldsWhoComesBy drives a node to each of its points, before and after the call, and sees that whoever comes
// by waits there until he is let go, and ends well then.
func TestEveryPointHoldsWhoComesBy(t *testing.T) {
	t.Parallel()
	a := newAlone(t, "gc:\n  unsafeshort: true\n  grace: 1s\n  delay: 1s\n  uploads: 2s\n  orphans: 2s\n  schedule: never\nbackup:\n  enabled: false\n")
	despite := func(stimulus func(context.Context) error) func(context.Context) error {
		return func(ctx context.Context) error { _ = stimulus(ctx); return nil } // it breaks: that is how one gets there
	}
	noPresign := rule{Point: "store.presign.before", Action: "fail"}
	for _, r := range []reached{
		{point: "store.writer", stimulus: a.push},
		{point: "store.write", stimulus: a.push},
		{point: "store.save", stimulus: a.large},
		{point: "store.close", stimulus: a.push},
		{point: "store.abandon", stimulus: despite(a.push), first: []rule{{Point: "store.write.before", Action: "fail"}}},
		{point: "store.finish", stimulus: a.push},
		{point: "store.presign", stimulus: a.pull},
		{point: "store.open", stimulus: a.pull, first: []rule{noPresign}},
		{point: "store.stat", stimulus: despite(a.pull), first: []rule{noPresign, {Point: "store.open.before", Action: "fail", Error: "corrupt"}}},
		{point: "ledger.propose", match: "CommitUpload", stimulus: a.push},
		{point: "ledger.view", stimulus: a.pull},
		{point: "log.store", match: "CommitUpload", stimulus: a.push},
		{point: "log.delete", stimulus: a.tag, behind: true},
		{point: "state.apply", match: "CommitUpload", stimulus: a.push},
		{point: "state.commit", stimulus: a.push},
		{point: "gc.list", stimulus: a.garbage},
		{point: "gc.listmultiparts", stimulus: a.garbage},
		{point: "gc.delete", stimulus: a.garbage},
		{point: "gc.abort", stimulus: a.canceled},
		{point: "gc.stat", stimulus: a.verify},
		{point: "mark.get", stimulus: a.garbage},
		{point: "mark.put", stimulus: a.garbage},
	} {
		t.Run(r.point, func(t *testing.T) { a.holds(t, r) })
	}
}

// TestEveryPointOfBackupsHoldsWhoComesBy does the same where backups protect what is garbage.
func TestEveryPointOfBackupsHoldsWhoComesBy(t *testing.T) {
	t.Parallel()
	a := newAlone(t, "backup:\n  enabled: true\n  schedule: \"@daily\"\n  keep: 1\n  keepfor: 1s\n")
	for _, r := range []reached{
		{point: "archive.put", match: "/full/", stimulus: a.snapshot},
		{point: "archive.get", stimulus: a.snapshot},
		{point: "archive.list", stimulus: a.snapshot, behind: true},
		{point: "archive.delete", stimulus: a.snapshot, behind: true},
	} {
		t.Run(r.point, func(t *testing.T) { a.holds(t, r) })
	}
}

// pointPatience is how long somebody may take to come by.
const pointPatience = time.Minute

// holds drives the node to one point.
func (a *alone) holds(t *testing.T, r reached) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*pointPatience)
	defer cancel()
	defer a.p.heal(context.WithoutCancel(ctx))
	for _, first := range r.first {
		if _, err := a.p.arm(ctx, first); err != nil {
			t.Fatal(err)
		}
	}
	before, err := a.p.pause(ctx, r.point+".before", r.match)
	if err != nil {
		t.Fatal(err)
	}
	going, halt := context.WithCancel(ctx)
	defer halt()
	ended := make(chan error, 1)
	go func() {
		for {
			if err := r.stimulus(ctx); err != nil || going.Err() != nil {
				ended <- err
				return
			}
		}
	}()
	isHeld := func(held *armed) {
		t.Helper()
		err := held.acted(ctx, pointPatience)
		switch seen, lerr := held.look(ctx); {
		case err != nil && len(ended) > 0:
			t.Fatalf("%v: what should bring somebody by failed: %v", err, <-ended)
		case errors.Join(err, lerr) != nil || seen.Held < 1:
			t.Fatalf("nobody is held: %+v, %v", seen, errors.Join(err, lerr))
		case len(ended) > 0 && !r.behind:
			t.Fatalf("it ended, with %v, although somebody is held: %+v", <-ended, seen)
		}
	}
	isHeld(before)
	halt()
	// Armed only now: who was between the two already would be held there, and never come by before.
	after, err := a.p.pause(ctx, r.point+".after", r.match)
	if _, rerr := before.release(ctx); errors.Join(err, rerr) != nil {
		t.Fatal(err, rerr)
	}
	isHeld(after)
	if _, err := after.release(ctx); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("after it was let go: %v", err)
		}
	case <-ctx.Done():
		t.Error("it did not go on when it was let go")
	}
}
