// Command exhibits shows that the suite sees what it is for. Each *.patch beside it is a defect that somebody has once
// built, or would build if he did not know better. The command puts each into a copy of the tree, and demands that the
// suite fails there by the words that the patch names.
//
// What it promises:
//
//  1. The tree itself is never changed: the copy is of what git knows, and of what it would add.
//  2. Caught means: the same command passes without the patch, and with it still builds, runs, and fails with the
//     text that was named. What does not build, fails by other words or takes too long is not caught.
//  3. A patch that does not apply any more is an error. The test of this package, which `make check` runs, says so first.
//
// What it does not: one defect stands for its kind only, and chance has a part in some of the tests. README.md says which.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"syscall"
	"time"
)

func main() {
	only := flag.String("only", "", "regexp of the names of the exhibits to run; empty: all")
	root := flag.String("root", ".", "the tree")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *root, *only, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "exhibits:", err)
		os.Exit(1)
	}
}

// run shows all exhibits whose name matches.
func run(ctx context.Context, root, only string, out io.Writer) (err error) {
	match, err := regexp.Compile(only)
	if err != nil {
		return fmt.Errorf("-only: %w", err)
	}
	all, err := load(root)
	if err != nil {
		return err
	}
	copied, err := copyTree(ctx, root)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, copied.remove()) }()
	r := runner{tree: copied, out: out, passed: map[string]bool{}}
	shown, caught := 0, 0
	for _, e := range all {
		if !match.MatchString(e.name) {
			continue
		}
		shown++
		if ok, err := r.show(ctx, e); err != nil {
			return fmt.Errorf("%s: %w", e.name, err)
		} else if ok {
			caught++
		}
	}
	fmt.Fprintf(out, "%d of %d caught\n", caught, shown)
	if shown == 0 || caught < shown {
		return fmt.Errorf("%d of %d exhibits are not caught: a suite that does not see them is the defect", shown-caught, shown)
	}
	return nil
}

// runner shows one exhibit after the other in one copy of the tree.
type runner struct {
	tree *tree
	out  io.Writer
	// passed are commands that pass without a patch.
	passed map[string]bool
}

// show demands that the exhibit's command passes, and fails once the patch is in the tree. An error ends everything: the
// copy is not what it should be.
func (r *runner) show(ctx context.Context, e *exhibit) (caught bool, err error) {
	if command := e.run; !r.passed[command] {
		got, took := r.tree.command(ctx, e.within, command)
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		if wrong := e.unbroken(got); wrong != "" {
			r.say(e, wrong, took, got.output)
			return false, nil
		}
		r.passed[command] = true
	}
	if err := r.tree.apply(ctx, e.patch); err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, r.tree.takeBack(ctx, e.patch)) }()
	got, took := r.tree.command(ctx, e.within, e.run)
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	wrong := e.judge(got)
	r.say(e, wrong, took, got.output)
	return wrong == "", nil
}

// tail is how much of an output is shown of what is not caught.
const tail = 4000

// say writes a line of the table.
func (r *runner) say(e *exhibit, wrong string, took time.Duration, output string) {
	verdict := "caught"
	if wrong != "" {
		verdict = "NOT CAUGHT: " + wrong
	}
	fmt.Fprintf(r.out, "%-34s %-12s %6s  %s\n", e.name, e.rule, took.Round(time.Second/10), verdict)
	if wrong != "" {
		fmt.Fprintf(r.out, "  %s\n%s\n", e.run, output[max(0, len(output)-tail):])
	}
}
