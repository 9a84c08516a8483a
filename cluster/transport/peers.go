package transport

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
)

// Lane is one of the three connections to each peer. They are apart because
// all calls on one connection share TCP's order and HTTP/2's windows (T5).
type Lane int

const (
	// Control is for heartbeats, votes, read indexes, forwarded commands:
	// small messages that somebody waits for.
	Control Lane = iota
	// Log is for log entries.
	Log
	// Bulk is for what takes seconds, such as snapshots.
	Bulk
)

type peerLane struct {
	id   string
	lane Lane
}

// peers holds the connections, made when first asked for.
type peers struct {
	mu sync.Mutex
	// guarded by mu; nil once closed
	conns map[peerLane]*lane
}

// Conn is the shared connection to a peer on one lane; it connects when first
// used, and reconnects by itself. A call on it fails at once with Unavailable,
// and the reason, while the peer cannot be reached. The error is for a closed
// host.
func (h *Host) Conn(nodeID string, l Lane) (grpc.ClientConnInterface, error) {
	ln, err := h.lane(nodeID, l)
	if err != nil {
		return nil, err
	}
	return ln.cc, nil
}

func (h *Host) lane(nodeID string, l Lane) (*lane, error) {
	h.peers.mu.Lock()
	defer h.peers.mu.Unlock()
	if h.peers.conns == nil {
		return nil, status.Error(codes.Unavailable, "this node's transport is closed")
	}
	key := peerLane{nodeID, l}
	if ln := h.peers.conns[key]; ln != nil {
		return ln, nil
	}
	ln := &lane{host: h, resolve: func() (string, error) {
		addr, ok := h.cfg.Resolve(nodeID)
		if !ok {
			return "", fmt.Errorf("no address is known for node %s", nodeID)
		}
		return addr, nil
	}}
	cc, err := ln.newClient(nodeID, nodeID)
	if err != nil {
		return nil, fmt.Errorf("connect to node %s: %w", nodeID, err)
	}
	ln.cc = cc
	h.peers.conns[key] = ln
	return ln, nil
}

// Dial makes a connection to whatever node of the trusted secret answers at
// addr ("host:port"); IDOf tells which one it was. The caller closes it. It
// connects when first used.
func (h *Host) Dial(addr string) (*grpc.ClientConn, error) {
	ln := &lane{host: h, resolve: func() (string, error) { return addr, nil }}
	cc, err := ln.newClient(addr, "")
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", addr, err)
	}
	return cc, nil
}

// Forget closes the connections to a node, such as one that was removed.
func (h *Host) Forget(nodeID string) {
	for _, ln := range h.peers.take(nodeID) {
		_ = ln.cc.Close() // fails only when closed already
	}
}

// take takes the connections to a node out.
func (p *peers) take(nodeID string) []*lane {
	p.mu.Lock()
	defer p.mu.Unlock()
	var found []*lane
	for _, l := range []Lane{Control, Log, Bulk} {
		key := peerLane{nodeID, l}
		if ln := p.conns[key]; ln != nil {
			found = append(found, ln)
			delete(p.conns, key)
		}
	}
	return found
}

// close ends all connections for good.
func (p *peers) close() {
	p.mu.Lock()
	conns := p.conns
	p.conns = nil
	p.mu.Unlock()
	for _, ln := range conns {
		_ = ln.cc.Close() // fails only when closed already
	}
}

// lane is one connection and what is needed to make it again.
type lane struct {
	host    *Host
	resolve func() (addr string, err error)
	cc      *grpc.ClientConn
	// The TCP connection in use; nil before the first.
	now atomic.Pointer[watchedConn]
}

func (l *lane) newClient(target, nodeID string) (*grpc.ClientConn, error) {
	cfg := &l.host.cfg
	return grpc.NewClient("passthrough:///"+target,
		grpc.WithTransportCredentials(newClientCredentials(cfg.Credentials, nodeID, cfg.Log)),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.dial(ctx) }),
		grpc.WithNoProxy(),
		grpc.WithIdleTimeout(0),
		grpc.WithDisableServiceConfig(),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second, PermitWithoutStream: true}),
		// gRPC's own default lets a healed partition last two minutes longer.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 800 * time.Millisecond},
			MinConnectTimeout: connectTimeout,
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(cfg.MaxMessage), grpc.MaxCallSendMsgSize(cfg.MaxMessage)),
		grpc.WithUnaryInterceptor(l.unary),
		grpc.WithStreamInterceptor(l.stream),
	)
}

func (l *lane) unary(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	start := time.Now()
	err := invoke(l.host.signed(ctx), method, req, reply, cc, opts...)
	l.note(start, err)
	return err
}

func (l *lane) stream(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	// OnFinish hears of the end of a stream however it comes.
	start := time.Now()
	opts = append(opts, grpc.OnFinish(func(err error) { l.note(start, err) }))
	return open(l.host.signed(ctx), desc, cc, method, opts...)
}

// dial looks the address up anew each time (T4).
func (l *lane) dial(ctx context.Context) (net.Conn, error) {
	addr, err := l.resolve()
	if err != nil {
		return nil, err
	}
	conn, err := l.host.cfg.Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	w := &watchedConn{Conn: conn, since: time.Now()}
	l.now.Store(w)
	return w, nil
}

// note cuts a connection that has gone silent, judged when a call on it ends
// at its deadline. A peer whose handler is slow still reacts to a request (its
// HTTP/2 layer answers with a ping of its own); one that is out of reach does
// not, so what counts is that nothing came in since the call began.
func (l *lane) note(start time.Time, err error) {
	if status.Code(err) != codes.DeadlineExceeded {
		return
	}
	w := l.now.Load()
	if w == nil {
		return
	}
	if last := w.lastRead(); last.Before(start) && time.Since(last) >= l.host.cfg.SilentAfter {
		_ = w.Close() // gRPC notices and redials
	}
}

// watchedConn knows when something last came in.
type watchedConn struct {
	net.Conn
	since time.Time    // carries the monotonic clock
	last  atomic.Int64 // nanoseconds after since
}

func (w *watchedConn) Read(b []byte) (int, error) {
	n, err := w.Conn.Read(b)
	if n > 0 {
		w.last.Store(int64(time.Since(w.since)))
	}
	return n, err
}

func (w *watchedConn) lastRead() time.Time { return w.since.Add(time.Duration(w.last.Load())) }
