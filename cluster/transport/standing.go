package transport

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// Trust changes while connections stand: a secret or an authority is removed, a
// certificate runs out, the name that a node joined with becomes known. So every
// connection is judged again as a new one would be (T8), both those that peers
// opened and those that this node opened:
//
//	accepted by us   refused ─► cut at once
//	dialled by us    refused ─► a new one is tried, the old one is cut after cutAfter
//	                 the peer's signer is not ours, its certificate ends soon, or we show another now
//	                         ─► a new one is made, then the old one ends with its last call
//
// The second and third rule are why a rotation fails no request: when a secret
// is removed at last, nothing stands by it any more.
const (
	// cutAfter is how long calls on a connection that was replaced may go on.
	cutAfter = 5 * time.Second
	// cutBulkAfter is that of the bulk lane, unless the peer is refused.
	cutBulkAfter = 10 * time.Minute
	// renewTimeout ends the attempt to connect anew.
	renewTimeout = 3 * time.Second
	// renewLimit is how many are tried at once.
	renewLimit = 16
	// fruitlessRests is how many rounds a lane rests after its peer showed the same certificate again.
	fruitlessRests = 3
)

// standing is an authenticated connection: what was shown on it, and by whom.
type standing struct {
	net.Conn
	all   *standings
	state tls.ConnectionState
	end   End
	// shown is the certificate of this node that the peer has seen.
	shown string
	// line is the one that dialled it; nil for a connection that was accepted.
	line *line
	once sync.Once

	mu     sync.Mutex // guards judged
	judged Judgement
}

// Close implements net.Conn.
func (s *standing) Close() error {
	s.once.Do(func() { s.all.remove(s) })
	return s.Conn.Close()
}

func (s *standing) judgement() Judgement {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.judged
}

// judge asks again what the peer's certificate is worth.
func (s *standing) judge(c Credentials) (Judgement, error) {
	j, err := c.Judge(s.state, s.end)
	if err != nil {
		return j, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.judged = j
	return j, nil
}

// standings are the connections that stand.
type standings struct {
	mu  sync.Mutex // guards all
	all map[*standing]struct{}
}

func (a *standings) add(s *standing) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.all[s] = struct{}{}
}

func (a *standings) remove(s *standing) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.all, s)
}

func (a *standings) list() []*standing {
	a.mu.Lock()
	defer a.mu.Unlock()
	list := make([]*standing, 0, len(a.all))
	for s := range a.all {
		list = append(list, s)
	}
	return list
}

// Standing is one connection that stands.
type Standing struct {
	// Peer is the node at the other end, as it was last judged, By who signed its certificate.
	Peer, By string
	// Accepted: the peer opened it.
	Accepted bool
	// Expires is the end of the certificate that the peer has shown.
	Expires time.Time
}

// Standing lists the connections that stand, in no order.
func (h *Host) Standing() []Standing {
	var out []Standing
	for _, s := range h.standings.list() {
		j := s.judgement()
		out = append(out, Standing{Peer: j.NodeID, By: j.By, Accepted: s.end.Accepted, Expires: s.state.PeerCertificates[0].NotAfter})
	}
	return out
}

// Recheck judges the connections that stand, soon: call it when Credentials have changed.
func (h *Host) Recheck() {
	select {
	case h.recheck <- struct{}{}:
	default: // one is waiting already
	}
}

// keep judges the connections at every Recheck and RecheckEvery, until ctx ends.
func (h *Host) keep(ctx context.Context) error {
	tick := time.NewTicker(h.cfg.RecheckEvery)
	defer tick.Stop()
	var drains sync.WaitGroup
	defer drains.Wait()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-h.recheck:
		case <-tick.C:
		}
		h.recheckAll(ctx, &drains)
	}
}

func (h *Host) recheckAll(ctx context.Context, drains *sync.WaitGroup) {
	var renewals errgroup.Group
	renewals.SetLimit(renewLimit)
	shown := h.cfg.Credentials.Shown()
	for _, s := range h.standings.list() {
		j, err := s.judge(h.cfg.Credentials)
		current := s.line != nil && s.line.lane.current(s.line)
		switch {
		case err != nil:
			h.cfg.Log.Warn("a connection that stands is no longer trusted", "peer", s.end.describe(), "remote", s.RemoteAddr().String(), "error", err)
			if !current {
				_ = s.Close() // whoever uses it hears of it
				continue
			}
		case !current || s.shown == shown && (!j.Outgoing || s.line.lane.rests()):
			continue
		}
		renewals.Go(func() error { h.renew(ctx, s, err != nil, drains); return nil })
	}
	_ = renewals.Wait() // renew answers nothing
}

// renew replaces the line of a lane. One whose peer is refused goes whatever comes after it.
func (h *Host) renew(ctx context.Context, s *standing, refused bool, drains *sync.WaitGroup) {
	old, ln := s.line, s.line.lane
	next, err := ln.newLine()
	if err != nil { // gRPC does not know the target: it did before
		h.cfg.Log.Warn("a connection could not be made again", "error", err)
		_ = s.Close()
		return
	}
	up := next.connect(ctx)
	fruitless := !up
	if now := next.live.Load(); up && now != nil {
		fruitless = now.shown == s.shown && slices.EqualFunc(now.state.PeerCertificates, s.state.PeerCertificates, (*x509.Certificate).Equal)
	}
	if fruitless {
		ln.rest(fruitlessRests * h.cfg.RecheckEvery)
	}
	if fruitless && !refused || !ln.replace(old, next) {
		_ = next.cc.Close() // nobody has used it
		return
	}
	after := cutAfter
	if ln.bulk && !refused {
		after = cutBulkAfter
	}
	drains.Go(func() { old.retire(ctx, after) })
}
