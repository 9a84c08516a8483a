package blobstest

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pontoon-registry/pontoon/blobs"
	"github.com/pontoon-registry/pontoon/blobs/mem"
)

// calls is an Observer that keeps all.
type calls struct {
	mu  sync.Mutex // guards all
	all []blobs.Call
}

func (c *calls) Observe(call blobs.Call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, call)
}

// find answers the calls of an action.
func (c *calls) find(action string) (found []blobs.Call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, call := range c.all {
		if call.Action == action {
			found = append(found, call)
		}
	}
	return found
}

func TestDecoratorsPassTheSuite(t *testing.T) {
	Run(t, func(*testing.T) Fixture {
		s := mem.New(1 << 12)
		decorated := Shield(NewFaulty(s), func(context.Context) error { return nil })
		return Fixture{Nodes: []blobs.Store{decorated, s}, Part: 1 << 12, Multipart: true, Damage: func(t *testing.T, key string) {
			size, err := s.Stat(t.Context(), key)
			if err != nil {
				t.Fatal(err)
			}
			replace(t, s, key, size)
		}}
	})
}

// replace writes other bytes of the same length under a key: mem lets an attempt's name be used again.
func replace(t *testing.T, s *mem.Store, key string, size int64) {
	t.Helper()
	name, object, err := blobs.ParseKey(key)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	a := blobs.Attempt{Name: name, Length: -1}
	if object == 1 { // a tail after parts
		size += 1 << 12
	}
	w, err := s.Writer(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	p, err := w.Close(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Pieces) != 1 || p.Pieces[0].Key != key {
		t.Fatalf("wrote %+v, want %s", p.Pieces, key)
	}
}

func TestMeterTellsOfEveryCall(t *testing.T) {
	ctx := t.Context()
	seen := new(calls)
	f := NewFaulty(mem.New(1 << 12))
	s := blobs.Meter(f, seen)
	l := NewLedger()
	data := Bytes(5000)
	w, err := s.Writer(ctx, l.Take(s, -1))
	if err != nil {
		t.Fatal(err)
	}
	write(t, w, data)
	if _, err := w.Save(ctx); err != nil {
		t.Fatal(err)
	}
	p, err := w.Close(ctx)
	if err != nil {
		t.Fatal(err)
	}
	w.Abandon()
	l.Save(p, 0)
	done := finish(ctx, t, s, l, data)
	f.Set(Fault{Action: "stat", Before: blobs.ErrUnavailable})
	if _, err := s.Stat(ctx, done.Key); !errors.Is(err, blobs.ErrUnavailable) {
		t.Fatal(err)
	}
	for action, want := range map[string]int64{"writer": 0, "write": 5000, "save": 0, "close": 0, "finish": 5000, "open": 0, "read": 5000} {
		found := seen.find(action)
		if len(found) != 1 || found[0].Bytes != want || found[0].Err != nil {
			t.Errorf("%s: %+v, want one with %d bytes", action, found, want)
		}
	}
	if stats := seen.find("stat"); len(stats) != 2 || !errors.Is(stats[1].Err, blobs.ErrUnavailable) {
		t.Errorf("stat: %+v, want two, the second unavailable", stats)
	}
}

func TestLimitRefusesAfterABoundedWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		f := NewFaulty(mem.New(0), Fault{Action: "stat", N: 1, Wait: release})
		s := blobs.Limit(f, 1, 3*time.Second, new(Watch))
		key := NewLedger().Name().Key(0)
		var first sync.WaitGroup
		first.Go(func() { _, _ = s.Stat(t.Context(), key) })
		synctest.Wait()
		begun := time.Now()
		if _, err := s.Stat(t.Context(), key); !errors.Is(err, blobs.ErrUnavailable) {
			t.Errorf("the second call: %v, want ErrUnavailable", err)
		}
		if waited := time.Since(begun); waited != 3*time.Second {
			t.Errorf("it waited %v, want 3s", waited)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.Stat(ctx, key); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, blobs.ErrUnavailable) {
			t.Errorf("a call whose own deadline ends first: %v, want that", err)
		}
		if n := f.Calls("stat"); n != 1 {
			t.Errorf("%d calls reached the store, want 1", n)
		}
		close(release)
		first.Wait()
		if _, err := s.Stat(t.Context(), key); !errors.Is(err, blobs.ErrNotFound) {
			t.Errorf("after it: %v, want ErrNotFound", err)
		}
	})
}

func TestFaultsHitTheChosenCall(t *testing.T) {
	ctx := t.Context()
	lost := errors.New("lost")
	f := NewFaulty(mem.New(0))
	key := putSmall(ctx, t, f, NewLedger().Name())
	f.Set(Fault{Action: "delete", N: 2, After: lost}, Fault{Action: "open", N: 1, Before: lost})
	if err := f.Delete(ctx, key+".1"); err != nil {
		t.Error(err)
	}
	if _, err := f.Open(ctx, key, 0, -1); !errors.Is(err, lost) {
		t.Errorf("Open = %v, want the fault", err)
	}
	r, err := f.Open(ctx, key, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); string(got) != "abc" || err != nil {
		t.Errorf("read %q, %v", got, err)
	}
	if err := f.Delete(ctx, key); !errors.Is(err, lost) {
		t.Errorf("Delete = %v, want the fault", err)
	}
	if _, err := f.Stat(ctx, key); !errors.Is(err, blobs.ErrNotFound) {
		t.Errorf("a call whose answer was lost had no effect: %v", err)
	}
}
