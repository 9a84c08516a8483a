package api

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	proxyproto "github.com/pires/go-proxyproto"
	"github.com/prometheus/client_golang/prometheus"
)

// debugConnections bounds the debug listener's connections.
const debugConnections = 256

// listen answers the configured listener, or opens one at addr.
func listen(ctx context.Context, given net.Listener, addr, field string) (net.Listener, error) {
	if given != nil {
		return given, nil
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", field, err)
	}
	return l, nil
}

// trustProxies makes l understand PROXY protocol v2 from trusted ranges, where it is optional. From elsewhere a header
// is not looked for: it reaches TLS or HTTP as the garbage that it is there.
func trustProxies(l net.Listener, trusted []netip.Prefix, timeout time.Duration) net.Listener {
	if len(trusted) == 0 {
		return l
	}
	return &proxyproto.Listener{
		Listener:          l,
		ReadHeaderTimeout: timeout,
		ValidateHeader:    validProxyHeader,
		ConnPolicy: func(o proxyproto.ConnPolicyOptions) (proxyproto.Policy, error) {
			if tcp, ok := o.Upstream.(*net.TCPAddr); ok && contains(trusted, tcp.AddrPort().Addr()) {
				return proxyproto.USE, nil
			}
			return proxyproto.SKIP, nil
		},
	}
}

// validProxyHeader: version 2; LOCAL, which balancers send with their health checks, or a TCP client.
func validProxyHeader(h *proxyproto.Header) error {
	switch {
	case h.Version != 2:
		return fmt.Errorf("PROXY protocol version %d: expected 2", h.Version)
	case h.Command.IsLocal():
		return nil
	case h.TransportProtocol.IsStream() && (h.TransportProtocol.IsIPv4() || h.TransportProtocol.IsIPv6()):
		return nil
	case h.TransportProtocol.IsUnspec():
		return nil // the balancer itself speaks (PROXY protocol, section 2.2)
	}
	return fmt.Errorf("PROXY protocol family %#x: expected TCP", byte(h.TransportProtocol))
}

// limited bounds how many connections of a listener are open at once. Accept waits for a place.
// golang.org/x/net/netutil has the like, but its connections hide ReadFrom and so lose sendfile.
type limited struct {
	net.Listener
	places chan struct{}
	open   prometheus.Gauge
	closed chan struct{}
	once   sync.Once
}

func limit(l net.Listener, n int, open prometheus.Gauge) *limited {
	return &limited{Listener: l, places: make(chan struct{}, n), open: open, closed: make(chan struct{})}
}

// Accept waits for a place, then for a connection.
func (l *limited) Accept() (net.Conn, error) {
	select {
	case l.places <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.places
		return nil, err
	}
	l.open.Inc()
	return &placed{Conn: c, leave: sync.OnceFunc(func() {
		l.open.Dec()
		<-l.places
	})}, nil
}

// Close also ends an Accept that waits for a place.
func (l *limited) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// placed is a connection that holds a place until it is closed.
type placed struct {
	net.Conn
	leave func()
}

func (c *placed) Close() error {
	defer c.leave()
	return c.Conn.Close()
}

// ReadFrom lets net/http reach sendfile.
func (c *placed) ReadFrom(r io.Reader) (int64, error) {
	if rf, ok := c.Conn.(io.ReaderFrom); ok {
		return rf.ReadFrom(r)
	}
	return io.Copy(struct{ io.Writer }{c.Conn}, r)
}

// CloseWrite lets net/http end an answer before the client has sent its whole body.
func (c *placed) CloseWrite() error {
	conn := c.Conn
	if p, ok := conn.(*proxyproto.Conn); ok {
		conn = p.Raw()
	}
	if cw, ok := conn.(interface{ CloseWrite() error }); ok {
		return cw.CloseWrite()
	}
	return nil
}
