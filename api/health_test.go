package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestHealthTellsAWordInPublicAndTheReasonToOperators(t *testing.T) {
	health, err := NewHealth(HealthConfig{Node: &node{}, Checks: []Check{{Name: "disk", Run: func(context.Context) error { return errors.New("disk is full") }}}})
	if err != nil {
		t.Fatal(err)
	}
	r := start(t, ok, func(c *Config) { c.Health = health })
	c, registry, debug := client(t, nil), "http://"+r.registry.String(), "http://"+r.debug.String()
	for url, want := range map[string]struct {
		status int
		body   string
	}{
		registry + "/":         {200, "ok\n"},
		registry + "/livez":    {200, "ok\n"},
		registry + "/readyz":   {503, "unavailable\n"},
		registry + "/startupz": {200, "ok\n"}, // the node was ready once; its disk is not a matter of starting
		debug + "/":            {200, "ok\n"},
		debug + "/livez":       {200, "ok\n"},
	} {
		if res, body := get(t, c, url); res.StatusCode != want.status || body != want.body {
			t.Errorf("%s: %d %q", url, res.StatusCode, body)
		}
	}
	for _, path := range []string{"/readyz", "/healthz", "/debug/health"} {
		res, body := get(t, c, debug+path)
		var rep Report
		if err := json.Unmarshal([]byte(body), &rep); err != nil {
			t.Fatal(err)
		}
		if res.StatusCode != 503 || rep.Ready || len(rep.Checks) != 2 || rep.Checks[1].Error != "disk is full" || !rep.Checks[0].OK {
			t.Errorf("%s: %d %s", path, res.StatusCode, body)
		}
	}
	if _, body := get(t, c, debug+"/debug/state"); !strings.Contains(body, `"hash": "c0ffee"`) {
		t.Error(body)
	}
}

func TestStartupIsNotUndone(t *testing.T) {
	n := &node{}
	h, _ := NewHealth(HealthConfig{Node: n})
	if h.Started() {
		t.Error("started at birth")
	}
	n.started.Store(true)
	if !h.Started() {
		t.Error("not started")
	}
	n.started.Store(false)
	if !h.Started() {
		t.Error("a node that once started counts as starting again")
	}
}

// forgetful is a node that leaves remembering to others.
type forgetful struct{ node }

func (*forgetful) Started() bool { return false }

// Kubernetes sends no readiness probe before the startup probe has succeeded.
func TestStartupAsksTheNodeItself(t *testing.T) {
	n := &forgetful{}
	why := "no leader"
	n.unready.Store(&why)
	h, err := NewHealth(HealthConfig{Node: n, Fresh: time.Nanosecond})
	if err != nil {
		t.Fatal(err)
	}
	r := start(t, ok, func(c *Config) { c.Health = h })
	startup := func() (public, debug int) {
		a, _ := get(t, client(t, nil), "http://"+r.registry.String()+"/startupz")
		b, _ := get(t, client(t, nil), "http://"+r.debug.String()+"/startupz")
		return a.StatusCode, b.StatusCode
	}
	if a, b := startup(); a != 503 || b != 503 {
		t.Errorf("started before it was ready: %d, %d", a, b)
	}
	n.unready.Store(nil)
	if a, b := startup(); a != 200 || b != 200 {
		t.Errorf("not started although it is ready: %d, %d", a, b)
	}
	h.Drain()
	if a, b := startup(); a != 200 || b != 200 {
		t.Errorf("a node that drains counts as starting: %d, %d", a, b)
	}
}

func TestHealthStormRunsChecksOnceASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &node{}
		var runs atomic.Int64
		h, _ := NewHealth(HealthConfig{Node: n, Checks: []Check{{Name: "slow", Run: func(context.Context) error {
			runs.Add(1)
			time.Sleep(100 * time.Millisecond)
			return nil
		}}}})
		storm := func() {
			var wg sync.WaitGroup
			for range 100 {
				wg.Go(func() {
					if !h.Report(t.Context()).Ready {
						t.Error("unready")
					}
				})
			}
			wg.Wait()
		}
		storm()
		storm()
		if n.asked.Load() != 1 || runs.Load() != 1 {
			t.Errorf("asked %d times, ran %d times", n.asked.Load(), runs.Load())
		}
		time.Sleep(time.Second)
		storm()
		if n.asked.Load() != 2 || runs.Load() != 2 {
			t.Errorf("after a second: asked %d times, ran %d times", n.asked.Load(), runs.Load())
		}
	})
}

func TestCheckThatHangsIsReportedAndNotBegunAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var runs atomic.Int64
		h, _ := NewHealth(HealthConfig{Node: &node{}, Checks: []Check{{Name: "mount", Timeout: time.Second, Run: func(context.Context) error {
			runs.Add(1)
			<-release // as a dead network mount: no context ends it
			return nil
		}}}})
		for i, want := range []string{"no answer within 1s", "the previous run has not returned"} {
			rep := h.Report(t.Context())
			if rep.Ready || rep.Checks[1].Error != want {
				t.Errorf("report %d: %+v", i, rep)
			}
			time.Sleep(2 * time.Second)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if stuck := h.wait(ctx); len(stuck) != 1 || stuck[0] != "mount" {
			t.Errorf("stuck: %q", stuck)
		}
		close(release)
		if stuck := h.wait(t.Context()); len(stuck) != 0 {
			t.Errorf("stuck: %q", stuck)
		}
		if rep := h.Report(t.Context()); !rep.Ready || runs.Load() != 2 {
			t.Errorf("after it returned: %+v, %d runs", rep, runs.Load())
		}
	})
}

func TestCheckThatPanicsFails(t *testing.T) {
	h, _ := NewHealth(HealthConfig{Node: &node{}, Checks: []Check{{Name: "bad", Run: func(context.Context) error { panic("oops") }}}})
	if rep := h.Report(t.Context()); rep.Ready || !strings.Contains(rep.Checks[1].Error, "oops") {
		t.Errorf("%+v", rep)
	}
}

func TestAskerThatLeavesDoesNotFailTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, _ := NewHealth(HealthConfig{Node: &node{}, Checks: []Check{{Name: "slow", Run: func(ctx context.Context) error {
			select {
			case <-time.After(time.Second):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}}}})
		ctx, cancel := context.WithCancel(t.Context())
		first := make(chan Report, 1)
		go func() { first <- h.Report(ctx) }()
		synctest.Wait()
		cancel()
		if !h.Report(t.Context()).Ready {
			t.Error("failed by another's end")
		}
		<-first
	})
}

func TestHealthConfigNamesTheCheck(t *testing.T) {
	run := func(context.Context) error { return nil }
	for want, c := range map[string]HealthConfig{
		"Node is required":             {},
		`"Disk"`:                       {Node: &node{}, Checks: []Check{{Name: "Disk", Run: run}}},
		`"node"`:                       {Node: &node{}, Checks: []Check{{Name: "node", Run: run}}},
		"timeout 1m0s is not between":  {Node: &node{}, Checks: []Check{{Name: "a", Timeout: time.Minute, Run: run}}},
		"33 checks, at most 32":        {Node: &node{}, Checks: make([]Check, 33)},
		`health check "b": expected a`: {Node: &node{}, Checks: []Check{{Name: "b"}}},
	} {
		if _, err := NewHealth(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestDebugListenerCanBeOff(t *testing.T) {
	r := start(t, ok, func(c *Config) { c.DebugAddr = "none" })
	if r.debug != nil {
		t.Error(r.debug)
	}
	if res, _ := get(t, client(t, nil), "http://"+r.registry.String()+"/"); res.StatusCode != http.StatusOK {
		t.Error(res.StatusCode)
	}
}

// A node whose store is down serves all that needs none: the check is shown, and the node stays ready.
func TestAnAdvisoryCheckIsShownAndDecidesNothing(t *testing.T) {
	n := &node{}
	h, err := NewHealth(HealthConfig{Node: n, Checks: []Check{{Name: "store", Advisory: true, Run: func(context.Context) error { return errors.New("store is down") }}}})
	if err != nil {
		t.Fatal(err)
	}
	r := h.Report(t.Context())
	if !r.Ready || len(r.Checks) != 2 || r.Checks[1].OK || !r.Checks[1].Advisory || r.Checks[1].Error != "store is down" {
		t.Errorf("%+v", r)
	}
}
