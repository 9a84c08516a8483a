package blobstest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pontoon-registry/pontoon/blobs"
	"github.com/pontoon-registry/pontoon/blobs/mem"
)

// broken is a Breaker over a Faulty, in a bubble with a clock of its own.
type broken struct {
	*blobs.Breaker
	f      *Faulty
	watch  *Watch
	probes atomic.Int32
	// up is whether the probe is answered; hangs delays it until its context ends.
	up, hangs atomic.Bool
	key       string
}

func newBroken(t *testing.T) *broken {
	b := &broken{f: NewFaulty(mem.New(0)), watch: new(Watch)}
	b.key = putSmall(t.Context(), t, b.f, NewLedger().Name())
	b.Breaker = blobs.NewBreaker(b.f, func(ctx context.Context) error {
		b.probes.Add(1)
		if b.hangs.Load() {
			<-ctx.Done()
			return ctx.Err()
		}
		if !b.up.Load() {
			return blobs.ErrUnavailable
		}
		return nil
	}, b.watch)
	return b
}

// fail makes the store answer nothing, and calls until the breaker opens.
func (b *broken) fail(t *testing.T) {
	t.Helper()
	b.f.Set(Fault{Action: "stat", Before: blobs.ErrUnavailable})
	for n := 0; !b.watch.Open(); n++ {
		if n == 3 {
			t.Fatal("three failures in a row did not open it")
		}
		if _, err := b.Stat(t.Context(), b.key); !errors.Is(err, blobs.ErrUnavailable) || errors.Is(err, blobs.ErrRefused) {
			t.Fatalf("call %d: %v, want the store's own failure", n, err)
		}
	}
	b.f.Set()
}

func TestBreakerRefusesADeadStoreAndClosesByItsProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroken(t)
		b.fail(t)
		begun := time.Now()
		for _, err := range []error{
			second(b.Stat(t.Context(), b.key)), second(b.Open(t.Context(), b.key, 0, -1)), b.Delete(t.Context(), b.key),
			second(b.Writer(t.Context(), NewLedger().Take(b, -1))), b.AbortMultipart(t.Context(), b.key, "x"),
			second(b.Finish(t.Context(), NewLedger().Name(), blobs.Progress{})), first(b.List(t.Context(), "", "")),
			first(b.ListMultiparts(t.Context(), "")),
		} {
			if !errors.Is(err, blobs.ErrRefused) || !errors.Is(err, blobs.ErrUnavailable) {
				t.Errorf("while it is open: %v, want ErrRefused and ErrUnavailable", err)
			}
		}
		if b.Check(t.Context()) == nil {
			t.Error("Check says that all is well")
		}
		if took := time.Since(begun); took != 0 || b.probes.Load() != 0 {
			t.Errorf("refusals took %v and %d probes, want none of either", took, b.probes.Load())
		}
		time.Sleep(3*time.Second + 1)
		if _, err := b.Stat(t.Context(), b.key); !errors.Is(err, blobs.ErrRefused) || b.probes.Load() != 1 {
			t.Errorf("the store is still down: %v after %d probes, want a refusal after one", err, b.probes.Load())
		}
		if n := b.f.Calls("stat"); n != 0 {
			t.Errorf("%d calls reached a store that had not answered its probe", n)
		}
		time.Sleep(3*time.Second + 1)
		b.up.Store(true)
		if _, err := b.Stat(t.Context(), b.key); err != nil || b.watch.Open() {
			t.Errorf("the first call after the store is back: %v, open %v", err, b.watch.Open())
		}
		if err := b.Check(t.Context()); err != nil {
			t.Errorf("Check: %v", err)
		}
	})
}

func second[T any](_ T, err error) error { return err }

func first[T any](seq func(func(T, error) bool)) (failed error) {
	seq(func(_ T, err error) bool { failed = err; return false })
	return failed
}

// Whoever asks while the probe is out is refused, and the probe has a bound of its own.
func TestOnlyOneProbeIsOutAndItIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroken(t)
		b.fail(t)
		b.hangs.Store(true)
		time.Sleep(4 * time.Second)
		begun := time.Now()
		var all sync.WaitGroup
		var quick, slow atomic.Int32
		for range 50 {
			all.Go(func() {
				if _, err := b.Stat(t.Context(), b.key); !errors.Is(err, blobs.ErrRefused) {
					t.Errorf("%v, want a refusal", err)
				}
				if time.Since(begun) == 0 {
					quick.Add(1)
				} else {
					slow.Add(1)
				}
			})
		}
		all.Wait()
		if quick.Load() != 49 || slow.Load() != 1 || b.probes.Load() != 1 || time.Since(begun) != 2*time.Second {
			t.Errorf("%d refused at once, %d after %v, %d probes", quick.Load(), slow.Load(), time.Since(begun), b.probes.Load())
		}
	})
}

// What the store answers, even if it is a no, says that it lives; what the caller gave up soon says nothing.
func TestBreakerCountsOnlyWhatWasNotAnswered(t *testing.T) {
	denied := errors.New("AccessDenied")
	for name, c := range map[string]struct {
		fault Fault
		gone  time.Duration // the caller's patience with a store that hangs
		opens bool
	}{
		"unavailable":             {Fault{Action: "stat", Before: blobs.ErrUnavailable}, 0, true},
		"not found":               {Fault{Action: "stat", Before: blobs.ErrNotFound}, 0, false},
		"denied":                  {Fault{Action: "stat", Before: denied}, 0, false},
		"no room":                 {Fault{Action: "stat", Before: blobs.ErrNoRoom}, 0, false},
		"given up soon":           {Fault{Action: "stat"}, time.Second, false},
		"hung, given up late":     {Fault{Action: "stat"}, 6 * time.Second, true},
		"the limit below refused": {Fault{Action: "stat", Before: errors.Join(blobs.ErrRefused, blobs.ErrUnavailable)}, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBroken(t)
				if c.gone > 0 {
					c.fault.Wait = make(chan struct{}) // of this bubble
				}
				b.f.Set(c.fault)
				for range 10 {
					ctx, cancel := t.Context(), context.CancelFunc(func() {})
					if c.gone > 0 {
						ctx, cancel = context.WithTimeout(ctx, c.gone)
					}
					_, _ = b.Stat(ctx, b.key)
					cancel()
				}
				if b.watch.Open() != c.opens {
					t.Errorf("open is %v, want %v", b.watch.Open(), c.opens)
				}
			})
		})
	}
}

func TestOneAnswerBetweenFailuresKeepsItClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroken(t)
		for range 20 {
			b.f.Set(Fault{Action: "stat", Before: blobs.ErrUnavailable})
			_, _ = b.Stat(t.Context(), b.key)
			_, _ = b.Stat(t.Context(), b.key)
			b.f.Set()
			if _, err := b.Stat(t.Context(), b.key); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// Writers that had begun tell of a store that died under them; beginning one proves nothing.
func TestWritersTellTheBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroken(t)
		b.f.Set(Fault{Action: "close", Before: blobs.ErrUnavailable})
		for range 3 {
			w, err := b.Writer(t.Context(), NewLedger().Take(b, -1))
			if err != nil {
				t.Fatal(err)
			}
			write(t, w, []byte("abc"))
			if _, err := w.Close(t.Context()); !errors.Is(err, blobs.ErrUnavailable) {
				t.Fatal(err)
			}
			w.Abandon()
		}
		if !b.watch.Open() {
			t.Error("three writers that could not close did not open it")
		}
	})
}

// An idle node asks the store itself, but not at every scrape.
func TestCheckAsksOnlyWhenNothingWasHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroken(t)
		b.up.Store(true)
		for range 100 {
			if err := b.Check(t.Context()); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		if n := b.probes.Load(); n < 9 || n > 11 {
			t.Errorf("%d probes in 100 s, want one in ten", n)
		}
		b.up.Store(false)
		time.Sleep(10 * time.Second)
		for range 3 {
			if b.Check(t.Context()) == nil {
				t.Error("Check says that all is well")
			}
		}
		if !b.watch.Open() {
			t.Error("checks that failed did not open it")
		}
	})
}

func TestLimitRefusesAtOnceBeyondItsQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release, watch := make(chan struct{}), new(Watch)
		f := NewFaulty(mem.New(0), Fault{Action: "stat", Wait: release})
		s := blobs.Limit(f, 2, time.Minute, watch)
		key := NewLedger().Name().Key(0)
		var held sync.WaitGroup
		for range 2 + 32 { // two in flight, sixteen times as many that wait
			held.Go(func() {
				if _, err := s.Stat(t.Context(), key); !errors.Is(err, blobs.ErrNotFound) {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		begun := time.Now()
		if _, err := s.Stat(t.Context(), key); !errors.Is(err, blobs.ErrRefused) || !errors.Is(err, blobs.ErrUnavailable) {
			t.Errorf("one more: %v, want a refusal", err)
		}
		if time.Since(begun) != 0 || watch.Counts()["refused busy"] != 1 {
			t.Errorf("it waited %v, %v", time.Since(begun), watch.Counts())
		}
		close(release)
		held.Wait()
	})
}

// flaky is a store whose streams break after a few bytes, like connections do.
type flaky struct {
	blobs.Store
	each  int64
	err   error
	opens atomic.Int32
}

func (f *flaky) Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	f.opens.Add(1)
	in, err := f.Store.Open(ctx, key, offset, length)
	if err != nil {
		return nil, err
	}
	return &breaking{ReadCloser: in, rest: f.each, err: f.err}, nil
}

type breaking struct {
	io.ReadCloser
	rest int64
	err  error
}

func (b *breaking) Read(p []byte) (int, error) {
	if b.rest == 0 {
		return 0, b.err
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.rest)])
	b.rest -= int64(n)
	return n, err
}

func TestStreamsThatBreakAreReadOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mem.New(1 << 12)
		l, data := NewLedger(), Bytes(10_000)
		put(t.Context(), t, s, l, data, -1)
		key := finish(t.Context(), t, s, l, data).Key
		for name, c := range map[string]struct {
			each  int64
			err   error
			whole bool
			opens int32
		}{
			"broken every 1000 bytes":     {1000, io.ErrUnexpectedEOF, true, 10},
			"the store went away":         {3000, blobs.ErrUnavailable, true, 4},
			"it never gets on":            {0, io.ErrUnexpectedEOF, false, 4},
			"what is stored is not right": {3000, blobs.ErrCorrupt, false, 1},
		} {
			f, watch := &flaky{Store: s, each: c.each, err: c.err}, new(Watch)
			r, err := blobs.Retry(f, watch).Open(t.Context(), key, 0, int64(len(data)))
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(r)
			_ = r.Close()
			if whole := err == nil && bytes.Equal(got, data); whole != c.whole || !c.whole && !errors.Is(err, c.err) {
				t.Errorf("%s: %d bytes, %v", name, len(got), err)
			}
			if n := f.opens.Load(); n != c.opens || watch.Counts()["repeated read"] != int(c.opens-1) {
				t.Errorf("%s: opened %d times, %v, want %d", name, n, watch.Counts(), c.opens)
			}
		}
		f := &flaky{Store: s, each: 1000, err: io.ErrUnexpectedEOF}
		r, err := blobs.Retry(f, new(Watch)).Open(t.Context(), key, 2500, 5000) // a part of it
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, data[2500:7500]) {
			t.Errorf("a part: %d bytes, %v", len(got), err)
		}
		_ = r.Close()
	})
}
