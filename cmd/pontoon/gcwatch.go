package main

import (
	"context"
	"slices"
	"time"

	"github.com/pontoon-registry/pontoon/meta"
)

const (
	// cyclesEvery is how often a node reads how collection stands, in its own state; markEvery how often it reads the
	// owner mark, one small call to the store, and bucketEvery the bucket's settings.
	cyclesEvery = 5 * time.Second
	markEvery   = time.Minute
	bucketEvery = time.Hour
	// lookTime bounds a look.
	lookTime = 10 * time.Second
)

// watch looks at mark, bucket and cycles until ctx ends, and says what changes. Nothing is decided by it.
func (f *forgetting) watch(ctx context.Context) error {
	tick := time.NewTicker(cyclesEvery)
	defer tick.Stop()
	var marked, inspected time.Time
	for {
		next := *f.seen.Load()
		if time.Since(inspected) >= bucketEvery && f.lookAtBucket(ctx, &next) {
			inspected = time.Now()
		}
		if time.Since(marked) >= markEvery && f.lookAtMark(ctx) {
			marked = time.Now()
		}
		f.lookAtCycles(ctx, &next)
		f.seen.Store(&next)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// lookAtMark has the mark say loudly when this cluster may not delete; see heldMark.note.
func (f *forgetting) lookAtMark(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	_, err := f.mark.look(ctx)
	return err == nil // else no quorum, no cluster yet, or no store: others say so
}

// lookAtBucket says what it finds when it finds it first.
func (f *forgetting) lookAtBucket(ctx context.Context, into *storeSeen) bool {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	found, err := f.store.inspect(ctx, f.cfg.Uploads)
	if err != nil {
		return false // the breaker's check says that it does not answer
	}
	for _, one := range found {
		switch {
		case slices.Contains(into.findings, one):
		case one.grave:
			f.log.Error("the bucket is DANGEROUS for a registry: "+one.text, "finding", one.name)
		default:
			f.log.Warn("the bucket: "+one.text, "finding", one.name)
		}
	}
	into.findings = found
	return true
}

// lookAtCycles reads what the ledger says; without a quorum what was seen stays.
func (f *forgetting) lookAtCycles(ctx context.Context, into *storeSeen) {
	ctx, cancel := context.WithTimeout(ctx, scrapeTime)
	defer cancel()
	_ = f.ledger.View(ctx, meta.Read{}, func(v *meta.View) error { // the next look comes soon
		row, err := v.Collection()
		if err != nil {
			return err
		}
		history, err := v.Cycles(1)
		if err != nil {
			return err
		}
		into.cycles, into.running, into.last = true, row.GetRunning(), nil
		if len(history) > 0 {
			into.last = history[0]
		}
		return nil
	})
}
