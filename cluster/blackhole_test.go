package cluster

import (
	"context"
	"fmt"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"
)

// swamp is a network in which a node may sink: what is sent to it or by it is swallowed, without an error, an end or
// a refusal, as where a machine or a cable is gone. Connections that stand sink too.
type swamp struct {
	mu   sync.Mutex
	sunk map[string]bool
	// up is closed when everything is drained again.
	up chan struct{}
}

func (s *swamp) sink(address string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sunk[address] = true
}

func (s *swamp) drain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.sunk)
	close(s.up)
	s.up = make(chan struct{})
}

// swallows answers a channel to wait on while one of the ends is sunk, else nil.
func (s *swamp) swallows(ends ...string) chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range ends {
		if s.sunk[e] {
			return s.up
		}
	}
	return nil
}

// dialer is the dial of the node at from.
func (s *swamp) dialer(from *string) func(context.Context, string) (net.Conn, error) {
	return func(ctx context.Context, to string) (net.Conn, error) {
		if up := s.swallows(*from, to); up != nil {
			select { // a SYN that nobody answers
			case <-up:
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
		}
		c, err := new(net.Dialer).DialContext(ctx, "tcp", to)
		if err != nil {
			return nil, err
		}
		return &sinking{Conn: c, s: s, ends: []string{*from, to}, closed: make(chan struct{})}, nil
	}
}

// sinking is a connection that swallows while one of its ends is sunk.
type sinking struct {
	net.Conn
	s      *swamp
	ends   []string
	once   sync.Once
	closed chan struct{}
}

func (c *sinking) Write(p []byte) (int, error) {
	if c.s.swallows(c.ends...) != nil {
		return len(p), nil
	}
	return c.Conn.Write(p)
}

func (c *sinking) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if up := c.s.swallows(c.ends...); up != nil && err == nil {
		select { // what came is lost, and so is all that follows
		case <-c.closed:
		case <-up:
		}
		return 0, net.ErrClosed
	}
	return n, err
}

func (c *sinking) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// TestABlackHoledPeerCostsTheOthersNothing: the leader keeps its quorum, writes and reads go on, and nothing piles up.
func TestABlackHoledPeerCostsTheOthersNothing(t *testing.T) {
	s := &swamp{sunk: map[string]bool{}, up: make(chan struct{})}
	addresses := make([]*string, 3)
	nodes, _ := formWith(t, 3, &testMark{}, func(i int, c *Config) {
		addresses[i] = new(string)
		c.Dial = s.dialer(addresses[i])
	}, func(n *Node) {
		for _, a := range addresses {
			if a != nil && *a == "" {
				*a = n.advertise
			}
		}
	})
	leader, followers := leaderOf(t, nodes)
	sunk, other := followers[0], followers[1]
	stop := load(t, []*running{leader, other})
	before := runtime.NumGoroutine()
	s.sink(sunk.advertise)
	most := 0
	for end := time.Now().Add(12 * time.Second); time.Now().Before(end); {
		most = max(most, runtime.NumGoroutine())
		<-time.After(20 * time.Millisecond)
	}
	if n := stop(); n < 20 {
		t.Errorf("only %d requests in 12 s beside a peer that swallows all", n)
	}
	// Twelve seconds of retries would show: a call or a dial left behind for each append or heartbeat is thousands.
	if most > before+300 {
		t.Errorf("%d goroutines before, %d while the peer was out of reach", before, most)
	}
	s.drain()
	eventually(t, "the peer is back", func() error { return sunk.Ready(t.Context()) })
	eventually(t, "the states are the same", func() error {
		a, hash := leader.State()
		b, theirs := sunk.State()
		if a != b || string(hash) != string(theirs) {
			return fmt.Errorf("%d %x, %d %x", a, hash, b, theirs)
		}
		return nil
	})
}
