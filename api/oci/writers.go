package oci

import (
	"context"
	"sync"
	"time"

	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// takeoverWait bounds how long a request waits for the earlier writer's end.
const takeoverWait = 15 * time.Second

// writers knows who writes which upload on this node: one request at a time (B6, R-A2).
type writers struct {
	// mu guards active.
	mu     sync.Mutex
	active map[string]*writing
}

// writing is one request that holds an upload.
type writing struct {
	stop func()
	done chan struct{}
}

// enter makes the caller the upload's writer here: it stops the earlier one and
// waits for its end. stop is called at most while the caller holds the upload, from another
// goroutine, and must not block. The caller must call leave.
func (w *writers) enter(ctx context.Context, id string, stop func()) (leave func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, takeoverWait)
	defer cancel()
	me := &writing{stop: stop, done: make(chan struct{})}
	for {
		earlier := w.claim(id, me)
		if earlier == nil {
			return func() { w.leave(id, me) }, nil
		}
		select {
		case <-earlier.done:
		case <-ctx.Done():
			return nil, meta.Refuse(metav1.Kind_KIND_UNAVAILABLE, metav1.Noun_NOUN_UPLOAD,
				"upload %s: an earlier request that writes it has not ended within %s", id, takeoverWait)
		}
	}
}

// claim answers the writer that is in the way, already told to stop, or nil.
func (w *writers) claim(id string, me *writing) *writing {
	w.mu.Lock()
	defer w.mu.Unlock()
	if earlier := w.active[id]; earlier != nil {
		earlier.stop()
		return earlier
	}
	if w.active == nil {
		w.active = map[string]*writing{}
	}
	w.active[id] = me
	return nil
}

func (w *writers) leave(id string, me *writing) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.active, id)
	close(me.done)
}
