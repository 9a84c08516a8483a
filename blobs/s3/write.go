package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/pontoon-registry/pontoon/blobs"
)

const (
	// partsAtOnce bounds the parts of one upload that are being uploaded.
	partsAtOnce = 4
	// tidyTime bounds the removal of what an attempt no longer needs; what remains is the orphan sweep's.
	tidyTime = 5 * time.Second
)

// writer is one attempt.
//
//	Write: bytes ─► pending ─(complete, and more comes)─► launch ─► a flight for each part ─► parts
//	Save:  the longest prefix of parts that are done
//	Close: the rest as a part or as the tail; then waits for the flights
//
// The goroutines are its own: Close and Abandon wait for them.
type writer struct {
	s       *Store
	a       blobs.Attempt
	numbers blobs.Numbers
	account *account
	pending pending
	// start is where pending begins in the layer.
	start int64
	key   string // of the multipart upload
	id    string
	ended bool

	// ctx ends with the attempt, not with the call that began it: parts fly between calls.
	ctx     context.Context
	cancel  context.CancelCauseFunc
	flights sync.WaitGroup
	slots   chan struct{}

	// mu guards what flights report.
	mu    sync.Mutex
	parts []blobs.Part // of this attempt, in order; ETag is empty until it is done
	err   error
	// objects counts the further objects of the attempt.
	objects int
	saved   bool // a Save answered with this attempt's multipart upload
}

// tailReads is how often a tail, or a part's object, is read that is not what it should be, before the upload is given up.
const tailReads = 3

// errEnded is the cause with which an attempt's flights end.
var errEnded = errors.New("the attempt has ended")

// Writer implements blobs.Store. The tail of a.From is read, verified and put in front (B6).
func (s *Store) Writer(ctx context.Context, a blobs.Attempt) (blobs.Writer, error) {
	if err := a.Validate(); err != nil {
		return nil, err
	}
	if len(a.From.Pieces) > 1 {
		return nil, fmt.Errorf("resume %s: %d pieces, at most the tail is one", a.Key(0), len(a.From.Pieces))
	}
	numbers, err := blobs.NewNumbers(a, s.Reserve(a.From, a.Length))
	if err != nil {
		return nil, fmt.Errorf("resume %s: %w", a.Key(0), err)
	}
	if n := len(a.From.Parts); s.cut.equal && n > 0 && a.PartBase != a.From.Parts[n-1].Number+1 {
		return nil, fmt.Errorf("resume %s: part %d would follow %d: %w", a.Key(0), a.PartBase, a.From.Parts[n-1].Number, blobs.ErrTakeover)
	}
	w := &writer{
		s: s, a: a, numbers: numbers, start: partsSize(a.From.Parts), key: a.From.MultipartKey, id: a.From.MultipartID,
		slots: make(chan struct{}, partsAtOnce),
	}
	w.ctx, w.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	w.account = s.pool.enter(w.spill)
	if err := w.resume(ctx); err != nil {
		w.Abandon()
		return nil, fmt.Errorf("resume %s: %w", a.Key(0), err)
	}
	return w, nil
}

// resume puts the tail in front.
func (w *writer) resume(ctx context.Context) error {
	if len(w.a.From.Pieces) == 0 {
		return nil
	}
	tail := w.a.From.Pieces[0]
	size, err := w.s.Stat(ctx, tail.Key)
	if err != nil {
		return err
	}
	if size != tail.Size {
		return fmt.Errorf("tail %s has %d bytes, the ledger says %d: %w", tail.Key, size, tail.Size, blobs.ErrCorrupt)
	}
	if goal := w.s.cut.end(w.start) - w.start; size > goal {
		return fmt.Errorf("tail %s has %d bytes, a part at most %d: %w", tail.Key, size, goal, blobs.ErrTakeover)
	}
	// The wait for slabs counts too: a store's bound, not one of the memory, which has its own (bufferWait).
	limit := w.s.config.CallTimeout + w.s.config.ReadTimeout + time.Duration(tailReads*size/bytesPerSecond)*time.Second
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errSlow)
	defer cancel()
	for reads := 1; ; reads++ {
		err := w.load(ctx, tail)
		if reads == tailReads || !errors.Is(err, blobs.ErrCorrupt) {
			return err
		}
		w.drop() // it may have been damaged on its way
	}
}

// load reads the tail, which has its size.
func (w *writer) load(ctx context.Context, tail blobs.Piece) error {
	r, err := w.s.openSteady(ctx, tail.Key, tail.Size)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = w.fail(known(ctx, context.Cause(ctx))) }) // a slab may be long in coming
	defer stop()
	buf := make([]byte, stageSize)
	for rest := tail.Size; rest > 0 && err == nil; {
		var n int
		n, err = io.ReadFull(r, buf[:min(rest, stageSize)])
		if err = known(ctx, err); err == nil {
			err = w.fill(buf[:n])
		}
		rest -= int64(n)
	}
	if err := errors.Join(err, r.Close()); err != nil {
		return err
	}
	if w.pending.crc != tail.CRC32C {
		return fmt.Errorf("tail %s: CRC-32C is %08x, the ledger says %08x: %w", tail.Key, w.pending.crc, tail.CRC32C, blobs.ErrCorrupt)
	}
	return nil
}

func (w *writer) Write(b []byte) (int, error) {
	total := 0
	for len(b) > 0 {
		if err := w.failure(); err != nil {
			return total, fmt.Errorf("write %s: %w", w.a.Key(0), err)
		}
		room := w.s.cut.end(w.start) - w.start - w.pending.size
		if room == 0 { // cut only now that more comes: a body that fits one part needs no multipart upload
			if err := w.launch(w.ctx); err != nil {
				return total, fmt.Errorf("write %s: %w", w.a.Key(0), w.fail(err))
			}
			continue
		}
		n := int(min(int64(len(b)), room))
		if err := w.fill(b[:n]); err != nil {
			return total, fmt.Errorf("write %s: %w", w.a.Key(0), w.fail(err))
		}
		total += n
		b = b[n:]
	}
	return total, nil
}

// fill adds all of b, which the part has room for.
func (w *writer) fill(b []byte) error {
	missing := func() int64 { return w.s.cut.end(w.start) - w.start - w.pending.size }
	for len(b) > 0 {
		n := w.pending.add(b)
		b = b[n:]
		if n == 0 {
			slab, err := w.s.pool.get(w.ctx, w.account, missing())
			if err != nil {
				return err
			}
			w.pending.grow(slab)
		}
	}
	w.s.pool.touch(w.account, missing())
	return nil
}

// launch sends the pending part on its way; it waits while partsAtOnce are.
func (w *writer) launch(ctx context.Context) error {
	number, err := w.numbers.Take()
	if err != nil {
		return err
	}
	if number > maxParts {
		return fmt.Errorf("part %d: at most %d: %w", number, maxParts, blobs.ErrNoRoom)
	}
	if w.id == "" {
		key := w.nextKey()
		id, err := w.s.create(ctx, key)
		if err != nil {
			return err
		}
		w.key, w.id = key, id
	}
	select {
	case w.slots <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	c := w.pending.take()
	w.s.pool.fly(w.account, len(c.slabs))
	w.start += c.size
	w.mu.Lock()
	index := len(w.parts)
	w.parts = append(w.parts, blobs.Part{Number: number, Size: c.size})
	w.mu.Unlock()
	w.flights.Go(func() {
		defer func() { <-w.slots }()
		w.flight(index, number, c)
	})
	return nil
}

// flight uploads one part and frees what it held.
func (w *writer) flight(index int, number int32, c content) {
	part, err := w.s.uploadPart(w.ctx, w.key, w.id, number, c)
	w.s.pool.landed(w.account, c.slabs)
	w.tidy(c.spilled)
	if err == nil && part.ETag == "" {
		err = fmt.Errorf("part %d: the answer has no ETag: %w", number, blobs.ErrUnavailable)
	}
	if err != nil {
		_ = w.fail(err) // the next call answers it
		return
	}
	w.mu.Lock()
	w.parts[index] = part
	w.mu.Unlock()
}

// spill frees the slabs of the pending part by writing them to an object.
func (w *writer) spill(ctx context.Context) error {
	slabs, err := w.pending.spill(func(c content) (blobs.Piece, error) {
		return w.s.putPiece(ctx, w.nextKey(), c)
	})
	w.s.pool.dropped(w.account, slabs)
	return err
}

// tidy removes spilled objects that are in a part now, or needless. Bounded, and what fails is an orphan.
func (w *writer) tidy(spilled []blobs.Piece) {
	if len(spilled) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(w.ctx), tidyTime)
	defer cancel()
	keys := make([]string, len(spilled))
	for n, p := range spilled {
		keys[n] = p.Key
	}
	_ = w.s.Delete(ctx, keys...) // see above
}

// nextKey answers a key of the attempt that was never used.
func (w *writer) nextKey() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.objects++
	return w.a.Key(w.objects - 1)
}

// fail keeps the first error and ends the flights. It answers that error.
func (w *writer) fail(err error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
		w.cancel(err)
	}
	return w.err
}

func (w *writer) failure() error {
	if w.ended {
		return errEnded
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// done answers the parts of this attempt that are durable without a gap.
func (w *writer) done() []blobs.Part {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := slices.IndexFunc(w.parts, func(p blobs.Part) bool { return p.ETag == "" })
	if n < 0 {
		n = len(w.parts)
	}
	return slices.Clone(w.parts[:n])
}

// progress answers From with further parts instead of its tail.
func (w *writer) progress(parts []blobs.Part) blobs.Progress {
	p := blobs.Progress{MultipartKey: w.key, MultipartID: w.id, Parts: slices.Concat(w.a.From.Parts, parts)}
	p.Size = partsSize(p.Parts)
	return p
}

func (w *writer) Save(context.Context) (blobs.Progress, error) {
	if err := w.failure(); err != nil {
		return blobs.Progress{}, fmt.Errorf("save %s: %w", w.a.Key(0), err)
	}
	parts := w.done()
	if len(parts) == 0 {
		return w.a.From, nil
	}
	w.saved = true
	w.numbers.Saved(parts[len(parts)-1].Number)
	p := w.progress(parts)
	p.Next = w.numbers.Beyond()
	return p, nil
}

func (w *writer) Close(ctx context.Context) (blobs.Progress, error) {
	if err := w.failure(); err != nil {
		return blobs.Progress{}, fmt.Errorf("close %s: %w", w.a.Key(0), err)
	}
	stop := context.AfterFunc(ctx, func() { _ = w.fail(context.Cause(ctx)) })
	defer stop()
	tail, err := w.rest()
	if err != nil {
		_ = w.fail(err)
	}
	w.flights.Wait()
	err = w.failure()
	w.end()
	if err != nil {
		return blobs.Progress{}, fmt.Errorf("close %s: %w", w.a.Key(0), err)
	}
	if len(w.parts) == 0 && tail == nil {
		return w.a.From, nil
	}
	p := w.progress(w.parts)
	p.Next = w.numbers.Next()
	if w.id == w.a.From.MultipartID { // one of its own has only its own numbers
		p.Next = max(p.Next, w.a.From.Next)
	}
	if tail != nil {
		p.Pieces = []blobs.Piece{*tail}
		p.Size += tail.Size
	}
	return p, nil
}

// rest makes what is pending durable: as a part, or as the piece that it answers.
func (w *writer) rest() (tail *blobs.Piece, err error) {
	size := w.pending.size
	if size == 0 || w.start+size == w.a.From.Size { // nothing came
		return nil, nil
	}
	if w.id != "" && w.s.cut.isPart(w.start, size) {
		return nil, w.launch(w.ctx)
	}
	c := w.pending.take()
	w.s.pool.fly(w.account, len(c.slabs))
	defer w.s.pool.landed(w.account, c.slabs)
	defer w.tidy(c.spilled)
	piece, err := w.s.putPiece(w.ctx, w.nextKey(), c)
	return &piece, err
}

// Abandon implements blobs.Writer.
func (w *writer) Abandon() {
	if w.ended {
		return
	}
	_ = w.fail(errEnded) // an earlier error is as good
	w.flights.Wait()
	w.end()
	if w.id != "" && w.id != w.a.From.MultipartID && !w.saved { // nobody else knows it
		ctx, cancel := context.WithTimeout(context.WithoutCancel(w.ctx), tidyTime)
		defer cancel()
		_ = w.s.AbortMultipart(ctx, w.key, w.id) // if not, the orphan sweep does
	}
}

// end gives back what the attempt holds.
func (w *writer) end() {
	w.ended = true
	w.cancel(errEnded)
	w.drop()
	w.s.pool.leave(w.account)
}

// drop gives back what is pending.
func (w *writer) drop() {
	c := w.pending.take()
	w.s.pool.dropped(w.account, c.slabs)
	w.tidy(c.spilled)
}
