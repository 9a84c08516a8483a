package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pontoon-registry/pontoon/cluster/transport"
	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// recheckEvery is how often connections that stand are judged by what is trusted then.
const recheckEvery = 5 * time.Second

// openTrust derives or reads what this node shows and accepts. It knows the pairs of its state from the start: a
// node with another's certificate is refused by itself.
func (n *Node) openTrust() (err error) {
	if n.trust, err = NewTrust(n.cfg.Secrets, n.id, n.cfg.Now); err != nil {
		return err
	}
	n.trust.setBook(n)
	if n.cfg.OperatorCA != nil {
		return n.trust.LoadOperatorCA(*n.cfg.OperatorCA)
	}
	if err := n.trust.rightName(n.id, nil, n.id); err != nil {
		return fmt.Errorf("this node has no cluster.tls but its cluster does: %w", err)
	}
	return nil
}

// SetSecrets replaces the cluster secrets while the node runs: the first signs,
// all are trusted. Connections that only a removed one vouches for are cut
// within seconds. On an error nothing changes.
func (n *Node) SetSecrets(secrets []string) error {
	if n.trust == nil {
		return errors.New("replace cluster secrets: this node was started without one")
	}
	if err := n.trust.Reload(secrets); err != nil {
		return err
	}
	if n.gossip != nil {
		if err := n.gossip.SetKeys(n.trust.GossipKeys()); err != nil {
			return err
		}
	}
	n.recheck()
	return nil
}

// ReloadOperatorCA reads the operator's files again. On an error nothing changes.
func (n *Node) ReloadOperatorCA() error {
	if n.trust == nil || n.cfg.OperatorCA == nil {
		return nil
	}
	if err := n.trust.LoadOperatorCA(*n.cfg.OperatorCA); err != nil {
		return err
	}
	n.recheck()
	return nil
}

// node is one entry of the address book in this node's own state.
func (n *Node) node(id string) (*metav1.Node, error) {
	v := n.state.View()
	defer v.Close()
	return v.Node(id)
}

func (n *Node) recheck() {
	if n.host != nil {
		n.host.Recheck()
	}
}

// certifiedAs refuses a node that asks to be recorded under a name that its connection does not show (R-D1).
func certifiedAs(ctx context.Context, node *metav1.Node) error {
	if name, ok := transport.PeerName(ctx); ok && node.GetCertificateName() != name {
		return meta.Refuse(metav1.Kind_KIND_DENIED, metav1.Noun_NOUN_NODE,
			"node %s wants to join with the certificate name %q, but its certificate is for %q", node.GetId(), node.GetCertificateName(), name)
	}
	return nil
}
