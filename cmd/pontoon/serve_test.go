package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// output is a writer that tests read while it is written.
type output struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// serving is `pontoon serve` in this process.
type serving struct {
	config   string
	out, err output
	stop     context.CancelFunc
	done     chan error
}

// verb runs another verb against the same configuration.
func (s *serving) verb(ctx context.Context, args ...string) (string, error) {
	var out, errs output
	err := run(ctx, append(args, "--config", s.config), stdio{strings.NewReader(""), &out, &errs})
	return out.String(), err
}

// end stops the node and answers what serve answered.
func (s *serving) end(t *testing.T) error {
	t.Helper()
	s.stop()
	select {
	case err := <-s.done:
		s.done <- err
		return err
	case <-time.After(time.Minute):
		t.Fatalf("serve does not end:\n%s", s.err.String())
		return nil
	}
}

// serveWith starts a node with a configuration and waits until it is ready.
func serveWith(t *testing.T, dir, config string) *serving {
	t.Helper()
	s := &serving{config: filepath.Join(dir, "config.yml"), done: make(chan error, 1)}
	if err := os.WriteFile(s.config, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	s.stop = cancel
	go func() {
		s.done <- run(ctx, []string{"serve", "--config", s.config}, stdio{strings.NewReader(""), &s.out, &s.err})
	}()
	t.Cleanup(func() {
		if err := s.end(t); err != nil {
			t.Errorf("serve: %v\n%s", err, s.err.String())
		}
	})
	if _, err := s.verb(t.Context(), "status", "--wait", "1m"); err != nil {
		t.Fatalf("status: %v\n%s", err, s.err.String())
	}
	return s
}

// socketDir is a temporary directory with a path short enough for a socket.
func socketDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "p")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func (s *serving) url(t *testing.T) string {
	t.Helper()
	out, err := s.verb(t.Context(), "status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(out) {
		if u, ok := strings.CutPrefix(line, "registry "); ok {
			return strings.TrimSpace(u)
		}
	}
	t.Fatalf("no registry in\n%s", out)
	return ""
}

func TestTheClustersAuthorityAndTheLoginGuardTheRegistry(t *testing.T) {
	dir := socketDir(t)
	hash, err := bcrypt.GenerateFromPassword([]byte("pass"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "users"), []byte("ada:"+string(hash)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := serveWith(t, dir, fmt.Sprintf(`version: 0.1
http: {addr: "127.0.0.1:0", debug: {addr: none}, tls: {names: [127.0.0.1, registry.test]}}
auth: {htpasswd: {realm: Tests, path: %[1]s/users}}
cluster: {datadir: %[1]s/data}
`, dir))
	url := s.url(t)
	if !strings.HasPrefix(url, "https://127.0.0.1:") {
		t.Fatalf("got %s", url)
	}
	ca, err := s.verb(t.Context(), "cluster", "ca")
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(ca))
	hc := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}, Timeout: 10 * time.Second}
	if got := ping(t, hc, url, "", ""); got != http.StatusUnauthorized {
		t.Errorf("without a login: got %d", got)
	}
	if got := ping(t, hc, url, "ada", "wrong"); got != http.StatusUnauthorized {
		t.Errorf("with a wrong password: got %d", got)
	}
	if got := ping(t, hc, url, "ada", "pass"); got != http.StatusOK {
		t.Errorf("with the right password: got %d", got)
	}
	if res, err := (&http.Client{Timeout: 10 * time.Second}).Get(url + "/v2/"); err == nil {
		_ = res.Body.Close()
		t.Error("a client that does not know the authority trusts it")
	}
}

func ping(t *testing.T, hc *http.Client, url, user, password string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/v2/", nil)
	if err != nil {
		t.Fatal(err)
	}
	if user != "" {
		req.SetBasicAuth(user, password)
	}
	res, err := hc.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	_, _ = io.Copy(io.Discard, res.Body)
	return res.StatusCode
}

func TestAHangupChangesTheSecretOfARunningNode(t *testing.T) {
	dir := socketDir(t)
	secret := filepath.Join(dir, "secret")
	if err := writeSecret(secret); err != nil {
		t.Fatal(err)
	}
	s := serveWith(t, dir, fmt.Sprintf(`version: 0.1
http: {addr: "127.0.0.1:0", debug: {addr: none}, tls: {names: [127.0.0.1]}}
cluster: {datadir: %[1]s/data, secretfile: %[1]s/secret}
`, dir))
	before, err := s.verb(t.Context(), "cluster", "ca")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(secret); err != nil {
		t.Fatal(err)
	}
	if err := writeSecret(secret); err != nil {
		t.Fatal(err)
	}
	after, err := s.verb(t.Context(), "cluster", "ca")
	if err != nil || after == before {
		t.Fatalf("another secret has the same authority, %v", err)
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(after))
	addr := strings.TrimPrefix(s.url(t), "https://")
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(20 * time.Second); ; <-tick.C {
		c, err := tls.DialWithDialer(&net.Dialer{Timeout: time.Second}, "tcp", addr, &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12})
		if err == nil {
			_ = c.Close()
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the certificate is still of the old secret: %v\n%s", err, s.err.String())
		}
	}
}

func TestARegistryPortThatIsTakenEndsServeWithItsName(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	dir := socketDir(t)
	config := filepath.Join(dir, "c.yml")
	body := fmt.Sprintf("version: 0.1\nhttp: {addr: %q, debug: {addr: none}}\ncluster: {datadir: %s/data}\n", l.Addr(), dir)
	if err := os.WriteFile(config, []byte(body), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, errs output
	err = run(t.Context(), []string{"serve", config}, stdio{strings.NewReader(""), &out, &errs})
	if err == nil || !strings.Contains(err.Error(), "http.addr") || exitCode(err) != exitFailure {
		t.Errorf("got %v", err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "data", socketName)); !os.IsNotExist(err) {
		t.Errorf("the socket is still there: %v", err)
	}
}
