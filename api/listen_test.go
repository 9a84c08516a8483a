package api

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// proxyV2 is a PROXY protocol v2 header as HAProxy writes it; an empty client is LOCAL.
func proxyV2(client string) []byte {
	h := []byte("\r\n\r\n\x00\r\nQUIT\n")
	if client == "" {
		return append(h, 0x20, 0x00, 0, 0)
	}
	a := netip.MustParseAddrPort(client)
	h = append(h, 0x21, 0x11, 0, 12)
	src, dst := a.Addr().As4(), [4]byte{127, 0, 0, 1}
	h = append(h, src[:]...)
	h = append(h, dst[:]...)
	h = binary.BigEndian.AppendUint16(h, a.Port())
	return binary.BigEndian.AppendUint16(h, 5000)
}

// talk sends prefix in the clear, then request over TLS or plain, and answers the first response.
func talk(t *testing.T, addr string, conf *tls.Config, prefix []byte, request string) (reply, string, error) {
	t.Helper()
	var d net.Dialer
	c, err := d.DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write(prefix); err != nil {
		t.Fatal(err)
	}
	if conf != nil {
		c = tls.Client(c, conf)
	}
	if _, err := io.WriteString(c, request); err != nil {
		return reply{}, "", err
	}
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return reply{}, "", err
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(res.Body)
	return reply{res.StatusCode, res.Header, res.Close}, string(body), nil
}

const who = "GET /v2/ HTTP/1.1\r\nHost: r\r\nConnection: close\r\n\r\n"

func remote(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.RemoteAddr) }

func TestTrustedPeersSayWhomTheySpeakFor(t *testing.T) {
	r := start(t, remote, func(c *Config) { c.ProxyTrusted = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} })
	for name, c := range map[string]struct {
		header []byte
		want   string
	}{
		"client": {proxyV2("203.0.113.7:4711"), "203.0.113.7:4711"},
		"local":  {proxyV2(""), "127.0.0.1:"},
		"none":   {nil, "127.0.0.1:"},
	} {
		_, body, err := talk(t, r.registry.String(), nil, c.header, who)
		if err != nil || !strings.HasPrefix(body, c.want) {
			t.Errorf("%s: got %q, %v", name, body, err)
		}
	}
}

func TestOtherHeadersOfTrustedPeersAreRefused(t *testing.T) {
	r := start(t, remote, func(c *Config) { c.ProxyTrusted = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")} })
	unix := append([]byte("\r\n\r\n\x00\r\nQUIT\n\x21\x31\x00\xd8"), make([]byte, 216)...)
	for name, header := range map[string][]byte{
		"version 1":   []byte("PROXY TCP4 203.0.113.7 127.0.0.1 4711 5000\r\n"),
		"unix socket": unix,
		"cut":         proxyV2("203.0.113.7:4711")[:14],
	} {
		if res, body, err := talk(t, r.registry.String(), nil, header, who); err == nil && res.StatusCode == 200 {
			t.Errorf("%s was accepted: %q", name, body)
		}
	}
}

func TestUntrustedPeersCannotClaimAnAddress(t *testing.T) {
	r := start(t, remote, func(c *Config) { c.ProxyTrusted = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")} })
	res, body, err := talk(t, r.registry.String(), nil, proxyV2("203.0.113.7:4711"), who)
	if err == nil && res.StatusCode == 200 {
		t.Errorf("answered %d %q", res.StatusCode, body)
	}
	if _, body, err := talk(t, r.registry.String(), nil, nil, who); err != nil || !strings.HasPrefix(body, "127.0.0.1:") {
		t.Errorf("without header: %q, %v", body, err)
	}
}

// HAProxy: option httpchk GET /readyz, server … check check-ssl verify none check-send-proxy.
func TestHAProxyHealthCheckWorks(t *testing.T) {
	ca := newAuthority(t)
	_, withCert := withTLS(t, ca, nil)
	r := start(t, ok, func(c *Config) {
		withCert(c)
		c.ProxyTrusted = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
	})
	check := func() int {
		res, body, err := talk(t, r.registry.String(), &tls.Config{InsecureSkipVerify: true}, proxyV2(""), "GET /readyz HTTP/1.0\r\n\r\n")
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(body, "disk") {
			t.Errorf("details in public: %q", body)
		}
		return res.StatusCode
	}
	if got := check(); got != http.StatusOK {
		t.Errorf("ready node answers %d", got)
	}
	r.cfg.Health.Drain()
	if got := check(); got != http.StatusServiceUnavailable {
		t.Errorf("draining node answers %d", got)
	}
}

// counting counts what reaches ReadFrom of a connection.
type counting struct {
	net.Listener
	files *atomic.Int64
}

type countingConn struct {
	*net.TCPConn
	files *atomic.Int64
}

func (l counting) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return countingConn{c.(*net.TCPConn), l.files}, nil
}

func (c countingConn) ReadFrom(r io.Reader) (int64, error) {
	if lr, ok := r.(*io.LimitedReader); ok {
		if _, ok := lr.R.(interface{ Fd() uintptr }); ok {
			c.files.Add(lr.N)
		}
	}
	return c.TCPConn.ReadFrom(r)
}

func TestFilesReachSendfile(t *testing.T) {
	const size = 3*mib + 17
	name := filepath.Join(t.TempDir(), "layer")
	write(t, name, make([]byte, size))
	var files atomic.Int64
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := start(t, func(w http.ResponseWriter, req *http.Request) {
		f, err := os.Open(name)
		if err != nil {
			t.Error(err)
			return
		}
		defer f.Close()
		w.Header().Set("Content-Length", "3145745")
		if req.URL.Query().Has("part") {
			_, err = io.Copy(w, io.LimitReader(f, size)) // as a ranged read does
		} else {
			_, err = io.Copy(w, f)
		}
		if err != nil {
			t.Error(err)
		}
	}, func(c *Config) { c.Listener = counting{l, &files} })
	for _, path := range []string{"/v2/a/blobs/x", "/v2/a/blobs/x?part"} {
		files.Store(0)
		_, body := get(t, client(t, nil), "http://"+r.registry.String()+path)
		if len(body) != size {
			t.Errorf("%s: got %d bytes", path, len(body))
		}
		if got := files.Load(); got < size-kib {
			t.Errorf("%s: only %d of %d bytes went from file to socket", path, got, size)
		}
	}
}

func TestConnectionsBeyondTheBoundWait(t *testing.T) {
	inside := make(chan struct{})
	release := make(chan struct{})
	r := start(t, func(w http.ResponseWriter, _ *http.Request) {
		inside <- struct{}{}
		<-release
		_, _ = io.WriteString(w, "ok")
	}, func(c *Config) { c.MaxConnections = 16 })
	answers := make(chan error, 17)
	for range 17 {
		go func() {
			req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+r.registry.String()+"/v2/", nil)
			tr := &http.Transport{DisableKeepAlives: true}
			res, err := tr.RoundTrip(req)
			if err == nil {
				res.Body.Close()
			}
			answers <- err
		}()
	}
	for range 16 {
		<-inside
	}
	if got := r.requests.count(); got != 16 {
		t.Errorf("%d requests inside", got)
	}
	close(release)
	<-inside // the seventeenth, once a place is free
	for range 17 {
		if err := <-answers; err != nil {
			t.Error(err)
		}
	}
}

func TestHeadersBeyondTheBoundAreRefused(t *testing.T) {
	r := start(t, ok, func(c *Config) { c.MaxHeaderBytes = 4 * kib })
	res, _, err := talk(t, r.registry.String(), nil, nil, "GET /v2/ HTTP/1.1\r\nHost: r\r\nX: "+strings.Repeat("x", 16*kib)+"\r\n\r\n")
	if err != nil || res.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("got %v, %v", res, err)
	}
}
