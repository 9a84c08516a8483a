package oci

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/pontoon-registry/pontoon/meta"
)

func TestTagParametersAreSetTogether(t *testing.T) {
	r := newRig(t, nil)
	m := r.image("a", nil)
	var query, want []string
	for i := range 12 {
		want = append(want, fmt.Sprintf("v%d", i))
		query = append(query, fmt.Sprintf("tag=v%d", i))
	}
	path := "/v2/a/manifests/" + sha(m) + "?" + strings.Join(query, "&")
	p := r.want(r.do("PUT", path, bytes.NewReader(m), "Content-Type", typeImage), 201)
	if got := p.Header.Values("OCI-Tag"); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("OCI-Tag %v, want %v", got, want)
	}
	for _, tag := range want {
		r.want(r.do("HEAD", "/v2/a/manifests/"+tag, nil), 200)
	}
	r.wantError(r.do("PUT", path+"&tag=new&tag=.bad", bytes.NewReader(m), "Content-Type", typeImage), 400, "TAG_INVALID")
	r.want(r.do("HEAD", "/v2/a/manifests/new", nil), 404)
	for i := range meta.MaxTags {
		path += fmt.Sprintf("&tag=w%d", i)
	}
	r.wantError(r.do("PUT", path, bytes.NewReader(m), "Content-Type", typeImage), 414, "TAG_INVALID")
}

func TestATagWriteHoldsItsPrecondition(t *testing.T) {
	r := newRig(t, nil)
	one, two := r.image("a", nil), r.image("a", map[string]any{"annotations": map[string]string{"n": "2"}})
	put := func(m []byte, header ...string) reply {
		return r.do("PUT", "/v2/a/manifests/v", bytes.NewReader(m), append(header, "Content-Type", typeImage)...)
	}
	refused := func(p reply, current string) {
		t.Helper()
		r.wantError(p, http.StatusPreconditionFailed, "DENIED")
		var body struct {
			Errors []struct{ Detail struct{ Current string } }
		}
		if err := json.Unmarshal(p.body, &body); err != nil || body.Errors[0].Detail.Current != current {
			t.Errorf("body %s, want the current digest %q", p.body, current)
		}
		if current != "" && p.Header.Get("ETag") != `"`+current+`"` {
			t.Errorf("ETag %q", p.Header.Get("ETag"))
		}
	}
	refused(put(one, "If-Match", `"`+sha(one)+`"`), "")
	r.want(put(one, "If-None-Match", "*"), 201)
	refused(put(two, "If-None-Match", "*"), sha(one))
	refused(put(two, "If-Match", `"`+sha(two)+`"`), sha(one))
	r.want(put(two, "If-Match", `"`+sha(one)+`"`), 201)
	del := func(header ...string) reply { return r.do("DELETE", "/v2/a/manifests/v", nil, header...) }
	refused(del("If-Match", `"`+sha(one)+`"`), sha(two))
	r.want(del("If-Match", `"`+sha(two)+`"`), 202)
	for _, header := range [][]string{
		{"If-Match", sha(one)}, {"If-Match", "*"}, {"If-Match", `W/"` + sha(one) + `"`}, {"If-None-Match", `"` + sha(one) + `"`},
		{"If-Match", `"` + sha(one) + `"`, "If-None-Match", "*"},
	} {
		r.wantError(put(one, header...), 400, "TAG_INVALID")
	}
	r.wantError(r.do("PUT", "/v2/a/manifests/"+sha(one), bytes.NewReader(one), "Content-Type", typeImage, "If-None-Match", "*"), 400, "TAG_INVALID")
}

func TestASha512ManifestIsKnownByItsDigest(t *testing.T) {
	r := newRig(t, nil)
	m := r.image("a", nil)
	p := r.want(r.do("PUT", "/v2/a/manifests/"+sha5(m)+"?tag=s", bytes.NewReader(m), "Content-Type", typeImage), 201)
	if p.Header.Get("Docker-Content-Digest") != sha5(m) {
		t.Errorf("digest %q", p.Header.Get("Docker-Content-Digest"))
	}
	if p := r.want(r.do("GET", "/v2/a/manifests/s", nil), 200); p.Header.Get("Docker-Content-Digest") != sha5(m) {
		t.Errorf("digest by tag %q", p.Header.Get("Docker-Content-Digest"))
	}
}

func TestAManifestThatNamesWhatIsNotThereIsRefusedByName(t *testing.T) {
	r := newRig(t, nil)
	layer := r.pushBlob("b", content("elsewhere", 10))
	config := r.pushBlob("a", []byte("{}"))
	m := r.json(map[string]any{
		"schemaVersion": 2, "mediaType": typeImage,
		"config": map[string]any{"mediaType": "application/x", "digest": config, "size": 2},
		"layers": []any{
			map[string]any{"mediaType": "application/x", "digest": layer, "size": 10},
			map[string]any{"mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar", "digest": sha([]byte("far")), "size": 3},
		},
	})
	p := r.wantError(r.do("PUT", "/v2/a/manifests/v", bytes.NewReader(m), "Content-Type", typeImage), 404, "MANIFEST_BLOB_UNKNOWN")
	if !strings.Contains(string(p.body), layer) || strings.Contains(string(p.body), config) || strings.Contains(string(p.body), sha([]byte("far"))) {
		t.Errorf("body %s, want %s alone", p.body, layer)
	}
	x := r.index(sha([]byte("child")))
	r.wantError(r.do("PUT", "/v2/a/manifests/v", bytes.NewReader(x), "Content-Type", typeIndex), 404, "MANIFEST_BLOB_UNKNOWN")
}

func TestAManifestBeyondTheBoundIs413(t *testing.T) {
	r := newRig(t, nil)
	big := bytes.Repeat([]byte(" "), meta.MaxManifest+1)
	r.wantError(r.do("PUT", "/v2/a/manifests/v", bytes.NewReader(big), "Content-Type", typeImage), 413, "SIZE_INVALID")
	// Without a length: the client would send for ever, and is answered all the same.
	endless := struct{ io.Reader }{&endlessSpaces{}}
	req, err := http.NewRequestWithContext(t.Context(), "PUT", r.url+"/v2/a/manifests/v", endless)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Expect", "100-continue")
	res, err := r.client.Do(req)
	if err != nil {
		return // the connection was closed under a client that went on sending
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("got %d", res.StatusCode)
	}
}

type endlessSpaces struct{}

func (endlessSpaces) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

func TestAManifestOfFourMiBIsTaken(t *testing.T) {
	r := newRig(t, nil)
	m := r.image("a", map[string]any{"annotations": map[string]string{"x": ""}})
	m = bytes.Replace(m, []byte(`"x":""`), []byte(`"x":"`+strings.Repeat("y", meta.MaxManifest-len(m))+`"`), 1)
	if len(m) != meta.MaxManifest {
		t.Fatalf("%d bytes", len(m))
	}
	r.putManifest("a", "v", m)
	if p := r.want(r.do("GET", "/v2/a/manifests/v", nil), 200); !bytes.Equal(p.body, m) {
		t.Error("other bytes came back")
	}
}

func TestWhatIsInUseIsNotDeleted(t *testing.T) {
	r := newRig(t, nil)
	layer := content("l", 10)
	m := r.image("a", nil, layer)
	child := r.putManifest("a", "v", m)
	parent := r.putManifest("a", "x", r.index(child))
	p := r.wantError(r.do("DELETE", "/v2/a/blobs/"+sha(layer), nil), 405, "UNSUPPORTED")
	if !strings.Contains(string(p.body), child) || p.Header.Get("Allow") == "" {
		t.Errorf("body %s, Allow %q", p.body, p.Header.Get("Allow"))
	}
	p = r.wantError(r.do("DELETE", "/v2/a/manifests/"+child, nil), 405, "UNSUPPORTED")
	if !strings.Contains(string(p.body), parent) {
		t.Errorf("body %s", p.body)
	}
	r.want(r.do("DELETE", "/v2/a/manifests/v", nil), 202)
	r.want(r.do("GET", "/v2/a/manifests/v", nil), 404)
	r.want(r.do("GET", "/v2/a/manifests/"+child, nil), 200)
	r.want(r.do("DELETE", "/v2/a/manifests/"+parent, nil), 202)
	r.want(r.do("GET", "/v2/a/manifests/x", nil), 404)
	r.want(r.do("DELETE", "/v2/a/manifests/"+child, nil), 202)
	r.want(r.do("DELETE", "/v2/a/blobs/"+sha(layer), nil), 202)
	r.wantError(r.do("DELETE", "/v2/a/blobs/"+sha(layer), nil), 404, "BLOB_UNKNOWN")
	r.wantError(r.do("DELETE", "/v2/a/manifests/"+child, nil), 404, "MANIFEST_UNKNOWN")
	r.wantError(r.do("DELETE", "/v2/none/manifests/"+child, nil), 404, "NAME_UNKNOWN")
}

func TestDeletionCanBeSwitchedOff(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Delete = false })
	d := r.putManifest("a", "v", r.image("a", nil))
	for _, path := range []string{"manifests/v", "manifests/" + d, "blobs/" + sha([]byte("{}"))} {
		r.wantError(r.do("DELETE", "/v2/a/"+path, nil), 405, "UNSUPPORTED")
	}
}
