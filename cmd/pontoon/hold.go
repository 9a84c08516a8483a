package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/durationpb"

	adminv1 "github.com/pontoon-registry/pontoon/proto/pontoon/admin/v1"
)

// killDelay is how long a command that lost its lock has between SIGTERM and SIGKILL.
const killDelay = 5 * time.Second

// errLockLost is the cause with which the context of a lock's holder ends.
var errLockLost = errors.New("the lock was lost")

// holding runs the command under a context that dies with the lock (C4).
func (a *app) holding(ctx context.Context, c *client, w wanted, g grant, command []string) error {
	ctx, lose := context.WithCancelCause(ctx)
	defer lose(nil)
	held, done := context.WithCancel(ctx)
	group := errgroup.Group{}
	group.Go(func() error { keep(held, c, w, g, lose); return nil })
	runErr := a.child(ctx, w, g, command)
	done()
	_ = group.Wait() // keep answers nil; it tells by lose
	lost := errors.Is(context.Cause(ctx), errLockLost)
	if lost {
		return &codedError{exitConflict, fmt.Errorf("lock %s: %w while the command ran", w.name, context.Cause(ctx))}
	}
	// The command's end may have come from our own: release the lock in any case.
	_, err := call(context.WithoutCancel(ctx), func(ctx context.Context) (*adminv1.ReleaseLockResponse, error) {
		return c.locks.ReleaseLock(ctx, &adminv1.ReleaseLockRequest{Name: w.name, Token: g.token})
	})
	if runErr != nil {
		return runErr
	}
	if err != nil {
		return fmt.Errorf("release lock %s: %w", w.name, err)
	}
	return nil
}

// keep renews the lock at every third of its ttl, and calls lose when it is gone or may be.
func keep(ctx context.Context, c *client, w wanted, g grant, lose context.CancelCauseFunc) {
	tick := time.NewTicker(w.ttl / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		sent := time.Now()
		renewCtx, cancel := context.WithDeadline(ctx, g.until)
		_, err := c.locks.RenewLock(renewCtx, &adminv1.RenewLockRequest{Name: w.name, Token: g.token, Ttl: durationpb.New(w.ttl)})
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			g.until = sent.Add(w.ttl)
		case connect.CodeOf(err) == connect.CodeAborted, connect.CodeOf(err) == connect.CodeNotFound, !time.Now().Before(g.until):
			lose(fmt.Errorf("%w: %s", errLockLost, sentence(err)))
			return
		}
	}
}

// child runs the command with the lock in its environment; its exit code becomes ours.
func (a *app) child(ctx context.Context, w wanted, g grant, command []string) error {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = a.in, a.out, a.err
	cmd.Env = append(os.Environ(), "PONTOON_LOCK_NAME="+w.name, "PONTOON_LOCK_TOKEN="+strconv.FormatUint(g.token, 10))
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = killDelay
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Exited() {
		return &codedError{code: exit.ExitCode()}
	}
	if err != nil {
		return fmt.Errorf("run %s: %w", command[0], err)
	}
	return nil
}
