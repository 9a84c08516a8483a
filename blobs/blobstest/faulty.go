package blobstest

import (
	"context"
	"io"
	"iter"
	"sync"
	"time"

	"github.com/pontoon-registry/pontoon/blobs"
)

// Fault says what goes wrong with which call.
type Fault struct {
	// Action is open, stat, writer, write, save, close, finish, abort, delete, list, listmultiparts or presign.
	Action string
	// N is the number of the call of that action that is hit, from 1; 0 hits every one.
	N int
	// Wait delays the call until the channel is closed or its context ends.
	Wait <-chan struct{}
	// Before is answered instead of making the call.
	Before error
	// Twice makes the call twice and answers the second time's answer; of a stream or a Writer it makes no second one.
	Twice bool
	// After is answered after the call was made: its effect stands, its answer is lost.
	After error
}

// Faulty is a Store that fails, delays and doubles chosen calls to another. Safe for concurrent use.
type Faulty struct {
	blobs.Store

	// mu guards the faults and the counts of calls by action.
	mu     sync.Mutex
	faults []Fault
	counts map[string]int
}

// NewFaulty answers a Faulty over store.
func NewFaulty(store blobs.Store, faults ...Fault) *Faulty {
	return &Faulty{Store: store, faults: faults, counts: map[string]int{}}
}

// Set replaces the faults and begins to count anew.
func (f *Faulty) Set(faults ...Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults = faults
	clear(f.counts)
}

// Calls answers how many calls of the action there were since the last Set.
func (f *Faulty) Calls(action string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.counts[action]
}

// hit counts a call and answers the fault that meets it.
func (f *Faulty) hit(action string) Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.counts[action]++
	for _, fault := range f.faults {
		if fault.Action == action && (fault.N == 0 || fault.N == f.counts[action]) {
			return fault
		}
	}
	return Fault{}
}

// do makes a call under the fault that meets it.
func (f *Faulty) do(ctx context.Context, action string, call func() error) error {
	fault := f.hit(action)
	if fault.Wait != nil {
		select {
		case <-fault.Wait:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if fault.Before != nil {
		return fault.Before
	}
	if fault.Twice {
		_ = call() // the second answer counts
	}
	err := call()
	if fault.After != nil {
		return fault.After
	}
	return err
}

// Open implements blobs.Store.
func (f *Faulty) Open(ctx context.Context, key string, offset, length int64) (r io.ReadCloser, err error) {
	err = f.do(ctx, "open", func() (err error) {
		if r == nil {
			r, err = f.Store.Open(ctx, key, offset, length)
		}
		return err
	})
	if err != nil && r != nil {
		_ = r.Close() // its answer is lost
		r = nil
	}
	return r, err
}

// Stat implements blobs.Store.
func (f *Faulty) Stat(ctx context.Context, key string) (size int64, err error) {
	err = f.do(ctx, "stat", func() (err error) { size, err = f.Store.Stat(ctx, key); return err })
	return size, err
}

// Writer implements blobs.Store.
func (f *Faulty) Writer(ctx context.Context, a blobs.Attempt) (w blobs.Writer, err error) {
	err = f.do(ctx, "writer", func() (err error) {
		if w == nil {
			w, err = f.Store.Writer(ctx, a)
		}
		return err
	})
	if err != nil {
		if w != nil {
			w.Abandon()
		}
		return nil, err
	}
	return &faultyWriter{Writer: w, f: f, ctx: ctx}, nil
}

// Finish implements blobs.Store.
func (f *Faulty) Finish(ctx context.Context, attempt blobs.Name, p blobs.Progress) (done blobs.Finished, err error) {
	err = f.do(ctx, "finish", func() (err error) { done, err = f.Store.Finish(ctx, attempt, p); return err })
	return done, err
}

// AbortMultipart implements blobs.Store.
func (f *Faulty) AbortMultipart(ctx context.Context, key, id string) error {
	return f.do(ctx, "abort", func() error { return f.Store.AbortMultipart(ctx, key, id) })
}

// Delete implements blobs.Store.
func (f *Faulty) Delete(ctx context.Context, keys ...string) error {
	return f.do(ctx, "delete", func() error { return f.Store.Delete(ctx, keys...) })
}

// List implements blobs.Store; a fault ends it before it begins.
func (f *Faulty) List(ctx context.Context, prefix, after string) iter.Seq2[blobs.Object, error] {
	return faultySeq(ctx, f, "list", f.Store.List(ctx, prefix, after))
}

// ListMultiparts implements blobs.Store; a fault ends it before it begins.
func (f *Faulty) ListMultiparts(ctx context.Context, prefix string) iter.Seq2[blobs.Multipart, error] {
	return faultySeq(ctx, f, "listmultiparts", f.Store.ListMultiparts(ctx, prefix))
}

func faultySeq[T any](ctx context.Context, f *Faulty, action string, seq iter.Seq2[T, error]) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		if err := f.do(ctx, action, func() error { return nil }); err != nil {
			var none T
			yield(none, err)
			return
		}
		seq(yield)
	}
}

// Presign implements blobs.Store.
func (f *Faulty) Presign(ctx context.Context, key string, lifetime time.Duration) (url string, err error) {
	err = f.do(ctx, "presign", func() (err error) { url, err = f.Store.Presign(ctx, key, lifetime); return err })
	return url, err
}

type faultyWriter struct {
	blobs.Writer
	f *Faulty
	// ctx bounds the waiting of a Write, which has no context of its own.
	ctx context.Context
}

func (w *faultyWriter) Write(b []byte) (n int, err error) {
	err = w.f.do(w.ctx, "write", func() (err error) { n, err = w.Writer.Write(b); return err })
	return n, err
}

func (w *faultyWriter) Save(ctx context.Context) (p blobs.Progress, err error) {
	err = w.f.do(ctx, "save", func() (err error) { p, err = w.Writer.Save(ctx); return err })
	return p, err
}

func (w *faultyWriter) Close(ctx context.Context) (p blobs.Progress, err error) {
	err = w.f.do(ctx, "close", func() (err error) { p, err = w.Writer.Close(ctx); return err })
	return p, err
}
