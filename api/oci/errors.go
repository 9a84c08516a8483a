package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"

	"github.com/pontoon-registry/pontoon/blobs"
	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// This file is the only place where an error becomes a status and a code of
// the OCI specification (section "Error Codes").

// statusClientClosed is what proxies write into their logs for a client that has gone; nobody receives it.
const statusClientClosed = 499

// answer is a status with a code.
type answer struct {
	status int
	code   string
}

// fault is an error whose answer is not that of its kind and noun.
type fault struct {
	answer
	err error
}

func (f *fault) Error() string { return f.err.Error() }
func (f *fault) Unwrap() error { return f.err }

// errTakenOver ends an attempt because a later request writes the same upload.
var errTakenOver = errors.New("a later request writes this upload")

// errStalled ends a body that brings no byte.
var errStalled = errors.New("no byte within the idle timeout")

func invalid(noun metav1.Noun, format string, args ...any) *meta.Error {
	return meta.Refuse(metav1.Kind_KIND_INVALID, noun, format, args...)
}

func unknown(noun metav1.Noun, format string, args ...any) *meta.Error {
	return meta.Refuse(metav1.Kind_KIND_UNKNOWN, noun, format, args...)
}

// missingContent marks a refusal of a manifest that names what is not there:
// the specification has a code of its own for it.
func missingContent(err error) error {
	var e *meta.Error
	if !errors.As(err, &e) || e.Kind != metav1.Kind_KIND_UNKNOWN {
		return err
	}
	if e.Noun != metav1.Noun_NOUN_BLOB && e.Noun != metav1.Noun_NOUN_MANIFEST {
		return err
	}
	return &fault{answer{http.StatusNotFound, "MANIFEST_BLOB_UNKNOWN"}, err}
}

// unsupportedManifest marks a manifest of a kind that is not taken: 405 would speak of the method.
func unsupportedManifest(err error) error {
	if meta.KindOf(err) != metav1.Kind_KIND_UNSUPPORTED {
		return err
	}
	return &fault{answer{http.StatusBadRequest, "MANIFEST_INVALID"}, err}
}

// digestMismatch is content that is not what its digest says.
func digestMismatch(claimed, computed meta.Digest) error {
	return invalid(metav1.Noun_NOUN_DIGEST, "digest: expected %s, got content of %s", claimed, computed)
}

// outOfOrder is a chunk that does not continue the upload: the specification's 416.
func outOfOrder(format string, args ...any) error {
	return &fault{answer{http.StatusRequestedRangeNotSatisfiable, "BLOB_UPLOAD_INVALID"},
		invalid(metav1.Noun_NOUN_RANGE, format, args...)}
}

// lostUpload is an upload whose saved bytes the store no longer has, or cannot
// continue: the client starts over (B6).
func lostUpload(id string, err error) error {
	if errors.Is(err, blobs.ErrCorrupt) || errors.Is(err, blobs.ErrNotFound) || errors.Is(err, blobs.ErrTakeover) {
		return unknown(metav1.Noun_NOUN_UPLOAD, "upload %s: it cannot be continued, start over", id)
	}
	return err
}

// tooManyTags is the specification's 414.
func tooManyTags(n int) error {
	return &fault{answer{http.StatusRequestURITooLong, "TAG_INVALID"}, meta.Refuse(metav1.Kind_KIND_TOO_LARGE,
		metav1.Noun_NOUN_TAG, "tag: got %d tags, expected at most %d", n, meta.MaxTags)}
}

// notInBlob is a Range that a blob does not have.
func notInBlob(header string, size int64) error {
	return &fault{answer{http.StatusRequestedRangeNotSatisfiable, "SIZE_INVALID"}, invalid(metav1.Noun_NOUN_RANGE,
		"Range: got %q, expected bytes=<first>-<last> within %d bytes", clip(header), size)}
}

// takenOver ends the earlier of two requests that write one upload.
func takenOver() error {
	return &fault{answer{http.StatusRequestedRangeNotSatisfiable, "BLOB_UPLOAD_INVALID"}, errTakenOver}
}

// notMissing turns "its bytes are lost" into a failure, where 404 would be
// understood as "there is no such API".
func notMissing(err error) error {
	if meta.KindOf(err) != metav1.Kind_KIND_UNKNOWN {
		return err
	}
	return &fault{answer{http.StatusServiceUnavailable, "UNAVAILABLE"}, err}
}

// stalled is a body that stopped; what arrived was saved.
func stalled(err error) error {
	return &fault{answer{http.StatusRequestTimeout, "BLOB_UPLOAD_INVALID"}, err}
}

// clientGone is a connection that broke while it was written or read.
func clientGone(err error) error {
	return &fault{answer{statusClientClosed, "UNKNOWN"}, fmt.Errorf("client has gone: %w", err)}
}

// bodyError tells a body that is no HTTP, whose client is there to hear of it, from one whose client has gone.
func (c *call) bodyError(err error) error {
	var network net.Error
	if c.r.Context().Err() != nil || errors.As(err, &network) || errors.Is(err, io.ErrUnexpectedEOF) {
		return clientGone(err)
	}
	return &fault{answer{http.StatusBadRequest, "SIZE_INVALID"}, invalid(metav1.Noun_NOUN_SIZE, "body: it cannot be read to its end: %v", err)}
}

// answerOf is the table.
func answerOf(err error) answer {
	var f *fault
	if errors.As(err, &f) {
		return f.answer
	}
	var e *meta.Error
	if errors.As(err, &e) {
		return answerOfRefusal(e)
	}
	switch {
	case errors.Is(err, context.Canceled):
		return answer{statusClientClosed, "UNKNOWN"}
	case errors.Is(err, blobs.ErrUnavailable), errors.Is(err, context.DeadlineExceeded):
		return answer{http.StatusServiceUnavailable, "UNAVAILABLE"}
	case errors.Is(err, blobs.ErrNoRoom):
		return answer{http.StatusInsufficientStorage, "UNAVAILABLE"}
	}
	return answer{http.StatusInternalServerError, "UNKNOWN"}
}

func answerOfRefusal(e *meta.Error) answer {
	switch e.Kind {
	case metav1.Kind_KIND_INVALID:
		return answer{http.StatusBadRequest, invalidCode(e.Noun)}
	case metav1.Kind_KIND_UNKNOWN:
		return answer{http.StatusNotFound, unknownCode(e.Noun)}
	case metav1.Kind_KIND_UNAUTHENTICATED:
		return answer{http.StatusUnauthorized, "UNAUTHORIZED"}
	case metav1.Kind_KIND_DENIED, metav1.Kind_KIND_IMMUTABLE, metav1.Kind_KIND_QUOTA, metav1.Kind_KIND_FROZEN:
		return answer{http.StatusForbidden, "DENIED"}
	case metav1.Kind_KIND_UNSUPPORTED:
		return answer{http.StatusMethodNotAllowed, "UNSUPPORTED"}
	case metav1.Kind_KIND_PRECONDITION:
		return answer{http.StatusPreconditionFailed, "DENIED"}
	case metav1.Kind_KIND_CONFLICT:
		if e.Noun == metav1.Noun_NOUN_UPLOAD {
			return answer{http.StatusRequestedRangeNotSatisfiable, "BLOB_UPLOAD_INVALID"}
		}
		return answer{http.StatusConflict, "DENIED"}
	case metav1.Kind_KIND_TOO_LARGE:
		return answer{http.StatusRequestEntityTooLarge, "SIZE_INVALID"}
	case metav1.Kind_KIND_UNAVAILABLE, metav1.Kind_KIND_OUTCOME_UNKNOWN:
		return answer{http.StatusServiceUnavailable, "UNAVAILABLE"}
	}
	return answer{http.StatusInternalServerError, "UNKNOWN"}
}

func invalidCode(noun metav1.Noun) string {
	switch noun {
	case metav1.Noun_NOUN_DIGEST:
		return "DIGEST_INVALID"
	case metav1.Noun_NOUN_NAME, metav1.Noun_NOUN_REPOSITORY:
		return "NAME_INVALID"
	case metav1.Noun_NOUN_TAG:
		return "TAG_INVALID"
	case metav1.Noun_NOUN_MANIFEST:
		return "MANIFEST_INVALID"
	case metav1.Noun_NOUN_UPLOAD, metav1.Noun_NOUN_BLOB, metav1.Noun_NOUN_RANGE:
		return "BLOB_UPLOAD_INVALID"
	case metav1.Noun_NOUN_SIZE:
		return "SIZE_INVALID"
	}
	return "UNSUPPORTED"
}

func unknownCode(noun metav1.Noun) string {
	switch noun {
	case metav1.Noun_NOUN_REPOSITORY, metav1.Noun_NOUN_NAME:
		return "NAME_UNKNOWN"
	case metav1.Noun_NOUN_MANIFEST, metav1.Noun_NOUN_TAG:
		return "MANIFEST_UNKNOWN"
	case metav1.Noun_NOUN_BLOB, metav1.Noun_NOUN_DIGEST:
		return "BLOB_UNKNOWN"
	case metav1.Noun_NOUN_UPLOAD:
		return "BLOB_UPLOAD_UNKNOWN"
	}
	return "UNSUPPORTED"
}

// clip keeps what a caller sent short enough to be echoed.
func clip(s string) string {
	const bound = 128
	if len(s) > bound {
		return s[:bound] + "..."
	}
	return s
}
