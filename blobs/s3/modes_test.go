package s3

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pontoon-registry/pontoon/blobs"
	"github.com/pontoon-registry/pontoon/blobs/blobstest"
)

func TestEqualPartsHaveOneSizeAndNoGaps(t *testing.T) {
	s := open(t, against(blobstest.StartS3(t), Config{EqualParts: true}))
	data := blobstest.Bytes(2*equalPart + 1000)
	l := blobstest.NewLedger()
	for _, end := range []int{100, equalPart - 1, 2 * equalPart, len(data)} { // a tail after parts would need a gap
		put(t, s, l, data[l.Progress.Size:end])
	}
	for n, p := range l.Progress.Parts {
		if p.Size != equalPart || p.Number != int32(n)+1 {
			t.Errorf("part %d is number %d and has %d bytes, want %d", n, p.Number, p.Size, equalPart)
		}
	}
	done, err := s.Finish(t.Context(), l.Name(), l.Progress)
	if err != nil {
		t.Fatal(err)
	}
	same(t, s, done.Key, data)

	dead := blobstest.NewLedger()
	put(t, s, dead, data[:equalPart+5])
	if len(dead.Progress.Parts) != 1 {
		t.Fatalf("%d parts, want 1", len(dead.Progress.Parts))
	}
	for _, what := range []string{"a tail", "a dead attempt"} { // their numbers may be in use
		if _, err := s.Writer(t.Context(), dead.Take(s, -1)); !errors.Is(err, blobs.ErrTakeover) {
			t.Errorf("Writer after %s: %v, want ErrTakeover", what, err)
		}
	}
	p := dead.Progress
	p.Next += 32
	if _, err := s.Finish(t.Context(), dead.Name(), p); !errors.Is(err, blobs.ErrTakeover) {
		t.Errorf("Finish with a gap before the tail: %v, want ErrTakeover", err)
	}
}

func TestChecksumsAreSentOnlyIfSupported(t *testing.T) {
	for mode, want := range map[string]bool{"supported": true, "required": false} {
		s, b := openBetween(t, Config{Checksums: mode})
		data := blobstest.Bytes(9 << 20)
		l := blobstest.NewLedger()
		w := begin(t, s, l, -1)
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
		finish(t, s, l, w, data)
		sent := b.count(func(r *http.Request) bool { return r.Header.Get("X-Amz-Checksum-Crc32c") != "" })
		algorithm := b.count(func(r *http.Request) bool {
			return r.Header.Get("X-Amz-Checksum-Algorithm") != "" || r.Header.Get("X-Amz-Trailer") != "" ||
				r.Header.Get("X-Amz-Sdk-Checksum-Algorithm") != ""
		})
		if (sent > 0) != want || (algorithm > 0) != want {
			t.Errorf("checksums %s: %d requests with one, %d that name one", mode, sent, algorithm)
		}
	}
}

// openOn answers a store, and where its server keeps a key.
func openOn(t *testing.T, c Config) (s *Store, path func(key string) string) {
	t.Helper()
	dir := t.TempDir()
	server, err := blobstest.NewS3(t.Context(), dir, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
	return open(t, against(server.S3Server, c)), func(key string) string { return filepath.Join(dir, server.Bucket, key) }
}

func TestDamagedTailIsNoticedWithoutChecksumsOfTheServer(t *testing.T) {
	s, path := openOn(t, Config{Checksums: "required"})
	l := blobstest.NewLedger()
	put(t, s, l, blobstest.Bytes(9 << 20)[:8<<20+1])
	put(t, s, l, blobstest.Bytes(1000))
	if len(l.Progress.Parts) != 1 || len(l.Progress.Pieces) != 1 {
		t.Fatalf("%d parts and %d pieces, want a part and a tail", len(l.Progress.Parts), len(l.Progress.Pieces))
	}
	damage(t, path(l.Progress.Pieces[0].Key))
	if _, err := s.Finish(t.Context(), l.Name(), l.Progress); !errors.Is(err, blobs.ErrCorrupt) {
		t.Errorf("Finish = %v, want ErrCorrupt", err)
	}
	if _, err := s.Writer(t.Context(), l.Take(s, -1)); !errors.Is(err, blobs.ErrCorrupt) {
		t.Errorf("Writer = %v, want ErrCorrupt", err)
	}
}

func TestDamageIsNoticedByTheServersChecksum(t *testing.T) {
	s, path := openOn(t, Config{})
	l := blobstest.NewLedger()
	put(t, s, l, blobstest.Bytes(100_000))
	key := l.Progress.Pieces[0].Key
	damage(t, path(key))
	r, err := s.Open(t.Context(), key, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, r); !errors.Is(err, blobs.ErrCorrupt) {
		t.Errorf("reading a damaged object: %v, want ErrCorrupt", err)
	}
	_ = r.Close() // what was wrong was said
}

func TestPrivateCAIsTrustedAndNoOther(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := certificate(t, dir, "server")
	otherFile, _ := certificate(t, dir, "other")
	server, err := blobstest.NewS3TLS(t.Context(), filepath.Join(dir, "data"), io.Discard, certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
	c := against(server.S3Server, Config{CAFile: certFile})
	s := open(t, c)
	data := blobstest.Bytes(9 << 20)
	l := blobstest.NewLedger()
	w := begin(t, s, l, -1)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	finish(t, s, l, w, data)

	for what, ca := range map[string]string{"no CA file": "", "another CA": otherFile} {
		c.CAFile = ca
		if err := openAndCheck(t, c); err == nil || !strings.Contains(err.Error(), "certificate") {
			t.Errorf("with %s: %v, want a word on the certificate", what, err)
		}
	}
	c.CAFile, c.SkipVerify = "", true
	open(t, c)
}

// certificate makes a CA certificate that is its own server certificate.
func certificate(t *testing.T, dir, name string) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, name+".pem"), filepath.Join(dir, name+".key")
	for file, block := range map[string]*pem.Block{
		certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: private},
	} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile
}

func TestCallsGoThroughTheProxy(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := certificate(t, dir, "server")
	plain := blobstest.StartS3(t)
	secure, err := blobstest.NewS3TLS(t.Context(), filepath.Join(dir, "data"), io.Discard, certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(secure.Stop)
	proxy, through := startProxy(t)
	for _, server := range []blobstest.S3Server{plain, secure.S3Server} {
		before := through.Load()
		s := open(t, against(server, Config{Proxy: proxy, CAFile: certFile}))
		data := blobstest.Bytes(9 << 20)
		l := blobstest.NewLedger()
		w := begin(t, s, l, -1)
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
		finish(t, s, l, w, data)
		if through.Load() == before {
			t.Errorf("%s: nothing went through the proxy", server.Endpoint)
		}
	}
}

// startProxy is an HTTP proxy with CONNECT; it counts what it is asked for.
func startProxy(t *testing.T) (address string, through *atomic.Int64) {
	t.Helper()
	through = new(atomic.Int64)
	transport := &http.Transport{Proxy: nil}
	var tunnels sync.WaitGroup
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		through.Add(1)
		if r.Method != http.MethodConnect {
			r.RequestURI = ""
			resp, err := transport.RoundTrip(r)
			if err != nil {
				w.WriteHeader(http.StatusBadGateway)
				return
			}
			defer func() { _ = resp.Body.Close() }()
			for name, values := range resp.Header {
				w.Header()[name] = values
			}
			w.WriteHeader(resp.StatusCode)
			_, _ = io.Copy(w, resp.Body)
			return
		}
		out, err := new(net.Dialer).DialContext(r.Context(), "tcp", r.Host)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		in, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		_, _ = io.WriteString(in, "HTTP/1.1 200 OK\r\n\r\n")
		tunnels.Go(func() {
			defer func() { _ = out.Close() }()
			_, _ = io.Copy(out, buffered)
		})
		tunnels.Go(func() {
			defer func() { _ = in.Close() }()
			_, _ = io.Copy(in, out)
		})
	}))
	t.Cleanup(func() {
		proxy.CloseClientConnections()
		proxy.Close()
		transport.CloseIdleConnections()
		tunnels.Wait()
	})
	return proxy.URL, through
}

// recorder answers like S3 just enough, and keeps the headers of what creates objects.
func recorder(t *testing.T) (address string, created func() []*http.Request) {
	t.Helper()
	var mu sync.Mutex // guards seen
	var seen []*http.Request
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		mu.Lock()
		defer mu.Unlock()
		switch {
		case r.Method == http.MethodPost && r.URL.Query().Has("uploads"):
			seen = append(seen, r.Clone(t.Context()))
			_, _ = io.WriteString(w, "<InitiateMultipartUploadResult><UploadId>id</UploadId></InitiateMultipartUploadResult>")
		case r.Method == http.MethodPut:
			if !isPart(r) {
				seen = append(seen, r.Clone(t.Context()))
			}
			w.Header().Set("ETag", `"etag"`)
		}
	}))
	t.Cleanup(server.Close)
	return server.URL, func() []*http.Request {
		mu.Lock()
		defer mu.Unlock()
		return seen
	}
}

func TestEncryptionAndStorageClassAreAskedForOnEveryObject(t *testing.T) {
	for _, c := range []struct {
		config     Config
		sse, keyID string
	}{
		{Config{}, "", ""},
		{Config{Encrypt: true}, "AES256", ""},
		{Config{Encrypt: true, KeyID: "key-1", StorageClass: "STANDARD_IA"}, "aws:kms", "key-1"},
	} {
		address, created := recorder(t)
		c.config.RegionEndpoint, c.config.Bucket, c.config.ForcePathStyle = address, "layers", true
		c.config.AccessKey, c.config.SecretKey = "a", "b"
		s := open(t, c.config)
		l := blobstest.NewLedger()
		w := begin(t, s, l, -1)
		if _, err := w.Write(blobstest.Bytes(9 << 20)); err != nil { // a part and a tail
			t.Fatal(err)
		}
		if _, err := w.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := s.PutIfAbsent(t.Context(), "owner", []byte("x")); err != nil {
			t.Fatal(err)
		}
		requests := created()
		if len(requests) != 3 {
			t.Fatalf("%d requests create objects, want 3", len(requests))
		}
		for n, r := range requests {
			if got := r.Header.Get("X-Amz-Server-Side-Encryption"); got != c.sse {
				t.Errorf("%s %s: encryption %q, want %q", r.Method, r.URL, got, c.sse)
			}
			if got := r.Header.Get("X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id"); got != c.keyID {
				t.Errorf("%s %s: key %q, want %q", r.Method, r.URL, got, c.keyID)
			}
			if got := r.Header.Get("X-Amz-Storage-Class"); n < 2 && got != c.config.StorageClass {
				t.Errorf("%s %s: storage class %q, want %q", r.Method, r.URL, got, c.config.StorageClass)
			}
			if !strings.Contains(r.UserAgent(), "pontoon") {
				t.Errorf("user agent %q", r.UserAgent())
			}
		}
	}
}

func TestPathStyleDecidesWhereTheBucketStands(t *testing.T) {
	for _, pathStyle := range []bool{true, false} {
		address, created := recorder(t)
		c := Config{RegionEndpoint: strings.Replace(address, "127.0.0.1", "localhost", 1), Bucket: "layers", ForcePathStyle: pathStyle,
			AccessKey: "a", SecretKey: "b", RootDirectory: "root", Proxy: address} // the proxy spares us a name server
		s := open(t, c)
		if _, err := s.PutIfAbsent(t.Context(), "owner", bytes.Repeat([]byte("x"), 10)); err != nil {
			t.Fatal(err)
		}
		r := created()[0]
		wantPath, wantHost := "/root/_objects/owner", "layers.localhost"
		if pathStyle {
			wantPath, wantHost = "/layers"+wantPath, "localhost"
		}
		if r.URL.Path != wantPath || !strings.HasPrefix(r.Host, wantHost+":") {
			t.Errorf("path style %v: %s %s, want %s %s", pathStyle, r.Host, r.URL.Path, wantHost, wantPath)
		}
	}
}
