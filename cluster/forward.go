package cluster

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"

	"github.com/pontoon-registry/pontoon/cluster/transport"
	clusterv1 "github.com/pontoon-registry/pontoon/proto/pontoon/cluster/v1"
)

const (
	// forwardCalls is how many batches one node has on their way to the leader.
	forwardCalls = 4
	// forwardTimeout ends a call to a leader that hangs but is not deposed.
	forwardTimeout = 5 * time.Second
)

// forwarder carries the commands of a node that does not lead to the leader:
// those that wait share a call. One hop: the leader commits or refuses.
type forwarder struct {
	queue   *queue
	leaders *leaders
	self    string
	// peer answers the service of a node.
	peer func(id string) (clusterv1.NodeServiceClient, error)
	// learn tells this node's Raft of a commit (Node.learn).
	learn func(context.Context, transport.Commit)
}

// run is one of forwardCalls workers.
func (f *forwarder) run(ctx context.Context) error {
	for {
		calls, err := f.queue.take(ctx)
		if err != nil {
			f.queue.drain()
			return nil
		}
		f.send(ctx, calls)
	}
}

// send answers every call.
func (f *forwarder) send(ctx context.Context, calls []*call) {
	id, tenure := f.leaders.now()
	if id == "" || id == f.self {
		answerAll(calls, outcome{err: unavailable("the leader changed before the command was sent")})
		return
	}
	service, err := f.peer(id)
	if err != nil {
		answerAll(calls, outcome{err: unavailable("no connection to the leader %s: %v", id, err)})
		return
	}
	request := &clusterv1.ProposeRequest{Commands: make([][]byte, len(calls))}
	for i, c := range calls {
		request.Commands[i] = c.command
	}
	ctx, cancel := within(ctx, tenure, forwardTimeout)
	defer cancel()
	var reached peer.Peer // gRPC fills it in once the call has a connection
	response, err := service.Propose(ctx, request, grpc.Peer(&reached))
	if err == nil && len(response.GetOutcomes()) != len(calls) {
		err = unknownOutcome("the leader answered %d of %d commands", len(response.GetOutcomes()), len(calls))
	}
	if err != nil {
		answerAll(calls, outcome{err: lostCall(id, err, reached.Addr != nil)})
		return
	}
	var last uint64
	for i, o := range response.GetOutcomes() {
		calls[i].done <- outcomeOf(o)
		last = max(last, o.GetResult().GetIndex())
	}
	f.learn(ctx, transport.Commit{Leader: id, Term: response.GetTerm(), Index: last, EntryTerm: response.GetTerm()})
}

// lostCall sorts the errors of a call: a refusal is the service's own word; what
// was never put on a connection certainly has not come there; of anything else
// nobody knows how far it came.
func lostCall(leader string, err error, sent bool) error {
	err = fromStatus(err)
	if isRefusal(err) {
		return err
	}
	if !sent {
		return unavailable("the leader %s cannot be reached: %v", leader, err)
	}
	return unknownOutcome("the call to the leader %s was lost: %v", leader, err)
}
