package chaos

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// operatorsCA is an operator's own authority between nodes, as files.
type operatorsCA struct {
	t    testing.TB
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newOperatorsCA(t testing.TB) *operatorsCA {
	t.Helper()
	ca := &operatorsCA{t: t, dir: t.TempDir()}
	ca.cert, ca.key = ca.sign("ca", &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "operator"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign,
	})
	return ca
}

// issue makes NAME.crt and NAME.key of a node.
func (ca *operatorsCA) issue(serial int64, name, dns string) {
	ca.t.Helper()
	ca.sign(name, &x509.Certificate{
		SerialNumber: big.NewInt(serial), DNSNames: []string{dns}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
}

func (ca *operatorsCA) sign(name string, template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	ca.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		ca.t.Fatal(err)
	}
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	parent, signer := ca.cert, ca.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		ca.t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		ca.t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{
		name + ".crt": {Type: "CERTIFICATE", Bytes: der}, name + ".key": {Type: "PRIVATE KEY", Bytes: private},
	} {
		if err := os.WriteFile(filepath.Join(ca.dir, file), pem.EncodeToMemory(block), 0o600); err != nil {
			ca.t.Fatal(err)
		}
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		ca.t.Fatal(err)
	}
	return cert, key
}

// TestNodesTrustEachOtherByAnOperatorsOwnAuthority configured as the runbook says, from the first start on.
func TestNodesTrustEachOtherByAnOperatorsOwnAuthority(t *testing.T) {
	ca := newOperatorsCA(t)
	for i := range 3 {
		ca.issue(int64(i+2), fmt.Sprintf("node%d", i+1), fmt.Sprintf("node%d.pontoon.test", i+1))
	}
	in := func(file string) string { return filepath.Join(ca.dir, file) }
	d := newDeployment(t, newDirectory(t), options{drain: "0s", cluster: []string{
		"tls: {certificate: " + in("NODE.crt") + ", key: " + in("NODE.key") + ", ca: " + in("ca.crt") + ", names: ['*.pontoon.test']}"}})
	if err := pushSmall(t.Context(), at(d.url()), "chaos/operator", "v1"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, pontoon(t), "cluster", "trust", "--config", d.nodes[0].config).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, want := range []string{"node1.pontoon.test", "node2.pontoon.test", "node3.pontoon.test", "next for cluster.tls: nothing is under way"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("trust lacks %q:\n%s", want, out)
		}
	}
	if err := d.nodes[2].proc.terminate(time.Minute); err != nil {
		t.Error(err)
	}
	d.nodes[2].start()
	d.nodes[2].waitReady()
	if _, err := at(d.nodes[2].url()).image(t.Context(), "chaos/operator", "v1"); err != nil {
		t.Error(err)
	}
	d.agree()
}
