package backup

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/robfig/cron/v3"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

const (
	// lookEvery is how often the ledger is looked at.
	lookEvery = time.Second
	// A step that failed is tried again after retryFirst, doubling up to retryMost.
	retryFirst, retryMost = 5 * time.Second, 10 * time.Minute
	// abandonAfter is how old an open backup becomes, in the cluster's time, before it is given up.
	abandonAfter = 24 * time.Hour
	// neededVersion is the command version that has backups (M7).
	neededVersion = 3
	// PlaceArchive is the place of a backup that is in the archive.
	PlaceArchive = "backup"
	// PlaceFile is that of one that somebody wrote to a file.
	PlaceFile = "file"
)

// Keeper keeps the backups of a cluster. Run is the leader's duty; the rest works on any node. All that Run does
// follows from the ledger and the archive, so that the next leader goes on wherever this one ends:
//
//	open ──► view ──► chunks ──► manifest ──► read back ──► complete ──► (retention) retire ──► objects deleted ──► forget
//	  └───────────── any of these may be the last that happened: an open row is taken up again, from its view on ──┘
type Keeper struct {
	cfg      Config
	schedule cron.Schedule

	// missing are complete backups that the last sweep did not find in the archive. Only keep touches it.
	missing map[string]bool

	// mu guards what the shipper tells the rest of Run.
	mu sync.Mutex
	// logFrom is the index below which the archived log has no unbroken run to its head; a full snapshot must be at or above it.
	logFrom uint64
}

// New computes; Run starts.
func New(cfg Config) (*Keeper, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	schedule, err := ParseSchedule(cfg.Schedule)
	if err != nil {
		return nil, err
	}
	return &Keeper{cfg: cfg, schedule: schedule}, nil
}

// Run keeps backups until ctx ends, which is when this node leads no longer.
func (k *Keeper) Run(ctx context.Context) error {
	defer k.cfg.Metrics.BackupIdle()
	k.setLogFrom(0)
	k.missing = nil
	var g errgroup.Group
	g.Go(func() error { k.keep(ctx); return nil })
	if k.cfg.Archive != nil && k.cfg.Log != nil {
		g.Go(func() error { (&shipper{k: k}).run(ctx); return nil })
	}
	return g.Wait()
}

func (k *Keeper) setLogFrom(index uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.logFrom = index
}

func (k *Keeper) needFrom() uint64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.logFrom
}

// keep does one thing after another; a kind of step that fails rests for a while, the others go on.
func (k *Keeper) keep(ctx context.Context) {
	full, retain := &pause{}, &pause{}
	swept, sweptFor := time.Time{}, ""
	for rest(ctx, lookEvery) {
		s, err := k.look(ctx)
		if err != nil || s.version < neededVersion {
			continue // no quorum is everybody's trouble; an old cluster has no backups
		}
		if full.over() {
			full.tell(ctx, k, StepFull, "the backup failed and is tried again; until it succeeds, a restore goes back to the last verified one",
				k.fullStep(ctx, s))
		}
		if retain.over() {
			done, err := k.retainStep(ctx, s)
			if err == nil && !done && k.cfg.Archive != nil && (time.Since(swept) > sweepEvery || sweptFor != s.latestID()) {
				if err = k.sweep(ctx); err == nil {
					swept, sweptFor = time.Now(), s.latestID()
				}
			}
			if err == nil && done {
				swept = time.Time{} // what a retired snapshot leaves of the log goes soon
			}
			retain.tell(ctx, k, StepRetain, "old backups were not removed; they take room, and what they protect stays in the store", err)
		}
	}
}

// pause is the rest after a failure.
type pause struct {
	until time.Time
	next  time.Duration
}

func (p *pause) over() bool { return !time.Now().Before(p.until) }

// tell takes the outcome of a step, loudly when it failed.
func (p *pause) tell(ctx context.Context, k *Keeper, step, meaning string, err error) {
	if err == nil {
		*p = pause{}
		return
	}
	if ctx.Err() != nil || quorumless(err) {
		return // deposed, or no quorum: the next look tells
	}
	p.next = min(max(2*p.next, retryFirst), retryMost)
	p.until = time.Now().Add(p.next)
	k.cfg.Metrics.BackupFailed(step)
	k.cfg.Logger.Error(meaning, "step", step, "again", p.next, "error", err)
}

// quorumless says that an error is everybody's trouble, not that of backups: they go on when the cluster does.
func quorumless(err error) bool {
	kind := meta.KindOf(err)
	return kind == metav1.Kind_KIND_UNAVAILABLE || kind == metav1.Kind_KIND_OUTCOME_UNKNOWN || errors.Is(err, errStale)
}

// seen is what the ledger says at one moment.
type seen struct {
	clusterID   string
	incarnation uint64
	version     uint32
	clock       int64
	rows        []meta.BackupItem
}

// look reads the ledger; a stale view decides nothing.
func (k *Keeper) look(ctx context.Context) (*seen, error) {
	s := &seen{}
	err := k.view(ctx, func(v *meta.View) error {
		system, err := v.System()
		if err != nil {
			return err
		}
		s.clusterID, s.incarnation, s.version, s.clock = system.GetClusterId(), system.GetIncarnation(), system.GetVersion(), v.ClusterTime()
		s.rows, err = v.Backups()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("look at backups: %w", err)
	}
	k.tellVerified(s)
	return s, nil
}

// errStale is a read that was answered without a quorum, where the operator allows that.
var errStale = errors.New("the state may be stale: no quorum answers")

func (k *Keeper) view(ctx context.Context, fn func(*meta.View) error) error {
	return k.cfg.Ledger.View(ctx, meta.Read{}, func(v *meta.View) error {
		if v.Stale() {
			return errStale
		}
		return fn(v)
	})
}

func (k *Keeper) tellVerified(s *seen) {
	var at time.Time
	if last := s.latest(); last != nil {
		at = time.Unix(0, last.GetCompleted().GetWallTime())
	}
	k.cfg.Metrics.BackupVerified(at)
}

// latest answers the complete snapshot in the archive with the highest index; nil: none.
func (s *seen) latest() (last *meta.BackupItem) {
	for i, b := range s.rows {
		if b.GetPlace() == PlaceArchive && b.GetState() == metav1.BackupState_BACKUP_STATE_COMPLETE && (last == nil || b.GetIndex() > last.GetIndex()) {
			last = &s.rows[i]
		}
	}
	return last
}

func (s *seen) latestID() string {
	if last := s.latest(); last != nil {
		return last.ID
	}
	return ""
}

// propose commits a command of the duty.
func (k *Keeper) propose(ctx context.Context, c *metav1.Command) error {
	return k.proposeAs(ctx, &metav1.Envelope{Actor: &metav1.Actor{Name: "system:backup", Method: "system"}}, c)
}

func (k *Keeper) proposeAs(ctx context.Context, env *metav1.Envelope, c *metav1.Command) error {
	c.Envelope = proto.CloneOf(env)
	_, err := k.cfg.Ledger.Propose(ctx, c)
	return err
}

// rest waits; false when ctx ends before.
func rest(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
