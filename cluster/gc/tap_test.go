package gc

import (
	"context"
	"fmt"
	"iter"
	"sync"

	"github.com/pontoon-registry/pontoon/blobs"
	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// tap stands in every call that a collector makes: of the ledger, the store and the mark. It counts them, and lets one go
// wrong.
type tap struct {
	mu    sync.Mutex
	calls []string
	// at is the number of the call that is met, from 1; 0 meets none.
	at int
	// meet is what happens to it: it makes the call or not, and answers.
	meet func(ctx context.Context, call func() error) error
	// before is called before every call.
	before func(what string)
}

func (p *tap) through(ctx context.Context, what string, call func() error) error {
	if p.before != nil {
		p.before(what)
	}
	p.mu.Lock()
	p.calls = append(p.calls, what)
	met := len(p.calls) == p.at
	p.mu.Unlock()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if met {
		return p.meet(ctx, call)
	}
	return call()
}

// config puts the tap into every call.
func (p *tap) config(cfg Config) Config {
	cfg.Ledger = tappedLedger{cfg.Ledger, p}
	cfg.Store = tappedStore{cfg.Store, p}
	cfg.Mark = tappedMark{cfg.Mark, p}
	return cfg
}

type tappedLedger struct {
	meta.Ledger
	p *tap
}

func (l tappedLedger) View(ctx context.Context, read meta.Read, fn func(*meta.View) error) error {
	return l.p.through(ctx, "view", func() error { return l.Ledger.View(ctx, read, fn) })
}

func (l tappedLedger) Propose(ctx context.Context, c *metav1.Command) (r *metav1.Result, err error) {
	err = l.p.through(ctx, fmt.Sprintf("propose %T", c.GetKind()), func() error {
		r, err = l.Ledger.Propose(ctx, c)
		return err
	})
	return r, err
}

type tappedMark struct {
	Mark
	p *tap
}

func (m tappedMark) Raise(ctx context.Context, n uint64) error {
	return m.p.through(ctx, "raise", func() error { return m.Mark.Raise(ctx, n) })
}

type tappedStore struct {
	blobs.Store
	p *tap
}

func (s tappedStore) Delete(ctx context.Context, keys ...string) error {
	return s.p.through(ctx, "delete", func() error { return s.Store.Delete(ctx, keys...) })
}

func (s tappedStore) AbortMultipart(ctx context.Context, key, id string) error {
	return s.p.through(ctx, "abort", func() error { return s.Store.AbortMultipart(ctx, key, id) })
}

func (s tappedStore) Stat(ctx context.Context, key string) (n int64, err error) {
	err = s.p.through(ctx, "stat", func() error { n, err = s.Store.Stat(ctx, key); return err })
	return n, err
}

func (s tappedStore) List(ctx context.Context, prefix, after string) iter.Seq2[blobs.Object, error] {
	return tappedSeq(ctx, s.p, "list", s.Store.List(ctx, prefix, after))
}

func (s tappedStore) ListMultiparts(ctx context.Context, prefix string) iter.Seq2[blobs.Multipart, error] {
	return tappedSeq(ctx, s.p, "listmultiparts", s.Store.ListMultiparts(ctx, prefix))
}

// tappedSeq is a call before the listing and before each item: it can fail anywhere.
func tappedSeq[T any](ctx context.Context, p *tap, what string, seq iter.Seq2[T, error]) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		if err := p.through(ctx, what, func() error { return nil }); err != nil {
			var none T
			yield(none, err)
			return
		}
		for item, err := range seq {
			if err == nil {
				err = p.through(ctx, what, func() error { return nil })
			}
			if !yield(item, err) || err != nil {
				return
			}
		}
	}
}
