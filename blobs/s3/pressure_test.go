package s3

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/pontoon-registry/pontoon/blobs"
	"github.com/pontoon-registry/pontoon/blobs/blobstest"
)

// begin opens a writer under a new name.
func begin(t *testing.T, s *Store, l *blobstest.Ledger, length int64) blobs.Writer {
	t.Helper()
	w, err := s.Writer(t.Context(), l.Take(s, length))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Abandon)
	return w
}

// finish closes, commits and compares.
func finish(t *testing.T, s *Store, l *blobstest.Ledger, w blobs.Writer, data []byte) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 5*time.Minute)
	defer cancel()
	p, err := w.Close(ctx)
	if err != nil {
		t.Fatal(err)
	}
	l.Save(p, 0)
	done, err := s.Finish(ctx, l.Name(), l.Progress)
	if err != nil {
		t.Fatal(err)
	}
	same(t, s, done.Key, data)
}

func same(t *testing.T, s *Store, key string, data []byte) {
	t.Helper()
	r, err := s.Open(t.Context(), key, 0, int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	got := new(bytes.Buffer)
	if _, err := got.ReadFrom(r); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), data) {
		t.Fatalf("%s: %d bytes differ from the %d written", key, got.Len(), len(data))
	}
}

// 64 clients fill the whole pool, four slabs each would be twice of it, and send no more.
func TestIdleUploadsDoNotStallAFastOne(t *testing.T) {
	c := against(blobstest.StartS3(t), Config{Memory: 16 << 20})
	s := open(t, c)
	type slow struct {
		l    *blobstest.Ledger
		w    blobs.Writer
		data []byte
	}
	var idle []slow
	for n := range 64 {
		l := blobstest.NewLedger()
		u := slow{l: l, w: begin(t, s, l, -1), data: blobstest.Bytes(2*slabSize + int64(n))}
		if _, err := u.w.Write(u.data[:slabSize+slabSize/2]); err != nil {
			t.Fatal(err)
		}
		idle = append(idle, u)
	}
	held := 0
	s.pool.mu.Lock()
	for _, a := range s.pool.accounts {
		held += a.filling
	}
	free := s.pool.free
	s.pool.mu.Unlock()
	if held+free != s.pool.total || held < s.pool.total/2 {
		t.Fatalf("idle uploads hold %d slabs, %d are free of %d", held, free, s.pool.total)
	}

	data := blobstest.Bytes(40 << 20)
	l := blobstest.NewLedger()
	begun := time.Now()
	w := begin(t, s, l, -1)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	finish(t, s, l, w, data)
	t.Logf("40 MiB beside 64 idle uploads in a pool of 16 MiB: %v", time.Since(begun).Round(time.Millisecond))

	for _, u := range idle { // spilled bytes come back in order
		if _, err := u.w.Write(u.data[slabSize+slabSize/2:]); err != nil {
			t.Fatal(err)
		}
		finish(t, s, u.l, u.w, u.data)
	}
	poolIsWhole(t, s)
	for o, err := range s.List(t.Context(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		if o.Size != int64(len(data)) && (o.Size < 2*slabSize || o.Size >= 2*slabSize+64) {
			t.Errorf("a spilled object was left behind: %+v", o)
		}
	}
}

// More active uploads than the pool has room for parts: all get on.
func TestMoreActiveUploadsThanPartsFitAllEnd(t *testing.T) {
	c := against(blobstest.StartS3(t), Config{Memory: 8 << 20})
	s := open(t, c)
	var all sync.WaitGroup
	for n := range 8 {
		all.Go(func() {
			data := blobstest.Bytes(9<<20 + int64(n))
			l := blobstest.NewLedger()
			w, err := s.Writer(t.Context(), l.Take(s, -1))
			if err != nil {
				t.Error(err)
				return
			}
			defer w.Abandon()
			for at := 0; at < len(data); at += 100_000 {
				if _, err := w.Write(data[at:min(at+100_000, len(data))]); err != nil {
					t.Error(err)
					return
				}
			}
			p, err := w.Close(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			l.Save(p, 0)
			done, err := s.Finish(t.Context(), l.Name(), l.Progress)
			if err != nil {
				t.Error(err)
				return
			}
			same(t, s, done.Key, data)
		})
	}
	all.Wait()
	poolIsWhole(t, s)
}

// poolIsWhole: nothing was lost or doubled.
func poolIsWhole(t *testing.T, s *Store) {
	t.Helper()
	s.pool.mu.Lock()
	defer s.pool.mu.Unlock()
	if s.pool.free != s.pool.total || s.pool.flying != 0 || len(s.pool.accounts) != 0 || len(s.pool.queue) != 0 {
		t.Errorf("the pool has %d of %d free, %d flying, %d accounts, %d waiting",
			s.pool.free, s.pool.total, s.pool.flying, len(s.pool.accounts), len(s.pool.queue))
	}
}

func TestPoolServesWhoLacksLeastWithinItsShare(t *testing.T) {
	p := newPool(4)
	none := func(context.Context) error { return errBusy }
	hog, near, far := p.enter(none), p.enter(none), p.enter(none)
	var held [][]byte
	for range 4 {
		slab, err := p.get(t.Context(), hog, 1)
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, slab)
	}
	p.mu.Lock() // three wait, in the order hog, far, near
	queue := []*waiter{{a: hog, slab: make(chan []byte, 1)}, {a: far, slab: make(chan []byte, 1)}, {a: near, slab: make(chan []byte, 1)}}
	hog.missing, far.missing, near.missing = 1, 100, 10
	p.queue = append(p.queue, queue...)
	p.mu.Unlock()
	for _, want := range []*waiter{queue[2], queue[1], queue[0]} {
		p.dropped(hog, held[:1])
		held = held[1:]
		if len(want.slab) != 1 {
			t.Fatalf("the slab went to another: %d %d %d", len(queue[0].slab), len(queue[1].slab), len(queue[2].slab))
		}
	}
}

func TestPoolWaitEndsWithTheContextAndLosesNoSlab(t *testing.T) {
	p := newPool(1)
	a := p.enter(func(context.Context) error { return errBusy })
	slab, err := p.get(t.Context(), a, 1)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stop")
	cancel(stop)
	b := p.enter(func(context.Context) error { return errBusy })
	if _, err := p.get(ctx, b, 1); !errors.Is(err, stop) {
		t.Errorf("get = %v, want the context's cause", err)
	}
	p.dropped(a, [][]byte{slab})
	if p.free != 1 || len(p.queue) != 0 {
		t.Errorf("%d free, %d waiting", p.free, len(p.queue))
	}
}
