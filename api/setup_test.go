package api

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// node is a Node that tests steer.
type node struct {
	unready atomic.Pointer[string]
	asked   atomic.Int64
	started atomic.Bool
}

func (n *node) Ready(context.Context) error {
	n.asked.Add(1)
	if why := n.unready.Load(); why != nil {
		return errors.New(*why)
	}
	n.started.Store(true)
	return nil
}
func (n *node) Started() bool   { return n.started.Load() }
func (n *node) DebugState() any { return map[string]any{"applied": 42, "hash": "c0ffee"} }

// running is a server under test.
type running struct {
	*Server
	node     *node
	log      *lines
	registry net.Addr
	debug    net.Addr
	// stop begins the drain; wait answers what Run did.
	stop func()
	wait func() error
}

// start runs a server on free loopback ports until the test ends; change steers its config.
func start(t *testing.T, handler http.HandlerFunc, change func(*Config)) *running {
	t.Helper()
	r := &running{node: &node{}, log: &lines{}}
	log, err := NewLogger(r.log, LogConfig{Formatter: "json", Level: "debug"})
	if err != nil {
		t.Fatal(err)
	}
	health, err := NewHealth(HealthConfig{Node: r.node})
	if err != nil {
		t.Fatal(err)
	}
	listening := make(chan struct{})
	cfg := Config{
		Addr: "127.0.0.1:0", DebugAddr: "127.0.0.1:0", Handler: handler, Health: health, Metrics: NewMetrics(), Log: log,
		DrainDelay: -1,
		OnListen:   func(a, b net.Addr) { r.registry, r.debug = a, b; close(listening) },
	}
	if change != nil {
		change(&cfg)
	}
	if r.Server, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	r.stop = cancel
	r.wait = sync.OnceValue(func() error { return <-done })
	t.Cleanup(func() {
		r.stop()
		if err := r.wait(); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	select {
	case <-listening:
	case err := <-done:
		t.Fatalf("Run: %v", err)
	}
	return r
}

// client answers an HTTP client that leaves nothing behind.
func client(t *testing.T, conf *tls.Config) *http.Client {
	tr := &http.Transport{TLSClientConfig: conf, ForceAttemptHTTP2: true}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// reply is an answer that was read to its end.
type reply struct {
	StatusCode int
	Header     http.Header
	Close      bool
}

func get(t *testing.T, c *http.Client, url string) (reply, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return do(t, c, req)
}

func do(t *testing.T, c *http.Client, req *http.Request) (reply, string) {
	t.Helper()
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{res.StatusCode, res.Header, res.Close}, string(body)
}

func ok(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }

// lines is a log that tests read.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// authority is a CA of a test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key := newKey(t)
	tmpl := &x509.Certificate{SerialNumber: serial(t), Subject: pkix.Name{CommonName: "test CA"}, NotBefore: time.Unix(0, 0),
		NotAfter: time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

// issue answers a certificate and key for 127.0.0.1 in PEM; name is its common name.
func (a *authority) issue(t *testing.T, name string) (certPEM, keyPEM []byte) {
	t.Helper()
	key := newKey(t)
	tmpl := &x509.Certificate{SerialNumber: serial(t), Subject: pkix.Name{CommonName: name}, NotBefore: time.Unix(0, 0),
		NotAfter: time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"registry.test"},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func serial(t *testing.T) *big.Int {
	t.Helper()
	n, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// certFiles are a certificate and key in a directory of the test.
type certFiles struct{ cert, key string }

func writeCert(t *testing.T, dir string, certPEM, keyPEM []byte) certFiles {
	t.Helper()
	f := certFiles{filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")}
	write(t, f.cert, certPEM)
	write(t, f.key, keyPEM)
	return f
}

func write(t *testing.T, name string, body []byte) {
	t.Helper()
	if err := os.WriteFile(name, body, 0o600); err != nil {
		t.Fatal(err)
	}
}

// pipes is a listener without a network, for tests with a clock of their own (testing/synctest).
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), closed: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.closed) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "pipe"} }

func (p *pipes) dial() (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case p.conns <- there:
		return here, nil
	case <-p.closed:
		return nil, errors.New("connection refused")
	}
}

// startPipes runs a server that is reached through the listener it answers.
func startPipes(t *testing.T, handler http.HandlerFunc, change func(*Config)) (*running, *pipes) {
	t.Helper()
	p := newPipes()
	r := start(t, handler, func(c *Config) {
		c.Listener, c.DebugAddr = p, "none"
		if change != nil {
			change(c)
		}
	})
	return r, p
}

// contextUntil answers a context that ends when stop is closed.
func contextUntil(stop <-chan struct{}) context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	go func() { <-stop; cancel() }()
	return ctx
}

// waitIdle waits until no request is in flight: a client has its answer before the server has counted it.
func (r *running) waitIdle() { r.requests.wait(context.Background()) }
