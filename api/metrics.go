package api

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Metrics counts, in a registry of its own. Its methods satisfy the small interfaces that other packages
// declare; all are safe for concurrent use. Values outside a label's list are counted as "other" (A8).
type Metrics struct {
	registry *prometheus.Registry

	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	inflight *prometheus.GaugeVec
	received *prometheus.CounterVec
	sent     *prometheus.CounterVec
	panics   prometheus.Counter
	slow     *prometheus.CounterVec
	conns    prometheus.Gauge
	// debugConns are the connections of the debug listener.
	debugConns prometheus.Gauge

	storage       *prometheus.HistogramVec
	storageTotal  *prometheus.CounterVec
	storageErrors *prometheus.CounterVec
	storageBytes  *prometheus.CounterVec
	// storageRefused, storageRepeated and storageOpen are what shields the store (B5).
	storageRefused  *prometheus.CounterVec
	storageRepeated *prometheus.CounterVec
	storageOpen     *prometheus.GaugeVec
	lostBlobs       prometheus.Counter
	pulls           *prometheus.CounterVec
	pushes          *prometheus.CounterVec
	logins          *prometheus.CounterVec

	layerBytes *prometheus.CounterVec

	proposals       *prometheus.CounterVec
	proposalSeconds prometheus.Observer
	entryCommands   prometheus.Observer
	readBatch       prometheus.Observer
	readSeconds     prometheus.Observer
	diverged        *prometheus.CounterVec
	readErrors      prometheus.Counter
	reloads         *prometheus.CounterVec

	backups    backups
	collection collectionMetrics
}

// NewMetrics answers metrics with every series that a dashboard may ask for, at zero.
func NewMetrics() *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry()}
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.registerHTTP()
	m.registerStorage()
	m.registerCluster()
	m.registerBackups()
	m.registerCollection()
	for _, h := range handlers() {
		m.inflight.WithLabelValues(h)
		m.requests.WithLabelValues(h, "get", "200")
	}
	for _, what := range things() {
		m.pushes.WithLabelValues(what)
		for _, r := range pullResults() {
			m.pulls.WithLabelValues(what, r)
		}
	}
	return m
}

// fast are the buckets of what should take milliseconds, in seconds; slow those of moving layers.
func fast() []float64 {
	return []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}
}

func slow() []float64 {
	return []float64{.001, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300}
}

func (m *Metrics) counter(name, help string, labels ...string) *prometheus.CounterVec {
	v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	m.registry.MustRegister(v)
	return v
}

func (m *Metrics) histogram(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	v := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
	m.registry.MustRegister(v)
	return v
}

func (m *Metrics) gauge(name, help string, labels ...string) *prometheus.GaugeVec {
	v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
	m.registry.MustRegister(v)
	return v
}

func (m *Metrics) registerHTTP() {
	m.requests = m.counter("registry_http_requests_total", "Requests answered.", "handler", "method", "code")
	m.seconds = m.histogram("registry_http_request_duration_seconds", "Time from a request's header to the end of its answer.", slow(), "handler", "method")
	m.inflight = m.gauge("registry_http_in_flight_requests", "Requests being served.", "handler")
	m.received = m.counter("pontoon_http_received_bytes_total", "Bytes of request bodies read.", "handler")
	m.sent = m.counter("pontoon_http_sent_bytes_total", "Bytes of answer bodies written.", "handler")
	m.slow = m.counter("pontoon_http_slow_requests_total", "Requests for which the node itself took longer than its bound.", "handler")
	m.panics = m.counter("pontoon_http_panics_total", "Requests whose handler panicked: each is a defect.").WithLabelValues()
	conns := m.gauge("pontoon_http_connections", "Connections open on a listener (registry, debug).", "listener")
	m.conns, m.debugConns = conns.WithLabelValues("registry"), conns.WithLabelValues("debug")
	m.logins = m.counter("pontoon_logins_total", "Logins judged, by result (ok, failed, busy).", "result")
	m.reloads = m.counter("pontoon_tls_reloads_total", "Reads of changed certificate files, by result (ok, failed).", "result")
}

// request counts one request from now until the function it answers is called.
func (m *Metrics) request(handler, method string) func(code int, took time.Duration, received, sent int64) {
	method = methodLabel(method)
	inflight := m.inflight.WithLabelValues(handler)
	inflight.Inc()
	return func(code int, took time.Duration, received, sent int64) {
		inflight.Dec()
		m.requests.WithLabelValues(handler, method, codeLabel(code)).Inc()
		m.seconds.WithLabelValues(handler, method).Observe(took.Seconds())
		if received > 0 {
			m.received.WithLabelValues(handler).Add(float64(received))
		}
		if sent > 0 {
			m.sent.WithLabelValues(handler).Add(float64(sent))
		}
	}
}

func codeLabel(code int) string {
	if code < 100 || code > 599 {
		return other
	}
	return strconv.Itoa(code)
}

func methodLabel(method string) string {
	switch method {
	case http.MethodGet:
		return "get"
	case http.MethodHead:
		return "head"
	case http.MethodPut:
		return "put"
	case http.MethodPost:
		return "post"
	case http.MethodPatch:
		return "patch"
	case http.MethodDelete:
		return "delete"
	case http.MethodOptions:
		return "options"
	}
	return other
}

// Registerer is for further collectors of cmd.
func (m *Metrics) Registerer() prometheus.Registerer { return m.registry }

// Handler answers a scrape in the Prometheus or OpenMetrics format.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 10 * time.Second})
}
