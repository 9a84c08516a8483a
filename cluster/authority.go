package cluster

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"net"
	"sync"
	"time"
)

const (
	// A leaf is valid from a week ago, so that clocks of nodes may differ.
	leafBackdate   = 7 * 24 * time.Hour
	nodeLeafLife   = 30 * 24 * time.Hour
	publicLeafLife = 90 * 24 * time.Hour
)

// renewed is a certificate that is issued anew when it is asked for and two
// thirds of its life are over, or the clock was set back before its making.
type renewed struct {
	now   func() time.Time
	issue func(now time.Time) (*tls.Certificate, error)

	mu sync.Mutex // guards what follows
	// cert was made at made.
	cert *tls.Certificate
	made time.Time
}

func (r *renewed) get() (*tls.Certificate, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	if r.cert != nil && !now.Before(r.made.Add(-time.Hour)) && now.Before(r.made.Add(r.cert.Leaf.NotAfter.Sub(r.made)*2/3)) {
		return r.cert, nil
	}
	c, err := r.issue(now)
	if err != nil {
		return nil, err
	}
	r.cert, r.made = c, now.Round(0) // wall time: a certificate's life is told by it
	return c, nil
}

// authority is a CA derived from a secret.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
	// pool holds cert alone, id names it to operators and tells nothing of the secret.
	pool *x509.CertPool
	id   string
}

func deriveNodeCA(secret string) (*authority, error) {
	seed, err := expand(secret, labelNodeCA, ed25519.SeedSize)
	if err != nil {
		return nil, err
	}
	return newAuthority("Pontoon cluster CA", ed25519.NewKeyFromSeed(seed))
}

// derivePublicCA makes a P-256 key, since many clients lack Ed25519. A private
// key is a number below the order of the curve; the first candidate that is
// one (all but one in 2^32 are) is the key on every node.
func derivePublicCA(secret string) (*authority, error) {
	for n := range 16 {
		d, err := expand(secret, fmt.Sprintf("%s %d", labelPublicCA, n), 32)
		if err != nil {
			return nil, err
		}
		if key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), d); err == nil {
			return newAuthority("Pontoon public CA", key)
		}
	}
	return nil, errors.New("derive public CA: no usable key")
}

// newAuthority makes the certificate of a CA: the same bytes on every node,
// since everything in it is fixed or follows from the key, and both kinds of
// signature are made without randomness (Ed25519 always; ECDSA by RFC 6979,
// which crypto/ecdsa does when it is given no source of it). A signature that
// differed would do no harm: verification goes by subject and key.
func newAuthority(name string, key crypto.Signer) (*authority, error) {
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	id := sha256.Sum256(spki)
	template := &x509.Certificate{
		SerialNumber:          new(big.Int).SetBytes(id[:15]), // positive whatever the first bit
		Subject:               pkix.Name{CommonName: name + " " + hex.EncodeToString(id[:4])},
		NotBefore:             time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:              time.Date(2120, 1, 1, 0, 0, 0, 0, time.UTC),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		SubjectKeyId:          id[:20],
	}
	der, err := x509.CreateCertificate(nil, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	a := &authority{cert: cert, key: key, pool: x509.NewCertPool(), id: hex.EncodeToString(id[:4])}
	a.pool.AddCert(cert)
	return a, nil
}

func (a *authority) issueNode(nodeID string, now time.Time) (*tls.Certificate, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("certificate of node %s: %w", nodeID, err)
	}
	return a.issue(key, now, nodeLeafLife, &x509.Certificate{
		Subject:     pkix.Name{CommonName: nodeID},
		DNSNames:    []string{nodeID + nodeSuffix},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
}

func (a *authority) issuePublic(names []string, now time.Time) (*tls.Certificate, error) {
	if len(names) == 0 {
		return nil, errors.New("public certificate: at least one name is needed")
	}
	template := &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, n)
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("public certificate: %w", err)
	}
	return a.issue(key, now, publicLeafLife, template)
}

// issue fills in what all leaves have, and signs.
func (a *authority) issue(key crypto.Signer, now time.Time, life time.Duration, template *x509.Certificate) (*tls.Certificate, error) {
	template.NotBefore, template.NotAfter = now.Add(-leafBackdate), now.Add(life)
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.BasicConstraintsValid = true
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return nil, fmt.Errorf("certificate for %s %s: %w", template.DNSNames, template.IPAddresses, err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("certificate for %s %s: %w", template.DNSNames, template.IPAddresses, err)
	}
	return &tls.Certificate{Certificate: [][]byte{der, a.cert.Raw}, PrivateKey: key, Leaf: leaf}, nil
}
