package chaos

import (
	"context"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// cutter is a TCP proxy that cuts connections in the middle of layers: the first few that carry much, each way.
type cutter struct {
	limit    int64 // bytes after which one is cut
	most     int   // so many, each way
	target   string
	listener net.Listener
	group    sync.WaitGroup

	mu    sync.Mutex // guards what follows
	conns map[net.Conn]bool
	cuts  [2]int // from the client, to the client
}

// newCutter starts the proxy before an address and returns it; it ends with the test.
func newCutter(t testing.TB, target string, limit int64, most int) *cutter {
	t.Helper()
	listener, err := net.Listen("tcp", freeAddr(t))
	if err != nil {
		t.Fatal(err)
	}
	c := &cutter{limit: limit, most: most, target: target, listener: listener, conns: map[net.Conn]bool{}}
	c.group.Go(c.accept)
	t.Cleanup(c.close)
	return c
}

func (c *cutter) addr() string { return c.listener.Addr().String() }

func (c *cutter) accept() {
	for {
		from, err := c.listener.Accept()
		if err != nil {
			return
		}
		c.group.Go(func() { c.carry(from) })
	}
}

// carry copies both ways until one end closes or the connection is cut; then both are closed.
func (c *cutter) carry(from net.Conn) {
	defer from.Close()
	to, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(context.Background(), "tcp", c.target)
	if err != nil {
		return
	}
	defer to.Close()
	if !c.keep(from, to) {
		return
	}
	defer c.drop(from, to)
	var group sync.WaitGroup
	for i, way := range [][2]net.Conn{{from, to}, {to, from}} {
		group.Go(func() {
			defer from.Close()
			defer to.Close()
			if n, err := io.Copy(way[1], io.LimitReader(way[0], c.limit)); err != nil || n < c.limit || c.cut(i) {
				return
			}
			_, _ = io.Copy(way[1], way[0]) // its end is the connection's end
		})
	}
	group.Wait()
}

// cut decides about a connection that has carried as much as the limit.
func (c *cutter) cut(way int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cuts[way] == c.most {
		return false
	}
	c.cuts[way]++
	return true
}

func (c *cutter) count() (up, down int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cuts[0], c.cuts[1]
}

// keep remembers connections that close has to end; after close it refuses them.
func (c *cutter) keep(conns ...net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conns == nil {
		return false
	}
	for _, conn := range conns {
		c.conns[conn] = true
	}
	return true
}

func (c *cutter) drop(conns ...net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range conns {
		delete(c.conns, conn)
	}
}

func (c *cutter) close() {
	c.listener.Close()
	c.mu.Lock()
	for conn := range c.conns {
		conn.Close()
	}
	c.conns = nil
	c.mu.Unlock()
	c.group.Wait()
}

func TestTheFirstLargeConnectionsAreCut(t *testing.T) {
	const size = 100_000
	target, err := net.Listen("tcp", freeAddr(t))
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	var server sync.WaitGroup
	defer server.Wait()
	defer target.Close()
	server.Go(func() {
		for {
			conn, err := target.Accept()
			if err != nil {
				return
			}
			_, _ = io.Copy(conn, strings.NewReader(strings.Repeat("x", size))) // a cut is what is tested
			conn.Close()
		}
	})
	c := newCutter(t, target.Addr().String(), size/2, 2)
	for i := range 4 {
		conn, err := net.Dial("tcp", c.addr())
		if err != nil {
			t.Fatal(err)
		}
		n, _ := io.Copy(io.Discard, conn)
		conn.Close()
		want := int64(size)
		if i < 2 {
			want /= 2
		}
		if n != want {
			t.Errorf("connection %d carried %d bytes, want %d", i, n, want)
		}
	}
	if up, down := c.count(); up != 0 || down != 2 {
		t.Errorf("cut %d connections up and %d down, want 0 and 2", up, down)
	}
}
