package backup

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/pontoon-registry/pontoon/blobs"
	"github.com/pontoon-registry/pontoon/meta"
)

// Entries is this node's own log, as far as its state has applied it.
type Entries interface {
	// State answers the index that the state has reached, and the head of the hash chain there.
	State() (applied uint64, chain []byte)
	// Entries answers the applied entries above after, in order, those of Raft without data, about limit bytes of them
	// at most. chain is the head of the hash chain after the last one, nil when there are more. A refusal KIND_UNKNOWN means
	// that some of them are in the log no more.
	Entries(after uint64, limit int64) (entries []meta.LogEntry, chain []byte, err error)
}

// Metrics hears how backups fare. It must be quick and safe for concurrent use.
type Metrics interface {
	// BackupVerified says when the latest complete backup was verified, zero when there is none.
	BackupVerified(at time.Time)
	// BackupLag says how much of the log is not archived yet: entries, and for how long the oldest has been waiting.
	BackupLag(entries uint64, waiting time.Duration)
	// BackupFailed counts a step that failed: full, log or retain.
	BackupFailed(step string)
	// BackupIdle says that this node does not lead: it knows nothing of all that.
	BackupIdle()
}

// Steps are what Metrics.BackupFailed counts.
const (
	StepFull   = "full"
	StepLog    = "log"
	StepRetain = "retain"
)

// Config says what is remembered, where and how long.
type Config struct {
	// Ledger is required.
	Ledger meta.Ledger
	// Archive is the place of backups. Nil: there is none, and only the rows of snapshots in files are looked after.
	Archive blobs.Archive
	// Log is shipped to Archive. Nil: it is not, and a restore goes back to full snapshots only.
	Log Entries
	// Owns answers nil when it is proven that no other living cluster can be this one (G9). Without that nothing is ever
	// deleted. Required with Archive.
	Owns func(context.Context) error
	// Schedule is when full snapshots are taken: five fields of cron in the time zone of the node, or @daily, @every 6h. Default @daily.
	Schedule string
	// Keep is how many complete snapshots are kept however old they are, 1 to 1,000. Default 7.
	// Danger: what is deleted from the registry is kept in the store for as long as the oldest snapshot (G6).
	Keep int
	// KeepFor is how long every complete snapshot is kept however many there are. Default 0.
	KeepFor time.Duration
	// Release is written into manifests.
	Release string
	// Log lines and metrics. Required.
	Logger  *slog.Logger
	Metrics Metrics
	// Now is the wall clock that Schedule goes by. Default time.Now.
	Now func() time.Time
}

// DefaultSchedule is that of Config.
const DefaultSchedule = "@daily"

func (c Config) withDefaults() Config {
	if c.Schedule == "" {
		c.Schedule = DefaultSchedule
	}
	if c.Keep == 0 {
		c.Keep = 7
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

// Validate answers the joined errors, each with the field and its bound.
func (c Config) Validate() error {
	c = c.withDefaults()
	var failed []error
	if c.Ledger == nil || c.Logger == nil || c.Metrics == nil {
		failed = append(failed, errors.New("backup: ledger, logger and metrics must be set"))
	}
	if c.Archive != nil && c.Owns == nil {
		failed = append(failed, errors.New("backup: owns must be set with an archive"))
	}
	if _, err := ParseSchedule(c.Schedule); err != nil {
		failed = append(failed, err)
	}
	if c.Keep < 1 || c.Keep > 1000 {
		failed = append(failed, fmt.Errorf("backup: keep %d: must be 1 to 1000", c.Keep))
	}
	if c.KeepFor < 0 {
		failed = append(failed, fmt.Errorf("backup: keepfor %v: must not be negative", c.KeepFor))
	}
	return errors.Join(failed...)
}

// ParseSchedule reads a schedule. One that never comes, such as on the 31st of February, is refused: by its zero time it would
// be due always.
func ParseSchedule(s string) (cron.Schedule, error) {
	schedule, err := cron.ParseStandard(s)
	if err == nil && schedule.Next(time.Now()).IsZero() {
		err = errors.New("no such day comes in five years")
	}
	if err != nil {
		return nil, fmt.Errorf("schedule %q: must be five fields as in cron, or @daily, @hourly, @every 6h: %w", s, err)
	}
	return schedule, nil
}
