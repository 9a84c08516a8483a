package chaos

import (
	"context"
	"testing"
	"time"
)

// restart stops one node as an upgrade does and starts it again, when the balancer has noticed that all are there.
func (d *deployment) restart(ctx context.Context, n *node) {
	pause(ctx, 2*time.Second)
	d.stop(n)
	n.start()
	n.waitReady()
}

// restartInTurn restarts one node after the other until the context ends, leaves all running, and returns how often.
func (d *deployment) restartInTurn(ctx context.Context) (restarts int) {
	for ; ctx.Err() == nil; restarts++ {
		d.restart(ctx, d.nodes[restarts%len(d.nodes)])
	}
	return restarts
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
