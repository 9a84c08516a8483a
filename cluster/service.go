package cluster

import (
	"context"
	"time"

	"github.com/hashicorp/raft"

	"github.com/pontoon-registry/pontoon/cluster/transport"
	"github.com/pontoon-registry/pontoon/meta"
	clusterv1 "github.com/pontoon-registry/pontoon/proto/pontoon/cluster/v1"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// service answers other nodes. The transport has checked who calls, and, but
// for Describe, Pledge and Join, that both belong to the same cluster.
type service struct {
	clusterv1.UnimplementedNodeServiceServer
	node *Node
}

// Propose commits what another node forwards, or refuses: never a second hop.
func (s *service) Propose(ctx context.Context, r *clusterv1.ProposeRequest) (*clusterv1.ProposeResponse, error) {
	if len(r.GetCommands()) > batchCommands {
		return nil, toStatus(meta.Refuse(metav1.Kind_KIND_TOO_LARGE, clusterNoun, "%d commands in one call, the bound is %d", len(r.GetCommands()), batchCommands))
	}
	calls := make([]*call, len(r.GetCommands()))
	for i, command := range r.GetCommands() {
		calls[i] = newCall(command)
		err := checkCommand(command, s.node.permit)
		if err == nil {
			err = s.node.commit.queue.put(calls[i])
		}
		if err != nil {
			calls[i].done <- outcome{err: err}
		}
	}
	response := &clusterv1.ProposeResponse{Outcomes: make([]*clusterv1.Outcome, len(calls))}
	var last uint64
	for i, c := range calls {
		select {
		case o := <-c.done:
			response.Outcomes[i] = o.proto()
			last = max(last, o.result.GetIndex())
		case <-ctx.Done():
			// The caller is gone or out of time: for it, every outcome of this call is unknown.
			return nil, toStatus(ctx.Err())
		}
	}
	response.Term = s.node.termOf(last)
	return response, nil
}

// ReadIndex answers as the leader.
func (s *service) ReadIndex(context.Context, *clusterv1.ReadIndexRequest) (*clusterv1.ReadIndexResponse, error) {
	at, err := s.node.readIndex()
	if err != nil {
		return nil, toStatus(err)
	}
	return &clusterv1.ReadIndexResponse{Term: at.term, Index: at.index, Voters: at.voters, IndexTerm: at.indexTerm}, nil
}

// Term samples the current term: persisted before any vote in it is granted.
func (s *service) Term(context.Context, *clusterv1.TermRequest) (*clusterv1.TermResponse, error) {
	r := s.node.raft()
	return &clusterv1.TermResponse{Term: r.CurrentTerm(), Applied: s.node.applied(), LastLog: r.LastIndex(), LowOnSpace: s.node.space.low() != nil}, nil
}

// Hashes answers what this node has noted of its state (M9).
func (s *service) Hashes(_ context.Context, r *clusterv1.HashesRequest) (*clusterv1.HashesResponse, error) {
	response := &clusterv1.HashesResponse{}
	for _, index := range r.GetIndexes()[:min(len(r.GetIndexes()), notesAsked)] {
		if sum, err := s.node.state.HashAt(index); err == nil {
			response.Notes = append(response.Notes, &clusterv1.HashNote{Index: index, Sha256: sum})
		}
	}
	return response, nil
}

// Describe says who this node is.
func (s *service) Describe(context.Context, *clusterv1.DescribeRequest) (*clusterv1.DescribeResponse, error) {
	who := s.node.dir.who()
	leader, _ := s.node.leaders.now()
	at, _ := s.node.resolve(leader)
	return &clusterv1.DescribeResponse{
		Node: s.node.self(), ClusterId: who.ClusterID, Incarnation: who.Incarnation, LeaderId: leader, LeaderAddress: at,
		Pledge: who.Pledge.proto(), PrivateStore: s.node.cfg.PrivateStore, Uptime: int64(time.Since(s.node.began)),
	}, nil
}

// Pledge answers whether this node's durable word is what the founder needs.
// It gives none: the node pledges by what it sees itself (decide).
func (s *service) Pledge(ctx context.Context, r *clusterv1.PledgeRequest) (*clusterv1.PledgeResponse, error) {
	who := s.node.dir.who()
	caller, _ := transport.PeerID(ctx)
	asked := pledgeOf(r.GetPledge())
	agreed := who.ClusterID == "" && asked != nil && asked.Founder == caller && asked.equal(who.Pledge)
	return &clusterv1.PledgeResponse{Agreed: agreed, Pledge: who.Pledge.proto()}, nil
}

// Join admits the caller as a node without a vote.
func (s *service) Join(ctx context.Context, r *clusterv1.JoinRequest) (*clusterv1.JoinResponse, error) {
	response, err := s.node.admit(ctx, r)
	if err != nil {
		return nil, toStatus(err)
	}
	return response, nil
}

func (n *Node) admit(ctx context.Context, r *clusterv1.JoinRequest) (*clusterv1.JoinResponse, error) {
	who := n.dir.who()
	if who.ClusterID == "" {
		return nil, unavailable("node %s is in no cluster itself", n.id)
	}
	if err := n.admissible(ctx, who, r); err != nil {
		return nil, err
	}
	leader, _ := n.leaders.now()
	if n.opened.Load() == nil {
		if leader == n.id {
			return nil, unavailable("node %s has just begun to lead", n.id)
		}
		at, _ := n.resolve(leader)
		return &clusterv1.JoinResponse{LeaderId: leader, LeaderAddress: at}, nil
	}
	id := r.GetNode().GetId()
	if _, err := n.Propose(ctx, n.systemCommand(&metav1.Command{Kind: &metav1.Command_PutNode{PutNode: &metav1.PutNode{Node: r.GetNode()}}})); err != nil {
		return nil, err
	}
	if !n.configured(id) {
		if err := n.raft().AddNonvoter(raft.ServerID(id), raft.ServerAddress(id), 0, time.Second).Error(); err != nil {
			return nil, unavailable("node %s could not be added: %v", id, err)
		}
		n.log.Info("a node joins", "joiner", id, "name", r.GetNode().GetName(), "address", r.GetNode().GetAddress())
	}
	return &clusterv1.JoinResponse{Admitted: true, ClusterId: who.ClusterID, Incarnation: who.Incarnation, Nodes: n.nodes()}, nil
}

// admissible refuses what must not join; it is asked on any member, the leader last.
func (n *Node) admissible(ctx context.Context, who identity, r *clusterv1.JoinRequest) error {
	node := r.GetNode()
	caller, _ := transport.PeerID(ctx)
	refuse := func(kind metav1.Kind, format string, args ...any) error {
		return meta.Refuse(kind, metav1.Noun_NOUN_NODE, format, args...)
	}
	switch {
	case node.GetId() != caller:
		return refuse(metav1.Kind_KIND_DENIED, "the certificate is of node %q but the request of node %q", caller, node.GetId())
	case r.GetClusterId() != "" && r.GetClusterId() != who.ClusterID:
		return refuse(metav1.Kind_KIND_DENIED, "this is cluster %s, the node means cluster %s (ClusterID)", who.ClusterID, r.GetClusterId())
	case r.GetPrivateStore() || n.cfg.PrivateStore:
		return refuse(metav1.Kind_KIND_DENIED, "layers are in a directory that is not declared to be shared by all nodes: "+
			"set storage.filesystem.shared on every node if they mount the same one, or use storage.s3")
	}
	if err := n.understoodBy(node); err != nil {
		return err
	}
	if node.GetAddress() == "" {
		return refuse(metav1.Kind_KIND_INVALID, "node %s has no address", node.GetId())
	}
	if err := certifiedAs(ctx, node); err != nil {
		return err
	}
	return n.nameIsFree(ctx, node)
}

// nameIsFree refuses the name of a member that answers. A silent one's may be
// taken: that is how a node comes back whose disk was lost (pilot.superseded).
func (n *Node) nameIsFree(ctx context.Context, node *metav1.Node) error {
	ctx, cancel := context.WithTimeout(ctx, askHealth)
	defer cancel()
	for _, m := range n.nodes() {
		if node.GetName() == "" || m.GetName() != node.GetName() || m.GetId() == node.GetId() || !n.configured(m.GetId()) {
			continue
		}
		if _, err := n.healthOf(ctx, m.GetId()); err == nil {
			return meta.Refuse(metav1.Kind_KIND_CONFLICT, metav1.Noun_NOUN_NODE, "the name %q is that of node %s at %s, which answers: "+
				"give this node another name (cluster.node)", node.GetName(), m.GetId(), m.GetAddress())
		}
	}
	return nil
}

// configured says whether Raft's latest configuration has the node.
func (n *Node) configured(id string) bool {
	for _, s := range n.raft().GetConfiguration().Configuration().Servers {
		if string(s.ID) == id {
			return true
		}
	}
	return false
}
