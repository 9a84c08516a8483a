package s3

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/pontoon-registry/pontoon/blobs"
)

// Finish implements blobs.Store. It copies nothing: parts become the object,
// or the one piece is it already.
func (s *Store) Finish(ctx context.Context, attempt blobs.Name, p blobs.Progress) (blobs.Finished, error) {
	f, err := s.finish(ctx, attempt, p)
	if err != nil {
		return blobs.Finished{}, fmt.Errorf("finish %s: %w", attempt.Key(0), err)
	}
	return f, nil
}

func (s *Store) finish(ctx context.Context, attempt blobs.Name, p blobs.Progress) (blobs.Finished, error) {
	if err := errors.Join(attempt.Validate(), p.Validate()); err != nil {
		return blobs.Finished{}, err
	}
	switch {
	case len(p.Parts) == 0 && len(p.Pieces) == 0:
		// A multipart upload cannot be completed without parts [R-A9]. The same key gets the same bytes, so it may be repeated.
		if _, err := s.putPiece(ctx, attempt.Key(0), content{}); err != nil {
			return blobs.Finished{}, err
		}
		return blobs.Finished{Key: attempt.Key(0)}, nil
	case len(p.Parts) == 0 && len(p.Pieces) == 1:
		return blobs.Finished{Key: p.Pieces[0].Key, Size: p.Size}, s.verifyLength(ctx, p.Pieces[0].Key, p.Size)
	case len(p.Pieces) > 1:
		return blobs.Finished{}, fmt.Errorf("%d pieces, at most the tail is one", len(p.Pieces))
	}
	err := s.join(ctx, p)
	if len(p.Pieces) == 1 && errors.Is(err, blobs.ErrCorrupt) && hasCode(err, "InvalidPart") {
		// Another Finish at this revision sent the same tail under the same number, and with SSE-KMS it got another ETag.
		err = s.join(ctx, p)
	}
	if err != nil {
		return blobs.Finished{}, err
	}
	return blobs.Finished{Key: p.MultipartKey, Size: p.Size, Completed: true}, s.verifyLength(ctx, p.MultipartKey, p.Size)
}

// join completes the multipart upload with the ledger's list and nothing else.
// Of one that is gone it answers nil if its key is there: an earlier Finish was not heard of, and the length decides (R-A5).
func (s *Store) join(ctx context.Context, p blobs.Progress) error {
	parts := p.Parts
	if len(p.Pieces) == 1 {
		last, err := s.tailPart(ctx, p)
		if hasCode(err, "NoSuchUpload") {
			return s.verifyLength(ctx, p.MultipartKey, p.Size)
		}
		if err != nil {
			return err
		}
		parts = append(slices.Clone(parts), last)
	}
	err := s.complete(ctx, p.MultipartKey, p.MultipartID, parts)
	if hasCode(err, "NoSuchUpload") {
		return s.verifyLength(ctx, p.MultipartKey, p.Size)
	}
	if err != nil {
		return fmt.Errorf("complete %s: %w", p.MultipartKey, err)
	}
	return nil
}

// tailPart uploads the tail, read from its object and verified on the way (B6), as the last part.
func (s *Store) tailPart(ctx context.Context, p blobs.Progress) (blobs.Part, error) {
	last := p.Parts[len(p.Parts)-1].Number
	switch {
	case p.Next <= last:
		return blobs.Part{}, fmt.Errorf("next part %d: must be above %d", p.Next, last)
	case p.Next > maxParts:
		return blobs.Part{}, fmt.Errorf("part %d: at most %d: %w", p.Next, maxParts, blobs.ErrNoRoom)
	case s.cut.equal && p.Next != last+1:
		return blobs.Part{}, fmt.Errorf("part %d would follow %d: %w", p.Next, last, blobs.ErrTakeover)
	}
	tail := p.Pieces[0]
	return s.uploadPart(ctx, p.MultipartKey, p.MultipartID, p.Next, content{spilled: p.Pieces, size: tail.Size, crc: tail.CRC32C})
}

// verifyLength asks the store for the length of what is to be committed (B6).
func (s *Store) verifyLength(ctx context.Context, key string, want int64) error {
	size, err := s.Stat(ctx, key)
	if err != nil {
		return err
	}
	if size != want {
		return fmt.Errorf("%s has %d bytes, the ledger says %d: %w", key, size, want, blobs.ErrCorrupt)
	}
	return nil
}
