package s3

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/pontoon-registry/pontoon/blobs"
)

const (
	// slabSize is what the pool hands out, in bytes.
	slabSize = 256 << 10
	// maxSpare bounds the slabs that are kept while no upload runs.
	maxSpare = 64
	// idleAfter is how long an upload takes no bytes before it counts as idle.
	idleAfter = 200 * time.Millisecond
	// patience is how long slabs in flight are waited for before an upload is spilled instead.
	patience = 250 * time.Millisecond
	// bufferWait bounds the wait for a slab.
	bufferWait = time.Minute
	// lookAgain is how often a waiting upload looks whether it can relieve the pool.
	lookAgain = 50 * time.Millisecond
)

// pool is the bounded memory that all uploads of a store share (B1).
//
//	free ──take──► filling (a part that is not complete) ──fly──► flying (being uploaded) ──► free
//	                  └──────────── spill: to an object ─────────────────────────────────────► free
//
// Who gets a freed slab: uploads within their fair share before others; among
// those, the one that lacks least to a complete part, since only complete parts
// free memory by themselves; then the one that waits longest. An upload that
// completed a part begins with nothing and so stands behind the others.
//
// Who waits relieves the pool: it writes another upload's incomplete part to an
// object, in its own goroutine. First the longest idle; if none is idle, after
// patience, the one farthest from a complete part, itself included. So slabs
// always come back, whatever clients do, as long as the store takes writes.
type pool struct {
	total int

	// mu guards all below, and the fields of accounts.
	mu       sync.Mutex
	free     int
	flying   int
	spare    [][]byte
	accounts []*account
	queue    []*waiter
}

// account is what one upload holds of the pool. Its fields are the pool's.
type account struct {
	filling, flying int
	// missing is how many bytes its part lacks to be complete.
	missing int64
	used    time.Time
	// spill frees the filling slabs, or answers why not; it is called without the pool's lock.
	spill    func(context.Context) error
	spilling bool
}

type waiter struct {
	a *account
	// slab gets one, or none ever; it has room for one.
	slab chan []byte
}

func newPool(slabs int) *pool { return &pool{total: slabs, free: slabs} }

func (p *pool) enter(spill func(context.Context) error) *account {
	p.mu.Lock()
	defer p.mu.Unlock()
	a := &account{spill: spill, used: time.Now()}
	p.accounts = append(p.accounts, a)
	return a
}

// leave ends an account that holds nothing.
func (p *pool) leave(a *account) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.accounts = slices.DeleteFunc(p.accounts, func(other *account) bool { return other == a })
	if len(p.accounts) == 0 && len(p.spare) > maxSpare {
		p.spare = slices.Clone(p.spare[:maxSpare])
	}
}

// get answers an empty slab, waiting bounded for one.
func (p *pool) get(ctx context.Context, a *account, missing int64) ([]byte, error) {
	p.mu.Lock()
	a.used, a.missing = time.Now(), missing
	w := &waiter{a: a, slab: make(chan []byte, 1)}
	p.queue = append(p.queue, w)
	p.deal()
	p.mu.Unlock()
	select {
	case slab := <-w.slab:
		return slab, nil
	default:
	}
	return p.wait(ctx, w)
}

func (p *pool) wait(ctx context.Context, w *waiter) ([]byte, error) {
	begin := time.Now()
	deadline := time.NewTimer(bufferWait)
	defer deadline.Stop()
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	for {
		p.relieve(ctx, time.Since(begin))
		select {
		case slab := <-w.slab:
			return slab, nil
		case <-ctx.Done():
			p.giveUp(w)
			return nil, context.Cause(ctx)
		case <-deadline.C:
			p.giveUp(w)
			return nil, fmt.Errorf("no buffer for %v: %w", bufferWait, blobs.ErrUnavailable)
		case <-tick.C:
		}
	}
}

// giveUp takes a waiter out of the queue; what it was given meanwhile goes back.
func (p *pool) giveUp(w *waiter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.queue = slices.DeleteFunc(p.queue, func(other *waiter) bool { return other == w })
	select {
	case slab := <-w.slab:
		w.a.filling--
		p.put([][]byte{slab})
	default:
	}
}

// fly notes that n slabs of a's part are being uploaded now.
func (p *pool) fly(a *account, n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	a.filling -= n
	a.flying += n
	p.flying += n
}

// landed gives back slabs that flew, dropped those that did not.
func (p *pool) landed(a *account, slabs [][]byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	a.flying -= len(slabs)
	p.flying -= len(slabs)
	p.put(slabs)
}

func (p *pool) dropped(a *account, slabs [][]byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	a.filling -= len(slabs)
	p.put(slabs)
}

// put is called with mu held.
func (p *pool) put(slabs [][]byte) {
	p.free += len(slabs)
	p.spare = append(p.spare, slabs...)
	p.deal()
}

// deal hands free slabs to those who wait; it is called with mu held.
func (p *pool) deal() {
	for p.free > 0 && len(p.queue) > 0 {
		best := 0
		share := p.share()
		for n := range p.queue {
			if before(p.queue[n].a, p.queue[best].a, share) {
				best = n
			}
		}
		w := p.queue[best]
		p.queue = slices.Delete(p.queue, best, best+1)
		p.free--
		w.a.filling++
		w.slab <- p.slab()
	}
}

func (p *pool) slab() []byte {
	n := len(p.spare)
	if n == 0 {
		return make([]byte, 0, slabSize)
	}
	slab := p.spare[n-1][:0]
	p.spare = p.spare[:n-1]
	return slab
}

// share answers how many slabs an upload may hold before others go first.
func (p *pool) share() int {
	busy := len(p.queue)
	for _, a := range p.accounts {
		if a.filling+a.flying > 0 {
			busy++
		}
	}
	return p.total / max(busy, 1)
}

// before answers whether a is served before b, which waits longer.
func before(a, b *account, share int) bool {
	aOver, bOver := a.filling+a.flying > share, b.filling+b.flying > share
	if aOver != bOver {
		return bOver
	}
	return a.missing < b.missing
}

// relieve spills one upload's part if nothing else will free slabs soon.
func (p *pool) relieve(ctx context.Context, waited time.Duration) {
	p.mu.Lock()
	p.deal()
	if len(p.queue) == 0 || p.free > 0 {
		p.mu.Unlock()
		return
	}
	victim := p.victim(p.flying == 0 || waited > patience)
	if victim == nil {
		p.mu.Unlock()
		return
	}
	victim.spilling = true
	p.mu.Unlock()

	_ = victim.spill(ctx) // it could not be: its slabs stay, another look follows

	p.mu.Lock()
	victim.spilling = false
	p.mu.Unlock()
}

// victim answers the longest idle upload that holds slabs; with anyone set, and
// none idle, the one farthest from a complete part. It is called with mu held.
func (p *pool) victim(anyone bool) *account {
	var idle, far *account
	for _, a := range p.accounts {
		if a.filling == 0 || a.spilling {
			continue
		}
		waiting := slices.ContainsFunc(p.queue, func(w *waiter) bool { return w.a == a })
		if !waiting && time.Since(a.used) > idleAfter && (idle == nil || a.used.Before(idle.used)) {
			idle = a
		}
		if far == nil || a.missing > far.missing {
			far = a
		}
	}
	if idle != nil || !anyone {
		return idle
	}
	return far
}

// touch notes that bytes came.
func (p *pool) touch(a *account, missing int64) {
	p.mu.Lock()
	a.used, a.missing = time.Now(), missing
	p.mu.Unlock()
}
