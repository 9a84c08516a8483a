package api

import (
	"cmp"
	"iter"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// maxProjects bounds the series of registry_storage_size_bytes.
const maxProjects = 500

// nodeCollector asks the node at each scrape, so nothing has to be kept up to date between them.
type nodeCollector struct {
	source func() NodeFigures
	descs  map[string]*prometheus.Desc
}

type figure struct {
	name, help string
	value      float64
	kind       prometheus.ValueType
}

func figures(f NodeFigures, now time.Time) []figure {
	list := []figure{
		{"pontoon_raft_leader", "1 on the node that leads.", truth(f.Leader), prometheus.GaugeValue},
		{"pontoon_raft_leader_known", "1 while the node knows who leads.", truth(f.LeaderKnown), prometheus.GaugeValue},
		{"pontoon_raft_term", "Raft term.", float64(f.Term), prometheus.GaugeValue},
		{"pontoon_raft_applied_index", "Log index that this node's state has reached.", float64(f.Applied), prometheus.GaugeValue},
		{"pontoon_raft_commit_index", "Log index that this node knows to be committed.", float64(f.Committed), prometheus.GaugeValue},
		{"pontoon_raft_last_index", "Last index in this node's log.", float64(f.Last), prometheus.GaugeValue},
		{"pontoon_raft_voters", "Voters in the cluster.", float64(f.Voters), prometheus.GaugeValue},
		{"pontoon_failure_tolerance", "Voters that may still fail before writes stop.", float64(f.FailureTolerance), prometheus.GaugeValue},
		{"pontoon_queue_bytes", "Bytes of commands that wait on this node for the leader's log.", float64(f.QueueBytes), prometheus.GaugeValue},
		{"pontoon_state_panics_total", "Commands that panicked in this node's state and were refused: each is a defect (M2).", float64(f.Panics), prometheus.CounterValue},
		{"pontoon_disk_free_bytes", "Bytes free under the data directory.", float64(f.DiskFree), prometheus.GaugeValue},
		{"pontoon_disk_wanted_bytes", "Bytes that must be free (cluster.disk.minfree).", float64(f.DiskWanted), prometheus.GaugeValue},
		{"pontoon_disk_ballast_bytes", "Bytes of the ballast; 0 when it was given back.", float64(f.Ballast), prometheus.GaugeValue},
		{"pontoon_disk_level", "0: room; 1: low, the node does not lead and is not ready; 2: full, it keeps out of Raft.", float64(f.DiskLevel), prometheus.GaugeValue},
	}
	for name, expires := range map[string]time.Time{"cluster": f.ClusterCertificate, "public": f.PublicCertificate} {
		if !expires.IsZero() {
			list = append(list, figure{"pontoon_" + name + "_certificate_expiry_seconds",
				"Seconds until the " + name + " certificate in use expires.", expires.Sub(now).Seconds(), prometheus.GaugeValue})
		}
	}
	return list
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// Describe names every figure, those of absent certificates too.
func (c *nodeCollector) Describe(ch chan<- *prometheus.Desc) {
	now := time.Now()
	for _, f := range figures(NodeFigures{ClusterCertificate: now, PublicCertificate: now}, now) {
		c.descs[f.name] = prometheus.NewDesc(f.name, f.help, nil, nil)
		ch <- c.descs[f.name]
	}
}

// Collect asks the node.
func (c *nodeCollector) Collect(ch chan<- prometheus.Metric) {
	for _, f := range figures(c.source(), time.Now()) {
		ch <- prometheus.MustNewConstMetric(c.descs[f.name], f.kind, f.value)
	}
}

type projectCollector struct {
	source func() iter.Seq2[string, int64]
	desc   *prometheus.Desc
}

// Describe names the one series.
func (c *projectCollector) Describe(ch chan<- *prometheus.Desc) { ch <- c.desc }

// Collect shows the largest projects by name and the rest as one.
func (c *projectCollector) Collect(ch chan<- prometheus.Metric) {
	type size struct {
		project string
		bytes   int64
	}
	var all []size
	for project, bytes := range c.source() {
		all = append(all, size{project, bytes})
	}
	slices.SortFunc(all, func(a, b size) int {
		return cmp.Or(cmp.Compare(b.bytes, a.bytes), cmp.Compare(a.project, b.project))
	})
	var rest int64
	for i, s := range all {
		if i >= maxProjects {
			rest += s.bytes
			continue
		}
		ch <- prometheus.MustNewConstMetric(c.desc, prometheus.GaugeValue, float64(s.bytes), s.project)
	}
	if rest > 0 {
		ch <- prometheus.MustNewConstMetric(c.desc, prometheus.GaugeValue, float64(rest), "_other")
	}
}
