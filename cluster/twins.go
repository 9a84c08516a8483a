package cluster

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/memberlist"

	clusterv1 "github.com/pontoon-registry/pontoon/proto/pontoon/cluster/v1"
)

// refuseClone refuses to start when this node's id still answers where it was
// last: before Raft, since two nodes of one id may vote twice. A node that does
// not answer there has moved, and the directory notes its new place.
func (n *Node) refuseClone(ctx context.Context) error {
	if n.host == nil {
		return nil
	}
	places := []string{n.dir.address(n.id).Node}
	for _, m := range n.nodes() {
		if m.GetId() == n.id {
			places = append(places, m.GetAddress())
		}
	}
	for _, place := range slices.Compact(places) {
		if place != n.advertise && n.answersAt(ctx, place) {
			return fmt.Errorf("node %s also answers at %s: the data directory was copied; a node id belongs to one directory, "+
				"empty this one and let the node join as a new one", n.id, place)
		}
	}
	_, gossip := n.Addresses()
	return n.dir.remember(map[string]address{n.id: {Node: n.advertise, Gossip: gossip}})
}

// answersAt says whether another process with this node's id answers there.
func (n *Node) answersAt(ctx context.Context, address string) bool {
	d, err := n.describeAt(ctx, address)
	return err == nil && d.GetNode().GetId() == n.id && d.GetNode().GetBootId() != n.boot
}

// describeAt asks whatever node is at an address who it is.
func (n *Node) describeAt(ctx context.Context, address string) (*clusterv1.DescribeResponse, error) {
	if n.host == nil || address == "" {
		return nil, unavailable("no address to ask")
	}
	conn, err := n.host.Dial(address)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }() // it was only asked a question
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	return clusterv1.NewNodeServiceClient(conn).Describe(ctx, &clusterv1.DescribeRequest{})
}

// watchTwins ends the younger of two nodes that run on copies of one data
// directory, once they see each other: refuseClone could not when it started.
func (n *Node) watchTwins(ctx context.Context) error {
	if n.gossip == nil {
		return nil
	}
	said := ""
	for {
		var at string
		select {
		case <-ctx.Done():
			return nil
		case at = <-n.gossip.twins:
		}
		d, err := n.describeAt(ctx, at)
		if err != nil || d.GetNode().GetId() != n.id || d.GetNode().GetBootId() == n.boot {
			continue // where this node was before, or a stranger's word
		}
		if time.Duration(d.GetUptime()) > time.Since(n.began) {
			return fmt.Errorf("node %s also runs at %s, and for longer: the data directory was copied; a node id belongs to one directory, "+
				"empty this one and let the node join as a new one", n.id, at)
		}
		if said != at {
			said = at
			n.log.Error("another node runs on a copy of this one's data directory; it should end by itself: stop it if it does not, "+
				"and let it join as a new one with an empty directory", "address", at)
		}
	}
}

// NotifyConflict hears of one id at two addresses: a node that has just moved,
// or two that run on copies of one data directory.
func (d gossipDelegate) NotifyConflict(known, other *memberlist.Node) {
	if d.g.tellOnce(other.Name + " " + other.Address()) {
		d.g.cfg.Log.Warn("one node id at two addresses: it has just moved, or a data directory was copied",
			"id", other.Name, "known", known.Address(), "other", other.Address())
	}
	p, err := readPeer(other)
	if err != nil {
		return
	}
	if other.Name != d.g.cfg.NodeID {
		select {
		case d.g.moves <- p:
		default: // gossip says it again
		}
		return
	}
	select {
	case d.g.twins <- p.NodeAddr:
	default: // one is waiting already
	}
}

// tellOnce says whether the log lacks this yet.
func (g *gossip) tellOnce(what string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.told[what] || len(g.told) >= toldMost {
		return false
	}
	g.told[what] = true
	return true
}
