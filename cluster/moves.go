package cluster

import (
	"context"
	"maps"
	"time"
)

// returnsEvery is how often it is looked whether a node that was followed has gone back.
const returnsEvery = 5 * time.Second

// move is that of a node: gossip has it at from, and it answered at to.
type move struct{ from, to string }

// watchMoves finds nodes that have come back under other addresses. Gossip holds on to the old one until it has found the node
// dead there, which takes up to half a minute when somebody else answers there now, such as the node it swapped addresses with.
// Until then no call would reach it. Believed is only an address at which the node itself answers while it does not at the old one.
// A node that goes back before gossip has noticed anything is no news to gossip, so that is looked for.
func (n *Node) watchMoves(ctx context.Context) error {
	if n.gossip == nil {
		return nil
	}
	tick := time.NewTicker(n.cfg.brisk(returnsEvery))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case p := <-n.gossip.moves:
			n.follow(ctx, p)
		case <-tick.C:
			n.seekReturned(ctx)
		}
	}
}

func (n *Node) follow(ctx context.Context, p Peer) {
	known, _ := n.gossip.Resolve(p.ID)
	// Both: gossip repeats old news, and of two copies of a directory (twins.go) neither has moved.
	if p.NodeAddr == known || !n.isAt(ctx, p.ID, p.NodeAddr) || n.isAt(ctx, p.ID, known) {
		return
	}
	n.gossip.follow(p.ID, p.NodeAddr)
	n.log.Info("a node has moved", "id", p.ID, "from", known, "to", p.NodeAddr)
}

func (n *Node) seekReturned(ctx context.Context) {
	for id, m := range n.gossip.moved() {
		if !n.isAt(ctx, id, m.to) && n.isAt(ctx, id, m.from) {
			n.gossip.unfollow(id, m)
			n.log.Info("a node has moved back", "id", id, "from", m.to, "to", m.from)
		}
	}
}

// isAt says whether a node answers at an address.
func (n *Node) isAt(ctx context.Context, id, address string) bool {
	d, err := n.describeAt(ctx, address)
	return err == nil && d.GetNode().GetId() == id
}

// follow gives an address for calls to a node that answered there, until gossip has news of that node itself.
func (g *gossip) follow(nodeID, addr string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if p, ok := g.peers[nodeID]; ok {
		g.followed[nodeID] = move{from: p.NodeAddr, to: addr}
	}
}

// unfollow takes a move back, if it is still the last.
func (g *gossip) unfollow(nodeID string, m move) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.followed[nodeID] == m {
		delete(g.followed, nodeID)
	}
}

// moved are the nodes that are followed now.
func (g *gossip) moved() map[string]move {
	g.mu.Lock()
	defer g.mu.Unlock()
	return maps.Clone(g.followed)
}
