// Command pontoon is the registry and its tools: `serve` runs a node, `demo` a
// cluster of three on one machine, and the other verbs talk to a node through its
// operators' socket.
//
// This package introduces the others to each other and decides no rule itself:
// rules of the configuration are in its table (keys.go), all others live below. The reader's way
// in is wire.go, which builds a node and takes it down again.
//
// It does not promise a stable text output: scripts use -o json and the exit code.
//
// Exit codes: 0 done; 1 failed; 2 wrong use or configuration; 3 not found; 4 in conflict (a lock is held, a
// digest differs, something is in use, the node is no member of its cluster any more); 5 unavailable (no node
// answers, no quorum); 70 the disk under a node hangs; that of the command for `lock acquire NAME -- COMMAND`.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// stdio is the world as a verb sees it.
type stdio struct {
	in       io.Reader
	out, err io.Writer
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal begins an orderly end; from then on a second one ends the process at once.
	context.AfterFunc(ctx, stop)
	err := run(ctx, os.Args[1:], stdio{os.Stdin, os.Stdout, os.Stderr})
	if err != nil && !silent(err) {
		fmt.Fprintf(os.Stderr, "pontoon: %s\n", sentence(err))
	}
	os.Exit(exitCode(err))
}

// run is the whole program.
func run(ctx context.Context, args []string, io stdio) error {
	root := newRoot(&app{stdio: io, host: thisHost()})
	root.SetArgs(args)
	return root.ExecuteContext(ctx)
}
