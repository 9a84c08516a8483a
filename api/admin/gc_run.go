package admin

import (
	"context"
	"slices"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"github.com/pontoon-registry/pontoon/meta"
	adminv1 "github.com/pontoon-registry/pontoon/proto/pontoon/admin/v1"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

func (c *collection) RunCycle(ctx context.Context, req *adminv1.RunCycleRequest, stream *connect.ServerStream[adminv1.RunCycleResponse]) error {
	asked, err := c.request(ctx, nil)
	if err != nil {
		return err
	}
	last := &adminv1.RunCycleResponse{Request: asked}
	if err := stream.Send(last); err != nil || !req.GetWait() {
		return err
	}
	tick := time.NewTicker(c.poll)
	defer tick.Stop()
	moved := time.Now()
	for {
		now, busy, err := c.answerTo(ctx, asked)
		switch {
		case meta.KindOf(err) == metav1.Kind_KIND_UNAVAILABLE && ctx.Err() == nil:
			now = last // no leader for the moment: the next one goes on with the cycle
			busy = last.GetCycle() != nil
		case err != nil:
			return err
		}
		if !proto.Equal(now, last) {
			if err := stream.Send(now); err != nil {
				return err
			}
			last = now
		}
		if now.GetCycle().GetEnded() != nil {
			return nil
		}
		if busy {
			moved = time.Now()
		} else if time.Since(moved) > c.begin {
			return meta.Refuse(metav1.Kind_KIND_UNAVAILABLE, metav1.Noun_NOUN_CYCLE, "no node has begun the cycle within %v: either nobody leads, "+
				"or gc.enabled is false on the node that does (pontoon status); the request stays", c.begin)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// request asks for a cycle and answers the index of the request.
func (c *collection) request(ctx context.Context, forgetEpochs []string) (uint64, error) {
	command := requestCycle(forgetEpochs)
	command.Envelope = envelope(ctx)
	res, err := c.ledger.Propose(ctx, command)
	return res.GetIndex(), err
}

func requestCycle(forgetEpochs []string) *metav1.Command {
	return &metav1.Command{Kind: &metav1.Command_RequestCycle{RequestCycle: &metav1.RequestCycle{ForgetEpochs: forgetEpochs}}}
}

// answerTo is the cycle that answers a request: of those whose last request is not before it the first that began. busy: it, or
// another one, runs.
func (c *collection) answerTo(ctx context.Context, asked uint64) (out *adminv1.RunCycleResponse, busy bool, err error) {
	out = &adminv1.RunCycleResponse{Request: asked}
	err = c.ledger.View(ctx, meta.Read{MinIndex: asked}, func(v *meta.View) error {
		row, err := v.Collection()
		if err != nil {
			return err
		}
		history, err := v.Cycles(cyclesBound)
		if err != nil {
			return err
		}
		busy = row.GetRunning() != nil
		if run := row.GetRunning(); run.GetRequest().GetLast().GetIndex() >= asked {
			out.Cycle = cycleOf(run)
		}
		for _, ended := range history { // the last first
			if ended.GetRequest().GetLast().GetIndex() >= asked {
				out.Cycle = cycleOf(ended)
			}
		}
		return nil
	})
	return out, busy, err
}

func (c *collection) PlanCycle(ctx context.Context, req *adminv1.PlanCycleRequest, stream *connect.ServerStream[adminv1.PlanCycleResponse]) error {
	if err := checkEpochs(req.GetForgetEpochs()); err != nil {
		return err
	}
	return c.collector.Plan(ctx, req.GetForgetEpochs(), stream.Send)
}

func (c *collection) VerifyStore(ctx context.Context, req *adminv1.VerifyStoreRequest, stream *connect.ServerStream[adminv1.VerifyStoreResponse]) error {
	return c.collector.Verify(ctx, req.GetMarkLost(), envelope(ctx), stream.Send)
}

func (c *collection) AdoptStore(ctx context.Context, req *adminv1.AdoptStoreRequest, stream *connect.ServerStream[adminv1.AdoptStoreResponse]) error {
	if len(req.GetFrom()) > nameBound {
		return invalid(metav1.Noun_NOUN_CLUSTER, "from: got %d bytes, at most %d: the id of the cluster that has the mark", len(req.GetFrom()), nameBound)
	}
	if err := checkEpochs(req.GetForgetEpochs()); err != nil {
		return err
	}
	if err := c.mayForget(ctx, req.GetForgetEpochs()); err != nil {
		return err
	}
	adoption, err := c.collector.Adopt(ctx, req, envelope(ctx), func(search *adminv1.VerifyStoreResponse) error {
		return stream.Send(&adminv1.AdoptStoreResponse{Kind: &adminv1.AdoptStoreResponse_Search{Search: search}})
	})
	if err != nil {
		return err
	}
	if len(req.GetForgetEpochs()) > 0 && !req.GetDryRun() {
		if adoption.Request, err = c.request(ctx, req.GetForgetEpochs()); err != nil {
			return err
		}
	}
	return stream.Send(&adminv1.AdoptStoreResponse{Kind: &adminv1.AdoptStoreResponse_Adoption{Adoption: adoption}})
}

const (
	epochsBound = 100
	epochBound  = 32
)

// checkEpochs bounds the epochs to forget; the ledger decides what each is.
func checkEpochs(epochs []string) error {
	if len(epochs) > epochsBound {
		return invalid(metav1.Noun_NOUN_CYCLE, "forget_epochs: got %d, at most %d", len(epochs), epochsBound)
	}
	for _, e := range epochs {
		ok := len(e) >= 1 && len(e) <= epochBound
		for i := range len(e) {
			ok = ok && (e[i] >= 'a' && e[i] <= 'z' || e[i] >= '0' && e[i] <= '9')
		}
		if !ok {
			return invalid(metav1.Noun_NOUN_CYCLE, "forget_epochs: got %.64q, expected 1 to %d lowercase letters and digits", e, epochBound)
		}
	}
	return nil
}

// mayForget refuses this cluster's own epoch, and any in a cluster whose command version knows of none, before the mark is
// taken for it.
func (c *collection) mayForget(ctx context.Context, epochs []string) error {
	if len(epochs) == 0 {
		return nil
	}
	return c.ledger.View(ctx, meta.Read{}, func(v *meta.View) error {
		system, err := v.System()
		if err != nil {
			return err
		}
		needed := meta.NeededVersion(requestCycle(epochs))
		if now := system.GetVersion(); now < needed {
			return meta.Refuse(metav1.Kind_KIND_UNSUPPORTED, metav1.Noun_NOUN_CYCLE,
				"forget_epochs: needs command version %d, the cluster has %d: it rises when all nodes run this release (pontoon cluster finalize)", needed, now)
		}
		if slices.Contains(epochs, system.GetEpoch()) {
			return invalid(metav1.Noun_NOUN_CYCLE, "forget_epochs: %s is this cluster's own epoch", system.GetEpoch())
		}
		return nil
	})
}
