package api

import (
	"math"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
)

// backupFigures are the series of backups in a scrape.
func backupFigures(t *testing.T, m *Metrics) map[string]float64 {
	t.Helper()
	families, err := m.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		for _, s := range f.GetMetric() {
			if f.GetType() == dto.MetricType_GAUGE && len(s.GetLabel()) == 0 {
				out[f.GetName()] = s.GetGauge().GetValue()
			}
			if f.GetName() == "pontoon_backup_errors_total" {
				out[f.GetName()+" "+s.GetLabel()[0].GetValue()] = s.GetCounter().GetValue()
			}
		}
	}
	return out
}

// TestOnlyTheLeaderShowsHowBackupsFare: figures of a node that led once would be believed.
func TestOnlyTheLeaderShowsHowBackupsFare(t *testing.T) {
	const age, lag, wait = "pontoon_backup_verified_age_seconds", "pontoon_backup_log_lag_entries", "pontoon_backup_log_lag_seconds"
	m := NewMetrics()
	absent := func(when string) {
		t.Helper()
		f := backupFigures(t, m)
		for _, name := range []string{age, lag, wait} {
			if v, there := f[name]; there {
				t.Errorf("%s: %s is %v", when, name, v)
			}
		}
	}
	absent("at first")
	m.BackupVerified(time.Time{})
	if f := backupFigures(t, m); !math.IsInf(f[age], 1) {
		t.Errorf("without a backup: %v", f[age])
	}
	m.BackupVerified(time.Now().Add(-time.Hour))
	m.BackupLag(7, 90*time.Second)
	m.BackupFailed("full")
	m.BackupFailed("what nobody counts")
	f := backupFigures(t, m)
	if f[age] < 3600 || f[age] > 3700 || f[lag] != 7 || f[wait] != 90 {
		t.Errorf("on the leader: %v %v %v", f[age], f[lag], f[wait])
	}
	if f["pontoon_backup_errors_total full"] != 1 || f["pontoon_backup_errors_total other"] != 1 || f["pontoon_backup_errors_total log"] != 0 {
		t.Errorf("errors: %v", f)
	}
	m.BackupIdle()
	absent("after it led")
}
