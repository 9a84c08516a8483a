package blobs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
)

// MaxArchived bounds an object of an Archive, in bytes: it is written and read whole.
const MaxArchived = 16 << 20

// Archive keeps backups: named objects that are written once, whole, and read
// whole. Implementations are made by the Archive methods of s3, fs and mem; all pass
// blobstest. Safe for concurrent use; contexts bound every call.
//
// Names are those of Objects whose first element holds a dash: no epoch and no Objects have one there,
// so a backup beside the layers is never taken for one.
type Archive interface {
	// Put creates the object, of at most MaxArchived bytes, or answers ErrExists. When it answers nil the object is
	// durable and whole; nobody ever sees a part of it.
	Put(ctx context.Context, name string, body []byte) error
	// Get answers the whole object. One that is over MaxArchived is ErrCorrupt: no Put made it.
	Get(ctx context.Context, name string) ([]byte, error)
	// List yields objects under prefix, above after, in the order of names.
	List(ctx context.Context, prefix, after string) iter.Seq2[Object, error]
	// Delete removes objects; absent ones are not an error. It answers the joined errors of those that remain.
	Delete(ctx context.Context, names ...string) error
}

// ValidateArchiveName judges the name of an object of an Archive.
func ValidateArchiveName(name string) error {
	if err := ValidateObjectName(name); err != nil {
		return err
	}
	if first, _, _ := strings.Cut(name, "/"); !strings.Contains(first, "-") {
		return fmt.Errorf("object name %.200q: its first element must hold a dash, so that it is no epoch", name)
	}
	return nil
}

// ValidateArchived judges what is to be put into an Archive: the name, and a body of at most 16 MiB.
func ValidateArchived(name string, body []byte) error {
	if err := ValidateArchiveName(name); err != nil {
		return err
	}
	if len(body) > MaxArchived {
		return fmt.Errorf("object %s: at most %d bytes, has %d", name, MaxArchived, len(body))
	}
	return nil
}

// RetryArchive answers an Archive whose Get and Put survive a broken connection (B5).
//
//	Get   read only                                          repeated here, whole: the driver does not see a body break
//	Put   create-only, same bytes: what an earlier try       repeated here: on ErrExists the object is read, and
//	      left is told from another's by reading it          the same bytes count as written
//	List  read only                                          repeated by the driver
//	Delete of what is gone is no error                       repeated by the driver
//
// Only a Put that was repeated takes what it finds for its own.
func RetryArchive(archive Archive, w Watcher) Archive {
	return &retryArchive{Archive: archive, watch: w}
}

type retryArchive struct {
	Archive
	watch Watcher
}

func (r *retryArchive) Get(ctx context.Context, name string) (body []byte, err error) {
	err = r.again(ctx, "get", func(bool) error {
		body, err = r.Archive.Get(ctx, name)
		return err
	})
	return body, err
}

func (r *retryArchive) Put(ctx context.Context, name string, body []byte) error {
	return r.again(ctx, "put", func(repeated bool) error {
		err := r.Archive.Put(ctx, name, body)
		if !repeated || !errors.Is(err, ErrExists) {
			return err
		}
		found, read := r.Archive.Get(ctx, name)
		switch {
		case read != nil:
			return fmt.Errorf("put %s: read what an earlier try may have left: %w", name, read)
		case !bytes.Equal(found, body):
			return err
		}
		return nil
	})
}

// again calls fn until it answers anything but an interruption, at most streamTries times more.
func (r *retryArchive) again(ctx context.Context, action string, fn func(repeated bool) error) error {
	for tries := 0; ; tries++ {
		err := fn(tries > 0)
		if err == nil || !interrupted(err) || errors.Is(err, ErrRefused) || tries == streamTries || !rest(ctx, streamPause<<tries) {
			return err
		}
		r.watch.Repeated(action)
	}
}
