package gc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/pontoon-registry/pontoon/blobs"
	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// ErrNotOwner is what a Mark answers when the store is another cluster's, or can have no owner. Nothing is deleted from it (G9).
var ErrNotOwner = errors.New("the store is not this cluster's")

// Mark is the owner mark of the store (G9).
type Mark interface {
	// Raise says that keys which were condemned at or below the log index sweptThrough may be gone from now on. A nil
	// error proves that the store is this cluster's, and that a restore of an earlier state will be refused. 0 proves only
	// the first. ErrNotOwner: it is not, and stays so until an operator adopts it.
	Raise(ctx context.Context, sweptThrough uint64) error
}

// Watcher is told what happens, for metrics. It must be quick and safe for concurrent use.
type Watcher interface {
	// Running says which phase runs on this node, UNSPECIFIED when none.
	Running(phase metav1.CyclePhase)
	// Ended is told of each cycle that this node ended. Its Kept is what is condemned and stays for now.
	Ended(cycle *metav1.Cycle)
}

// Defaults and bounds of Config.
const (
	DefaultSchedule         = "@every 6h"
	DefaultDeletesPerSecond = 500
	mostDeletesPerSecond    = 100_000
	// FloorOrphanAge is the least age of what the ledger never knew (G7), and its default.
	FloorOrphanAge = 24 * time.Hour
	defaultPoll    = time.Second
	leastPoll      = 10 * time.Millisecond
	mostPoll       = time.Minute
)

// Config of a Collector.
type Config struct {
	Ledger meta.Ledger
	// Store is what StoreName in the ledger's rows stands for. Keys of other stores are left alone.
	Store     blobs.Store
	StoreName string
	// Mark guards every delete. Danger: one that always answers nil lets two clusters on one bucket delete each other's layers.
	Mark Mark
	// Schedule is when a cycle is due, counted from the end of the one before: five cron fields or @every (robfig/cron,
	// ParseStandard), by the leader's wall clock. Default "@every 6h"; "never": only on request.
	Schedule string
	// Untagged says whether cycles delete manifests that no tag, index or living subject keeps. Default false. Danger: who
	// pulls by digest alone loses what was never tagged.
	Untagged bool
	// DeletesPerSecond bounds the blobs that are condemned, the keys that are deleted and the multipart uploads that are
	// aborted in a second, so that pushes hardly notice: 1 to 100,000. Default 500.
	DeletesPerSecond int
	// OrphanAge is how old, by the store's date, an object or multipart upload must be that the ledger never knew before it
	// is deleted (G7). Default and floor 24 h. Danger below it: a clock that is wrong, or a node that was paused, makes
	// the age the only guard of what is being written.
	OrphanAge time.Duration
	// UnsafeShort lets OrphanAge be below its floor, for tests.
	UnsafeShort bool
	// Poll is how often the leader looks whether a cycle is asked for or due, 10 ms to 1 min. Default 1 s.
	Poll time.Duration
	// Watcher may be nil.
	Watcher Watcher
	// Log may be nil.
	Log *slog.Logger
	// Now is the wall clock, compared with the store's dates. Default time.Now.
	Now func() time.Time
}

// withDefaults fills in what is zero.
func (c Config) withDefaults() Config {
	if c.Schedule == "" {
		c.Schedule = DefaultSchedule
	}
	if c.DeletesPerSecond == 0 {
		c.DeletesPerSecond = DefaultDeletesPerSecond
	}
	if c.OrphanAge == 0 {
		c.OrphanAge = FloorOrphanAge
	}
	if c.Poll == 0 {
		c.Poll = defaultPoll
	}
	if c.Watcher == nil {
		c.Watcher = nobody{}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

// Validate names the field that is wrong and its bound.
func (c Config) Validate() error {
	c = c.withDefaults()
	switch {
	case c.Ledger == nil:
		return errors.New("gc: Ledger must be set")
	case c.Store == nil:
		return errors.New("gc: Store must be set")
	case c.StoreName == "":
		return errors.New("gc: StoreName must be set")
	case c.Mark == nil:
		return errors.New("gc: Mark must be set")
	case c.DeletesPerSecond < 1 || c.DeletesPerSecond > mostDeletesPerSecond:
		return fmt.Errorf("gc: DeletesPerSecond must be 1 to %d, is %d", mostDeletesPerSecond, c.DeletesPerSecond)
	case c.OrphanAge < 0:
		return fmt.Errorf("gc: OrphanAge must not be negative, is %v", c.OrphanAge)
	case c.OrphanAge < FloorOrphanAge && !c.UnsafeShort:
		return fmt.Errorf("gc: OrphanAge must be at least %v unless UnsafeShort is set, is %v", FloorOrphanAge, c.OrphanAge)
	case c.Poll < leastPoll || c.Poll > mostPoll:
		return fmt.Errorf("gc: Poll must be %v to %v, is %v", leastPoll, mostPoll, c.Poll)
	}
	_, err := parseSchedule(c.Schedule)
	return err
}

// parseSchedule answers nil for a schedule on which nothing is ever due. One that never comes, such as on the 31st of
// February, is refused: by its zero time it would be due always.
func parseSchedule(s string) (cron.Schedule, error) {
	if s == "never" {
		return nil, nil
	}
	parsed, err := cron.ParseStandard(s)
	if err == nil && parsed.Next(time.Now()).IsZero() {
		err = errors.New("no such day comes in five years")
	}
	if err != nil {
		return nil, fmt.Errorf("gc: Schedule must be five cron fields, @every <duration> or never, is %q: %w", s, err)
	}
	return parsed, nil
}

// nobody is a Watcher that looks away.
type nobody struct{}

func (nobody) Running(metav1.CyclePhase) {}
func (nobody) Ended(*metav1.Cycle)       {}
