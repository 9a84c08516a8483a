package api

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"time"
)

// The phases of a request that Server-Timing and the slow log show.
const (
	// PhaseAuth is deciding who asks.
	PhaseAuth = "auth"
	// PhaseLedger is waiting for the cluster: proposals and linearizable views.
	PhaseLedger = "ledger"
	// PhaseStore is waiting for the store of layers.
	PhaseStore = "store"
)

// maxPhases bounds what one request may record.
const maxPhases = 8

// timing adds up the phases of one request. Safe for concurrent use.
type timing struct {
	mu     sync.Mutex // guards phases
	phases []phase
}

type phase struct {
	name  string
	total time.Duration
}

func (t *timing) add(name string, d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range t.phases {
		if t.phases[i].name == name {
			t.phases[i].total += d
			return
		}
	}
	if len(t.phases) < maxPhases && validPhase(name) {
		t.phases = append(t.phases, phase{name, d})
	}
}

func (t *timing) snapshot() []phase {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]phase(nil), t.phases...)
}

// header answers the value of Server-Timing (W3C Server Timing, section 3): durations in milliseconds.
func (t *timing) header(total time.Duration) string {
	var b strings.Builder
	for _, p := range t.snapshot() {
		writeMetric(&b, p.name, p.total)
		b.WriteString(", ")
	}
	writeMetric(&b, "total", total)
	return b.String()
}

func writeMetric(b *strings.Builder, name string, d time.Duration) {
	b.WriteString(name)
	b.WriteString(";dur=")
	b.WriteString(strconv.FormatFloat(float64(d)/float64(time.Millisecond), 'f', 2, 64))
}

// validPhase: lower-case letters, so that the name is a token of the header.
func validPhase(name string) bool {
	for i := range len(name) {
		if name[i] < 'a' || name[i] > 'z' {
			return false
		}
	}
	return name != "" && len(name) <= 16
}

// Phase begins a phase of the request that ctx belongs to, and answers the function that ends
// it. Phases of one name add up. Outside a request it does nothing.
func Phase(ctx context.Context, name string) (end func()) {
	x := exchangeOf(ctx)
	if x == nil {
		return func() {}
	}
	begin := time.Now()
	return func() { x.timing.add(name, time.Since(begin)) }
}

// Spent adds d to a phase of the request that ctx belongs to.
func Spent(ctx context.Context, name string, d time.Duration) {
	if x := exchangeOf(ctx); x != nil {
		x.timing.add(name, d)
	}
}
