package oci

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
)

// TestBadInputIsAnsweredWithItsCode is the table of malformed requests: status,
// code, and that the message says what was expected or came.
func TestBadInputIsAnsweredWithItsCode(t *testing.T) {
	r := newRig(t, nil)
	image := r.image("a", nil)
	digest := r.putManifest("a", "v", image)
	open := r.begin("a")
	r.want(r.do("PATCH", open, bytes.NewReader(content("x", 10))), 202)
	const nobody = "/v2/a/blobs/uploads/00000000000000000000000000000000"
	long := strings.Repeat("a", 300)
	type header []string
	octets := header{"Content-Type", "application/octet-stream"}
	typed := header{"Content-Type", typeImage}
	for _, c := range []struct {
		method, path, body string
		header             header
		status             int
		code, says         string
	}{
		// Names.
		{"GET", "/v2/UPPER/tags/list", "", nil, 400, "NAME_INVALID", "UPPER"},
		{"GET", "/v2/a//b/tags/list", "", nil, 400, "NAME_INVALID", ""},
		{"GET", "/v2/a..b/manifests/v", "", nil, 400, "NAME_INVALID", ""},
		{"POST", "/v2/-a/blobs/uploads/", "", nil, 400, "NAME_INVALID", ""},
		{"GET", "/v2/" + long + "/tags/list", "", nil, 400, "NAME_INVALID", "255"},
		{"GET", "/v2/a%00b/tags/list", "", nil, 400, "NAME_INVALID", ""},
		{"POST", "/v2/a/blobs/uploads/?mount=" + digest + "&from=B", "", nil, 400, "NAME_INVALID", ""},
		// References.
		{"GET", "/v2/a/manifests/.x", "", nil, 400, "TAG_INVALID", ".x"},
		{"GET", "/v2/a/manifests/" + long, "", nil, 400, "TAG_INVALID", "128"},
		{"GET", "/v2/a/manifests/sha256:abc", "", nil, 400, "DIGEST_INVALID", "sha256:abc"},
		{"DELETE", "/v2/a/manifests/md5:abc", "", nil, 400, "DIGEST_INVALID", ""},
		{"GET", "/v2/a/manifests/", "", nil, 400, "TAG_INVALID", ""},
		// Digests.
		{"GET", "/v2/a/blobs/latest", "", nil, 400, "DIGEST_INVALID", "latest"},
		{"GET", "/v2/a/blobs/" + strings.ToUpper(digest), "", nil, 400, "DIGEST_INVALID", ""},
		{"HEAD", "/v2/a/blobs/sha256:0", "", nil, 400, "", ""},
		{"DELETE", "/v2/a/blobs/sha1:" + strings.Repeat("0", 40), "", nil, 400, "DIGEST_INVALID", ""},
		{"PUT", open, "", nil, 400, "DIGEST_INVALID", "digest"},
		{"PUT", open + "?digest=sha256:zz", "", nil, 400, "DIGEST_INVALID", ""},
		{"POST", "/v2/a/blobs/uploads/?digest=x", "", nil, 400, "DIGEST_INVALID", ""},
		{"POST", "/v2/a/blobs/uploads/?digest=" + digest, "not it", octets, 400, "DIGEST_INVALID", digest},
		{"POST", "/v2/a/blobs/uploads/?digest=" + digest, "", octets, 400, "DIGEST_INVALID", digest},
		{"POST", "/v2/a/blobs/uploads/?mount=x&from=b", "", nil, 400, "DIGEST_INVALID", ""},
		{"POST", "/v2/a/blobs/uploads/?digest-algorithm=md5", "", nil, 400, "DIGEST_INVALID", "md5"},
		{"PUT", "/v2/a/manifests/" + sha(nil), string(image), typed, 400, "DIGEST_INVALID", digest},
		// Ranges and lengths.
		{"PATCH", open, "0123456789", header{"Content-Range", "20-29"}, 416, "BLOB_UPLOAD_INVALID", "10"},
		{"PATCH", open, "0123456789", header{"Content-Range", "0-9"}, 416, "BLOB_UPLOAD_INVALID", "10"},
		{"PUT", open + "?digest=" + digest, "0123456789", header{"Content-Range", "11-20"}, 416, "BLOB_UPLOAD_INVALID", ""},
		{"PATCH", open, "0123456789", header{"Content-Range", "x-y"}, 400, "BLOB_UPLOAD_INVALID", "x-y"},
		{"PATCH", open, "0123456789", header{"Content-Range", "19-10"}, 400, "BLOB_UPLOAD_INVALID", ""},
		{"PATCH", open, "0123456789", header{"Content-Range", "10-99"}, 400, "SIZE_INVALID", "90"},
		{"PATCH", open, "0123456789", header{"Content-Range", "10-11"}, 400, "SIZE_INVALID", "2"},
		// Uploads.
		{"PATCH", nobody, "x", octets, 404, "BLOB_UPLOAD_UNKNOWN", ""},
		{"GET", nobody, "", nil, 404, "BLOB_UPLOAD_UNKNOWN", ""},
		{"DELETE", nobody, "", nil, 404, "BLOB_UPLOAD_UNKNOWN", ""},
		{"PUT", nobody + "?digest=" + digest, "x", octets, 404, "BLOB_UPLOAD_UNKNOWN", ""},
		{"PATCH", "/v2/a/blobs/uploads/..%2f..%2fx", "x", octets, 404, "UNSUPPORTED", ""},
		{"PATCH", "/v2/a/blobs/uploads/UPPER", "x", octets, 404, "BLOB_UPLOAD_UNKNOWN", ""},
		// Manifests.
		{"PUT", "/v2/a/manifests/v", "", typed, 400, "MANIFEST_INVALID", "empty"},
		{"PUT", "/v2/a/manifests/v", "{", typed, 400, "MANIFEST_INVALID", ""},
		{"PUT", "/v2/a/manifests/v", "[]", typed, 400, "MANIFEST_INVALID", ""},
		{"PUT", "/v2/a/manifests/v", "null", typed, 400, "MANIFEST_INVALID", ""},
		{"PUT", "/v2/a/manifests/v", `{"schemaVersion":2}`, typed, 400, "MANIFEST_INVALID", "config"},
		{"PUT", "/v2/a/manifests/v", `{"schemaVersion":2}`, header{"Content-Type", "text/html"}, 400, "MANIFEST_INVALID", "text/html"},
		{"PUT", "/v2/a/manifests/v", string(image), header{"Content-Type", typeIndex}, 400, "MANIFEST_INVALID", ""},
		{"PUT", "/v2/a/manifests/v", `{"schemaVersion":1}`, header{"Content-Type", "application/vnd.docker.distribution.manifest.v1+prettyjws"}, 400, "MANIFEST_INVALID", "schema 1"},
		{"PUT", "/v2/a/manifests/v", `{"schemaVersion":2,"config":{"mediaType":"x","digest":"sha256:0","size":1},"layers":[]}`, typed, 400, "MANIFEST_INVALID", "config"},
		// Methods and paths.
		{"POST", "/v2/", "", nil, 405, "UNSUPPORTED", "POST"},
		{"POST", "/v2/a/manifests/v", "", nil, 405, "UNSUPPORTED", "GET, HEAD"},
		{"PUT", "/v2/a/blobs/uploads/", "", nil, 405, "UNSUPPORTED", "POST"},
		{"PATCH", "/v2/a/blobs/" + digest, "", nil, 405, "UNSUPPORTED", ""},
		{"DELETE", "/v2/a/tags/list", "", nil, 405, "UNSUPPORTED", ""},
		{"TRACE", "/v2/_catalog", "", nil, 405, "UNSUPPORTED", ""},
		{"GET", "/v2/a", "", nil, 404, "UNSUPPORTED", "path"},
		{"GET", "/v2/a/_oci/ext", "", nil, 404, "UNSUPPORTED", ""},
	} {
		p := r.do(c.method, c.path, strings.NewReader(c.body), c.header...)
		if p.StatusCode != c.status || p.code() != c.code || !strings.Contains(string(p.body), c.says) {
			t.Errorf("%s %.80s %q %v: got %d %s, want %d %s saying %q", c.method, c.path, c.body, c.header, p.StatusCode, p.body, c.status, c.code, c.says)
		}
		if p.StatusCode == 405 && p.Header.Get("Allow") == "" {
			t.Errorf("%s %s: 405 without Allow", c.method, c.path)
		}
		if p.StatusCode == 416 && (p.Header.Get("Range") != "0-9" || p.Header.Get("Location") != open) {
			t.Errorf("%s %s: 416 with %v", c.method, c.path, p.Header)
		}
	}
	// All that changed nothing.
	if p := r.want(r.do("GET", open, nil), 204); p.Header.Get("Range") != "0-9" {
		t.Errorf("range %q", p.Header.Get("Range"))
	}
	if p := r.want(r.do("GET", "/v2/a/manifests/v", nil), 200); !bytes.Equal(p.body, image) {
		t.Error("the manifest changed")
	}
}

func TestABodyOfUnknownLengthIsHeldAgainstItsContentRange(t *testing.T) {
	for body, status := range map[string]int{"0123456789": 202, "01234": 400, "0123456789ab": 400} {
		r := newRig(t, nil)
		loc := r.begin("a")
		p := r.want(r.do("PATCH", loc, struct{ io.Reader }{strings.NewReader(body)}, "Content-Range", "0-9"), status)
		if status == 400 && p.code() != "SIZE_INVALID" {
			t.Errorf("%q: %s", body, p.body)
		}
	}
}

func TestAWrongDigestCancelsTheUpload(t *testing.T) {
	r := newRig(t, nil)
	loc := r.begin("a")
	r.want(r.do("PATCH", loc, strings.NewReader("abc")), 202)
	r.wantError(r.do("PUT", loc+"?digest="+sha([]byte("abd")), nil), 400, "DIGEST_INVALID")
	r.wantError(r.do("GET", loc, nil), 404, "BLOB_UPLOAD_UNKNOWN")
	r.want(r.do("HEAD", "/v2/a/blobs/"+sha([]byte("abd")), nil), 404)
	r.want(r.do("HEAD", "/v2/a/blobs/"+sha([]byte("abc")), nil), 404)
}

func TestAnInternalErrorTellsNothing(t *testing.T) {
	r := newRig(t, nil)
	d := r.pushBlob("a", content("x", 10))
	secret := error(io.ErrShortBuffer)
	r.store.fail.Store(&secret)
	p := r.wantError(r.do("GET", "/v2/a/blobs/"+d, nil), http.StatusInternalServerError, "UNKNOWN")
	if strings.Contains(string(p.body), "buffer") {
		t.Errorf("body %s", p.body)
	}
}
