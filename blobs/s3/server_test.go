package s3

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pontoon-registry/pontoon/blobs"
	"github.com/pontoon-registry/pontoon/blobs/blobstest"
)

// between stands between the store and a real server. meddle sees every
// request first, and answers true when it has answered it itself.
type between struct {
	*httptest.Server
	forward http.Handler

	mu     sync.Mutex // guards all below
	meddle func(w http.ResponseWriter, r *http.Request) bool
	seen   []*http.Request
}

func newBetween(t *testing.T, server blobstest.S3Server) *between {
	t.Helper()
	target, err := url.Parse(server.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	b := &between{forward: &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host // it is signed
		},
		Transport: transport,
		ErrorLog:  log.New(io.Discard, "", 0), // ends of calls that a test wants
	}}
	b.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b.mu.Lock()
		b.seen = append(b.seen, r.Clone(context.Background()))
		meddle := b.meddle
		b.mu.Unlock()
		if meddle == nil || !meddle(w, r) {
			b.forward.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(func() {
		b.CloseClientConnections()
		b.Close()
		transport.CloseIdleConnections()
	})
	return b
}

func (b *between) set(meddle func(w http.ResponseWriter, r *http.Request) bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.meddle, b.seen = meddle, nil
}

func (b *between) count(match func(*http.Request) bool) (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range b.seen {
		if match(r) {
			n++
		}
	}
	return n
}

func isComplete(r *http.Request) bool {
	return r.Method == http.MethodPost && r.URL.Query().Has("uploadId")
}

func isPart(r *http.Request) bool {
	return r.Method == http.MethodPut && r.URL.Query().Has("partNumber")
}

// refuse answers as S3 does.
func refuse(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, "<Error><Code>"+code+"</Code><Message>by the test</Message></Error>")
}

// openBetween answers a store whose calls go through a between.
func openBetween(t *testing.T, c Config) (*Store, *between) {
	t.Helper()
	server := blobstest.StartS3(t)
	b := newBetween(t, server)
	c = against(server, c)
	c.RegionEndpoint = b.URL
	return open(t, c), b
}

// put writes data in one attempt.
func put(t *testing.T, s *Store, l *blobstest.Ledger, data []byte) {
	t.Helper()
	w := begin(t, s, l, int64(len(data)))
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	p, err := w.Close(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	l.Save(p, 0)
}

// Complete has its effect, its answer is lost, and the server forgets the upload as S3 and MinIO do (R-A5).
func TestCompleteWhoseAnswerWasLostIsFoundByItsLength(t *testing.T) {
	s, b := openBetween(t, Config{})
	for _, tail := range []int64{0, 100} {
		data := blobstest.Bytes(16<<20 + tail)
		l := blobstest.NewLedger()
		put(t, s, l, data[:8<<20+1]) // leaves a tail
		put(t, s, l, data[8<<20+1:])
		completed := false
		b.set(func(w http.ResponseWriter, r *http.Request) bool {
			switch {
			case isComplete(r) && !completed:
				completed = true
				b.forward.ServeHTTP(httptest.NewRecorder(), r)
				refuse(w, http.StatusInternalServerError, "InternalError")
			case completed && r.URL.Query().Has("uploadId"):
				refuse(w, http.StatusNotFound, "NoSuchUpload")
			default:
				return false
			}
			return true
		})
		for range 2 {
			done, err := s.Finish(t.Context(), l.Name(), l.Progress)
			if err != nil {
				t.Fatal(err)
			}
			same(t, s, done.Key, data)
		}
		b.set(nil)
	}
}

func TestUploadThatIsGoneWithoutItsObjectIsNotFound(t *testing.T) {
	s, b := openBetween(t, Config{})
	l := blobstest.NewLedger()
	put(t, s, l, blobstest.Bytes(17<<20))
	b.set(func(w http.ResponseWriter, r *http.Request) bool {
		if isComplete(r) || isPart(r) {
			refuse(w, http.StatusNotFound, "NoSuchUpload")
			return true
		}
		return false
	})
	if _, err := s.Finish(t.Context(), l.Name(), l.Progress); !errors.Is(err, blobs.ErrNotFound) {
		t.Errorf("Finish = %v, want ErrNotFound", err)
	}
}

// Every part is sent twice, the second time late; the late one has the same bytes.
func TestDoubledPartsDoNoHarm(t *testing.T) {
	s, b := openBetween(t, Config{})
	b.set(func(w http.ResponseWriter, r *http.Request) bool {
		if !isPart(r) {
			return false
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return true
		}
		for range 2 {
			r.Body = io.NopCloser(bytes.NewReader(body))
			last := httptest.NewRecorder()
			b.forward.ServeHTTP(last, r)
			if r.Context().Err() != nil {
				return true
			}
			w.Header().Set("ETag", last.Header().Get("ETag"))
		}
		return true
	})
	data := blobstest.Bytes(20 << 20)
	l := blobstest.NewLedger()
	w := begin(t, s, l, -1)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	finish(t, s, l, w, data)
}

func TestWhatMayBeRepeatedIsRepeatedAfter503(t *testing.T) {
	s, b := openBetween(t, Config{})
	failed := map[string]bool{}
	var mu sync.Mutex // guards failed
	b.set(func(w http.ResponseWriter, r *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		what := r.Method + r.URL.Path + r.URL.RawQuery
		if failed[what] {
			return false
		}
		failed[what] = true
		refuse(w, http.StatusServiceUnavailable, "SlowDown")
		return true
	})
	data := blobstest.Bytes(17 << 20)
	l := blobstest.NewLedger()
	w := begin(t, s, l, -1)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	finish(t, s, l, w, data)
}

func TestConditionalPutsAreNeverRepeated(t *testing.T) {
	s, b := openBetween(t, Config{})
	b.set(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPut {
			return false
		}
		b.forward.ServeHTTP(httptest.NewRecorder(), r) // it has its effect
		refuse(w, http.StatusInternalServerError, "InternalError")
		return true
	})
	if _, err := s.PutIfAbsent(t.Context(), "owner", []byte("one")); !errors.Is(err, blobs.ErrUnavailable) {
		t.Errorf("PutIfAbsent whose answer was lost: %v, want ErrUnavailable", err)
	}
	if n := b.count(func(r *http.Request) bool { return r.Method == http.MethodPut }); n != 1 {
		t.Errorf("the put was made %d times, want once", n)
	}
}

func TestErrorsOfTheServerAreNamed(t *testing.T) {
	s, b := openBetween(t, Config{MaxAttempts: 1})
	key := blobstest.NewLedger().Name().Key(0)
	for _, c := range []struct {
		status int
		code   string
		want   error
	}{
		{503, "SlowDown", blobs.ErrUnavailable},
		{429, "TooManyRequests", blobs.ErrUnavailable},
		{500, "InternalError", blobs.ErrUnavailable},
		{502, "", blobs.ErrUnavailable},
		{404, "NoSuchKey", blobs.ErrNotFound},
		{404, "NoSuchBucket", blobs.ErrUnavailable},
		{404, "", blobs.ErrUnavailable},
		{501, "NotImplemented", blobs.ErrUnsupported},
		{507, "", blobs.ErrNoRoom},
		{403, "AccessDenied", nil},
	} {
		b.set(func(w http.ResponseWriter, _ *http.Request) bool {
			refuse(w, c.status, c.code)
			return true
		})
		_, err := s.Open(t.Context(), key, 0, -1)
		if c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%d %s: %v, want %v", c.status, c.code, err, c.want)
		}
		if c.want == nil && (errors.Is(err, blobs.ErrUnavailable) || !strings.Contains(err.Error(), c.code)) {
			t.Errorf("%d %s: %v, want it plain", c.status, c.code, err)
		}
	}
	b.CloseClientConnections()
	b.Close()
	if _, err := s.Stat(t.Context(), key); !errors.Is(err, blobs.ErrUnavailable) {
		t.Errorf("no server: %v, want ErrUnavailable", err)
	}
}

// A blob counts as lost when its key is missing (B7): a proxy that knows nothing of the bucket must not lose them all.
func TestA404OfAProxyIsNoMissingKey(t *testing.T) {
	s, b := openBetween(t, Config{MaxAttempts: 1})
	for _, body := range []string{"", "404 page not found\n", "<html><body>nothing here</body></html>"} {
		b.set(func(w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, body)
			return true
		})
		_, err := s.Open(t.Context(), blobstest.NewLedger().Name().Key(0), 0, 10)
		if !errors.Is(err, blobs.ErrUnavailable) || errors.Is(err, blobs.ErrNotFound) {
			t.Errorf("%q: %v, want ErrUnavailable", body, err)
		}
	}
}

// openAndCheck is what a node does at start.
func openAndCheck(t *testing.T, c Config) error {
	t.Helper()
	s, err := Open(t.Context(), c)
	if err != nil {
		return err
	}
	return errors.Join(s.Check(t.Context()), s.Close())
}

func TestOpenOrCheckSaysWhatIsWrong(t *testing.T) {
	server := blobstest.StartS3(t)
	for want, change := range map[string]func(*Config){
		"no such bucket": func(c *Config) { c.Bucket = "another" },
		"refuses access": func(c *Config) { c.SecretKey = "wrong" },
		"cafile":         func(c *Config) { c.CAFile = "/dev/null" },
	} {
		c := against(server, Config{})
		change(&c)
		if err := openAndCheck(t, c); err == nil || !strings.Contains(err.Error(), want) || errors.Is(err, blobs.ErrUnavailable) {
			t.Errorf("Open and Check = %v, want %q in it, for good", err, want)
		}
	}
}

func TestCheckTellsAServerThatDoesNotAnswerFromOneThatRefuses(t *testing.T) {
	server := blobstest.StartS3(t)
	c := against(server, Config{MaxAttempts: 1})
	c.RegionEndpoint = "http://127.0.0.1:1" // nobody listens there
	if err := openAndCheck(t, c); !errors.Is(err, blobs.ErrUnavailable) {
		t.Errorf("Check of a server that is not there = %v, want ErrUnavailable", err)
	}
}

// unhurried is the same store within the usual bounds, for what must not fail on a machine that stands still for a second.
func unhurried(t *testing.T, s *Store) *Store {
	t.Helper()
	c := s.config
	c.CallTimeout, c.ReadTimeout, c.MaxAttempts = 0, 0, 0
	return open(t, c)
}

// A server that stops in the middle of a body, or never answers.
func TestSilentServersEndCalls(t *testing.T) {
	s, b := openBetween(t, Config{CallTimeout: time.Second, ReadTimeout: time.Second, MaxAttempts: 1})
	l := blobstest.NewLedger()
	put(t, unhurried(t, s), l, blobstest.Bytes(1000))
	release := make(chan struct{})
	defer close(release)
	b.set(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodHead {
			<-release
			return true
		}
		w.Header().Set("Content-Length", "1000")
		_, _ = w.Write(make([]byte, 10))
		_ = http.NewResponseController(w).Flush()
		<-release
		return true
	})
	if _, err := s.Stat(t.Context(), l.Progress.Pieces[0].Key); !errors.Is(err, blobs.ErrUnavailable) {
		t.Errorf("Stat = %v, want ErrUnavailable", err)
	}
	var got []byte
	var err error
	for try := 0; try < 5 && len(got) != 10; try++ { // a machine that stands still hears nothing in time either
		var r io.ReadCloser
		if r, err = s.Open(t.Context(), l.Progress.Pieces[0].Key, 0, -1); err != nil {
			continue
		}
		got, err = io.ReadAll(r)
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	if !errors.Is(err, blobs.ErrUnavailable) || !errors.Is(err, io.ErrUnexpectedEOF) || len(got) != 10 {
		t.Errorf("read %d bytes, then %v, want 10, then ErrUnavailable and io.ErrUnexpectedEOF", len(got), err)
	}
}

func TestBodiesThatAreCutAreNoticed(t *testing.T) {
	s, b := openBetween(t, Config{})
	l := blobstest.NewLedger()
	put(t, s, l, blobstest.Bytes(1000))
	b.set(func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Content-Length", "1000")
		_, _ = w.Write(make([]byte, 10))
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	r, err := s.Open(t.Context(), l.Progress.Pieces[0].Key, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("read %d bytes, then %v, want io.ErrUnexpectedEOF", len(got), err)
	}
	_ = r.Close() // the connection is gone
}

// TestATailIsReadAgain: an upload goes on over a connection that does not hold (B5) or that damages what it brings, and is
// unavailable, no more, where none holds.
func TestATailIsReadAgain(t *testing.T) {
	s, b := openBetween(t, Config{})
	l := blobstest.NewLedger()
	data := blobstest.Bytes(200_000)
	put(t, s, l, data)
	var breaks atomic.Int32
	cut := func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || breaks.Add(-1) < 0 {
			return false
		}
		whole := httptest.NewRecorder()
		b.forward.ServeHTTP(whole, r)
		maps.Copy(w.Header(), whole.Header())
		w.WriteHeader(whole.Code)
		_, _ = w.Write(whole.Body.Bytes()[:whole.Body.Len()/2])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
	b.set(cut)
	breaks.Store(2)
	w := begin(t, s, l, -1)
	more := blobstest.Bytes(10)
	if _, err := w.Write(more); err != nil {
		t.Fatal(err)
	}
	finish(t, s, l, w, append(data, more...))

	damage := func(times int32) {
		breaks.Store(times)
		b.set(func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method != http.MethodGet || breaks.Add(-1) < 0 {
				return false
			}
			whole := httptest.NewRecorder()
			b.forward.ServeHTTP(whole, r)
			maps.Copy(w.Header(), whole.Header())
			body := whole.Body.Bytes()
			body[len(body)/2] ^= 1
			w.WriteHeader(whole.Code)
			_, _ = w.Write(body)
			return true
		})
	}
	for times, want := range map[int32]error{tailReads - 1: nil, tailReads: blobs.ErrCorrupt} {
		b.set(nil)
		l = blobstest.NewLedger()
		put(t, s, l, data)
		damage(times)
		w, err := s.Writer(t.Context(), l.Take(s, -1))
		if !errors.Is(err, want) {
			t.Fatalf("a tail that is damaged on its way %d times: %v, want %v", times, err, want)
		}
		if err == nil {
			finish(t, s, l, w, data)
		}
	}

	l = blobstest.NewLedger()
	b.set(nil)
	put(t, s, l, data)
	b.set(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet {
			return false
		}
		w.Header().Set("Content-Length", "200000")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	if _, err := s.Writer(t.Context(), l.Take(s, -1)); !errors.Is(err, blobs.ErrUnavailable) {
		t.Errorf("a tail that never comes: %v, want ErrUnavailable", err)
	}
}

// TestATailIsReadAgainWhereItBecomesAPart: at the end of a large upload, when all depends on it.
func TestATailIsReadAgainWhereItBecomesAPart(t *testing.T) {
	s, b := openBetween(t, Config{})
	data := blobstest.Bytes(16<<20 + 100_000)
	for name, spoil := range map[string]func(body []byte) []byte{
		"damaged": func(body []byte) []byte { body[len(body)/2] ^= 1; return body },
		"cut":     func(body []byte) []byte { return body[:len(body)/2] },
	} {
		b.set(nil)
		l := blobstest.NewLedger()
		w := begin(t, s, l, -1)
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
		p, err := w.Close(t.Context())
		if err != nil || len(p.Parts) == 0 || len(p.Pieces) != 1 {
			t.Fatalf("%d parts and %d pieces, %v", len(p.Parts), len(p.Pieces), err)
		}
		l.Save(p, 0)
		var left atomic.Int32
		left.Store(tailReads - 1)
		b.set(func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method != http.MethodGet || left.Add(-1) < 0 {
				return false
			}
			whole := httptest.NewRecorder()
			b.forward.ServeHTTP(whole, r)
			maps.Copy(w.Header(), whole.Header())
			w.WriteHeader(whole.Code)
			_, _ = w.Write(spoil(whole.Body.Bytes()))
			_ = http.NewResponseController(w).Flush()
			return true
		})
		if done, err := s.Finish(t.Context(), l.Name(), l.Progress); err != nil || done.Size != int64(len(data)) {
			t.Errorf("%s %d times: %+v, %v", name, tailReads-1, done, err)
		}
		if left.Load() >= 0 {
			t.Errorf("%s: the tail was not read so often: nothing is shown", name)
		}
	}
}

// TestASilentTailIsNotWaitedForLong: the stream is opened again, within a bound for all.
func TestASilentTailIsNotWaitedForLong(t *testing.T) {
	s, b := openBetween(t, Config{CallTimeout: 2 * time.Second, ReadTimeout: time.Second})
	l := blobstest.NewLedger()
	put(t, unhurried(t, s), l, blobstest.Bytes(1000))
	b.set(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet {
			return false
		}
		w.Header().Set("Content-Length", "1000")
		w.WriteHeader(http.StatusPartialContent)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		return true
	})
	_, err := s.Writer(t.Context(), l.Take(s, -1))
	if !errors.Is(err, blobs.ErrUnavailable) || !errors.Is(err, errSlow) { // not after four times ReadTimeout
		t.Errorf("got %v, want ErrUnavailable by the bound of the whole", err)
	}
}

// TestHalfAnAnswerIsNone: a list that is cut says nothing of what is there, as if nobody had answered.
func TestHalfAnAnswerIsNone(t *testing.T) {
	s, b := openBetween(t, Config{MaxAttempts: 1})
	b.set(func(w http.ResponseWriter, _ *http.Request) bool {
		_, _ = io.WriteString(w, `<?xml version="1.0" encoding="UTF-8"?><ListBucketResult><Contents><Key>a`)
		return true
	})
	told := 0
	for _, err := range s.List(t.Context(), "", "") {
		if told++; !errors.Is(err, blobs.ErrUnavailable) {
			t.Errorf("got %v, want ErrUnavailable", err)
		}
	}
	if told != 1 {
		t.Errorf("the list told of %d things, want of one error", told)
	}
	b.set(func(w http.ResponseWriter, _ *http.Request) bool {
		_, _ = io.WriteString(w, `<html><br><body>what is S3?</body></html>`)
		return true
	})
	told = 0
	for _, err := range s.List(t.Context(), "", "") {
		if told++; err == nil || errors.Is(err, blobs.ErrUnavailable) {
			t.Errorf("an answer that nobody understands: %v, want it plain", err)
		}
	}
	if told != 1 {
		t.Errorf("the list told of %d things, want of one error", told)
	}
	b.set(func(w http.ResponseWriter, _ *http.Request) bool { // the connection is reset
		w.Header().Set("Content-Length", "1000")
		_, _ = io.WriteString(w, `<?xml version="1.0" encoding="UTF-8"?><ListBucketResult><Contents><Key>a`)
		_ = http.NewResponseController(w).Flush()
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return true
		}
		_ = conn.(*net.TCPConn).SetLinger(0)
		_ = conn.Close()
		return true
	})
	for _, err := range s.List(t.Context(), "", "") {
		if !errors.Is(err, blobs.ErrUnavailable) {
			t.Errorf("an answer that is reset: %v, want ErrUnavailable", err)
		}
	}
}

// TestADenialIsSaidAtOnce, though its HEAD is repeated: with keys that are wrong a node must not start as if nobody answered.
func TestADenialIsSaidAtOnce(t *testing.T) {
	s, b := openBetween(t, Config{CallTimeout: 2 * time.Second, MaxAttempts: 10})
	b.set(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodHead {
			w.WriteHeader(http.StatusForbidden)
		} else {
			refuse(w, http.StatusForbidden, "AccessDenied")
		}
		return true
	})
	for what, ask := range map[string]func() error{
		"stat":  func() error { _, err := s.Stat(t.Context(), blobstest.NewLedger().Name().Key(0)); return err },
		"check": func() error { return s.Check(t.Context()) },
	} {
		err := ask()
		for try := 1; errors.Is(err, blobs.ErrUnavailable) && try < 4; try++ { // on a machine that stood still nobody answers in time
			err = ask()
		}
		if err == nil || errors.Is(err, blobs.ErrUnavailable) || !strings.Contains(err.Error(), "403") {
			t.Errorf("%s: %v, want it denied", what, err)
		}
	}
}

// TestAHeadThatIsForbiddenIsAskedAgain: it does not say why, and a clock may have been set.
func TestAHeadThatIsForbiddenIsAskedAgain(t *testing.T) {
	s, b := openBetween(t, Config{})
	l := blobstest.NewLedger()
	put(t, s, l, blobstest.Bytes(1000))
	key := l.Progress.Pieces[0].Key
	for forbidden, want := range map[int32]bool{1: true, 1000: false} {
		var left atomic.Int32
		left.Store(forbidden)
		b.set(func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method != http.MethodHead || left.Add(-1) < 0 {
				return false
			}
			w.WriteHeader(http.StatusForbidden)
			return true
		})
		if _, err := s.Stat(t.Context(), key); (err == nil) != want || errors.Is(err, blobs.ErrUnavailable) {
			t.Errorf("forbidden %d times: %v", forbidden, err)
		}
	}
}

func TestCallsInFlightAreBounded(t *testing.T) {
	s, b := openBetween(t, Config{MaxCalls: 1, CallTimeout: time.Second, MaxAttempts: 1})
	entered, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	b.set(func(http.ResponseWriter, *http.Request) bool {
		once.Do(func() { close(entered) })
		<-release
		return false
	})
	key := blobstest.NewLedger().Name().Key(0)
	var first sync.WaitGroup
	l := blobstest.NewLedger()
	w := begin(t, s, l, -1)
	if _, err := w.Write(blobstest.Bytes(4 << 20)); err != nil {
		t.Fatal(err)
	}
	first.Go(func() { _, _ = w.Close(t.Context()) }) // may take 1 s and 16 s for its bytes
	<-entered
	if _, err := s.Stat(t.Context(), key); !errors.Is(err, blobs.ErrUnavailable) {
		t.Errorf("a second call = %v, want ErrUnavailable", err)
	}
	if n := b.count(func(*http.Request) bool { return true }); n != 1 {
		t.Errorf("%d calls reached the server, want 1", n)
	}
	close(release)
	first.Wait()
}

// With one call at a time a part that was spilled is still read while it is sent.
func TestSpilledPartsNeedNoSecondPlace(t *testing.T) {
	s, _ := openBetween(t, Config{MaxCalls: 1})
	data := blobstest.Bytes(9 << 20)
	l := blobstest.NewLedger()
	w := begin(t, s, l, -1)
	if _, err := w.Write(data[:3<<20]); err != nil {
		t.Fatal(err)
	}
	if err := w.(*writer).spill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data[3<<20:]); err != nil {
		t.Fatal(err)
	}
	finish(t, s, l, w, data)
	poolIsWhole(t, s)
}

func TestAbandonReleasesAllAndAbortsWhatNobodyKnows(t *testing.T) {
	s, b := openBetween(t, Config{})
	entered, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	b.set(func(_ http.ResponseWriter, r *http.Request) bool {
		if isPart(r) {
			once.Do(func() { close(entered) })
			<-release
		}
		return false
	})
	l := blobstest.NewLedger()
	w := begin(t, s, l, -1)
	if _, err := w.Write(blobstest.Bytes(20 << 20)); err != nil {
		t.Fatal(err)
	}
	<-entered
	w.Abandon()
	close(release)
	poolIsWhole(t, s)
	b.set(nil)
	for m, err := range s.ListMultiparts(t.Context(), "") {
		t.Errorf("left behind: %+v, %v", m, err)
	}
}

// A part that cannot be uploaded fails the next call, and all memory comes back.
func TestPartsThatFailEndTheAttempt(t *testing.T) {
	s, b := openBetween(t, Config{MaxAttempts: 1})
	b.set(func(w http.ResponseWriter, r *http.Request) bool {
		if isPart(r) {
			refuse(w, http.StatusServiceUnavailable, "SlowDown")
			return true
		}
		return false
	})
	l := blobstest.NewLedger()
	w := begin(t, s, l, -1)
	_, err := w.Write(blobstest.Bytes(80 << 20))
	if !errors.Is(err, blobs.ErrUnavailable) {
		t.Errorf("Write = %v, want ErrUnavailable", err)
	}
	if _, err := w.Save(t.Context()); !errors.Is(err, blobs.ErrUnavailable) {
		t.Errorf("Save = %v, want ErrUnavailable", err)
	}
	if _, err := w.Close(t.Context()); !errors.Is(err, blobs.ErrUnavailable) {
		t.Errorf("Close = %v, want ErrUnavailable", err)
	}
	w.Abandon()
	poolIsWhole(t, s)
}

func TestSmallBodiesAreOnePut(t *testing.T) {
	s, b := openBetween(t, Config{})
	data := blobstest.Bytes(8 << 20)
	l := blobstest.NewLedger()
	put(t, s, l, data)
	done, err := s.Finish(t.Context(), l.Name(), l.Progress)
	if err != nil {
		t.Fatal(err)
	}
	if done.Completed || done.Key != l.Progress.Pieces[0].Key {
		t.Errorf("Finish = %+v, want the piece's key", done)
	}
	if n := b.count(func(r *http.Request) bool { return r.Method == http.MethodPut }); n != 1 {
		t.Errorf("%d puts, want 1", n)
	}
	if n := b.count(func(r *http.Request) bool { return r.Method == http.MethodPost }); n != 0 {
		t.Errorf("%d posts, want none", n)
	}
}
