package cluster

import (
	"context"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/pontoon-registry/pontoon/cluster/transport"
	clusterv1 "github.com/pontoon-registry/pontoon/proto/pontoon/cluster/v1"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// peer is the service of another node, on the control lane.
func (n *Node) peer(id string) (clusterv1.NodeServiceClient, error) {
	if n.host == nil {
		return nil, unavailable("this node has no listener, so no peers")
	}
	conn, err := n.host.Conn(id, transport.Control)
	if err != nil {
		return nil, err
	}
	return clusterv1.NewNodeServiceClient(conn), nil
}

// resolve finds a node's address: gossip knows best, then the state's address
// book, then what was last seen (R-D4). The join list is gossip's to ask.
func (n *Node) resolve(id string) (string, bool) {
	if n.gossip != nil {
		if a, ok := n.gossip.Resolve(id); ok {
			return a, true
		}
	}
	for _, m := range n.nodes() {
		if m.GetId() == id && m.GetAddress() != "" {
			return m.GetAddress(), true
		}
	}
	a := n.dir.address(id)
	return a.Node, a.Node != ""
}

// nodes is the address book in this node's own state, as far as that came.
func (n *Node) nodes() []*metav1.Node {
	v := n.state.View()
	defer v.Close()
	nodes, err := v.Nodes()
	if err != nil {
		n.log.Warn("the address book cannot be read", "error", err)
	}
	return nodes
}

// joinList is whom gossip contacts: the configured, and all that were ever known.
func (n *Node) joinList() []string {
	list := append(slices.Clone(n.cfg.Join), n.dir.gossipAddresses()...)
	for _, m := range n.nodes() {
		if m.GetGossipAddress() != "" && m.GetId() != n.id {
			list = append(list, m.GetGossipAddress())
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// clusterIdentity is what every call says and checks.
func (n *Node) clusterIdentity() (string, uint64) {
	who := n.dir.who()
	return who.ClusterID, who.Incarnation
}

// self is this node as the address book should have it.
func (n *Node) self() *metav1.Node {
	name := n.cfg.Name
	if name == "" {
		name = n.id
	}
	self := &metav1.Node{Id: n.id, Name: name, Release: n.cfg.Release, MinVersion: n.cfg.oldest, MaxVersion: n.cfg.newest, BootId: n.boot}
	self.Address, self.GossipAddress = n.Addresses()
	if n.trust != nil {
		self.CertificateName = n.trust.certificateName()
	}
	return self
}

func (n *Node) gossipMeta() PeerMeta {
	who := n.dir.who()
	return PeerMeta{Name: n.cfg.Name, NodeAddr: n.advertise, ClusterID: who.ClusterID, Incarnation: who.Incarnation,
		MinVersion: n.cfg.oldest, MaxVersion: n.cfg.newest, Release: n.cfg.Release}
}

func (n *Node) tellGossip() {
	if n.gossip == nil {
		return
	}
	if err := n.gossip.UpdateMeta(n.gossipMeta()); err != nil {
		n.log.Debug("gossip was not told", "error", err)
	}
}

// ownEvery is how often a node looks whether its own entry in the address book is right yet.
const ownEvery = 15 * time.Second

// announce keeps this node's own entry in the address book as it is now, once the node can write: also where somebody
// else wrote it, as a copy of the directory does that runs while this node is paused.
func (n *Node) announce(ctx context.Context) error {
	name, every := n.self().GetName(), formEvery
	for known := false; ; {
		if !known || n.configured(n.id) { // who was removed does not come back this way
			self := n.self()
			self.Name = name
			done, err := n.announceOnce(ctx, self)
			if err != nil && ctx.Err() == nil {
				n.log.Debug("the address book does not have this node yet", "error", err)
			}
			name, known, every = self.GetName(), known || done, formEvery
			if done {
				every = ownEvery
			}
		}
		if !n.lookAgain(ctx, every) {
			return nil
		}
	}
}

// announceOnce is done when the entry is self. Where the name is taken, self keeps the one that the book has.
func (n *Node) announceOnce(ctx context.Context, self *metav1.Node) (bool, error) {
	if err := n.catchUp(ctx, n.cfg.Hold, 0); err != nil {
		return false, err
	}
	for _, m := range n.nodes() {
		if m.GetId() == n.id && m.GetName() != self.GetName() {
			// A name is a place (pilot.superseded): who takes one that is held has its holder removed at its next restart.
			if err := n.nameIsFree(ctx, self); err != nil {
				n.log.Warn("this node keeps the name that it had", "name", m.GetName(), "error", err)
				self.Name = m.GetName()
			}
		}
		if proto.Equal(m, self) {
			return true, nil
		}
	}
	_, err := n.Propose(ctx, n.systemCommand(&metav1.Command{Kind: &metav1.Command_PutNode{PutNode: &metav1.PutNode{Node: self}}}))
	return err == nil, err
}

// watchPeers saves where peers are, so that a full restart finds them again.
func (n *Node) watchPeers(ctx context.Context) error {
	if n.gossip == nil {
		return nil
	}
	tick := time.NewTicker(peersEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-n.gossip.Changed():
		case <-tick.C:
		}
		seen, own := map[string]address{}, n.dir.who().ClusterID
		for _, p := range n.gossip.Peers() {
			if own != "" && p.ClusterID == own && n.configured(p.ID) {
				seen[p.ID] = address{Node: p.NodeAddr, Gossip: p.GossipAddr.String()}
			}
		}
		if err := n.dir.remember(seen); err != nil {
			return fmt.Errorf("save addresses of peers: %w", err)
		}
	}
}
