package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// registerAttempts bounds how often a command is given a new id because its origin was unknown.
const registerAttempts = 3

// longestPropose ends a Propose whose caller set no deadline.
const longestPropose = 60 * time.Second

// proposer takes a command to the log and waits until this node's state has it.
//
//	           ┌──────────── certainly not applied: again, up to hold ───────────┐
//	Propose ─► leader known? ─ self ─► committer ─┬─► result ─► wait for the index ─► answer
//	           └─ other ─► forwarder ─────────────┤
//	           ┌──────────── unknown: the same id again, up to the deadline ─────┘
type proposer struct {
	self    string
	origin  *origin
	leaders *leaders
	local   *committer
	forward *forwarder
	// wait blocks until this node's state has reached an index.
	wait    func(ctx context.Context, index uint64) error
	hold    time.Duration
	metrics Metrics
	// permit refuses what this node, as the leader, must not let into the log (M7).
	permit func(*metav1.Command) error

	// registering has room for the one goroutine that registers the origin while the others wait.
	registering chan struct{}
}

// propose is Node.Propose.
func (p *proposer) propose(ctx context.Context, c *metav1.Command) (*metav1.Result, error) {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, longestPropose)
	defer cancel()
	result, err := p.once(ctx, c)
	if err == nil {
		err = meta.FromRefusal(result.GetRefusal())
	}
	p.metrics.Proposed(meta.KindOf(err), time.Since(began))
	return result, err
}

// once gives the command its id and commits it; again with a new one only when
// the origin was unknown, so that nothing was done under the first.
func (p *proposer) once(ctx context.Context, c *metav1.Command) (*metav1.Result, error) {
	for attempt := 1; ; attempt++ {
		if err := p.register(ctx); err != nil {
			return nil, err
		}
		result, doubtful, err := p.numbered(ctx, c)
		if err != nil || !originUnknown(result) {
			return result, err
		}
		if doubtful {
			// An earlier copy may have taken effect under the origin that is now forgotten.
			return nil, unknownOutcome("the cluster has forgotten this node's earlier commands")
		}
		if attempt == registerAttempts {
			return result, nil
		}
		p.origin.renew(c.GetEnvelope().GetOrigin().GetBootId())
	}
}

// numbered commits the command under the next sequence. doubtful: more than one copy was sent.
func (p *proposer) numbered(ctx context.Context, c *metav1.Command) (result *metav1.Result, doubtful bool, err error) {
	id, err := p.origin.begin(ctx)
	if err != nil {
		return nil, false, err
	}
	defer p.origin.end(id.GetSequence())
	if c.GetEnvelope() == nil {
		c.Envelope = &metav1.Envelope{}
	}
	if c.Envelope.NodeId == "" {
		c.Envelope.NodeId = p.self
	}
	c.Envelope.Origin = id
	return p.encoded(ctx, c)
}

// encoded commits the command as it is and waits until the own state contains it.
func (p *proposer) encoded(ctx context.Context, c *metav1.Command) (*metav1.Result, bool, error) {
	command, err := proto.Marshal(c)
	if err == nil && c.GetKind() == nil {
		err = errors.New("it has no kind") // every node would stop at it (M2)
	}
	if err != nil {
		return nil, false, meta.Refuse(metav1.Kind_KIND_INVALID, metav1.Noun_NOUN_CLUSTER, "the command cannot be encoded: %v", err)
	}
	if len(command) > meta.MaxCommand {
		return nil, false, checkCommand(command, p.permit)
	}
	if leader, _ := p.leaders.now(); leader == p.self { // another leader judges at its own door
		if err := p.permit(c); err != nil {
			return nil, false, err
		}
	}
	result, doubtful, err := p.commit(ctx, command)
	if err != nil {
		return nil, doubtful, err
	}
	if err := p.wait(ctx, result.GetIndex()); err != nil {
		return nil, doubtful, unknownOutcome("the command has index %d, but this node did not reach it in time: %v", result.GetIndex(), err)
	}
	return result, doubtful, nil
}

// commit sends the same bytes until there is a result or no time left. Once an
// outcome was unknown it stays so: a later "not taken" speaks of a later copy.
func (p *proposer) commit(ctx context.Context, command []byte) (*metav1.Result, bool, error) {
	var doubt error
	began := time.Now()
	for attempt := 0; ; attempt++ {
		_, tenure := p.leaders.now()
		o := p.send(ctx, command)
		if o.err == nil {
			return o.result, doubt != nil, nil
		}
		switch meta.KindOf(o.err) {
		case metav1.Kind_KIND_OUTCOME_UNKNOWN:
			doubt = o.err
		case metav1.Kind_KIND_UNAVAILABLE:
			if doubt == nil && (time.Since(began) >= p.hold || errors.Is(o.err, errFull)) {
				return nil, false, o.err
			}
			if errors.Is(o.err, errStopped) { // no copy will be sent from here again
				return nil, true, doubt
			}
		default:
			if doubt == nil {
				return nil, false, o.err
			}
		}
		if !pause(ctx, tenure, attempt) {
			if doubt != nil {
				return nil, true, doubt
			}
			return nil, false, o.err
		}
	}
}

// errFull marks a refusal of this node's own queue: waiting would only add to it.
var errFull = errors.New("queue full")

// send makes one attempt.
func (p *proposer) send(ctx context.Context, command []byte) outcome {
	leader, _ := p.leaders.now()
	to := p.forward.queue
	switch leader {
	case "":
		return outcome{err: unavailable("no leader: a majority of the voters cannot be reached, or an election is under way")}
	case p.self:
		to = p.local.queue
	}
	c := newCall(command)
	if err := to.put(c); err != nil {
		return outcome{err: fmt.Errorf("%w (%w)", err, errFull)}
	}
	select {
	case o := <-c.done:
		return o
	case <-ctx.Done():
		return outcome{err: unknownOutcome("no answer in time: %v", context.Cause(ctx))}
	}
}

// register makes the origin known, once per boot and whenever the cluster has
// forgotten it. It takes no longer than hold, waiting for others included.
func (p *proposer) register(ctx context.Context) error {
	if p.origin.known() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, p.hold)
	defer cancel()
	select {
	case p.registering <- struct{}{}:
		defer func() { <-p.registering }()
	case <-ctx.Done():
		return unavailable("register this node's origin: another command tries to: %v", context.Cause(ctx))
	}
	for attempt := 1; !p.origin.known(); attempt++ {
		// The command is its own retry: registering twice is registering once.
		c := p.origin.register()
		boot := c.GetRegisterOrigin().GetBootId()
		result, _, err := p.encoded(ctx, c)
		if err == nil && originUnknown(result) && attempt < registerAttempts {
			// Closed: a copy of an older boot's registration came after ours.
			p.origin.renew(boot)
			continue
		}
		if err == nil {
			err = meta.FromRefusal(result.GetRefusal())
		}
		if meta.KindOf(err) == metav1.Kind_KIND_OUTCOME_UNKNOWN {
			// Whether the origin is registered matters to nobody: the caller's own command was not sent.
			return unavailable("register this node's origin: %v", err)
		}
		if err != nil {
			return fmt.Errorf("register this node's origin: %w", err)
		}
		p.origin.setKnown(boot)
	}
	return nil
}

// originUnknown says that the command had no effect because its origin is not
// registered. The other conflict about an origin, a stale sequence, cannot meet
// the first copy of an outstanding one.
func originUnknown(r *metav1.Result) bool {
	return r.GetRefusal().GetKind() == metav1.Kind_KIND_CONFLICT && r.GetRefusal().GetNoun() == metav1.Noun_NOUN_ORIGIN
}
