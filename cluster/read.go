package cluster

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pontoon-registry/pontoon/cluster/transport"
	clusterv1 "github.com/pontoon-registry/pontoon/proto/pontoon/cluster/v1"
)

const (
	// roundTimeout ends one round of the read index.
	roundTimeout = time.Second
	// hedgeAfter is when a further voter is asked although the first may yet answer.
	hedgeAfter = 25 * time.Millisecond
)

// readIndex is what a leader knows: its term, the last index that any state may
// have shown (committed), and the voters of its latest configuration.
type readIndex struct {
	term   uint64
	index  uint64
	voters []string
	// indexTerm is the term of the entry at index.
	indexTerm uint64
}

// reader answers how far the state must have come for a read to be
// linearizable, by the term-quorum read index. Never VerifyLeader, which
// counts answers to questions asked before (consensus.md 4.1).
//
// A batch of reads closes at t0. Only then the leader is asked for (T, R,
// voters), and a majority of those voters for their terms. If none exceeds T,
// nobody had won an election of a later term by t0: a winner's majority would
// have persisted that term first. So all that was acknowledged before t0 is
// of terms ≤ T, hence within R (R-B10).
//
//	reads ─► forming ─close at t0─► in flight: leader (T,R,V) ─► terms of V ≤ T ─► wait for R ─► View
//	            ▲ reads that come meanwhile form the next batch
type reader struct {
	self    string
	leaders *leaders
	// local answers as the leader, refusing when this node is not one.
	local func() (readIndex, error)
	// term is this node's current term.
	term func() uint64
	// peer answers the service of a node.
	peer    func(id string) (clusterv1.NodeServiceClient, error)
	metrics Metrics
	// learn tells this node's Raft of a commit (Node.learn).
	learn func(context.Context, transport.Commit)

	wake chan struct{}
	// good is the voter that answered last: asked first.
	good atomic.Pointer[string]

	// mu guards forming.
	mu      sync.Mutex
	forming *readBatch
}

// readBatch is written by run before done is closed, and read after.
type readBatch struct {
	reads  int
	done   chan struct{}
	closed time.Time
	index  uint64
	err    error
}

func newReadBatch() *readBatch { return &readBatch{done: make(chan struct{})} }

// run makes one round after the other while reads wait.
func (r *reader) run(ctx context.Context) error {
	for attempt := 0; ; {
		select {
		case <-r.wake:
		case <-ctx.Done():
			r.finish(r.close(), 0, unavailable("this node is shutting down"))
			return nil
		}
		b := r.close()
		index, err := r.round(ctx)
		r.metrics.ReadRound(b.reads, time.Since(b.closed), err)
		r.finish(b, index, err)
		if err == nil {
			attempt = 0
			continue
		}
		_, tenure := r.leaders.now()
		pause(ctx, tenure, attempt)
		attempt++
	}
}

// close ends the forming batch: from this instant on terms may be sampled for it.
func (r *reader) close() *readBatch {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := r.forming
	r.forming = newReadBatch()
	b.closed = time.Now()
	return b
}

func (r *reader) finish(b *readBatch, index uint64, err error) {
	b.index, b.err = index, err
	close(b.done)
}

// join adds a read to the batch that is forming.
func (r *reader) join() *readBatch {
	r.mu.Lock()
	b := r.forming
	b.reads++
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
	return b
}

// index answers R of a batch that closed after the call began, and the instant
// it closed; it tries again until ctx ends. The error is KIND_UNAVAILABLE.
func (r *reader) index(ctx context.Context) (uint64, time.Time, error) {
	var last error
	for {
		b := r.join()
		select {
		case <-b.done:
		case <-ctx.Done():
			if last == nil {
				last = context.Cause(ctx)
			}
			return 0, time.Time{}, unavailable("no read index in time: %v", last)
		}
		if b.err == nil {
			return b.index, b.closed, nil
		}
		last = b.err
	}
}

// round asks the leader, then enough voters.
func (r *reader) round(ctx context.Context) (uint64, error) {
	leader, tenure := r.leaders.now()
	if leader == "" {
		return 0, unavailable("no leader: a majority of the voters cannot be reached, or an election is under way")
	}
	ctx, cancel := within(ctx, tenure, roundTimeout)
	defer cancel()
	at, err := r.ask(ctx, leader)
	if err != nil {
		return 0, err
	}
	missing, others := len(at.voters)/2+1, make([]string, 0, len(at.voters))
	for _, v := range at.voters {
		switch v {
		case leader: // its term is T, read while it answered
			missing--
		case r.self:
			if term := r.term(); term > at.term {
				return 0, laterTerm(r.self, term, at.term)
			}
			missing--
		default:
			others = append(others, v)
		}
	}
	if err := r.sample(ctx, others, missing, at.term); err != nil {
		return 0, err
	}
	return at.index, nil
}

func (r *reader) ask(ctx context.Context, leader string) (readIndex, error) {
	if leader == r.self {
		return r.local()
	}
	peer, err := r.peer(leader)
	if err != nil {
		return readIndex{}, err
	}
	a, err := peer.ReadIndex(ctx, &clusterv1.ReadIndexRequest{})
	if err != nil {
		return readIndex{}, fmt.Errorf("ask leader %s for a read index: %w", leader, fromStatus(err))
	}
	at := readIndex{term: a.GetTerm(), index: a.GetIndex(), voters: a.GetVoters(), indexTerm: a.GetIndexTerm()}
	r.learn(ctx, transport.Commit{Leader: leader, Term: at.term, Index: at.index, EntryTerm: at.indexTerm})
	return at, nil
}

// sample asks voters for their terms until enough have answered one that does
// not exceed term. It asks as few as possible, more when one is slow or fails.
func (r *reader) sample(ctx context.Context, voters []string, missing int, term uint64) error {
	if missing <= 0 {
		return nil
	}
	if good := r.good.Load(); good != nil {
		slices.SortStableFunc(voters, func(a, b string) int { return rank(a, *good) - rank(b, *good) })
	}
	ctx, cancel := context.WithCancel(ctx)
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel()
	answers, asked, failed := make(chan error, len(voters)), 0, error(unavailable("%d more voters are needed, %d are there", missing, len(voters)))
	ask := func() {
		if asked < len(voters) {
			id := voters[asked]
			asked++
			asking.Go(func() { answers <- r.termAtMost(ctx, id, term) })
		}
	}
	for range missing {
		ask()
	}
	hedge := time.NewTicker(hedgeAfter)
	defer hedge.Stop()
	for answered := 0; answered < asked || asked < len(voters); {
		select {
		case <-hedge.C:
			ask()
		case err := <-answers:
			answered++
			if err == nil {
				if missing--; missing == 0 {
					return nil
				}
				continue
			}
			failed = err
			ask()
		}
	}
	return fmt.Errorf("sample the voters' terms: %w", failed)
}

func rank(id, good string) int {
	if id == good {
		return 0
	}
	return 1
}

// termAtMost asks one voter; the call begins after the batch closed, so its sample does too.
func (r *reader) termAtMost(ctx context.Context, id string, term uint64) error {
	peer, err := r.peer(id)
	if err != nil {
		return err
	}
	a, err := peer.Term(ctx, &clusterv1.TermRequest{})
	if err != nil {
		return fmt.Errorf("ask %s for its term: %w", id, fromStatus(err))
	}
	if a.GetTerm() > term {
		return laterTerm(id, a.GetTerm(), term)
	}
	r.good.Store(&id)
	return nil
}

func laterTerm(id string, has, leads uint64) error {
	return unavailable("node %s is in term %d, the leader that was asked in %d: it may have been deposed", id, has, leads)
}
