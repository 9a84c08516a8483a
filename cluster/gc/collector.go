package gc

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/robfig/cron/v3"
	"golang.org/x/time/rate"

	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

const (
	// ledgerTime bounds one view or proposal, storeTime one call of the store.
	ledgerTime = 30 * time.Second
	storeTime  = 2 * time.Minute
	// backoffMost is the longest wait after passes that failed in a row.
	backoffMost = 30 * time.Second
)

// sizes bound what one step does; tests make them small.
type sizes struct {
	// page is how many keys are listed, judged and deleted at a time: S3's bound on a batch.
	page int
	// visit bounds the rows that one view of a marking phase looks at; find those that one command takes, and forget the
	// keys that one forgets: pushes wait while it is applied.
	visit, find, forget int
	// record is how often a phase that changes nothing records how far it is: so much is done again after a crash.
	record time.Duration
}

// Collector collects garbage. Safe for concurrent use, but Run may run only once at a time on a node.
type Collector struct {
	cfg      Config
	schedule cron.Schedule
	sizes    sizes
	// deletes is the budget of keys that are deleted.
	deletes *rate.Limiter
}

// New answers a Collector; it starts nothing.
func New(cfg Config) (*Collector, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	schedule, err := parseSchedule(cfg.Schedule)
	if err != nil {
		return nil, err
	}
	return &Collector{
		cfg: cfg, schedule: schedule, sizes: sizes{page: 1000, visit: 2500, find: 10, forget: 100, record: time.Second},
		deletes: rate.NewLimiter(rate.Limit(cfg.DeletesPerSecond), cfg.DeletesPerSecond),
	}, nil
}

// batch is how many keys are deleted in one call, or blobs condemned by one command: no more than the budget has in a second.
func (c *Collector) batch() int { return min(c.sizes.page, c.cfg.DeletesPerSecond) }

// Run is the leader's duty: it goes on with the cycle that runs, begins those that are asked for or due, and ends with
// ctx. What fails is tried again, less and less often.
func (c *Collector) Run(ctx context.Context) error {
	defer c.cfg.Watcher.Running(metav1.CyclePhase_CYCLE_PHASE_UNSPECIFIED)
	wait := c.cfg.Poll
	for {
		err := c.pass(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case meta.KindOf(err) == metav1.Kind_KIND_CONFLICT:
			// Another collector was first, such as that of a leader who does not know yet that it is none.
			c.cfg.Log.Info("garbage collection: the cycle was moved on by another node; reading it again", "error", err)
			wait = c.cfg.Poll
		case err != nil:
			wait = min(2*wait, backoffMost)
			c.cfg.Log.Warn("garbage collection stopped; it goes on where it was", "after", wait, "error", err)
		default:
			wait = c.cfg.Poll
		}
		if !sleep(ctx, wait) {
			return nil
		}
	}
}

// pass looks once, and works on a cycle to its end if there is one.
func (c *Collector) pass(ctx context.Context) error {
	s, err := c.situation(ctx)
	if err != nil {
		return err
	}
	if s.version < neededVersion {
		return nil // some member still runs an older release
	}
	if s.collection.GetRunning() == nil {
		trigger := c.due(s)
		if trigger == metav1.CycleTrigger_CYCLE_TRIGGER_UNSPECIFIED {
			return nil
		}
		if s, err = c.begin(ctx, trigger); err != nil {
			return err
		}
	}
	run := s.collection.GetRunning()
	if run == nil {
		return nil // it ended meanwhile: another collector was quick
	}
	defer c.cfg.Watcher.Running(metav1.CyclePhase_CYCLE_PHASE_UNSPECIFIED)
	return (&turn{Collector: c, row: run, troubled: run.GetTrouble() != ""}).run(ctx)
}

func (c *Collector) begin(ctx context.Context, trigger metav1.CycleTrigger) (situation, error) {
	_, err := c.propose(ctx, &metav1.Command{Kind: &metav1.Command_BeginCycle{BeginCycle: &metav1.BeginCycle{
		Trigger: trigger, Untagged: c.cfg.Untagged,
	}}})
	if err != nil {
		return situation{}, fmt.Errorf("begin a cycle: %w", err)
	}
	return c.situation(ctx)
}

func (c *Collector) situation(ctx context.Context) (s situation, err error) {
	err = c.view(ctx, func(v *meta.View) error {
		s, err = look(v)
		return err
	})
	if err != nil {
		return s, fmt.Errorf("read the cycle: %w", err)
	}
	return s, nil
}

// view reads the ledger; the state contains all that was acknowledged before the call (C2, G7). A node that may answer
// reads from old state (cluster.reads.stale) must not do so here.
func (c *Collector) view(ctx context.Context, fn func(*meta.View) error) error {
	ctx, cancel := context.WithTimeout(ctx, ledgerTime)
	defer cancel()
	return c.cfg.Ledger.View(ctx, meta.Read{}, func(v *meta.View) error {
		if v.Stale() {
			return errStale()
		}
		return fn(v)
	})
}

func (c *Collector) propose(ctx context.Context, command *metav1.Command) (*metav1.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, ledgerTime)
	defer cancel()
	command.Envelope = &metav1.Envelope{Actor: &metav1.Actor{Name: "system:gc", Method: "system"}}
	return c.cfg.Ledger.Propose(ctx, command)
}

// passing says whether a proposal that failed says nothing about what was proposed: the ledger was not to be had, or
// somebody else was first. Any other refusal would come again.
func passing(err error) bool {
	switch meta.KindOf(err) {
	case metav1.Kind_KIND_UNSPECIFIED, metav1.Kind_KIND_UNAVAILABLE, metav1.Kind_KIND_OUTCOME_UNKNOWN, metav1.Kind_KIND_CONFLICT:
		return true
	}
	return false
}

// asked makes one call of the store or the mark, with a deadline.
func (c *Collector) asked(ctx context.Context, what string, call func(context.Context) error) error {
	limited, cancel := context.WithTimeoutCause(ctx, storeTime, errHangs)
	defer cancel()
	err := call(limited)
	if err != nil && ctx.Err() == nil && limited.Err() != nil {
		return fmt.Errorf("%s: no answer within %v: %w: %w", what, storeTime, errHangs, err)
	}
	return err
}

// errHangs is why a call of the store was given up.
var errHangs = errors.New("the store hangs")

// sleep waits; false when ctx ended before.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
