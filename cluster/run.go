package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sync/errgroup"
)

const (
	// gateAfter is for how long a write of the log may take before the node keeps
	// out of elections, abortAfter before the process ends (consensus.md 3.2).
	gateAfter  = 2 * time.Second
	abortAfter = 10 * time.Second
	// stopPatience is how long the end of Run waits for what Raft has in flight, and for Raft.
	stopPatience = 5 * time.Second
	// peersEvery is how often addresses are saved besides on change.
	peersEvery = 5 * time.Second
)

// Run serves until ctx ends or the node cannot go on: its disk failed, it was
// refused by the cluster, or the bucket belongs to another one. It owns every
// goroutine of the node. Call it once, and Close after it.
//
// The order of the end: duties, queues and reads stop; what Raft has in flight is
// answered (Raft forgets to, once shut down); Raft; and then the transport under it.
func (n *Node) Run(ctx context.Context) error {
	below, stopBelow := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBelow()
	var under errgroup.Group
	if n.host != nil {
		under.Go(func() error { return n.failing("transport", n.host.Run(below)) })
	}
	if n.gossip != nil {
		under.Go(func() error { return n.failing("gossip", n.gossip.Run(below, n.joinList)) })
	}
	answered := make(chan struct{})
	under.Go(func() error { defer close(answered); return n.commit.complete() })

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		<-ctx.Done()
		close(n.ending)
		if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) { // told now: the rest may hang
			n.log.Error("the node stops", "error", cause)
		}
		return nil
	})
	for _, part := range []func(context.Context) error{
		n.awaitFatal, n.watchLeader, n.watchDisk, n.watchSpace, n.lead, n.reader.run, n.commit.dispatch, n.keepFresh, n.watchPeers,
		n.watchExpiry, n.watchMembership, n.watchTwins, n.watchMoves, n.belong, n.compact, n.clearStores, n.compare, n.watchDefects,
	} {
		g.Go(func() error { return part(ctx) })
	}
	for range forwardCalls {
		g.Go(func() error { return n.forward.run(ctx) })
	}
	err := g.Wait()
	select {
	case <-answered:
	case <-time.After(stopPatience):
		err = errors.Join(err, errors.New("stop: raft did not answer what it has in flight"))
	}
	err = errors.Join(err, n.stopRaft())
	stopBelow()
	n.locks.wait()
	return errors.Join(err, under.Wait())
}

// Ending is closed once Run begins to end, asked or not. On a disk that hangs it may never come to its end.
func (n *Node) Ending() <-chan struct{} { return n.ending }

// failing makes the early end of what lies below the end of the node.
func (n *Node) failing(what string, err error) error {
	if err != nil {
		err = fmt.Errorf("%s: %w", what, err)
		n.fail(err)
	}
	return nil // awaitFatal answers it
}

func (n *Node) awaitFatal(ctx context.Context) error {
	select {
	case err := <-n.fatal:
		return err
	case <-ctx.Done():
		return nil
	}
}

// stopRaft shuts Raft down for good.
func (n *Node) stopRaft() error {
	if n.logs != nil {
		n.logs.interrupt.Store(true) // a compaction may take longer than anybody waits
	}
	if err := lockWithin(&n.replacing, stopPatience); err != nil {
		return fmt.Errorf("stop: %w", err)
	}
	defer n.replacing.Unlock()
	if n.stopped || n.raft() == nil {
		return nil
	}
	n.stopped = true
	if n.host != nil {
		n.host.Raft().Detach() // Raft waits for its calls to peers
	}
	return n.shutRaft()
}

// shutRaft shuts the Raft that runs down and waits for it, and for the heartbeats in it: nothing writes to the log after.
func (n *Node) shutRaft() error {
	done := make(chan error, 1)
	go func() {
		err := n.raft().Shutdown().Error()
		if n.host != nil {
			n.host.Raft().Quiesce()
		}
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-time.After(stopPatience):
		return errors.New("stop: raft hangs")
	}
}

// viewPatience is for how long Close waits for who still looks at the state: each look is short.
const viewPatience = 2 * time.Second

// Close lets go of disk and network. Nothing that was acknowledged is lost
// without it: it only spares the next start some work.
func (n *Node) Close() error {
	errs := []error{n.stopRaft()}
	n.leaders.close()
	if n.gossip != nil {
		errs = append(errs, n.gossip.Close())
	}
	if n.listener != nil {
		if err := n.listener.Close(); !errors.Is(err, net.ErrClosed) { // Run closes it too
			errs = append(errs, err)
		}
	}
	if n.logs != nil {
		errs = append(errs, n.logs.Close())
	}
	if n.state != nil {
		errs = append(errs, n.state.Close())
		select { // a dial that is given up reads the address book, and nobody waits for it
		case <-n.state.Unviewed():
		case <-time.After(viewPatience):
		}
	}
	if n.outgoing != nil {
		errs = append(errs, n.outgoing.sweep(0))
	}
	if n.stores != nil {
		errs = append(errs, n.stores.Close())
	}
	if n.dir != nil {
		errs = append(errs, n.dir.Close())
	}
	return errors.Join(errs...)
}

// watchLeader keeps leaders current: Raft's notices may be dropped, so it also looks.
func (n *Node) watchLeader(ctx context.Context) error {
	notices := make(chan raft.Observation, 8)
	observer := raft.NewObserver(notices, false, func(o *raft.Observation) bool {
		_, is := o.Data.(raft.LeaderObservation)
		return is
	})
	watched := n.raft()
	watched.RegisterObserver(observer)
	defer func() { watched.DeregisterObserver(observer) }()
	tick := time.NewTicker(leadCheck)
	defer tick.Stop()
	for {
		if r := n.raft(); r != watched { // an install has re-created it
			watched.DeregisterObserver(observer)
			watched = r
			watched.RegisterObserver(observer)
		}
		_, id := n.raft().LeaderWithID()
		n.leaders.set(string(id))
		select {
		case <-ctx.Done():
			return nil
		case <-notices:
		case <-tick.C:
		}
	}
}

// keepFresh proves the state fresh on an idle node too: readiness and the
// fallbacks are measured from the last proof.
func (n *Node) keepFresh(ctx context.Context) error {
	tick := time.NewTicker(n.cfg.brisk(freshEvery))
	defer tick.Stop()
	for {
		if age, ever := n.fresh.age(); !ever || age > n.cfg.brisk(freshEvery) {
			_ = n.catchUp(ctx, freshEvery, 0) // Ready and Status tell how old the last proof is
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// StepDown hands leadership to another voter, if this node leads and there is
// one; call it before the end of Run, so that writes pause for milliseconds only.
// It tries until ctx ends, and while nobody leads it waits for who will: a node
// that is about to end may win that election, and would take the leadership with it.
func (n *Node) StepDown(ctx context.Context) error {
	voters := voters(n.raft().GetConfiguration().Configuration())
	if len(voters) < 2 || !slices.Contains(voters, n.id) {
		return nil
	}
	for attempt := 0; ; attempt++ {
		_, err := n.handOver(ctx, func() raft.Future { return n.raft().LeadershipTransfer() })
		if err == nil {
			return nil
		}
		if _, tenure := n.leaders.now(); !pause(ctx, tenure, attempt) {
			return err
		}
	}
}

// handOver hands leadership over until another node leads, and answers which. While nobody leads it waits for who will: it may
// be this one.
func (n *Node) handOver(ctx context.Context, hand func() raft.Future) (string, error) {
	for attempt := 0; ; attempt++ {
		term, leads := n.leads()
		if !leads {
			id, tenure := n.leaders.now()
			if id != "" && id != n.id {
				return id, nil
			}
			if !pause(ctx, tenure, attempt) {
				return "", fmt.Errorf("hand over leadership: no other node leads: %w", context.Cause(ctx))
			}
			continue
		}
		// Raft forgets the request when it is shut down, and leaves it while its disk hangs.
		done := make(chan error, 1)
		go func() { done <- hand().Error() }()
		select {
		case err := <-done:
			if err != nil {
				return "", fmt.Errorf("hand over leadership: %w", err)
			}
		case <-ctx.Done():
			return "", fmt.Errorf("hand over leadership: %w", context.Cause(ctx))
		}
		for again := false; !again; {
			id, tenure := n.leaders.now()
			if id != n.id && id != "" {
				return id, nil
			}
			if !pause(ctx, tenure, 0) {
				return "", fmt.Errorf("hand over leadership: %w", context.Cause(ctx))
			}
			now, leads := n.leads()
			again = leads && now != term // the other one failed, and this node was elected once more
		}
	}
}
