package api

import (
	"testing"
	"time"

	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// value is that of the one series of a metric with the label's value, if one is named; -1 when there is none.
func value(t *testing.T, m *Metrics, name, label string) float64 {
	t.Helper()
	for _, s := range series(t, m, name) {
		if label != "" && s.GetLabel()[0].GetValue() != label {
			continue
		}
		return s.GetGauge().GetValue() + s.GetCounter().GetValue()
	}
	return -1
}

func TestACycleIsCountedWithAllThatItDid(t *testing.T) {
	m := NewMetrics()
	m.Collecting(metav1.CyclePhase_CYCLE_PHASE_SWEEP)
	for _, outcome := range []metav1.CycleOutcome{metav1.CycleOutcome_CYCLE_OUTCOME_DONE, metav1.CycleOutcome_CYCLE_OUTCOME_DONE,
		metav1.CycleOutcome_CYCLE_OUTCOME_TROUBLED, metav1.CycleOutcome(99)} {
		m.Collected(&metav1.Cycle{Outcome: outcome, Count: &metav1.CycleCount{
			Marked: 10, UntaggedManifests: 1, CondemnedBlobs: 2, DeletedKeys: 3, DeletedBytes: 4, OrphanKeys: 5, OrphanBytes: 6, AbortedMultiparts: 7, Failed: 8,
		}})
	}
	for _, want := range []struct {
		name, label string
		value       float64
	}{
		{"registry_gc_cycles_total", "done", 2}, {"registry_gc_cycles_total", "troubled", 1}, {"registry_gc_cycles_total", "other", 1},
		{"registry_gc_deleted_keys_total", "condemned", 12}, {"registry_gc_deleted_bytes_total", "condemned", 16},
		{"registry_gc_deleted_keys_total", "orphan", 20}, {"registry_gc_deleted_bytes_total", "orphan", 24},
		{"registry_gc_condemned_blobs_total", "", 8}, {"registry_gc_untagged_manifests_total", "", 4},
		{"registry_gc_aborted_uploads_total", "", 28}, {"registry_gc_failed_keys_total", "", 32},
		{"registry_gc_phase", "", 3}, {"registry_gc_last_marked_blobs", "", 10},
	} {
		if got := value(t, m, want.name, want.label); got != want.value {
			t.Errorf("%s{%s} is %v, expected %v", want.name, want.label, got, want.value)
		}
	}
}

// What is not known is not shown: a zero would say that nothing is held, or that the last cycle has just ended.
func TestAScrapeShowsOfTheStoreWhatIsKnown(t *testing.T) {
	m := NewMetrics()
	var f CollectionFigures
	if err := m.WatchCollection(func() CollectionFigures { return f }); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"registry_gc_mark_held", "registry_gc_reclaimable_bytes", "registry_gc_last_cycle_age_seconds"} {
		if got := value(t, m, name, ""); got != -1 {
			t.Errorf("before a look: %s is %v", name, got)
		}
	}
	f = CollectionFigures{Looked: true, SweptThrough: 9, Cycles: true, LastEnded: time.Now().Add(-time.Hour), Findings: 2, Grave: 1,
		Kept: &metav1.CycleKept{Bytes: 1, Keys: 9, ForBackup: 2, ForDelay: 3, ForMark: 4, ForEpoch: 5}}
	for name, want := range map[string]float64{
		"registry_gc_mark_held": 0, "registry_gc_swept_through_index": 9, "registry_gc_reclaimable_bytes": 1, "registry_gc_kept_keys": 9,
		"registry_gc_kept_for_backup_keys": 2, "registry_gc_kept_for_delay_keys": 3, "registry_gc_kept_for_mark_keys": 4, "registry_gc_kept_for_epoch_keys": 5,
		"registry_gc_bucket_findings": 2, "registry_gc_bucket_findings_grave": 1,
	} {
		if got := value(t, m, name, ""); got != want {
			t.Errorf("%s is %v, expected %v", name, got, want)
		}
	}
	if age := value(t, m, "registry_gc_last_cycle_age_seconds", ""); age < 3600 || age > 3700 {
		t.Errorf("the last cycle is %v s old", age)
	}
	f.MarkHeld = true
	if got := value(t, m, "registry_gc_mark_held", ""); got != 1 {
		t.Errorf("held: got %v", got)
	}
}
