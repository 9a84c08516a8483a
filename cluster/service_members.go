package cluster

import (
	"context"

	"github.com/pontoon-registry/pontoon/cluster/transport"
	clusterv1 "github.com/pontoon-registry/pontoon/proto/pontoon/cluster/v1"
)

// Health answers what the leader judges this node by.
func (s *service) Health(context.Context, *clusterv1.HealthRequest) (*clusterv1.HealthResponse, error) {
	return s.node.health(), nil
}

// Membership answers as the leader whether the caller is one of us.
func (s *service) Membership(ctx context.Context, _ *clusterv1.MembershipRequest) (*clusterv1.MembershipResponse, error) {
	caller, _ := transport.PeerID(ctx)
	return s.node.membership(ctx, caller), nil
}

// Remove removes a member, as the leader.
func (s *service) Remove(ctx context.Context, r *clusterv1.RemoveRequest) (*clusterv1.RemoveResponse, error) {
	id, err := s.node.removeHere(ctx, r.GetNode(), r.GetForce(), r.GetDryRun(), r.GetEnvelope())
	return &clusterv1.RemoveResponse{Id: id}, toStatus(err)
}

// Transfer hands over leadership, as the leader.
func (s *service) Transfer(ctx context.Context, r *clusterv1.TransferRequest) (*clusterv1.TransferResponse, error) {
	leader, err := s.node.transferHere(ctx, r.GetNode(), r.GetEnvelope())
	return &clusterv1.TransferResponse{LeaderId: leader}, toStatus(err)
}

// Finalize raises the cluster's version, as the leader.
func (s *service) Finalize(ctx context.Context, r *clusterv1.FinalizeRequest) (*clusterv1.FinalizeResponse, error) {
	answer, err := s.node.finalizeHere(ctx, r.GetEnvelope())
	return answer, toStatus(err)
}
