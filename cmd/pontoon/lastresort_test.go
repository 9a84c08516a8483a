package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// lastWords are what the chaos suite looks for in the logs of its nodes: change them there as well.
const lastWords = "the node does not come to its end and is cut off"

// stuck is a log that nobody reads, from the first line on that has a text.
type stuck struct {
	text     string
	released chan struct{}
}

func (s stuck) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte(s.text)) {
		<-s.released
	}
	return len(p), nil
}

// A node that hangs while it stops is cut off, with what its goroutines wait for in the log, unless that hangs too.
func TestANodeThatHangsWhileItStopsIsCutOff(t *testing.T) {
	const drain = 30 * time.Second
	for name, test := range map[string]struct {
		drains, ends, logHangs bool
		after                  time.Duration // it is cut off; 0: it is not
	}{
		"hangs":              {drains: true, after: endTime},
		"hangs, and its log": {drains: true, logHangs: true, after: endTime + cutTime},
		"hangs in the drain": {after: drain + endTime},
		"ends in time":       {drains: true, ends: true},
		"drains late, ends":  {ends: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var out bytes.Buffer
				var log io.Writer = &out
				released := make(chan struct{})
				defer close(released)
				if test.logHangs {
					log = stuck{"", released}
				}
				began, code, after := time.Now(), -1, time.Duration(0)
				last := lastResort{slog.New(slog.NewTextHandler(log, nil)), func(c int) { code, after = c, time.Since(began) }, drain, endTime}
				serving, stop := context.WithCancel(t.Context())
				drained, over := make(chan struct{}), make(chan struct{})
				var watch sync.WaitGroup
				watch.Go(func() { last.watch(serving, drained, over) })
				time.Sleep(time.Hour) // it serves
				if began = time.Now(); code != -1 {
					t.Fatal("it was cut off while it served")
				}
				stop()
				if test.drains {
					close(drained)
				}
				time.Sleep(endTime - time.Second)
				if test.ends {
					close(over)
				}
				watch.Wait()
				if (test.after > 0) != (code == exitFailure) || after != test.after {
					t.Errorf("ended with code %d after %v, want %v", code, after, test.after)
				}
				told := strings.Contains(out.String(), lastWords) && strings.Contains(out.String(), "goroutine ")
				if told == (test.ends || test.logHangs) {
					t.Errorf("stacks in the log: %v; the log says %q", told, out.String())
				}
			})
		})
	}
}

// TestEachNodeHasALastResort, wherever it hangs: with the first line of its drain, or with its last word.
func TestEachNodeHasALastResort(t *testing.T) {
	for line, drain := range map[string]time.Duration{"draining": 100 * time.Millisecond, "stopped": time.Hour} {
		t.Run(line, func(t *testing.T) {
			dir := socketDir(t)
			released, ended := make(chan struct{}), make(chan int, 1)
			h := laptop()
			h.exit = func(code int) { ended <- code; close(released) }
			c, err := parseConfig("p.yml", fmt.Appendf(nil, `version: 0.1
http: {addr: "127.0.0.1:0", debug: {addr: none}, drain: {delay: 0s}}
cluster: {datadir: %s/data}
`, dir), h)
			if err != nil {
				t.Fatal(err)
			}
			log := slog.New(slog.NewTextHandler(stuck{"msg=" + line, released}, nil))
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			r, err := open(ctx, c.Config, h, nil, log)
			if err != nil {
				t.Fatal(err)
			}
			r.last.drain, r.last.end = drain, 100*time.Millisecond
			r.announce = func(string) { stop() }
			if err := r.run(ctx); err != nil {
				t.Error(err)
			}
			select {
			case code := <-ended:
				if code != exitFailure {
					t.Errorf("ended with %d, want %d", code, exitFailure)
				}
			default:
				t.Error("nothing ended it")
			}
		})
	}
}
