package blobstest

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/pontoon-registry/pontoon/blobs"
)

// Shield decorates a store as the product does, with a small limit.
func Shield(store blobs.Store, probe func(context.Context) error) blobs.Store {
	w := new(Watch)
	return blobs.Retry(blobs.NewBreaker(blobs.Limit(blobs.Meter(store, w), 8, time.Minute, w), probe, w), w)
}

// Watch is a blobs.Watcher and blobs.Observer that counts. The zero value is ready; safe for concurrent use.
type Watch struct {
	mu     sync.Mutex // guards all below
	counts map[string]int
	open   bool
}

func (w *Watch) add(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.counts == nil {
		w.counts = map[string]int{}
	}
	w.counts[name]++
}

// Refused implements blobs.Watcher.
func (w *Watch) Refused(why string) { w.add("refused " + why) }

// Repeated implements blobs.Watcher.
func (w *Watch) Repeated(action string) { w.add("repeated " + action) }

// Observe implements blobs.Observer.
func (w *Watch) Observe(c blobs.Call) { w.add(c.Action) }

// Opened implements blobs.Watcher.
func (w *Watch) Opened(open bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.open = open
}

// Open says whether the breaker is open.
func (w *Watch) Open() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.open
}

// Counts answers how often each thing was told: actions, "refused open", "refused busy", "repeated read".
func (w *Watch) Counts() map[string]int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.counts)
}
