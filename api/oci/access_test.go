package oci

import (
	"bytes"
	"net/http"
	"testing"

	"github.com/pontoon-registry/pontoon/meta"
	"github.com/pontoon-registry/pontoon/meta/policy"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// only refuses with err all but what is allowed.
func only(err error, allowed ...policy.Access) func(policy.Access) error {
	return func(a policy.Access) error {
		for _, one := range allowed {
			if a == one {
				return nil
			}
		}
		return err
	}
}

func TestEveryRouteAsksFirst(t *testing.T) {
	r := newRig(t, nil)
	d := r.putManifest("a", "v", r.image("a", nil))
	loc := r.begin("a")
	for _, c := range []struct {
		method, path string
		verb         policy.Verb
	}{
		{"GET", "/v2/a/manifests/v", policy.Pull}, {"HEAD", "/v2/a/manifests/" + d, policy.Pull},
		{"PUT", "/v2/a/manifests/v", policy.Push}, {"DELETE", "/v2/a/manifests/v", policy.Delete},
		{"GET", "/v2/a/blobs/" + d, policy.Pull}, {"DELETE", "/v2/a/blobs/" + d, policy.Delete},
		{"POST", "/v2/a/blobs/uploads/", policy.Push}, {"PATCH", loc, policy.Push}, {"PUT", loc, policy.Push},
		{"GET", loc, policy.Push}, {"DELETE", loc, policy.Push},
		{"GET", "/v2/a/tags/list", policy.Pull}, {"GET", "/v2/a/referrers/" + d, policy.Pull},
		{"GET", "/v2/missing/manifests/v", policy.Pull},
	} {
		name := "a"
		if c.path == "/v2/missing/manifests/v" {
			name = "missing"
		}
		var asked []policy.Access
		r.access.refuse = func(a policy.Access) error {
			asked = append(asked, a)
			return challenged{meta.Refuse(metav1.Kind_KIND_UNAUTHENTICATED, metav1.Noun_NOUN_REPOSITORY, "log in")}
		}
		p := r.want(r.do(c.method, c.path, nil), http.StatusUnauthorized)
		if c.method != "HEAD" && p.code() != "UNAUTHORIZED" {
			t.Errorf("%s %s: %s", c.method, c.path, p.body)
		}
		if p.Header.Get("WWW-Authenticate") != `Basic realm="test"` {
			t.Errorf("%s %s: challenge %q", c.method, c.path, p.Header.Get("WWW-Authenticate"))
		}
		if len(asked) == 0 || asked[0] != (policy.Access{Repository: name, Verb: c.verb}) {
			t.Errorf("%s %s: asked %v", c.method, c.path, asked)
		}
	}
	r.access.refuse = only(meta.Refuse(metav1.Kind_KIND_DENIED, metav1.Noun_NOUN_REPOSITORY, "may not"))
	r.wantError(r.do("GET", "/v2/_catalog", nil), 403, "DENIED")
	r.wantError(r.do("GET", "/v2/a/manifests/v", nil), 403, "DENIED")
}

func TestAMountTakesOnlyWhatTheCallerMayRead(t *testing.T) {
	r := newRig(t, nil)
	d := r.pushBlob("secret", content("s", 10))
	denied := meta.Refuse(metav1.Kind_KIND_DENIED, metav1.Noun_NOUN_REPOSITORY, "may not")
	push := policy.Access{Repository: "mine", Verb: policy.Push}
	for _, query := range []string{"?mount=" + d + "&from=secret", "?mount=" + d} {
		r.access.refuse = only(denied, push, policy.Access{Repository: "mine", Verb: policy.Pull})
		p := r.want(r.do("POST", "/v2/mine/blobs/uploads/"+query, nil), 202)
		r.want(r.do("DELETE", p.Header.Get("Location"), nil), 204)
		r.want(r.do("HEAD", "/v2/mine/blobs/"+d, nil), 404)
	}
	r.access.refuse = nil
	for repo, query := range map[string]string{
		"one": "?mount=" + d + "&from=secret", "two": "?mount=" + d, "three": "?mount=" + d + "&from=elsewhere", "secret": "?mount=" + d,
	} {
		calls := r.store.calls.Load()
		p := r.want(r.do("POST", "/v2/"+repo+"/blobs/uploads/"+query, nil), 201)
		if p.Header.Get("Location") != "/v2/"+repo+"/blobs/"+d || p.Header.Get("Docker-Content-Digest") != d {
			t.Errorf("%v", p.Header)
		}
		if r.store.calls.Load() != calls {
			t.Error("a mount touched the store")
		}
		r.want(r.do("HEAD", "/v2/"+repo+"/blobs/"+d, nil), 200)
	}
	r.want(r.do("POST", "/v2/mine/blobs/uploads/?mount="+sha([]byte("nowhere"))+"&from=secret", nil), 202)
}

func TestAnUploadOfAnotherRepositoryIsUnknown(t *testing.T) {
	r := newRig(t, nil)
	loc := r.begin("a")
	other := "/v2/b" + loc[len("/v2/a"):]
	for _, p := range []reply{
		r.do("GET", other, nil), r.do("DELETE", other, nil), r.do("PATCH", other, bytes.NewReader([]byte("x"))),
		r.do("PUT", other+"?digest="+sha(nil), nil),
	} {
		r.wantError(p, 404, "BLOB_UPLOAD_UNKNOWN")
	}
	r.want(r.do("GET", loc, nil), 204)
}

func TestAReaderMayAskForAStateThatIsNotOlder(t *testing.T) {
	r := newRig(t, nil)
	m := r.image("a", nil)
	p := r.want(r.do("PUT", "/v2/a/manifests/v", bytes.NewReader(m), "Content-Type", typeImage), 201)
	revision := p.Header.Get("Pontoon-Revision")
	r.want(r.do("GET", "/v2/a/manifests/v", nil, "Pontoon-Min-Revision", revision), 200)
	r.wantError(r.do("GET", "/v2/a/manifests/v", nil, "Pontoon-Min-Revision", revision+"0"), 412, "DENIED")
	r.wantError(r.do("GET", "/v2/a/manifests/v", nil, "Pontoon-Min-Revision", "x"), 400, "UNSUPPORTED")
}

func TestWarningsAreSent(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Warnings = []string{"going away", "soon"} })
	p := r.want(r.do("GET", "/v2/", nil), 200)
	if got := p.Header.Values("Warning"); len(got) != 2 || got[0] != `299 - "going away"` {
		t.Errorf("%q", got)
	}
}
