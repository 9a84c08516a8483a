package cluster

import (
	"context"
	"fmt"
	"time"

	"github.com/pontoon-registry/pontoon/meta"
	clusterv1 "github.com/pontoon-registry/pontoon/proto/pontoon/cluster/v1"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

const (
	upgradeEvery = 5 * time.Second
	// upgradeAfter is for how long all members must have understood a newer version
	// before the cluster takes it: a rolling upgrade that goes wrong is seen sooner.
	upgradeAfter = time.Minute
)

// version is the cluster's command version in this node's state; 0 before there is one.
func (n *Node) version() uint32 {
	system, err := n.System()
	if err != nil {
		return 0
	}
	return system.GetVersion()
}

// permit is the leader's door: no kind of command that is newer than the cluster (M7), and no origin of a node
// that was removed: forgotten with the node, it would stay for ever where the node came back from a partition
// and sent what it had, before it heard that it is no member (M5). One that was let in before the removal was
// committed, and comes after it in the log, stays: a row of some hundred bytes, which nothing uses.
func (n *Node) permit(c *metav1.Command) error {
	if o := c.GetRegisterOrigin(); o != nil && n.expelled(o.GetNodeId()) {
		return unavailable("node %s is no member", o.GetNodeId())
	}
	needed := meta.NeededVersion(c)
	if needed <= OldestVersion && c.GetRaiseVersion() == nil {
		return nil // nearly all: without a look at the state
	}
	if have := n.version(); needed > have && have > 0 {
		return meta.Refuse(metav1.Kind_KIND_UNSUPPORTED, metav1.Noun_NOUN_CLUSTER,
			"the command needs the command version %d, the cluster has %d: upgrade all nodes%s", needed, have, finalizeHint(n.cfg.ManualUpgrade))
	}
	all, behind := n.understoodByAll()
	if next := c.GetRaiseVersion().GetVersion(); next > all {
		return meta.Refuse(preconditionKind, metav1.Noun_NOUN_CLUSTER, "the command version %d is not understood by %s", next, behind)
	}
	return nil
}

func finalizeHint(manual bool) string {
	if manual {
		return ", then call `pontoon cluster finalize`"
	}
	return ""
}

// understoodByAll answers the newest command version that all members understand,
// by the address book, and who does not understand a newer one.
func (n *Node) understoodByAll() (version uint32, behind string) {
	book := map[string]*metav1.Node{}
	for _, m := range n.nodes() {
		book[m.GetId()] = m
	}
	version = n.cfg.newest
	behind = "this release"
	for _, s := range n.raft().GetConfiguration().Configuration().Servers {
		m := book[string(s.ID)]
		if m.GetMaxVersion() < version {
			version, behind = m.GetMaxVersion(), fmt.Sprintf("node %s (%s, release %q, up to %d)", s.ID, m.GetName(), m.GetRelease(), m.GetMaxVersion())
		}
	}
	return version, behind
}

// understoodBy refuses a node that could not apply what the cluster logs, with what to do.
func (n *Node) understoodBy(node *metav1.Node) error {
	if err := understands(n.version(), node.GetMinVersion(), node.GetMaxVersion()); err != nil {
		return meta.Refuse(metav1.Kind_KIND_UNSUPPORTED, metav1.Noun_NOUN_NODE, "node %s (release %q): %v", node.GetId(), node.GetRelease(), err)
	}
	return nil
}

// understandsCluster refuses to start with a state that this release cannot go on from.
func (n *Node) understandsCluster(version uint32) error {
	return understands(version, n.cfg.oldest, n.cfg.newest)
}

func understands(cluster, oldest, newest uint32) error {
	switch {
	case cluster > newest:
		return fmt.Errorf("the cluster has command version %d, this release knows %d to %d: install the release that the other nodes run, or a newer one",
			cluster, oldest, newest)
	case cluster < oldest && cluster > 0:
		return fmt.Errorf("the cluster has command version %d, this release needs at least %d: install a release between on all nodes, "+
			"let the version rise (`pontoon cluster finalize` where cluster.upgrade is manual), then install this one", cluster, oldest)
	}
	return nil
}

// upgrade is the duty that raises the cluster's version once all members have understood it for a while.
func (n *Node) upgrade(ctx context.Context, _ Leadership) error {
	if n.cfg.ManualUpgrade {
		return nil
	}
	var since time.Time
	var goal uint32
	return every(ctx, n.cfg.brisk(min(upgradeEvery, n.cfg.upgradeAfter)), func(ctx context.Context) error {
		all, _ := n.understoodByAll()
		now := n.version()
		if now == 0 || all <= now {
			goal = 0
			return nil
		}
		if goal != all {
			goal, since = all, time.Now()
		}
		if time.Since(since) < n.cfg.upgradeAfter {
			return nil
		}
		return n.raise(ctx, now, all, &metav1.Envelope{Actor: &metav1.Actor{Name: "system:upgrade", Method: "system"}})
	})
}

func (n *Node) raise(ctx context.Context, before, version uint32, by *metav1.Envelope) error {
	_, err := n.Propose(ctx, &metav1.Command{Envelope: envelopeOf(by),
		Kind: &metav1.Command_RaiseVersion{RaiseVersion: &metav1.RaiseVersion{Version: version}}})
	if err != nil {
		return fmt.Errorf("raise the command version to %d: %w", version, err)
	}
	n.log.Info("the cluster's command version rose: older releases can neither join nor be installed again",
		"from", before, "to", version, "by", by.GetActor().GetName())
	return nil
}

// Finalize raises the cluster's command version to what all members understand,
// from any node, and answers what it was and is; equal when there was nothing to do.
func (n *Node) Finalize(ctx context.Context, by *metav1.Envelope) (before, version uint32, err error) {
	ctx, cancel := context.WithTimeout(ctx, verbTime)
	defer cancel()
	a, err := asked(ctx, n,
		func(ctx context.Context) (*clusterv1.FinalizeResponse, error) { return n.finalizeHere(ctx, by) },
		func(ctx context.Context, leader clusterv1.NodeServiceClient) (*clusterv1.FinalizeResponse, error) {
			return leader.Finalize(ctx, &clusterv1.FinalizeRequest{Envelope: by})
		})
	return a.GetBefore(), a.GetVersion(), err
}

func (n *Node) finalizeHere(ctx context.Context, by *metav1.Envelope) (*clusterv1.FinalizeResponse, error) {
	if n.opened.Load() == nil {
		return nil, unavailable("node %s does not lead, or has just begun to", n.id)
	}
	now := n.version()
	all, behind := n.understoodByAll()
	switch {
	case all < n.cfg.newest && all <= now:
		return nil, meta.Refuse(preconditionKind, metav1.Noun_NOUN_CLUSTER, "the command version stays %d: %s does not understand more; "+
			"upgrade it, or remove it if it is gone for good", now, behind)
	case all <= now:
		return &clusterv1.FinalizeResponse{Before: now, Version: now}, nil
	}
	if err := n.raise(ctx, now, all, by); err != nil {
		return nil, err
	}
	return &clusterv1.FinalizeResponse{Before: now, Version: all}, nil
}
