package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/pontoon-registry/pontoon/blobs"
	"github.com/pontoon-registry/pontoon/blobs/blobstest"
)

// Hundreds of clients that stall or send a byte now and then, beside fast ones, in the smallest pool there is: the fast
// ones end while all the slow ones hang, and nothing of the slow ones is lost.
func TestSlowUploadsDoNotStallFastOnesInTheSmallestPool(t *testing.T) {
	const slow, fast = 300, 6
	s := open(t, against(blobstest.StartS3(t), Config{Memory: minMemory}))
	type client struct {
		l    *blobstest.Ledger
		w    blobs.Writer
		data []byte
		sent int
	}
	clients := make([]*client, slow)
	trickling, stop := context.WithCancel(t.Context())
	var trickles sync.WaitGroup
	defer trickles.Wait()
	defer stop()
	var begun sync.WaitGroup
	for n := range clients {
		c := &client{l: blobstest.NewLedger(), data: blobstest.Bytes(int64(slabSize + 10_000 + n))}
		c.w = begin(t, s, c.l, -1)
		c.sent = []int{1, stageSize + 1, slabSize + 1}[n%3] // nothing of the pool, one slab, one slab and a second one
		clients[n] = c
		begun.Go(func() {
			if _, err := c.w.Write(c.data[:c.sent]); err != nil {
				t.Error(err)
			}
		})
	}
	begun.Wait()
	for _, c := range clients[:slow/3] {
		trickles.Go(func() {
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for c.sent < len(c.data) {
				select {
				case <-trickling.Done():
					return
				case <-tick.C:
				}
				if _, err := c.w.Write(c.data[c.sent : c.sent+1]); err != nil {
					t.Error(err)
					return
				}
				c.sent++
			}
		})
	}
	var all sync.WaitGroup
	for n := range fast {
		all.Go(func() {
			if err := whole(t, s, blobstest.Bytes(12<<20+int64(n))); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	stop()
	trickles.Wait()
	for _, c := range clients[:30] { // they go on where they were
		if _, err := c.w.Write(c.data[c.sent:]); err != nil {
			t.Fatal(err)
		}
		finish(t, s, c.l, c.w, c.data)
	}
	for _, c := range clients {
		c.w.Abandon()
	}
	poolIsWhole(t, s)
}

// whole pushes one layer within a bound that says "it hangs" and nothing about speed.
func whole(t *testing.T, s *Store, data []byte) error {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	l := blobstest.NewLedger()
	w, err := s.Writer(ctx, l.Take(s, -1))
	if err != nil {
		return err
	}
	defer w.Abandon()
	for at := 0; at < len(data); at += 100_000 {
		if ctx.Err() != nil {
			return fmt.Errorf("after %d of %d bytes: %w", at, len(data), ctx.Err())
		}
		if _, err := w.Write(data[at:min(at+100_000, len(data))]); err != nil {
			return err
		}
	}
	p, err := w.Close(ctx)
	if err != nil {
		return err
	}
	l.Save(p, 0)
	_, err = s.Finish(ctx, l.Name(), l.Progress)
	return err
}

// A stream that nobody reads on holds neither a call nor anything else that others wait for.
func TestSlowReadersHoldNoCalls(t *testing.T) {
	s := open(t, against(blobstest.StartS3(t), Config{Memory: minMemory, MaxCalls: 2}))
	data := blobstest.Bytes(8 << 20)
	l := blobstest.NewLedger()
	w := begin(t, s, l, int64(len(data)))
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	finish(t, s, l, w, data)
	key := l.Progress.Pieces[0].Key
	shielded := blobs.Limit(s, 2, time.Second, new(blobstest.Watch))
	var streams []io.ReadCloser
	defer func() {
		for _, r := range streams {
			_ = r.Close()
		}
	}()
	for n := range 64 {
		r, err := shielded.Open(t.Context(), key, 0, int64(len(data)))
		if err != nil {
			t.Fatalf("stream %d: %v", n, err)
		}
		streams = append(streams, r)
		if _, err := io.ReadFull(r, make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(s.calls); n != 0 {
		t.Errorf("%d calls are in flight while nobody calls", n)
	}
	same(t, s, key, data)
	if err := whole(t, s, data[:1<<20]); err != nil {
		t.Error(err)
	}
}

// Streams have no bound in the HTTP client: slow readers would keep all others from the store by it.
func TestStreamsAreNotBoundedByConnections(t *testing.T) {
	transport, err := newTransport(Config{MaxCalls: 1}.withDefaults())
	if err != nil {
		t.Fatal(err)
	}
	if transport.MaxConnsPerHost != 0 {
		t.Errorf("at most %d connections", transport.MaxConnsPerHost)
	}
}

// A store that asks to slow down is asked less, not more: the repetitions of all calls share a budget.
func TestAStoreThatAsksToSlowDownGetsNoStorm(t *testing.T) {
	b := newBetween(t, blobstest.StartS3(t))
	var mu sync.Mutex
	repeated := 0
	s := open(t, against(blobstest.S3Server{Endpoint: b.URL, AccessKey: "a", SecretKey: "b", Bucket: "pontoon"},
		Config{Repeated: func() { mu.Lock(); repeated++; mu.Unlock() }}))
	b.set(func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, `<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>`)
		return true
	})
	watch := new(blobstest.Watch)
	shielded := blobs.NewBreaker(blobs.Limit(s, 64, time.Second, watch), s.Probe, watch)
	const clients, each = 40, 10
	var all sync.WaitGroup
	for range clients {
		all.Go(func() {
			for range each {
				if _, err := shielded.Open(t.Context(), blobstest.NewLedger().Name().Key(0), 0, 10); !errors.Is(err, blobs.ErrUnavailable) {
					t.Errorf("%v, want ErrUnavailable", err)
				}
			}
		})
	}
	all.Wait()
	asked := b.count(func(*http.Request) bool { return true })
	// Without a breaker and a budget it would be four times the 400 calls.
	if asked > 4*clients+10 {
		t.Errorf("%d requests reached a store that asks to slow down", asked)
	}
	if repeated == 0 || !watch.Open() {
		t.Errorf("%d repetitions were told of, open %v", repeated, watch.Open())
	}
}

// A call to a store that hangs ends by our own deadline, as ErrUnavailable and not as a context that somebody canceled.
func TestAHungStoreIsUnavailable(t *testing.T) {
	b := newBetween(t, blobstest.StartS3(t))
	s := open(t, against(blobstest.S3Server{Endpoint: b.URL, AccessKey: "a", SecretKey: "b", Bucket: "pontoon"}, Config{CallTimeout: time.Second}))
	release := make(chan struct{})
	defer close(release)
	b.set(func(http.ResponseWriter, *http.Request) bool { <-release; return true })
	key := blobstest.NewLedger().Name().Key(0)
	_, open := s.Open(t.Context(), key, 0, 10)
	_, stat := s.Stat(t.Context(), key)
	for what, err := range map[string]error{"open": open, "stat": stat} {
		if !errors.Is(err, blobs.ErrUnavailable) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
