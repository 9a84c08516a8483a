package oci

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/pontoon-registry/pontoon/blobs"
	"github.com/pontoon-registry/pontoon/blobs/mem"
	"github.com/pontoon-registry/pontoon/meta"
	"github.com/pontoon-registry/pontoon/meta/kv"
	"github.com/pontoon-registry/pontoon/meta/policy"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	typeImage = "application/vnd.oci.image.manifest.v1+json"
	typeIndex = "application/vnd.oci.image.index.v1+json"
)

// rig is a registry of one node on the real rules, with counters at both waists.
type rig struct {
	t       *testing.T
	url     string
	client  *http.Client
	ledger  *countedLedger
	store   *countedStore
	access  *rules
	handler *Handler
	config  Config
	clock   atomic.Int64
}

func (r *rig) newLedger() *meta.Solo {
	r.t.Helper()
	store, err := kv.OpenMemory()
	if err != nil {
		r.t.Fatal(err)
	}
	solo, err := meta.NewSolo(store, r.clock.Load)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		if err := errors.Join(solo.Close(), store.Close()); err != nil {
			r.t.Error(err)
		}
	})
	return solo
}

// later moves the clock.
func (r *rig) later(d time.Duration) { r.clock.Add(int64(d)) }

// countedLedger counts proposals.
type countedLedger struct {
	meta.Ledger
	proposals atomic.Int64
	// refuse, if set, may answer a proposal instead of the ledger.
	refuse func(*metav1.Command) error
}

func (l *countedLedger) Propose(ctx context.Context, c *metav1.Command) (*metav1.Result, error) {
	if l.refuse != nil {
		if err := l.refuse(c); err != nil {
			return nil, err
		}
	}
	l.proposals.Add(1)
	return l.Ledger.Propose(ctx, c)
}

// countedStore counts calls that read or write.
type countedStore struct {
	blobs.Store
	calls atomic.Int64
	fail  atomic.Pointer[error]
	url   string
}

func (s *countedStore) call() error {
	s.calls.Add(1)
	if e := s.fail.Load(); e != nil {
		return *e
	}
	return nil
}

func (s *countedStore) Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if err := s.call(); err != nil {
		return nil, err
	}
	return s.Store.Open(ctx, key, offset, length)
}

func (s *countedStore) Writer(ctx context.Context, a blobs.Attempt) (blobs.Writer, error) {
	if err := s.call(); err != nil {
		return nil, err
	}
	return s.Store.Writer(ctx, a)
}

func (s *countedStore) Finish(ctx context.Context, n blobs.Name, p blobs.Progress) (blobs.Finished, error) {
	if err := s.call(); err != nil {
		return blobs.Finished{}, err
	}
	return s.Store.Finish(ctx, n, p)
}

func (s *countedStore) Stat(ctx context.Context, key string) (int64, error) {
	if err := s.call(); err != nil {
		return 0, err
	}
	return s.Store.Stat(ctx, key)
}

func (s *countedStore) Presign(ctx context.Context, key string, lifetime time.Duration) (string, error) {
	if s.url == "" {
		return s.Store.Presign(ctx, key, lifetime)
	}
	return s.url + key, nil
}

// rules is Access by a function; nil allows everything.
type rules struct {
	refuse func(a policy.Access) error
}

// challenged is a refusal with an offer.
type challenged struct{ error }

func (challenged) Challenge() []string { return []string{`Basic realm="test"`} }
func (c challenged) Unwrap() error     { return c.error }

func (a *rules) Authorize(_ *http.Request, asked ...policy.Access) (policy.Identity, error) {
	for _, one := range asked {
		if a.refuse != nil {
			if err := a.refuse(one); err != nil {
				return policy.Identity{}, err
			}
		}
	}
	return policy.Identity{Name: "tester", Method: "test"}, nil
}

func (a *rules) Allows(_ policy.Identity, one policy.Access) bool {
	return a.refuse == nil || a.refuse(one) == nil
}

// newRig starts a registry; change may alter its configuration.
func newRig(t *testing.T, change func(*Config)) *rig {
	t.Helper()
	return newRigOn(t, mem.New(1<<10), change)
}

func newRigOn(t *testing.T, store blobs.Store, change func(*Config)) *rig {
	t.Helper()
	r := &rig{t: t, ledger: &countedLedger{}, store: &countedStore{Store: store}, access: &rules{}}
	r.clock.Store(time.Now().UnixNano())
	r.ledger.Ledger = r.newLedger()
	r.config = Config{Ledger: r.ledger, Store: r.store, StoreName: "test", Access: r.access, Delete: true}
	if change != nil {
		change(&r.config)
	}
	r.handler, r.url = r.node()
	r.client = &http.Client{
		Transport:     &http.Transport{},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       30 * time.Second,
	}
	t.Cleanup(r.client.CloseIdleConnections)
	return r
}

// node starts another door to the same ledger and store.
func (r *rig) node() (*Handler, string) {
	r.t.Helper()
	h, err := New(r.config)
	if err != nil {
		r.t.Fatal(err)
	}
	s := httptest.NewServer(h)
	r.t.Cleanup(s.Close)
	return h, s.URL
}

// reply is an answer, read to its end.
type reply struct {
	*http.Response
	body []byte
}

// code is the first error code of an error body.
func (p reply) code() string {
	var e struct {
		Errors []struct{ Code, Message string }
	}
	if json.Unmarshal(p.body, &e) != nil || len(e.Errors) == 0 {
		return ""
	}
	return e.Errors[0].Code
}

// do sends a request; header comes as name, value pairs. Paths are absolute or, with a scheme, whole addresses.
func (r *rig) do(method, path string, body io.Reader, header ...string) reply {
	r.t.Helper()
	if strings.HasPrefix(path, "/") {
		path = r.url + path
	}
	req, err := http.NewRequestWithContext(r.t.Context(), method, path, body)
	if err != nil {
		r.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	return r.send(req)
}

func (r *rig) send(req *http.Request) reply {
	r.t.Helper()
	res, err := r.client.Do(req)
	if err != nil {
		r.t.Fatalf("%s %s: %v", req.Method, req.URL, err)
	}
	defer func() { _ = res.Body.Close() }()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatalf("%s %s: read answer: %v", req.Method, req.URL, err)
	}
	if v := res.Header.Get("Docker-Distribution-Api-Version"); v != "registry/2.0" {
		r.t.Errorf("%s %s: api version %q", req.Method, req.URL, v)
	}
	return reply{res, data}
}

// want fails the test unless the answer has the status.
func (r *rig) want(p reply, status int) reply {
	r.t.Helper()
	if p.StatusCode != status {
		r.t.Fatalf("%s %s: got %d %s, want %d", p.Request.Method, p.Request.URL, p.StatusCode, p.body, status)
	}
	return p
}

// wantError fails the test unless the answer is this error.
func (r *rig) wantError(p reply, status int, code string) reply {
	r.t.Helper()
	if p.StatusCode != status || p.code() != code {
		r.t.Fatalf("%s %s: got %d %s, want %d %s", p.Request.Method, p.Request.URL, p.StatusCode, p.body, status, code)
	}
	return p
}

func sha(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func sha5(b []byte) string {
	sum := sha512.Sum512(b)
	return "sha512:" + hex.EncodeToString(sum[:])
}

// content makes n bytes that differ by seed.
func content(seed string, n int) []byte {
	b := make([]byte, 0, n+64)
	for i := 0; len(b) < n; i++ {
		sum := sha256.Sum256(fmt.Appendf(nil, "%s %d", seed, i))
		b = append(b, sum[:]...)
	}
	return b[:n]
}

// begin opens an upload and answers its location.
func (r *rig) begin(repo string) string {
	r.t.Helper()
	p := r.want(r.do("POST", "/v2/"+repo+"/blobs/uploads/", nil), http.StatusAccepted)
	return p.Header.Get("Location")
}

// pushBlob pushes by POST and PUT, and answers the digest.
func (r *rig) pushBlob(repo string, data []byte) string {
	r.t.Helper()
	loc := r.begin(repo)
	r.want(r.do("PUT", loc+"?digest="+sha(data), bytes.NewReader(data)), http.StatusCreated)
	return sha(data)
}

// image makes a manifest of a pushed config and layers, and what else is to be in it.
func (r *rig) image(repo string, more map[string]any, layers ...[]byte) []byte {
	r.t.Helper()
	config := []byte("{}")
	descriptors := []any{}
	for _, l := range append([][]byte{config}, layers...) {
		descriptors = append(descriptors, map[string]any{"mediaType": "application/x", "digest": r.pushBlob(repo, l), "size": len(l)})
	}
	m := map[string]any{"schemaVersion": 2, "mediaType": typeImage, "config": descriptors[0], "layers": descriptors[1:]}
	for k, v := range more {
		m[k] = v
	}
	return r.json(m)
}

func (r *rig) json(v any) []byte {
	r.t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		r.t.Fatal(err)
	}
	return b
}

// putManifest pushes a manifest and answers the digest.
func (r *rig) putManifest(repo, ref string, body []byte) string {
	r.t.Helper()
	var m struct{ MediaType string }
	_ = json.Unmarshal(body, &m)
	p := r.want(r.do("PUT", "/v2/"+repo+"/manifests/"+ref, bytes.NewReader(body), "Content-Type", m.MediaType), http.StatusCreated)
	return p.Header.Get("Docker-Content-Digest")
}

func (r *rig) index(children ...string) []byte {
	list := []any{}
	for _, d := range children {
		list = append(list, map[string]any{"mediaType": typeImage, "digest": d, "size": 10})
	}
	return r.json(map[string]any{"schemaVersion": 2, "mediaType": typeIndex, "manifests": list})
}
