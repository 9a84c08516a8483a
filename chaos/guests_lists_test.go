package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/pontoon-registry/pontoon/chaos/check"
)

// namesIn reads one list of names out of an answer in JSON.
func namesIn(body []byte, field string) (names []string) {
	var fields map[string]json.RawMessage
	if json.Unmarshal(body, &fields) == nil {
		_ = json.Unmarshal(fields[field], &names) // null, or nothing, is no names
	}
	return names
}

// referrer owns a repository alone: it attaches artifacts to a subject, takes them away, and after each acknowledgement the
// list of referrers and the catalog must say so.
func (v *guest) referrer(ctx context.Context) {
	repo := fmt.Sprintf("referrers/g%d", v.id)
	subject := small("subject of "+repo, 0)
	put := func(body []byte) bool {
		_, o := v.do(ctx, check.Operation{Class: check.PutManifest, Kind: "referrer-put", Repo: "referrers", Key: repo, Input: digestOf(body)},
			request{method: http.MethodPut, path: "/v2/" + repo + "/manifests/" + digestOf(body), header: typed(mediaManifest), body: body})
		v.explain(o, http.StatusCreated)
		return o.Status == http.StatusCreated
	}
	if !v.until(ctx, func() bool { return v.pushBlob(ctx, repo, emptyConfig) && put(subject) }) {
		return
	}
	for i := 0; ctx.Err() == nil; i++ {
		described, config := describe(mediaManifest, subject), describe(mediaEmpty, emptyConfig)
		body := manifest{MediaType: mediaManifest, ArtifactType: "chaos/referrer", Config: &config, Subject: &described,
			Annotations: map[string]string{"number": fmt.Sprint(i)}}.encode()
		if !v.until(ctx, func() bool { return put(body) }) {
			return
		}
		v.refers(ctx, repo, digestOf(subject), digestOf(body), true)
		v.catalog(ctx, repo)
		if !v.until(ctx, func() bool {
			_, o := v.do(ctx, check.Operation{Class: check.Delete, Kind: "referrer-delete", Repo: "referrers", Key: repo, Input: digestOf(body)},
				request{method: http.MethodDelete, path: "/v2/" + repo + "/manifests/" + digestOf(body)})
			v.explain(o, http.StatusAccepted, http.StatusNotFound)
			return o.Status == http.StatusAccepted || o.Status == http.StatusNotFound
		}) {
			return
		}
		v.refers(ctx, repo, digestOf(subject), digestOf(body), false)
		pause(ctx, 200*time.Millisecond)
	}
}

// refers reads the referrers of a subject and holds them against whether one is there.
func (v *guest) refers(ctx context.Context, repo, subject, digest string, there bool) {
	a, o := v.do(ctx, check.Operation{Class: check.List, Kind: check.ReferrerList, Repo: "referrers", Key: repo, Input: subject},
		request{method: http.MethodGet, path: "/v2/" + repo + "/referrers/" + subject})
	v.explain(o, http.StatusOK)
	if o.Status != http.StatusOK || o.Outcome != check.Done || o.Stale {
		return
	}
	var index manifest
	if err := json.Unmarshal(a.body, &index); err != nil {
		v.c.violated("lists", "referrers of %s at %s: %v: %.200s", repo, o.Node, err, a.body)
		return
	}
	if listed := slices.ContainsFunc(index.Manifests, func(d descriptor) bool { return d.Digest == digest }); listed != there {
		v.c.violated("lists", "referrers in %s at %s: %s listed %v, acknowledged %v", repo, o.Node, digest, listed, there)
	}
}

// catalog reads the page of the catalog that begins with a repository that is there.
func (v *guest) catalog(ctx context.Context, repo string) {
	before := repo[:len(repo)-1]
	a, o := v.do(ctx, check.Operation{Class: check.List, Kind: check.RepoList, Repo: "referrers"},
		request{method: http.MethodGet, path: "/v2/_catalog?n=20&last=" + url.QueryEscape(before)})
	v.explain(o, http.StatusOK)
	if o.Status == http.StatusOK && o.Outcome == check.Done && !o.Stale && !slices.Contains(namesIn(a.body, "repositories"), repo) {
		v.c.violated("lists", "catalog after %s at %s lacks %s, which holds a manifest: %.300s", before, o.Node, repo, a.body)
	}
}
