package chaos

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// nextOf is what `pontoon cluster trust` on a node says is safe to do next.
func (n *node) nextOf(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, pontoon(n.t), "cluster", "trust", "--config", n.config).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	_, next, found := strings.Cut(string(out), "\nnext: ")
	if !found {
		return "", fmt.Errorf("no next step in %s", out)
	}
	return next, nil
}

// TestTheClusterSecretRotatesUnderLoad as the runbook says, by what `pontoon cluster trust` says, while clients push and
// resolve through the balancer without retrying anything.
func TestTheClusterSecretRotatesUnderLoad(t *testing.T) {
	d := newDeployment(t, newBucket(t), options{})
	const repo, clients = "chaos/rotate", 6
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
				body := manifest{MediaType: mediaManifest, ArtifactType: "chaos/rotate", Config: new(describe(mediaEmpty, config)),
					Annotations: map[string]string{"tag": tag}}.encode()
				began := time.Now()
				if err := r.putManifest(t.Context(), repo, tag, mediaManifest, body); err != nil {
					if machine.excuses(t, began, err) {
						pause(context.Background(), calmTime/100) // or it burns the time of those who elect
						continue
					}
					t.Errorf("push of %s: %v", tag, err)
				}
				if digest, err := r.resolve(t.Context(), repo, tag); err != nil && !machine.excuses(t, began, err) || err == nil && digest != digestOf(body) {
					t.Errorf("tag %s resolves to %q, %v; pushed as %s", tag, digest, err, digestOf(body))
				}
				done[c]++
				pause(working, 5*time.Millisecond)
			}
		})
	}
	for i, step := range d.rotation("rotated-" + strings.Repeat("fedcba9876543210", 4)) {
		d.rotate(step, d.nodes[i%len(d.nodes)])
		pause(working, time.Second) // requests go through every step
	}
	stop()
	group.Wait()
	sum := 0
	for _, n := range done {
		sum += n
	}
	t.Logf("%d pushes and as many reads while the secret was rotated", sum)
	d.agree()
}

// turn is one step of a rotation: what the secret file holds, and what is then safe to do next.
type turn struct{ secrets, next string }

// rotation is how the secret of the cluster is replaced, step by step, as the runbook says.
func (d *deployment) rotation(fresh string) []turn {
	d.t.Helper()
	text, err := os.ReadFile(d.secret)
	if err != nil {
		d.t.Fatal(err)
	}
	old, calm := strings.TrimSpace(string(text)), fmt.Sprintf("nothing is under way: all %d nodes trust", len(d.nodes))
	return []turn{
		{old, calm},
		{old + "\n" + fresh, "it is safe to make it sign on every node"},
		{fresh + "\n" + old, "it is safe to remove it from every node"},
		{fresh, calm},
	}
}

// rotate makes one turn and waits until a node, which asks all, says that the next is safe.
func (d *deployment) rotate(step turn, ask *node) {
	d.t.Helper()
	d.spread(step.secrets)
	eventually(d.t, 45*time.Second, "the next step: "+step.next, func() error {
		next, err := ask.nextOf(context.Background())
		if err != nil || !strings.Contains(next, step.next) {
			return fmt.Errorf("%s says %q, %w", ask.name, next, err)
		}
		return nil
	})
}

// spread writes the secret file, which the nodes here share, and tells one node after the other.
func (d *deployment) spread(secrets string) {
	d.t.Helper()
	if err := os.WriteFile(d.secret+".new", []byte(secrets+"\n"), 0o600); err != nil {
		d.t.Fatal(err)
	}
	if err := os.Rename(d.secret+".new", d.secret); err != nil {
		d.t.Fatal(err)
	}
	for _, n := range d.nodes {
		n.proc.signal(syscall.SIGHUP)
		time.Sleep(300 * time.Millisecond)
	}
}
