package api

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"

	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

func TestScrapeHasTheNamesThatDashboardsKnow(t *testing.T) {
	m := NewMetrics()
	r := start(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, "12345")
	}, func(c *Config) { c.Metrics = m })
	if err := m.WatchNode(func() NodeFigures {
		return NodeFigures{Leader: true, LeaderKnown: true, Term: 7, Applied: 41, FailureTolerance: 1, QueueBytes: 99, Panics: 2, ClusterCertificate: time.Now().Add(time.Hour)}
	}); err != nil {
		t.Fatal(err)
	}
	if err := m.WatchProjects(func() iter.Seq2[string, int64] {
		return func(yield func(string, int64) bool) { yield("team", 1234) }
	}); err != nil {
		t.Fatal(err)
	}
	m.ObserveStorage("s3", "open", time.Second, 10, nil)
	m.ObserveStorage("nfs", "teleport", time.Second, 0, errors.New("x"))
	m.Pulled("manifests", "ok")
	m.Pushed("blobs")
	m.Sent(5)
	m.Login("failed")
	m.Proposed(metav1.Kind_KIND_UNSPECIFIED, time.Millisecond)
	m.Proposed(metav1.Kind_KIND_OUTCOME_UNKNOWN, time.Millisecond)
	m.Proposed(metav1.Kind(999), time.Millisecond)
	m.Committed(3)
	m.ReadRound(8, time.Millisecond, errors.New("x"))

	req, _ := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://"+r.registry.String()+"/v2/team/app/manifests/v1", strings.NewReader("123"))
	do(t, client(t, nil), req)
	r.waitIdle()
	_, body := get(t, client(t, nil), "http://"+r.debug.String()+"/metrics")
	for _, want := range []string{
		`registry_http_requests_total{code="201",handler="manifest",method="put"} 1`,
		`registry_http_request_duration_seconds_count{handler="manifest",method="put"} 1`,
		`registry_http_in_flight_requests{handler="manifest"} 0`,
		`registry_storage_action_seconds_count{action="open",driver="s3"} 1`,
		`registry_storage_action_total{action="open"} 1`,
		`registry_storage_action_total{action="other"} 1`,
		`registry_storage_size_bytes{project="team"} 1234`,
		`registry_pulls_total{result="ok",what="manifests"} 1`,
		`pontoon_pushes_total{what="blobs"} 1`,
		`pontoon_storage_errors_total{action="other",driver="other"} 1`,
		`pontoon_http_received_bytes_total{handler="manifest"} 3`,
		`pontoon_http_sent_bytes_total{handler="manifest"} 5`,
		`pontoon_logins_total{result="failed"} 1`,
		`pontoon_proposals_total{result="ok"} 1`,
		`pontoon_proposals_total{result="outcome_unknown"} 1`,
		`pontoon_proposals_total{result="other"} 1`,
		`pontoon_proposal_seconds_count 3`,
		`pontoon_log_entry_commands_sum 3`,
		`pontoon_read_index_batch_size_sum 8`,
		`pontoon_read_index_errors_total 1`,
		`pontoon_raft_leader 1`,
		`pontoon_raft_term 7`,
		`pontoon_raft_applied_index 41`,
		`pontoon_failure_tolerance 1`,
		`pontoon_queue_bytes 99`,
		`pontoon_state_panics_total 2`,
		`pontoon_cluster_certificate_expiry_seconds 35`, // and two figures more,
		"go_goroutines ", "process_open_fds ",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("no %s", want)
		}
	}
	if strings.Contains(body, "team/app") || strings.Contains(body, "pontoon_public_certificate") {
		t.Error("a repository name, or a certificate that is not there")
	}
}

func TestLabelsAreBounded(t *testing.T) {
	m := NewMetrics()
	for i := range 1000 {
		m.request(handlerBlob, fmt.Sprintf("METHOD%d", i))(i, 0, 0, 0)
	}
	if got := len(series(t, m, "registry_http_requests_total")); got > 600 {
		t.Errorf("%d series", got)
	}
	if got := len(series(t, m, "registry_http_request_duration_seconds")); got != 1 {
		t.Errorf("%d series of durations", got)
	}
}

func TestProjectsBeyondTheBoundAreSummedUp(t *testing.T) {
	m := NewMetrics()
	if err := m.WatchProjects(func() iter.Seq2[string, int64] {
		return func(yield func(string, int64) bool) {
			for i := range 700 {
				if !yield(fmt.Sprintf("p%03d", i), int64(i)) {
					return
				}
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
	sizes := series(t, m, "registry_storage_size_bytes")
	if len(sizes) != maxProjects+1 {
		t.Errorf("%d series", len(sizes))
	}
	for _, one := range sizes {
		if one.GetLabel()[0].GetValue() == "_other" && one.GetGauge().GetValue() != 199*200/2 {
			t.Errorf("the rest is %v", one.GetGauge().GetValue())
		}
	}
}

func series(t *testing.T, m *Metrics, name string) []*dto.Metric {
	t.Helper()
	families, err := m.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()
		}
	}
	return nil
}

func TestLivingConnectionsAreCounted(t *testing.T) {
	r := start(t, ok, nil)
	get(t, client(t, nil), "http://"+r.registry.String()+"/v2/")
	for _, one := range series(t, r.cfg.Metrics, "pontoon_http_connections") {
		if one.GetLabel()[0].GetValue() == "registry" && one.GetGauge().GetValue() != 1 {
			t.Errorf("%v connections", one.GetGauge().GetValue())
		}
	}
}
