package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// markTimeout ends one attempt to read and claim the owner mark.
const markTimeout = 30 * time.Second

// found claims the bucket and bootstraps Raft with this node as the only voter. Every step may be repeated.
func (n *Node) found(ctx context.Context, f founding) error {
	if err := n.claim(ctx, f); err != nil {
		return err
	}
	err := n.raft().BootstrapCluster(raft.Configuration{Servers: []raft.Server{{
		Suffrage: raft.Voter, ID: raft.ServerID(n.id), Address: raft.ServerAddress(n.id),
	}}}).Error()
	if err != nil && !errors.Is(err, raft.ErrCantBootstrap) { // bootstrapped before a crash
		return fmt.Errorf("bootstrap: %w", err)
	}
	_, err = n.dir.change(func(i *identity) bool {
		i.ClusterID, i.Incarnation = f.ClusterID, 1
		return true
	})
	if err == nil {
		n.log.Info("founded a cluster", "cluster", f.ClusterID, "epoch", f.Epoch)
	}
	return err
}

// claim takes the owner mark; a bucket of another cluster ends the node.
func (n *Node) claim(ctx context.Context, f founding) error {
	if n.cfg.Mark == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, markTimeout)
	defer cancel()
	owner, epoch, err := n.cfg.Mark.Owner(ctx)
	if err == nil && owner == "" {
		claimErr := n.cfg.Mark.Claim(ctx, f.ClusterID, f.Epoch)
		if claimErr == nil {
			return nil
		}
		if owner, epoch, err = n.cfg.Mark.Owner(ctx); err == nil && owner == "" {
			err = claimErr
		}
	}
	switch {
	case err != nil:
		return fmt.Errorf("claim the store for the new cluster: %w", err)
	case owner != f.ClusterID:
		return fmt.Errorf("%w: the store belongs to cluster %s (epoch %s): start with that cluster's data directories, restore it from a backup, "+
			"join its nodes, or use an empty bucket or directory", errRefused, owner, epoch)
	}
	return nil
}

// initCluster is the very first command.
func (n *Node) initCluster(f *founding) *metav1.Command {
	return n.systemCommand(&metav1.Command{Kind: &metav1.Command_InitCluster{InitCluster: &metav1.InitCluster{
		ClusterId: f.ClusterID, Epoch: f.Epoch, Incarnation: 1, Version: n.cfg.newest, Name: n.cfg.ClusterName,
	}}})
}

// systemCommand is a command of the node itself.
func (n *Node) systemCommand(c *metav1.Command) *metav1.Command {
	c.Envelope = &metav1.Envelope{Actor: &metav1.Actor{Name: "system:node", Method: "system"}, NodeId: n.id}
	return c
}
