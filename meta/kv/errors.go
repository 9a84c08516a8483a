package kv

import (
	"errors"
	"fmt"
)

// Error is a failure of the store itself: this node's disk or a defect in
// Pebble, never an answer about the data.
type Error struct {
	// Op is what was tried: "get", "commit", ...
	Op  string
	Err error
}

func (e *Error) Error() string { return "state store: " + e.Op + ": " + e.Err.Error() }

// Unwrap answers the cause.
func (e *Error) Unwrap() error { return e.Err }

// IsError says whether err's chain holds a failure of the store.
func IsError(err error) bool {
	var e *Error
	return errors.As(err, &e)
}

// guard turns what a call into Pebble returned, or a panic in it, into an
// *Error. It is deferred directly.
func guard(op string, err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("panic: %v", r)
	}
	if *err != nil && !IsError(*err) {
		*err = &Error{Op: op, Err: *err}
	}
}

// write does what takes Pebble's commit lock. A panic there, which is how Pebble says that its log cannot be written, leaves
// the lock taken for good: whoever asks for it afterwards is refused, and does not wait for ever.
func (s *Store) write(op string, do func() error) (err error) {
	if broken := s.broken.Load(); broken != nil {
		return &Error{Op: op, Err: fmt.Errorf("the store takes nothing since a write failed: %w", *broken)}
	}
	panicked := true
	defer func() {
		if panicked {
			s.broken.CompareAndSwap(nil, &err)
		}
	}()
	defer guard(op, &err)
	err = do()
	panicked = false
	return err
}
