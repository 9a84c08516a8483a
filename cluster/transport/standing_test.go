package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// moody are credentials whose mind a test changes.
type moody struct {
	*testCreds
	shown   atomic.Int64
	refuses atomic.Bool
	// outgoing: the peer's signer is never the preferred one.
	outgoing atomic.Bool
	// renewed is what it shows as a server, nil: what it shows otherwise.
	renewed atomic.Pointer[tls.Certificate]
}

func (m *moody) Shown() string { return time.Duration(m.shown.Load()).String() }

func (m *moody) Judge(cs tls.ConnectionState, e End) (Judgement, error) {
	if m.refuses.Load() {
		return Judgement{}, errors.New("no longer trusted")
	}
	j, err := m.testCreds.Judge(cs, e)
	j.Outgoing = m.outgoing.Load()
	return j, err
}

func (m *moody) ServerTLS() *tls.Config {
	c := m.testCreds.ServerTLS()
	c.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return m.renewed.Load(), nil }
	return c
}

// standingOf waits until the host has so many connections to or from a peer, and answers when the first of them was made.
func standingOf(t *testing.T, h *Host, count int) []*standing {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; {
		all := h.standings.list()
		if len(all) == count {
			return all
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d connections stand, want %d", len(all), count)
		}
		<-time.After(2 * time.Millisecond)
	}
}

// TestACallOutlivesTheReplacementOfItsConnection: it ends when its caller says so, although the next call goes elsewhere.
func TestACallOutlivesTheReplacementOfItsConnection(t *testing.T) {
	b := newBook()
	creds := &moody{testCreds: newCreds(t, "s", "node-a")}
	a := startNode(t, b, "node-a", func(c *Config) { c.Credentials = creds })
	startNode(t, b, "node-b")
	must(t, a.ask(t.Context(), "node-b", "node-a"))
	before := standingOf(t, a.Host, 1)[0]
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- a.ask(ctx, "node-b", "hang") }()
	creds.shown.Store(1)
	a.Recheck()
	standingOf(t, a.Host, 2) // the old one is kept for its call
	must(t, a.ask(t.Context(), "node-b", "node-a"))
	<-time.After(3 * time.Second) // whatever may yet end it
	cancel()
	if err := <-ended; status.Code(err) != codes.Canceled {
		t.Fatalf("the call under way ended with %v", err)
	}
	if after := standingOf(t, a.Host, 1)[0]; after == before {
		t.Fatal("the old connection stands, the new one does not")
	}
}

// TestWhoIsNoLongerTrustedIsCutOnBothSides, with a call under way or without.
func TestWhoIsNoLongerTrustedIsCutOnBothSides(t *testing.T) {
	b := newBook()
	dialler, listener := &moody{testCreds: newCreds(t, "s", "node-a")}, &moody{testCreds: newCreds(t, "s", "node-b")}
	a := startNode(t, b, "node-a", func(c *Config) { c.Credentials = dialler })
	l := startNode(t, b, "node-b", func(c *Config) { c.Credentials = listener })
	for name, side := range map[string]struct {
		host  *node
		creds *moody
	}{"the dialler": {a, dialler}, "the listener": {l, listener}} {
		must(t, a.ask(t.Context(), "node-b", "node-a"))
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		ended := make(chan error, 1)
		go func() { ended <- a.ask(ctx, "node-b", "hang") }()
		began := time.Now()
		side.creds.refuses.Store(true)
		side.host.Recheck()
		if err := <-ended; status.Code(err) == codes.DeadlineExceeded {
			t.Errorf("%s: the call went on: %v", name, err)
		}
		if took := time.Since(began); took > 15*time.Second {
			t.Errorf("%s: cut after %v", name, took)
		}
		standingOf(t, side.host.Host, 0)
		side.creds.refuses.Store(false)
		cancel()
		for deadline := time.Now().Add(time.Minute); a.ask(t.Context(), "node-b", "node-a") != nil; {
			if time.Now().After(deadline) {
				t.Fatalf("%s: not accepted again", name)
			}
			<-time.After(10 * time.Millisecond)
		}
	}
}

// TestWhatAPeerShowsAnewIsTaken although its signer is still not the one that this node prefers; where it shows nothing new, the
// connection stays.
func TestWhatAPeerShowsAnewIsTaken(t *testing.T) {
	b := newBook()
	dialler, listener := &moody{testCreds: newCreds(t, "s", "node-a")}, &moody{testCreds: newCreds(t, "s", "node-b")}
	dialler.outgoing.Store(true)
	a := startNode(t, b, "node-a", func(c *Config) { c.Credentials, c.RecheckEvery = dialler, 20*time.Millisecond })
	startNode(t, b, "node-b", func(c *Config) { c.Credentials = listener })
	must(t, a.ask(t.Context(), "node-b", "node-a"))
	a.peers.mu.Lock()
	ln := a.peers.conns[peerLane{"node-b", Control}]
	a.peers.mu.Unlock()
	ln.mu.Lock()
	before := ln.line
	ln.mu.Unlock()
	for deadline := time.Now().Add(time.Minute); !ln.rests(); <-time.After(time.Millisecond) { // it was asked in vain
		if time.Now().After(deadline) {
			t.Fatal("the peer is not asked for anything newer")
		}
	}
	if !ln.current(before) {
		t.Error("a connection was replaced by one that shows the same")
	}
	next := newCreds(t, "s", "node-b").leaf
	listener.renewed.Store(&next)
	for deadline := time.Now().Add(time.Minute); ln.current(before); <-time.After(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the connection stands by what its peer has replaced")
		}
	}
	must(t, a.ask(t.Context(), "node-b", "node-a"))
}
