package cluster

import (
	"bytes"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// The cluster secret is all that nodes share. Everything that follows from it
// is derived with HKDF-SHA256 (RFC 5869) under one of these labels:
//
//	secret ─┬─ gossip key       32 bytes, AES-256 of memberlist
//	        ├─ cluster CA seed  Ed25519: certificates between nodes
//	        ├─ public CA key    P-256: certificates of the registry listener
//	        └─ sealing key      32 bytes, for secrets in the state (M8)
//
// HKDF does not slow a guesser down, so the secret must be a random one, as
// GenerateSecret makes them. A label is never given another meaning: a new
// derivation gets a new version.
const (
	secretSalt = "pontoon cluster secret v1"

	labelGossip   = "pontoon gossip key v1"
	labelNodeCA   = "pontoon cluster ca ed25519 v1"
	labelPublicCA = "pontoon public ca p256 v1"
	labelSealing  = "pontoon sealing key v1"
	labelSealID   = "pontoon sealing key id v1"

	minSecretLen = 16 // characters; fewer are refused
	maxSecrets   = 8
	maxSecretLen = 1024

	nodeSuffix = ".node.pontoon.internal"
)

// GenerateSecret makes a cluster secret of 256 random bits, 43 characters.
func GenerateSecret() string {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return base64.RawURLEncoding.EncodeToString(b)
}

// ReadSecretFile reads the secrets of a file, one a line: the first signs, all
// are trusted. Blank lines are skipped. The warning, empty if all is well, is
// for the operator: a file that others may read, or a secret that looks weak.
func ReadSecretFile(path string) (secrets []string, warning string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, "", fmt.Errorf("read cluster secret: %w", err)
	}
	defer func() { _ = f.Close() }() // only read
	info, err := f.Stat()
	if err != nil {
		return nil, "", fmt.Errorf("read cluster secret: %w", err)
	}
	const most = 2 * maxSecrets * maxSecretLen
	text, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, "", fmt.Errorf("read cluster secret: %w", err)
	}
	if len(text) > most {
		return nil, "", fmt.Errorf("read cluster secret %s: more than %d bytes", path, most)
	}
	for line := range strings.Lines(string(text)) {
		if s := strings.TrimSpace(line); s != "" {
			secrets = append(secrets, s)
		}
	}
	if err := checkSecrets(secrets); err != nil {
		return nil, "", fmt.Errorf("read cluster secret %s: %w", path, err)
	}
	switch {
	case info.Mode().Perm()&0o007 != 0:
		warning = fmt.Sprintf("cluster secret %s can be read by every user (mode %04o): chmod 600 it", path, info.Mode().Perm())
	case len(secrets[0]) < 32:
		warning = fmt.Sprintf("cluster secret %s has only %d characters: make one with 'pontoon cluster secret'", path, len(secrets[0]))
	}
	return secrets, warning, nil
}

// checkSecrets never quotes a secret.
func checkSecrets(secrets []string) error {
	if n := len(secrets); n == 0 || n > maxSecrets {
		return fmt.Errorf("%d secrets, must be 1 to %d lines", n, maxSecrets)
	}
	for i, s := range secrets {
		if len(s) < minSecretLen || len(s) > maxSecretLen {
			return fmt.Errorf("secret %d has %d characters, must be %d to %d", i+1, len(s), minSecretLen, maxSecretLen)
		}
	}
	return nil
}

// Trust is what a node shows to others and what it accepts from them, derived
// from the cluster secret. All methods are safe for concurrent use; what they
// return follows a Reload, except keys and certificates already handed out.
type Trust struct {
	nodeID string
	now    func() time.Time
	// state is replaced as a whole.
	state atomic.Pointer[trustState]
}

// trustState is what follows from one list of secrets.
type trustState struct {
	nodes   []*authority // by secret; the first signs
	public  []*authority
	gossip  [][]byte
	sealing []SealingKey
	roots   *x509.CertPool
	leaf    *renewed
}

// SealingKey seals secrets in the state (M8). The ID, which is stored beside
// what was sealed, tells nothing of the key.
type SealingKey struct {
	ID  string
	Key []byte // 32 bytes
}

// NewTrust derives a node's trust from the secrets. The node id must be fit for
// a DNS label: 1 to 63 of a-z, 0-9 and inner hyphens.
func NewTrust(secrets []string, nodeID string) (*Trust, error) {
	if !isDNSLabel(nodeID) {
		return nil, fmt.Errorf("node id %q: must be 1 to 63 of a-z, 0-9 and inner hyphens", nodeID)
	}
	t := &Trust{nodeID: nodeID, now: time.Now}
	if err := t.Reload(secrets); err != nil {
		return nil, err
	}
	return t, nil
}

// Reload replaces the secrets. Connections that stand are not cut; new ones are
// judged by the new list. On an error nothing changes.
func (t *Trust) Reload(secrets []string) error {
	if err := checkSecrets(secrets); err != nil {
		return fmt.Errorf("cluster secret: %w", err)
	}
	s := &trustState{roots: x509.NewCertPool()}
	for i, secret := range secrets {
		if err := s.derive(secret); err != nil {
			return fmt.Errorf("cluster secret %d: %w", i+1, err)
		}
	}
	for _, ca := range s.nodes {
		s.roots.AddCert(ca.cert)
	}
	s.leaf = &renewed{now: t.now, issue: func(now time.Time) (*tls.Certificate, error) { return s.nodes[0].issueNode(t.nodeID, now) }}
	if _, err := s.leaf.get(); err != nil {
		return err
	}
	t.state.Store(s)
	return nil
}

func (s *trustState) derive(secret string) error {
	node, err := deriveNodeCA(secret)
	if err != nil {
		return err
	}
	public, err := derivePublicCA(secret)
	if err != nil {
		return err
	}
	gossip, err := expand(secret, labelGossip, 32)
	if err != nil {
		return err
	}
	seal, err := expand(secret, labelSealing, 32)
	if err != nil {
		return err
	}
	sealID, err := expand(secret, labelSealID, 8)
	if err != nil {
		return err
	}
	s.nodes, s.public = append(s.nodes, node), append(s.public, public)
	s.gossip = append(s.gossip, gossip)
	s.sealing = append(s.sealing, SealingKey{ID: hex.EncodeToString(sealID), Key: seal})
	return nil
}

func expand(secret, label string, n int) ([]byte, error) {
	b, err := hkdf.Key(sha256.New, []byte(secret), []byte(secretSalt), label, n)
	if err != nil {
		return nil, fmt.Errorf("derive %q: %w", label, err)
	}
	return b, nil
}

// GossipKeys are the keys of the gossip, 32 bytes each; the first encrypts.
func (t *Trust) GossipKeys() [][]byte { return t.state.Load().gossip }

// SealingKeys are the keys of sealed values; the first seals.
func (t *Trust) SealingKeys() []SealingKey { return t.state.Load().sealing }

// CA is the certificates, as PEM, of those who sign for nodes; the same on
// every node with the same secrets.
func (t *Trust) CA() []byte { return bundle(t.state.Load().nodes) }

// PublicCA is the certificates, as PEM, of those who sign for the registry
// listener: what clients are told to trust. The same on every node.
func (t *Trust) PublicCA() []byte { return bundle(t.state.Load().public) }

func bundle(cas []*authority) []byte {
	var b bytes.Buffer
	for _, ca := range cas {
		_ = pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: ca.cert.Raw}) // a buffer takes all
	}
	return b.Bytes()
}

// Expires is when the certificate that this node shows to others ends. It is
// renewed at two thirds of its life, when a connection is made.
func (t *Trust) Expires() (time.Time, error) {
	c, err := t.state.Load().leaf.get()
	if err != nil {
		return time.Time{}, err
	}
	return c.Leaf.NotAfter, nil
}

// ServerTLS is for connections from other nodes: TLS 1.3, any node of the
// cluster. It stays right when certificates are renewed and secrets reloaded.
func (t *Trust) ServerTLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		// Verified below against the roots of the moment.
		ClientAuth:             tls.RequireAnyClientCert,
		SessionTicketsDisabled: true,
		GetCertificate:         func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return t.state.Load().leaf.get() },
		VerifyConnection: func(cs tls.ConnectionState) error {
			_, err := t.verify(cs, x509.ExtKeyUsageClientAuth)
			return err
		},
	}
}

// ClientTLS is for connections to the node with that id, to no other; with an
// empty id, to any node of the cluster. It stays right as ServerTLS does.
func (t *Trust) ClientTLS(nodeID string) *tls.Config {
	name := nodeID + nodeSuffix
	if nodeID == "" {
		name = strings.TrimPrefix(nodeSuffix, ".")
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		ServerName: name,
		// The standard check has fixed roots; VerifyConnection, which is run in
		// any case, checks the same against the roots of the moment.
		InsecureSkipVerify:   true, //nolint:gosec // see above
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return t.state.Load().leaf.get() },
		VerifyConnection: func(cs tls.ConnectionState) error {
			id, err := t.verify(cs, x509.ExtKeyUsageServerAuth)
			if err != nil {
				return err
			}
			if nodeID != "" && id != nodeID {
				return fmt.Errorf("node %s was dialled, node %s answers at its address", nodeID, id)
			}
			return nil
		},
	}
}

// PeerID is the node id that the certificate of a connection, made with
// ServerTLS or ClientTLS, stands for.
func (t *Trust) PeerID(cs tls.ConnectionState) (string, error) {
	if len(cs.PeerCertificates) == 0 {
		return "", errors.New("the peer showed no certificate")
	}
	return certifiedNode(cs.PeerCertificates[0])
}

// verify checks the peer's certificate and gives the node id it stands for.
func (t *Trust) verify(cs tls.ConnectionState, usage x509.ExtKeyUsage) (string, error) {
	if len(cs.PeerCertificates) == 0 {
		return "", errors.New("the peer showed no certificate")
	}
	leaf := cs.PeerCertificates[0]
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots:       t.state.Load().roots,
		CurrentTime: t.now(),
		KeyUsages:   []x509.ExtKeyUsage{usage},
	})
	var unknown x509.UnknownAuthorityError
	if errors.As(err, &unknown) {
		return "", errors.New("the peer does not hold this cluster's secret: its certificate is signed by another one")
	}
	if err != nil {
		return "", fmt.Errorf("the peer's certificate: %w (are the clocks right?)", err)
	}
	return certifiedNode(leaf)
}

// certifiedNode reads the node id out of a certificate.
func certifiedNode(leaf *x509.Certificate) (string, error) {
	if len(leaf.DNSNames) == 1 {
		if id, ok := strings.CutSuffix(leaf.DNSNames[0], nodeSuffix); ok && isDNSLabel(id) {
			return id, nil
		}
	}
	return "", fmt.Errorf("the peer's certificate is for %q, not for one node", leaf.DNSNames)
}

// PublicCertificate issues a certificate for the registry listener, valid for
// 90 days, for DNS names and IP addresses. With each comes a new P-256 key.
func (t *Trust) PublicCertificate(names []string) (*tls.Certificate, error) {
	return t.state.Load().public[0].issuePublic(names, t.now())
}

// RenewedPublicCertificate is PublicCertificate as tls.Config.GetCertificate
// wants it: it issues anew at two thirds of the life and after a Reload.
func (t *Trust) RenewedPublicCertificate(names []string) (func(*tls.ClientHelloInfo) (*tls.Certificate, error), error) {
	var mu sync.Mutex
	var of *trustState // guarded by mu, as is leaf
	var leaf *renewed
	get := func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		mu.Lock()
		defer mu.Unlock()
		if s := t.state.Load(); of != s {
			of = s
			leaf = &renewed{now: t.now, issue: func(now time.Time) (*tls.Certificate, error) { return s.public[0].issuePublic(names, now) }}
		}
		return leaf.get()
	}
	_, err := get(nil)
	return get, err
}

func isDNSLabel(s string) bool {
	if len(s) < 1 || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for _, c := range s {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}
