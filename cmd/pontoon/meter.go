package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// meterEvery is how often a line of progress is drawn anew.
const meterEvery = 200 * time.Millisecond

// meter draws one line of progress for somebody who watches a terminal; for all others it does nothing.
type meter struct {
	out io.Writer // nil: nobody watches

	// mu guards what follows.
	mu    sync.Mutex
	drawn time.Time
	shown bool
}

func (a *app) meter() *meter {
	m := &meter{}
	if f, ok := a.err.(*os.File); ok && !a.json() {
		if info, err := f.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
			m.out = f
		}
	}
	return m
}

// draw shows what has been done of all; all 0 is not known.
func (m *meter) draw(what string, done, all int64, unit func(int64) string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.out == nil || time.Since(m.drawn) < meterEvery {
		return
	}
	m.drawn, m.shown = time.Now(), true
	text := fmt.Sprintf("%s: %s", what, unit(done))
	if all > 0 {
		text += fmt.Sprintf(" of %s (%d %%)", unit(all), done*100/all)
	}
	_, _ = fmt.Fprintf(m.out, "\r\x1b[K%s", text) // a terminal that is gone misses nothing
}

// end clears the line.
func (m *meter) end() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.shown {
		_, _ = fmt.Fprint(m.out, "\r\x1b[K")
		m.shown = false
	}
}

// count writes a number for people.
func count(n int64) string { return fmt.Sprint(n) }
