package blobs

import (
	"context"
	"testing"
	"time"
	"unsafe"
)

// jumped is what t would be had the wall clock been off by so many seconds when it was taken; the monotonic clock never is.
// Nothing in package time makes such a time. It writes the 33 bits of seconds, of which t must have enough, and looks at what came out.
func jumped(t *testing.T, at time.Time, seconds int64) time.Time {
	t.Helper()
	now := at
	wall := (*uint64)(unsafe.Pointer(&now)) // time.Time begins with it: one bit, 33 of seconds, 30 of nanoseconds
	*wall += uint64(seconds << 30)          // two's complement: less, when negative
	if off := now.Round(0).Sub(at.Round(0)); now.Sub(at) != 0 || off != time.Duration(seconds)*time.Second {
		t.Fatalf("package time keeps its clocks in another way: %v monotonic, %v by the wall", now.Sub(at), off)
	}
	return now
}

// TestNoWallClockSpeaksForTheStore: how long the last answer is believed does not hang on a clock that somebody sets.
func TestNoWallClockSpeaksForTheStore(t *testing.T) {
	probes := 0
	b := NewBreaker(nil, func(context.Context) error { probes++; return nil }, nil)
	check := func(want int, why string) {
		t.Helper()
		if err := b.Check(t.Context()); err != nil || probes != want {
			t.Errorf("%s: %v after %d probes, want %d", why, err, probes, want)
		}
	}
	check(1, "nothing was heard yet")
	if b.answered.Load() == nil {
		t.Fatal("the answer was not noted")
	}
	answered := *b.answered.Load()
	if answered == answered.Round(0) { //nolint:staticcheck // not the same instant: whether it has a monotonic clock
		t.Fatal("the time of the answer was noted by the wall clock alone")
	}
	// So far away that no pause of this test matters.
	b.answered.Store(new(jumped(t, answered.Add(time.Hour), -2*3600)))
	check(1, "the store has just answered, and the wall clock was set forward")
	b.answered.Store(new(jumped(t, answered.Add(-time.Hour), 2*3600)))
	check(2, "the store has not answered for an hour, and the wall clock was set back")
	if again := *b.answered.Load(); again == again.Round(0) || again.Before(answered) { //nolint:staticcheck // as above
		t.Errorf("the probe's answer was noted as of %v", again)
	}
}
