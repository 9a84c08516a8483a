package cluster

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pontoon-registry/pontoon/meta"
	clusterv1 "github.com/pontoon-registry/pontoon/proto/pontoon/cluster/v1"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// codeOf is the gRPC code of a kind. The kind itself travels as a detail, so a
// code that two kinds share loses nothing.
func codeOf(kind metav1.Kind) codes.Code {
	switch kind {
	case metav1.Kind_KIND_INVALID, metav1.Kind_KIND_TOO_LARGE:
		return codes.InvalidArgument
	case metav1.Kind_KIND_UNKNOWN:
		return codes.NotFound
	case metav1.Kind_KIND_DENIED, metav1.Kind_KIND_IMMUTABLE:
		return codes.PermissionDenied
	case metav1.Kind_KIND_UNAUTHENTICATED:
		return codes.Unauthenticated
	case metav1.Kind_KIND_UNSUPPORTED:
		return codes.Unimplemented
	case metav1.Kind_KIND_PRECONDITION, metav1.Kind_KIND_FROZEN:
		return codes.FailedPrecondition
	case metav1.Kind_KIND_QUOTA:
		return codes.ResourceExhausted
	case metav1.Kind_KIND_CONFLICT:
		return codes.Aborted
	case metav1.Kind_KIND_UNAVAILABLE:
		return codes.Unavailable
	case metav1.Kind_KIND_OUTCOME_UNKNOWN:
		return codes.Unknown
	default:
		return codes.Internal
	}
}

// toStatus is the gRPC error of a refusal; any other error is internal, and only its text crosses.
func toStatus(err error) error {
	var refusal *meta.Error
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.DeadlineExceeded):
		return status.Error(codes.DeadlineExceeded, err.Error())
	case errors.Is(err, context.Canceled):
		return status.Error(codes.Canceled, err.Error())
	case !errors.As(err, &refusal):
		return status.Error(codes.Internal, err.Error())
	}
	s := status.New(codeOf(refusal.Kind), refusal.Message)
	if detailed, derr := s.WithDetails(refusal.Proto()); derr == nil {
		s = detailed
	}
	return s.Err()
}

// fromStatus is the refusal in a gRPC error. An error without one never reached
// the service, or lost its answer, and stays as it is.
func fromStatus(err error) error {
	if err == nil {
		return nil
	}
	for _, d := range status.Convert(err).Details() {
		if r, ok := d.(*metav1.Refusal); ok {
			return meta.FromRefusal(r)
		}
	}
	return err
}

// unavailable says that certainly nothing was changed, and that it is worth trying again.
func unavailable(format string, args ...any) *meta.Error {
	return meta.Refuse(metav1.Kind_KIND_UNAVAILABLE, metav1.Noun_NOUN_CLUSTER, format, args...)
}

// unknownOutcome says that the command may or may not take effect.
func unknownOutcome(format string, args ...any) *meta.Error {
	return meta.Refuse(metav1.Kind_KIND_OUTCOME_UNKNOWN, metav1.Noun_NOUN_CLUSTER, format, args...)
}

// isRefusal says whether err is one of ours rather than a lost call.
func isRefusal(err error) bool {
	var refusal *meta.Error
	return errors.As(err, &refusal)
}

// outcomeOf is what another node said of a command.
func outcomeOf(o *clusterv1.Outcome) outcome {
	if r := o.GetRefusal(); r != nil {
		return outcome{err: meta.FromRefusal(r)}
	}
	if o.GetResult() == nil {
		return outcome{err: unknownOutcome("the leader answered nothing about the command")}
	}
	return outcome{result: o.GetResult()}
}

// proto is the outcome as it crosses the wire.
func (o outcome) proto() *clusterv1.Outcome {
	var refusal *meta.Error
	switch {
	case o.err == nil:
		return &clusterv1.Outcome{Result: o.result}
	case errors.As(o.err, &refusal):
		return &clusterv1.Outcome{Refusal: refusal.Proto()}
	default:
		return &clusterv1.Outcome{Refusal: unknownOutcome("%v", o.err).Proto()}
	}
}

// Short names of what this package refuses with most.
const (
	preconditionKind = metav1.Kind_KIND_PRECONDITION
	clusterNoun      = metav1.Noun_NOUN_CLUSTER
)

func isUnavailable(err error) bool { return meta.KindOf(err) == metav1.Kind_KIND_UNAVAILABLE }
