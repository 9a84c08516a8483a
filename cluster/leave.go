package cluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/pontoon-registry/pontoon/meta"
	clusterv1 "github.com/pontoon-registry/pontoon/proto/pontoon/cluster/v1"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

const (
	// membersEvery is how often a node looks whether it, and those it knows, still belong.
	membersEvery = time.Second
	// leaderless is for how long a node has heard no leader before it asks around whether it was removed.
	leaderless = 2 * time.Second
	// proofTime is how long a leader tries to prove that it leads, for whoever asks with askTimeout.
	proofTime = time.Second
)

// ErrDeparted ends a node that is no member of its cluster any more.
var ErrDeparted = errors.New("this node is no member of its cluster any more")

// Ways to end a membership, as node.json says them.
const (
	howLeft      = "left the cluster"
	howRemoved   = "was removed from the cluster"
	howRecovered = "was left behind when the cluster was recovered without it"
)

// departedError says what to do.
func departedError(node, cluster string, d *departed) error {
	return fmt.Errorf("%w: node %s of cluster %s %s at %s; to join again, empty the data directory: the node comes back as a new one",
		ErrDeparted, node, cluster, d.How, d.When.UTC().Format(time.RFC3339))
}

// MayLeave says why this node may not leave now, or nil.
func (n *Node) MayLeave(ctx context.Context, force bool, by *metav1.Envelope) error {
	if n.dir.who().ClusterID == "" {
		return meta.Refuse(preconditionKind, metav1.Noun_NOUN_CLUSTER, "this node is in no cluster yet: stop it")
	}
	_, err := n.Remove(ctx, n.id, force, true, by)
	return err
}

// Leave has this node removed by the leader, another one, and marks its directory: a
// restart on it is refused. Call it when nobody is served any more, after
// StepDown, and end Run after it. An error: the node is still a member.
func (n *Node) Leave(ctx context.Context, force bool, by *metav1.Envelope) error {
	n.leaving.Store(true)
	_, err := n.Remove(ctx, n.id, force, false, by)
	for attempt := 0; meta.KindOf(err) == metav1.Kind_KIND_OUTCOME_UNKNOWN && !n.wasRemoved(ctx); attempt++ {
		if _, tenure := n.leaders.now(); !pause(ctx, tenure, attempt) {
			break
		}
		_, err = n.Remove(ctx, n.id, force, false, by)
	}
	if err != nil {
		// The answer may have been lost, or the node removed by an earlier call.
		if !n.wasRemoved(ctx) {
			n.leaving.Store(false)
			return fmt.Errorf("leave the cluster: %w", err)
		}
	}
	return n.depart(howLeft)
}

// depart makes the end of the membership durable.
func (n *Node) depart(how string) error {
	_, err := n.dir.change(func(i *identity) bool {
		if i.Departed != nil {
			return false
		}
		i.Departed = &departed{How: how, When: time.Now()}
		return true
	})
	return err
}

// watchMembership ends a node that is no member any more, and forgets the
// addresses of those that are none. A removed node hears from nobody: so it asks.
func (n *Node) watchMembership(ctx context.Context) error {
	w := &watch{node: n, heard: time.Now(), members: map[string]bool{}}
	return every(ctx, n.cfg.brisk(membersEvery), func(ctx context.Context) error {
		if n.dir.who().ClusterID == "" || n.leaving.Load() {
			return nil
		}
		if err := w.forgetOthers(); err != nil {
			return err
		}
		how := w.ended(ctx)
		if how == "" || ctx.Err() != nil || n.leaving.Load() {
			return nil // Leave marks the directory, and whoever called it ends the node
		}
		if err := n.depart(how); err != nil {
			return err
		}
		who := n.dir.who()
		return departedError(n.id, who.ClusterID, who.Departed)
	})
}

// watch is what watchMembership remembers.
type watch struct {
	node *Node
	// heard is when there was a leader last.
	heard time.Time
	// members are those of the last look.
	members map[string]bool
}

// forgetOthers closes what is open to nodes that were members at the last look.
func (w *watch) forgetOthers() error {
	now := map[string]bool{}
	for _, s := range w.node.raft().GetConfiguration().Configuration().Servers {
		now[string(s.ID)] = true
	}
	for id := range w.members {
		if now[id] || id == w.node.id {
			continue
		}
		if w.node.host != nil {
			w.node.host.Forget(id)
		}
	}
	w.members = now
	return w.forgetAddresses(now)
}

// forgetAddresses drops those of who is no member, whenever it was removed: before this process
// began, between two looks, or while gossip still told of it.
func (w *watch) forgetAddresses(members map[string]bool) error {
	if leader, _ := w.node.leaders.now(); leader == "" || !members[w.node.id] {
		return nil // this node may not know yet who the members are
	}
	for _, id := range w.node.dir.acquainted() {
		if members[id] {
			continue
		}
		if err := w.node.dir.forgetPeer(id); err != nil {
			return fmt.Errorf("forget the address of node %s: %w", id, err)
		}
	}
	return nil
}

// ended answers how this node's membership ended, or nothing.
func (w *watch) ended(ctx context.Context) string {
	n := w.node
	if n.leftBehind(ctx) {
		return howRecovered
	}
	leader, _ := n.leaders.now()
	known := len(n.raft().GetConfiguration().Configuration().Servers) > 0
	if leader != "" && (n.configured(n.id) || !known) {
		w.heard = time.Now()
		return ""
	}
	if known && !n.configured(n.id) || time.Since(w.heard) > n.cfg.brisk(leaderless) {
		if n.wasRemoved(ctx) {
			return howRemoved
		}
	}
	return ""
}

// wasRemoved asks every node that may lead, all at once: one that swallows the question must not
// use up the time of the others. Only a leader's committed configuration counts: a
// member that lags, or a change that was never committed, must end nobody.
func (n *Node) wasRemoved(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var removed atomic.Bool
	var asking sync.WaitGroup
	for _, id := range n.acquaintances() {
		asking.Go(func() {
			peer, err := n.peer(id)
			if err != nil {
				return
			}
			if a, err := peer.Membership(ctx, &clusterv1.MembershipRequest{}); err == nil && a.GetRemoved() {
				removed.Store(true)
				cancel() // one is enough
			}
		})
	}
	asking.Wait()
	return removed.Load()
}

// acquaintances are the members that this node knows of, and who gossips to be of this cluster.
func (n *Node) acquaintances() []string {
	ids := map[string]bool{}
	for _, s := range n.raft().GetConfiguration().Configuration().Servers {
		ids[string(s.ID)] = true
	}
	if n.gossip != nil {
		for _, p := range n.gossip.Peers() {
			if p.ClusterID == n.ClusterID() {
				ids[p.ID] = true
			}
		}
	}
	delete(ids, n.id)
	return slices.Sorted(maps.Keys(ids))
}

// leftBehind says whether this cluster lives on in a later incarnation: an operator
// recovered it without this node, which was taken for lost. Gossip suggests it, the node itself must say so.
func (n *Node) leftBehind(ctx context.Context) bool {
	if n.gossip == nil {
		return false
	}
	who := n.dir.who()
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	for _, p := range n.gossip.Peers() {
		if p.ClusterID != who.ClusterID || p.Incarnation <= who.Incarnation {
			continue
		}
		d, err := n.describe(ctx, p.ID)
		if err == nil && d.GetClusterId() == who.ClusterID && d.GetIncarnation() > who.Incarnation {
			return true
		}
	}
	return false
}

// membership answers as the leader; a node that does not lead says nothing. Nor does one that cannot
// prove that it still leads: the caller may have joined under a leader that it has not heard of yet, and "removed" is for good.
func (n *Node) membership(ctx context.Context, caller string) *clusterv1.MembershipResponse {
	before, err := n.readIndex()
	if err != nil || !n.expelled(caller) || n.catchUp(ctx, proofTime, 0) != nil {
		return &clusterv1.MembershipResponse{}
	}
	after, err := n.readIndex()
	return &clusterv1.MembershipResponse{Removed: err == nil && after.term == before.term && n.expelled(caller)}
}

// expelled says whether a node is neither in the last configuration that was committed
// nor in a later one: a removal that was not committed may yet be lost with its leader.
func (n *Node) expelled(id string) bool {
	agreed, index := n.agreed()
	return index > 0 && !n.configured(id) &&
		!slices.ContainsFunc(agreed.Servers, func(s raft.Server) bool { return string(s.ID) == id })
}
