package chaos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"
)

// chunking is one way to cut a blob into PATCH requests.
type chunking struct {
	name  string
	size  int // of the blob
	chunk int
}

// TestPushSpreadOverTheNodes pushes blobs whose requests all go to different nodes: undisturbed, with the node that was
// writing paused in the middle of a chunk and woken after the end, and with the node that answered last killed.
func TestPushSpreadOverTheNodes(t *testing.T) {
	d := newDeployment(t, newBucket(t), options{})
	cuts := []chunking{
		{"1 byte", 2 << 10, 1},
		{"1 MiB", 5<<20 + 17, 1 << 20},
		{"7 MiB", 22<<20 + 5, 7 << 20},
	}
	if !*long {
		cuts[0].size = 512 // a byte costs about two proposals
	}
	for i, cut := range cuts {
		t.Run("every request to the next node/"+cut.name, func(t *testing.T) {
			p := newSpread(t, d, fmt.Sprintf("spread/plain%d", i), cut, "plain")
			for p.offset < cut.size {
				p.next()
			}
			p.finish()
		})
	}
	for i, cut := range cuts {
		if cut.chunk == 1 && !*long {
			cut.size = 64
		}
		t.Run("the writer is paused and woken later/"+cut.name, func(t *testing.T) {
			p := newSpread(t, d, fmt.Sprintf("spread/paused%d", i), cut, "paused")
			p.next()
			p.next()
			// In turn the leader and a follower.
			victim := d.leader(20 * time.Second)
			if i%2 == 1 {
				victim = d.others(victim)[0]
			}
			p.throughSleeping(victim)
			p.finish()
		})
		t.Run("the last writer is killed/"+cut.name, func(t *testing.T) {
			p := newSpread(t, d, fmt.Sprintf("spread/killed%d", i), cut, "killed")
			p.next()
			victim := p.next()
			answered := p.offset
			victim.proc.kill()
			p.without(victim)
			p.resume()
			if p.offset < answered {
				t.Errorf("%d bytes were answered, %d are left after the kill of %s", answered, p.offset, victim.name)
			}
			for p.offset < cut.size {
				p.next()
			}
			p.finish()
			victim.start()
			victim.waitReady()
			p.readFrom(d.nodes)
		})
	}
	d.agree()
}

// spread is one upload that goes from node to node.
type spread struct {
	t        *testing.T
	ctx      context.Context
	d        *deployment
	repo     string
	content  []byte
	chunk    int
	nodes    []*node // that take part
	turn     int
	location string
	offset   int // acknowledged
}

func newSpread(t *testing.T, d *deployment, repo string, cut chunking, seed string) *spread {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	t.Cleanup(cancel)
	p := &spread{t: t, ctx: ctx, d: d, repo: repo, content: noise(seed+cut.name, int64(cut.size)), chunk: cut.chunk, nodes: d.nodes}
	location, err := at(p.node().url()).openUpload(ctx, repo)
	if err != nil {
		t.Fatalf("open upload: %v", err)
	}
	p.location = location
	return p
}

// node gives the next node its turn.
func (p *spread) node() *node {
	p.turn++
	return p.nodes[p.turn%len(p.nodes)]
}

func (p *spread) piece() []byte {
	return p.content[p.offset:min(p.offset+p.chunk, len(p.content))]
}

// next sends one chunk to the next node and returns that node.
func (p *spread) next() *node {
	p.t.Helper()
	n := p.node()
	client := at(n.url())
	defer client.client.CloseIdleConnections()
	piece := p.piece()
	location, err := client.patch(p.ctx, p.location, p.offset, piece)
	if err != nil {
		p.t.Fatalf("PATCH of %d bytes at %d on %s: %v", len(piece), p.offset, n.name, err)
	}
	p.location, p.offset = location, p.offset+len(piece)
	return n
}

// without leaves a node out of the turns.
func (p *spread) without(n *node) { p.nodes = p.d.others(n) }

// resume asks the nodes that are left how much is saved and goes on from there. While a leader is being elected they may
// say that they cannot tell, for a bounded time.
func (p *spread) resume() {
	p.t.Helper()
	eventually(p.t, 20*time.Second, "the upload's status from another node", func() error {
		n := p.node()
		offset, err := at(n.url()).offset(p.ctx, p.location)
		if err != nil {
			return err
		}
		p.offset = offset
		return nil
	})
}

// throughSleeping begins a chunk on the victim, pauses the victim in the middle of it, finishes the upload through the
// others, commits it, wakes the victim and lets it have the rest of its chunk.
func (p *spread) throughSleeping(victim *node) {
	p.t.Helper()
	piece, answered, location := p.piece(), p.offset, p.location
	body, feed := io.Pipe()
	late := make(chan error, 1)
	client := at(victim.url())
	go func() {
		header := http.Header{
			"Content-Type":  {"application/octet-stream"},
			"Content-Range": {fmt.Sprintf("%d-%d", answered, answered+len(piece)-1)},
		}
		a, err := client.do(p.ctx, http.MethodPatch, location, header, body)
		if err == nil && a.status == http.StatusAccepted {
			err = errors.New("the late writer was told that its chunk is saved")
		} else {
			err = nil
		}
		body.CloseWithError(io.ErrClosedPipe)
		late <- err
	}()
	half := len(piece) / 2
	if _, err := io.Copy(feed, bytes.NewReader(piece[:half])); err != nil {
		p.t.Fatalf("send half a chunk to %s: %v", victim.name, err)
	}
	time.Sleep(100 * time.Millisecond) // let the victim read what it can, so that it sleeps in the middle
	victim.proc.pause()
	awake := false
	defer func() {
		if !awake {
			victim.proc.wake()
		}
	}()
	p.without(victim)
	paused := time.Now()
	p.resume()
	p.t.Logf("%s paused at %d; after %v the others have %d", victim.name, answered, time.Since(paused).Round(time.Millisecond), p.offset)
	if p.offset < answered || p.offset > answered+half {
		p.t.Errorf("saved are %d bytes; %d were answered and %d more sent", p.offset, answered, half)
	}
	for p.offset < len(p.content) {
		p.next()
	}
	p.finish()

	p.t.Logf("committed through the others after %v", time.Since(paused).Round(time.Millisecond))
	awake = true
	victim.proc.wake()
	_, _ = feed.Write(piece[half:]) // the victim may have closed the connection already
	feed.Close()
	select {
	case err := <-late:
		if err != nil {
			p.t.Error(err)
		}
	case <-time.After(time.Minute):
		p.t.Errorf("%s did not answer its late chunk within a minute", victim.name)
	}
	p.t.Logf("the late writer was refused after %v", time.Since(paused).Round(time.Millisecond))
	victim.waitReady()
	p.readFrom(p.d.nodes)
	p.nodes = p.d.nodes
}

// finish commits, unless that is done, and reads the blob from every node that takes part.
func (p *spread) finish() {
	p.t.Helper()
	if p.location != "" {
		n := p.node()
		if err := at(n.url()).commit(p.ctx, p.location, digestOf(p.content)); err != nil {
			p.t.Fatalf("PUT on %s: %v", n.name, err)
		}
		p.location = ""
	}
	p.readFrom(p.nodes)
}

func (p *spread) readFrom(nodes []*node) {
	p.t.Helper()
	for _, n := range nodes {
		if err := at(n.url()).blob(p.ctx, p.repo, digestOf(p.content)); err != nil {
			p.t.Errorf("read from %s: %v", n.name, err)
		}
	}
}
