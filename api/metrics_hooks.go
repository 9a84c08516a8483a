package api

import (
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// other stands for every value that a label's list does not have (A8).
const other = "other"

func pullResults() []string {
	return []string{"ok", "denied", "unauthenticated", "not_found", "client_gone", "error"}
}

func drivers() []string { return []string{"s3", "fs", "mem", "cache", "backup"} }

// actions are those of blobs.Call.
func actions() []string {
	return []string{"open", "read", "stat", "writer", "write", "save", "close", "abandon", "finish", "abort", "delete", "list",
		"listmultiparts", "presign"}
}

func oneOf(list []string, v string) string {
	if slices.Contains(list, v) {
		return v
	}
	return other
}

func (m *Metrics) registerStorage() {
	m.storage = m.histogram("registry_storage_action_seconds", "Time of calls to the store of layers.", slow(), "driver", "action")
	m.storageTotal = m.counter("registry_storage_action_total", "Calls to the store of layers.", "action")
	m.storageErrors = m.counter("pontoon_storage_errors_total", "Calls to the store of layers that failed.", "driver", "action")
	m.storageBytes = m.counter("pontoon_storage_bytes_total", "Bytes moved to or from the store of layers.", "driver", "action")
	m.storageRefused = m.counter("pontoon_storage_refused_total",
		"Calls that the store was not asked: its breaker is open, or too many are in flight (busy).", "driver", "why")
	m.storageRepeated = m.counter("pontoon_storage_repeated_total",
		"What was asked of the store again after it had failed: calls, and streams that broke (read).", "driver", "action")
	m.storageOpen = m.gauge("pontoon_storage_breaker_open", "1 while the store does not answer and is left alone; layers answer 503.", "driver")
	m.lostBlobs = m.counter("pontoon_blobs_lost_total", "Blobs that this node found missing or damaged in the store and marked lost.").WithLabelValues()
	m.pulls = m.counter("registry_pulls_total", "GETs of manifests and blobs, by result.", "what", "result")
	m.pushes = m.counter("pontoon_pushes_total", "Manifests and blobs committed.", "what")
	m.layerBytes = m.counter("pontoon_blob_bytes_total", "Bytes of blobs that clients sent or took.", "direction")
}

// ObserveStorage counts one call to a store: bytes are those that it moved, 0 where none do.
func (m *Metrics) ObserveStorage(driver, action string, took time.Duration, bytes int64, err error) {
	driver, action = oneOf(drivers(), driver), oneOf(actions(), action)
	m.storage.WithLabelValues(driver, action).Observe(took.Seconds())
	m.storageTotal.WithLabelValues(action).Inc()
	if bytes > 0 {
		m.storageBytes.WithLabelValues(driver, action).Add(float64(bytes))
	}
	if err != nil {
		m.storageErrors.WithLabelValues(driver, action).Inc()
	}
}

// StorageRefused counts a call that a store was not asked: open or busy.
func (m *Metrics) StorageRefused(driver, why string) {
	m.storageRefused.WithLabelValues(oneOf(drivers(), driver), oneOf([]string{"open", "busy"}, why)).Inc()
}

// StorageRepeated counts a repetition: call or read; of backups get or put.
func (m *Metrics) StorageRepeated(driver, action string) {
	m.storageRepeated.WithLabelValues(oneOf(drivers(), driver), oneOf([]string{"call", "read", "get", "put"}, action)).Inc()
}

// StorageOpened shows whether a store's breaker is open.
func (m *Metrics) StorageOpened(driver string, open bool) {
	m.storageOpen.WithLabelValues(oneOf(drivers(), driver)).Set(truth(open))
}

// Lost counts a blob that was marked lost (B7).
func (m *Metrics) Lost() { m.lostBlobs.Inc() }

func things() []string { return []string{"manifests", "blobs"} }

// Pulled counts a GET of "manifests" or "blobs": ok, denied, unauthenticated, not_found, client_gone or error.
func (m *Metrics) Pulled(what, result string) {
	m.pulls.WithLabelValues(oneOf(things(), what), oneOf(pullResults(), result)).Inc()
}

// Pushed counts a commit of "manifests" or "blobs".
func (m *Metrics) Pushed(what string) { m.pushes.WithLabelValues(oneOf(things(), what)).Inc() }

// Received counts bytes of blobs that clients sent.
func (m *Metrics) Received(bytes int64) {
	m.layerBytes.WithLabelValues("received").Add(float64(max(bytes, 0)))
}

// Sent counts bytes of blobs that clients took.
func (m *Metrics) Sent(bytes int64) {
	m.layerBytes.WithLabelValues("sent").Add(float64(max(bytes, 0)))
}

// Login counts one login that was judged: ok, failed or busy.
func (m *Metrics) Login(result string) {
	m.logins.WithLabelValues(oneOf([]string{"ok", "failed", "busy"}, result)).Inc()
}

func (m *Metrics) registerCluster() {
	m.proposals = m.counter("pontoon_proposals_total", "Commands that this node proposed and that have their answer, by kind of refusal, ok without.", "result")
	m.proposalSeconds = m.histogram("pontoon_proposal_seconds", "Time from proposing a command to its result on this node.", fast()).WithLabelValues()
	m.entryCommands = m.histogram("pontoon_log_entry_commands", "Commands in one log entry, on the leader.", powers()).WithLabelValues()
	m.readBatch = m.histogram("pontoon_read_index_batch_size", "Reads that shared one round of the read index.", powers()).WithLabelValues()
	m.readSeconds = m.histogram("pontoon_read_index_seconds", "Time of one round of the read index.", fast()).WithLabelValues()
	m.readErrors = m.counter("pontoon_read_index_errors_total", "Rounds of the read index that failed.").WithLabelValues()
	m.diverged = m.counter("pontoon_state_diverged_total", "Comparisons that found voters whose states differ; odd: this node's own is the odd one (M9).", "odd")
	m.diverged.WithLabelValues("true")
	m.diverged.WithLabelValues("false")
	m.proposals.WithLabelValues("ok")
}

func powers() []float64 { return prometheus.ExponentialBuckets(1, 2, 12) }

// Proposed counts one command that has its answer; kind is the refusal's, unspecified without one.
func (m *Metrics) Proposed(kind metav1.Kind, took time.Duration) {
	m.proposals.WithLabelValues(kindLabel(kind)).Inc()
	m.proposalSeconds.Observe(took.Seconds())
}

// kindLabel: KIND_OUTCOME_UNKNOWN is outcome_unknown. A kind of a later release is other.
func kindLabel(kind metav1.Kind) string {
	name, known := metav1.Kind_name[int32(kind)]
	switch {
	case kind == metav1.Kind_KIND_UNSPECIFIED:
		return "ok"
	case !known:
		return other
	}
	return strings.ToLower(strings.TrimPrefix(name, "KIND_"))
}

// Committed counts one log entry that the leader applied.
func (m *Metrics) Committed(commands int) { m.entryCommands.Observe(float64(commands)) }

// ReadRound counts one round of the read index that served reads.
func (m *Metrics) ReadRound(reads int, took time.Duration, err error) {
	m.readBatch.Observe(float64(reads))
	m.readSeconds.Observe(took.Seconds())
	if err != nil {
		m.readErrors.Inc()
	}
}

// Diverged counts one comparison of hashes that found a difference.
func (m *Metrics) Diverged(own bool) { m.diverged.WithLabelValues(strconv.FormatBool(own)).Inc() }

// NodeFigures is what a scrape shows of the node. Zero times are not shown.
type NodeFigures struct {
	Leader bool
	// LeaderKnown: the node knows who leads.
	LeaderKnown                    bool
	Term, Applied, Committed, Last uint64
	Voters                         int
	// FailureTolerance is how many voters may still fail without loss of the majority; negative without one.
	FailureTolerance int
	// QueueBytes are the commands that wait for the leader's log, on this node.
	QueueBytes int64
	// Panics counts the commands that panicked in this node's state.
	Panics uint64
	// ClusterCertificate and PublicCertificate are when the certificates in use expire.
	ClusterCertificate, PublicCertificate time.Time
	// DiskFree and DiskWanted are bytes under the data directory, Ballast the bytes of the file
	// that is kept for a start on a full disk. DiskLevel is 0 with room, 1 low, 2 full.
	DiskFree, DiskWanted, Ballast int64
	DiskLevel                     int
}

// WatchNode makes every scrape ask source. Call it once.
func (m *Metrics) WatchNode(source func() NodeFigures) error {
	return m.registry.Register(&nodeCollector{source: source, descs: map[string]*prometheus.Desc{}})
}

// WatchProjects makes every scrape ask source for the stored bytes of each project. Beyond 500 projects the
// rest is summed up under "_other" (A8). Call it once.
func (m *Metrics) WatchProjects(source func() iter.Seq2[string, int64]) error {
	return m.registry.Register(&projectCollector{source: source, desc: prometheus.NewDesc("registry_storage_size_bytes",
		"Bytes of layers and manifests that the project's repositories reference.", []string{"project"}, nil)})
}
