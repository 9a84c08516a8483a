package main

import (
	"bytes"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// stuck is a log that nobody reads.
type stuck struct{ released chan struct{} }

func (s stuck) Write(p []byte) (int, error) { <-s.released; return len(p), nil }

// A node that hangs while it stops is cut off, with what its goroutines wait for in the log, unless that hangs too.
func TestANodeThatHangsWhileItStopsIsCutOff(t *testing.T) {
	for name, test := range map[string]struct {
		ends, logHangs bool
		after          time.Duration // it is cut off
	}{"hangs": {after: endTime}, "hangs, and its log": {logHangs: true, after: endTime + cutTime}, "ends in time": {ends: true}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var out bytes.Buffer
				var log io.Writer = &out
				released := make(chan struct{})
				defer close(released)
				if test.logHangs {
					log = stuck{released}
				}
				began, code, after := time.Now(), -1, time.Duration(0)
				callOff := lastResort(slog.New(slog.NewTextHandler(log, nil)), func(c int) { code, after = c, time.Since(began) })
				time.Sleep(endTime - time.Second)
				if test.ends {
					callOff()
				}
				time.Sleep(time.Minute)
				synctest.Wait()
				if test.ends != (code == -1) || !test.ends && code != exitFailure || after != test.after {
					t.Errorf("ended with code %d after %v, want %v", code, after, test.after)
				}
				if told := strings.Contains(out.String(), "goroutine "); told == (test.ends || test.logHangs) {
					t.Errorf("stacks in the log: %v; the log says %q", told, out.String())
				}
			})
		})
	}
}
