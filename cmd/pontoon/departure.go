package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// errLeaving ends the serving of a node that leaves.
var errLeaving = errors.New("this node leaves the cluster")

// departTime bounds the removal of a node that has drained; without a leader it stays a member.
const departTime = 30 * time.Second

// departure is a leave: asked for once, by whoever is first, and answered to all.
//
//	LeaveCluster ─ask─► serving ends, drain, step down ─► removed, directory marked ─► answer ─► stop
type departure struct {
	once *sync.Once
	// asked is closed when somebody asks, ended when the leave has succeeded or failed.
	asked, ended chan struct{}
	// wish is written before asked is closed, outcome before ended is.
	wish    *wish
	outcome *error
}

// wish is what was asked for.
type wish struct {
	force bool
	by    *metav1.Envelope
}

func newDeparture() departure {
	return departure{once: new(sync.Once), asked: make(chan struct{}), ended: make(chan struct{}), wish: &wish{}, outcome: new(error)}
}

// ask begins the leave, and waits for its end.
func (d departure) ask(ctx context.Context, w wish) error {
	d.once.Do(func() {
		*d.wish = w
		close(d.asked)
	})
	select {
	case <-d.ended:
		return *d.outcome
	case <-ctx.Done():
		return fmt.Errorf("the node still drains, and will leave: %w", context.Cause(ctx))
	}
}

// await ends serving when somebody asks to leave.
func (d departure) await(serving context.Context, fail context.CancelCauseFunc) error {
	select {
	case <-d.asked:
		fail(errLeaving)
	case <-serving.Done():
	}
	return nil
}

// Remove is admin.Membership's.
func (r *registry) Remove(ctx context.Context, node string, force, dryRun bool, by *metav1.Envelope) (string, error) {
	return r.node.Remove(ctx, node, force, dryRun, by)
}

// Leave is admin.Membership's: the node drains like at SIGTERM, is removed, and stops.
func (r *registry) Leave(ctx context.Context, force, dryRun bool, by *metav1.Envelope) (string, error) {
	if err := r.node.MayLeave(ctx, force, by); err != nil || dryRun {
		return r.node.ID(), err
	}
	r.log.Info("an operator lets this node leave the cluster", "by", by.GetActor().GetName(), "forced", force)
	return r.node.ID(), r.departure.ask(ctx, wish{force, by})
}

// Transfer is admin.Membership's.
func (r *registry) Transfer(ctx context.Context, node string, by *metav1.Envelope) (string, error) {
	return r.node.Transfer(ctx, node, by)
}

// Finalize is admin.Membership's.
func (r *registry) Finalize(ctx context.Context, by *metav1.Envelope) (before, version uint32, err error) {
	return r.node.Finalize(ctx, by)
}

// depart carries a leave out, if one was asked for. On an error the node stops all the
// same, since it serves nobody any more, and is still a member: started again it goes on as one.
func (r *registry) depart(ctx context.Context) error {
	d := r.departure
	d.once.Do(func() { // nobody asked in time
		*d.outcome = meta.Refuse(metav1.Kind_KIND_UNAVAILABLE, metav1.Noun_NOUN_NODE, "this node is being stopped and stays a member: start it, then let it leave")
		close(d.ended)
	})
	select {
	case <-d.asked:
	default:
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, departTime)
	defer cancel()
	err := r.node.Leave(ctx, d.wish.force, d.wish.by)
	if err == nil {
		r.log.Info("this node left the cluster; its data directory is of no use to another start: empty it to join as a new node")
	}
	*d.outcome = err
	close(d.ended)
	return err
}
