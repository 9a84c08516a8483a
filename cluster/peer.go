package cluster

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"

	"github.com/pontoon-registry/pontoon/cluster/transport"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// ServerTLS is for connections from other nodes: TLS 1.3, any node of the
// cluster. It stays right when certificates are renewed and secrets reloaded.
func (t *Trust) ServerTLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		// Verified below against the roots of the moment.
		ClientAuth:             tls.RequireAnyClientCert,
		SessionTicketsDisabled: true,
		GetCertificate:         func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return t.leaf() },
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
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return t.leaf() },
		VerifyConnection: func(cs tls.ConnectionState) error {
			j, err := t.verify(cs, x509.ExtKeyUsageServerAuth)
			if err != nil || t.Claims() { // its id is heard later
				return err
			}
			return dialled(nodeID, j.NodeID)
		},
	}
}

func dialled(want, got string) error {
	if want != "" && got != want {
		return fmt.Errorf("node %s was dialled, node %s answers at its address", want, got)
	}
	return nil
}

// Claims says that certificates do not tell node ids: the operator's are for DNS names (R-D1).
func (t *Trust) Claims() bool { return t.operator.Load() != nil }

// Shown names the certificate that this node shows now, with its intermediates: one signed anew has to be seen by the others too.
func (t *Trust) Shown() string {
	c, err := t.leaf()
	if err != nil {
		return "" // a handshake would say why
	}
	return string(bytes.Join(c.Certificate, nil))
}

func (t *Trust) leaf() (*tls.Certificate, error) {
	if o := t.operator.Load(); o != nil {
		return o.leaf, nil
	}
	return t.state.Load().leaf.get()
}

// Judge says who is at the other end of a connection made with ServerTLS or
// ClientTLS, by what is trusted now, or why it is refused now.
func (t *Trust) Judge(cs tls.ConnectionState, end transport.End) (transport.Judgement, error) {
	usage := x509.ExtKeyUsageServerAuth
	if end.Accepted {
		usage = x509.ExtKeyUsageClientAuth
	}
	j, err := t.verify(cs, usage)
	if err != nil {
		return j, err
	}
	if t.Claims() {
		if !isDNSLabel(end.Claimed) {
			return j, fmt.Errorf("the peer says that it is node %q, which is no node id", end.Claimed)
		}
		j.NodeID = end.Claimed
	}
	if err := dialled(end.Dialled, j.NodeID); err != nil {
		return j, err
	}
	return j, t.rightName(j.NodeID, cs.PeerCertificates[0].DNSNames, j.Name)
}

// rightName enforces the pair of node id and certificate name that was recorded
// when the node joined. Before that there is none: whoever shows a certificate
// of the right authority and pattern may be any new node.
func (t *Trust) rightName(nodeID string, names []string, name string) error {
	if t.book == nil {
		return nil
	}
	row, err := t.book.node(nodeID)
	if err != nil {
		return fmt.Errorf("the name that node %s joined with: %w", nodeID, err)
	}
	recorded := row.GetCertificateName()
	if recorded == "" || recorded == name {
		return nil
	}
	for _, n := range names { // a certificate may have several
		if t.Claims() && n == recorded {
			return nil
		}
	}
	advice := "; a node keeps the name that it joined with: give it a certificate for that name, or let it leave and join as a new node"
	if owner := t.ownerOf(name); owner != "" {
		advice = fmt.Sprintf(", which is recorded for node %s: were the certificates of these two nodes swapped?", owner)
	}
	return fmt.Errorf("node %s joined with the certificate name %q, its certificate is for %q%s", nodeID, recorded, name, advice)
}

// addressBook has the pairs of node id and certificate name.
type addressBook interface {
	// node answers nil for an id that is not there.
	node(id string) (*metav1.Node, error)
	nodes() []*metav1.Node
}

// ownerOf is the node that joined with a certificate name, if any.
func (t *Trust) ownerOf(name string) string {
	for _, n := range t.book.nodes() {
		if n.GetCertificateName() == name {
			return n.GetId()
		}
	}
	return ""
}

// setBook gives the address book; once, before connections are made.
func (t *Trust) setBook(b addressBook) { t.book = b }

// verify checks the peer's certificate and says what it stands for.
func (t *Trust) verify(cs tls.ConnectionState, usage x509.ExtKeyUsage) (transport.Judgement, error) {
	if len(cs.PeerCertificates) == 0 {
		return transport.Judgement{}, errors.New("the peer showed no certificate")
	}
	if o := t.operator.Load(); o != nil {
		j, _, err := o.verify(cs.PeerCertificates, usage, t.now())
		return j, err
	}
	leaf := cs.PeerCertificates[0]
	for i, ca := range t.state.Load().nodes {
		_, err := leaf.Verify(x509.VerifyOptions{Roots: ca.pool, CurrentTime: t.now(), KeyUsages: []x509.ExtKeyUsage{usage}})
		var unknown x509.UnknownAuthorityError
		if errors.As(err, &unknown) {
			continue
		}
		if err != nil {
			return transport.Judgement{}, fmt.Errorf("the peer's certificate: %w (are the clocks right?)", err)
		}
		id, err := certifiedNode(leaf)
		return transport.Judgement{NodeID: id, Name: id, By: ca.id, Outgoing: i > 0 || ending(leaf, t.now())}, err
	}
	return transport.Judgement{}, errors.New("the peer does not hold this cluster's secret: its certificate is signed by another one")
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
