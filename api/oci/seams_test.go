package oci

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pontoon-registry/pontoon/blobs"
	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// revisionOf answers the revision of the upload at loc.
func (r *rig) revisionOf(loc string) (revision uint64) {
	r.t.Helper()
	err := r.ledger.View(r.t.Context(), meta.Read{}, func(v *meta.View) error {
		u, err := v.Upload(loc[strings.LastIndexByte(loc, '/')+1:])
		revision = u.GetRevision()
		return err
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return revision
}

// revisedFrom waits until the upload has another revision than before.
func (r *rig) revisedFrom(loc string, before uint64) uint64 {
	r.t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		if now := r.revisionOf(loc); now != before {
			return now
		}
	}
	r.t.Fatal("nobody took the upload")
	return 0
}

// Two nodes end one upload with other bytes of the same length. Whoever lost the upload must
// not complete the multipart upload that the other goes on with: the length would not tell.
func TestAWriterThatLostItsUploadDoesNotFinishIt(t *testing.T) {
	stores(t, func(t *testing.T, s blobs.Store) {
		r := newRigOn(t, s, nil)
		_, other := r.node()
		head := content("head", 3<<10)
		one, two := content("one", 3<<10), content("two", 3<<10)
		first, second := append(bytes.Clone(head), one...), append(bytes.Clone(head), two...)
		loc := r.begin("a")
		r.want(r.do("PATCH", loc, bytes.NewReader(head)), 202)

		end := func(url string, data []byte, digest string) (answer chan reply, release func()) {
			body, release := stalling(data)
			answer = make(chan reply, 1)
			before := r.revisionOf(loc)
			go func() { answer <- r.do("PUT", url+loc+"?digest="+digest, body) }() // ends when the server answers
			r.revisedFrom(loc, before)
			return answer, release
		}
		a, releaseA := end(r.url, one, sha(first))
		b, releaseB := end(other, two, sha(second))
		releaseA()
		r.wantError(<-a, http.StatusRequestedRangeNotSatisfiable, "BLOB_UPLOAD_INVALID")
		releaseB()
		r.want(<-b, 201)
		if p := r.want(r.do("GET", "/v2/a/blobs/"+sha(second), nil), 200); !bytes.Equal(p.body, second) {
			t.Error("the blob has another's bytes")
		}
	})
}

// A PUT whose commit did not arrive leaves a multipart upload that is complete, and a row that is open.
func TestAnUploadWhoseMultipartIsGoneStartsOver(t *testing.T) {
	r := newRig(t, nil)
	_, other := r.node()
	data := content("gone", 6<<10)
	loc := r.begin("a")
	r.want(r.do("PATCH", loc, bytes.NewReader(data[:3<<10])), 202)
	r.ledger.refuse = func(c *metav1.Command) error {
		if c.GetCommitUpload() != nil {
			return meta.Refuse(metav1.Kind_KIND_UNAVAILABLE, metav1.Noun_NOUN_CLUSTER, "no quorum")
		}
		return nil
	}
	r.wantError(r.do("PUT", loc+"?digest="+sha(data[:3<<10]), nil), 503, "UNAVAILABLE")
	r.ledger.refuse = nil
	r.wantError(r.do("PATCH", other+loc, bytes.NewReader(data[3<<10:])), 404, "BLOB_UPLOAD_UNKNOWN")
	r.want(r.do("PUT", other+loc+"?digest="+sha(data[:3<<10]), nil), 201)
}

func TestABrokenLastPutIsRepeatedAsItWas(t *testing.T) {
	r := newRig(t, nil)
	_, other := r.node()
	data := content("last", 9000)
	loc := r.begin("a")
	r.want(r.do("PATCH", loc, bytes.NewReader(data[:3000])), 202)
	before := r.revisionOf(loc)
	body := &breaking{bytes.NewReader(data[3000:6000]), func() error { return errors.New("cut") }}
	req, err := http.NewRequestWithContext(t.Context(), "PUT", r.url+loc+"?digest="+sha(data), body)
	if err != nil {
		t.Fatal(err)
	}
	req.ContentLength = 6000
	if res, err := r.client.Do(req); err == nil {
		_ = res.Body.Close()
		t.Fatalf("answered %d", res.StatusCode)
	}
	r.revisedFrom(loc, before)
	r.idle(loc)
	r.want(r.do("PUT", other+loc+"?digest="+sha(data), bytes.NewReader(data[3000:])), 201)
}

// A proxy, or a client, that heard nothing sends the same PUT again.
func TestAPutWhoseCommitDidNotArriveIsRepeatedAsItWas(t *testing.T) {
	stores(t, func(t *testing.T, s blobs.Store) {
		r := newRigOn(t, s, nil)
		_, other := r.node()
		data := content("again", 9000)
		loc := r.begin("a")
		r.want(r.do("PATCH", loc, bytes.NewReader(data[:3000])), 202)
		r.ledger.refuse = func(c *metav1.Command) error {
			if c.GetCommitUpload() != nil {
				return meta.Refuse(metav1.Kind_KIND_OUTCOME_UNKNOWN, metav1.Noun_NOUN_CLUSTER, "lost")
			}
			return nil
		}
		put := func(node string) reply {
			return r.do("PUT", node+loc+"?digest="+sha(data), bytes.NewReader(data[3000:]))
		}
		r.wantError(put(r.url), 503, "UNAVAILABLE")
		r.ledger.refuse = nil
		r.want(put(other), 201)
		r.want(put(r.url), 201)
		if p := r.want(r.do("GET", "/v2/a/blobs/"+sha(data), nil), 200); !bytes.Equal(p.body, data) {
			t.Error("other bytes came back")
		}
	})
}

// idle waits until nobody writes the upload on the first node.
func (r *rig) idle(loc string) {
	r.t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		r.handler.writers.mu.Lock()
		n := len(r.handler.writers.active)
		r.handler.writers.mu.Unlock()
		if n == 0 {
			return
		}
	}
	r.t.Fatal(loc + " is written for ever")
}

// large makes a manifest above meta.MaxInlineBody.
func (r *rig) large(repo string, more map[string]any) []byte {
	r.t.Helper()
	fields := map[string]any{"annotations": map[string]string{"a": strings.Repeat("x", meta.MaxInlineBody)}}
	for k, v := range more {
		fields[k] = v
	}
	return r.image(repo, fields)
}

func TestALostLargeManifestIsHealedByTheNextPush(t *testing.T) {
	r := newRig(t, nil)
	m := r.large("a", nil)
	d := r.putManifest("a", "v", m)
	gone := fmt.Errorf("open: %w", blobs.ErrNotFound)
	r.store.fail.Store(&gone)
	r.wantError(r.do("GET", "/v2/a/manifests/v", nil), 404, "MANIFEST_UNKNOWN")
	r.store.fail.Store(nil)
	r.wantError(r.do("GET", "/v2/a/manifests/v", nil), 404, "MANIFEST_UNKNOWN")
	r.want(r.do("HEAD", "/v2/a/manifests/v", nil), 404)
	r.want(r.do("HEAD", "/v2/a/manifests/"+d, nil), 404)
	r.putManifest("a", "v", m)
	if p := r.want(r.do("GET", "/v2/a/manifests/v", nil), 200); !bytes.Equal(p.body, m) {
		t.Error("other bytes came back")
	}
}

func TestALostReferrerDoesNotHideTheOthers(t *testing.T) {
	r := newRig(t, nil)
	subject := map[string]any{"subject": map[string]any{"mediaType": typeImage, "digest": sha([]byte("s")), "size": 1}}
	d := r.putManifest("a", "large", r.large("a", subject))
	plain := r.putManifest("a", "listed", r.large("a", nil))
	r.putManifest("a", strings.Replace(sha([]byte("s")), ":", "-", 1), r.index(plain))
	gone := fmt.Errorf("open: %w", blobs.ErrNotFound)
	r.store.fail.Store(&gone)
	for range 2 { // found missing, then known to be lost
		p := r.want(r.do("GET", "/v2/a/referrers/"+sha([]byte("s")), nil), 200)
		if !bytes.Contains(p.body, []byte(d)) || !bytes.Contains(p.body, []byte(plain)) {
			t.Errorf("%s", p.body)
		}
		if !json.Valid(p.body) {
			t.Errorf("%s", p.body)
		}
	}
}

func TestACursorOfAnotherArtifactTypeDoesNoHarm(t *testing.T) {
	r := newRig(t, nil)
	s := sha([]byte("s"))
	subject := map[string]any{"mediaType": typeImage, "digest": s, "size": 1}
	d := r.putManifest("a", "v", r.image("a", map[string]any{"subject": subject, "artifactType": "m"}))
	at, err := meta.ParseDigest(d)
	if err != nil {
		t.Fatal(err)
	}
	for _, filter := range []string{"m", strings.Repeat("z", 200), "a", "m\x00" + string(at[:20])} {
		for _, kind := range []string{"", "a", "n", strings.Repeat("y", 250)} {
			next := cursor{phase: bySubject, after: meta.ReferrerCursor{ArtifactType: kind, Digest: at}}.encode()
			query := url.Values{"next": {next}, "artifactType": {filter}}
			p := r.want(r.do("GET", "/v2/a/referrers/"+s+"?"+query.Encode(), nil), 200)
			if bytes.Contains(p.body, []byte(`"digest":""`)) {
				t.Errorf("filter %.5q: %s", filter, p.body)
			}
			if want := filter == "m" && kind < "m"; bytes.Contains(p.body, []byte(d)) != want {
				t.Errorf("filter %.5q after %.5q: %s", filter, kind, p.body)
			}
		}
	}
}

// A client that speaks wrong HTTP is there to hear of it: 499 would say that it has gone.
func TestABodyThatIsNoHTTPIsABadRequest(t *testing.T) {
	r := newRig(t, nil)
	for _, start := range []string{
		"PATCH " + r.begin("a"), "PUT " + r.begin("a") + "?digest=" + sha(nil),
		"POST /v2/a/blobs/uploads/?digest=" + sha(nil), "PUT /v2/a/manifests/v",
	} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(time.Minute))
		_, _ = io.WriteString(conn, start+" HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nxyz\r\n")
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatalf("%s: %v", start, err)
		}
		if res.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: answered %d, want 400", start, res.StatusCode)
		}
		_ = res.Body.Close()
		_ = conn.Close()
	}
}

// behind is a node without a quorum whose operator allows stale reads.
type behind struct {
	meta.Ledger
	stale atomic.Bool
}

func (l *behind) View(ctx context.Context, read meta.Read, fn func(*meta.View) error) error {
	return l.Ledger.View(ctx, read, func(v *meta.View) error {
		if l.stale.Load() {
			v.MarkStale()
		}
		return fn(v)
	})
}

func TestAPushIsNeverJudgedByAStaleState(t *testing.T) {
	l := &behind{}
	r := newRig(t, func(c *Config) { l.Ledger, c.Ledger = c.Ledger, l })
	d := r.putManifest("a", "v", r.image("a", nil))
	loc := r.begin("a")
	l.stale.Store(true)
	for _, p := range []reply{
		r.do("GET", loc, nil), r.do("PUT", loc+"?digest="+sha([]byte("other")), nil),
		r.do("PATCH", loc, strings.NewReader("x")), r.do("DELETE", loc, nil),
		r.do("HEAD", "/v2/a/manifests/"+d, nil), r.do("HEAD", "/v2/a/blobs/"+sha([]byte("{}")), nil),
	} {
		r.want(p, http.StatusServiceUnavailable)
	}
	if p := r.want(r.do("GET", "/v2/a/manifests/v", nil), 200); p.Header.Get("Warning") == "" {
		t.Error("no Warning on a stale answer")
	}
	l.stale.Store(false)
	r.want(r.do("PUT", loc+"?digest="+sha(nil), nil), 201)
}

// What was pushed since is not known to it, so it must not say that it is not there.
func TestAStaleStateNeverSaysThatContentIsNotThere(t *testing.T) {
	l := &behind{}
	r := newRig(t, func(c *Config) { l.Ledger, c.Ledger = c.Ledger, l })
	r.putManifest("a", "v", r.image("a", nil))
	absent := sha([]byte("pushed to another node since"))
	paths := []string{"/v2/a/manifests/" + absent, "/v2/a/blobs/" + absent, "/v2/b/manifests/" + absent, "/v2/a/manifests/w"}
	for _, path := range paths {
		r.want(r.do("GET", path, nil), http.StatusNotFound)
	}
	l.stale.Store(true)
	for _, path := range paths {
		p := r.want(r.do("GET", path, nil), http.StatusServiceUnavailable)
		if p.Header.Get("Retry-After") == "" || p.Header.Get("Warning") != "" {
			t.Errorf("GET %s: Retry-After is %q, Warning %q", path, p.Header.Get("Retry-After"), p.Header.Get("Warning"))
		}
	}
	// A list is what this node knows, and says so; that there is no index under the fallback tag ends nothing.
	for _, path := range []string{"/v2/a/tags/list", "/v2/a/referrers/" + absent} {
		if p := r.want(r.do("GET", path, nil), http.StatusOK); p.Header.Get("Warning") == "" {
			t.Errorf("GET %s: no Warning", path)
		}
	}
}
