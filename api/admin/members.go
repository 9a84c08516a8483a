package admin

import (
	"context"

	adminv1 "github.com/pontoon-registry/pontoon/proto/pontoon/admin/v1"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// Membership changes who belongs to the cluster, from any node. by is who asks.
// Its errors are refusals that say what to do.
type Membership interface {
	// Remove removes another node and answers its id; dryRun only judges.
	Remove(ctx context.Context, node string, force, dryRun bool, by *metav1.Envelope) (id string, err error)
	// Leave drains this node, has it removed and stops it; it answers once the node is no member any more.
	Leave(ctx context.Context, force, dryRun bool, by *metav1.Envelope) (id string, err error)
	// Transfer hands leadership over and answers who leads.
	Transfer(ctx context.Context, node string, by *metav1.Envelope) (leader string, err error)
	// Finalize raises the command version and answers what it was and is.
	Finalize(ctx context.Context, by *metav1.Envelope) (before, version uint32, err error)
}

// membership serves MemberService.
type membership struct {
	members    Members
	membership Membership
}

func (m *membership) ListMembers(ctx context.Context, _ *adminv1.ListMembersRequest) (*adminv1.ListMembersResponse, error) {
	s, err := m.members.Status(ctx)
	if err != nil {
		return nil, err
	}
	return &adminv1.ListMembersResponse{Cluster: s.GetCluster(), Members: s.GetMembers()}, nil
}

func (m *membership) RemoveMember(ctx context.Context, req *adminv1.RemoveMemberRequest) (*adminv1.RemoveMemberResponse, error) {
	if err := checkNode(req.GetNode()); err != nil {
		return nil, err
	}
	id, err := m.membership.Remove(ctx, req.GetNode(), req.GetForce(), req.GetDryRun(), envelope(ctx))
	return &adminv1.RemoveMemberResponse{Id: id}, err
}

func (m *membership) LeaveCluster(ctx context.Context, req *adminv1.LeaveClusterRequest) (*adminv1.LeaveClusterResponse, error) {
	id, err := m.membership.Leave(ctx, req.GetForce(), req.GetDryRun(), envelope(ctx))
	return &adminv1.LeaveClusterResponse{Id: id}, err
}

func (m *membership) TransferLeadership(ctx context.Context, req *adminv1.TransferLeadershipRequest) (*adminv1.TransferLeadershipResponse, error) {
	if req.GetNode() != "" {
		if err := checkNode(req.GetNode()); err != nil {
			return nil, err
		}
	}
	leader, err := m.membership.Transfer(ctx, req.GetNode(), envelope(ctx))
	return &adminv1.TransferLeadershipResponse{Leader: leader}, err
}

func (m *membership) FinalizeUpgrade(ctx context.Context, _ *adminv1.FinalizeUpgradeRequest) (*adminv1.FinalizeUpgradeResponse, error) {
	before, version, err := m.membership.Finalize(ctx, envelope(ctx))
	return &adminv1.FinalizeUpgradeResponse{Before: before, Version: version}, err
}

// checkNode bounds an id or a name.
func checkNode(s string) error {
	if s == "" || len(s) > nameBound {
		return invalid(metav1.Noun_NOUN_NODE, "node: got %d bytes, expected 1 to %d: an id or a name, as `pontoon cluster members` lists them", len(s), nameBound)
	}
	return nil
}
