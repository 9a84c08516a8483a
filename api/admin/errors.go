package admin

import (
	"context"
	"errors"

	"connectrpc.com/connect"

	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// codeOf is the one place where a refusal's kind becomes a connect code. The
// refusal itself travels as a detail, so that its names reach the caller.
func codeOf(err error) error {
	var coded *connect.Error
	if errors.As(err, &coded) {
		return err
	}
	var refusal *meta.Error
	if !errors.As(err, &refusal) {
		return connect.NewError(codeOfPlain(err), err)
	}
	out := connect.NewError(codeOfKind(refusal.Kind), err)
	if detail, derr := connect.NewErrorDetail(refusal.Proto()); derr == nil {
		out.AddDetail(detail)
	}
	return out
}

func codeOfKind(k metav1.Kind) connect.Code {
	switch k {
	case metav1.Kind_KIND_INVALID:
		return connect.CodeInvalidArgument
	case metav1.Kind_KIND_UNKNOWN:
		return connect.CodeNotFound
	case metav1.Kind_KIND_DENIED:
		return connect.CodePermissionDenied
	case metav1.Kind_KIND_UNAUTHENTICATED:
		return connect.CodeUnauthenticated
	case metav1.Kind_KIND_UNSUPPORTED, metav1.Kind_KIND_IMMUTABLE,
		metav1.Kind_KIND_PRECONDITION, metav1.Kind_KIND_FROZEN:
		return connect.CodeFailedPrecondition
	case metav1.Kind_KIND_CONFLICT:
		return connect.CodeAborted
	case metav1.Kind_KIND_QUOTA:
		return connect.CodeResourceExhausted
	case metav1.Kind_KIND_TOO_LARGE:
		return connect.CodeOutOfRange
	case metav1.Kind_KIND_UNAVAILABLE:
		return connect.CodeUnavailable
	case metav1.Kind_KIND_OUTCOME_UNKNOWN:
		return connect.CodeUnknown
	}
	return connect.CodeInternal
}

// codeOfPlain is for what is no refusal: the caller's time, or a defect.
func codeOfPlain(err error) connect.Code {
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return connect.CodeDeadlineExceeded
	case errors.Is(err, context.Canceled):
		return connect.CodeCanceled
	}
	return connect.CodeInternal
}
