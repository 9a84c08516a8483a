package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	maxConns    = 1024            // of a line, held ones among them; further ones wait in the kernel's queue, then their SYN is not answered
	dialTimeout = 5 * time.Second // to the target
)

// Line is a TCP proxy of one directed pair: from all who dial its address to one target.
type Line struct {
	listener *net.TCPListener
	stop     context.CancelFunc
	group    sync.WaitGroup
	slots    chan struct{} // one per connection

	mu     sync.Mutex // guards what follows, and cuts of the state
	target string
	state  *state
	links  map[*link]struct{}
	closed bool

	count counters
}

type counters struct {
	accepted, held, resets, unreachable atomic.Int64
	bytes, cuts                         [2]atomic.Int64
}

// Counts is what a line has done since it was opened.
type Counts struct {
	Accepted    int64 // connections
	Open        int64 // now
	Held        int64 // new connections that came while nothing was carried
	Resets      int64 // connections ended by a mode with Reset
	Unreachable int64 // connections reset because the target did not take them
	Up, Down    int64 // bytes carried
	CutUp       int64 // connections cut in the middle, by the way that had carried enough
	CutDown     int64
}

// OpenLine listens on an address, of which the port may be 0, and passes all to the target.
func OpenLine(listen, target string) (*Line, error) {
	ctx, stop := context.WithCancel(context.Background())
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", listen)
	if err != nil {
		stop()
		return nil, fmt.Errorf("open line to %s: %w", target, err)
	}
	l := &Line{
		listener: listener.(*net.TCPListener), stop: stop, target: target, state: newState(Mode{}),
		links: map[*link]struct{}{}, slots: make(chan struct{}, maxConns),
	}
	l.group.Go(func() { l.accept(ctx) })
	return l, nil
}

// Addr is what to dial instead of the target.
func (l *Line) Addr() string { return l.listener.Addr().String() }

// Target is where the line leads.
func (l *Line) Target() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.target
}

// Aim leads new connections elsewhere: the target has another address now.
func (l *Line) Aim(target string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.target = target
}

// Set puts a mode in force, for connections that are open too.
func (l *Line) Set(m Mode) {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.state.changed)
	l.state = newState(m)
	if !m.Reset {
		return
	}
	for k := range l.links {
		l.count.resets.Add(1)
		k.reset()
	}
}

// Mode is the one in force.
func (l *Line) Mode() Mode { return l.look().mode }

// Counts says what the line has done.
func (l *Line) Counts() Counts {
	l.mu.Lock()
	open := len(l.links)
	l.mu.Unlock()
	c := &l.count
	return Counts{
		Accepted: c.accepted.Load(), Open: int64(open), Held: c.held.Load(), Resets: c.resets.Load(), Unreachable: c.unreachable.Load(),
		Up: c.bytes[Up].Load(), Down: c.bytes[Down].Load(), CutUp: c.cuts[Up].Load(), CutDown: c.cuts[Down].Load(),
	}
}

// Close resets all connections and waits until nothing of the line runs.
func (l *Line) Close() error {
	l.stop()
	err := l.listener.Close()
	l.mu.Lock()
	l.closed = true
	for k := range l.links {
		k.reset()
	}
	l.mu.Unlock()
	l.group.Wait()
	if err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("close line to %s: %w", l.target, err)
	}
	return nil
}

func (l *Line) look() *state {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state
}

func (l *Line) accept(ctx context.Context) {
	for {
		select {
		case l.slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		conn, err := l.listener.AcceptTCP()
		if err != nil {
			if ctx.Err() == nil && !errors.Is(err, net.ErrClosed) { // such as no more file descriptors
				<-l.slots
				wait(ctx, 10*time.Millisecond)
				continue
			}
			return
		}
		l.count.accepted.Add(1)
		l.group.Go(func() {
			defer func() { <-l.slots }()
			l.carry(ctx, conn)
		})
	}
}

// carry takes one connection from its first byte to its end.
func (l *Line) carry(ctx context.Context, client *net.TCPConn) {
	defer end(client)
	if !l.admit(ctx, client) {
		return
	}
	dialing, cancel := context.WithTimeout(ctx, dialTimeout)
	conn, err := (&net.Dialer{}).DialContext(dialing, "tcp", l.Target())
	cancel()
	if err != nil { // as if the target's kernel had said so itself
		l.count.unreachable.Add(1)
		reset(client)
		return
	}
	server := conn.(*net.TCPConn)
	defer end(server)
	linked, stop := context.WithCancel(ctx)
	defer stop()
	k := &link{line: l, client: client, server: server, stop: stop}
	if !l.keep(k) {
		k.reset()
		return
	}
	defer l.drop(k)
	k.run(linked)
}

// admit holds a new connection while the way to the target carries nothing. It says false when it came to nothing.
func (l *Line) admit(ctx context.Context, client *net.TCPConn) bool {
	for held := false; ; held = true {
		s := l.look()
		if s.mode.Reset {
			l.count.resets.Add(1)
			reset(client)
			return false
		}
		if !s.mode.Up.Hole {
			return true
		}
		if !held {
			l.count.held.Add(1)
		}
		poll := time.NewTimer(time.Second)
		select {
		case <-s.changed:
		case <-ctx.Done():
		case <-poll.C:
		}
		poll.Stop()
		// Whoever gave up meanwhile has sent his last SYN: nothing of him reaches the target after the line has healed.
		if ctx.Err() != nil || gone(client) {
			return false
		}
	}
}

func (l *Line) keep(k *link) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	if l.state.mode.Reset {
		l.count.resets.Add(1)
		return false
	}
	l.links[k] = struct{}{}
	return true
}

func (l *Line) drop(k *link) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.links, k)
}

// cut claims one of the cuts that the mode allows.
func (l *Line) cut(s *state, way Way) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if most := s.mode.flow(way).Cuts; most > 0 && s.cuts[way] >= most {
		return false
	}
	s.cuts[way]++
	l.count.cuts[way].Add(1)
	return true
}

// reset ends a connection by RST.
func reset(conn *net.TCPConn) {
	_ = conn.SetLinger(0) // fails on a connection that is closed already
	end(conn)
}

// end closes a connection; that it has been closed before is no error.
func end(conn *net.TCPConn) { _ = conn.Close() }

// gone says whether the peer has closed a connection from which nobody reads.
func gone(conn *net.TCPConn) bool {
	raw, err := conn.SyscallConn()
	if err != nil {
		return true
	}
	closed := false
	err = raw.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		n, err := unix.Poll(fds, 0)
		closed = err == nil && n > 0
	})
	return err != nil || closed
}

// wait passes time unless the context ends.
func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
