package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// What a line holds of one connection, one way, is at most queued pieces, one more that is read and one that is written.
const (
	pieceSize = 16 << 10
	queued    = 64
)

// link is one connection through a line.
type link struct {
	line           *Line
	client, server *net.TCPConn
	stop           context.CancelFunc
}

// piece is bytes that were read at once, or how the sender ended.
type piece struct {
	data []byte
	err  error // io.EOF: it closed its half
	at   time.Time
	luck float64 // between -1 and 1, for jitter
}

// run carries both ways until both have ended.
func (k *link) run(ctx context.Context) {
	var group sync.WaitGroup
	for way, ends := range [][2]*net.TCPConn{Up: {k.client, k.server}, Down: {k.server, k.client}} {
		queue := make(chan piece, queued)
		group.Go(func() { read(ctx, ends[0], queue) })
		group.Go(func() { k.write(ctx, Way(way), ends[1], queue) })
	}
	group.Wait()
}

// read queues all that comes until its end.
func read(ctx context.Context, from *net.TCPConn, queue chan<- piece) {
	buf := make([]byte, pieceSize)
	for {
		n, err := from.Read(buf)
		for _, p := range []piece{{data: bytes.Clone(buf[:n])}, {err: err}} {
			if len(p.data) == 0 && p.err == nil {
				continue
			}
			p.at, p.luck = time.Now(), 2*rand.Float64()-1
			select {
			case queue <- p:
			case <-ctx.Done():
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// write sends what was queued, as the mode has it.
func (k *link) write(ctx context.Context, way Way, to *net.TCPConn, queue <-chan piece) {
	var carried int64
	closed := false
	for {
		s := k.line.look()
		if s.mode.flow(way).Closed && !closed {
			closed = true
			_ = to.CloseWrite() // fails when the connection has ended; then there is nothing to end
		}
		select {
		case <-ctx.Done():
			return
		case <-s.changed:
			continue
		case p := <-queue:
			s, ok := k.hold(ctx, way, p)
			switch {
			case !ok:
				return
			case errors.Is(p.err, io.EOF):
				_ = to.CloseWrite()
				return
			case p.err != nil: // the sender's RST goes on as one
				k.reset()
				return
			case closed || s.mode.flow(way).Closed:
				continue
			}
			if !k.send(s, way, to, p.data, carried) {
				return
			}
			carried += int64(len(p.data))
		}
	}
}

// send writes a piece, or so much of it as the cut leaves. It says false when the connection has ended by it.
func (k *link) send(s *state, way Way, to *net.TCPConn, data []byte, carried int64) bool {
	if limit := s.mode.flow(way).CutAfter; limit > 0 && carried < limit && carried+int64(len(data)) >= limit && k.line.cut(s, way) {
		n, _ := to.Write(data[:limit-carried])
		k.line.count.bytes[way].Add(int64(n))
		k.close()
		return false
	}
	n, err := to.Write(data)
	k.line.count.bytes[way].Add(int64(n))
	if err != nil {
		k.reset()
		return false
	}
	return true
}

// hold waits until the mode lets a piece go, and returns that mode.
func (k *link) hold(ctx context.Context, way Way, p piece) (*state, bool) {
	paid := (*state)(nil) // whose limit this piece has taken its share of
	var free time.Time    // when that share is due
	for {
		s := k.line.look()
		f := s.mode.flow(way)
		due := p.at.Add(f.delay(p.luck))
		if limit := s.limits[way]; limit != nil {
			if paid != s {
				paid, free = s, time.Now().Add(limit.ReserveN(time.Now(), len(p.data)).Delay())
			}
			due = later(due, free)
		}
		left := time.Until(due)
		if !f.Hole && left <= 0 {
			return s, true
		}
		timer := time.NewTimer(left)
		var tick <-chan time.Time
		if !f.Hole {
			tick = timer.C
		}
		select {
		case <-tick:
		case <-s.changed:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return nil, false
		}
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// reset ends both halves by RST.
func (k *link) reset() {
	k.stop()
	reset(k.client)
	reset(k.server)
}

// close ends both halves after what was written.
func (k *link) close() {
	k.stop()
	end(k.client)
	end(k.server)
}
