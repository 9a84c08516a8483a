package oci

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/pontoon-registry/pontoon/meta"
)

// next answers the address in the Link header, or "".
func next(t *testing.T, p reply) string {
	t.Helper()
	link := p.Header.Get("Link")
	if link == "" {
		return ""
	}
	address, ok := strings.CutSuffix(link, `>; rel="next"`)
	if !ok || !strings.HasPrefix(address, "</v2/") {
		t.Fatalf("Link %q", link)
	}
	return address[1:]
}

func TestListsArePagedInOrder(t *testing.T) {
	r := newRig(t, func(c *Config) { c.TagsMax, c.CatalogMax = 4, 4 })
	m := r.image("repo/0", nil)
	var tags []string
	for i := range 10 {
		tags = append(tags, fmt.Sprintf("v%d", i))
		r.putManifest("repo/0", tags[i], m)
	}
	repos := []string{"repo/0"}
	for i := 1; i < 10; i++ {
		repos = append(repos, fmt.Sprintf("repo/%d", i))
		r.pushBlob(repos[i], []byte("{}"))
	}
	for _, list := range []struct {
		path string
		want []string
	}{{"/v2/repo/0/tags/list", tags}, {"/v2/_catalog", repos}} {
		for query, size := range map[string]int{"": 4, "?n=3": 3, "?n=100": 4, "?n=99999999999999999999": 4} {
			var got []string
			for path := list.path + query; path != ""; {
				p := r.want(r.do("GET", path, nil), 200)
				names := listed(t, p)
				if len(names) > size {
					t.Errorf("%s: a page of %d", path, len(names))
				}
				got = append(got, names...)
				path = next(t, p)
			}
			if !slices.Equal(got, list.want) {
				t.Errorf("%s%s: got %v", list.path, query, got)
			}
		}
		p := r.want(r.do("GET", list.path+"?n=0", nil), 200)
		if len(listed(t, p)) != 0 || p.Header.Get("Link") != "" || strings.Contains(string(p.body), "null") {
			t.Errorf("n=0: %s, Link %q", p.body, p.Header.Get("Link"))
		}
		for _, query := range []string{"?n=-1", "?n=x", "?n=", "?n=1e3"} {
			r.wantError(r.do("GET", list.path+query, nil), 400, "UNSUPPORTED")
		}
	}
	if got := listed(t, r.want(r.do("GET", "/v2/repo/0/tags/list?last=v7", nil), 200)); !slices.Equal(got, []string{"v8", "v9"}) {
		t.Errorf("after v7: %v", got)
	}
	r.wantError(r.do("GET", "/v2/repo/0/tags/list?last=.x", nil), 400, "TAG_INVALID")
	r.wantError(r.do("GET", "/v2/_catalog?last=X", nil), 400, "NAME_INVALID")
}

func listed(t *testing.T, p reply) []string {
	t.Helper()
	var l struct{ Tags, Repositories []string }
	if err := json.Unmarshal(p.body, &l); err != nil {
		t.Fatal(err)
	}
	return append(l.Tags, l.Repositories...)
}

// referrersOf gathers all pages.
func (r *rig) referrersOf(path string) (all []ocispec.Descriptor, pages int) {
	r.t.Helper()
	for path != "" {
		p := r.want(r.do("GET", path, nil), http.StatusOK)
		if p.Header.Get("Content-Type") != typeIndex {
			r.t.Fatalf("content type %q", p.Header.Get("Content-Type"))
		}
		if len(p.body) > meta.MaxManifest {
			r.t.Errorf("%s: a page of %d bytes", path, len(p.body))
		}
		var x ocispec.Index
		if err := json.Unmarshal(p.body, &x); err != nil || x.SchemaVersion != 2 || x.MediaType != typeIndex || x.Manifests == nil {
			r.t.Fatalf("%s: %v", p.body, err)
		}
		all = append(all, x.Manifests...)
		path = next(r.t, p)
		pages++
	}
	return all, pages
}

// refer pushes a manifest that refers to subject and answers its digest.
func (r *rig) refer(repo, subject, artifactType string, annotations map[string]string) string {
	r.t.Helper()
	more := map[string]any{"annotations": annotations}
	if artifactType != "" {
		more["artifactType"] = artifactType
	}
	if subject != "" {
		more["subject"] = map[string]any{"mediaType": typeImage, "digest": subject, "size": 5}
	}
	m := r.image(repo, more)
	p := r.want(r.do("PUT", "/v2/"+repo+"/manifests/"+sha(m), strings.NewReader(string(m)), "Content-Type", typeImage), 201)
	if p.Header.Get("OCI-Subject") != subject {
		r.t.Fatalf("OCI-Subject %q, want %q", p.Header.Get("OCI-Subject"), subject)
	}
	return sha(m)
}

func TestReferrersAreNever404(t *testing.T) {
	r := newRig(t, nil)
	zero := "sha256:" + strings.Repeat("0", 64)
	if all, _ := r.referrersOf("/v2/none/at/all/referrers/" + zero); len(all) != 0 {
		t.Errorf("%v", all)
	}
	r.wantError(r.do("GET", "/v2/a/referrers/sha256:zz", nil), 400, "DIGEST_INVALID")
	r.wantError(r.do("GET", "/v2/a/referrers/latest", nil), 400, "DIGEST_INVALID")
	r.wantError(r.do("GET", "/v2/a/referrers/"+zero+"?next=!", nil), 400, "UNSUPPORTED")
}

func TestReferrersAreListedFilteredAndDescribed(t *testing.T) {
	r := newRig(t, nil)
	subject := sha([]byte("not here yet"))
	x := r.refer("a", subject, "application/vnd.x", map[string]string{"k": "v"})
	y := r.refer("a", subject, "application/vnd.y", nil)
	z := r.refer("a", subject, "", map[string]string{"z": ""}) // the config's type counts
	large := r.refer("a", subject, "application/vnd.x", map[string]string{"large": strings.Repeat("l", meta.MaxInlineBody)})
	r.refer("a", sha([]byte("another")), "application/vnd.x", nil)
	all, _ := r.referrersOf("/v2/a/referrers/" + subject)
	if len(all) != 4 {
		t.Fatalf("%d referrers: %v", len(all), all)
	}
	types := map[string]string{x: "application/vnd.x", y: "application/vnd.y", z: "application/x", large: "application/vnd.x"}
	for _, d := range all {
		if types[d.Digest.String()] != d.ArtifactType || d.MediaType != typeImage || d.Size == 0 {
			t.Errorf("%+v", d)
		}
		switch d.Digest.String() {
		case x:
			if d.Annotations["k"] != "v" {
				t.Errorf("%+v", d)
			}
		case large:
			if len(d.Annotations["large"]) != meta.MaxInlineBody {
				t.Error("annotations of a large manifest are missing")
			}
		}
	}
	for filter, want := range map[string]int{"application/vnd.x": 2, "application/vnd.y": 1, "application/none": 0, "": 0} {
		path := "/v2/a/referrers/" + subject + "?artifactType=" + filter
		if p := r.want(r.do("GET", path, nil), 200); p.Header.Get("OCI-Filters-Applied") != "artifactType" {
			t.Errorf("%q: filters %q", filter, p.Header.Get("OCI-Filters-Applied"))
		}
		if some, _ := r.referrersOf(path); len(some) != want {
			t.Errorf("%q: %d, want %d", filter, len(some), want)
		}
	}
}

func TestReferrersBeyondFourMiBAreLinked(t *testing.T) {
	r := newRig(t, nil)
	subject := sha([]byte("popular"))
	want := map[string]bool{}
	for i := range 90 {
		want[r.refer("a", subject, fmt.Sprintf("application/vnd.t%d", i%3), map[string]string{"n": fmt.Sprint(i), "fill": strings.Repeat("f", 60<<10)})] = true
	}
	all, pages := r.referrersOf("/v2/a/referrers/" + subject)
	if pages < 2 || len(all) != len(want) {
		t.Errorf("%d referrers on %d pages, want %d", len(all), pages, len(want))
	}
	for _, d := range all {
		delete(want, d.Digest.String())
	}
	if len(want) != 0 {
		t.Errorf("%d are missing", len(want))
	}
}

func TestTheFallbackTagIsFoldedIn(t *testing.T) {
	r := newRig(t, nil)
	subject := sha([]byte("old"))
	both := r.refer("a", subject, "application/vnd.x", nil)
	legacy := r.refer("a", "", "application/vnd.y", map[string]string{"k": "v"})
	foreign := r.refer("a", sha([]byte("another")), "application/vnd.x", nil)
	r.putManifest("a", "sha256-"+strings.TrimPrefix(subject, "sha256:"), r.index(both, legacy, foreign))
	all, _ := r.referrersOf("/v2/a/referrers/" + subject)
	got := []string{}
	for _, d := range all {
		got = append(got, d.Digest.String())
	}
	if !slices.Equal(got, []string{both, legacy}) {
		t.Errorf("got %v, want %s and %s once each", got, both, legacy)
	}
	some, _ := r.referrersOf("/v2/a/referrers/" + subject + "?artifactType=application/vnd.y")
	if len(some) != 1 || some[0].Digest.String() != legacy || some[0].Annotations["k"] != "v" {
		t.Errorf("filtered: %+v", some)
	}
}

func TestAFallbackTagOfNoIndexIsIgnored(t *testing.T) {
	r := newRig(t, nil)
	subject := sha([]byte("odd"))
	r.putManifest("a", "sha256-"+strings.TrimPrefix(subject, "sha256:"), r.image("a", nil))
	if all, _ := r.referrersOf("/v2/a/referrers/" + subject); len(all) != 0 {
		t.Errorf("%v", all)
	}
}
