package chaos

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"
)

// TestRollingRestartFailsNoRequest stops and starts one node after the other, as an upgrade does, while clients push and
// resolve tags through the balancer without retrying anything.
func TestRollingRestartFailsNoRequest(t *testing.T) {
	d := newDeployment(t, newBucket(t), options{drain: "2s"})
	const repo, clients = "chaos/rolling", 8
	config := []byte("{}")
	if err := at(d.url()).pushBlob(t.Context(), repo, config); err != nil {
		t.Fatal(err)
	}
	working, stop := context.WithCancel(t.Context())
	defer stop()
	var group sync.WaitGroup
	done := make([]int, clients)
	for c := range clients {
		group.Go(func() {
			r := at(d.url())
			defer r.client.CloseIdleConnections()
			for i := 0; working.Err() == nil && !t.Failed(); i++ {
				tag := fmt.Sprintf("c%d-%d", c, i)
				body := manifest{MediaType: mediaManifest, ArtifactType: "chaos/rolling", Config: new(describe(mediaEmpty, config)),
					Annotations: map[string]string{"tag": tag}}.encode()
				// t.Context, not working: a request that has begun is finished.
				if err := r.putManifest(t.Context(), repo, tag, mediaManifest, body); err != nil {
					t.Errorf("push of %s: %v", tag, err)
				}
				if digest, err := r.resolve(t.Context(), repo, tag); err != nil || digest != digestOf(body) {
					t.Errorf("tag %s resolves to %q, %v; pushed as %s", tag, digest, err, digestOf(body))
				}
				done[c]++
				pause(working, 5*time.Millisecond)
			}
		})
	}
	for _, n := range d.nodes {
		pause(working, 2*time.Second) // the balancer has noticed that all are there
		if err := n.proc.terminate(90 * time.Second); err != nil {
			t.Errorf("%s ended with %v", n.name, err)
		}
		n.start()
		n.waitReady()
	}
	stop()
	group.Wait()
	sum := 0
	for _, n := range done {
		sum += n
	}
	t.Logf("%d pushes and as many reads while every node was restarted", sum)
	d.agree()
}

// TestClusterComesBackUnderOtherAddresses kills all nodes at once and starts them with none of the addresses they had.
func TestClusterComesBackUnderOtherAddresses(t *testing.T) {
	d := newDeployment(t, newDirectory(t), options{})
	const repo = "chaos/moved"
	content := noise("moved", 100_000)
	if err := at(d.url()).pushBlob(t.Context(), repo, content); err != nil {
		t.Fatal(err)
	}
	body := manifest{MediaType: mediaManifest, ArtifactType: "chaos/moved", Config: new(describe(mediaConfig, content))}.encode()
	if err := at(d.url()).putManifest(t.Context(), repo, "kept", mediaManifest, body); err != nil {
		t.Fatal(err)
	}
	for _, n := range d.nodes {
		n.proc.kill()
	}
	d.move()
	d.start()
	for _, n := range d.nodes {
		r := at(n.url())
		if digest, err := r.resolve(t.Context(), repo, "kept"); err != nil || digest != digestOf(body) {
			t.Errorf("%s: tag resolves to %q, %v; pushed as %s", n.name, digest, err, digestOf(body))
		}
		if err := r.blob(t.Context(), repo, digestOf(content)); err != nil {
			t.Errorf("%s: %v", n.name, err)
		}
		if err := r.putManifest(t.Context(), repo, n.name, mediaManifest, body); err != nil {
			t.Errorf("%s: %v", n.name, err)
		}
	}
	d.agree()
}
