package oci

import (
	"context"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pontoon-registry/pontoon/meta"
	"github.com/pontoon-registry/pontoon/meta/policy"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// Headers of our own.
const (
	headerRevision    = "Pontoon-Revision"
	headerMinRevision = "Pontoon-Min-Revision"
	headerFeatures    = "Pontoon-Features"
	headerDigest      = "Docker-Content-Digest"
)

// Handler answers /v2/. It is an http.Handler, safe for concurrent use.
type Handler struct {
	Config
	endpoints map[target]map[string]endpoint
	writers   writers
	pulls     pulls
	buffers   sync.Pool
}

// endpoint is one method of a target: what it asks of Access, and what it does.
type endpoint struct {
	// verb is what is asked for the repository; empty asks for a login only.
	verb policy.Verb
	do   func(*call) error
}

// call is one request on its way.
type call struct {
	*Handler
	route
	w     http.ResponseWriter
	r     *http.Request
	query url.Values
	who   policy.Identity
	// min is Pontoon-Min-Revision.
	min uint64
	// sent is true once the header of the answer is out; stale once a View was.
	sent, stale bool
}

// New makes a Handler. It starts nothing; Run may be called to propose pull counts.
func New(c Config) (*Handler, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	h := &Handler{Config: c}
	h.buffers.New = func() any { b := make([]byte, 128<<10); return &b }
	read := func(verb policy.Verb, do func(*call) error) map[string]endpoint {
		return map[string]endpoint{http.MethodGet: {verb, do}, http.MethodHead: {verb, do}}
	}
	with := func(table map[string]endpoint, method string, verb policy.Verb, do func(*call) error) map[string]endpoint {
		table[method] = endpoint{verb, do}
		return table
	}
	h.endpoints = map[target]map[string]endpoint{
		base:      read("", (*call).ping),
		catalog:   read(policy.List, (*call).listRepositories),
		tagList:   read(policy.Pull, (*call).listTags),
		referrers: read(policy.Pull, (*call).listReferrers),
		blobsOf:   with(read(policy.Pull, (*call).getBlob), http.MethodDelete, policy.Delete, (*call).deleteBlob),
		manifests: with(with(read(policy.Pull, (*call).getManifest),
			http.MethodPut, policy.Push, (*call).putManifest),
			http.MethodDelete, policy.Delete, (*call).deleteManifest),
		uploads: {http.MethodPost: {policy.Push, (*call).postUpload}},
		upload: with(with(with(read(policy.Push, (*call).getUpload),
			http.MethodPatch, policy.Push, (*call).patchUpload),
			http.MethodPut, policy.Push, (*call).putUpload),
			http.MethodDelete, policy.Push, (*call).deleteUpload),
	}
	return h, nil
}

// ServeHTTP answers one request: it is the only place where errors are written.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := &call{Handler: h, w: w, r: r, query: r.URL.Query()}
	w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	for _, text := range h.Warnings {
		w.Header().Add("Warning", warning(text))
	}
	guardBody(w, r, h.IdleTimeout)
	err := c.unproven(c.serve())
	c.countPull(err)
	if err != nil {
		c.writeError(err)
	}
}

func (c *call) serve() error {
	var err error
	if c.route, err = parseRoute(c.r.URL.Path); err != nil {
		return err
	}
	methods := c.endpoints[c.target]
	e, ok := methods[c.r.Method]
	if !ok {
		return c.wrongMethod(methods)
	}
	if err := c.authorize(e.verb); err != nil {
		return err
	}
	if v := c.r.Header.Get(headerMinRevision); v != "" {
		if c.min, err = strconv.ParseUint(v, 10, 64); err != nil {
			return invalid(metav1.Noun_NOUN_CURSOR, "%s: got %q, expected a decimal number", headerMinRevision, clip(v))
		}
	}
	return e.do(c)
}

func (c *call) authorize(verb policy.Verb) (err error) {
	if verb == "" {
		c.who, err = c.Access.Authorize(c.r)
		return err
	}
	c.who, err = c.Access.Authorize(c.r, policy.Access{Repository: c.name, Verb: verb})
	return err
}

func (c *call) wrongMethod(methods map[string]endpoint) error {
	allow := strings.Join(slices.Sorted(maps.Keys(methods)), ", ")
	c.w.Header().Set("Allow", allow)
	return meta.Refuse(metav1.Kind_KIND_UNSUPPORTED, metav1.Noun_NOUN_UNSPECIFIED,
		"method: got %s, expected one of %s", clip(c.r.Method), allow)
}

// ping is end-1. The feature header advertises M6 before anybody relies on it.
func (c *call) ping() error {
	c.w.Header().Set(headerFeatures, "conditional-tags")
	return c.writeJSON(http.StatusOK, "application/json", []byte("{}"))
}

// may asks quietly.
func (c *call) may(repository string, verb policy.Verb) bool {
	return c.Access.Allows(c.who, policy.Access{Repository: repository, Verb: verb})
}

// mayPush says whether the caller may push here.
func (c *call) mayPush() bool { return c.may(c.name, policy.Push) }

// view reads the ledger. content allows the fallback of meta.Read, and is only
// for reads by digest. A HEAD never falls back for a caller who may push: it would
// leave out what it says is there (G8).
func (c *call) view(content bool, fn func(*meta.View) error) error {
	began := time.Now()
	if c.r.Method != http.MethodGet && c.mayPush() {
		content = false
	}
	read := meta.Read{Content: content, MinIndex: c.min}
	return c.Ledger.View(c.r.Context(), read, func(v *meta.View) error {
		c.Timing(c.r.Context(), "ledger", time.Since(began))
		c.revision(v.Index())
		if v.Stale() && (c.target == upload || c.r.Method != http.MethodGet && c.mayPush()) {
			// Whatever age the operator allows for reads: an upload that was saved since would be judged by
			// what it was, and its PUT cancelled for a wrong digest.
			return meta.Refuse(metav1.Kind_KIND_UNAVAILABLE, metav1.Noun_NOUN_CLUSTER, "no quorum: pushes need the latest state")
		}
		if v.Stale() && !c.stale {
			c.stale = true
			c.w.Header().Add("Warning", staleWarning)
		}
		return fn(v)
	})
}

// staleWarning says that an answer is of a state without a quorum.
const staleWarning = `110 - "Response is Stale"`

// unproven is the answer to an error that rests on an old state: what that does not know may have been pushed since, and a
// 404 would end a pull that another node, or this one soon, can serve.
func (c *call) unproven(err error) error {
	if !c.stale || meta.KindOf(err) != metav1.Kind_KIND_UNKNOWN {
		return err
	}
	header := c.w.Header()
	header["Warning"] = slices.DeleteFunc(header["Warning"], func(text string) bool { return text == staleWarning })
	return meta.Refuse(metav1.Kind_KIND_UNAVAILABLE, metav1.Noun_NOUN_CLUSTER, "no quorum: this node knew nothing of it before: %v", err)
}

// propose commits one command: each gets an envelope and a deadline of its own.
func (c *call) propose(ctx context.Context, cmd *metav1.Command) (*metav1.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, c.ProposeTimeout)
	defer cancel()
	cmd.Envelope = &metav1.Envelope{
		Actor:         &metav1.Actor{Name: c.who.Name, Method: c.who.Method, Groups: c.who.Groups},
		ClientAddress: c.r.RemoteAddr,
		RequestId:     c.RequestID(c.r.Context()),
	}
	began := time.Now()
	res, err := c.Ledger.Propose(ctx, cmd)
	c.Timing(c.r.Context(), "ledger", time.Since(began))
	if err == nil {
		c.revision(res.GetIndex())
	}
	return res, err
}

// lasting answers a context that survives the client's for at most d: for
// what must be put in order after it has gone.
func (c *call) lasting(d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(c.r.Context()), d)
}

func (c *call) revision(index uint64) {
	c.w.Header().Set(headerRevision, strconv.FormatUint(index, 10))
}

// location makes a Location: a path only, since a client that sees another
// scheme or host drops its credentials. ns is kept for those who sent it.
func (c *call) location(path string) {
	if ns := c.query.Get("ns"); ns != "" {
		path += "?ns=" + url.QueryEscape(ns)
	}
	c.w.Header().Set("Location", c.LocationBase+path)
}

func (c *call) blobLocation(d meta.Digest) {
	c.location("/v2/" + c.name + "/blobs/" + d.String())
	c.w.Header().Set(headerDigest, d.String())
}

// empty answers without a body.
func (c *call) empty(status int) error {
	if status != http.StatusNoContent {
		c.w.Header().Set("Content-Length", "0")
	}
	c.sent = true
	c.w.WriteHeader(status)
	return nil
}

// writeJSON answers with a body that is at hand.
func (c *call) writeJSON(status int, mediaType string, body []byte) error {
	c.w.Header().Set("Content-Type", mediaType)
	c.w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	c.sent = true
	c.w.WriteHeader(status)
	if c.r.Method == http.MethodHead {
		return nil
	}
	if _, err := c.w.Write(body); err != nil {
		return clientGone(err)
	}
	return nil
}

// warning makes the value of a Warning header.
func warning(text string) string {
	clean := strings.Map(func(r rune) rune {
		if r < ' ' || r == '"' || r == '\\' || r == 0x7f {
			return ' '
		}
		return r
	}, text)
	return `299 - "` + clean + `"`
}
