package s3

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"net/http"
	"time"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"

	"github.com/pontoon-registry/pontoon/blobs"
)

// bytesPerSecond is the slowest store that is waited for, in bytes.
const bytesPerSecond = 256 << 10

// errSlow is the cause with which a call ends that ran into our own deadline.
var errSlow = errors.New("the store did not answer in time")

// call makes one call to the store: within the limit of calls in flight, under
// a deadline that allows for moving size bytes, with its error mapped.
func (s *Store) call(ctx context.Context, size int64, fn func(context.Context) error) error {
	limit := s.config.CallTimeout + time.Duration(size/bytesPerSecond)*time.Second
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errSlow)
	defer cancel()
	select {
	case s.calls <- struct{}{}:
		defer func() { <-s.calls }()
	case <-ctx.Done():
		return known(ctx, fmt.Errorf("wait for one of %d calls to end", cap(s.calls)))
	}
	if err := fn(ctx); err != nil {
		return known(ctx, err)
	}
	return nil
}

// known maps what the SDK answers to the errors of blobs, in this one place.
// What no repetition and no other key can mend (denied, wrong signature) stays as it is.
func known(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(context.Cause(ctx), errSlow):
		// Not wrapped: it says that our context was canceled, which would pass for the caller's doing.
		return fmt.Errorf("%w: %w: %v", blobs.ErrUnavailable, errSlow, err) //nolint:errorlint // see above
	case ctx.Err() != nil:
		return fmt.Errorf("%w: %w", context.Cause(ctx), err)
	}
	for _, mapped := range []error{
		blobs.ErrNotFound, blobs.ErrCorrupt, blobs.ErrNoRoom, blobs.ErrUnavailable, blobs.ErrExists, blobs.ErrChanged, blobs.ErrUnsupported,
	} {
		if errors.Is(err, mapped) {
			return err
		}
	}
	code, status := codeOf(err)
	if kind := kindOf(code, status); kind != nil {
		return fmt.Errorf("%w: %w", kind, err)
	}
	if code == "" && (status == 0 || status < http.StatusMultipleChoices && !strange(err)) {
		return fmt.Errorf("%w: %w", blobs.ErrUnavailable, err) // never reached the server, or no answer, or half of one
	}
	return err
}

// strange says that nobody understands an answer, which is whole as far as it was read: it did not break off.
func strange(err error) bool {
	var syntax *xml.SyntaxError
	return errors.As(err, &syntax) && syntax.Msg != "unexpected EOF"
}

// codeOf answers S3's error code and the HTTP status, as far as err has them.
func codeOf(err error) (code string, status int) {
	var api smithy.APIError
	if errors.As(err, &api) {
		code = api.ErrorCode()
	}
	var response *awshttp.ResponseError
	if errors.As(err, &response) {
		status = response.HTTPStatusCode()
	}
	return code, status
}

// kindOf answers nil for what is none of blobs' errors. Codes: "Error responses" of the S3 API reference.
func kindOf(code string, status int) error {
	switch code {
	case "NoSuchBucket":
		return blobs.ErrUnavailable // of the key nothing is known: it must not count as lost
	case "NoSuchKey", "NotFound", "NoSuchUpload":
		return blobs.ErrNotFound
	case "InvalidPart", "InvalidPartOrder", "EntityTooSmall", "BadDigest", "XAmzContentChecksumMismatch":
		return blobs.ErrCorrupt
	case "EntityTooLarge", "QuotaExceeded", "XMinioStorageFull", "InsufficientStorage":
		return blobs.ErrNoRoom
	case "SlowDown", "RequestTimeout", "RequestTimeTooSkewed", "ServiceUnavailable", "InternalError", "Throttling",
		"ThrottlingException", "ConditionalRequestConflict", "OperationAborted":
		return blobs.ErrUnavailable
	case "NotImplemented":
		return blobs.ErrUnsupported
	}
	switch {
	case status == http.StatusNotFound:
		return blobs.ErrNotFound
	case status == http.StatusInsufficientStorage:
		return blobs.ErrNoRoom
	case status == http.StatusNotImplemented:
		return blobs.ErrUnsupported
	case status == http.StatusTooManyRequests || status == http.StatusRequestTimeout || status >= 500:
		return blobs.ErrUnavailable
	}
	return nil
}

// hasCode answers whether err carries the S3 error code.
func hasCode(err error, want string) bool {
	code, _ := codeOf(err)
	return code == want
}

// hasStatus answers whether err is an answer with the HTTP status.
func hasStatus(err error, want int) bool {
	_, status := codeOf(err)
	return status == want
}
