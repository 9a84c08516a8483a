package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	adminv1 "github.com/pontoon-registry/pontoon/proto/pontoon/admin/v1"
)

func newLock(a *app) *cobra.Command {
	return group("lock", "Hold named locks of the cluster", newLockAcquire(a), newLockRenew(a), newLockRelease(a), newLockList(a))
}

// wanted is what `lock acquire` was asked for.
type wanted struct {
	name, holder string
	ttl, wait    time.Duration
}

func newLockAcquire(a *app) *cobra.Command {
	var w wanted
	cmd := &cobra.Command{
		Use:   "acquire NAME [-- COMMAND ARGS...]",
		Short: "Acquire a lock, and hold it while a command runs",
		Long: "Acquire a lock. Without a command it is held for --ttl and the token is printed; renew or release it with that.\n\n" +
			"With a command the lock is renewed while the command runs and released at its end, whose exit code is\n" +
			"passed on. The command finds the token in $PONTOON_LOCK_TOKEN. When the lock is lost the command\n" +
			"gets SIGTERM, 5 s later SIGKILL, and the exit code is 4.\n\n" +
			"A lock alone stops nobody who was paused: give the token to what the lock guards, and refuse a lower one there.",
		Example: "  pontoon lock acquire promote --ttl 30s -- ./promote.sh\n  token=$(pontoon lock acquire promote --ttl 10m)",
		Args: func(cmd *cobra.Command, args []string) error {
			switch dash := cmd.ArgsLenAtDash(); {
			case dash < 0 && len(args) == 1, dash == 1 && len(args) > 1:
				return nil
			}
			return usage(cmd, "expected one name, and a command after --")
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			w.name = args[0]
			return a.acquire(cmd.Context(), w, args[1:])
		},
	}
	cmd.Flags().DurationVar(&w.ttl, "ttl", 30*time.Second, "how long the lock is held unless it is renewed, 1s to 24h")
	cmd.Flags().DurationVar(&w.wait, "wait", 0, "how long to wait while somebody else holds it")
	cmd.Flags().StringVar(&w.holder, "holder", "", "who says it holds the lock (default: the user)")
	return cmd
}

func (a *app) acquire(ctx context.Context, w wanted, command []string) error {
	c, err := a.dial(ctx)
	if err != nil {
		return err
	}
	g, err := acquire(ctx, c, w)
	if err != nil {
		return err
	}
	if len(command) > 0 {
		return a.holding(ctx, c, w, g, command)
	}
	return a.show(&adminv1.AcquireLockResponse{Token: g.token, Ttl: durationpb.New(w.ttl)}, func(out io.Writer) {
		_, _ = fmt.Fprintln(out, g.token)
	})
}

// grant is a lock that is ours until an instant of our own clock: the one before the request was sent plus the ttl (C4).
type grant struct {
	token uint64
	until time.Time
}

// lockPoll is how often --wait tries.
const lockPoll = 500 * time.Millisecond

// acquire tries until it has the lock or w.wait is over.
func acquire(ctx context.Context, c *client, w wanted) (grant, error) {
	end := time.Now().Add(w.wait)
	tick := time.NewTicker(lockPoll)
	defer tick.Stop()
	for {
		sent := time.Now()
		res, err := call(ctx, func(ctx context.Context) (*adminv1.AcquireLockResponse, error) {
			return c.locks.AcquireLock(ctx, &adminv1.AcquireLockRequest{Name: w.name, Holder: w.holder, Ttl: durationpb.New(w.ttl)})
		})
		if err == nil {
			return grant{res.GetToken(), sent.Add(w.ttl)}, nil
		}
		if connect.CodeOf(err) != connect.CodeAborted || !time.Now().Before(end) {
			return grant{}, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return grant{}, context.Cause(ctx)
		}
	}
}

// call gives one call its deadline.
func call[T any](ctx context.Context, do func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	return do(ctx)
}

func newLockRenew(a *app) *cobra.Command {
	var ttl time.Duration
	cmd := &cobra.Command{
		Use: "renew NAME TOKEN", Short: "Hold a lock for longer",
		Long:    "Hold a lock for longer. Exit code 4: the token is not the lock's any more.",
		Example: "  pontoon lock renew promote 4711 --ttl 10m",
		Args:    exactly(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			token, err := parseToken(cmd, args[1])
			if err != nil {
				return err
			}
			c, err := a.dial(cmd.Context())
			if err != nil {
				return err
			}
			req := &adminv1.RenewLockRequest{Name: args[0], Token: token}
			if ttl != 0 {
				req.Ttl = durationpb.New(ttl)
			}
			res, err := call(cmd.Context(), func(ctx context.Context) (*adminv1.RenewLockResponse, error) {
				return c.locks.RenewLock(ctx, req)
			})
			if err != nil {
				return err
			}
			return a.show(res, func(w io.Writer) { _, _ = fmt.Fprintf(w, "renewed for %s\n", res.GetTtl().AsDuration()) })
		},
	}
	cmd.Flags().DurationVar(&ttl, "ttl", 0, "for how long (default: as it was acquired)")
	return cmd
}

func newLockRelease(a *app) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "release NAME [TOKEN]", Short: "Release a lock",
		Example: "  pontoon lock release promote 4711\n  pontoon lock release promote --force     # whoever holds it",
		Args: func(cmd *cobra.Command, args []string) error {
			if (len(args) == 2) == (force && len(args) == 1) {
				return usage(cmd, "expected a name and a token, or a name and --force")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			req := &adminv1.ReleaseLockRequest{Name: args[0], Force: force}
			if len(args) == 2 {
				token, err := parseToken(cmd, args[1])
				if err != nil {
					return err
				}
				req.Token = token
			}
			c, err := a.dial(cmd.Context())
			if err != nil {
				return err
			}
			res, err := call(cmd.Context(), func(ctx context.Context) (*adminv1.ReleaseLockResponse, error) {
				return c.locks.ReleaseLock(ctx, req)
			})
			if err != nil {
				return err
			}
			return a.show(res, func(w io.Writer) { _, _ = fmt.Fprintf(w, "released %s\n", args[0]) })
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "whoever holds it")
	return cmd
}

func parseToken(cmd *cobra.Command, s string) (uint64, error) {
	token, err := strconv.ParseUint(s, 10, 64)
	if err != nil || token == 0 {
		return 0, usage(cmd, "got token %q, expected the number that acquire printed", s)
	}
	return token, nil
}

func newLockList(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the locks that are held",
		Example: "  pontoon lock list -o json",
		Args:    exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.dial(cmd.Context())
			if err != nil {
				return err
			}
			all := &adminv1.ListLocksResponse{}
			err = pages(cmd.Context(), func(ctx context.Context, token string) (string, error) {
				page, err := c.locks.ListLocks(ctx, &adminv1.ListLocksRequest{PageSize: pageSize, PageToken: token})
				all.Locks = append(all.Locks, page.GetLocks()...)
				return page.GetNextPageToken(), err
			})
			if err != nil {
				return err
			}
			return a.show(all, func(w io.Writer) {
				rows := make([][]string, 0, len(all.GetLocks()))
				for _, l := range all.GetLocks() {
					rows = append(rows, []string{l.GetName(), l.GetHolder(), strconv.FormatUint(l.GetToken(), 10),
						l.GetExpiresIn().AsDuration().Round(time.Second).String(), when(l.GetAcquired())})
				}
				columns(w, "LOCK\tHOLDER\tTOKEN\tEXPIRES IN\tACQUIRED", rows)
			})
		},
	}
}
