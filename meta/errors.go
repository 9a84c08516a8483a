package meta

import (
	"errors"
	"fmt"

	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// Error is a refusal as a Go error: equal on every node (M2), and whole on both
// sides of a connection. Compare it with KindOf or errors.As, never by text.
type Error struct {
	Kind    metav1.Kind
	Noun    metav1.Noun
	Message string
	// Names are up to ten missing digests, or users of what is in use.
	Names []string
	// Current is the digest that the tag has now; only for KIND_PRECONDITION.
	Current string
}

func (e *Error) Error() string { return e.Message }

// Refuse makes a refusal.
func Refuse(kind metav1.Kind, noun metav1.Noun, format string, args ...any) *Error {
	return &Error{Kind: kind, Noun: noun, Message: fmt.Sprintf(format, args...)}
}

// KindOf answers the kind of the refusal in err's chain; KIND_UNSPECIFIED when
// err is nil or no refusal.
func KindOf(err error) metav1.Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return metav1.Kind_KIND_UNSPECIFIED
}

// NounOf answers what the refusal in err's chain is about.
func NounOf(err error) metav1.Noun {
	var e *Error
	if errors.As(err, &e) {
		return e.Noun
	}
	return metav1.Noun_NOUN_UNSPECIFIED
}

// Proto answers the refusal as it crosses the wire and stands in a Result.
func (e *Error) Proto() *metav1.Refusal {
	return &metav1.Refusal{Kind: e.Kind, Noun: e.Noun, Message: e.Message, Names: e.Names, Current: e.Current}
}

// FromRefusal answers the error of a result's refusal, nil for nil.
func FromRefusal(r *metav1.Refusal) error {
	if r == nil {
		return nil
	}
	return &Error{Kind: r.GetKind(), Noun: r.GetNoun(), Message: r.GetMessage(), Names: r.GetNames(), Current: r.GetCurrent()}
}

func unknown(noun metav1.Noun, format string, args ...any) *Error {
	return Refuse(metav1.Kind_KIND_UNKNOWN, noun, format, args...)
}

func invalid(noun metav1.Noun, format string, args ...any) *Error {
	return Refuse(metav1.Kind_KIND_INVALID, noun, format, args...)
}

func conflict(noun metav1.Noun, format string, args ...any) *Error {
	return Refuse(metav1.Kind_KIND_CONFLICT, noun, format, args...)
}

func tooLarge(noun metav1.Noun, format string, args ...any) *Error {
	return Refuse(metav1.Kind_KIND_TOO_LARGE, noun, format, args...)
}
