package api

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Node is what health and debug endpoints ask of the node behind the server.
type Node interface {
	// Ready answers nil when the node can serve every request, else why not. It should return soon after ctx ends.
	Ready(ctx context.Context) error
	// Started says whether the node has ever been ready since its process began.
	Started() bool
	// DebugState answers what /debug/state shows, encodable as JSON: applied index, term, state hash.
	DebugState() any
}

// Check is one further thing to know of the node: a condition of readiness unless it is advisory.
type Check struct {
	// Name stands in answers and metrics: lower-case letters, digits, - and _.
	Name string
	// Advisory: a failure is shown and does not make the node unready, since it serves all the same.
	Advisory bool
	// Timeout bounds one run. Default 2 s; at most 30 s.
	Timeout time.Duration
	// Run answers nil or what is wrong. It should return soon after ctx ends; one that does not is reported
	// as failing and not begun again before it returned.
	Run func(ctx context.Context) error
}

// HealthConfig says what health is made of.
type HealthConfig struct {
	// Node is required.
	Node Node
	// Checks are run beside Node.Ready. At most 32.
	Checks []Check
	// Fresh is how long one result serves all who ask, so that a storm of health checks costs nothing. Default 1 s.
	Fresh time.Duration
}

// Validate names the field that is out of its bounds.
func (c HealthConfig) Validate() error {
	if c.Node == nil {
		return errors.New("health config: Node is required")
	}
	if len(c.Checks) > 32 {
		return fmt.Errorf("health config: %d checks, at most 32", len(c.Checks))
	}
	names := map[string]bool{nodeCheck: true}
	for _, ch := range c.Checks {
		if !validCheckName(ch.Name) || names[ch.Name] || ch.Run == nil {
			return fmt.Errorf("health check %q: expected a function and a name of its own, of a-z 0-9 - _", ch.Name)
		}
		names[ch.Name] = true
		if ch.Timeout < 0 || ch.Timeout > 30*time.Second {
			return fmt.Errorf("health check %s: timeout %v is not between 0 and 30s", ch.Name, ch.Timeout)
		}
	}
	return nil
}

func validCheckName(name string) bool {
	for _, c := range name {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return name != "" && len(name) <= 64
}

// nodeCheck is the name under which Node.Ready is reported.
const nodeCheck = "node"

// Result is the outcome of one check.
type Result struct {
	Name string `json:"name"`
	OK   bool   `json:"ok"`
	// Advisory results do not decide whether the node is ready.
	Advisory bool    `json:"advisory,omitempty"`
	Error    string  `json:"error,omitempty"`
	Millis   float64 `json:"milliseconds"`
}

// Report is the outcome of all checks at one time.
type Report struct {
	Ready   bool      `json:"ready"`
	Started bool      `json:"started"`
	At      time.Time `json:"at"`
	Checks  []Result  `json:"checks"`
}

// Health judges whether the node is ready. Safe for concurrent use. It runs nothing unasked.
type Health struct {
	cfg      HealthConfig
	checks   []*check
	draining atomic.Bool
	started  atomic.Bool

	mu     sync.Mutex // guards last and flight
	last   *Report
	flight chan struct{} // closed when the run under way has ended; nil without one
}

// NewHealth checks the config and answers a Health that has asked nothing yet.
func NewHealth(c HealthConfig) (*Health, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	c.Fresh = or(c.Fresh, time.Second)
	h := &Health{cfg: c}
	for _, ch := range append([]Check{{Name: nodeCheck, Run: c.Node.Ready}}, c.Checks...) {
		ch.Timeout = or(ch.Timeout, 2*time.Second)
		h.checks = append(h.checks, &check{Check: ch})
	}
	return h, nil
}

// Drain makes the node unready from now on, at once.
func (h *Health) Drain() { h.draining.Store(true) }

// Startup says whether the node has been ready once, and asks it when it was not yet: an orchestrator that waits
// for this sends no readiness probe before.
func (h *Health) Startup(ctx context.Context) bool {
	return h.Started() || h.Report(ctx).Started
}

// Started says whether the node has been ready once, as far as anybody asked.
func (h *Health) Started() bool {
	if !h.started.Load() && h.cfg.Node.Started() {
		h.started.Store(true)
	}
	return h.started.Load()
}

// Report answers the last result when it is fresh, else runs the checks, once for all who ask
// meanwhile. When ctx ends first it answers an unready report that says so.
func (h *Health) Report(ctx context.Context) Report {
	if h.draining.Load() {
		return Report{Started: h.Started(), At: time.Now(), Checks: []Result{{Name: "drain", Error: "the node is shutting down"}}}
	}
	for {
		h.mu.Lock()
		if h.last != nil && time.Since(h.last.At) < h.cfg.Fresh {
			r := *h.last
			h.mu.Unlock()
			return r
		}
		flight := h.flight
		if flight == nil {
			flight = make(chan struct{})
			h.flight = flight
			h.mu.Unlock()
			return h.run(ctx, flight)
		}
		h.mu.Unlock()
		select {
		case <-flight:
		case <-ctx.Done():
			return Report{Started: h.Started(), At: time.Now(), Checks: []Result{{Name: nodeCheck, Error: "the request ended before the checks did"}}}
		}
	}
}

// run runs all checks. The asker's own end must not fail the result that others share.
func (h *Health) run(ctx context.Context, flight chan struct{}) Report {
	ctx = context.WithoutCancel(ctx)
	r := Report{Ready: true, Checks: make([]Result, len(h.checks))}
	var wg sync.WaitGroup
	for i, c := range h.checks {
		wg.Go(func() { r.Checks[i] = c.do(ctx) })
	}
	wg.Wait()
	for _, c := range r.Checks {
		r.Ready = r.Ready && (c.OK || c.Advisory)
	}
	if r.Checks[0].OK {
		h.started.Store(true)
	}
	r.Started, r.At = h.Started(), time.Now()
	h.mu.Lock()
	h.last, h.flight = &r, nil
	h.mu.Unlock()
	close(flight)
	return r
}

// check is a Check and its run under way.
type check struct {
	Check
	mu      sync.Mutex    // guards running
	running chan struct{} // closed when the run under way has returned; nil without one
}

func (c *check) do(ctx context.Context) Result {
	begin := time.Now()
	err := c.call(ctx)
	res := Result{Name: c.Name, OK: err == nil, Advisory: c.Advisory, Millis: float64(time.Since(begin).Microseconds()) / 1000}
	if err != nil {
		res.Error = err.Error()
	}
	return res
}

// call waits for the check, but not for one that ignores its context (a hung disk does not return): at most one
// goroutine for each check is left behind, and Health.wait waits for it.
func (c *check) call(ctx context.Context) error {
	running := c.begin()
	if running == nil {
		return errors.New("the previous run has not returned")
	}
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	answer := make(chan error, 1)
	go func() {
		defer c.end(running)
		defer cancel()
		answer <- c.guarded(ctx)
	}()
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-answer: // both at once: the check's own words say more
		return err
	case <-time.After(10 * time.Millisecond): // it may be about to say them
		return fmt.Errorf("no answer within %v", c.Timeout)
	}
}

func (c *check) begin() chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running != nil {
		return nil
	}
	c.running = make(chan struct{})
	return c.running
}

func (c *check) end(running chan struct{}) {
	c.mu.Lock()
	c.running = nil
	c.mu.Unlock()
	close(running)
}

func (c *check) guarded(ctx context.Context) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("check panicked: %v", p)
		}
	}()
	return c.Run(ctx)
}

// wait waits for the runs that were left behind, and answers the names of those that ctx did not see return.
func (h *Health) wait(ctx context.Context) (stuck []string) {
	for _, c := range h.checks {
		c.mu.Lock()
		running := c.running
		c.mu.Unlock()
		if running == nil {
			continue
		}
		select {
		case <-running:
		case <-ctx.Done():
			stuck = append(stuck, c.Name)
		}
	}
	return stuck
}
