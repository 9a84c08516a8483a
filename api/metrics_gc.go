package api

import (
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// collectionMetrics count what this node did while it led. A cycle counts where it ended, with all that it did, on
// whatever nodes: so the sum over the nodes is right.
type collectionMetrics struct {
	cycles      *prometheus.CounterVec
	keys, bytes *prometheus.CounterVec
	condemned   prometheus.Counter
	untagged    prometheus.Counter
	aborted     prometheus.Counter
	failed      prometheus.Counter
	phase       prometheus.Gauge
	marked      prometheus.Gauge
}

func cycleOutcomes() []string { return []string{"done", "troubled"} }

// erased are what a cycle deletes: keys that the ledger condemned, and those that it never knew.
func erased() []string { return []string{"condemned", "orphan"} }

func (m *Metrics) registerCollection() {
	c := &m.collection
	c.cycles = m.counter("registry_gc_cycles_total", "Cycles of garbage collection that this node ended, by outcome.", "outcome")
	c.keys = m.counter("registry_gc_deleted_keys_total", "Keys deleted from the store: condemned by the ledger, or orphans that it never knew.", "what")
	c.bytes = m.counter("registry_gc_deleted_bytes_total", "Bytes freed in the store.", "what")
	c.condemned = m.counter("registry_gc_condemned_blobs_total", "Blobs that nothing needed.").WithLabelValues()
	c.untagged = m.counter("registry_gc_untagged_manifests_total", "Untagged manifests deleted (gc.untagged).").WithLabelValues()
	c.aborted = m.counter("registry_gc_aborted_uploads_total", "Multipart uploads aborted that nobody goes on with.").WithLabelValues()
	c.failed = m.counter("registry_gc_failed_keys_total", "Keys and uploads that the store did not let go.").WithLabelValues()
	c.phase = m.gauge("registry_gc_phase", "What runs on this node: 0 nothing, 1 untagged, 2 mark, 3 sweep, 4 orphans.").WithLabelValues()
	c.marked = m.gauge("registry_gc_last_marked_blobs", "Blobs that the last cycle which this node ended looked at.").WithLabelValues()
	for _, o := range cycleOutcomes() {
		c.cycles.WithLabelValues(o)
	}
	for _, what := range erased() {
		c.keys.WithLabelValues(what)
		c.bytes.WithLabelValues(what)
	}
}

// Collecting shows the phase that runs on this node; unspecified: none.
func (m *Metrics) Collecting(phase metav1.CyclePhase) { m.collection.phase.Set(float64(phase)) }

// Collected counts a cycle that this node ended.
func (m *Metrics) Collected(cycle *metav1.Cycle) {
	c, n := &m.collection, cycle.GetCount()
	c.cycles.WithLabelValues(outcomeLabel(cycle.GetOutcome())).Inc()
	for what, sum := range map[string][2]int64{
		"condemned": {n.GetDeletedKeys(), n.GetDeletedBytes()}, "orphan": {n.GetOrphanKeys(), n.GetOrphanBytes()},
	} {
		c.keys.WithLabelValues(what).Add(float64(max(sum[0], 0)))
		c.bytes.WithLabelValues(what).Add(float64(max(sum[1], 0)))
	}
	c.condemned.Add(float64(max(n.GetCondemnedBlobs(), 0)))
	c.untagged.Add(float64(max(n.GetUntaggedManifests(), 0)))
	c.aborted.Add(float64(max(n.GetAbortedMultiparts(), 0)))
	c.failed.Add(float64(max(n.GetFailed(), 0)))
	c.marked.Set(float64(n.GetMarked()))
}

func outcomeLabel(o metav1.CycleOutcome) string {
	return oneOf(cycleOutcomes(), strings.ToLower(strings.TrimPrefix(o.String(), "CYCLE_OUTCOME_")))
}

// CollectionFigures is what a scrape shows of the store and its collection, equal on all nodes but for the time of the look.
type CollectionFigures struct {
	// Looked: this node has asked the store for its owner mark, and MarkHeld says whether this cluster may delete (G9).
	Looked, MarkHeld bool
	SweptThrough     uint64
	// Cycles: the state could be read. Kept is what is condemned and stays for now, by the last cycle.
	Cycles bool
	Kept   *metav1.CycleKept
	// LastEnded is zero before the first cycle has ended.
	LastEnded time.Time
	// Findings are settings of the bucket that stand against the registry, Grave those that lose layers or uploads.
	Findings, Grave int
}

// WatchCollection makes every scrape ask source. Call it once.
func (m *Metrics) WatchCollection(source func() CollectionFigures) error {
	return m.registry.Register(&figureCollector{
		figures: func(now time.Time) []figure { return collectionFigures(source(), now) },
		// With everything known, so that all are described.
		all:   collectionFigures(CollectionFigures{Looked: true, Cycles: true, LastEnded: time.Now()}, time.Now()),
		descs: map[string]*prometheus.Desc{},
	})
}

func collectionFigures(f CollectionFigures, now time.Time) []figure {
	list := []figure{
		{"registry_gc_bucket_findings", "Settings of the bucket that stand against the registry; see `pontoon gc status`.", float64(f.Findings), prometheus.GaugeValue},
		{"registry_gc_bucket_findings_grave", "Of these: layers, uploads or backups that are needed may be lost.", float64(f.Grave), prometheus.GaugeValue},
	}
	if f.Looked {
		list = append(list,
			figure{"registry_gc_mark_held", "1 while the store's owner mark is this cluster's; 0: nothing is deleted.", truth(f.MarkHeld), prometheus.GaugeValue},
			figure{"registry_gc_swept_through_index", "Log index up to which condemned keys may be gone, by the owner mark.", float64(f.SweptThrough), prometheus.GaugeValue})
	}
	if f.Cycles {
		k := f.Kept
		list = append(list,
			figure{"registry_gc_reclaimable_bytes", "Bytes that are condemned and wait to be deleted, as of the last cycle.", float64(k.GetBytes()), prometheus.GaugeValue},
			figure{"registry_gc_kept_keys", "Keys that are condemned and wait to be deleted, as of the last cycle.", float64(k.GetKeys()), prometheus.GaugeValue},
			figure{"registry_gc_kept_for_backup_keys", "Of these: a backup may need them.", float64(k.GetForBackup()), prometheus.GaugeValue},
			figure{"registry_gc_kept_for_delay_keys", "Of these: gc.delay is not over.", float64(k.GetForDelay()), prometheus.GaugeValue},
			figure{"registry_gc_kept_for_mark_keys", "Of these: the store is not this cluster's.", float64(k.GetForMark()), prometheus.GaugeValue},
			figure{"registry_gc_kept_for_epoch_keys", "Of these: another cluster wrote them, and nobody said to forget its epoch.", float64(k.GetForEpoch()), prometheus.GaugeValue})
	}
	if !f.LastEnded.IsZero() {
		list = append(list, figure{"registry_gc_last_cycle_age_seconds", "Seconds since the last cycle ended.", max(0, now.Sub(f.LastEnded).Seconds()), prometheus.GaugeValue})
	}
	return list
}

// figureCollector shows figures that may be absent.
type figureCollector struct {
	figures func(now time.Time) []figure
	all     []figure
	descs   map[string]*prometheus.Desc
}

// Describe names every figure.
func (c *figureCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, f := range c.all {
		c.descs[f.name] = prometheus.NewDesc(f.name, f.help, nil, nil)
		ch <- c.descs[f.name]
	}
}

// Collect asks.
func (c *figureCollector) Collect(ch chan<- prometheus.Metric) {
	for _, f := range c.figures(time.Now()) {
		ch <- prometheus.MustNewConstMetric(c.descs[f.name], f.kind, f.value)
	}
}
