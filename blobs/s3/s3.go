// Package s3 keeps blobs in a bucket of an S3 server.
//
// It promises what blobs promises, as far as the server keeps what it
// acknowledged and is consistent (read after write, conditional writes). Its
// memory is bounded by Config.Memory, 32 KiB for each upload and what the HTTP
// client holds for each connection.
// It does not promise: conditional writes where the server lacks them (Objects
// then answer ErrUnsupported, or worse, a server may ignore the condition);
// ListMultiparts where the server lists none; more than one result when a
// store with SSE-KMS gives a repeated part another ETag, which fails that upload with ErrCorrupt.
//
// # How bytes go
//
//	Write ─► slabs of a shared pool ─► parts, up to 4 at once ─► multipart upload
//	            │ under pressure                    ▲ (numbers from the ledger's base)
//	            └─► spilled to an object ───────────┘ read again when its part is complete
//	Close ─► what is left: a part if it is long enough, else a plain object, the tail
//	Finish ─► the tail as last part, Complete with the ledger's list, HEAD
//
// S1: a part's bytes are complete in memory or in objects of its attempt before
// its upload begins, so a slow client never holds a call to the store open.
// S2: slabs are held only by bytes that have come. When there is none for an upload, the
// longest idle one is spilled, else the one farthest from a complete part (pool.go).
// S3: keys are written once. What a call left behind that failed or was not
// heard of is garbage under the key of its attempt, or a part that the ledger does not list.
package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/pontoon-registry/pontoon/blobs"
)

// Store implements blobs.Store and blobs.Objects.
type Store struct {
	config  Config
	prefix  string
	client  *s3.Client
	presign *s3.PresignClient
	web     *http.Client
	cut     cutter
	pool    *pool
	calls   chan struct{} // one in it for each call in flight
}

// Open makes a store; it reads certificates and credentials but asks the server
// nothing: Check does, so that a wrong endpoint, name, region or key is named at start.
func Open(ctx context.Context, c Config) (*Store, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	c = c.withDefaults()
	client, web, err := newClient(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("open bucket %s: %w", c.Bucket, err)
	}
	s := &Store{
		config: c, prefix: c.prefix(), client: client, presign: s3.NewPresignClient(client), web: web,
		cut: cutter{equal: c.EqualParts}, pool: newPool(int(c.Memory / slabSize)), calls: make(chan struct{}, c.MaxCalls),
	}
	return s, nil
}

// Check asks the bucket whether it is there and lets us in, and says what to
// mend. blobs.ErrUnavailable means that nobody answered: it may yet be well.
func (s *Store) Check(ctx context.Context) error {
	if err := s.checkBucket(ctx); err != nil {
		return fmt.Errorf("open bucket %s: %w", s.config.Bucket, err)
	}
	return nil
}

// Probe asks whether the server answers, by one small call that waits for no other and is not repeated: any
// answer of its own is a good one. It is what a blobs.Breaker asks.
func (s *Store) Probe(ctx context.Context) error {
	_, err := s.client.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: &s.config.Bucket}, once)
	if err = known(ctx, err); err != nil {
		return fmt.Errorf("probe bucket %s: %w", s.config.Bucket, err)
	}
	return nil
}

func (s *Store) checkBucket(ctx context.Context) error {
	var answer error
	err := s.call(ctx, 0, func(ctx context.Context) error {
		_, answer = s.client.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: &s.config.Bucket})
		return answer
	})
	where := s.config.endpoint()
	if where == "" {
		where = "Amazon S3, region " + s.config.Region
	}
	switch {
	case err == nil:
		return nil
	case hasStatus(answer, http.StatusNotFound):
		return fmt.Errorf("%s has no such bucket, create it first: %w", where, answer)
	case hasStatus(answer, http.StatusForbidden):
		return fmt.Errorf("%s refuses access, see accesskey, secretkey and the bucket's policy: %w", where, answer)
	case hasStatus(answer, http.StatusMovedPermanently):
		return fmt.Errorf("the bucket is not in region %s: %w", s.config.Region, answer)
	}
	return fmt.Errorf("ask %s: %w", where, err)
}

// Close lets go of idle connections. All streams and writers must have ended.
func (s *Store) Close() error {
	s.web.CloseIdleConnections()
	return nil
}

// Boundary implements blobs.Store.
func (s *Store) Boundary(offset int64) int64 { return s.cut.boundary(offset) }

// Reserve implements blobs.Store.
func (s *Store) Reserve(p blobs.Progress, length int64) int32 { return s.cut.reserve(p, length) }

// key answers a blob's key as the bucket has it, or that it is none.
func (s *Store) key(key string) (*string, error) {
	if _, _, err := blobs.ParseKey(key); err != nil {
		return nil, err
	}
	return aws.String(s.prefix + key), nil
}

// Stat implements blobs.Store.
func (s *Store) Stat(ctx context.Context, key string) (int64, error) {
	full, err := s.key(key)
	if err != nil {
		return 0, fmt.Errorf("stat: %w", err)
	}
	var size int64
	err = s.call(ctx, 0, func(ctx context.Context) error {
		head, err := s.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &s.config.Bucket, Key: full})
		if err == nil {
			size = aws.ToInt64(head.ContentLength)
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("stat %s: %w", key, err)
	}
	return size, nil
}

// Open implements blobs.Store. The stream has no deadline but ctx's; it ends when no byte comes for Config.ReadTimeout.
func (s *Store) Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	r, err := s.open(ctx, key, offset, length)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", key, err)
	}
	return r, nil
}

// openSteady opens the first size bytes for the driver itself, which reads below all that reads on (blobs.Retry).
func (s *Store) openSteady(ctx context.Context, key string, size int64) (io.ReadCloser, error) {
	return blobs.Retry(s, repeats(s.config.Repeated)).Open(ctx, key, 0, size)
}

// repeats counts streams that are read on.
type repeats func()

func (r repeats) Repeated(string) {
	if r != nil {
		r()
	}
}

func (repeats) Refused(string) {}
func (repeats) Opened(bool)    {}

func (s *Store) open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	full, err := s.key(key)
	if err != nil {
		return nil, err
	}
	if offset < 0 {
		return nil, fmt.Errorf("offset %d: must be 0 or more", offset)
	}
	if length == 0 {
		return s.openNothing(ctx, key, offset, 0) // there is no Range of no bytes
	}
	streaming, cancel := context.WithCancelCause(ctx)
	var out *s3.GetObjectOutput
	var answer error
	err = s.call(ctx, 0, func(ctx context.Context) error {
		stop := context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) }) // the deadline is for the answer only
		defer stop()
		out, answer = s.client.GetObject(streaming, &s3.GetObjectInput{
			Bucket: &s.config.Bucket, Key: full, Range: rangeOf(offset, length),
		})
		return answer
	})
	if err == nil {
		want := aws.ToInt64(out.ContentLength)
		if length > 0 {
			want = length
		}
		return newStream(out.Body, want, s.config.ReadTimeout, cancel), nil
	}
	cancel(nil)
	if hasStatus(answer, http.StatusNotFound) && !hasCode(answer, "NoSuchKey") {
		// S3 says NoSuchKey. A 404 without its words is another's, such as a proxy's: no blob may count as lost by it (B7).
		return nil, fmt.Errorf("%w: a 404 that is not S3's: %w", blobs.ErrUnavailable, answer)
	}
	if hasCode(answer, "InvalidRange") || hasStatus(answer, http.StatusRequestedRangeNotSatisfiable) {
		return s.openNothing(ctx, key, offset, max(length, 0))
	}
	return nil, err
}

// openNothing answers an empty stream at an offset that the object has, its end included.
func (s *Store) openNothing(ctx context.Context, key string, offset, want int64) (io.ReadCloser, error) {
	size, err := s.Stat(ctx, key)
	if err != nil {
		return nil, err
	}
	if offset > size {
		return nil, fmt.Errorf("offset %d is outside its %d bytes", offset, size)
	}
	return newStream(http.NoBody, want, s.config.ReadTimeout, func(error) {}), nil
}

func rangeOf(offset, length int64) *string {
	switch {
	case length >= 0:
		return aws.String(fmt.Sprintf("bytes=%d-%d", offset, offset+length-1))
	case offset > 0:
		return aws.String(fmt.Sprintf("bytes=%d-", offset))
	}
	return nil
}

// Presign implements blobs.Store; it asks nobody.
func (s *Store) Presign(ctx context.Context, key string, lifetime time.Duration) (string, error) {
	full, err := s.key(key)
	if err == nil && (lifetime < time.Second || lifetime > 7*24*time.Hour) {
		err = fmt.Errorf("lifetime %v: must be 1s to 7 days", lifetime)
	}
	if err != nil {
		return "", fmt.Errorf("presign: %w", err)
	}
	signed, err := s.presign.PresignGetObject(ctx, &s3.GetObjectInput{Bucket: &s.config.Bucket, Key: full}, s3.WithPresignExpires(lifetime))
	if err != nil {
		return "", fmt.Errorf("presign %s: %w", key, err)
	}
	return signed.URL, nil
}

// errSilent is the cause with which a stream ends that brings no bytes.
var errSilent = errors.New("no byte came in time")

// stream is the body of an answer; want counts down to its right end.
type stream struct {
	body    io.ReadCloser
	want    int64
	silence time.Duration
	cancel  context.CancelCauseFunc
	timer   *time.Timer
}

func newStream(body io.ReadCloser, want int64, silence time.Duration, cancel context.CancelCauseFunc) *stream {
	timer := time.AfterFunc(silence, func() { cancel(errSilent) })
	timer.Stop()
	return &stream{body: body, want: want, silence: silence, cancel: cancel, timer: timer}
}

// Read waits for the store at most as long as silence allows; how long the caller takes between two reads does not count.
func (r *stream) Read(p []byte) (int, error) {
	if r.want == 0 {
		return r.end(p)
	}
	r.timer.Reset(r.silence)
	n, err := r.body.Read(p[:min(int64(len(p)), r.want)])
	quick := r.timer.Stop()
	r.want -= int64(n)
	switch {
	case errors.Is(err, io.EOF) && r.want > 0:
		err = io.ErrUnexpectedEOF
	case errors.Is(err, io.EOF):
		err = nil // the next Read answers it, when nothing is left
	case err != nil && !quick:
		err = fmt.Errorf("%w: %w: %w", blobs.ErrUnavailable, errSilent, io.ErrUnexpectedEOF)
	case err != nil:
		err = streamError(err)
	}
	return n, err
}

// streamError maps what a body's Read answers. The SDK's error of a wrong
// checksum has no exported type, so its words must do; blobs/s3's tests hold it to them.
func streamError(err error) error {
	if strings.Contains(err.Error(), "checksum did not match") {
		return fmt.Errorf("%w: %w", blobs.ErrCorrupt, err)
	}
	return err
}

// end reads on to the end of the body, where the SDK compares checksums.
func (r *stream) end(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	r.timer.Reset(r.silence)
	defer r.timer.Stop()
	n, err := r.body.Read(p[:1])
	if n > 0 {
		return 0, fmt.Errorf("%w: more bytes than were asked for", blobs.ErrCorrupt)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		err = streamError(err)
	}
	return 0, err
}

func (r *stream) Close() error {
	r.timer.Stop()
	r.cancel(nil)
	return r.body.Close()
}
