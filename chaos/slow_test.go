package chaos

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestSlowClientsDoNotStarveOthers fills one node with clients that take or send a byte now and then, far more than the
// store's calls and memory are configured for: others push and pull meanwhile. Those that fall silent are ended.
func TestSlowClientsDoNotStarveOthers(t *testing.T) {
	const readers, writers = 64, 150
	b := newBucket(t)
	d := newDeployment(t, &tuned{b, "    memory: 8MiB\n    maxcalls: 4"}, options{idle: "6s"})
	const repo = "chaos/slow"
	n := d.nodes[0]
	big := noise("slow readers", 24<<20)
	if err := at(n.url()).pushBlob(t.Context(), repo, big); err != nil {
		t.Fatal(err)
	}

	hanging, stop := context.WithCancel(t.Context())
	var group sync.WaitGroup
	defer group.Wait()
	defer stop()
	var started sync.WaitGroup
	started.Add(readers + writers)
	for range readers {
		group.Go(func() { slowPull(hanging, t, n, "/v2/"+repo+"/blobs/"+digestOf(big), started.Done) })
	}
	for i := range writers {
		location, err := at(n.url()).openUpload(t.Context(), repo)
		if err != nil {
			t.Fatal(err)
		}
		first := []int{1, 40_000, 300_000}[i%3]
		group.Go(func() { slowPush(hanging, t, n, location, first, started.Done) })
	}
	started.Wait()

	n.proc.forgetPeak()
	var fast sync.WaitGroup
	for i := range 6 {
		fast.Go(func() {
			r, content := at(n.url()), noise(fmt.Sprint("fast", i), 10<<20)
			defer r.client.CloseIdleConnections()
			if err := r.pushBlob(t.Context(), repo, content); err != nil {
				t.Error(err)
			}
			for _, digest := range []string{digestOf(content), digestOf(big)} {
				if err := r.blob(t.Context(), repo, digest); err != nil {
					t.Error(err)
				}
			}
		})
	}
	fast.Wait()
	if hanging.Err() != nil || t.Failed() {
		t.Fatal("the slow clients did not hang on until the fast ones had ended")
	}
	t.Logf("peak memory of the node beside %d slow readers and %d slow writers: %d MiB", readers, writers, n.proc.peakMemory()>>20)

	silent := at(n.url())
	location, err := silent.openUpload(t.Context(), repo)
	if err != nil {
		t.Fatal(err)
	}
	conn := dialNode(t, n)
	defer conn.Close()
	fmt.Fprintf(conn, "PATCH %s HTTP/1.1\r\nHost: r\r\nContent-Length: 1000000\r\n\r\n%s", location, strings.Repeat("x", 5000))
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("a client that fell silent: %v", err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusRequestTimeout {
		t.Errorf("a client that fell silent: %v", answer)
	}
	if saved, err := silent.offset(t.Context(), location); err != nil || saved != 5000 {
		t.Errorf("of what it sent %d bytes are saved, %v", saved, err)
	}
}

func dialNode(t testing.TB, n *node) net.Conn {
	conn, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(context.Background(), "tcp", n.addr)
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.SetDeadline(time.Now().Add(2 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// slowPull begins to read a layer and takes a few bytes now and then.
func slowPull(ctx context.Context, t *testing.T, n *node, path string, started func()) {
	conn := dialNode(t, n)
	defer conn.Close()
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: r\r\n\r\n", path)
	in := bufio.NewReaderSize(conn, 4<<10)
	answer, err := http.ReadResponse(in, nil)
	started()
	if err != nil {
		t.Errorf("slow reader: %v", err)
		return
	}
	defer answer.Body.Close()
	defer conn.Close() // first: closing the body would read all that is left of it
	if answer.StatusCode != http.StatusOK {
		t.Errorf("slow reader: %v", answer)
		return
	}
	for ctx.Err() == nil {
		// Of the shared bytes a slow link takes: 32 KiB every half second keep the node's bound on a write that stands still.
		if _, err := io.CopyN(io.Discard, answer.Body, 32<<10); err != nil {
			t.Errorf("slow reader was cut: %v", err)
			return
		}
		pause(ctx, 500*time.Millisecond)
	}
}

// slowPush begins to send a layer of unknown length and sends a byte now and then.
func slowPush(ctx context.Context, t *testing.T, n *node, location string, first int, started func()) {
	conn := dialNode(t, n)
	defer conn.Close()
	fmt.Fprintf(conn, "PATCH %s HTTP/1.1\r\nHost: r\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n", location, first, strings.Repeat("y", first))
	started()
	for ctx.Err() == nil {
		if _, err := io.WriteString(conn, "1\r\nz\r\n"); err != nil {
			t.Errorf("slow writer was cut: %v", err)
			return
		}
		pause(ctx, 500*time.Millisecond)
	}
}
