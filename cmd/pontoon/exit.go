package main

import (
	"context"
	"errors"
	"fmt"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"github.com/pontoon-registry/pontoon/cluster"
)

// Exit codes, as the package documentation and the help of pontoon state them.
const (
	exitOK = iota
	exitFailure
	exitUsage
	exitNotFound
	exitConflict
	exitUnavailable
)

// usageError is a verb used wrongly.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

func usage(cmd *cobra.Command, format string, args ...any) error {
	return &usageError{fmt.Sprintf("%s: %s\nUsage: %s (more with --help)", cmd.CommandPath(), fmt.Sprintf(format, args...), cmd.UseLine())}
}

// codedError is an error with an exit code of its own; without text nothing more is to be said.
type codedError struct {
	code int
	err  error
}

func (e *codedError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e *codedError) Unwrap() error { return e.err }

func silent(err error) bool { return err.Error() == "" }

// exitCode is the one place where errors become exit codes.
func exitCode(err error) int {
	var coded *codedError
	var used *usageError
	var config *configError
	var call *connect.Error
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &coded):
		return coded.code
	case errors.Is(err, cluster.ErrDeparted): // starting it again helps nobody: see deploy/pontoon.service
		return exitConflict
	case errors.As(err, &used), errors.As(err, &config):
		return exitUsage
	case errors.As(err, &call):
		return exitOfCode(call.Code())
	case errors.Is(err, context.DeadlineExceeded):
		return exitUnavailable
	}
	return exitFailure
}

func exitOfCode(code connect.Code) int {
	switch code {
	case connect.CodeInvalidArgument, connect.CodeOutOfRange:
		return exitUsage
	case connect.CodeNotFound:
		return exitNotFound
	case connect.CodeAborted, connect.CodeFailedPrecondition, connect.CodeAlreadyExists:
		return exitConflict
	case connect.CodeUnavailable, connect.CodeDeadlineExceeded, connect.CodeResourceExhausted:
		return exitUnavailable
	}
	return exitFailure
}

// sentence is an error for people: a call's error without its code in front.
func sentence(err error) string {
	var call *connect.Error
	if errors.As(err, &call) {
		return call.Message()
	}
	return err.Error()
}
