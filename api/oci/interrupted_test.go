package oci

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"strings"
	"testing"
	"time"

	"github.com/pontoon-registry/pontoon/blobs"
	"github.com/pontoon-registry/pontoon/blobs/mem"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// breaking sends data and then fails like a connection that is cut.
type breaking struct {
	data io.Reader
	then func() error
}

func (b *breaking) Read(p []byte) (int, error) {
	n, err := b.data.Read(p)
	if err == io.EOF {
		return n, b.then()
	}
	return n, err
}

// cutAfter sends data in a request of unknown length whose connection then breaks.
func (r *rig) cutAfter(method, url string, data []byte) {
	r.t.Helper()
	body := &breaking{bytes.NewReader(data), func() error { return io.ErrClosedPipe }}
	req, err := http.NewRequestWithContext(r.t.Context(), method, r.url+url, body)
	if err != nil {
		r.t.Fatal(err)
	}
	if res, err := r.client.Do(req); err == nil {
		_ = res.Body.Close()
		r.t.Fatalf("%s %s: answered %d in spite of its broken body", method, url, res.StatusCode)
	}
}

// offset waits until the upload has arrived at want bytes: the client hears of a cut before the server.
func (r *rig) offset(loc string, want int) {
	r.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		p := r.want(r.do("GET", loc, nil), http.StatusNoContent)
		if p.Header.Get("Range") == fmt.Sprintf("0-%d", max(want-1, 0)) {
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("range %q, want %d bytes", p.Header.Get("Range"), want)
		}
	}
}

func TestABrokenPatchIsSavedAndResumedThroughAnotherNode(t *testing.T) {
	stores(t, func(t *testing.T, s blobs.Store) {
		r := newRigOn(t, s, nil)
		data := content("cut", 9000)
		loc := r.begin("a")
		r.cutAfter("PATCH", loc, data[:5000])
		r.offset(loc, 5000)
		_, other := r.node()
		r.want(r.do("PATCH", other+loc, bytes.NewReader(data[5000:]), "Content-Range", "5000-8999"), 202)
		r.want(r.do("PUT", loc+"?digest="+sha(data), nil), 201)
		if p := r.want(r.do("GET", "/v2/a/blobs/"+sha(data), nil), 200); !bytes.Equal(p.body, data) {
			t.Error("other bytes came back")
		}
	})
}

func TestABrokenWholePutIsRepeatedFromTheBeginning(t *testing.T) {
	r := newRig(t, nil)
	data := content("whole", 9000)
	loc := r.begin("a")
	r.cutAfter("PUT", loc+"?digest="+sha(data), data[:5000])
	r.offset(loc, 0)
	r.want(r.do("PUT", loc+"?digest="+sha(data), bytes.NewReader(data)), 201)
}

func TestABrokenPostLeavesNothingOpen(t *testing.T) {
	r := newRig(t, nil)
	cancelled := make(chan struct{})
	r.ledger.refuse = func(c *metav1.Command) error {
		if c.GetCancelUpload() != nil {
			close(cancelled)
		}
		return nil
	}
	r.cutAfter("POST", "/v2/a/blobs/uploads/?digest="+sha(nil), content("x", 10))
	select {
	case <-cancelled:
	case <-time.After(time.Minute):
		t.Fatal("the upload was not cancelled")
	}
}

// stalling is a body that sends data and then waits for release, or for the client to close it.
func stalling(data []byte) (body io.Reader, release func()) {
	in, out := io.Pipe()
	return struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(data), in), in}, func() { _ = out.Close() }
}

// stalled pushes data and then nothing, which is ended, and demands that data is saved. On a machine that stands still for
// IdleTimeout it may not have come by then, so it is asked a few times.
func (r *rig) stalled(data []byte) {
	r.t.Helper()
	for try := 1; ; try++ {
		loc := r.begin("a")
		body, release := stalling(data)
		p := r.do("PATCH", loc, body)
		release()
		r.wantError(p, http.StatusRequestTimeout, "BLOB_UPLOAD_INVALID")
		saved := r.want(r.do("GET", loc, nil), http.StatusNoContent).Header.Get("Range")
		if saved == fmt.Sprintf("0-%d", len(data)-1) {
			return
		}
		if try == 5 {
			r.t.Fatalf("range %q, want %d bytes", saved, len(data))
		}
	}
}

func TestAStalledBodyIsSavedAndEnded(t *testing.T) {
	r := newRig(t, func(c *Config) { c.IdleTimeout = 500 * time.Millisecond })
	r.stalled(content("slow", 1500))
}

func TestASlowBodyThatLivesIsNotCut(t *testing.T) {
	const idle = time.Second
	r := newRig(t, func(c *Config) { c.IdleTimeout = idle })
	data := content("drip", 10)
	for try := 1; ; try++ {
		in, out := io.Pipe()
		silent := make(chan time.Duration, 1) // the client at most
		go func() {                           // ends with the pipe
			tick := time.NewTicker(150 * time.Millisecond) // longer than IdleTimeout in all
			defer tick.Stop()
			var err error
			longest, last := time.Duration(0), time.Now()
			for i := 0; i < len(data) && err == nil; i++ {
				<-tick.C
				_, err = out.Write(data[i : i+1])
				longest, last = max(longest, time.Since(last)), time.Now()
			}
			_ = out.Close()
			silent <- longest
		}()
		p := r.do("PATCH", r.begin("a"), in)
		if longest := <-silent; p.StatusCode == http.StatusRequestTimeout && longest > idle/2 && try < 20 {
			continue // the machine stood still, and the client with it
		}
		r.want(p, 202)
		r.want(r.do("PUT", p.Header.Get("Location")+"?digest="+sha(data), nil), 201)
		return
	}
}

func TestALaterRequestEndsTheEarlierWriter(t *testing.T) {
	stores(t, func(t *testing.T, s blobs.Store) {
		r := newRigOn(t, s, nil)
		data := content("two", 3000)
		loc := r.begin("a")
		sent := make(chan struct{})
		body, release := stalling(content("other", 2000))
		defer release()
		first := make(chan int, 1)
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
			WroteHeaders: func() { close(sent) },
		})
		go func() { // ends when the server answers
			req, _ := http.NewRequestWithContext(ctx, "PATCH", r.url+loc, body)
			res, err := r.client.Do(req)
			if err != nil {
				first <- 0
				return
			}
			_ = res.Body.Close()
			first <- res.StatusCode
		}()
		<-sent
		r.busy("a", loc)
		r.want(r.do("PATCH", loc, bytes.NewReader(data), "Content-Range", "0-2999"), 202)
		if status := <-first; status != http.StatusRequestedRangeNotSatisfiable {
			t.Errorf("the earlier request was answered %d", status)
		}
		r.want(r.do("PUT", loc+"?digest="+sha(data), nil), 201)
	})
}

// busy waits until a request writes the upload.
func (r *rig) busy(repo, loc string) {
	r.t.Helper()
	id := loc[strings.LastIndexByte(loc, '/')+1:]
	deadline := time.Now().Add(time.Minute)
	for time.Now().Before(deadline) {
		r.handler.writers.mu.Lock()
		w := r.handler.writers.active[repo+"/"+id]
		r.handler.writers.mu.Unlock()
		if w != nil {
			return
		}
	}
	r.t.Fatal("nobody writes the upload")
}

func TestAnAttemptWhoseSaveIsRefusedEnds(t *testing.T) {
	r := newRig(t, nil)
	_, other := r.node()
	loc := r.begin("a")
	first := make(chan reply, 1)
	body, release := stalling(content("one", 2000))
	go func() { first <- r.do("PATCH", loc, body) }() // ends when the server answers
	r.busy("a", loc)
	data := content("two", 3000)
	r.want(r.do("PATCH", other+loc, bytes.NewReader(data)), 202)
	release()
	p := <-first
	r.wantError(p, http.StatusRequestedRangeNotSatisfiable, "BLOB_UPLOAD_INVALID")
	r.want(r.do("PUT", loc+"?digest="+sha(data), nil), 201)
}

func TestALongUploadIsSavedOnTheWay(t *testing.T) {
	for name, s := range map[string]blobs.Store{"mem": mem.New(64 << 10), "fs": newDirectory(t)} {
		r := newRigOn(t, s, func(c *Config) { c.SaveBytes = 2 << 20 })
		loc := r.begin("a")
		data := content("long", 20<<20)
		saves := 0
		r.ledger.refuse = func(c *metav1.Command) error {
			if c.GetSaveUpload() != nil {
				saves++
			}
			return nil
		}
		r.want(r.do("PATCH", loc, bytes.NewReader(data)), 202)
		if saves < 3 {
			t.Errorf("%s: %d saves of 20 MiB, want at least 3", name, saves)
		}
		r.want(r.do("PUT", loc+"?digest="+sha(data), nil), 201)
		if p := r.want(r.do("GET", "/v2/a/blobs/"+sha(data), nil), 200); !bytes.Equal(p.body, data) {
			t.Error("other bytes came back")
		}
	}
}

func TestAResumeFromAMidwaySaveContinuesTheHash(t *testing.T) {
	r := newRig(t, func(c *Config) { c.SaveBytes = 64 << 10 })
	data := content("mid", 256<<10)
	loc := r.begin("a")
	// The node dies: nothing after the midway save reaches the ledger.
	saves := 0
	r.ledger.refuse = func(c *metav1.Command) error {
		if c.GetSaveUpload() == nil {
			return nil
		}
		if saves++; saves > 1 {
			return context.DeadlineExceeded
		}
		return nil
	}
	r.wantError(r.do("PATCH", loc, bytes.NewReader(data)), 503, "UNAVAILABLE")
	r.ledger.refuse = nil
	p := r.want(r.do("GET", loc, nil), 204)
	var end int
	if _, err := fmt.Sscanf(p.Header.Get("Range"), "0-%d", &end); err != nil || end < 1 {
		t.Fatalf("range %q: the midway save is not there", p.Header.Get("Range"))
	}
	_, other := r.node()
	r.want(r.do("PATCH", other+loc, bytes.NewReader(data[end+1:]), "Content-Range", fmt.Sprintf("%d-%d", end+1, len(data)-1)), 202)
	before := r.store.calls.Load()
	r.want(r.do("PUT", loc+"?digest="+sha(data), nil), 201)
	if n := r.store.calls.Load() - before; n != 1 {
		t.Errorf("%d storage calls at PUT, want Finish alone: the hash state did not travel", n)
	}
}

func TestAnUploadWhoseBytesAreLostStartsOver(t *testing.T) {
	r := newRig(t, nil)
	loc := r.begin("a")
	r.want(r.do("PATCH", loc, bytes.NewReader(content("x", 100))), 202)
	for _, err := range []error{blobs.ErrCorrupt, blobs.ErrNotFound, blobs.ErrTakeover} {
		r.store.fail.Store(&err)
		r.wantError(r.do("PATCH", loc, bytes.NewReader(content("y", 100))), 404, "BLOB_UPLOAD_UNKNOWN")
		r.wantError(r.do("PUT", loc+"?digest="+sha(nil), bytes.NewReader([]byte("y"))), 404, "BLOB_UPLOAD_UNKNOWN")
	}
}

func TestAStoreThatDoesNotAnswerIs503(t *testing.T) {
	r := newRig(t, nil)
	d := r.pushBlob("a", content("x", 100))
	loc := r.begin("a")
	down := fmt.Errorf("put: %w", blobs.ErrUnavailable)
	r.store.fail.Store(&down)
	for _, p := range []reply{
		r.do("PATCH", loc, bytes.NewReader(content("y", 100))),
		r.do("GET", "/v2/a/blobs/"+d, nil),
		r.do("POST", "/v2/a/blobs/uploads/?digest="+sha(nil), nil),
	} {
		if r.wantError(p, 503, "UNAVAILABLE").Header.Get("Retry-After") == "" {
			t.Errorf("%s: no Retry-After", p.Request.Method)
		}
	}
	r.want(r.do("HEAD", "/v2/a/blobs/"+d, nil), 200)
}
