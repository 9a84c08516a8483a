package blobs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"syscall"
	"time"
)

const (
	// streamTries is how often in a row a stream that broke is opened again; a byte that comes begins the count anew.
	streamTries = 3
	// streamPause is the longest wait before the first of them; it doubles, and half of it is chance.
	streamPause = 200 * time.Millisecond
)

// Retry answers a Store whose streams survive a broken connection: the rest is
// opened again and read on (B5). Keys are written once (B6), so the rest is of the same bytes.
//
// It repeats nothing else, because whoever repeats must know what is safe, and for the rest the driver does:
//
//	Open, Stat, List*       read only                                          repeated by the driver
//	Writer's objects        written under a key of the attempt, same bytes     repeated by the driver
//	Writer's parts          same number, same bytes                            repeated by the driver
//	create multipart        leaves one that nobody knows, the sweep ends it    repeated by the driver
//	Finish                  a second one answers as the first (R-A5)           repeated by the driver
//	Delete, AbortMultipart  of what is gone it is no error                     repeated by the driver
//	Objects.PutIf*          the first may have had the effect                  never
//
// s3 repeats with exponential backoff, jitter and a budget for all calls
// together, so a store that asks to slow down is not asked more. Repeating
// those calls here once more would multiply the two.
func Retry(store Store, w Watcher) Store { return &retry{Store: store, watch: w} }

type retry struct {
	Store
	watch Watcher
}

func (r *retry) Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	in, err := r.Store.Open(ctx, key, offset, length)
	if err != nil || length == 0 {
		return in, err
	}
	return &steady{r: r, ctx: ctx, key: key, at: offset, left: length, in: in}, nil
}

// steady is a stream over as many connections as it takes.
type steady struct {
	r   *retry
	ctx context.Context // of the stream, as Open's is
	key string
	// at is the offset of the next byte, left how many come, -1 when that is to the end.
	at, left int64
	in       io.ReadCloser
	tries    int
}

// Read implements io.Reader.
func (s *steady) Read(p []byte) (int, error) {
	for {
		n, err := s.in.Read(p)
		s.at += int64(n)
		if s.left > 0 {
			s.left -= int64(n)
		}
		if n > 0 {
			s.tries = 0
		}
		switch {
		case err == nil || !interrupted(err) || s.ctx.Err() != nil:
			return n, err
		case s.left == 0: // it broke after the last byte that was asked for
			return n, io.EOF
		}
		if again := s.again(err); again != nil {
			return n, again
		}
		if n > 0 {
			return n, nil
		}
	}
}

// again opens the rest; an error ends the stream.
func (s *steady) again(broke error) error {
	for {
		if s.tries++; s.tries > streamTries {
			return broke
		}
		if !rest(s.ctx, streamPause<<(s.tries-1)) {
			return broke
		}
		s.r.watch.Repeated("read")
		in, err := s.r.Store.Open(s.ctx, s.key, s.at, s.left)
		if err == nil {
			_ = s.in.Close() // only read; what was wrong with it is known
			s.in = in
			return nil
		}
		if !interrupted(err) || errors.Is(err, ErrRefused) {
			return fmt.Errorf("%w; opening the rest: %w", broke, err)
		}
	}
}

func (s *steady) Close() error { return s.in.Close() }

// interrupted says whether a stream ended by its connection, not by what is stored.
func interrupted(err error) bool {
	var network net.Error
	return !errors.Is(err, ErrCorrupt) && (errors.Is(err, ErrUnavailable) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.As(err, &network) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE))
}

// rest waits for up to d, at least half of it; false when ctx ends before.
func rest(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d/2 + rand.N(d/2+1))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
