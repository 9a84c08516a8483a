package cluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pontoon-registry/pontoon/meta"
	clusterv1 "github.com/pontoon-registry/pontoon/proto/pontoon/cluster/v1"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

const (
	// formEvery is how often a node without a cluster looks around.
	formEvery = 500 * time.Millisecond
	// askTimeout ends one question to another node.
	askTimeout = 2 * time.Second
)

// startOver is what an operator can do about a node that pledged and is gone: a pledge is for good (R-D2).
const startOver = "; if that node will never be back, stop all that pledged to it, empty their data directories (nothing is in them yet) and start again"

// errRefused wraps what ends the node: waiting would not help, an operator must act.
var errRefused = errors.New("refused")

// belong brings the node into a cluster, and then keeps its entry in the address book right.
//
//	no cluster ─► one in sight: Join ──────────────────────────────┐
//	          └─► none: pledge ─► founder: all pledged ─► mark ─► bootstrap ─► member ─► announce
func (n *Node) belong(ctx context.Context) error {
	for n.dir.who().ClusterID == "" {
		if err := n.form(ctx); ctx.Err() != nil {
			return nil
		} else if errors.Is(err, errRefused) {
			return err
		} else if err != nil {
			n.waitingFor(err.Error())
		}
		if !n.lookAgain(ctx, formEvery) {
			return nil
		}
	}
	n.setPhase("waiting for the first read index")
	n.tellGossip()
	return n.announce(ctx)
}

// waitingFor says once what a start waits for.
func (n *Node) waitingFor(what string) {
	if *n.phase.Load() != what {
		n.setPhase(what)
		n.log.Info("not in a cluster yet", "reason", what)
	}
}

func (n *Node) lookAgain(ctx context.Context, every time.Duration) bool {
	t := time.NewTimer(n.cfg.brisk(every))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// form makes one attempt. An error says what it waits for.
func (n *Node) form(ctx context.Context) error {
	expect, err := n.cfg.expected(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", errRefused, err)
	}
	if f := n.dir.who().Founding; f != nil {
		return n.found(ctx, *f)
	}
	sights, err := n.lookAround(ctx)
	if err != nil {
		return err
	}
	joined, err := n.tryJoin(ctx, sights)
	if joined || err != nil {
		return err
	}
	return n.negotiate(ctx, expect, sights)
}

// lookAround asks every node in sight who it is.
func (n *Node) lookAround(ctx context.Context) (map[string]*clusterv1.DescribeResponse, error) {
	if n.gossip == nil {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var mu sync.Mutex
	var asking sync.WaitGroup
	sights, silent := map[string]*clusterv1.DescribeResponse{}, map[string]string{}
	for _, p := range n.gossip.Peers() {
		asking.Go(func() {
			d, err := n.describe(ctx, p.ID)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				silent[p.ID] = p.ClusterID
				n.log.Debug("a node in sight does not answer", "peer", p.ID, "address", p.NodeAddr, "error", err)
				return
			}
			sights[p.ID] = d
		})
	}
	asking.Wait()
	// A silent node may be of a cluster: forming another one beside it, or choosing
	// one, must wait. One that gossips of the cluster that is in sight anyway tells nothing new.
	for _, s := range sights {
		maps.DeleteFunc(silent, func(_, cluster string) bool { return cluster != "" && cluster == s.GetClusterId() })
	}
	if len(silent) > 0 {
		return nil, fmt.Errorf("waiting for %s to answer: gossip sees it, but its node address does not answer",
			strings.Join(slices.Sorted(maps.Keys(silent)), ", "))
	}
	return sights, nil
}

func (n *Node) describe(ctx context.Context, id string) (*clusterv1.DescribeResponse, error) {
	peer, err := n.peer(id)
	if err != nil {
		return nil, err
	}
	return peer.Describe(ctx, &clusterv1.DescribeRequest{})
}

// tryJoin joins the cluster in sight, if there is one: always before forming another.
func (n *Node) tryJoin(ctx context.Context, sights map[string]*clusterv1.DescribeResponse) (bool, error) {
	members := map[string][]string{}
	for id, s := range sights {
		if c := s.GetClusterId(); c != "" {
			members[c] = append(members[c], id)
		}
	}
	ids := slices.Sorted(maps.Keys(members))
	switch {
	case len(ids) == 0:
		return false, nil
	case n.cfg.ClusterID != "" && members[n.cfg.ClusterID] == nil:
		return false, fmt.Errorf("ClusterID is %s, but only %s is in sight", n.cfg.ClusterID, strings.Join(ids, " and "))
	case n.cfg.ClusterID != "":
		return true, n.join(ctx, members[n.cfg.ClusterID])
	case len(ids) > 1: // R-D3
		return false, fmt.Errorf("%d clusters are in sight, %s: set ClusterID to the one that is meant", len(ids), strings.Join(ids, " and "))
	}
	return true, n.join(ctx, members[ids[0]])
}

// join asks the members in turn, and the leader that they name.
func (n *Node) join(ctx context.Context, members []string) error {
	slices.Sort(members)
	err := error(errors.New("no member of the cluster answered"))
	for asked := 0; len(members) > 0 && asked < 2*maxExpect; asked++ {
		var answer *clusterv1.JoinResponse
		if answer, err = n.askToJoin(ctx, members[0]); err != nil {
			if isRefusal(err) && !isUnavailable(err) && meta.KindOf(err) != metav1.Kind_KIND_OUTCOME_UNKNOWN {
				return fmt.Errorf("join cluster: %w by node %s: %w", errRefused, members[0], err)
			}
			members = members[1:]
			continue
		}
		if answer.GetAdmitted() {
			return n.admitted(answer)
		}
		members = members[1:]
		if leader := answer.GetLeaderId(); leader != "" {
			members = append([]string{leader}, members...)
		}
		err = errors.New("the cluster has no leader now; if that lasts, bring a majority of its voters back")
	}
	return fmt.Errorf("join cluster: %w", err)
}

func (n *Node) askToJoin(ctx context.Context, id string) (*clusterv1.JoinResponse, error) {
	peer, err := n.peer(id)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*askTimeout)
	defer cancel()
	answer, err := peer.Join(ctx, &clusterv1.JoinRequest{Node: n.self(), ClusterId: n.cfg.ClusterID, PrivateStore: n.cfg.PrivateStore})
	return answer, fromStatus(err)
}

// admitted makes membership durable; from here on the leader's calls are accepted.
func (n *Node) admitted(a *clusterv1.JoinResponse) error {
	seen := map[string]address{}
	for _, m := range a.GetNodes() {
		seen[m.GetId()] = address{Node: m.GetAddress(), Gossip: m.GetGossipAddress()}
	}
	if err := n.dir.remember(seen); err != nil {
		return err
	}
	_, err := n.dir.change(func(i *identity) bool {
		i.ClusterID, i.Incarnation = a.GetClusterId(), a.GetIncarnation()
		return true
	})
	if err == nil {
		n.log.Info("joined a cluster", "cluster", a.GetClusterId())
	}
	return err
}

// negotiate pledges, and as the founder of a set that agrees, founds.
func (n *Node) negotiate(ctx context.Context, expect int, sights map[string]*clusterv1.DescribeResponse) error {
	if n.cfg.ClusterID != "" { // a cluster formed here would have another id
		return fmt.Errorf("waiting for a node of cluster %s (ClusterID)", n.cfg.ClusterID)
	}
	seen := map[string]*pledge{}
	for id, s := range sights {
		seen[id] = pledgeOf(s.GetPledge())
	}
	who, err := n.dir.change(func(i *identity) bool {
		next := decide(n.id, expect, i.Pledge, seen)
		if i.Founding != nil || i.ClusterID != "" || next == nil || next.equal(i.Pledge) {
			return false
		}
		i.Pledge = next
		return true
	})
	switch {
	case err != nil:
		return err
	case who.Pledge == nil:
		return fmt.Errorf("waiting for %d nodes to form a cluster, %d in sight", expect, len(sights)+1)
	case who.Pledge.Founder != n.id && sights[who.Pledge.Founder] == nil:
		return fmt.Errorf("waiting for node %s, which is out of sight, to found the cluster of %s%s",
			who.Pledge.Founder, strings.Join(who.Pledge.Members, ", "), startOver)
	case who.Pledge.Founder != n.id:
		return fmt.Errorf("waiting for node %s to found the cluster of %s", who.Pledge.Founder, strings.Join(who.Pledge.Members, ", "))
	case len(who.Pledge.Members) != expect:
		return fmt.Errorf("pledged to form a cluster of %d nodes, but Expect is %d now: empty the data directory to start over", len(who.Pledge.Members), expect)
	}
	if err := n.gatherPledges(ctx, who.Pledge); err != nil {
		return err
	}
	who, err = n.dir.change(func(i *identity) bool {
		if i.Founding != nil || !i.Pledge.equal(who.Pledge) {
			return false
		}
		i.Founding = &founding{ClusterID: randomID(), Epoch: randomID()[:12]}
		return true
	})
	if err != nil || who.Founding == nil {
		return err
	}
	return n.found(ctx, *who.Founding)
}

// gatherPledges asks every member for its durable word.
func (n *Node) gatherPledges(ctx context.Context, p *pledge) error {
	for _, id := range p.Members {
		if id == n.id {
			continue
		}
		peer, err := n.peer(id)
		if err != nil {
			return err
		}
		ask, cancel := context.WithTimeout(ctx, askTimeout)
		answer, err := peer.Pledge(ask, &clusterv1.PledgeRequest{Pledge: p.proto()})
		cancel()
		if err != nil {
			return fmt.Errorf("waiting for the pledge of node %s: %w%s", id, fromStatus(err), startOver)
		}
		if !answer.GetAgreed() {
			return fmt.Errorf("waiting for node %s to pledge to %s; it is pledged to %q", id, strings.Join(p.Members, ", "), answer.GetPledge().GetMembers())
		}
	}
	return nil
}
