package main

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A node that hangs while it stops is cut off, with what its goroutines wait for in the log.
func TestANodeThatHangsWhileItStopsIsCutOff(t *testing.T) {
	for name, test := range map[string]struct {
		ends bool
		want int
	}{"hangs": {false, exitFailure}, "ends in time": {true, -1}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var out bytes.Buffer
				code := -1
				callOff := lastResort(slog.New(slog.NewTextHandler(&out, nil)), func(c int) { code = c })
				time.Sleep(endTime - time.Second)
				synctest.Wait()
				if code != -1 {
					t.Fatalf("cut off with code %d before its time", code)
				}
				if test.ends {
					callOff()
				}
				time.Sleep(2 * time.Second)
				synctest.Wait()
				if code != test.want {
					t.Errorf("ended with code %d, want %d", code, test.want)
				}
				if told := strings.Contains(out.String(), "goroutine "); told == test.ends {
					t.Errorf("stacks in the log: %v; the log says %q", told, out.String())
				}
			})
		})
	}
}
