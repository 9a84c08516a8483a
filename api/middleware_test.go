package api

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestPanicBecomesAnOCIErrorAndTheNodeLivesOn(t *testing.T) {
	r := start(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v2/boom":
			w.Header().Set("Content-Length", "3")
			w.Header().Set("ETag", `"x"`)
			panic("boom")
		case "/v2/late":
			w.Header().Set("Content-Length", "1000")
			_, _ = io.WriteString(w, "begun")
			_ = http.NewResponseController(w).Flush()
			panic("late")
		}
		_, _ = io.WriteString(w, "ok")
	}, nil)
	c, base := client(t, nil), "http://"+r.registry.String()
	res, body := get(t, c, base+"/v2/boom")
	var answer struct {
		Errors []struct {
			Code, Message string
			Detail        map[string]string
		}
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil || len(answer.Errors) != 1 {
		t.Fatalf("body %q: %v", body, err)
	}
	if res.StatusCode != 500 || answer.Errors[0].Code != "UNKNOWN" || answer.Errors[0].Detail["request"] != res.Header.Get("X-Request-Id") {
		t.Errorf("%d %s", res.StatusCode, body)
	}
	if res.Header.Get("ETag") != "" || strings.Contains(body, "boom") {
		t.Errorf("headers %v, body %q", res.Header, body)
	}
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, base+"/v2/late", nil)
	if res, err := c.Do(req); err == nil {
		if body, err := io.ReadAll(res.Body); err == nil || string(body) != "begun" {
			t.Errorf("the answer went on: %q, %v", body, err)
		}
		res.Body.Close()
	}
	if _, body := get(t, c, base+"/v2/fine"); body != "ok" {
		t.Error(body)
	}
	if n := strings.Count(r.log.String(), `"msg":"request panicked"`); n != 2 || !strings.Contains(r.log.String(), "middleware_test.go") {
		t.Errorf("%d panics logged, or without stack:\n%s", n, r.log)
	}
	if _, body := get(t, c, "http://"+r.debug.String()+"/metrics"); !strings.Contains(body, "pontoon_http_panics_total 2") {
		t.Error("panics are not counted")
	}
}

func TestAbortedHandlerIsNoPanicOfOurs(t *testing.T) {
	r := start(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, nil)
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+r.registry.String()+"/v2/", nil)
	if res, err := client(t, nil).Do(req); err == nil {
		res.Body.Close()
		t.Error("answered")
	}
	if strings.Contains(r.log.String(), "panicked") {
		t.Error("logged as a panic")
	}
}

func TestRequestIDIsTakenOrMadeAndAnswered(t *testing.T) {
	seen := make(chan string, 1)
	r := start(t, func(_ http.ResponseWriter, r *http.Request) { seen <- RequestID(r.Context()) }, nil)
	for sent, taken := range map[string]bool{
		"f81d4fae-7dec-11d0-a765-00a0c91e6bf6": true, "Root=1-67891233-abcdef012345678912345678": true, "": false,
		"two words": false, `quo"te`: false, strings.Repeat("x", 129): false, strings.Repeat("x", 128): true, "é": false,
	} {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+r.registry.String()+"/v2/", nil)
		req.Header.Set("X-Request-Id", sent)
		res, _ := do(t, client(t, nil), req)
		id := <-seen
		if (id == sent) != taken || id == "" || res.Header.Get("X-Request-Id") != id {
			t.Errorf("sent %q, in context %q, answered %q", sent, id, res.Header.Get("X-Request-Id"))
		}
	}
}

func TestServerTimingShowsPhasesAndSlowRequestsAreLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, p := startPipes(t, func(w http.ResponseWriter, r *http.Request) {
			end := Phase(r.Context(), PhaseLedger)
			time.Sleep(20 * time.Millisecond)
			end()
			Spent(r.Context(), PhaseLedger, 5*time.Millisecond)
			Spent(r.Context(), `bad";name`, time.Second)
			if strings.HasSuffix(r.URL.Path, "/slow") {
				end := Phase(r.Context(), PhaseStore)
				time.Sleep(3 * time.Second)
				end()
			}
			_, _ = io.WriteString(w, "ok")
		}, nil)
		res, _ := ask(t, dial(t, p), "/v2/a/blobs/fast")
		if got := res.Header.Get("Server-Timing"); got != "ledger;dur=25.00, total;dur=20.00" {
			t.Errorf("Server-Timing %q", got)
		}
		if strings.Contains(r.log.String(), "slow request") {
			t.Error("a fast request was logged as slow")
		}
		ask(t, dial(t, p), "/v2/a/blobs/slow")
		synctest.Wait()
		if log := r.log.String(); !strings.Contains(log, `"msg":"slow request"`) || !strings.Contains(log, `"phase.store":"3s"`) {
			t.Errorf("log: %s", log)
		}
	})
}

// A push over a bad link is not the node's slowness.
func TestWaitingForTheClientIsNotSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		errs := make(chan error, 1)
		r, p := startPipes(t, swallow(errs), nil)
		if status, err := push(t, p, "PATCH", "/v2/a/blobs/uploads/u", 10, 30*time.Second); status != http.StatusCreated {
			t.Fatalf("%d, %v", status, err)
		}
		synctest.Wait()
		if strings.Contains(r.log.String(), "slow request") {
			t.Error("logged as slow")
		}
	})
}

func TestAccessLineHasDistributionsFieldsAndNoSecret(t *testing.T) {
	r := start(t, func(w http.ResponseWriter, r *http.Request) {
		NoteUser(r.Context(), "alice")
		w.WriteHeader(http.StatusTeapot)
		_, _ = io.WriteString(w, "12345")
	}, nil)
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet,
		"http://"+r.registry.String()+"/v2/team/app/manifests/v1?ns=docker.io&account=s3cr3t&access_token=s3cr3t&X-Amz-Signature=s3cr3t&%74oken=s3cr3t", nil)
	req.Header.Set("Authorization", "Bearer s3cr3t")
	req.Header.Set("User-Agent", "test/1")
	do(t, client(t, nil), req)
	r.stop()
	if err := r.wait(); err != nil {
		t.Error(err)
	}
	var line map[string]any
	for l := range strings.Lines(r.log.String()) {
		if strings.Contains(l, "response completed") {
			if err := json.Unmarshal([]byte(l), &line); err != nil {
				t.Fatal(err)
			}
		}
	}
	for field, want := range map[string]any{
		"http.request.method": "GET", "http.request.useragent": "test/1", "http.request.host": r.registry.String(),
		"http.response.status": 418.0, "http.response.written": 5.0, "vars.name": "team/app", "vars.reference": "v1",
		"auth.user.name": "alice", "level": "INFO",
	} {
		if line[field] != want {
			t.Errorf("%s is %v, want %v", field, line[field], want)
		}
	}
	for _, field := range []string{"http.request.id", "http.request.uri", "http.request.remoteaddr", "http.response.duration"} {
		if line[field] == nil || line[field] == "" {
			t.Errorf("%s is missing", field)
		}
	}
	if uri, _ := line["http.request.uri"].(string); !strings.Contains(uri, "ns=docker.io") {
		t.Errorf("uri %q", uri)
	}
	if strings.Contains(r.log.String(), "s3cr3t") {
		t.Errorf("a secret was logged:\n%s", r.log)
	}
}

func TestAccessLogCanBeOff(t *testing.T) {
	r := start(t, ok, func(c *Config) { c.AccessLogOff = true })
	get(t, client(t, nil), "http://"+r.registry.String()+"/v2/")
	r.stop()
	_ = r.wait()
	if strings.Contains(r.log.String(), "response completed") {
		t.Error("logged")
	}
}

func TestLoggerTakesFieldsLevelsAndFormats(t *testing.T) {
	var out strings.Builder
	log, err := NewLogger(&out, LogConfig{Level: "warn", Formatter: "logstash", Fields: map[string]string{"service": "registry"}})
	if err != nil {
		t.Fatal(err)
	}
	log.Info("no")
	log.Warn("yes", "password", "s3cr3t", "Authorization", "Basic s3cr3t", "key", "e/u/a")
	var line map[string]any
	if err := json.Unmarshal([]byte(out.String()), &line); err != nil {
		t.Fatal(err)
	}
	if line["service"] != "registry" || line["key"] != "e/u/a" || strings.Contains(out.String(), "s3cr3t") {
		t.Error(out.String())
	}
	for _, c := range []LogConfig{{Level: "loud"}, {Formatter: "xml"}} {
		if _, err := NewLogger(&out, c); err == nil || !strings.Contains(err.Error(), "expected") {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestPathsAreNotRedirected(t *testing.T) {
	r := start(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.URL.Path) }, nil)
	for _, path := range []string{"/v2", "/v2/", "/v2//a/../blobs/uploads/"} {
		res, body, err := talk(t, r.registry.String(), nil, nil, "POST "+path+" HTTP/1.1\r\nHost: r\r\nConnection: close\r\n\r\n")
		if err != nil || res.StatusCode != 200 || body != path {
			t.Errorf("%s: %v %q %v", path, res, body, err)
		}
	}
	for _, path := range []string{"/v3/", "/v2x", "/metrics", "/debug/state", "/debug/health", "/healthz"} {
		if res, _ := get(t, client(t, nil), "http://"+r.registry.String()+path); res.StatusCode != http.StatusNotFound {
			t.Errorf("%s answers %d on the registry listener", path, res.StatusCode)
		}
	}
}

func TestMountsAreFoundByTheLongestPrefixAndGuarded(t *testing.T) {
	name := func(s string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, s) })
	}
	none := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	here := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	r := start(t, ok, func(c *Config) {
		c.Mounts = map[string]http.Handler{"/pontoon.": name("short"), "/pontoon.admin.v1.": AllowFrom(here, name("long")), "/closed/": AllowFrom(none, name("closed"))}
	})
	for path, want := range map[string]string{"/pontoon.x/Y": "short", "/pontoon.admin.v1.Status/Get": "long", "/closed/x": "404 page not found\n"} {
		if _, body := get(t, client(t, nil), "http://"+r.registry.String()+path); body != want {
			t.Errorf("%s: %q", path, body)
		}
	}
}

func TestControllerReachesTheConnection(t *testing.T) {
	r := start(t, func(w http.ResponseWriter, _ *http.Request) {
		c := http.NewResponseController(w)
		err := errors.Join(c.SetReadDeadline(time.Now().Add(time.Hour)), c.SetWriteDeadline(time.Now().Add(time.Hour)), c.EnableFullDuplex(), c.Flush())
		if _, isFlusher := w.(http.Flusher); err != nil || !isFlusher {
			t.Errorf("%v, flusher %v", err, isFlusher)
		}
	}, nil)
	if res, _ := get(t, client(t, nil), "http://"+r.registry.String()+"/v2/"); res.Header.Get("Server-Timing") == "" {
		t.Error("a flushed answer lacks Server-Timing")
	}
}

func TestConfiguredHeadersAreNotSharedBetweenRequests(t *testing.T) {
	arrived, go2 := make(chan struct{}), make(chan struct{})
	r := start(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Add("X-Frame-Options", r.URL.RawQuery)
		arrived <- struct{}{}
		<-go2
	}, func(c *Config) { c.Headers = http.Header{"x-frame-options": append(make([]string, 0, 8), "deny")} })
	var wg sync.WaitGroup
	for _, query := range []string{"one", "two"} {
		wg.Go(func() {
			req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+r.registry.String()+"/v2/?"+query, nil)
			res, err := client(t, nil).Do(req)
			if err != nil {
				t.Error(err)
				return
			}
			res.Body.Close()
			if got := res.Header.Values("X-Frame-Options"); !slices.Equal(got, []string{"deny", query}) {
				t.Errorf("%s: got %q", query, got)
			}
		})
	}
	<-arrived
	<-arrived
	close(go2)
	wg.Wait()
}

func TestAccessorsOutsideARequestDoNothing(t *testing.T) {
	ctx := context.Background()
	Phase(ctx, PhaseAuth)()
	Spent(ctx, PhaseAuth, 1)
	NoteUser(ctx, "x")
	if RequestID(ctx) != "" {
		t.Error("an id out of nothing")
	}
}

func TestRecorderWorksAsConnection(t *testing.T) {
	health, _ := NewHealth(HealthConfig{Node: &node{}})
	s, err := New(Config{Handler: http.HandlerFunc(ok), Health: health, Metrics: NewMetrics()})
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPut, "/v2/a/manifests/b", strings.NewReader("{}")))
	if w.Body.String() != "ok" {
		t.Error(w.Body)
	}
}

func FuzzRequestID(f *testing.F) {
	for _, s := range []string{"", "abc", "a b", "\r\nX: y", strings.Repeat("a", 200)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id := requestID(http.Header{"X-Request-Id": {s}})
		if id == "" || len(id) > maxRequestID || strings.ContainsAny(id, " \t\r\n\"'\\<>{};,") {
			t.Errorf("%q became %q", s, id)
		}
	})
}

func FuzzRedactQuery(f *testing.F) {
	f.Add("a=b&", "token")
	f.Add("&&=;", "Access-Token")
	f.Fuzz(func(t *testing.T, before, name string) {
		const value = "s3cr3tvalue"
		if strings.ContainsAny(name, "&=") || strings.Contains(before, value) || !secretName(name) {
			return
		}
		if got := redactQuery(before + "&" + name + "=" + value); strings.Contains(got, value) {
			t.Errorf("%q", got)
		}
	})
}

func FuzzClassify(f *testing.F) {
	for _, s := range []string{"/v2/", "/v2/a/blobs/uploads/", "/v2/a/b/manifests/c", "/v2/blobs/uploads/blobs/uploads/x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, path string) {
		r := classify(path)
		if oneOf(handlers(), r.handler) != r.handler {
			t.Errorf("%q: handler %q is not in the list", path, r.handler)
		}
		if len(r.name)+len(r.reference) > len(path) {
			t.Errorf("%q: %+v", path, r)
		}
	})
}
