package oci

import (
	"errors"
	"io"
	"net/http"
	"os"
	"sync"
	"time"
)

// body reads a request's body. It renews the connection's read deadline while
// bytes arrive, so that only a client that stops is cut, and it can be interrupted.
// One goroutine reads; interrupt may come from any.
type body struct {
	r    io.Reader
	ctl  *http.ResponseController
	idle time.Duration
	// renewed is when the deadline was last moved.
	renewed time.Time
	// silence ends a Read of HTTP/2 that brings nothing. A deadline would not do: net/http's HTTP/2 ends the body for
	// good when one passes while nobody reads, such as while the store keeps us waiting. Nil over HTTP/1.
	silence *time.Timer
	// taken counts bytes.
	taken int64

	// mu guards what follows, and the order of deadlines.
	mu       sync.Mutex
	stopped  bool
	finished bool
}

// guardBody sets a first deadline, so that a body that nobody reads cannot hold
// the connection for ever while net/http discards it.
func guardBody(w http.ResponseWriter, r *http.Request, idle time.Duration) {
	if r.ContentLength != 0 {
		// A writer without deadlines (a test's recorder) has nothing to guard.
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(idle))
	}
}

func newBody(c *call) *body {
	b := &body{r: c.r.Body, ctl: http.NewResponseController(c.w), idle: c.IdleTimeout}
	if c.r.ProtoMajor == 2 && c.r.ContentLength != 0 {
		_ = b.ctl.SetReadDeadline(time.Time{}) // that of guardBody
		b.silence = time.AfterFunc(b.idle, b.expire)
		b.silence.Stop()
	}
	return b
}

// expire ends the Read that waits over HTTP/2.
func (b *body) expire() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.finished {
		_ = b.ctl.SetReadDeadline(time.Unix(1, 0))
	}
}

// Read answers errStalled when no byte came for the idle timeout, errTakenOver
// once interrupted, and io.ErrUnexpectedEOF or the connection's error when the client broke off.
func (b *body) Read(p []byte) (int, error) {
	if err := b.renew(); err != nil {
		return 0, err
	}
	n, err := b.r.Read(p)
	if b.silence != nil {
		b.silence.Stop()
	}
	b.taken += int64(n)
	if err == nil {
		return n, nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err == io.EOF {
		// A deadline that passes after the body would end the request's context.
		b.finished = true
		_ = b.ctl.SetReadDeadline(time.Time{})
		return n, err
	}
	if b.stopped {
		return n, errTakenOver
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return n, errStalled
	}
	return n, err
}

// renew moves the deadline when a quarter of the idle time has passed: never
// less than the idle time remains, and few system calls are made.
func (b *body) renew() error {
	now := time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stopped {
		return errTakenOver
	}
	if b.silence != nil {
		b.silence.Reset(b.idle)
		return nil
	}
	if now.Sub(b.renewed) < b.idle/4 {
		return nil
	}
	b.renewed = now
	_ = b.ctl.SetReadDeadline(now.Add(b.idle + b.idle/4))
	return nil
}

// interrupt ends a Read that waits, and every later one.
func (b *body) interrupt() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stopped = true
	if !b.finished {
		_ = b.ctl.SetReadDeadline(time.Unix(1, 0))
	}
}

// discard reads up to n bytes that nobody needs, so that the client can finish
// sending before it reads the answer.
func (b *body) discard(n int64) {
	_, _ = io.CopyN(io.Discard, b, n) // what remains closes the connection
}
