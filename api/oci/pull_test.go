package oci

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/pontoon-registry/pontoon/blobs"
	"github.com/pontoon-registry/pontoon/meta"
	"github.com/pontoon-registry/pontoon/meta/policy"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

func TestPing(t *testing.T) {
	r := newRig(t, nil)
	for _, path := range []string{"/v2/", "/v2"} {
		p := r.want(r.do("GET", path, nil), 200)
		if string(p.body) != "{}" || p.Header.Get("Pontoon-Features") != "conditional-tags" {
			t.Errorf("%s: %q %v", path, p.body, p.Header)
		}
	}
}

func TestAManifestIsServedByTagAndDigestWithoutTheStore(t *testing.T) {
	r := newRig(t, nil)
	m := r.image("a/b", nil, content("l", 10))
	d := r.putManifest("a/b", "v1", m)
	if d != sha(m) {
		t.Fatalf("digest %s, want %s", d, sha(m))
	}
	calls := r.store.calls.Load()
	for _, ref := range []string{"v1", d} {
		for _, method := range []string{"GET", "HEAD"} {
			p := r.want(r.do(method, "/v2/a/b/manifests/"+ref, nil, "Accept", "application/vnd.docker.distribution.manifest.v2+json"), 200)
			if p.Header.Get("Content-Type") != typeImage || p.Header.Get("Docker-Content-Digest") != d ||
				p.Header.Get("Content-Length") != fmt.Sprint(len(m)) || p.Header.Get("Pontoon-Revision") == "" {
				t.Errorf("%s %s: %v", method, ref, p.Header)
			}
			if method == "GET" && !bytes.Equal(p.body, m) {
				t.Errorf("%s: other bytes came back", ref)
			}
			if p := r.want(r.do(method, "/v2/a/b/manifests/"+ref, nil, "If-None-Match", p.Header.Get("ETag")), 304); len(p.body) != 0 {
				t.Errorf("304 with a body %q", p.body)
			}
		}
	}
	r.want(r.do("HEAD", "/v2/a/b/blobs/"+sha([]byte("{}")), nil), 200)
	if n := r.store.calls.Load() - calls; n != 0 {
		t.Errorf("%d storage calls", n)
	}
}

func TestALargeManifestIsServedFromTheStore(t *testing.T) {
	stores(t, func(t *testing.T, s blobs.Store) {
		r := newRigOn(t, s, nil)
		m := r.image("a", map[string]any{"annotations": map[string]string{"x": string(bytes.Repeat([]byte("y"), meta.MaxInlineBody))}})
		d := r.putManifest("a", "big", m)
		for _, ref := range []string{"big", d} {
			if p := r.want(r.do("GET", "/v2/a/manifests/"+ref, nil), 200); !bytes.Equal(p.body, m) {
				t.Errorf("%s: other bytes came back", ref)
			}
		}
		r.want(r.do("DELETE", "/v2/a/manifests/"+d, nil), 202)
		r.wantError(r.do("GET", "/v2/a/manifests/"+d, nil), 404, "MANIFEST_UNKNOWN")
	})
}

func TestWhatIsNotThereIsNamed(t *testing.T) {
	r := newRig(t, nil)
	r.putManifest("a", "v1", r.image("a", nil))
	for path, code := range map[string]string{
		"/v2/none/manifests/v1":         "NAME_UNKNOWN",
		"/v2/none/blobs/" + sha(nil):    "NAME_UNKNOWN",
		"/v2/none/tags/list":            "NAME_UNKNOWN",
		"/v2/a/manifests/v2":            "MANIFEST_UNKNOWN",
		"/v2/a/manifests/" + sha(nil):   "MANIFEST_UNKNOWN",
		"/v2/a/blobs/" + sha(nil):       "BLOB_UNKNOWN",
		"/v2/a/blobs/uploads/" + "ffff": "BLOB_UPLOAD_UNKNOWN",
		"/v2/a/nothing/here":            "UNSUPPORTED",
	} {
		r.wantError(r.do("GET", path, nil), 404, code)
	}
}

func TestABlobOfAnotherRepositoryIsNotHere(t *testing.T) {
	r := newRig(t, nil)
	d := r.pushBlob("a", content("x", 10))
	r.pushBlob("b", content("y", 10))
	r.wantError(r.do("GET", "/v2/b/blobs/"+d, nil), 404, "BLOB_UNKNOWN")
}

func TestRangesOfABlob(t *testing.T) {
	stores(t, func(t *testing.T, s blobs.Store) {
		r := newRigOn(t, s, nil)
		data := content("range", 5000)
		d := r.pushBlob("a", data)
		tag := `"` + d + `"`
		for _, c := range []struct {
			header  []string
			status  int
			content []byte
			where   string
		}{
			{nil, 200, data, ""},
			{[]string{"Range", "bytes=10-19"}, 206, data[10:20], "bytes 10-19/5000"},
			{[]string{"Range", "bytes=4990-"}, 206, data[4990:], "bytes 4990-4999/5000"},
			{[]string{"Range", "bytes=-10"}, 206, data[4990:], "bytes 4990-4999/5000"},
			{[]string{"Range", "bytes=4990-9999"}, 206, data[4990:], "bytes 4990-4999/5000"},
			{[]string{"Range", "bytes=0-1,5-6"}, 200, data, ""},
			{[]string{"Range", "bytes=10-19", "If-Range", tag}, 206, data[10:20], "bytes 10-19/5000"},
			{[]string{"Range", "bytes=10-19", "If-Range", `"other"`}, 200, data, ""},
			{[]string{"Range", "bytes=5000-"}, 416, nil, "bytes */5000"},
			{[]string{"Range", "bytes=5-1"}, 416, nil, "bytes */5000"},
			{[]string{"If-None-Match", tag}, 304, nil, ""},
			{[]string{"If-None-Match", `"x", W/` + tag}, 304, nil, ""},
		} {
			p := r.want(r.do("GET", "/v2/a/blobs/"+d, nil, append(c.header, "Accept-Encoding", "gzip, zstd")...), c.status)
			if c.content != nil && !bytes.Equal(p.body, c.content) {
				t.Errorf("%v: other bytes came back", c.header)
			}
			if p.Header.Get("Content-Range") != c.where || p.Header.Get("Content-Encoding") != "" {
				t.Errorf("%v: %v", c.header, p.Header)
			}
			if c.status < 400 && (p.Header.Get("ETag") != tag || p.Header.Get("Accept-Ranges") != "bytes") {
				t.Errorf("%v: %v", c.header, p.Header)
			}
		}
	})
}

func TestALostBlobIs404UntilItIsPushedAgain(t *testing.T) {
	r := newRig(t, nil)
	data := content("lost", 100)
	m := r.image("a", nil, data)
	r.putManifest("a", "v1", m)
	var key string
	for o, err := range r.store.List(t.Context(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		if o.Size == int64(len(data)) {
			key = o.Key
		}
	}
	if err := r.store.Delete(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	r.want(r.do("HEAD", "/v2/a/blobs/"+sha(data), nil), 200)
	r.wantError(r.do("GET", "/v2/a/blobs/"+sha(data), nil), 404, "BLOB_UNKNOWN")
	r.want(r.do("HEAD", "/v2/a/blobs/"+sha(data), nil), 404)
	r.pushBlob("a", data)
	if p := r.want(r.do("GET", "/v2/a/blobs/"+sha(data), nil), 200); !bytes.Equal(p.body, data) {
		t.Error("other bytes came back")
	}
}

func TestARedirectNamesTheStore(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Redirect = true })
	d := r.pushBlob("a", content("x", 10))
	r.want(r.do("GET", "/v2/a/blobs/"+d, nil), 200) // mem cannot presign: streamed
	r.store.url = "https://store.example.org/"
	p := r.want(r.do("GET", "/v2/a/blobs/"+d, nil), http.StatusTemporaryRedirect)
	if len(p.Header.Get("Location")) <= len(r.store.url) || p.Header.Get("Docker-Content-Digest") != d {
		t.Errorf("%v", p.Header)
	}
	r.want(r.do("HEAD", "/v2/a/blobs/"+d, nil), 200)
}

// shortStore cuts every stream in the middle.
type shortStore struct{ blobs.Store }

func (s shortStore) Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	in, err := s.Store.Open(ctx, key, offset, length)
	if err != nil {
		return nil, err
	}
	cut := io.MultiReader(io.LimitReader(in, length/2), &breaking{bytes.NewReader(nil), func() error { return io.ErrUnexpectedEOF }})
	return struct {
		io.Reader
		io.Closer
	}{cut, in}, nil
}

func TestAStreamThatTheStoreCutsIsNotWhole(t *testing.T) {
	r := newRig(t, nil)
	d := r.pushBlob("a", content("x", 1<<20))
	r.store.Store = shortStore{r.store.Store}
	res, err := r.client.Get(r.url + "/v2/a/blobs/" + d)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if n, err := io.Copy(io.Discard, res.Body); err == nil {
		t.Errorf("%d bytes came as a whole answer", n)
	}
}

func TestOnlyAPusherConfirms(t *testing.T) {
	for _, push := range []bool{true, false} {
		r := newRig(t, nil)
		d := r.pushBlob("a", content("x", 10))
		m := r.image("a", nil)
		md := r.putManifest("a", sha(m), m)
		r.later(30 * time.Minute)
		r.begin("b") // the state's clock moves with its entries
		if !push {
			r.access.refuse = func(a policy.Access) error {
				if a.Verb == policy.Push {
					return meta.Refuse(metav1.Kind_KIND_DENIED, metav1.Noun_NOUN_REPOSITORY, "no")
				}
				return nil
			}
		}
		for _, path := range []string{"/v2/a/blobs/" + d, "/v2/a/manifests/" + md} {
			before := r.ledger.proposals.Load()
			r.want(r.do("HEAD", path, nil), 200)
			r.want(r.do("HEAD", path, nil), 200)
			r.want(r.do("GET", path, nil), 200)
			n := r.ledger.proposals.Load() - before
			if push && n != 1 || !push && n != 0 {
				t.Errorf("%s, push %v: %d proposals", path, push, n)
			}
		}
	}
}
