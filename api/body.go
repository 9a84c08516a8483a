package api

import (
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// body is a request's body with a bound on silence (A2), or on the whole for small requests.
type body struct {
	io.ReadCloser
	ctl  *http.ResponseController
	x    *exchange
	idle time.Duration
	// until is the deadline of the whole body; zero bounds silence only.
	until time.Time
	ended atomic.Bool
	read  atomic.Int64

	mu       sync.Mutex // guards the fields below, and the order of read deadlines
	extended time.Time
	// theirs: the handler sets deadlines itself.
	theirs bool
}

func (b *body) Read(p []byte) (int, error) {
	if b.ended.Load() {
		return 0, io.EOF // a deadline set now would fire in net/http's background read and cancel the request
	}
	begin := time.Now()
	b.extend(begin)
	n, err := b.ReadCloser.Read(p)
	b.x.waited.Add(int64(time.Since(begin)))
	b.read.Add(int64(n))
	if errors.Is(err, io.EOF) {
		b.ended.Store(true)
	}
	return n, err
}

// extend moves the read deadline, unless it is the handler's, or one for the whole body.
func (b *body) extend(now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	first := b.extended.IsZero()
	if b.theirs || (!first && !b.until.IsZero()) || now.Sub(b.extended) < b.idle/8 {
		return
	}
	b.extended = now
	deadline := now.Add(b.idle)
	if !b.until.IsZero() {
		deadline = b.until
	}
	_ = b.ctl.SetReadDeadline(deadline) // a recorder in a test has none
}

// setDeadline takes the handler's deadline, but never beyond that of the whole body.
func (b *body) setDeadline(t time.Time) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.theirs = true
	if !b.until.IsZero() && !b.ended.Load() && (t.IsZero() || t.After(b.until)) {
		t = b.until
	}
	return b.ctl.SetReadDeadline(t)
}
