package api

import (
	"crypto/tls"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func withTLS(t *testing.T, ca *authority, change func(*TLSConfig)) (certFiles, func(*Config)) {
	t.Helper()
	certPEM, keyPEM := ca.issue(t, "first")
	f := writeCert(t, t.TempDir(), certPEM, keyPEM)
	conf := &TLSConfig{CertFile: f.cert, KeyFile: f.key}
	if change != nil {
		change(conf)
	}
	return f, func(c *Config) { c.TLS = conf }
}

// handshake answers what a TLS client with conf gets.
func handshake(t *testing.T, r *running, conf *tls.Config) (tls.ConnectionState, error) {
	t.Helper()
	d := tls.Dialer{Config: conf}
	c, err := d.DialContext(t.Context(), "tcp", r.registry.String())
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer c.Close()
	return c.(*tls.Conn).ConnectionState(), nil
}

func commonName(t *testing.T, r *running, ca *authority) string {
	t.Helper()
	state, err := handshake(t, r, &tls.Config{RootCAs: ca.pool()})
	if err != nil {
		t.Fatal(err)
	}
	return state.PeerCertificates[0].Subject.CommonName
}

func TestOldTLSIsRefused(t *testing.T) {
	ca := newAuthority(t)
	_, change := withTLS(t, ca, nil)
	r := start(t, ok, change)
	for _, version := range []uint16{tls.VersionTLS10, tls.VersionTLS11} {
		if _, err := handshake(t, r, &tls.Config{RootCAs: ca.pool(), MinVersion: version, MaxVersion: version}); err == nil {
			t.Errorf("%s was accepted", tls.VersionName(version))
		}
	}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		if _, err := handshake(t, r, &tls.Config{RootCAs: ca.pool(), MinVersion: version, MaxVersion: version}); err != nil {
			t.Errorf("%s: %v", tls.VersionName(version), err)
		}
	}
}

func TestMinimumTLS13RefusesTLS12(t *testing.T) {
	ca := newAuthority(t)
	_, change := withTLS(t, ca, func(c *TLSConfig) { c.MinVersion = "tls1.3" })
	r := start(t, ok, change)
	if _, err := handshake(t, r, &tls.Config{RootCAs: ca.pool(), MaxVersion: tls.VersionTLS12}); err == nil {
		t.Error("TLS 1.2 was accepted")
	}
}

func TestOnlyTheChosenCipherSuitesAreSpoken(t *testing.T) {
	ca := newAuthority(t)
	_, change := withTLS(t, ca, func(c *TLSConfig) { c.CipherSuites = []string{"TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"} })
	r := start(t, ok, change)
	conf := &tls.Config{RootCAs: ca.pool(), MaxVersion: tls.VersionTLS12}
	state, err := handshake(t, r, conf)
	if err != nil || state.CipherSuite != tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 {
		t.Errorf("got %s, %v", tls.CipherSuiteName(state.CipherSuite), err)
	}
	conf.CipherSuites = []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}
	if _, err := handshake(t, r, conf); err == nil {
		t.Error("a suite that was not chosen was accepted")
	}
}

func TestHTTP2IsNegotiatedAndHeadersAreAdded(t *testing.T) {
	ca := newAuthority(t)
	_, change := withTLS(t, ca, nil)
	r := start(t, func(w http.ResponseWriter, req *http.Request) { _, _ = w.Write([]byte(req.Proto)) }, func(c *Config) {
		change(c)
		c.Headers = http.Header{"Strict-Transport-Security": {"max-age=63072000"}}
	})
	c := client(t, &tls.Config{RootCAs: ca.pool()})
	res, body := get(t, c, "https://"+r.registry.String()+"/v2/")
	if body != "HTTP/2.0" || res.Header.Get("Strict-Transport-Security") != "max-age=63072000" {
		t.Errorf("proto %s, headers %v", body, res.Header)
	}
	for _, path := range []string{"/", "/nothing"} {
		if res, _ := get(t, c, "https://"+r.registry.String()+path); res.Header.Get("Strict-Transport-Security") == "" {
			t.Errorf("%s has no HSTS", path)
		}
	}
}

func TestPlainHTTPHasNoHTTP2(t *testing.T) {
	r := start(t, func(w http.ResponseWriter, req *http.Request) { _, _ = w.Write([]byte(req.Proto)) }, nil)
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	tr := &http.Transport{Protocols: &protocols}
	defer tr.CloseIdleConnections()
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+r.registry.String()+"/v2/", nil)
	if res, err := tr.RoundTrip(req); err == nil {
		res.Body.Close()
		t.Error("HTTP/2 without TLS was spoken")
	}
}

func TestClientCertificatesAreDemandedByClientCAs(t *testing.T) {
	ca, clients, stranger := newAuthority(t), newAuthority(t), newAuthority(t)
	file := filepath.Join(t.TempDir(), "clients.pem")
	write(t, file, clients.pem)
	_, change := withTLS(t, ca, func(c *TLSConfig) { c.ClientCAs = []string{file} })
	r := start(t, ok, change)
	sessions := tls.NewLRUClientSessionCache(8) // a client that would rather resume than be judged again
	try := func(a *authority) error {
		conf := &tls.Config{RootCAs: ca.pool()}
		if a == clients {
			conf.ClientSessionCache = sessions
		}
		if a != nil {
			certPEM, keyPEM := a.issue(t, "client")
			pair, err := tls.X509KeyPair(certPEM, keyPEM)
			if err != nil {
				t.Fatal(err)
			}
			conf.Certificates = []tls.Certificate{pair}
		}
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+r.registry.String()+"/v2/", nil)
		res, err := client(t, conf).Do(req)
		if err == nil {
			res.Body.Close()
		}
		return err
	}
	if err := try(clients); err != nil {
		t.Errorf("a client of the CA: %v", err)
	}
	if try(nil) == nil {
		t.Error("a client without certificate came in")
	}
	if try(stranger) == nil {
		t.Error("a client of another CA came in")
	}

	// The same file with another CA changes who may come in.
	write(t, file, stranger.pem)
	if err := r.Reload(); err != nil {
		t.Fatal(err)
	}
	if err := try(stranger); err != nil {
		t.Errorf("after reload: %v", err)
	}
	if try(clients) == nil {
		t.Error("after reload: a client of the CA that was removed came in")
	}
}

func TestBrokenCertificateKeepsTheOldOne(t *testing.T) {
	ca := newAuthority(t)
	f, change := withTLS(t, ca, nil)
	r := start(t, ok, change)
	if got := commonName(t, r, ca); got != "first" {
		t.Fatal(got)
	}
	certPEM, keyPEM := ca.issue(t, "second")
	write(t, f.cert, certPEM) // without its key: half of a change
	if err := r.Reload(); err == nil || !strings.Contains(err.Error(), f.cert) {
		t.Errorf("reload of half a change: %v", err)
	}
	if got := commonName(t, r, ca); got != "first" {
		t.Errorf("after half a change %q is served", got)
	}
	write(t, f.key, keyPEM)
	if err := r.Reload(); err != nil {
		t.Fatal(err)
	}
	if got := commonName(t, r, ca); got != "second" {
		t.Errorf("after the whole change %q is served", got)
	}
	if want := time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC); !r.CertificateExpiry().Equal(want) {
		t.Errorf("expiry %v", r.CertificateExpiry())
	}
}

func TestChangedFilesAreNoticedWithoutASignal(t *testing.T) {
	ca := newAuthority(t)
	dir := t.TempDir()
	certPEM, keyPEM := ca.issue(t, "first")
	f := writeCert(t, dir, certPEM, keyPEM)
	synctest.Test(t, func(t *testing.T) {
		log := &lines{}
		logger, _ := NewLogger(log, LogConfig{})
		k := newKeyring(TLSConfig{CertFile: f.cert, KeyFile: f.key}, logger, NewMetrics())
		if err := k.reload(); err != nil {
			t.Fatal(err)
		}
		first := k.current.Load()
		done := make(chan struct{})
		stop := make(chan struct{})
		ctx := contextUntil(stop)
		go func() { k.watch(ctx); close(done) }()

		time.Sleep(11 * time.Second)
		synctest.Wait()
		if k.current.Load() != first {
			t.Error("unchanged files were read again")
		}
		write(t, f.key, []byte("garbage"))
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if k.current.Load() != first || strings.Count(log.String(), "cannot be used") != 1 {
			t.Errorf("broken file: log %s", log)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if strings.Count(log.String(), "cannot be used") != 1 {
			t.Error("the same broken file was complained of again")
		}
		// The way of Kubernetes and of careful tools: a new file under the old name.
		certPEM, keyPEM := ca.issue(t, "second")
		for name, body := range map[string][]byte{f.cert: certPEM, f.key: keyPEM} {
			write(t, name+".new", body)
			if err := os.Rename(name+".new", name); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if got := k.current.Load().Certificates[0].Leaf.Subject.CommonName; got != "second" {
			t.Errorf("%q is served", got)
		}
		close(stop)
		<-done
	})
}

func TestCertificatesOfTheClusterAreServed(t *testing.T) {
	ca := newAuthority(t)
	certPEM, keyPEM := ca.issue(t, "issued")
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	r := start(t, ok, func(c *Config) {
		c.TLS = &TLSConfig{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &pair, nil }}
	})
	if got := commonName(t, r, ca); got != "issued" {
		t.Error(got)
	}
}

func TestTLSConfigNamesFieldAndBound(t *testing.T) {
	files := TLSConfig{CertFile: "a", KeyFile: "b"}
	for name, c := range map[string]struct {
		change func(*TLSConfig)
		want   string
	}{
		"half":      {func(c *TLSConfig) { c.KeyFile = "" }, "certificate and key are given together"},
		"none":      {func(c *TLSConfig) { c.CertFile, c.KeyFile = "", "" }, "no certificate"},
		"old":       {func(c *TLSConfig) { c.MinVersion = "tls1.0" }, "http.tls.minimumtls tls1.0: refused"},
		"unknown":   {func(c *TLSConfig) { c.MinVersion = "ssl3" }, "expected tls1.2 or tls1.3"},
		"insecure":  {func(c *TLSConfig) { c.CipherSuites = []string{"TLS_RSA_WITH_RC4_128_SHA"} }, "TLS_RSA_WITH_RC4_128_SHA is known to be insecure"},
		"no suite":  {func(c *TLSConfig) { c.CipherSuites = []string{"TLS_FOO"} }, "is no suite"},
		"auth only": {func(c *TLSConfig) { c.ClientAuth = clientIfGiven }, "needs http.tls.clientcas"},
		"bad auth":  {func(c *TLSConfig) { c.ClientAuth = "request-client-cert" }, "expected require-and-verify-client-cert"},
		"interval":  {func(c *TLSConfig) { c.ReloadInterval = time.Millisecond }, "http.tls.reloadinterval: 1ms is not between 1s and 1h0m0s"},
	} {
		conf := files
		c.change(&conf)
		if err := conf.Validate(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	if err := files.Validate(); err != nil {
		t.Error(err)
	}
}

func TestMissingCertificateStopsTheStart(t *testing.T) {
	health, _ := NewHealth(HealthConfig{Node: &node{}})
	s, err := New(Config{Addr: "127.0.0.1:0", DebugAddr: "none", Handler: http.HandlerFunc(ok), Health: health, Metrics: NewMetrics(),
		TLS: &TLSConfig{CertFile: "/nonexistent/tls.crt", KeyFile: "/nonexistent/tls.key"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "/nonexistent/tls.crt") {
		t.Errorf("Run: %v", err)
	}
}
