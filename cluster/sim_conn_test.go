package cluster

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// parcel is what one Write sent, or the end of the stream.
type parcel struct {
	data []byte
	end  error
	// at is when it arrives; zero: held.
	at time.Time
}

// pipe is one direction of a connection; wires.mu guards it. Writes never
// wait: HTTP/2's own windows bound what is under way.
type pipe struct {
	from, to *simHost
	parcels  []parcel
	last     time.Time
	wake     chan struct{}
}

func (p *pipe) push(c parcel) {
	w := p.from.net
	if !w.holds(p.from, p.to) && (len(p.parcels) == 0 || !p.parcels[len(p.parcels)-1].at.IsZero()) {
		c.at = time.Now().Add(w.delay(p.from.ip, p.to.ip))
		if c.at.Before(p.last) {
			c.at = p.last
		}
		p.last = c.at
	}
	p.parcels = append(p.parcels, c)
	p.signal()
}

func (p *pipe) release(at time.Time) {
	for i := range p.parcels {
		if p.parcels[i].at.IsZero() {
			p.parcels[i].at, p.last = at, at
		}
	}
	p.signal()
}

func (p *pipe) signal() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// simConn is one end of a connection.
type simConn struct {
	host          *simHost
	peer          *simConn
	in, out       *pipe
	local, remote net.Addr
	dialled       bool
	readBy        *deadline
	err           error // guarded by wires.mu: why nothing goes any more
}

// fail ends this end; wires.mu is held.
func (c *simConn) fail(err error) {
	if c.err == nil {
		c.err = err
		c.in.signal()
		delete(c.host.net.conns, c)
	}
}

func (c *simConn) Read(b []byte) (int, error) {
	for {
		n, wait, err := c.take(b)
		if n > 0 || err != nil {
			return n, err
		}
		var arrives <-chan time.Time
		if wait > 0 {
			t := time.NewTimer(wait)
			defer t.Stop()
			arrives = t.C
		}
		select {
		case <-c.in.wake:
		case <-arrives:
		case <-c.readBy.passed():
			return 0, os.ErrDeadlineExceeded
		}
	}
}

func (c *simConn) take(b []byte) (n int, wait time.Duration, err error) {
	w := c.host.net
	w.mu.Lock()
	defer w.mu.Unlock()
	if c.err != nil {
		return 0, 0, c.err
	}
	if len(c.in.parcels) == 0 || c.in.parcels[0].at.IsZero() {
		return 0, 0, nil
	}
	p := &c.in.parcels[0]
	if wait = time.Until(p.at); wait > 0 {
		return 0, wait, nil
	}
	if p.end != nil {
		if !errors.Is(p.end, io.EOF) {
			c.fail(p.end)
		}
		return 0, 0, p.end
	}
	n = copy(b, p.data)
	if p.data = p.data[n:]; len(p.data) == 0 {
		c.in.parcels = c.in.parcels[1:]
	}
	return n, 0, nil
}

func (c *simConn) Write(b []byte) (int, error) {
	w := c.host.net
	w.mu.Lock()
	defer w.mu.Unlock()
	if c.err != nil {
		return 0, c.err
	}
	if c.peer.err != nil && !w.holds(c.host, c.peer.host) {
		// Whoever has that address now knows nothing of this connection; nobody there: silence.
		if now := w.hosts[c.peer.host.ip]; now != nil && (!now.dead || !now.silent) {
			c.fail(syscall.ECONNRESET)
			return 0, c.err
		}
	}
	c.out.push(parcel{data: append([]byte(nil), b...)})
	return len(b), nil
}

func (c *simConn) Close() error {
	w := c.host.net
	w.mu.Lock()
	defer w.mu.Unlock()
	if c.err == nil {
		c.out.push(parcel{end: io.EOF})
	}
	c.fail(net.ErrClosed)
	return nil
}

func (c *simConn) LocalAddr() net.Addr                { return c.local }
func (c *simConn) RemoteAddr() net.Addr               { return c.remote }
func (c *simConn) SetDeadline(t time.Time) error      { return c.SetReadDeadline(t) }
func (c *simConn) SetReadDeadline(t time.Time) error  { c.readBy.set(t); return nil }
func (c *simConn) SetWriteDeadline(_ time.Time) error { return nil } // a write never waits

// deadline ends waits at an instant, as net.Pipe's does.
type deadline struct {
	mu    sync.Mutex
	timer *time.Timer
	over  chan struct{}
}

func newDeadline() *deadline { return &deadline{over: make(chan struct{})} }

func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	select {
	case <-d.over:
		d.over = make(chan struct{})
	default:
	}
	switch over := d.over; {
	case t.IsZero():
	case !time.Now().Before(t):
		close(over)
	default:
		d.timer = time.AfterFunc(time.Until(t), func() {
			d.mu.Lock()
			defer d.mu.Unlock()
			if over == d.over {
				select {
				case <-over:
				default:
					close(over)
				}
			}
		})
	}
}

func (d *deadline) passed() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.over
}
