package fs

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/pontoon-registry/pontoon/blobs"
)

// Finish implements blobs.Store. One sealed file of the right length is the
// layer as it is (F2). Otherwise the pieces are joined once, verified while
// they are copied, into a fresh file of attempt.
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
	if len(p.Parts) > 0 {
		return blobs.Finished{}, errors.New("a directory store has no parts")
	}
	if len(p.Pieces) == 1 {
		whole, err := s.isWhole(p.Pieces[0])
		if err != nil {
			return blobs.Finished{}, err
		}
		if whole {
			return blobs.Finished{Key: p.Pieces[0].Key, Size: p.Size}, nil
		}
	}
	key, err := s.join(ctx, attempt, p)
	if err != nil {
		return blobs.Finished{}, err
	}
	return blobs.Finished{Key: key, Size: p.Size}, nil
}

// isWhole answers whether the piece's file is sealed and nothing but the piece.
func (s *Store) isWhole(p blobs.Piece) (bool, error) {
	info, err := s.root.Lstat(p.Key)
	if err != nil {
		return false, fmt.Errorf("piece %s: %w", p.Key, known(err))
	}
	if info.Size() < p.Size {
		return false, fmt.Errorf("piece %s has %d bytes, the ledger says %d: %w", p.Key, info.Size(), p.Size, blobs.ErrCorrupt)
	}
	return info.Mode().Perm()&0o222 == 0 && info.Size() == p.Size, nil
}

// maxJoins bounds the joins of one attempt: each begins a file of its own.
const maxJoins = 100

// join writes all pieces to a fresh file of the attempt, seals it and makes it
// durable. A sealed one of the right length is an earlier join of the same
// attempt whose answer was lost (R-A5). The writer's own file is object 0, so joins begin at 1.
func (s *Store) join(ctx context.Context, attempt blobs.Name, p blobs.Progress) (string, error) {
	for n := 1; n <= maxJoins; n++ {
		key := attempt.Key(n)
		f, err := s.create(key)
		if errors.Is(err, blobs.ErrExists) {
			if done, err := s.isWhole(blobs.Piece{Key: key, Size: p.Size}); err == nil && done {
				return key, nil
			}
			continue
		}
		if err != nil {
			return "", err
		}
		err = errors.Join(s.fill(ctx, f, p), f.Close())
		if err == nil {
			err = s.syncFolders(key)
		}
		if err != nil {
			_ = s.root.Remove(key) // what remains is an orphan, which the sweep finds; the error says why
			return "", known(err)
		}
		return key, nil
	}
	return "", fmt.Errorf("%d joins were begun and not ended: %w", maxJoins, blobs.ErrUnavailable)
}

func (s *Store) fill(ctx context.Context, f *os.File, p blobs.Progress) error {
	for _, piece := range p.Pieces {
		if err := s.copyPiece(ctx, f, piece); err != nil {
			return err
		}
	}
	info, err := f.Stat()
	if err == nil && info.Size() != p.Size {
		err = fmt.Errorf("joined %d bytes, the ledger says %d: %w", info.Size(), p.Size, blobs.ErrCorrupt)
	}
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Chmod(s.perm&0o444), f.Sync()) // the seal after the bytes: a crash leaves no sealed half
}
