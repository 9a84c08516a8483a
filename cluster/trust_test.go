package cluster

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pontoon-registry/pontoon/cluster/transport"
)

const (
	secretA = "the first secret, for tests only, of enough characters"
	secretB = "the second secret, for tests only, of enough characters"
)

func mustTrust(t *testing.T, nodeID string, secrets ...string) *Trust {
	t.Helper()
	tr, err := NewTrust(secrets, nodeID, nil)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// shake makes a TLS handshake and gives what each side says of it.
func shake(t *testing.T, client, server *tls.Config) (cs, ss tls.ConnectionState, clientErr, serverErr error) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	done := make(chan error, 1)
	go func() {
		raw, err := ln.Accept()
		if err != nil {
			done <- err
			return
		}
		defer raw.Close()
		_ = raw.SetDeadline(time.Now().Add(time.Minute))
		conn := tls.Server(raw, server)
		err = conn.Handshake()
		if err == nil {
			_, err = conn.Write([]byte("x"))
		}
		ss = conn.ConnectionState()
		done <- err
	}()
	raw, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_ = raw.SetDeadline(time.Now().Add(time.Minute))
	conn := tls.Client(raw, client)
	clientErr = conn.Handshake()
	if clientErr == nil {
		// In TLS 1.3 the server judges after the client is done.
		_, clientErr = conn.Read(make([]byte, 1))
	}
	cs = conn.ConnectionState()
	raw.Close()
	serverErr = <-done
	return cs, ss, clientErr, serverErr
}

func TestNodesOfOneSecretTrustAndKnowEachOther(t *testing.T) {
	a, b := mustTrust(t, "node-a", secretA), mustTrust(t, "node-b", secretA)
	for _, dialled := range []string{"node-b", ""} {
		cs, ss, cerr, serr := shake(t, a.ClientTLS(dialled), b.ServerTLS())
		if cerr != nil || serr != nil {
			t.Fatalf("dialling %q: client %v, server %v", dialled, cerr, serr)
		}
		if j, err := a.Judge(cs, transport.End{Dialled: dialled}); j.NodeID != "node-b" || err != nil {
			t.Errorf("the client sees %+v, %v", j, err)
		}
		if j, err := b.Judge(ss, transport.End{Accepted: true}); j.NodeID != "node-a" || err != nil {
			t.Errorf("the server sees %+v, %v", j, err)
		}
		if cs.Version != tls.VersionTLS13 {
			t.Errorf("version is %x", cs.Version)
		}
	}
}

func TestAnotherNodeBehindTheAddressIsRefusedByName(t *testing.T) {
	a, b := mustTrust(t, "node-a", secretA), mustTrust(t, "node-b", secretA)
	_, _, cerr, _ := shake(t, a.ClientTLS("node-c"), b.ServerTLS())
	if cerr == nil || !strings.Contains(cerr.Error(), "node node-c was dialled, node node-b answers") {
		t.Fatalf("got %v", cerr)
	}
}

func TestAnotherSecretIsRefusedWithAClearMessage(t *testing.T) {
	a, b := mustTrust(t, "node-a", secretA), mustTrust(t, "node-b", secretB)
	_, _, cerr, serr := shake(t, a.ClientTLS("node-b"), b.ServerTLS())
	if cerr == nil || !strings.Contains(cerr.Error(), "does not hold this cluster's secret") {
		t.Errorf("client: %v", cerr)
	}
	if serr == nil {
		t.Error("the server accepted")
	}
	// A client that does not care is refused by the server.
	careless := a.ClientTLS("node-b")
	careless.VerifyConnection = nil
	_, _, cerr, serr = shake(t, careless, b.ServerTLS())
	if cerr == nil || serr == nil || !strings.Contains(serr.Error(), "does not hold this cluster's secret") {
		t.Errorf("client %v, server %v", cerr, serr)
	}
	careless.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &tls.Certificate{}, nil }
	if _, _, cerr, serr = shake(t, careless, b.ServerTLS()); cerr == nil || serr == nil {
		t.Errorf("without a certificate: client %v, server %v", cerr, serr)
	}
}

func TestOlderTLSIsRefused(t *testing.T) {
	a, b := mustTrust(t, "node-a", secretA), mustTrust(t, "node-b", secretA)
	old := a.ClientTLS("node-b")
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	if _, _, cerr, serr := shake(t, old, b.ServerTLS()); cerr == nil || serr == nil {
		t.Fatalf("client %v, server %v", cerr, serr)
	}
}

func TestCertificatesOfThePublicListenerAreNoNodeCertificates(t *testing.T) {
	a, b := mustTrust(t, "node-a", secretA), mustTrust(t, "node-b", secretA)
	leaf, err := a.PublicCertificate([]string{"node-a" + nodeSuffix})
	if err != nil {
		t.Fatal(err)
	}
	client := a.ClientTLS("node-b")
	client.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return leaf, nil }
	if _, _, cerr, serr := shake(t, client, b.ServerTLS()); cerr == nil || serr == nil {
		t.Fatalf("client %v, server %v", cerr, serr)
	}
}

func TestEverythingDerivedIsTheSameOnEveryNodeAndDifferentPerSecret(t *testing.T) {
	a, b, other := mustTrust(t, "node-a", secretA), mustTrust(t, "node-b", secretA), mustTrust(t, "node-a", secretB)
	for _, c := range []struct {
		what string
		of   func(*Trust) []byte
	}{
		{"cluster CA", (*Trust).CA},
		{"public CA", (*Trust).PublicCA},
		{"gossip key", func(t *Trust) []byte { return t.GossipKeys()[0] }},
		{"sealing key", func(t *Trust) []byte { return t.SealingKeys()[0].Key }},
		{"sealing key id", func(t *Trust) []byte { return []byte(t.SealingKeys()[0].ID) }},
	} {
		if !bytes.Equal(c.of(a), c.of(b)) {
			t.Errorf("%s differs between nodes", c.what)
		}
		if bytes.Equal(c.of(a), c.of(other)) {
			t.Errorf("%s is the same for two secrets", c.what)
		}
	}
	if bytes.Equal(a.GossipKeys()[0], a.SealingKeys()[0].Key) {
		t.Error("two purposes share a key")
	}
	if n := len(a.GossipKeys()[0]); n != 32 {
		t.Errorf("gossip key has %d bytes", n)
	}
}

// TestDerivationNeverChanges pins version 1 of all labels: a release that
// derives otherwise could not talk to its older neighbours, nor read what they
// sealed.
func TestDerivationNeverChanges(t *testing.T) {
	a := mustTrust(t, "node-a", secretA)
	golden := filepath.Join("testdata", "trust-v1.pem")
	got := append(append([]byte("sealing key id "+a.SealingKeys()[0].ID+"\n"), a.CA()...), a.PublicCA()...)
	want, err := os.ReadFile(golden)
	if errors.Is(err, os.ErrNotExist) && os.Getenv("UPDATE") != "" {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestSecretsAreChangedWithoutLosingAnyone(t *testing.T) {
	a, b := mustTrust(t, "node-a", secretA), mustTrust(t, "node-b", secretA)
	server, client := b.ServerTLS(), a.ClientTLS("node-b") // made before, valid after
	step := func(tr *Trust, secrets ...string) {
		t.Helper()
		if err := tr.Reload(secrets); err != nil {
			t.Fatal(err)
		}
		if _, _, cerr, serr := shake(t, client, server); cerr != nil || serr != nil {
			t.Fatalf("client %v, server %v", cerr, serr)
		}
	}
	step(a, secretA, secretB)
	step(b, secretA, secretB)
	step(a, secretB, secretA)
	step(b, secretB, secretA)
	step(a, secretB)
	step(b, secretB)
	if err := a.Reload([]string{"short"}); err == nil {
		t.Fatal("a short secret was accepted")
	}
	step(b, secretB)
	stale := mustTrust(t, "node-c", secretA)
	if _, _, cerr, _ := shake(t, stale.ClientTLS("node-b"), server); cerr == nil {
		t.Fatal("the old secret is still trusted")
	}
}

func TestTheLeafIsRenewedAtTwoThirdsOfItsLife(t *testing.T) {
	a, b := mustTrust(t, "node-a", secretA), mustTrust(t, "node-b", secretA)
	now := time.Now()
	for _, tr := range []*Trust{a, b} {
		tr.now = func() time.Time { return now }
		tr.state.Load().leaf.now = tr.now
	}
	server, client := b.ServerTLS(), a.ClientTLS("node-b")
	first, err := a.Expires()
	if err != nil {
		t.Fatal(err)
	}
	if life := first.Sub(now).Round(time.Hour); life != 30*24*time.Hour {
		t.Errorf("life is %s", life)
	}
	now = now.Add(19 * 24 * time.Hour)
	if again, _ := a.Expires(); !again.Equal(first) {
		t.Error("renewed too early")
	}
	now = now.Add(2 * 24 * time.Hour)
	if again, _ := a.Expires(); !again.After(first) {
		t.Error("not renewed")
	}
	now = now.Add(300 * 24 * time.Hour) // both were idle for long
	if _, _, cerr, serr := shake(t, client, server); cerr != nil || serr != nil {
		t.Fatalf("client %v, server %v", cerr, serr)
	}
	now = now.Add(-200 * 24 * time.Hour) // the clock was wrong
	if _, _, cerr, serr := shake(t, client, server); cerr != nil || serr != nil {
		t.Fatalf("after a clock set back: client %v, server %v", cerr, serr)
	}
}

func TestClocksMayDifferByDays(t *testing.T) {
	a, b := mustTrust(t, "node-a", secretA), mustTrust(t, "node-b", secretA)
	for _, skew := range []time.Duration{-6 * 24 * time.Hour, 6 * 24 * time.Hour} {
		b.now = func() time.Time { return time.Now().Add(skew) }
		b.state.Load().leaf.now, b.state.Load().leaf.cert = b.now, nil
		if _, _, cerr, serr := shake(t, a.ClientTLS("node-b"), b.ServerTLS()); cerr != nil || serr != nil {
			t.Errorf("skew %s: client %v, server %v", skew, cerr, serr)
		}
	}
}

func TestPublicCertificatesAreAcceptedByClientsOfThePublicCA(t *testing.T) {
	a, b := mustTrust(t, "node-a", secretA), mustTrust(t, "node-b", secretA)
	get, err := a.RenewedPublicCertificate([]string{"registry.example", "127.0.0.1", "::1"})
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(b.PublicCA()) { // any node's copy will do
		t.Fatal("no PEM")
	}
	for _, name := range []string{"registry.example", "127.0.0.1", "::1"} {
		client := &tls.Config{RootCAs: roots, ServerName: name}
		if _, _, cerr, serr := shake(t, client, &tls.Config{GetCertificate: get}); cerr != nil || serr != nil {
			t.Errorf("%s: client %v, server %v", name, cerr, serr)
		}
	}
	client := &tls.Config{RootCAs: roots, ServerName: "other.example"}
	if _, _, cerr, _ := shake(t, client, &tls.Config{GetCertificate: get}); cerr == nil {
		t.Error("another name was accepted")
	}
	one, _ := get(nil)
	if two, _ := get(nil); one != two {
		t.Error("issued anew for each connection")
	}
	if err := a.Reload([]string{secretB}); err != nil {
		t.Fatal(err)
	}
	if two, _ := get(nil); one == two {
		t.Error("not issued anew after a reload")
	}
	if _, err := a.PublicCertificate(nil); err == nil {
		t.Error("a certificate for nobody was issued")
	}
}

func TestSecretFilesAreReadOrRefusedByName(t *testing.T) {
	write := func(text string, mode os.FileMode) string {
		path := filepath.Join(t.TempDir(), "secret")
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	generated := GenerateSecret()
	for _, c := range []struct {
		name, text string
		mode       os.FileMode
		n          int    // secrets
		warning    string // part of it
		err        string // part of it
	}{
		{"generated", generated + "\n", 0o600, 1, "", ""},
		{"two lines, windows", "\r\n" + secretA + "\r\n\r\n  " + secretB + "  ", 0o640, 2, "", ""},
		{"readable by all", secretA, 0o644, 1, "mode 0644", ""},
		{"weak", "sixteen chars ok", 0o600, 1, "only 16 characters", ""},
		{"too short", "fifteen chars !", 0o600, 0, "", "secret 1 has 15 characters, must be 16 to 1024"},
		{"second too short", secretA + "\nx", 0o600, 0, "", "secret 2 has 1 characters"},
		{"empty", " \n\n", 0o600, 0, "", "0 secrets, must be 1 to 8 lines"},
		{"too many", strings.Repeat(secretA+"\n", 9), 0o600, 0, "", "9 secrets, must be 1 to 8 lines"},
		{"too large", strings.Repeat("x", 1<<20), 0o600, 0, "", "more than 16384 bytes"},
	} {
		got, warning, err := ReadSecretFile(write(c.text, c.mode))
		if len(got) != c.n || (c.err == "") != (err == nil) || (err != nil && !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%s: %d secrets, error %v", c.name, len(got), err)
		}
		if (c.warning == "") != (warning == "") || !strings.Contains(warning, c.warning) {
			t.Errorf("%s: warning %q", c.name, warning)
		}
		if err != nil && strings.Contains(err.Error(), "fifteen") {
			t.Errorf("%s: the error tells the secret", c.name)
		}
	}
	if got, _, _ := ReadSecretFile(write(generated, 0o600)); len(got) != 1 || got[0] != generated {
		t.Errorf("got %q", got)
	}
	if _, _, err := ReadSecretFile(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestNodeIDsThatAreNoDNSLabelAreRefused(t *testing.T) {
	for _, id := range []string{"", "A", "a.b", "-a", "a-", "a_b", strings.Repeat("a", 64), "ü"} {
		if _, err := NewTrust([]string{secretA}, id, nil); err == nil {
			t.Errorf("%q was accepted", id)
		}
	}
}
