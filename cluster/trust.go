package cluster

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/pem"
	"fmt"
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

	nodeSuffix = ".node.pontoon.internal"
)

// Trust is what a node shows to others and what it accepts from them, derived
// from the cluster secret. All methods are safe for concurrent use; what they
// return follows a Reload, except keys and certificates already handed out.
type Trust struct {
	nodeID string
	now    func() time.Time
	// book is the address book of the cluster; nil: no pairs of node id and certificate name are known.
	book addressBook
	// reloading orders reloads; state and operator are replaced as a whole.
	reloading sync.Mutex
	state     atomic.Pointer[trustState]
	// operator is nil unless the operator's own CA stands in for the derived one.
	operator atomic.Pointer[operatorTrust]
}

// trustState is what follows from one list of secrets.
type trustState struct {
	nodes   []*authority // by secret; the first signs
	public  []*authority
	gossip  [][]byte
	sealing []SealingKey
	leaf    *renewed
}

// SealingKey seals secrets in the state (M8). The ID, which is stored beside
// what was sealed, tells nothing of the key.
type SealingKey struct {
	ID  string
	Key []byte // 32 bytes
}

// NewTrust derives a node's trust from the secrets. The node id must be fit for
// a DNS label: 1 to 63 of a-z, 0-9 and inner hyphens. now tells when certificates begin and end; nil: time.Now.
func NewTrust(secrets []string, nodeID string, now func() time.Time) (*Trust, error) {
	if !isDNSLabel(nodeID) {
		return nil, fmt.Errorf("node id %q: must be 1 to 63 of a-z, 0-9 and inner hyphens", nodeID)
	}
	if now == nil {
		now = time.Now
	}
	t := &Trust{nodeID: nodeID, now: now}
	if err := t.Reload(secrets); err != nil {
		return nil, err
	}
	return t, nil
}

// Reload replaces the secrets: new connections are judged by the new list, and
// so are those that stand, at the transport's next look at them. On an error nothing changes.
func (t *Trust) Reload(secrets []string) error {
	t.reloading.Lock()
	defer t.reloading.Unlock()
	if err := checkSecrets(secrets); err != nil {
		return fmt.Errorf("cluster secret: %w", err)
	}
	s := &trustState{}
	for i, secret := range secrets {
		if err := s.derive(secret); err != nil {
			return fmt.Errorf("cluster secret %d: %w", i+1, err)
		}
	}
	if old := t.state.Load(); old != nil && old.nodes[0].id == s.nodes[0].id {
		s.leaf = old.leaf // a new one would have every connection made again
		t.state.Store(s)
		return nil
	}
	s.leaf = &renewed{now: func() time.Time { return t.now() }, issue: func(now time.Time) (*tls.Certificate, error) { return s.nodes[0].issueNode(t.nodeID, now) }}
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

// Expires is when the others begin to refuse the certificate that this node shows. A derived one is renewed at two
// thirds of its life, when this or a connection asks for it; one of the operator's ends with the first of its chain.
func (t *Trust) Expires() (time.Time, error) {
	if o := t.operator.Load(); o != nil {
		return o.ends, nil
	}
	c, err := t.leaf()
	if err != nil {
		return time.Time{}, err
	}
	return c.Leaf.NotAfter, nil
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
