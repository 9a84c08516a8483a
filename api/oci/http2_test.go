package oci

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/pontoon-registry/pontoon/blobs"
)

// TestPushesOverHTTP2 repeats what depends on deadlines and interruption where they work differently.
func TestPushesOverHTTP2(t *testing.T) {
	r := newRig(t, nil)
	r.overHTTP2()
	data := content("h2", 300<<10)
	p := r.want(r.do("PATCH", r.begin("a"), streamed(data)), 202)
	if p.ProtoMajor != 2 {
		t.Fatalf("spoken: %s", p.Proto)
	}
	r.want(r.do("PUT", p.Header.Get("Location")+"?digest="+sha(data), nil), 201)
	if p := r.want(r.do("GET", "/v2/a/blobs/"+sha(data), nil), 200); !bytes.Equal(p.body, data) {
		t.Error("other bytes came back")
	}

	hasty := newRig(t, func(c *Config) { c.IdleTimeout = 500 * time.Millisecond })
	hasty.overHTTP2()
	hasty.stalled(data[:1500])

	loc := r.begin("a")
	first := make(chan reply, 1)
	body, release := stalling(data[:10])
	defer release()
	go func() { first <- r.do("PATCH", loc, body) }() // ends when the server answers
	r.busy("a", loc)
	r.want(r.do("PATCH", loc, bytes.NewReader(data)), 202)
	if p := <-first; p.StatusCode != http.StatusRequestedRangeNotSatisfiable && p.StatusCode != http.StatusRequestTimeout {
		t.Errorf("the earlier request was answered %d", p.StatusCode)
	}
	r.want(r.do("PUT", loc+"?digest="+sha(data), nil), 201)
}

// overHTTP2 lets the client speak it from now on.
func (r *rig) overHTTP2() {
	s := httptest.NewUnstartedServer(r.handler)
	s.EnableHTTP2 = true
	s.StartTLS()
	r.t.Cleanup(s.Close)
	r.url, r.client = s.URL, s.Client()
}

// blocking is a store whose first Write takes longer than a client may be silent.
type blocking struct {
	blobs.Store
	took time.Duration
}

func (s *blocking) Writer(ctx context.Context, a blobs.Attempt) (blobs.Writer, error) {
	w, err := s.Store.Writer(ctx, a)
	return &blockingWriter{w, s.took}, err
}

type blockingWriter struct {
	blobs.Writer
	took time.Duration
}

func (w *blockingWriter) Write(p []byte) (int, error) {
	if w.took > 0 {
		t := time.NewTimer(w.took)
		defer t.Stop()
		<-t.C
		w.took = 0
	}
	return w.Writer.Write(p)
}

// A store that keeps the node waiting is not a client that stalls: of HTTP/2 a read deadline that passes while nobody
// reads ends the body for good.
func TestABodyIsNotStalledWhileTheStoreBlocks(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		r := newRig(t, func(c *Config) { c.IdleTimeout = 500 * time.Millisecond })
		r.store.Store = &blocking{r.store.Store, 2 * time.Second}
		if http2 {
			r.overHTTP2()
		}
		data := content("blocked", 1<<20+200<<10) // more than the window of one HTTP/2 stream, so some is still to come
		p := r.do("PATCH", r.begin("a"), streamed(data))
		for try := 1; p.StatusCode == http.StatusRequestTimeout && try < 4; try++ { // the machine stood still, and the client with it
			p = r.do("PATCH", r.begin("a"), streamed(data))
		}
		r.want(p, 202)
		if (p.ProtoMajor == 2) != http2 {
			t.Fatalf("spoken: %s", p.Proto)
		}
		r.want(r.do("PUT", p.Header.Get("Location")+"?digest="+sha(data), nil), 201)
	}
}
