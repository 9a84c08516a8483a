package api

import (
	"math"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// backups is what the leader knows of backups; on other nodes there is none of it.
type backups struct {
	errors *prometheus.CounterVec
	age    *prometheus.Desc
	lag    *prometheus.Desc
	wait   *prometheus.Desc

	mu       sync.Mutex // guards what follows
	leads    bool
	verified time.Time
	shipped  bool
	entries  uint64
	waiting  time.Duration
}

func backupSteps() []string { return []string{"full", "log", "retain"} }

func (m *Metrics) registerBackups() {
	m.backups.errors = m.counter("pontoon_backup_errors_total", "Steps of backups that failed: full snapshots, the log, the removal of old ones.", "step")
	for _, step := range backupSteps() {
		m.backups.errors.WithLabelValues(step)
	}
	m.backups.age = prometheus.NewDesc("pontoon_backup_verified_age_seconds",
		"On the leader: seconds since the last full snapshot was complete and read back; +Inf without one.", nil, nil)
	m.backups.lag = prometheus.NewDesc("pontoon_backup_log_lag_entries", "On the leader: applied log entries that are not archived yet.", nil, nil)
	m.backups.wait = prometheus.NewDesc("pontoon_backup_log_lag_seconds", "On the leader: how long the oldest of them has been waiting.", nil, nil)
	m.registry.MustRegister(&m.backups)
}

// BackupVerified says when the last full snapshot was verified, zero without one.
func (m *Metrics) BackupVerified(at time.Time) {
	m.backups.mu.Lock()
	defer m.backups.mu.Unlock()
	m.backups.leads, m.backups.verified = true, at
}

// BackupLag says how much of the log is not archived, and for how long.
func (m *Metrics) BackupLag(entries uint64, waiting time.Duration) {
	m.backups.mu.Lock()
	defer m.backups.mu.Unlock()
	m.backups.shipped, m.backups.entries, m.backups.waiting = true, entries, waiting
}

// BackupFailed counts a step that failed: full, log or retain.
func (m *Metrics) BackupFailed(step string) {
	m.backups.errors.WithLabelValues(oneOf(backupSteps(), step)).Inc()
}

// BackupIdle says that this node leads no longer.
func (m *Metrics) BackupIdle() {
	m.backups.mu.Lock()
	defer m.backups.mu.Unlock()
	m.backups.leads, m.backups.shipped = false, false
}

// Describe names every figure.
func (b *backups) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{b.age, b.lag, b.wait} {
		ch <- d
	}
}

// Collect shows what is known now.
func (b *backups) Collect(ch chan<- prometheus.Metric) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.leads {
		age := time.Since(b.verified).Seconds()
		if b.verified.IsZero() {
			age = math.Inf(1)
		}
		ch <- prometheus.MustNewConstMetric(b.age, prometheus.GaugeValue, age)
	}
	if b.shipped {
		ch <- prometheus.MustNewConstMetric(b.lag, prometheus.GaugeValue, float64(b.entries))
		ch <- prometheus.MustNewConstMetric(b.wait, prometheus.GaugeValue, b.waiting.Seconds())
	}
}
