package oci

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/pontoon-registry/pontoon/blobs/mem"
	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

func TestPullsAreProposedTogether(t *testing.T) {
	r := newRig(t, nil)
	d := r.putManifest("a", "v", r.image("a", nil))
	for range 3 {
		r.want(r.do("GET", "/v2/a/manifests/v", nil), 200)
		r.want(r.do("HEAD", "/v2/a/manifests/v", nil), 200)
	}
	before := r.ledger.proposals.Load()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.handler.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if n := r.ledger.proposals.Load() - before; n != 1 {
		t.Errorf("%d proposals, want 1", n)
	}
	packed, err := meta.ParseDigest(d)
	if err != nil {
		t.Fatal(err)
	}
	err = r.ledger.View(t.Context(), meta.Read{}, func(v *meta.View) error {
		pulls, err := v.Pulls("a", packed)
		if pulls.GetCount() != 3 {
			t.Errorf("%d pulls, want 3", pulls.GetCount())
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// results counts what the metrics hear.
type results struct {
	uncounted
	pulled map[string]int
}

func (r results) Pulled(what, result string) { r.pulled[what+" "+result]++ }

func TestPullsAreCountedByResult(t *testing.T) {
	m := results{pulled: map[string]int{}}
	r := newRig(t, func(c *Config) { c.Metrics = m })
	r.putManifest("a", "v", r.image("a", nil))
	r.want(r.do("GET", "/v2/a/manifests/v", nil), 200)
	r.want(r.do("GET", "/v2/a/manifests/w", nil), 404)
	r.want(r.do("GET", "/v2/a/blobs/"+sha([]byte("{}")), nil), 200)
	r.access.refuse = only(meta.Refuse(metav1.Kind_KIND_DENIED, metav1.Noun_NOUN_REPOSITORY, "may not"))
	r.want(r.do("GET", "/v2/a/manifests/v", nil), 403)
	r.access.refuse = only(meta.Refuse(metav1.Kind_KIND_UNAUTHENTICATED, metav1.Noun_NOUN_REPOSITORY, "log in"))
	r.want(r.do("GET", "/v2/a/manifests/v", nil), 401)
	for what, want := range map[string]int{
		"manifests ok": 1, "manifests not_found": 1, "manifests denied": 1, "manifests unauthenticated": 1, "blobs ok": 1,
	} {
		if m.pulled[what] != want {
			t.Errorf("%s: %d, want %d", what, m.pulled[what], want)
		}
	}
}

func TestAConfigNamesTheFieldThatIsWrong(t *testing.T) {
	good := func() Config {
		return Config{Ledger: &countedLedger{}, Store: mem.New(0), StoreName: "s", Access: &rules{}}
	}
	for field, change := range map[string]func(*Config){
		"Ledger":           func(c *Config) { c.Ledger = nil },
		"Store ":           func(c *Config) { c.Store = nil },
		"StoreName":        func(c *Config) { c.StoreName = "" },
		"Access":           func(c *Config) { c.Access = nil },
		"RedirectLifetime": func(c *Config) { c.RedirectLifetime = 25 * time.Hour },
		"IdleTimeout":      func(c *Config) { c.IdleTimeout = -1 },
		"TagsMax":          func(c *Config) { c.TagsMax = -1 },
		"Warnings":         func(c *Config) { c.Warnings = []string{strings.Repeat("w", maxWarnings)} },
	} {
		c := good()
		change(&c)
		if _, err := New(c); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: got %v", field, err)
		}
	}
	if _, err := New(good()); err != nil {
		t.Error(err)
	}
}
