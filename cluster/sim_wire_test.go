package cluster

import (
	"context"
	"math/rand/v2"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/memberlist"
)

// wires is the network of the simulation: connections and packets in memory,
// between hosts that are known by their IP address. What waits in it waits on
// channels and timers, so the bubble's time passes.
//
// A direction between two hosts is open, held or refused. Held is a black hole
// under TCP: nothing arrives, nobody is told, and what was sent comes later, in
// order, when it is open again (retransmission); packets vanish. Refused breaks
// connections with a reset and lets nobody make new ones.
type wires struct {
	// mu guards all of the network: links, hosts, and what is under way. It is
	// never held while anything waits.
	mu    sync.Mutex
	rng   *rand.Rand
	hosts map[string]*simHost
	links map[[2]string]*link
	conns map[*simConn]bool
	// changed is closed, and replaced, whenever a link or a host changes.
	changed chan struct{}
}

// link is one direction between two hosts.
type link struct {
	held, refused bool
	// slow is added to every delay.
	slow time.Duration
}

// simHost is a machine from one start to its end; its address may get another one.
type simHost struct {
	net       *wires
	ip        string
	listeners map[string]*simListener // by port, guarded by wires.mu
	// dead: killed or powered off. silent: powered off, so nobody hears a reset.
	dead, silent, paused bool // guarded by wires.mu
}

func newWires(seed uint64) *wires {
	return &wires{rng: rand.New(rand.NewPCG(seed, 7)), hosts: map[string]*simHost{}, links: map[[2]string]*link{},
		conns: map[*simConn]bool{}, changed: make(chan struct{})}
}

// boot puts a machine at an address.
func (w *wires) boot(ip string) *simHost {
	w.mu.Lock()
	defer w.mu.Unlock()
	h := &simHost{net: w, ip: ip, listeners: map[string]*simListener{}}
	w.hosts[ip] = h
	w.notify()
	return h
}

// end takes the machine off the network. Its peers hear a reset, or nothing when the power went.
func (h *simHost) end(silent bool) {
	w := h.net
	w.mu.Lock()
	defer w.mu.Unlock()
	h.dead, h.silent = true, silent
	for c := range w.conns {
		if c.host != h {
			continue
		}
		c.fail(syscall.ECONNRESET)
		if !silent {
			c.out.push(parcel{end: syscall.ECONNRESET})
		}
	}
	w.notify()
}

// step takes a while between any two steps of an install, so that faults fall between them.
func (h *simHost) step(string) error {
	h.net.mu.Lock()
	d := time.Duration(h.net.rng.Int64N(int64(60 * time.Millisecond)))
	h.net.mu.Unlock()
	time.Sleep(d)
	return nil
}

// pause freezes what the machine sends and receives until resume.
func (h *simHost) pause()  { h.setPaused(true) }
func (h *simHost) resume() { h.setPaused(false) }

func (h *simHost) setPaused(p bool) {
	w := h.net
	w.mu.Lock()
	defer w.mu.Unlock()
	h.paused = p
	w.release(func() time.Duration { return 0 })
}

// set changes directions between hosts, and frees what is no longer held.
func (w *wires) set(pairs [][2]string, change func(*link)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range pairs {
		l := w.link(p[0], p[1])
		change(l)
		if l.refused {
			for c := range w.conns {
				if c.host.ip == p[0] && c.peer.host.ip == p[1] || c.host.ip == p[1] && c.peer.host.ip == p[0] {
					c.fail(syscall.ECONNRESET)
				}
			}
		}
	}
	// TCP has backed off while its segments were lost.
	w.release(func() time.Duration { return time.Duration(w.rng.Int64N(int64(time.Second))) })
}

// reset breaks the connections between two hosts, or with "" all of one.
func (w *wires) reset(a, b string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.conns {
		if c.host.ip == a && (b == "" || c.peer.host.ip == b) {
			c.fail(syscall.ECONNRESET)
			c.peer.fail(syscall.ECONNRESET)
		}
	}
}

// heal opens every link.
func (w *wires) heal() {
	w.mu.Lock()
	var all [][2]string
	for p := range w.links {
		all = append(all, p)
	}
	w.mu.Unlock()
	w.set(all, func(l *link) { *l = link{} })
}

func (w *wires) link(from, to string) *link {
	l := w.links[[2]string{from, to}]
	if l == nil {
		l = &link{}
		w.links[[2]string{from, to}] = l
	}
	return l
}

// holds says whether nothing passes from one machine to the other.
func (w *wires) holds(from, to *simHost) bool {
	return from.paused || to.paused || from != to && w.link(from.ip, to.ip).held
}

// release dates what was held and no longer is.
func (w *wires) release(backoff func() time.Duration) {
	for c := range w.conns {
		if !w.holds(c.host, c.peer.host) {
			c.out.release(time.Now().Add(backoff()))
		}
	}
	w.notify()
}

// releaseReplies lets through what one host has answered on connections that the
// other one made, and nothing else: the way stays held.
func (w *wires) releaseReplies(from, to string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.conns {
		if c.host.ip == from && c.peer.host.ip == to && c.peer.dialled {
			c.out.release(time.Now())
		}
	}
}

func (w *wires) notify() {
	close(w.changed)
	w.changed = make(chan struct{})
}

// delay is how long the way from one host to another takes.
func (w *wires) delay(from, to string) time.Duration {
	d := 100*time.Microsecond + time.Duration(w.rng.Int64N(int64(300*time.Microsecond)))
	if from != to {
		d += w.link(from, to).slow
	}
	return d
}

// listen opens a port of the machine.
func (h *simHost) listen(addr string) (*simListener, error) {
	tcp, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return nil, err
	}
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	_, port, _ := net.SplitHostPort(addr)
	if h.listeners[port] != nil || tcp.IP.String() != h.ip {
		return nil, syscall.EADDRINUSE
	}
	l := &simListener{host: h, port: port, addr: tcp, conns: make(chan net.Conn, 64), closed: make(chan struct{})}
	h.listeners[port] = l
	return l, nil
}

// dial connects to a port of a machine; it waits while the way is held.
func (h *simHost) dial(ctx context.Context, addr string) (net.Conn, error) {
	ip, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	for {
		c, wait, changed, err := h.connect(ip, port)
		if err != nil {
			return nil, &net.OpError{Op: "dial", Net: "sim", Err: err}
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-changed:
			timer.Stop()
		case <-ctx.Done():
			timer.Stop()
			return nil, ctx.Err()
		}
		if c != nil {
			return c, nil
		}
	}
}

// connect makes the connection, or says for how long to wait before trying again.
func (h *simHost) connect(ip, port string) (*simConn, time.Duration, <-chan struct{}, error) {
	w := h.net
	w.mu.Lock()
	defer w.mu.Unlock()
	to := w.hosts[ip]
	switch {
	case h.dead:
		return nil, 0, nil, syscall.ENETDOWN
	case to == nil || to.dead && to.silent || w.holds(h, to) || w.holds(to, h):
		return nil, time.Hour, w.changed, nil
	case w.link(h.ip, ip).refused || w.link(ip, h.ip).refused || to.dead || to.listeners[port] == nil:
		return nil, 0, nil, syscall.ECONNREFUSED
	}
	l := to.listeners[port]
	local := &net.TCPAddr{IP: net.ParseIP(h.ip), Port: 40000 + len(w.conns)%20000}
	a := &simConn{host: h, local: local, remote: l.addr, dialled: true, readBy: newDeadline()}
	b := &simConn{host: to, local: l.addr, remote: local, readBy: newDeadline()}
	ab, ba := &pipe{from: h, to: to, wake: make(chan struct{}, 1)}, &pipe{from: to, to: h, wake: make(chan struct{}, 1)}
	a.peer, a.out, a.in, b.peer, b.out, b.in = b, ab, ba, a, ba, ab
	select {
	case l.conns <- b:
	default:
		return nil, 0, nil, syscall.ECONNREFUSED
	}
	w.conns[a], w.conns[b] = true, true
	return a, w.delay(h.ip, ip) + w.delay(ip, h.ip), nil, nil
}

// simListener is a port.
type simListener struct {
	host  *simHost
	port  string
	addr  *net.TCPAddr
	conns chan net.Conn
	// packets gets those sent to the port; nil: none. Guarded by wires.mu.
	packets chan *memberlist.Packet
	closed  chan struct{}
	once    sync.Once
}

func (l *simListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *simListener) Close() error {
	err := net.ErrClosed
	l.once.Do(func() {
		err = nil
		l.host.net.mu.Lock()
		defer l.host.net.mu.Unlock()
		delete(l.host.listeners, l.port)
		close(l.closed)
	})
	return err
}

func (l *simListener) Addr() net.Addr { return l.addr }
