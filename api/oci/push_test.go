package oci

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/pontoon-registry/pontoon/blobs"
	"github.com/pontoon-registry/pontoon/blobs/fs"
	"github.com/pontoon-registry/pontoon/blobs/mem"
)

// stores runs a test on each kind of store.
func stores(t *testing.T, test func(*testing.T, blobs.Store)) {
	t.Run("mem", func(t *testing.T) { test(t, mem.New(1<<10)) })
	t.Run("fs", func(t *testing.T) { test(t, newDirectory(t)) })
}

func newDirectory(t *testing.T) blobs.Store {
	t.Helper()
	s, err := fs.Open(t.Context(), fs.Config{Root: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestABlobPushedInAnyWayIsPulledAsItWas(t *testing.T) {
	stores(t, func(t *testing.T, s blobs.Store) {
		r := newRigOn(t, s, nil)
		for name, push := range map[string]func(data []byte, digest string) reply{
			"post": func(data []byte, digest string) reply {
				return r.do("POST", "/v2/a/blobs/uploads/?digest="+digest, bytes.NewReader(data))
			},
			"post and put": func(data []byte, digest string) reply {
				return r.do("PUT", r.begin("a")+"?digest="+digest, bytes.NewReader(data))
			},
			"post without slash": func(data []byte, digest string) reply {
				loc := r.want(r.do("POST", "/v2/a/blobs/uploads", nil), 202).Header.Get("Location")
				return r.do("PUT", loc+"?digest="+digest, bytes.NewReader(data))
			},
			"stream": func(data []byte, digest string) reply {
				p := r.want(r.do("PATCH", r.begin("a"), streamed(data)), 202)
				return r.do("PUT", p.Header.Get("Location")+"?digest="+digest, nil)
			},
			"put of unknown length": func(data []byte, digest string) reply {
				return r.do("PUT", r.begin("a")+"?digest="+digest, streamed(data))
			},
			"chunks": func(data []byte, digest string) reply {
				loc := r.chunks(r.begin("a"), data, 1000)
				return r.do("PUT", loc+"?digest="+digest, nil)
			},
			"last chunk in put": func(data []byte, digest string) reply {
				half := len(data) / 2
				loc := r.chunks(r.begin("a"), data[:half], 1000)
				return r.do("PUT", loc+"?digest="+digest, bytes.NewReader(data[half:]),
					"Content-Range", fmt.Sprintf("%d-%d", half, len(data)-1))
			},
		} {
			for _, size := range []int{1, 1024, 5000} {
				for _, digestOf := range []func([]byte) string{sha, sha5} {
					data := content(name, size)
					digest := digestOf(data)
					p := r.want(push(data, digest), http.StatusCreated)
					if p.Header.Get("Docker-Content-Digest") != digest {
						t.Errorf("%s: digest header %q", name, p.Header.Get("Docker-Content-Digest"))
					}
					got := r.want(r.do("GET", p.Header.Get("Location"), nil), http.StatusOK)
					if !bytes.Equal(got.body, data) {
						t.Errorf("%s of %d bytes: other bytes came back", name, size)
					}
				}
			}
		}
	})
}

// streamed hides the length, so that the body is sent in chunks of HTTP.
func streamed(data []byte) io.Reader { return struct{ io.Reader }{bytes.NewReader(data)} }

// chunks sends data in chunks of n bytes and answers the last location.
func (r *rig) chunks(loc string, data []byte, n int) string {
	r.t.Helper()
	for at := 0; at < len(data); at += n {
		end := min(at+n, len(data))
		p := r.want(r.do("PATCH", loc, bytes.NewReader(data[at:end]), "Content-Range", fmt.Sprintf("%d-%d", at, end-1)), 202)
		if want := fmt.Sprintf("0-%d", end-1); p.Header.Get("Range") != want {
			r.t.Fatalf("range %q, want %q", p.Header.Get("Range"), want)
		}
		loc = p.Header.Get("Location")
	}
	return loc
}

func TestAnEmptyBlobIsABlob(t *testing.T) {
	stores(t, func(t *testing.T, s blobs.Store) {
		r := newRigOn(t, s, nil)
		r.want(r.do("POST", "/v2/a/blobs/uploads/?digest="+sha(nil), nil), http.StatusCreated)
		r.want(r.do("PUT", r.begin("b")+"?digest="+sha(nil), nil), http.StatusCreated)
		for _, repo := range []string{"a", "b"} {
			p := r.want(r.do("GET", "/v2/"+repo+"/blobs/"+sha(nil), nil), http.StatusOK)
			if len(p.body) != 0 || p.Header.Get("Content-Length") != "0" {
				t.Errorf("%s: %q, length %s", repo, p.body, p.Header.Get("Content-Length"))
			}
			r.want(r.do("GET", "/v2/"+repo+"/blobs/"+sha(nil), nil, "Range", "bytes=0-"), http.StatusRequestedRangeNotSatisfiable)
		}
	})
}

func TestAPushOfOneByteChunksThroughChangingNodesIsWhole(t *testing.T) {
	stores(t, func(t *testing.T, s blobs.Store) {
		r := newRigOn(t, s, nil)
		nodes := []string{r.url}
		for range 2 {
			_, url := r.node()
			nodes = append(nodes, url)
		}
		data := content("bytes", 600)
		loc := r.begin("a")
		for i := range data {
			p := r.want(r.do("PATCH", nodes[i%3]+loc, bytes.NewReader(data[i:i+1]), "Content-Range", fmt.Sprintf("%d-%d", i, i)), 202)
			loc = p.Header.Get("Location")
		}
		r.want(r.do("PUT", nodes[2]+loc+"?digest="+sha(data), nil), http.StatusCreated)
		if p := r.want(r.do("GET", nodes[1]+"/v2/a/blobs/"+sha(data), nil), 200); !bytes.Equal(p.body, data) {
			t.Error("other bytes came back")
		}
	})
}

func TestAPushNeedsThreeProposalsAndAMonolithicOneTwo(t *testing.T) {
	r := newRig(t, nil)
	data := content("count", 3000)
	before := r.ledger.proposals.Load()
	p := r.want(r.do("PATCH", r.begin("a"), streamed(data)), 202)
	r.want(r.do("PUT", p.Header.Get("Location")+"?digest="+sha(data), nil), 201)
	if n := r.ledger.proposals.Load() - before; n != 3 {
		t.Errorf("POST, PATCH, PUT: %d proposals, want 3", n)
	}
	before = r.ledger.proposals.Load()
	r.pushBlob("b", content("count", 1<<20)) // many parts, no saves
	if n := r.ledger.proposals.Load() - before; n != 2 {
		t.Errorf("POST, PUT: %d proposals, want 2", n)
	}
	before = r.ledger.proposals.Load()
	r.want(r.do("POST", "/v2/c/blobs/uploads/?digest="+sha(data), bytes.NewReader(data)), 201)
	if n := r.ledger.proposals.Load() - before; n != 2 {
		t.Errorf("POST: %d proposals, want 2", n)
	}
}

func TestARepeatedPutAnswersTheSame(t *testing.T) {
	r := newRig(t, nil)
	data := content("again", 100)
	loc := r.begin("a")
	r.want(r.do("PUT", loc+"?digest="+sha(data), bytes.NewReader(data)), 201)
	p := r.want(r.do("PUT", loc+"?digest="+sha(data), bytes.NewReader(data)), 201)
	if p.Header.Get("Location") != "/v2/a/blobs/"+sha(data) {
		t.Errorf("location %q", p.Header.Get("Location"))
	}
	r.wantError(r.do("PUT", loc+"?digest="+sha(nil), nil), 400, "DIGEST_INVALID")
	r.wantError(r.do("PATCH", loc, bytes.NewReader(data)), 404, "BLOB_UPLOAD_UNKNOWN")
	r.wantError(r.do("GET", loc, nil), 404, "BLOB_UPLOAD_UNKNOWN")
	r.wantError(r.do("DELETE", loc, nil), 404, "BLOB_UPLOAD_UNKNOWN")
}

// TestARepeatedPutPromisesTheBlobForAnotherGrace is G8 for those who are told a second time.
func TestARepeatedPutPromisesTheBlobForAnotherGrace(t *testing.T) {
	r := newRig(t, nil)
	data := content("again", 100)
	loc := r.begin("a")
	r.want(r.do("PUT", loc+"?digest="+sha(data), bytes.NewReader(data)), 201)
	for range 3 { // each time the grace of the one before is nearly over
		r.later(50 * time.Minute)
		r.begin("b") // the state's clock moves with its entries
		r.want(r.do("PUT", loc+"?digest="+sha(data), bytes.NewReader(data)), 201)
	}
	r.want(r.do("HEAD", "/v2/a/blobs/"+sha(data), nil), 200)
	r.later(61 * time.Minute)
	r.begin("b")
	r.wantError(r.do("PUT", loc+"?digest="+sha(data), bytes.NewReader(data)), 404, "BLOB_UPLOAD_UNKNOWN")
}

func TestACancelledUploadIsGoneAndStaysCancelled(t *testing.T) {
	r := newRig(t, nil)
	loc := r.begin("a")
	r.want(r.do("PATCH", loc, bytes.NewReader(content("x", 10))), 202)
	r.want(r.do("DELETE", loc, nil), http.StatusNoContent)
	r.want(r.do("DELETE", loc, nil), http.StatusNoContent)
	r.wantError(r.do("GET", loc, nil), 404, "BLOB_UPLOAD_UNKNOWN")
	r.wantError(r.do("PATCH", loc, bytes.NewReader(nil)), 404, "BLOB_UPLOAD_UNKNOWN")
	r.wantError(r.do("PUT", loc+"?digest="+sha(nil), nil), 404, "BLOB_UPLOAD_UNKNOWN")
}

func TestStatusNamesTheLastByte(t *testing.T) {
	r := newRig(t, nil)
	loc := r.begin("a")
	if p := r.want(r.do("GET", loc, nil), 204); p.Header.Get("Range") != "0-0" {
		t.Errorf("range %q of nothing", p.Header.Get("Range"))
	}
	r.want(r.do("PATCH", loc, bytes.NewReader(content("x", 1500))), 202)
	for _, method := range []string{"GET", "HEAD"} {
		p := r.want(r.do(method, loc, nil), 204)
		if p.Header.Get("Range") != "0-1499" || p.Header.Get("Location") != loc || p.Header.Get("Docker-Upload-UUID") == "" {
			t.Errorf("%s: %v", method, p.Header)
		}
	}
}

func TestLocationsAreRelativeAndKeepNS(t *testing.T) {
	r := newRig(t, nil)
	p := r.want(r.do("POST", "/v2/a/blobs/uploads/?ns=docker.io", nil), 202)
	u, err := url.Parse(p.Header.Get("Location"))
	if err != nil || u.Host != "" || u.Query().Get("ns") != "docker.io" {
		t.Fatalf("location %q", p.Header.Get("Location"))
	}
	q := u.Query()
	q.Set("digest", sha(nil))
	u.RawQuery = q.Encode()
	r.want(r.do("PUT", u.String(), nil), 201)
}

func TestLocationsBeginWithTheConfiguredBase(t *testing.T) {
	r := newRig(t, func(c *Config) { c.LocationBase = "https://registry.example.org" })
	p := r.want(r.do("POST", "/v2/a/blobs/uploads/", nil), 202)
	if !strings.HasPrefix(p.Header.Get("Location"), "https://registry.example.org/v2/a/blobs/uploads/") {
		t.Errorf("location %q", p.Header.Get("Location"))
	}
}

func TestTheAlgorithmIsKnownBeforehandOrTheBytesAreReadAgain(t *testing.T) {
	r := newRig(t, nil)
	data := content("alg", 3000)
	for query, reads := range map[string]int64{"?digest-algorithm=sha512": 0, "": 1} {
		loc := r.want(r.do("POST", "/v2/a/blobs/uploads/"+query, nil), 202).Header.Get("Location")
		r.want(r.do("PATCH", loc, bytes.NewReader(data)), 202)
		before := r.store.calls.Load()
		r.want(r.do("PUT", loc+"?digest="+sha5(data), nil), 201)
		if n := r.store.calls.Load() - before - 1; n != reads { // one is Finish
			t.Errorf("%q: read again %d times, want %d", query, n, reads)
		}
	}
}
