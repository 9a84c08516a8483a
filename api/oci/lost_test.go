package oci

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pontoon-registry/pontoon/blobs"
	"github.com/pontoon-registry/pontoon/meta"
)

// truncated is a store that has only so many bytes of every object, once it is told to.
type truncated struct {
	blobs.Store
	size int64
	on   atomic.Bool
}

func (s *truncated) Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if !s.on.Load() {
		return s.Store.Open(ctx, key, offset, length)
	}
	if offset > s.size {
		return nil, fmt.Errorf("offset %d is outside its %d bytes", offset, s.size)
	}
	in, err := s.Store.Open(ctx, key, offset, length)
	if err != nil {
		return nil, err
	}
	short := io.MultiReader(io.LimitReader(in, min(length, s.size-offset)), &breaking{bytes.NewReader(nil), func() error { return io.ErrUnexpectedEOF }})
	return struct {
		io.Reader
		io.Closer
	}{short, in}, nil
}

func (s *truncated) Stat(ctx context.Context, key string) (int64, error) {
	if !s.on.Load() {
		return s.Store.Stat(ctx, key)
	}
	return s.size, nil
}

// A blob that is shorter in the store than the ledger says is lost, whichever part of it was asked for.
func TestATruncatedBlobIsLost(t *testing.T) {
	for name, get := range map[string]struct {
		size   int64
		ranged string
		status int // 0: the answer is cut
	}{
		"some of it is there":         {1 << 19, "", 0},
		"nothing of it is there":      {0, "", 404},
		"its end is asked for":        {1 << 19, "bytes=-100", 404},
		"a range over what is there ": {1 << 19, "bytes=524280-524300", 0},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			short := &truncated{Store: r.store.Store, size: get.size}
			r.store.Store = short
			data := content("x", 1<<20)
			d := r.pushBlob("a", data)
			short.on.Store(true)
			header := []string{}
			if get.ranged != "" {
				header = append(header, "Range", get.ranged)
			}
			if get.status != 0 {
				r.wantError(r.do("GET", "/v2/a/blobs/"+d, nil, header...), get.status, "BLOB_UNKNOWN")
			} else {
				r.wantCut("/v2/a/blobs/"+d, get.ranged)
			}
			r.absent("/v2/a/blobs/" + d)
			short.on.Store(false)
			r.want(r.do("POST", "/v2/b/blobs/uploads/?mount="+d+"&from=a", nil), 202) // there is nothing to mount
			r.pushBlob("b", data)
			r.want(r.do("HEAD", "/v2/a/blobs/"+d, nil), 200) // healed for all
			if p := r.want(r.do("GET", "/v2/a/blobs/"+d, nil), 200); !bytes.Equal(p.body, data) {
				t.Error("other bytes came back")
			}
		})
	}
}

// absent waits until a blob is told to be absent: whoever got it may have the end of the answer before the ledger knows.
func (r *rig) absent(path string) {
	r.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); r.do("HEAD", path, nil).StatusCode != http.StatusNotFound; {
		if time.Now().After(deadline) {
			r.t.Fatalf("HEAD %s does not answer 404", path)
		}
	}
}

// wantCut gets a blob whose answer must not be whole.
func (r *rig) wantCut(path, ranged string) {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, r.url+path, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	if ranged != "" {
		req.Header.Set("Range", ranged)
	}
	res, err := r.client.Do(req)
	if err != nil {
		return // cut before its header
	}
	defer func() { _ = res.Body.Close() }()
	if n, err := io.Copy(io.Discard, res.Body); err == nil {
		r.t.Errorf("%d bytes came as a whole answer, status %d", n, res.StatusCode)
	}
}

// What may mend itself marks nothing: the blob is served again as soon as the store lets us.
func TestNothingIsMarkedLostByAStoreThatCannotTell(t *testing.T) {
	for name, c := range map[string]struct {
		err    error
		status int
	}{
		"down":             {blobs.ErrUnavailable, 503},
		"refused":          {errors.Join(blobs.ErrRefused, blobs.ErrUnavailable), 503},
		"denied":           {errors.New("AccessDenied: wrong credentials"), 500},
		"a proxy's 404":    {fmt.Errorf("%w: a 404 that is not S3's", blobs.ErrUnavailable), 503},
		"cut on the way":   {io.ErrUnexpectedEOF, 500},
		"corrupted on way": {blobs.ErrCorrupt, 500},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			d := r.pushBlob("a", content("x", 1000))
			r.store.fail.Store(&c.err)
			before := r.ledger.proposals.Load()
			p := r.want(r.do("GET", "/v2/a/blobs/"+d, nil), c.status)
			if c.status == 503 && p.Header.Get("Retry-After") == "" {
				t.Error("no Retry-After")
			}
			if n := r.ledger.proposals.Load() - before; n != 0 {
				t.Errorf("%d proposals", n)
			}
			r.want(r.do("HEAD", "/v2/a/blobs/"+d, nil), 200)
			r.store.fail.Store(nil)
			r.want(r.do("GET", "/v2/a/blobs/"+d, nil), 200)
		})
	}
}

// A large manifest is a blob: its bytes are compared before any of them is sent.
func TestALargeManifestThatIsDamagedIsNoWholeAnswer(t *testing.T) {
	for _, same := range []bool{true, false} {
		r := newRig(t, nil)
		s := &garbled{Store: r.store.Store, same: same}
		r.store.Store = s
		m := r.image("a", map[string]any{"annotations": map[string]string{"x": strings.Repeat("y", meta.MaxInlineBody)}})
		d := r.putManifest("a", "big", m)
		s.on.Store(true)
		for _, ref := range []string{"big", d} {
			want := http.StatusServiceUnavailable // what spoils bytes on their way may end
			if same {
				want = http.StatusNotFound // lost
			}
			r.want(r.do("GET", "/v2/a/manifests/"+ref, nil), want)
		}
		if same {
			continue
		}
		s.on.Store(false)
		r.want(r.do("GET", "/v2/a/manifests/"+d, nil), 200)
	}
}

// garbled is a store with checksums whose bytes come wrong: the same each time, or others.
type garbled struct {
	blobs.Store
	same  bool
	on    atomic.Bool
	opens atomic.Int64
}

func (s *garbled) Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	in, err := s.Store.Open(ctx, key, offset, length)
	if err != nil || !s.on.Load() {
		return in, err
	}
	defer func() { _ = in.Close() }()
	data, err := io.ReadAll(in)
	if err != nil {
		return nil, err
	}
	at := len(data) / 2
	if n := int(s.opens.Add(1)); !s.same {
		at = n % len(data)
	}
	data[at] ^= 1
	return io.NopCloser(&breaking{bytes.NewReader(data), func() error { return blobs.ErrCorrupt }}), nil
}

// Bytes that the store's checksum finds wrong never make a whole answer. They are lost only if they are wrong where they lie.
func TestBytesThatAreFoundWrongAreNeverAWholeAnswer(t *testing.T) {
	for _, size := range []int{1, 20, 128 << 10, 128<<10 + 1, 1 << 20} {
		for _, same := range []bool{true, false} {
			t.Run(fmt.Sprintf("%d bytes, the same each time: %v", size, same), func(t *testing.T) {
				if size == 1 && !same {
					return // there is one byte to be wrong
				}
				r := newRig(t, nil)
				wrong := &garbled{Store: r.store.Store, same: same}
				r.store.Store = wrong
				data := content("x", size)
				d := r.pushBlob("a", data)
				wrong.on.Store(true)
				req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.url+"/v2/a/blobs/"+d, nil)
				if err != nil {
					t.Fatal(err)
				}
				res, err := r.client.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(res.Body)
				_ = res.Body.Close()
				if res.StatusCode == http.StatusOK && (err == nil || len(got) == len(data)) {
					t.Errorf("%d wrong bytes of %d came, %v", len(got), len(data), err)
				}
				if same {
					r.absent("/v2/a/blobs/" + d)
					return
				}
				if small := size <= 128<<10; small && (res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") == "") {
					t.Errorf("answered %d, Retry-After %q", res.StatusCode, res.Header.Get("Retry-After"))
				}
				for deadline := time.Now().Add(20 * time.Second); wrong.opens.Load() < 3; { // the answer, and two looks that differ
					if r.want(r.do("HEAD", "/v2/a/blobs/"+d, nil), 200); time.Now().After(deadline) {
						t.Fatalf("it was read %d times", wrong.opens.Load())
					}
				}
				wrong.on.Store(false)
				r.want(r.do("HEAD", "/v2/a/blobs/"+d, nil), 200)
				if p := r.want(r.do("GET", "/v2/a/blobs/"+d, nil), 200); !bytes.Equal(p.body, data) {
					t.Error("other bytes came back")
				}
			})
		}
	}
}
