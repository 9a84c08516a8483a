package gc

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// reign lets a collector run for so long, as a leader does.
func (w *world) reign(cfg Config, d time.Duration) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), d)
	defer cancel()
	if err := w.collector(cfg).Run(ctx); err != nil {
		w.t.Fatal(err)
	}
}

// begun are the wall times at which cycles began, the oldest first, as hours since the start.
func (w *world) begun(start time.Time) (hours []float64) {
	w.t.Helper()
	w.view(func(v *meta.View) {
		rows, err := v.Cycles(100)
		if err != nil {
			w.t.Fatal(err)
		}
		for _, c := range rows {
			at := time.Unix(0, c.GetBegun().GetWallTime()).Sub(start)
			hours = append([]float64{float64(at.Round(6*time.Minute)) / float64(time.Hour)}, hours...)
		}
	})
	return hours
}

func sameHours(t *testing.T, got []float64, want ...float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("cycles began at hours %v, want %v", got, want)
	}
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("cycles began at hours %v, want %v", got, want)
		}
	}
}

// ticking keeps the cluster's clock going, as its leader does.
func (w *world) ticking(d time.Duration) func() {
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for sleep(ctx, d) {
			w.publish()
		}
	}()
	return func() { cancel(); <-done }
}

func TestLeaderChangesNeitherSkipNorDoubleACycle(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		defer w.ticking(time.Minute)()
		cfg := w.config()
		cfg.Schedule, cfg.Poll = "@every 6h", 10*time.Second
		start := time.Now()
		for range 7 * 2 { // the first cycle at once, and then each six hours, whoever leads
			w.reign(cfg, 25*time.Minute)
			time.Sleep(5 * time.Minute)
		}
		sameHours(t, w.begun(start), 0, 6)
		if c := w.last(); c.GetTrigger() != metav1.CycleTrigger_CYCLE_TRIGGER_SCHEDULE {
			t.Errorf("trigger %v", c.GetTrigger())
		}
	})
}

func TestACronScheduleIsKeptAndARequestNeedsNone(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		defer w.ticking(time.Minute)()
		cfg := w.config()
		cfg.Schedule, cfg.Poll = "0 3 * * *", 10*time.Second
		start := time.Now() // midnight
		w.reign(cfg, 2*time.Hour)
		w.request()
		w.reign(cfg, 2*time.Hour)
		sameHours(t, w.begun(start), 0, 2, 3)
		cfg.Schedule = "never"
		w.reign(cfg, 24*time.Hour)
		sameHours(t, w.begun(start), 0, 2, 3)
	})
}

// TestAClockThatJumpsBringsACycleTooEarlyAtMostOnce: the stamps of a cycle are of the same clock as what is due; the
// cluster's own does not jump.
func TestAClockThatJumpsBringsACycleTooEarlyAtMostOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		var off time.Duration
		cfg := w.config()
		cfg.Schedule = "@every 6h"
		cfg.Now = func() time.Time { return time.Now().Add(off) }
		c := w.collector(cfg)
		start := time.Now()
		var last *metav1.Cycle
		// step answers whether a cycle is due, and lets it begin and end.
		step := func() bool {
			s := situation{clock: int64(time.Since(start)), last: last}
			if c.due(s) == metav1.CycleTrigger_CYCLE_TRIGGER_UNSPECIFIED {
				return false
			}
			last = &metav1.Cycle{Ended: &metav1.Stamp{WallTime: cfg.Now().UnixNano(), ClusterTime: s.clock}}
			return true
		}
		cycles := func(hours int) (n int) {
			for range hours * 60 {
				time.Sleep(time.Minute)
				if step() {
					n++
				}
			}
			return n
		}
		if n := cycles(24); n != 4 {
			t.Fatalf("%d cycles in a day, want 4", n)
		}
		off = 10 * 365 * 24 * time.Hour
		if n := cycles(24); n != 4 && n != 5 {
			t.Errorf("%d cycles in the day after a jump of ten years ahead, want 4 and at most one more", n)
		}
		off = 0
		if n := cycles(24); n != 4 {
			t.Errorf("%d cycles in the day after the jump back, want 4", n)
		}
		off = -10 * 365 * 24 * time.Hour
		if n := cycles(24); n != 4 {
			t.Errorf("%d cycles in the day after a jump back by ten years, want 4", n)
		}
	})
}

// TestTheEndOfACycleIsTheEarlierOfTwoClocks: see situation.lastEnd.
func TestTheEndOfACycleIsTheEarlierOfTwoClocks(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	hour := int64(time.Hour)
	for name, c := range map[string]struct {
		wall time.Time
		// clock is the cluster's now, ended its time at the end.
		clock, ended int64
		want         time.Time
	}{
		"no jump":                        {now.Add(-2 * time.Hour), 10 * hour, 8 * hour, now.Add(-2 * time.Hour)},
		"the cluster was down meanwhile": {now.Add(-9 * time.Hour), 10 * hour, 8 * hour, now.Add(-9 * time.Hour)},
		"the clock was ahead at the end": {now.Add(900 * time.Hour), 10 * hour, 8 * hour, now.Add(-2 * time.Hour)},
	} {
		s := situation{clock: c.clock, last: &metav1.Cycle{Ended: &metav1.Stamp{WallTime: c.wall.UnixNano(), ClusterTime: c.ended}}}
		if got := s.lastEnd(now); !got.Equal(c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

func TestAConfigSaysWhatIsWrongWithIt(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		for field, change := range map[string]func(*Config){
			"Ledger":           func(c *Config) { c.Ledger = nil },
			"Store":            func(c *Config) { c.Store = nil },
			"StoreName":        func(c *Config) { c.StoreName = "" },
			"Mark":             func(c *Config) { c.Mark = nil },
			"DeletesPerSecond": func(c *Config) { c.DeletesPerSecond = -1 },
			"100000":           func(c *Config) { c.DeletesPerSecond = 100_001 },
			"OrphanAge":        func(c *Config) { c.OrphanAge = 24*time.Hour - 1 },
			"negative":         func(c *Config) { c.OrphanAge, c.UnsafeShort = -1, true },
			"Poll":             func(c *Config) { c.Poll = time.Hour },
			"Schedule":         func(c *Config) { c.Schedule = "now and then" },
		} {
			cfg := w.config()
			change(&cfg)
			if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), field) {
				t.Errorf("%s: %v", field, err)
			}
		}
		for _, good := range []string{"", "never", "@every 6h", "0 */6 * * *", "@daily"} {
			cfg := w.config()
			cfg.Schedule, cfg.OrphanAge, cfg.UnsafeShort = good, time.Second, true
			if _, err := New(cfg); err != nil {
				t.Errorf("%q: %v", good, err)
			}
		}
	})
}

// TestAScheduleThatNeverComesIsRefused: it would be due always.
func TestAScheduleThatNeverComesIsRefused(t *testing.T) {
	for s, good := range map[string]bool{"0 3 31 2 *": false, "0 3 29 2 *": true, "never": true} {
		if _, err := parseSchedule(s); (err == nil) != good {
			t.Errorf("%q: %v", s, err)
		}
	}
}
