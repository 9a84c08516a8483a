package transport

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc/health/grpc_health_v1"
)

// testCreds are Credentials of a CA that follows from a secret, as the real
// ones of package cluster are (which this package must not import).
type testCreds struct {
	ca   *x509.Certificate
	leaf tls.Certificate
}

func newCreds(t testing.TB, secret, nodeID string) *testCreds {
	t.Helper()
	seed := sha256.Sum256([]byte(secret))
	caKey := ed25519.NewKeyFromSeed(seed[:])
	caTemplate := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca " + secret},
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(nil, caTemplate, caTemplate, caKey.Public(), caKey)
	must(t, err)
	ca, err := x509.ParseCertificate(der)
	must(t, err)
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	der, err = x509.CreateCertificate(nil, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: nodeID}, DNSNames: []string{nodeID},
		NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}, ca, pub, caKey)
	must(t, err)
	return &testCreds{ca: ca, leaf: tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}}
}

func (c *testCreds) verify(cs tls.ConnectionState) error {
	roots := x509.NewCertPool()
	roots.AddCert(c.ca)
	_, err := cs.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	return err
}

func (c *testCreds) ServerTLS() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{c.leaf}, ClientAuth: tls.RequireAnyClientCert, VerifyConnection: c.verify}
}

func (c *testCreds) ClientTLS(nodeID string) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{c.leaf}, ServerName: "pontoon.test", InsecureSkipVerify: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			if err := c.verify(cs); err != nil {
				return err
			}
			if id := cs.PeerCertificates[0].Subject.CommonName; nodeID != "" && id != nodeID {
				return fmt.Errorf("node %s was dialled, node %s answers", nodeID, id)
			}
			return nil
		}}
}

func (c *testCreds) Claims() bool { return false }

func (c *testCreds) Shown() string { return string(c.leaf.Certificate[0]) }

func (c *testCreds) Judge(cs tls.ConnectionState, _ End) (Judgement, error) {
	if len(cs.PeerCertificates) == 0 {
		return Judgement{}, errors.New("no certificate")
	}
	id := cs.PeerCertificates[0].Subject.CommonName
	return Judgement{NodeID: id, Name: id, By: c.ca.Subject.CommonName}, c.verify(cs)
}

// book is where test nodes look up each other.
type book struct {
	mu    sync.Mutex
	addrs map[string]string
}

func newBook() *book { return &book{addrs: map[string]string{}} }

func (b *book) set(id, addr string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.addrs[id] = addr
}

func (b *book) resolve(id string) (string, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	a, ok := b.addrs[id]
	return a, ok
}

// node is a Host that runs.
type node struct {
	*Host
	id   string
	stop func() // ends Run and waits
}

// startNode runs a host of cluster "c1", incarnation 1, listed in the book.
func startNode(t testing.TB, b *book, id string, change ...func(*Config)) *node {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	cfg := Config{
		NodeID: id, Listener: ln, Credentials: newCreds(t, "s", id), Resolve: b.resolve,
		Identity: func() (string, uint64) { return "c1", 1 },
	}
	for _, c := range change {
		c(&cfg)
	}
	h, err := New(cfg)
	must(t, err)
	grpc_health_v1.RegisterHealthServer(h.Registrar(), &healthService{})
	b.set(id, ln.Addr().String())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run %s: %v", id, err)
		}
	})
	t.Cleanup(stop)
	return &node{Host: h, id: id, stop: stop}
}

// healthService is any service: gRPC's own proto of one, with made-up meaning.
type healthService struct {
	grpc_health_v1.UnimplementedHealthServer
}

// Check answers at once, or panics, or hangs until its context ends.
func (*healthService) Check(ctx context.Context, req *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	switch req.GetService() {
	case "panic":
		panic("as asked")
	case "hang":
		<-ctx.Done()
		return nil, ctx.Err()
	case "node-a", "node-b":
		if id, ok := PeerID(ctx); !ok || id != req.GetService() {
			return nil, fmt.Errorf("the caller is %q", id)
		}
	}
	return &grpc_health_v1.HealthCheckResponse{Status: grpc_health_v1.HealthCheckResponse_SERVING}, nil
}

func (*healthService) Watch(*grpc_health_v1.HealthCheckRequest, grpc_health_v1.Health_WatchServer) error {
	panic("as always")
}

// ask calls Check on a peer by id.
func (n *node) ask(ctx context.Context, id, what string) error {
	cc, err := n.Conn(id, Control)
	if err != nil {
		return err
	}
	_, err = grpc_health_v1.NewHealthClient(cc).Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: what})
	return err
}

// proxy is a TCP proxy to one address that can turn into a black hole.
type proxy struct {
	ln     net.Listener
	target string
	wg     sync.WaitGroup

	mu    sync.Mutex
	holes bool              // swallow what new connections bring
	conns map[net.Conn]bool // true: pass on
}

func startProxy(t testing.TB, target string) *proxy {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	p := &proxy{ln: ln, target: target, conns: map[net.Conn]bool{}}
	p.wg.Go(p.accept)
	t.Cleanup(p.close)
	return p
}

func (p *proxy) accept() {
	for {
		in, err := p.ln.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", p.target)
		if err != nil {
			in.Close()
			continue
		}
		p.mu.Lock()
		p.conns[in], p.conns[out] = !p.holes, !p.holes
		p.mu.Unlock()
		p.wg.Go(func() { p.pass(in, out) })
		p.wg.Go(func() { p.pass(out, in) })
	}
}

func (p *proxy) pass(from, to net.Conn) {
	defer from.Close()
	defer to.Close()
	b := make([]byte, 32<<10)
	for {
		n, err := from.Read(b)
		if err != nil {
			return
		}
		p.mu.Lock()
		pass := p.conns[from]
		p.mu.Unlock()
		if pass {
			if _, err := to.Write(b[:n]); err != nil {
				return
			}
		}
	}
}

// hole loses everything from now on, silently: no FIN, no RST. The
// connections that stand never recover, as when an address is gone.
func (p *proxy) hole() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.holes = true
	for c := range p.conns {
		p.conns[c] = false
	}
}

// heal lets new connections through.
func (p *proxy) heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.holes = false
}

func (p *proxy) close() {
	p.ln.Close()
	p.mu.Lock()
	for c := range p.conns {
		c.Close()
	}
	p.mu.Unlock()
	p.wg.Wait()
}

// fakeRaft answers what an Instance delivers.
func fakeRaft(t testing.TB, i *Instance, respond func(raft.RPC)) {
	t.Helper()
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case rpc := <-i.Consumer():
				respond(rpc)
			case <-quit:
				return
			}
		}
	}()
	t.Cleanup(func() { close(quit); <-done })
}

func header(id string) raft.RPCHeader {
	return raft.RPCHeader{ProtocolVersion: 3, ID: []byte(id), Addr: []byte(id)}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// timed answers how long something took, and how much longer than it asked for a goroutine slept meanwhile: what a busy
// machine takes from everybody.
func timed(do func()) (took, late time.Duration) {
	const nap = 10 * time.Millisecond
	done, slept := make(chan struct{}), make(chan time.Duration)
	go func() {
		var late time.Duration
		for {
			began := time.Now()
			select {
			case <-done:
				slept <- late
				return
			case <-time.After(nap):
				late += time.Since(began) - nap
			}
		}
	}()
	began := time.Now()
	do()
	took = time.Since(began)
	close(done)
	return took, <-slept
}
