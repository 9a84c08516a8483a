package transport

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
)

// lane is the way to a peer as callers hold it. The line under it may be
// replaced while calls are under way: they end on the old one.
type lane struct {
	host    *Host
	nodeID  string // empty: whoever answers
	target  string // for messages
	bulk    bool
	resolve func() (addr string, err error)

	mu sync.Mutex // guards what follows
	// line is nil once closed.
	line *line
	// resting until: the peer has nothing newer to show.
	resting time.Time
}

// line is one gRPC connection, which redials by itself, and its calls.
type line struct {
	lane  *lane
	cc    *grpc.ClientConn
	calls sync.WaitGroup // begun under lane.mu while this is the lane's line
	// tcp is the connection in use, live the same once it is authenticated; nil before the first.
	tcp  atomic.Pointer[watchedConn]
	live atomic.Pointer[standing]
}

var _ grpc.ClientConnInterface = (*lane)(nil)

func (l *lane) newLine() (*line, error) {
	cfg := &l.host.cfg
	n := &line{lane: l}
	cc, err := grpc.NewClient("passthrough:///"+l.target,
		grpc.WithTransportCredentials(l.host.clientCredentials(n)),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return n.dial(ctx) }),
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
		grpc.WithUnaryInterceptor(n.unary),
		grpc.WithStreamInterceptor(n.stream),
	)
	if err != nil {
		return nil, err
	}
	n.cc = cc
	return n, nil
}

// begin takes the line for one call; end it with line.calls.Done.
func (l *lane) begin() (*line, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.line == nil {
		return nil, status.Errorf(codes.Unavailable, "the connection to %s is closed", l.target)
	}
	l.line.calls.Add(1)
	return l.line, nil
}

// Invoke implements grpc.ClientConnInterface.
func (l *lane) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	n, err := l.begin()
	if err != nil {
		return err
	}
	defer n.calls.Done()
	return n.cc.Invoke(ctx, method, args, reply, opts...)
}

// NewStream implements grpc.ClientConnInterface.
func (l *lane) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	n, err := l.begin()
	if err != nil {
		return nil, err
	}
	done := sync.OnceFunc(n.calls.Done)
	// OnFinish hears of the end of a stream however it comes.
	s, err := n.cc.NewStream(ctx, desc, method, append(opts[:len(opts):len(opts)], grpc.OnFinish(func(error) { done() }))...)
	if err != nil {
		done()
	}
	return s, err
}

func (l *lane) current(n *line) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.line == n
}

// replace puts next in the place of old; false when old is not there any more.
func (l *lane) replace(old, next *line) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.line != old {
		return false
	}
	l.line = next
	return true
}

// rest spares the peer further questions for a while.
func (l *lane) rest(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.resting = time.Now().Add(d)
}

func (l *lane) rests() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Now().Before(l.resting)
}

func (l *lane) close() {
	l.mu.Lock()
	n := l.line
	l.line = nil
	l.mu.Unlock()
	if n != nil {
		_ = n.cc.Close() // fails only when closed already
	}
}

// connect dials now and says whether the line is up within renewTimeout.
func (n *line) connect(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, renewTimeout)
	defer cancel()
	for {
		n.cc.Connect()
		state := n.cc.GetState()
		if state == connectivity.Ready {
			return true
		}
		if !n.cc.WaitForStateChange(ctx, state) {
			return false
		}
	}
}

// retire closes a line that was replaced when its last call has ended, its time is over or ctx ends.
func (n *line) retire(ctx context.Context, after time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, after)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = n.cc.Close() }) // ends the calls
	n.calls.Wait()
	if stop() {
		_ = n.cc.Close()
	}
}

func (n *line) unary(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	start := time.Now()
	err := invoke(n.lane.host.signed(ctx), method, req, reply, cc, opts...)
	n.note(start, err)
	return err
}

func (n *line) stream(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	start := time.Now()
	opts = append(opts, grpc.OnFinish(func(err error) { n.note(start, err) }))
	return open(n.lane.host.signed(ctx), desc, cc, method, opts...)
}

// dial looks the address up anew each time (T4).
func (n *line) dial(ctx context.Context) (net.Conn, error) {
	addr, err := n.lane.resolve()
	if err != nil {
		return nil, err
	}
	conn, err := n.lane.host.cfg.Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	w := &watchedConn{Conn: conn, since: time.Now()}
	n.tcp.Store(w)
	return w, nil
}

// note cuts a connection that has gone silent, judged when a call on it ends
// at its deadline. A peer whose handler is slow still reacts to a request (its
// HTTP/2 layer answers with a ping of its own); one that is out of reach does
// not, so what counts is that nothing came in since the call began.
func (n *line) note(start time.Time, err error) {
	if status.Code(err) != codes.DeadlineExceeded {
		return
	}
	w := n.tcp.Load()
	if w == nil {
		return
	}
	if last := w.lastRead(); last.Before(start) && time.Since(last) >= n.lane.host.cfg.SilentAfter {
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
