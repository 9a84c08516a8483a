package blobs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"
)

const (
	// breakerFailures calls in a row that the store did not answer open the breaker; each is the last word of several
	// tries, or of a long wait. One answer in between, of whatever kind, begins the count anew: a slow store and one
	// that asks to slow down now and then stay in use.
	breakerFailures = 3
	// breakerRest is how long an open breaker asks nothing.
	breakerRest = 3 * time.Second
	// probeTime bounds the one question that decides whether the breaker closes.
	probeTime = 2 * time.Second
	// hungAfter is when a call that its caller gave up counts as not answered: clients are often less patient than we.
	hungAfter = 5 * time.Second
	// believed is how long the last answer of the store speaks for its health, so that an idle node asks only now and then.
	believed = 10 * time.Second
)

// Breaker is a Store that refuses at once while the one below does not answer
// (B5): each call is answered ErrUnavailable and ErrRefused within
// microseconds, and the store is left alone to get well.
//
//	closed ── 3 in a row unanswered ──► open ── after 3 s the next call asks the probe ── answered ──► closed
//	                                     ▲                                            └── not ──┐
//	                                     └──────────────────────────────────────────────────────┘
//
// Unanswered is ErrUnavailable, our own deadlines included: a store that hangs
// counts by them. Every other answer, such as ErrNotFound or a denial, says
// that the store lives. While the probe is out, all others are refused: it is
// the only call that a store which may be down has to bear, and it moves no bytes.
//
// Presign, Boundary and Reserve ask nobody and always pass. A stream or a
// Writer that was begun goes on: its parts fail by themselves, or get through.
type Breaker struct {
	Store
	cb    *gobreaker.TwoStepCircuitBreaker[any]
	probe func(context.Context) error
	watch Watcher
	// answered is when the store answered last, nil before; for Check only. It keeps the monotonic clock: by the wall's, a
	// clock that is set back would speak for a dead store for as long.
	answered atomic.Pointer[time.Time]
}

// NewBreaker answers a Breaker over store. probe asks the store whether it is
// there; it must be cheap, end with its context, and not pass through the Breaker.
func NewBreaker(store Store, probe func(context.Context) error, w Watcher) *Breaker {
	b := &Breaker{Store: store, probe: probe, watch: w}
	b.cb = gobreaker.NewTwoStepCircuitBreaker[any](gobreaker.Settings{
		MaxRequests: 1, Timeout: breakerRest,
		ReadyToTrip:  func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= breakerFailures },
		IsSuccessful: func(err error) bool { return !errors.Is(err, ErrUnavailable) },
		IsExcluded:   func(err error) bool { return errors.Is(err, errNoAnswerYet) },
		// Called under its lock, with every change.
		OnStateChange: func(_ string, _, to gobreaker.State) { w.Opened(to != gobreaker.StateClosed) },
	})
	return b
}

// errNoAnswerYet marks the end of a call that says nothing of the store.
var errNoAnswerYet = errors.New("nothing was heard of the store")

// Check answers nil while the store answers, else why not; it asks the probe
// when nothing was heard for a while. It is for health checks: a node whose
// store is down still serves all that needs none.
func (b *Breaker) Check(ctx context.Context) error {
	if last := b.answered.Load(); b.cb.State() == gobreaker.StateClosed && last != nil && time.Since(*last) < believed {
		return nil
	}
	done, err := b.cb.Allow()
	if err != nil {
		return fmt.Errorf("the store did not answer %d calls in a row; the next try is due within %v", breakerFailures, breakerRest)
	}
	return b.ask(ctx, done)
}

// ask probes the store for a call that was allowed, and tells done.
func (b *Breaker) ask(ctx context.Context, done func(error)) error {
	probing, cancel := context.WithTimeout(context.WithoutCancel(ctx), probeTime) // not the caller's end decides
	defer cancel()
	err := b.probe(probing)
	if err != nil && probing.Err() != nil {
		err = fmt.Errorf("%w: no answer within %v: %w", ErrUnavailable, probeTime, err)
	}
	b.tell(done, err)
	if errors.Is(err, ErrUnavailable) {
		return err
	}
	return nil
}

// tell ends a call.
func (b *Breaker) tell(done func(error), err error) {
	if !errors.Is(err, ErrUnavailable) && !errors.Is(err, errNoAnswerYet) {
		b.answered.Store(new(time.Now()))
	}
	done(err)
}

// enter answers how to tell the end of a call, or the refusal.
func (b *Breaker) enter(ctx context.Context, verb string) (end func(error), err error) {
	done, err := b.cb.Allow()
	if err == nil && b.cb.State() == gobreaker.StateHalfOpen {
		if err := b.ask(ctx, done); err != nil {
			b.watch.Refused(RefusedOpen)
			return nil, fmt.Errorf("%s: %w: %w", verb, ErrRefused, err)
		}
		done, err = b.cb.Allow()
	}
	if err != nil {
		b.watch.Refused(RefusedOpen)
		return nil, fmt.Errorf("%s: %w: %w: the store did not answer the last calls", verb, ErrRefused, ErrUnavailable)
	}
	began, once := time.Now(), sync.Once{}
	return func(err error) {
		once.Do(func() { b.tell(done, verdict(ctx, err, time.Since(began))) })
	}, nil
}

// verdict says what the end of a call tells of the store.
func verdict(ctx context.Context, err error, took time.Duration) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrRefused): // by the limit below: of the store nothing was heard
		return errNoAnswerYet
	case errors.Is(err, ErrUnavailable):
		return err
	case ctx.Err() != nil && took >= hungAfter:
		return ErrUnavailable
	case ctx.Err() != nil:
		return errNoAnswerYet
	}
	return err
}

// Open implements Store. The stream's end is not told: it may be the client's doing.
func (b *Breaker) Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	end, err := b.enter(ctx, "open "+key)
	if err != nil {
		return nil, err
	}
	r, err := b.Store.Open(ctx, key, offset, length)
	end(err)
	return r, err
}

// Stat implements Store.
func (b *Breaker) Stat(ctx context.Context, key string) (int64, error) {
	end, err := b.enter(ctx, "stat "+key)
	if err != nil {
		return 0, err
	}
	size, err := b.Store.Stat(ctx, key)
	end(err)
	return size, err
}

// Writer implements Store. A Writer that begins has asked the store nothing
// unless it resumed a tail, so only what goes wrong is told; likewise of its Writes.
func (b *Breaker) Writer(ctx context.Context, a Attempt) (Writer, error) {
	end, err := b.enter(ctx, "begin "+a.Key(0))
	if err != nil {
		return nil, err
	}
	w, err := b.Store.Writer(ctx, a)
	if err != nil {
		end(err)
		return nil, err
	}
	end(errNoAnswerYet)
	return &brokenWriter{Writer: w, b: b}, nil
}

// Finish implements Store. Long work is no sign of a store that hangs: what its caller gave up is not told.
func (b *Breaker) Finish(ctx context.Context, attempt Name, p Progress) (Finished, error) {
	end, err := b.enter(ctx, "finish "+attempt.Key(0))
	if err != nil {
		return Finished{}, err
	}
	f, err := b.Store.Finish(ctx, attempt, p)
	if ctx.Err() != nil && !errors.Is(err, ErrUnavailable) {
		end(errNoAnswerYet)
		return f, err
	}
	end(err)
	return f, err
}

// AbortMultipart implements Store.
func (b *Breaker) AbortMultipart(ctx context.Context, key, id string) error {
	end, err := b.enter(ctx, "abort "+key)
	if err != nil {
		return err
	}
	err = b.Store.AbortMultipart(ctx, key, id)
	end(err)
	return err
}

// Delete implements Store.
func (b *Breaker) Delete(ctx context.Context, keys ...string) error {
	end, err := b.enter(ctx, "delete")
	if err != nil {
		return err
	}
	err = b.Store.Delete(ctx, keys...)
	end(err)
	return err
}

// List implements Store.
func (b *Breaker) List(ctx context.Context, prefix, after string) iter.Seq2[Object, error] {
	return breakSeq(ctx, b, "list "+prefix, b.Store.List(ctx, prefix, after))
}

// ListMultiparts implements Store.
func (b *Breaker) ListMultiparts(ctx context.Context, prefix string) iter.Seq2[Multipart, error] {
	return breakSeq(ctx, b, "list multipart uploads "+prefix, b.Store.ListMultiparts(ctx, prefix))
}

// breakSeq tells the first thing that a list yields: what comes later takes as long as its consumer.
func breakSeq[T any](ctx context.Context, b *Breaker, verb string, seq iter.Seq2[T, error]) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		end, err := b.enter(ctx, verb)
		if err != nil {
			var none T
			yield(none, err)
			return
		}
		defer end(nil) // an empty list is an answer too
		for v, err := range seq {
			end(err)
			if !yield(v, err) {
				return
			}
		}
	}
}

// brokenWriter tells the first error of a Writer, and that its Close was answered.
type brokenWriter struct {
	Writer
	b    *Breaker
	told bool
}

func (w *brokenWriter) Write(p []byte) (int, error) {
	n, err := w.Writer.Write(p)
	w.tell(err, false)
	return n, err
}

func (w *brokenWriter) Save(ctx context.Context) (Progress, error) {
	p, err := w.Writer.Save(ctx)
	w.tell(err, false)
	return p, err
}

func (w *brokenWriter) Close(ctx context.Context) (Progress, error) {
	p, err := w.Writer.Close(ctx)
	w.tell(err, true)
	return p, err
}

// tell counts at most one failure of each Writer. Its calls were allowed when it began, so they are told under
// what is allowed now: while the breaker is open there is nothing to tell.
func (w *brokenWriter) tell(err error, answered bool) {
	failed := errors.Is(err, ErrUnavailable)
	if w.told || !failed && (err != nil || !answered) || w.b.cb.State() != gobreaker.StateClosed {
		return
	}
	done, refused := w.b.cb.Allow()
	if refused != nil {
		return
	}
	w.told = failed
	w.b.tell(done, err)
}
