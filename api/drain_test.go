package api

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// ask sends one GET on c and answers the response, its body read.
func ask(t *testing.T, c net.Conn, path string) (reply, string) {
	t.Helper()
	_, _ = fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: r\r\n\r\n", path)
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(res.Body)
	return reply{res.StatusCode, res.Header, res.Close}, string(body)
}

// One drain from its begin to its end, by the clock of the bubble.
func TestDrainLosesNoRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		r, p := startPipes(t, func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/slow") {
				<-release
			}
			_, _ = io.WriteString(w, "done")
		}, func(c *Config) { c.DrainDelay = 5 * time.Second })

		if res, _ := ask(t, dial(t, p), "/readyz"); res.StatusCode != http.StatusOK {
			t.Fatalf("not ready before: %d", res.StatusCode)
		}
		kept := dial(t, p)
		ask(t, kept, "/v2/")
		slow := make(chan string, 1)
		go func() { _, body := ask(t, dial(t, p), "/v2/a/blobs/slow"); slow <- body }()
		synctest.Wait()

		r.stop()
		synctest.Wait()
		if res, _ := ask(t, dial(t, p), "/readyz"); res.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("ready while draining: %d", res.StatusCode)
		}
		time.Sleep(4 * time.Second) // within the delay: new and kept connections are served and told to close
		for name, c := range map[string]net.Conn{"new": dial(t, p), "kept": kept} {
			if res, body := ask(t, c, "/v2/"); body != "done" || !res.Close {
				t.Errorf("%s connection: %q, close %v", name, body, res.Close)
			}
		}
		time.Sleep(2 * time.Second) // beyond it
		synctest.Wait()
		if _, err := p.dial(); err == nil {
			t.Error("still accepting after the delay")
		}
		time.Sleep(50 * time.Second)
		close(release)
		if body := <-slow; body != "done" {
			t.Errorf("the request in flight got %q", body)
		}
		if err := r.wait(); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func TestRequestsBeyondTheDrainTimeoutAreCutAndAwaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		saved := make(chan error, 1)
		r, p := startPipes(t, func(_ http.ResponseWriter, r *http.Request) {
			_, err := io.Copy(io.Discard, r.Body)
			if err == nil {
				t.Error("a body that never ended was read whole")
			}
			time.Sleep(3 * time.Second) // saves what it got
			saved <- context.Cause(r.Context())
		}, func(c *Config) { c.DrainTimeout = 30 * time.Second })
		c := dial(t, p)
		_, _ = io.WriteString(c, "PATCH /v2/a/blobs/uploads/u HTTP/1.1\r\nHost: r\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
		synctest.Wait()
		begin := time.Now()
		r.stop()
		if err := r.wait(); err != nil {
			t.Errorf("Run: %v", err)
		}
		select {
		case cause := <-saved:
			if !errors.Is(cause, ErrDraining) {
				t.Errorf("cause %v", cause)
			}
		default:
			t.Error("Run did not wait for the handler")
		}
		if took := time.Since(begin); took < 30*time.Second || took > 45*time.Second {
			t.Errorf("took %v", took)
		}
	})
}

func TestHTTP2ClientsAreSentAway(t *testing.T) {
	ca := newAuthority(t)
	certPEM, keyPEM := ca.issue(t, "r")
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		r, p := startPipes(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Proto) }, func(c *Config) {
			c.DrainDelay = time.Minute
			c.TLS = &TLSConfig{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &pair, nil }}
		})
		dials := 0
		tr := &http.Transport{ForceAttemptHTTP2: true, DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			c, err := p.dial()
			if err != nil {
				return nil, err
			}
			dials++
			tc := tls.Client(c, &tls.Config{RootCAs: ca.pool(), ServerName: "registry.test", NextProtos: []string{"h2"}})
			return tc, tc.HandshakeContext(ctx)
		}}
		defer tr.CloseIdleConnections()
		for range 3 {
			if _, body := get(t, &http.Client{Transport: tr}, "https://registry.test/v2/"); body != "HTTP/2.0" {
				t.Fatal(body)
			}
			synctest.Wait()
		}
		if dials != 1 {
			t.Fatalf("%d connections before the drain", dials)
		}
		r.stop()
		synctest.Wait()
		for range 3 {
			get(t, &http.Client{Transport: tr}, "https://registry.test/v2/")
			time.Sleep(2 * time.Second)
			synctest.Wait()
		}
		if dials < 3 {
			t.Errorf("%d connections for three answers that said GOAWAY", dials)
		}
		tr.CloseIdleConnections()
	})
}

func TestListenerThatFailsEndsTheServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, p := startPipes(t, ok, nil)
		p.Close()
		if err := r.wait(); err == nil || !strings.Contains(err.Error(), "registry listener") {
			t.Errorf("Run: %v", err)
		}
		r.wait = func() error { return nil } // told already
	})
}

func TestAddressInUseIsNamed(t *testing.T) {
	r := start(t, ok, nil)
	health, _ := NewHealth(HealthConfig{Node: &node{}})
	for field, cfg := range map[string]Config{
		"http.addr":       {Addr: r.registry.String(), DebugAddr: "none"},
		"http.debug.addr": {Addr: "127.0.0.1:0", DebugAddr: r.debug.String()},
	} {
		cfg.Handler, cfg.Health, cfg.Metrics = http.HandlerFunc(ok), health, NewMetrics()
		s, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Run(t.Context()); err == nil || !strings.HasPrefix(err.Error(), field+": ") {
			t.Errorf("%s: %v", field, err)
		}
	}
}
