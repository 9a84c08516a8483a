package proxy

import (
	"time"

	"golang.org/x/time/rate"
)

// Way is a direction on a line, seen from who dials.
type Way int

// The two ways.
const (
	Up   Way = iota // from the dialer to the target
	Down            // back
)

// Mode is what a line does. The zero Mode passes everything. Numbers below zero count as zero.
type Mode struct {
	Up, Down Flow
	// Reset answers every connection, those that are open and new ones, with RST.
	Reset bool
}

// Flow is what a line does one way. A new connection needs Up: while that is a Hole it is taken and hears nothing.
type Flow struct {
	Delay  time.Duration // of every byte
	Jitter time.Duration // Delay varies by as much to both sides; the order of bytes stays
	Rate   int64         // bytes per second of all connections of the line together; 0: no limit
	Hole   bool          // nothing is carried, and nothing is closed
	Closed bool          // the receiver is told that the sender has ended; what the sender sends on is thrown away

	// CutAfter closes a connection in the middle, once it has carried so many bytes this way; 0: never.
	CutAfter int64
	// Cuts bounds how many connections are cut this way, since the mode was set; 0: no bound.
	Cuts int64
}

// Hole carries nothing, neither way.
func Hole() Mode { return Mode{Up: Flow{Hole: true}, Down: Flow{Hole: true}} }

// OneWay carries that way only: requests that are done and never answered (Up), or answers to what was asked before (Down).
func OneWay(way Way) Mode {
	if way == Up {
		return Mode{Down: Flow{Hole: true}}
	}
	return Mode{Up: Flow{Hole: true}}
}

// Slow delays each way, so a round trip by twice as much.
func Slow(delay, jitter time.Duration) Mode {
	f := Flow{Delay: delay, Jitter: jitter}
	return Mode{Up: f, Down: f}
}

// Narrow carries so many bytes per second each way.
func Narrow(bytes int64) Mode { return Mode{Up: Flow{Rate: bytes}, Down: Flow{Rate: bytes}} }

// HalfClose ends one way of every connection and lets the other be.
func HalfClose(way Way) Mode {
	if way == Up {
		return Mode{Up: Flow{Closed: true}}
	}
	return Mode{Down: Flow{Closed: true}}
}

// flow picks one way.
func (m *Mode) flow(way Way) *Flow {
	if way == Up {
		return &m.Up
	}
	return &m.Down
}

// state is a mode in force. It is replaced, never changed.
type state struct {
	mode    Mode
	changed chan struct{} // closed when another mode is in force
	limits  [2]*rate.Limiter
	cuts    [2]int64 // guarded by Line.mu
}

func newState(m Mode) *state {
	s := &state{mode: m, changed: make(chan struct{})}
	for _, way := range []Way{Up, Down} {
		if per := m.flow(way).Rate; per > 0 {
			s.limits[way] = rate.NewLimiter(rate.Limit(per), pieceSize)
		}
	}
	return s
}

// delay is how long a byte is held, by its luck between -1 and 1.
func (f *Flow) delay(luck float64) time.Duration {
	return max(0, f.Delay+time.Duration(luck*float64(f.Jitter)))
}
