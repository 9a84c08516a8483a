package oci

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/pontoon-registry/pontoon/blobs"
	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// settle bounds what is done for a client that has gone: saving what arrived.
const settle = 10 * time.Second

// attempt is one request that writes an upload (B6):
//
//	first byte ──► begin (take if offset > 0, Writer) ──► write … save … write ──► finish or abandon
//
// Nothing is proposed or opened before the first byte. Used by one goroutine.
type attempt struct {
	*call
	id       string
	name     blobs.Name
	revision uint64
	// saved is what the ledger has.
	saved blobs.Progress
	// offset is the end of what was written.
	offset int64
	// end is where the body will end, -1 when unknown.
	end int64
	// sum hashes all bytes from 0; nil when that is not possible, and at the end they are read again.
	sum *sum
	// marks are hash states at boundaries above saved.Size, ascending; next is where the next is due.
	marks []mark
	next  int64
	// out is nil before the first byte and after the end.
	out blobs.Writer
	// saves: the ledger hears of progress on the way, not only at the end.
	saves   bool
	savedAt time.Time
	savedTo int64
}

// mark is the hash state at an offset.
type mark struct {
	offset int64
	state  []byte
}

// newAttempt prepares to write the upload at its offset. length is how many bytes will come, -1 when unknown.
func (c *call) newAttempt(u *openUpload, length int64) *attempt {
	a := &attempt{
		call: c, id: u.id, revision: u.row.GetRevision(), saved: progressOf(u.row), end: -1,
		name:   blobs.Name{Epoch: u.epoch, Upload: u.id, Attempt: randomName()},
		offset: u.row.GetOffset(),
	}
	if length >= 0 {
		a.end = a.offset + length
	}
	algorithm := byte(u.row.GetAlgorithm())
	if a.offset == 0 {
		a.sum = newSum(algorithm)
	} else {
		a.sum = resumeSum(algorithm, u.row.GetHashState())
	}
	return a
}

// randomName answers 32 lowercase hexadecimal digits, for uploads and attempts.
func randomName() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // it never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}

// begin opens the writer. ctx must outlive the request: it ends with the attempt.
func (a *attempt) begin(ctx context.Context) error {
	base := int32(0)
	if a.offset > 0 {
		res, err := a.propose(ctx, &metav1.Command{Kind: &metav1.Command_TakeUpload{TakeUpload: &metav1.TakeUpload{
			Id: a.id, Repository: a.route.name, Revision: a.revision, Attempt: a.name.Attempt,
			Reserve: a.Store.Reserve(a.saved, a.remaining(a.offset)),
		}}})
		if err != nil {
			return err
		}
		a.revision, base = res.GetUpload().GetRevision(), res.GetUpload().GetPartBase()
	}
	w, err := a.Store.Writer(ctx, blobs.Attempt{Name: a.name, From: a.saved, PartBase: base, Length: a.remaining(a.offset)})
	if err != nil {
		return lostUpload(a.id, fmt.Errorf("open writer of upload %s: %w", a.id, err))
	}
	a.out, a.next = w, a.Store.Boundary(a.offset)
	a.savedAt, a.savedTo = time.Now(), a.offset
	return nil
}

// remaining answers how many bytes come after offset, -1 when unknown.
func (a *attempt) remaining(offset int64) int64 {
	if a.end < 0 {
		return -1
	}
	return a.end - offset
}

// receive writes the body to the store until it ends. The error of the body itself comes as *broken.
func (a *attempt) receive(ctx context.Context, in io.Reader) error {
	buffer := a.buffers.Get().(*[]byte)
	defer a.buffers.Put(buffer)
	for {
		n, err := in.Read(*buffer)
		if n > 0 {
			if werr := a.write(ctx, (*buffer)[:n]); werr != nil {
				return werr
			}
			a.Metrics.Received(int64(n))
		}
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return &broken{err}
		}
		if a.out != nil && time.Since(a.savedAt) >= a.SaveInterval {
			if err := a.save(ctx); err != nil {
				return err
			}
		}
	}
}

// atBoundary keeps the hash state where a save may end, and saves every
// SaveBytes, or sooner while parts are small: a store takes only so many unsaved ones.
func (a *attempt) atBoundary(ctx context.Context) error {
	a.marks = append(a.marks, mark{a.offset, a.sum.state()})
	a.next = a.Store.Boundary(a.offset)
	if a.offset-a.savedTo < a.SaveBytes && len(a.marks) < blobs.MaxUnsaved/4 {
		return nil
	}
	return a.save(ctx)
}

// broken is a body that did not end well: stalled, interrupted or cut.
type broken struct{ err error }

func (b *broken) Error() string { return "read body: " + b.err.Error() }
func (b *broken) Unwrap() error { return b.err }

// write passes bytes on and hashes them, keeping the hash state wherever a save may end.
func (a *attempt) write(ctx context.Context, p []byte) error {
	if a.out == nil {
		if err := a.begin(ctx); err != nil {
			return err
		}
	}
	for len(p) > 0 {
		n := int64(len(p))
		if a.next > a.offset {
			n = min(n, a.next-a.offset)
		}
		if _, err := a.out.Write(p[:n]); err != nil {
			if cause := context.Cause(ctx); cause != nil {
				err = cause
			}
			return a.lost(fmt.Errorf("write upload %s: %w", a.id, err))
		}
		if a.sum != nil {
			_, _ = a.sum.Write(p[:n]) // a hash never fails
		}
		a.offset += n
		p = p[n:]
		if a.offset >= a.next {
			if err := a.atBoundary(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// save tells the ledger what is durable now, if that is more than before and saves are wanted.
func (a *attempt) save(ctx context.Context) error {
	if !a.saves {
		a.marks = nil // they serve saves only
		return nil
	}
	a.savedAt, a.savedTo = time.Now(), a.offset
	p, err := a.out.Save(ctx)
	if err != nil {
		return fmt.Errorf("save upload %s: %w", a.id, err)
	}
	if p.Size <= a.saved.Size {
		return nil
	}
	return a.record(ctx, p, a.Store.Reserve(p, a.remaining(p.Size)))
}

// closeOut makes all bytes durable and ends the writer; without one it answers what the ledger has.
func (a *attempt) closeOut(ctx context.Context) (blobs.Progress, error) {
	if a.out == nil {
		return a.saved, nil
	}
	began := time.Now()
	p, err := a.out.Close(ctx)
	a.Timing(a.r.Context(), "store", time.Since(began))
	if err != nil {
		a.abandon()
		return p, a.lost(fmt.Errorf("close upload %s: %w", a.id, err))
	}
	a.out = nil
	if p.Size != a.offset {
		return p, fmt.Errorf("close upload %s: the store has %d bytes of %d", a.id, p.Size, a.offset)
	}
	return p, nil
}

// lost says so if what is missing or wrong in the store is what the ledger has of the
// upload, such as a multipart upload that a PUT ended whose commit did not arrive: no repetition mends that.
func (a *attempt) lost(err error) error {
	if a.saved.Size == 0 {
		return err
	}
	return lostUpload(a.id, err)
}

// share saves p before it is finished, if other attempts may finish the same multipart
// upload. A Finish whose answer was lost is known by its length alone (R-A5): so only what the ledger
// accepted may be finished, of which there is one of each length. Without this, two requests that
// end one upload with other bytes of one length would commit the digest of the one with the bytes of the other.
func (a *attempt) share(ctx context.Context, p blobs.Progress) error {
	if a.saved.MultipartID == "" || p.Size == a.saved.Size {
		return nil
	}
	return a.record(ctx, p, 0)
}

// holds says whether what is saved is d already.
func (a *attempt) holds(d meta.Digest) bool {
	if a.sum == nil || a.offset == 0 {
		return false
	}
	computed, err := a.sum.digest()
	return err == nil && computed == d
}

// finish closes the writer and saves all of it.
func (a *attempt) finish(ctx context.Context) error {
	if a.out == nil {
		return nil
	}
	p, err := a.closeOut(ctx)
	if err != nil {
		return err
	}
	return a.record(ctx, p, 0)
}

// abandon ends the writer; what was not saved is garbage.
func (a *attempt) abandon() {
	if a.out != nil {
		a.out.Abandon()
		a.out = nil
	}
}

// record proposes the save of p.
func (a *attempt) record(ctx context.Context, p blobs.Progress, reserve int32) error {
	res, err := a.propose(ctx, &metav1.Command{Kind: &metav1.Command_SaveUpload{SaveUpload: &metav1.SaveUpload{
		Id: a.id, Repository: a.route.name, Revision: a.revision, Attempt: a.name.Attempt,
		Offset: p.Size, HashState: a.stateAt(p.Size),
		MultipartKey: p.MultipartKey, MultipartId: p.MultipartID,
		Parts: newParts(a.saved.Parts, p.Parts), Pieces: pieces(p.Pieces), Reserve: reserve,
	}}})
	if err != nil {
		return err
	}
	a.revision, a.saved = res.GetUpload().GetRevision(), p
	for len(a.marks) > 0 && a.marks[0].offset <= p.Size {
		a.marks = a.marks[1:]
	}
	return nil
}

// stateAt answers the hash state at offset; none means that the bytes are read again at the end.
func (a *attempt) stateAt(offset int64) []byte {
	if offset == a.offset {
		return a.sum.state()
	}
	for _, m := range a.marks {
		if m.offset == offset {
			return m.state
		}
	}
	return nil
}

// isBroken answers the body's own error in err's chain.
func isBroken(err error) (*broken, bool) {
	var b *broken
	return b, errors.As(err, &b)
}
