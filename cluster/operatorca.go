package cluster

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/pontoon-registry/pontoon/cluster/transport"
)

// OperatorCA replaces the derived CA between nodes by the operator's own
// (cluster.tls). It is chosen before the first start of the cluster and for all
// nodes. Gossip and sealing go on with the secret.
type OperatorCA struct {
	// Certificate is a PEM file: this node's certificate, then intermediates, for
	// both server and client authentication. Required.
	Certificate string
	// Key is a PEM file with its key. Required.
	Key string
	// CA is a PEM file with the authorities that are trusted for all nodes. Required.
	CA string
	// Names are the DNS names that nodes may have, "*" standing for any text
	// within one label, such as "*.pontoon.example.com". Required. Danger: the CA may have signed for
	// others than nodes, and whoever it signed for under a name that matches is one.
	Names []string
}

const (
	maxNames      = 64
	maxCertFile   = 1 << 20 // bytes
	nameAlphabet  = "abcdefghijklmnopqrstuvwxyz0123456789-."
	maxNameLength = 253
)

// operatorTrust is what the files of an OperatorCA said when they were read.
type operatorTrust struct {
	leaf  *tls.Certificate
	name  string // of leaf, the first that matches
	roots *x509.CertPool
	// ids of the roots, in the order of the file; by tells the one that signed for this node.
	ids   []string
	by    string
	names []string
	// ends is when the others begin to refuse leaf: its own end, or that of an authority above it.
	ends time.Time
}

func (c *OperatorCA) validate() error {
	if c.Certificate == "" || c.Key == "" || c.CA == "" {
		return errors.New("cluster: OperatorCA needs Certificate, Key and CA")
	}
	if n := len(c.Names); n < 1 || n > maxNames {
		return fmt.Errorf("cluster: OperatorCA has %d Names, must be 1 to %d: the DNS names that nodes may have", n, maxNames)
	}
	for _, n := range c.Names {
		if n == "" || len(n) > maxNameLength || strings.Trim(n, nameAlphabet+"*") != "" || strings.Trim(n, "*.") == "" {
			return fmt.Errorf("cluster: OperatorCA: name %q: must be a DNS name in lower case, * standing for any text within a label", n)
		}
	}
	return nil
}

// LoadOperatorCA reads the files (again) and uses what they say from then on. On
// an error nothing changes. A certificate that has run out, is not signed by
// the CA, or is not for the name that this node joined with is refused.
func (t *Trust) LoadOperatorCA(c OperatorCA) error {
	t.reloading.Lock()
	defer t.reloading.Unlock()
	o, err := readOperatorCA(c, t.now())
	if err != nil {
		return err
	}
	if err := t.rightName(t.nodeID, o.leaf.Leaf.DNSNames, o.name); err != nil {
		return fmt.Errorf("cluster.tls.certificate %s: %w", c.Certificate, err)
	}
	t.operator.Store(o)
	return nil
}

func readOperatorCA(c OperatorCA, now time.Time) (*operatorTrust, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	o := &operatorTrust{names: c.Names, roots: x509.NewCertPool()}
	if err := o.readRoots(c.CA); err != nil {
		return nil, fmt.Errorf("cluster.tls.ca: %w", err)
	}
	leaf, err := tls.LoadX509KeyPair(c.Certificate, c.Key)
	if err != nil {
		return nil, fmt.Errorf("cluster.tls.certificate %s with key %s: %w", c.Certificate, c.Key, err)
	}
	o.leaf = &leaf
	chain := []*x509.Certificate{leaf.Leaf}
	for _, der := range leaf.Certificate[1:] {
		between, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("cluster.tls.certificate %s: %w", c.Certificate, err)
		}
		chain = append(chain, between)
	}
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		j, ends, err := o.verify(chain, usage, now)
		if err != nil {
			return nil, fmt.Errorf("cluster.tls.certificate %s would be refused by the other nodes: %w "+
				"(it must be signed by cluster.tls.ca, for both serverAuth and clientAuth, for a name of cluster.tls.names)", c.Certificate, err)
		}
		o.name, o.by, o.ends = j.Name, j.By, ends
	}
	return o, nil
}

func (o *operatorTrust) readRoots(file string) error {
	info, err := os.Stat(file)
	if err == nil && info.Size() > maxCertFile {
		return fmt.Errorf("%s has %d bytes, at most %d are read", file, info.Size(), maxCertFile)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		if !cert.IsCA {
			return fmt.Errorf("%s: %q is not a certificate authority", file, cert.Subject)
		}
		o.roots.AddCert(cert)
		if id := authorityID(cert); !slices.Contains(o.ids, id) {
			o.ids = append(o.ids, id)
		}
	}
	if len(o.ids) == 0 {
		return fmt.Errorf("%s holds no certificate in PEM", file)
	}
	return nil
}

// authorityID names an authority by its key, as derived ones are named.
func authorityID(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:4])
}

// verify checks a chain that a node shows, and says until when it would be accepted. What it cannot say is the node's id.
func (o *operatorTrust) verify(chain []*x509.Certificate, usage x509.ExtKeyUsage, now time.Time) (transport.Judgement, time.Time, error) {
	leaf, between := chain[0], x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	chains, err := leaf.Verify(x509.VerifyOptions{Roots: o.roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage}})
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.As(err, &unknown):
		return transport.Judgement{}, time.Time{}, fmt.Errorf("the certificate for %q is not signed by an authority in cluster.tls.ca (%s), but by %q",
			leaf.DNSNames, strings.Join(o.ids, ", "), leaf.Issuer)
	case err != nil:
		return transport.Judgement{}, time.Time{}, fmt.Errorf("the certificate for %q: %w (are the clocks right?)", leaf.DNSNames, err)
	}
	for _, name := range leaf.DNSNames {
		if o.matches(strings.ToLower(name)) {
			found := chains[0]
			by := authorityID(found[len(found)-1])
			return transport.Judgement{Name: strings.ToLower(name), By: by, Outgoing: by != o.by || ending(leaf, now)}, lastEnd(chains), nil
		}
	}
	return transport.Judgement{}, time.Time{}, fmt.Errorf("the certificate is for %q, none of which is in cluster.tls.names (%s)",
		leaf.DNSNames, strings.Join(o.names, ", "))
}

// lastEnd is when the last of the paths to an authority ends: each of them with the first of its certificates.
func lastEnd(paths [][]*x509.Certificate) (end time.Time) {
	for _, path := range paths {
		first := path[0].NotAfter
		for _, cert := range path[1:] {
			if cert.NotAfter.Before(first) {
				first = cert.NotAfter
			}
		}
		if first.After(end) {
			end = first
		}
	}
	return end
}

// ending says that a certificate is in the last sixth of its life: its node, which renews a derived one with a third left,
// has a newer one, or should have.
func ending(leaf *x509.Certificate, now time.Time) bool {
	return leaf.NotAfter.Sub(now) < leaf.NotAfter.Sub(leaf.NotBefore)/6
}

// matches says whether a node may have that name. A certificate for "*.example.com" names no node.
func (o *operatorTrust) matches(name string) bool {
	return !strings.Contains(name, "*") && slices.ContainsFunc(o.names, func(pattern string) bool {
		// path.Match's * stops at slashes, as ours does at dots.
		ok, err := path.Match(strings.ReplaceAll(pattern, ".", "/"), strings.ReplaceAll(name, ".", "/"))
		return ok && err == nil
	})
}
