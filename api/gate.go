package api

import (
	"context"
	"sync"
)

// gate counts requests in flight, so that whoever ends the server can wait for their handlers. A
// sync.WaitGroup must not be waited for while requests may still begin.
type gate struct {
	mu    sync.Mutex // guards the fields below
	n     int
	empty chan struct{} // closed when n falls to 0; nil while nobody waits
}

func (g *gate) enter() {
	g.mu.Lock()
	g.n++
	g.mu.Unlock()
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.n--
	if g.n == 0 && g.empty != nil {
		close(g.empty)
		g.empty = nil
	}
}

// wait returns true once no request is in flight, or false when ctx ends before.
func (g *gate) wait(ctx context.Context) bool {
	g.mu.Lock()
	if g.n == 0 {
		g.mu.Unlock()
		return true
	}
	if g.empty == nil {
		g.empty = make(chan struct{})
	}
	empty := g.empty
	g.mu.Unlock()
	select {
	case <-empty:
		return true
	case <-ctx.Done():
		return false
	}
}

func (g *gate) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.n
}
