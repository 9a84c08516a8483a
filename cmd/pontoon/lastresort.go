package main

import (
	"context"
	"log/slog"
	"runtime"
	"time"
)

const (
	// endTime bounds what follows once the clients are gone: departTime, and about as long to close.
	endTime = time.Minute
	// cutTime is how long the last words of a node that is cut off may take: its log may hang as well.
	cutTime = 3 * time.Second
)

// lastResort ends a process that does not come to its end, as a kill would, which loses nothing (C1): on a disk that answers
// no more even closing may wait for ever, and so may each line of a log that nobody takes. A node that hangs is not started
// again by anybody.
type lastResort struct {
	log  *slog.Logger
	exit func(code int)
	// drain is how long the clients may take at most, end what follows.
	drain, end time.Duration
}

// watch waits for the end of the node: serving ends, drained is closed, over is closed. It returns when it is over, or once
// the process was ended. The log has what all goroutines waited for then, unless it hangs too.
func (l *lastResort) watch(serving context.Context, drained, over <-chan struct{}) {
	select {
	case <-serving.Done():
	case <-over:
		return
	}
	closes(drained, l.drain)
	if closes(over, l.end) {
		return
	}
	told := make(chan struct{})
	go func() { // nobody can wait for it longer than this
		defer close(told)
		stacks := make([]byte, 1<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		l.log.Error("the node does not come to its end and is cut off", "stacks", string(stacks))
	}()
	select {
	case <-told:
	case <-time.After(cutTime):
	}
	l.exit(exitFailure)
}

// closes says whether a channel is closed in time.
func closes(c <-chan struct{}, within time.Duration) bool {
	late := time.NewTimer(within)
	defer late.Stop()
	select {
	case <-c:
		return true
	case <-late.C:
		return false
	}
}
