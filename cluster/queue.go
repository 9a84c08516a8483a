package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// Bounds of one batch of commands, for a log entry as for a forwarded call.
const (
	// batchCommands and batchBytes bound a batch; one command alone may be as long as meta.MaxCommand.
	batchCommands = 256
	batchBytes    = 256 << 10
	// queueBytes and queueAge bound what waits on a node; beyond them a command
	// is refused at once, which a client can act on, instead of late.
	queueBytes = 32 << 20
	queueAge   = 5 * time.Second
)

// call is one encoded command on its way to the log.
type call struct {
	command []byte
	queued  time.Time
	// done gets exactly one outcome; it is buffered, so that nobody waits for a caller that left.
	done chan outcome
}

// outcome is what became of a call: a result of Apply (a refusal among them),
// or why there is none: KIND_UNAVAILABLE (certainly not applied, no copy left),
// KIND_OUTCOME_UNKNOWN, or what is wrong with the command.
type outcome struct {
	result *metav1.Result
	err    error
}

func newCall(command []byte) *call {
	return &call{command: command, queued: time.Now(), done: make(chan outcome, 1)}
}

// queue holds calls in order until somebody takes a batch of them. Bounded in
// bytes and age. Safe for concurrent use.
type queue struct {
	// wake has a token while there may be calls to take.
	wake chan struct{}

	// mu guards what follows.
	mu    sync.Mutex
	calls []*call
	bytes int
	// closed: nobody will take anything any more.
	closed bool
}

// errStopped marks a refusal that waiting does not change: nobody takes from this queue any more.
var errStopped = errors.New("queue stopped")

func newQueue() *queue { return &queue{wake: make(chan struct{}, 1)} }

// put adds a call, or refuses: KIND_UNAVAILABLE.
func (q *queue) put(c *call) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return fmt.Errorf("%w (%w)", unavailable("this node is shutting down"), errStopped)
	}
	if q.bytes+len(c.command) > queueBytes {
		return unavailable("%d commands of %d bytes wait already, the bound is %d bytes: try again", len(q.calls), q.bytes, queueBytes)
	}
	if len(q.calls) > 0 && c.queued.Sub(q.calls[0].queued) > queueAge {
		return unavailable("commands have waited for more than %v: try again", queueAge)
	}
	q.calls = append(q.calls, c)
	q.bytes += len(c.command)
	q.token()
	return nil
}

// size answers the bytes that wait.
func (q *queue) size() int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return int64(q.bytes)
}

func (q *queue) token() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// take waits for calls and takes a batch in order. It answers ctx's error once that has ended.
func (q *queue) take(ctx context.Context) ([]*call, error) {
	for {
		if batch := q.cut(); len(batch) > 0 {
			return batch, nil
		}
		select {
		case <-q.wake:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (q *queue) cut() []*call {
	q.mu.Lock()
	defer q.mu.Unlock()
	n, size := 0, 0
	for n < len(q.calls) && n < batchCommands {
		size += len(q.calls[n].command)
		if n > 0 && size > batchBytes {
			size -= len(q.calls[n].command)
			break
		}
		n++
	}
	batch := q.calls[:n:n]
	q.calls, q.bytes = q.calls[n:], q.bytes-size
	if len(q.calls) > 0 {
		q.token()
	} else {
		q.calls = nil // let the array go
	}
	return batch
}

// drain refuses everything that waits or comes later: nobody will take it any more.
func (q *queue) drain() {
	why := unavailable("this node is shutting down")
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	for {
		batch := q.cut()
		if len(batch) == 0 {
			return
		}
		answerAll(batch, outcome{err: why})
	}
}

func answerAll(calls []*call, o outcome) {
	for _, c := range calls {
		c.done <- o
	}
}
