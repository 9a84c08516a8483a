package cluster

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

const (
	// leadCheck is how often leadership is looked at, besides Raft's own notice,
	// which drops values: lost and regained looks like nothing, but is another term.
	leadCheck = 50 * time.Millisecond
	// A duty that fails is run again after dutyRetry, doubling up to dutyRetryMax.
	dutyRetry    = 500 * time.Millisecond
	dutyRetryMax = 30 * time.Second
)

// Leadership is one term of this node as leader.
type Leadership struct {
	// Term is Raft's.
	Term uint64
}

// Duty is leader-only work. Run is called after the term-opening command is
// applied, and must return soon after ctx ends, which it does with the leadership.
// It goes on from what the ledger says, and all its effects are proposals
// (C3). An error or a panic is logged, and Run called again in a while; nil
// ends the duty for this term.
type Duty struct {
	Name string
	Run  func(ctx context.Context, l Leadership) error
}

// errDeposed ends the context of duties.
var errDeposed = errors.New("this node no longer leads")

// opened is a term whose opening command is applied. Immutable.
type opened struct {
	term uint64
	// index is that of the opening command: what this node has above it while it leads is of this term.
	index uint64
	// base is the state's clock at since; from there the leader's monotonic time counts (M1).
	base  int64
	since time.Time
}

// Lead adds a duty. Call before Run.
func (n *Node) Lead(d Duty) { n.duties = append(n.duties, d) }

// lead waits for leadership, and is the stack under it:
//
//	follower ─elected─► reign(term): open the term ─► duties ─ term over ─► duties end ─► follower
func (n *Node) lead(ctx context.Context) error {
	tick := time.NewTicker(leadCheck)
	defer tick.Stop()
	for {
		if term, leads := n.leads(); leads {
			if err := n.reign(ctx, term); err != nil && ctx.Err() == nil && !errors.Is(err, errDeposed) {
				n.log.Warn("leading failed", "term", term, "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-n.raft().LeaderCh(): // of the Raft that runs now: an install re-creates it
		case <-tick.C:
		}
	}
}

// leads answers Raft's term, and whether this node leads it.
func (n *Node) leads() (uint64, bool) {
	r := n.raft()
	term := r.CurrentTerm()
	return term, r.State() == raft.Leader && r.CurrentTerm() == term
}

// reign is one term of leadership, from opening it to the end of all duties.
func (n *Node) reign(ctx context.Context, term uint64) error {
	o, err := n.openTerm(term)
	if err != nil {
		return fmt.Errorf("open term: %w", err)
	}
	n.opened.Store(o)

	n.log.Info("this node leads", "term", term)
	defer n.log.Info("this node leads no longer", "term", term)

	ctx, end := context.WithCancelCause(ctx)
	defer end(errDeposed)
	var g errgroup.Group
	for _, d := range n.allDuties() {
		g.Go(func() error { n.perform(ctx, d, Leadership{Term: term}); return nil })
	}
	n.awaitDeposition(ctx, term)
	n.opened.Store(nil) // at once: no duty may hold up the next term's stamps
	end(errDeposed)
	return g.Wait()
}

func (n *Node) awaitDeposition(ctx context.Context, term uint64) {
	tick := time.NewTicker(leadCheck)
	defer tick.Stop()
	for {
		if now, leads := n.leads(); !leads || now != term {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// openTerm commits the term-opening command, and before it the very first
// command of a cluster when this node founds one. It answers once both are applied.
func (n *Node) openTerm(term uint64) (*opened, error) {
	if err := n.cfg.Step("term is opened"); err != nil {
		return nil, err
	}
	clock, fresh, err := n.clock()
	if err != nil {
		return nil, err
	}
	commands := []*metav1.Command{n.systemCommand(&metav1.Command{Kind: &metav1.Command_OpenTerm{
		OpenTerm: &metav1.OpenTerm{Term: term, NodeId: n.id, Settings: n.cfg.Settings}}})}
	if f := n.dir.who().Founding; fresh && f != nil {
		commands = append([]*metav1.Command{n.initCluster(f)}, commands...)
	}
	calls := make([]*call, len(commands))
	for i, c := range commands {
		encoded, err := proto.Marshal(c)
		if err != nil {
			return nil, err
		}
		calls[i] = newCall(encoded)
	}
	future := n.handle.apply(encodeEntry(clock, n.cfg.Now().UnixNano(), calls), enqueueTimeout)
	if err := future.Error(); err != nil {
		return nil, err
	}
	results, ok := future.Response().([]*metav1.Result)
	if !ok || len(results) != len(calls) {
		return nil, errors.New("the state did not answer")
	}
	if err := meta.FromRefusal(results[len(results)-1].GetRefusal()); err != nil {
		return nil, err
	}
	since := time.Now()
	if clock, _, err = n.clock(); err != nil {
		return nil, err
	}
	return &opened{term: term, index: results[len(results)-1].GetIndex(), base: clock, since: since}, nil
}

// clock is the state's, and whether the state knows no cluster yet.
func (n *Node) clock() (clock int64, fresh bool, err error) {
	v := n.state.View()
	defer v.Close()
	system, err := v.System()
	if err != nil && meta.KindOf(err) != metav1.Kind_KIND_UNKNOWN {
		return 0, false, err
	}
	return v.ClusterTime(), system.GetClusterId() == "", nil
}

// stamp is the time of an entry, refused while this node does not lead an opened term.
func (n *Node) stamp() (clusterTime, wallTime int64, err error) {
	if err := n.trusted(); err != nil {
		return 0, 0, err // what this state would answer is not what the others' will
	}
	o := n.opened.Load()
	if term, leads := n.leads(); o == nil || !leads || term != o.term {
		return 0, 0, unavailable("node %s does not lead, or has just begun to", n.id)
	}
	if err := n.space.low(); err != nil {
		return 0, 0, unavailable("node %s leads but takes no writes: %v", n.id, err)
	}
	return o.base + int64(time.Since(o.since)), n.cfg.Now().UnixNano(), nil
}

// termOf answers the term of an applied entry if it is one of the term that
// this node leads now, else 0. Asked before the entry was there it might name a
// term that the node has led, lost and won a later one after; a follower that
// still holds an entry of that term there would take it for committed (learn).
func (n *Node) termOf(index uint64) uint64 {
	o := n.opened.Load()
	if term, leads := n.leads(); o == nil || !leads || term != o.term || index < o.index {
		return 0
	}
	return o.term
}

// readIndex answers as the leader: term, leadership and the opened term first,
// then R and the voters, then the term again (R-B10).
func (n *Node) readIndex() (readIndex, error) {
	before, leads := n.leads()
	o := n.opened.Load()
	if !leads || o == nil || o.term != before {
		return readIndex{}, unavailable("node %s does not lead, or has just begun to", n.id)
	}
	index, indexTerm, err := n.committed()
	if err != nil {
		return readIndex{}, err
	}
	at := readIndex{term: before, index: index, indexTerm: indexTerm, voters: voters(n.raft().GetConfiguration().Configuration())}
	if after, leads := n.leads(); !leads || after != before {
		return readIndex{}, unavailable("node %s was deposed while it answered", n.id)
	}
	return at, nil
}

// committed is the last command that Raft has committed here, or what the state has reached, whichever is later, and its
// term. A follower may have applied it before the leader's own state did, and shown it to a reader: no later read may be
// answered from a state without it. Entries that no state sees are left out, so whoever waits for it does not wait in vain.
func (n *Node) committed() (index, term uint64, err error) {
	index, term = n.state.Applied()
	for i := n.raft().CommitIndex(); i > index; i-- {
		var entry raft.Log
		err := n.logs.GetLog(i, &entry)
		if errors.Is(err, raft.ErrLogNotFound) { // compacted, so applied meanwhile, and more than it
			index, term = n.state.Applied()
			return index, term, nil
		}
		if err != nil {
			return 0, 0, unavailable("node %s cannot read its log: %v", n.id, err)
		}
		if entry.Type == raft.LogCommand {
			return i, entry.Term, nil
		}
	}
	return index, term, nil
}

func voters(c raft.Configuration) []string {
	var ids []string
	for _, s := range c.Servers {
		if s.Suffrage == raft.Voter {
			ids = append(ids, string(s.ID))
		}
	}
	return ids
}

// perform runs a duty until it is done or ctx ends.
func (n *Node) perform(ctx context.Context, d Duty, l Leadership) {
	for wait := n.cfg.brisk(dutyRetry); ; wait = min(2*wait, dutyRetryMax) {
		err := guarded(ctx, d, l)
		if err == nil || ctx.Err() != nil {
			return
		}
		n.log.Warn("a duty failed, it will be tried again", "duty", d.Name, "term", l.Term, "after", wait, "error", err)
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
	}
}

func guarded(ctx context.Context, d Duty, l Leadership) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return d.Run(ctx, l)
}
