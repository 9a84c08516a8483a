package cluster

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pontoon-registry/pontoon/cluster/transport"
	clusterv1 "github.com/pontoon-registry/pontoon/proto/pontoon/cluster/v1"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// testCA is an operator's authority, made for a test.
type testCA struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	// parent is nil for a root.
	parent *testCA
}

func newTestCA(t *testing.T, name string, parent *testCA) *testCA {
	t.Helper()
	ca := &testCA{t: t, parent: parent}
	ca.key = ca.newKey()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-365 * days), NotAfter: time.Now().Add(3650 * days),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	ca.cert = ca.sign(template, ca.key)
	return ca
}

func (ca *testCA) newKey() *ecdsa.PrivateKey {
	ca.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		ca.t.Fatal(err)
	}
	return key
}

// sign signs by itself while it has no certificate and no parent.
func (ca *testCA) sign(template *x509.Certificate, key *ecdsa.PrivateKey) *x509.Certificate {
	ca.t.Helper()
	by, signer := ca.cert, ca.key
	switch {
	case by == nil && ca.parent != nil:
		by, signer = ca.parent.cert, ca.parent.key
	case by == nil:
		by = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by, key.Public(), signer)
	if err != nil {
		ca.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		ca.t.Fatal(err)
	}
	return cert
}

func writePEM(t *testing.T, path, kind string, parts ...[]byte) {
	t.Helper()
	var text []byte
	for _, p := range parts {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: p})...)
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// issue writes certificate and key of a node into dir, for the files of operatorFiles.
func (ca *testCA) issue(dir, name string, change ...func(*x509.Certificate)) {
	ca.t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), DNSNames: []string{name},
		NotBefore: time.Now().Add(-days), NotAfter: time.Now().Add(90 * days), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, c := range change {
		c(template)
	}
	key := ca.newKey()
	chain := [][]byte{ca.sign(template, key).Raw}
	if ca.parent != nil {
		chain = append(chain, ca.cert.Raw)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		ca.t.Fatal(err)
	}
	writePEM(ca.t, filepath.Join(dir, "tls.crt"), "CERTIFICATE", chain...)
	writePEM(ca.t, filepath.Join(dir, "tls.key"), "PRIVATE KEY", der)
}

func (ca *testCA) trust(dir string, others ...*testCA) {
	parts := [][]byte{ca.cert.Raw}
	for _, o := range others {
		parts = append(parts, o.cert.Raw)
	}
	writePEM(ca.t, filepath.Join(dir, "ca.crt"), "CERTIFICATE", parts...)
}

func operatorFiles(dir string) *OperatorCA {
	return &OperatorCA{
		Certificate: filepath.Join(dir, "tls.crt"), Key: filepath.Join(dir, "tls.key"), CA: filepath.Join(dir, "ca.crt"),
		Names: []string{"pontoon-*.example.com"},
	}
}

// operatedTrust is a node's trust with a certificate of the CA for the name.
func operatedTrust(ca *testCA, nodeID, name string) (*Trust, error) {
	dir := ca.t.TempDir()
	ca.issue(dir, name)
	ca.trust(dir)
	tr := mustTrust(ca.t, nodeID, secretA)
	return tr, tr.LoadOperatorCA(*operatorFiles(dir))
}

// formOperated forms three nodes with certificates pontoon-0 to pontoon-2 of a CA below a root.
func formOperated(t *testing.T) (nodes []*running, root, ca *testCA, dirs []string) {
	t.Helper()
	root = newTestCA(t, "root", nil)
	ca = newTestCA(t, "between", root)
	nodes, _ = formWith(t, 3, &testMark{}, func(i int, c *Config) {
		dirs = append(dirs, t.TempDir())
		ca.issue(dirs[i], fmt.Sprintf("pontoon-%d.example.com", i))
		root.trust(dirs[i])
		c.OperatorCA = operatorFiles(dirs[i])
	}, func(*Node) {})
	return nodes, root, ca, dirs
}

// showsNext waits until every connection that a node has made shows a certificate of the authority.
func showsNext(t *testing.T, nodes []*running, n *running, authority string) {
	t.Helper()
	eventually(t, "node "+n.id+" shows its new certificate", func() error {
		for _, peer := range nodes {
			for _, s := range peer.host.Standing() {
				if s.Accepted && s.Peer == n.id && s.By != authority {
					return fmt.Errorf("one with %s stands by %s", peer.id, s.By)
				}
			}
		}
		return nil
	})
}

func TestAClusterFormsWithTheOperatorsCertificates(t *testing.T) {
	t.Parallel()
	nodes, root, ca, dirs := formOperated(t)
	eventually(t, "the address book has the pairs", func() error {
		names := map[string]string{}
		for _, m := range nodes[1].nodes() {
			names[m.GetId()] = m.GetCertificateName()
		}
		for i, n := range nodes {
			if want := fmt.Sprintf("pontoon-%d.example.com", i); names[n.id] != want {
				return fmt.Errorf("node %s: %q", n.id, names[n.id])
			}
		}
		return nil
	})
	standBy(t, nodes[0], authorityID(root.cert), 3)

	// A new root, as the secret rotates: trusted by all, then used, then the old one removed; under load.
	stop := load(t, nodes)
	next := newTestCA(t, "next root", nil)
	for step, change := range []func(i int){
		func(i int) { root.trust(dirs[i], next) },
		func(i int) { next.issue(dirs[i], fmt.Sprintf("pontoon-%d.example.com", i)) },
		func(i int) { next.trust(dirs[i]) },
	} {
		for i, n := range nodes {
			change(i)
			if err := n.ReloadOperatorCA(); err != nil {
				t.Fatalf("step %d: %v", step, err)
			}
			if step == 1 { // one node after the other, as operators do: it connects anew to peers that show their old certificate
				showsNext(t, nodes, n, authorityID(next.cert))
			}
		}
		if step > 0 {
			standBy(t, nodes[0], authorityID(next.cert), 3)
		}
	}
	stop()

	// What the cluster will not take from its own node.
	ca.issue(dirs[1], "pontoon-1.example.com")
	if err := nodes[1].ReloadOperatorCA(); err == nil || !strings.Contains(err.Error(), "not signed by an authority in cluster.tls.ca") {
		t.Errorf("a certificate of the removed authority: %v", err)
	}
	next.issue(dirs[1], "pontoon-0.example.com")
	if err := nodes[1].ReloadOperatorCA(); err == nil || !strings.Contains(err.Error(), nodes[0].id) || !strings.Contains(err.Error(), nodes[1].id) {
		t.Errorf("the certificate of another node: %v", err)
	}
	if at, err := nodes[1].trust.Expires(); err != nil || time.Until(at) < 80*days {
		t.Errorf("after refused reloads: %v, %v", at, err)
	}

	// A fourth node joins; one with a certificate of another authority does not.
	join := func(by *testCA, name string) (*running, error) {
		dir := t.TempDir()
		by.issue(dir, name)
		by.trust(dir)
		cfg := testConfig(t, nil)
		_, gossip := nodes[0].Addresses()
		cfg.Join, cfg.OperatorCA = []string{gossip}, operatorFiles(dir)
		return tryStart(t, cfg)
	}
	fourth, err := join(next, "pontoon-3.example.com")
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the fourth is ready", func() error { return fourth.Ready(t.Context()) })
	stranger, err := join(root, "pontoon-4.example.com")
	if err != nil {
		t.Fatal(err)
	}
	err = describeAs(t, stranger.trust, "other", nodes[0].advertise)
	if err == nil || !strings.Contains(err.Error(), "not signed by an authority") {
		t.Errorf("a node of another authority asks: %v", err)
	}
	if stranger.ClusterID() != "" {
		t.Error("a node of another authority joined")
	}
}

// testBook is an address book.
type testBook []*metav1.Node

func (b testBook) nodes() []*metav1.Node { return b }

func (b testBook) node(id string) (*metav1.Node, error) {
	for _, n := range b {
		if n.GetId() == id {
			return n, nil
		}
	}
	return nil, nil
}

func TestAnEndOfAConnectionMustBeWhoItJoinedAs(t *testing.T) {
	ca := newTestCA(t, "root", nil)
	a, err := operatedTrust(ca, "node-a", "pontoon-a.example.com")
	if err != nil {
		t.Fatal(err)
	}
	b, err := operatedTrust(ca, "node-b", "pontoon-b.example.com")
	if err != nil {
		t.Fatal(err)
	}
	cs, ss, cerr, serr := shake(t, a.ClientTLS("node-b"), b.ServerTLS())
	if cerr != nil || serr != nil {
		t.Fatalf("client %v, server %v", cerr, serr)
	}
	recorded := []*metav1.Node{
		{Id: "node-a", CertificateName: "pontoon-a.example.com"},
		{Id: "node-b", CertificateName: "pontoon-b.example.com"},
		{Id: "node-d", CertificateName: "node-d"}, // joined by the derived CA
	}
	for _, c := range []struct {
		name          string
		book          []*metav1.Node
		dialled, says string
		refusal       []string // parts; empty: accepted
	}{
		{"nobody has joined yet", nil, "node-b", "node-b", nil},
		{"as recorded", recorded, "node-b", "node-b", nil},
		{"dialled by address", recorded, "", "node-b", nil},
		{"a new node", recorded, "", "node-c", nil},
		{"another node answers", recorded, "node-a", "node-b", []string{"node node-a was dialled, node node-b answers"}},
		{"swapped", recorded, "node-a", "node-a",
			[]string{"node node-a", `"pontoon-a.example.com"`, `"pontoon-b.example.com"`, "recorded for node node-b", "swapped"}},
		{"the derived CA's node", recorded, "", "node-d", []string{`node node-d joined with the certificate name "node-d"`}},
		{"says no id", recorded, "", "", []string{`node "", which is no node id`}},
		{"says rubbish", recorded, "", "A\x00b", []string{"no node id"}},
	} {
		a.setBook(testBook(c.book))
		j, err := a.Judge(cs, transport.End{Dialled: c.dialled, Claimed: c.says})
		if len(c.refusal) == 0 && (err != nil || j.NodeID != c.says || j.Name != "pontoon-b.example.com" || j.By != authorityID(ca.cert)) {
			t.Errorf("%s: %+v, %v", c.name, j, err)
		}
		for _, part := range c.refusal {
			if err == nil || !strings.Contains(err.Error(), part) {
				t.Errorf("%s: %v lacks %q", c.name, err, part)
			}
		}
	}
	if _, err := b.Judge(ss, transport.End{Accepted: true, Claimed: "node-a"}); err != nil {
		t.Errorf("the server: %v", err)
	}
}

// TestSwappedCertificatesAreRefused where two nodes come back with each other's files: by the node itself, and, were it
// to lie, by the others, which tell an operator both.
func TestSwappedCertificatesAreRefused(t *testing.T) {
	t.Parallel()
	nodes, root, ca, dirs := formOperated(t)
	eventually(t, "the address book has the pairs", func() error {
		for _, n := range nodes {
			for _, m := range n.nodes() {
				if m.GetCertificateName() == "" {
					return errors.New("not yet")
				}
			}
			if len(n.nodes()) != 3 {
				return errors.New("not yet")
			}
		}
		return nil
	})
	victim := nodes[2]
	cfg := victim.cfg
	victim.halt(t)
	ca.issue(dirs[2], "pontoon-1.example.com")
	_, err := Open(t.Context(), cfg)
	for _, part := range []string{victim.id, nodes[1].id, "pontoon-2.example.com", "pontoon-1.example.com", "swapped"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Fatalf("%v lacks %q", err, part)
		}
	}
	root.trust(dirs[2])
	for name, accepted := range map[string]bool{"pontoon-1.example.com": false, "pontoon-2.example.com": true} {
		liar := mustTrust(t, victim.id, secretA)
		ca.issue(dirs[2], name)
		if err := liar.LoadOperatorCA(*operatorFiles(dirs[2])); err != nil {
			t.Fatal(err)
		}
		if err := describeAs(t, liar, victim.id, nodes[0].advertise); (err == nil) != accepted {
			t.Errorf("as node %s with the certificate for %s: %v", victim.id, name, err)
		}
	}
}

// describeAs asks the node at an address who it is, with whatever credentials; again where a busy machine is too slow to answer.
func describeAs(t *testing.T, creds *Trust, nodeID, addr string) error {
	t.Helper()
	h := hostOf(t, creds, nodeID)
	conn, err := h.Dial(addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	eventually(t, "an answer", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if _, err = clusterv1.NewNodeServiceClient(conn).Describe(ctx, &clusterv1.DescribeRequest{}); status.Code(err) == codes.DeadlineExceeded {
			return err
		}
		return nil
	})
	return err
}

func TestOperatorsFilesAreReadOrRefusedByName(t *testing.T) {
	ca, other := newTestCA(t, "root", nil), newTestCA(t, "other", nil)
	for _, c := range []struct {
		name   string
		spoil  func(dir string, o *OperatorCA)
		expect string
	}{
		{"no certificate", func(dir string, o *OperatorCA) { o.Certificate = filepath.Join(dir, "none") }, "no such file"},
		{"key of another", func(dir string, _ *OperatorCA) {
			spare := t.TempDir()
			ca.issue(spare, "pontoon-a.example.com")
			if err := os.Rename(filepath.Join(spare, "tls.key"), filepath.Join(dir, "tls.key")); err != nil {
				t.Fatal(err)
			}
		}, "private key does not match"},
		{"another authority", func(dir string, _ *OperatorCA) { other.trust(dir) }, "not signed by an authority in cluster.tls.ca"},
		{"no authority", func(_ string, o *OperatorCA) { o.CA = o.Certificate }, "is not a certificate authority"},
		{"no PEM", func(dir string, o *OperatorCA) { writePEM(t, o.CA, "RUBBISH") }, "holds no certificate in PEM"},
		{"another name", func(dir string, _ *OperatorCA) { ca.issue(dir, "db-1.example.com") }, "none of which is in cluster.tls.names (pontoon-*.example.com)"},
		{"a deeper name", func(dir string, _ *OperatorCA) { ca.issue(dir, "pontoon-a.b.example.com") }, "none of which is in"},
		{"a wildcard", func(dir string, _ *OperatorCA) { ca.issue(dir, "*.example.com") }, "none of which is in"},
		{"expired", func(dir string, _ *OperatorCA) {
			ca.issue(dir, "pontoon-a.example.com", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Hour) })
		}, "expired"},
		{"for servers only", func(dir string, _ *OperatorCA) {
			ca.issue(dir, "pontoon-a.example.com", func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[:1] })
		}, "for both serverAuth and clientAuth"},
		{"no names", func(_ string, o *OperatorCA) { o.Names = nil }, "0 Names, must be 1 to 64"},
		{"any name", func(_ string, o *OperatorCA) { o.Names = []string{"*.*"} }, `name "*.*"`},
		{"strange name", func(_ string, o *OperatorCA) { o.Names = []string{"[a-z].example.com"} }, `name "[a-z].example.com"`},
	} {
		dir := t.TempDir()
		ca.issue(dir, "pontoon-a.example.com")
		ca.trust(dir)
		files := operatorFiles(dir)
		tr := mustTrust(t, "node-a", secretA)
		if err := tr.LoadOperatorCA(*files); err != nil {
			t.Fatalf("%s: before: %v", c.name, err)
		}
		shown := tr.Shown()
		c.spoil(dir, files)
		if err := tr.LoadOperatorCA(*files); err == nil || !strings.Contains(err.Error(), c.expect) {
			t.Errorf("%s: %v", c.name, err)
		}
		if tr.Shown() != shown {
			t.Errorf("%s: what was refused is shown", c.name)
		}
	}
}

// TestANewIntermediateIsShownAnew: the others have to see who signs for it now.
func TestANewIntermediateIsShownAnew(t *testing.T) {
	root, next := newTestCA(t, "root", nil), newTestCA(t, "next root", nil)
	between := newTestCA(t, "between", root)
	dir := t.TempDir()
	between.issue(dir, "pontoon-a.example.com")
	root.trust(dir, next)
	tr := mustTrust(t, "node-a", secretA)
	if err := tr.LoadOperatorCA(*operatorFiles(dir)); err != nil {
		t.Fatal(err)
	}
	leaf, shown := tr.operator.Load().leaf.Leaf, tr.Shown()
	between.parent = next
	between.cert = next.sign(&x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: between.cert.Subject, NotBefore: between.cert.NotBefore, NotAfter: between.cert.NotAfter,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, between.key)
	writePEM(t, filepath.Join(dir, "tls.crt"), "CERTIFICATE", leaf.Raw, between.cert.Raw)
	if err := tr.LoadOperatorCA(*operatorFiles(dir)); err != nil {
		t.Fatal(err)
	}
	if o := tr.operator.Load(); o.by != authorityID(next.cert) {
		t.Fatalf("%s signs, want the next root", o.by)
	}
	if tr.Shown() == shown {
		t.Error("the other nodes would go on by the old intermediate")
	}
}

// TestAnAuthorityIsCountedOnce though the file has two certificates of it.
func TestAnAuthorityIsCountedOnce(t *testing.T) {
	root := newTestCA(t, "root", nil)
	dir := t.TempDir()
	root.issue(dir, "pontoon-a.example.com")
	root.trust(dir, root)
	tr := mustTrust(t, "node-a", secretA)
	if err := tr.LoadOperatorCA(*operatorFiles(dir)); err != nil {
		t.Fatal(err)
	}
	if ids := tr.operator.Load().ids; len(ids) != 1 {
		t.Errorf("%v are trusted", ids)
	}
}

func TestAnOperatorIsWarnedBeforeHisCertificateExpires(t *testing.T) {
	ca := newTestCA(t, "root", nil)
	tr, err := operatedTrust(ca, "node-a", "pontoon-a.example.com") // 91 days of life
	if err != nil {
		t.Fatal(err)
	}
	o := tr.operator.Load()
	for _, c := range []struct {
		left  time.Duration
		level slog.Level
		text  string
	}{{89 * days, 0, ""}, {31 * days, 0, ""}, {29 * days, slog.LevelWarn, "expires in 696h"}, {-time.Hour, slog.LevelError, "expired at"}} {
		level, text := expiryWarning(o, o.leaf.Leaf.NotAfter.Add(-c.left))
		if level != c.level || (c.text == "") != (text == "") || !strings.Contains(text, c.text) {
			t.Errorf("%v before: %v %q", c.left, level, text)
		}
	}

	// An authority above the certificate ends before it.
	root := newTestCA(t, "root", nil)
	root.cert.NotAfter = time.Now().Add(40 * days)
	short := root.sign(root.cert, root.key)
	dir := t.TempDir()
	root.cert = short
	root.issue(dir, "pontoon-a.example.com")
	root.trust(dir)
	if err := tr.LoadOperatorCA(*operatorFiles(dir)); err != nil {
		t.Fatal(err)
	}
	if at, err := tr.Expires(); err != nil || !at.Equal(short.NotAfter) {
		t.Errorf("accepted until %v, %v; its root ends at %v", at, err, short.NotAfter)
	}
	o = tr.operator.Load()
	for left, want := range map[time.Duration]string{31 * days: "", 29 * days: "an authority above", -time.Hour: "replace that file"} {
		if _, text := expiryWarning(o, short.NotAfter.Add(-left)); (want == "") != (text == "") || !strings.Contains(text, want) {
			t.Errorf("%v before the root's end: %q", left, text)
		}
	}
}
