package cluster

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// lockWatch is what C4 forbids: two holders whose contexts live at once, and tokens that do not rise.
type lockWatch struct {
	mu      sync.Mutex // guards what follows
	holders map[string][]*lockHolder
	token   map[string]uint64
	grants  int
}

type lockHolder struct {
	ctx      context.Context
	p        *process
	token    uint64
	released bool
}

func (h *lockHolder) alive() bool { return !h.released && h.ctx.Err() == nil && h.p.live() }

func newLockWatch() *lockWatch {
	return &lockWatch{holders: map[string][]*lockHolder{}, token: map[string]uint64{}}
}

// granted notes a holder, and judges. Grants are noted in the order of their
// answers, so a token may come late, but only to a holder that is dead by then.
func (l *lockWatch) granted(s *simCluster, name string, h *lockHolder) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.grants++
	var alive []*lockHolder
	for _, old := range l.holders[name] {
		if old.alive() {
			alive = append(alive, old)
		}
	}
	if h.alive() {
		for _, old := range alive {
			s.problem("C4: lock %s is held with token %d on node %d and with token %d on node %d", name, old.token, old.p.slot.i, h.token, h.p.slot.i)
		}
		if h.token <= l.token[name] {
			s.problem("C4: lock %s was granted with token %d after token %d", name, h.token, l.token[name])
		}
	}
	l.token[name] = max(l.token[name], h.token)
	l.holders[name] = append(alive, h)
}

// older answers a token that certainly does not hold the lock any more, or 0.
func (l *lockWatch) older(name string, than uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.token[name] > than
}

func (l *lockWatch) release(h *lockHolder) {
	l.mu.Lock()
	defer l.mu.Unlock()
	h.released = true
}

// lockClient takes a lock, holds it for a while, and now and then tries to renew
// with a token that somebody else's has overtaken.
func (s *simCluster) lockClient(ctx context.Context, id int, l *lockWatch) {
	rng := rand.New(rand.NewPCG(s.seed, uint64(500+id)))
	stale := map[string]uint64{}
	for ctx.Err() == nil {
		time.Sleep(time.Duration(rng.Int64N(int64(1500 * time.Millisecond))))
		p := pick(rng, s.slots).live()
		if p == nil {
			continue
		}
		name := fmt.Sprintf("lock%d", rng.IntN(2))
		if token := stale[name]; token > 0 && l.older(name, token) {
			s.renewStale(ctx, p, name, token)
		}
		if token := s.holdLock(ctx, p, rng, name, l); token > 0 {
			stale[name] = token
		}
	}
}

func (s *simCluster) holdLock(ctx context.Context, p *process, rng *rand.Rand, name string, l *lockWatch) uint64 {
	asking, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	held, token, release, err := p.Lock(asking, name, time.Second+time.Duration(rng.Int64N(int64(3*time.Second))))
	if err != nil {
		return 0
	}
	h := &lockHolder{ctx: held, p: p, token: token}
	l.granted(s, name, h)
	t := time.NewTimer(time.Duration(rng.Int64N(int64(4 * time.Second))))
	defer t.Stop()
	select {
	case <-held.Done():
	case <-t.C:
	}
	l.release(h)
	_ = release() // where it fails the lock goes by itself
	return token
}

// renewStale: whatever a lock guards refuses a token that was overtaken; renewal is such a thing.
func (s *simCluster) renewStale(ctx context.Context, p *process, name string, token uint64) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	_, err := p.Propose(ctx, simCommand(&metav1.Command{Kind: &metav1.Command_RenewLock{
		RenewLock: &metav1.RenewLock{Name: name, Token: token, Ttl: int64(time.Second)}}}))
	if k := meta.KindOf(err); k != metav1.Kind_KIND_CONFLICT && k != metav1.Kind_KIND_UNAVAILABLE && k != metav1.Kind_KIND_OUTCOME_UNKNOWN {
		s.problem("C4: lock %s was renewed with the stale token %d: %v", name, token, err)
	}
}
