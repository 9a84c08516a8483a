package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pontoon-registry/pontoon/meta"
	clusterv1 "github.com/pontoon-registry/pontoon/proto/pontoon/cluster/v1"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// health is what this node says of itself.
func (n *Node) health() *clusterv1.HealthResponse {
	r := n.raft()
	term, _ := strconv.ParseUint(r.Stats()["last_log_term"], 10, 64) // Raft's own figure
	h := &clusterv1.HealthResponse{LastLog: r.LastIndex(), LastLogTerm: term, Applied: n.applied(), LastContact: -1}
	if r.State() == raft.Leader {
		h.LastContact = 0
	} else if at := r.LastContact(); !at.IsZero() {
		h.LastContact = int64(time.Since(at))
	}
	return h
}

// named finds a member by its id, or by its name if only one has it.
func (n *Node) named(name string) (string, error) {
	var found []string
	book := n.nodes()
	for _, s := range n.raft().GetConfiguration().Configuration().Servers {
		id := string(s.ID)
		if id == name {
			return id, nil
		}
		if slices.ContainsFunc(book, func(m *metav1.Node) bool { return m.GetId() == id && m.GetName() == name }) {
			found = append(found, id)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return "", meta.Refuse(metav1.Kind_KIND_UNKNOWN, metav1.Noun_NOUN_NODE, "node %q: no member has this id or name", name)
	}
	return "", meta.Refuse(metav1.Kind_KIND_INVALID, metav1.Noun_NOUN_NODE, "node %q: the members %s have this name: name one by its id", name, strings.Join(found, " and "))
}

// asked finds the leader for a verb and calls it: here, or on another node, one hop.
func asked[T any](ctx context.Context, n *Node, here func(context.Context) (T, error), there func(context.Context, clusterv1.NodeServiceClient) (T, error)) (T, error) {
	for attempt := 0; ; attempt++ {
		answer, err := askedOnce(ctx, n, here, there)
		// A verb whose call was lost may have been done; whoever asked looks and asks again.
		if err == nil || !isUnavailable(err) {
			return answer, err
		}
		_, tenure := n.leaders.now()
		if !pause(ctx, tenure, attempt) {
			return answer, err
		}
	}
}

func askedOnce[T any](ctx context.Context, n *Node, here func(context.Context) (T, error), there func(context.Context, clusterv1.NodeServiceClient) (T, error)) (T, error) {
	var nothing T
	leader, _ := n.leaders.now()
	switch leader {
	case "":
		return nothing, unavailable("no leader: a majority of the voters cannot be reached, or an election is under way; " +
			"if that majority is lost for good, see `pontoon cluster recover`")
	case n.id:
		return here(ctx)
	}
	peer, err := n.peer(leader)
	if err != nil {
		return nothing, unavailable("no connection to the leader %s: %v", leader, err)
	}
	answer, err := there(ctx, peer)
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
		err = lostCall(leader, err, true)
	}
	return answer, fromStatus(err)
}

// verbTime is how long a verb waits for a leader.
const verbTime = 10 * time.Second

// Remove removes a member for good, from any node: its id never belongs to the
// cluster again. It answers the id. Refused when it costs the quorum or the last
// tolerated failure, unless force says so; the last voter cannot be removed. dryRun only judges.
//
// A leader may lose its place while the removal is under way, and its answer with it. So the id is found first, and
// the leader asked again until one knows: that no member has the id is then what was wanted. Whoever says so
// has opened its term, so what earlier leaders began has either been committed or never will be.
func (n *Node) Remove(ctx context.Context, node string, force, dryRun bool, by *metav1.Envelope) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, verbTime)
	defer cancel()
	return n.removeBy(ctx, node, dryRun, func(node string, dryRun bool) (string, error) { return n.askToRemove(ctx, node, force, dryRun, by) })
}

// removeBy is Remove by what a leader answers.
func (n *Node) removeBy(ctx context.Context, node string, dryRun bool, ask func(node string, dryRun bool) (string, error)) (string, error) {
	id, err := n.askedUntilKnown(ctx, func() (string, error) { return ask(node, true) })
	switch {
	case meta.KindOf(err) == metav1.Kind_KIND_OUTCOME_UNKNOWN:
		return "", unavailable("node %s was not removed, its removal could not be judged: %v", node, err)
	case err != nil || dryRun:
		return id, err
	}
	_, err = n.askedUntilKnown(ctx, func() (string, error) { return ask(id, false) })
	switch meta.KindOf(err) {
	case metav1.Kind_KIND_UNKNOWN:
		return id, nil
	case metav1.Kind_KIND_OUTCOME_UNKNOWN:
		return "", unknownOutcome("node %s may or may not have been removed: %v", id, err)
	}
	if err != nil {
		return "", err
	}
	return id, nil
}

// askedUntilKnown asks again while the outcome is unknown, as long as there is time: for what is done once however often it
// is asked. Once it was unknown, that nobody can be asked any more says nothing.
func (n *Node) askedUntilKnown(ctx context.Context, ask func() (string, error)) (string, error) {
	var doubt error
	for attempt := 0; ; attempt++ {
		answer, err := ask()
		switch {
		case meta.KindOf(err) == metav1.Kind_KIND_OUTCOME_UNKNOWN:
			doubt = err
		case doubt == nil || !isUnavailable(err):
			return answer, err
		}
		if _, tenure := n.leaders.now(); !pause(ctx, tenure, attempt) {
			return "", doubt
		}
	}
}

// askToRemove asks the leader, here or on another node.
func (n *Node) askToRemove(ctx context.Context, node string, force, dryRun bool, by *metav1.Envelope) (string, error) {
	return asked(ctx, n,
		func(ctx context.Context) (string, error) { return n.removeHere(ctx, node, force, dryRun, by) },
		func(ctx context.Context, leader clusterv1.NodeServiceClient) (string, error) {
			a, err := leader.Remove(ctx, &clusterv1.RemoveRequest{Node: node, Force: force, DryRun: dryRun, Envelope: by})
			return a.GetId(), err
		})
}

// expel takes a member out of the configuration and the address book, in this
// order: a row without a member is swept up (bookkeeper), a member without a row would be nameless.
func (n *Node) expel(ctx context.Context, id string, by *metav1.Envelope) error {
	if err := n.raft().RemoveServer(raft.ServerID(id), 0, changeTime).Error(); err != nil {
		if errors.Is(err, raft.ErrNotLeader) || errors.Is(err, raft.ErrEnqueueTimeout) || errors.Is(err, raft.ErrLeadershipTransferInProgress) {
			return unavailable("node %s was not removed: %v", id, err)
		}
		return unknownOutcome("node %s may or may not have been removed: %v", id, err)
	}
	// Connections stay for a moment: the removed one should hear of it (watchMembership closes them).
	return n.strike(ctx, id, by)
}

// strike takes a row out of the address book.
func (n *Node) strike(ctx context.Context, id string, by *metav1.Envelope) error {
	_, err := n.Propose(ctx, &metav1.Command{Envelope: envelopeOf(by), Kind: &metav1.Command_RemoveNode{RemoveNode: &metav1.RemoveNode{Id: id}}})
	if meta.KindOf(err) == metav1.Kind_KIND_UNKNOWN {
		return nil // it never got so far as to be announced
	}
	if err != nil {
		return fmt.Errorf("forget node %s: %w", id, err)
	}
	return nil
}

// envelopeOf is who asked, for a command of this node.
func envelopeOf(by *metav1.Envelope) *metav1.Envelope {
	return &metav1.Envelope{Actor: by.GetActor(), ClientAddress: by.GetClientAddress(), RequestId: by.GetRequestId(), NodeId: by.GetNodeId()}
}

// Transfer hands leadership to a voter, or to the one that lacks least, and answers who leads then.
func (n *Node) Transfer(ctx context.Context, node string, by *metav1.Envelope) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, verbTime)
	defer cancel()
	return asked(ctx, n,
		func(ctx context.Context) (string, error) { return n.transferHere(ctx, node, by) },
		func(ctx context.Context, leader clusterv1.NodeServiceClient) (string, error) {
			a, err := leader.Transfer(ctx, &clusterv1.TransferRequest{Node: node, Envelope: by})
			return a.GetLeaderId(), err
		})
}

// transferHere is Transfer on the leader.
func (n *Node) transferHere(ctx context.Context, node string, by *metav1.Envelope) (string, error) {
	if n.opened.Load() == nil {
		return "", unavailable("node %s does not lead, or has just begun to", n.id)
	}
	refuse := func(format string, args ...any) error {
		return meta.Refuse(preconditionKind, metav1.Noun_NOUN_NODE, format, args...)
	}
	voting := voters(n.raft().GetConfiguration().Configuration())
	if len(voting) < 2 && node == "" {
		return "", refuse("node %s is the only voter: there is nobody to lead instead", n.id)
	}
	hand, to := func() raft.Future { return n.raft().LeadershipTransfer() }, ""
	if node != "" {
		id, err := n.named(node)
		switch {
		case err != nil:
			return "", err
		case id == n.id:
			return id, nil
		case !slices.Contains(voting, id):
			return "", refuse("node %s has no vote, so it cannot lead", id)
		}
		to, hand = id, func() raft.Future {
			return n.raft().LeadershipTransferToServer(raft.ServerID(id), raft.ServerAddress(id))
		}
	}
	n.log.Info("leadership is handed over", "to", node, "by", by.GetActor().GetName())
	return n.transferBy(ctx, to, hand)
}

// transferBy hands leadership to a voter, or to anybody. Where this node loses its place by itself meanwhile, whoever leads
// then is to be asked.
func (n *Node) transferBy(ctx context.Context, to string, hand func() raft.Future) (string, error) {
	leader, err := n.handOver(ctx, hand)
	_, leads := n.leads()
	switch {
	case err == nil && (to == "" || leader == to):
		return leader, nil
	case err == nil:
		return "", unavailable("leadership was lost to node %s before it was handed over", leader)
	case leads:
		return "", meta.Refuse(preconditionKind, metav1.Noun_NOUN_NODE, "%v: the other node may be down or lag; this one leads on", err)
	}
	return "", unavailable("leadership was lost before it was handed over: %v", err)
}
