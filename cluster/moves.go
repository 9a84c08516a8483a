package cluster

import "context"

// watchMoves finds nodes that have come back under other addresses. Gossip holds on to the old one until it has found the node
// dead there, which takes up to half a minute when somebody else answers there now, such as the node it swapped addresses with.
// Until then no call would reach it. Believed is only an address at which the node itself answers while it does not at the old one.
func (n *Node) watchMoves(ctx context.Context) error {
	if n.gossip == nil {
		return nil
	}
	for {
		var p Peer
		select {
		case <-ctx.Done():
			return nil
		case p = <-n.gossip.moves:
		}
		known, _ := n.gossip.Resolve(p.ID)
		// Both: gossip repeats old news, and of two copies of a directory (twins.go) neither has moved.
		if p.NodeAddr == known || !n.isAt(ctx, p.ID, p.NodeAddr) || n.isAt(ctx, p.ID, known) {
			continue
		}
		n.gossip.follow(p.ID, p.NodeAddr)
		n.log.Info("a node has moved", "id", p.ID, "from", known, "to", p.NodeAddr)
	}
}

// isAt says whether a node answers at an address.
func (n *Node) isAt(ctx context.Context, id, address string) bool {
	d, err := n.describeAt(ctx, address)
	return err == nil && d.GetNode().GetId() == id
}
