package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	// gitTime ends a call of git.
	gitTime = time.Minute
	// afterEnd is how long the pipes of a command that was ended are waited for.
	afterEnd = 5 * time.Second
)

// tree is a copy of the tree that patches are put into.
type tree struct{ dir string }

// copyTree copies what git knows of the tree at root, as it is now, and what it would add.
func copyTree(ctx context.Context, root string) (_ *tree, err error) {
	here := &tree{dir: root}
	listed, _ := here.exec(ctx, gitTime, nil, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	if listed.err != nil {
		return nil, fmt.Errorf("list the files of %s: %w: %s", root, listed.err, listed.output)
	}
	dir, err := os.MkdirTemp("", "pontoon-exhibits-")
	if err != nil {
		return nil, err
	}
	to := &tree{dir: dir}
	defer func() {
		if err != nil {
			err = errors.Join(err, to.remove())
		}
	}()
	return to, to.take(root, strings.Split(strings.TrimSuffix(listed.output, "\x00"), "\x00"))
}

// take copies files of the tree at root; one that was removed there and not yet from git's index is none.
func (t *tree) take(root string, names []string) error {
	for _, name := range names {
		from, to := filepath.Join(root, name), filepath.Join(t.dir, name)
		info, err := os.Lstat(from)
		if errors.Is(err, fs.ErrNotExist) || err == nil && !info.Mode().IsRegular() {
			continue
		}
		if err != nil {
			return err
		}
		body, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(to, body, info.Mode().Perm()); err != nil {
			return err
		}
	}
	return nil
}

func (t *tree) remove() error { return os.RemoveAll(t.dir) }

// apply puts a patch into the tree.
func (t *tree) apply(ctx context.Context, patch []byte) error {
	done, _ := t.exec(ctx, gitTime, patch, "git", "apply", "--whitespace=nowarn")
	if done.err != nil {
		return fmt.Errorf("it does not apply any more: make it anew for the code as it is: %s", done.output)
	}
	return nil
}

// takeBack makes the tree what it was.
func (t *tree) takeBack(ctx context.Context, patch []byte) error {
	done, _ := t.exec(context.WithoutCancel(ctx), gitTime, patch, "git", "apply", "--whitespace=nowarn", "--reverse")
	if done.err != nil {
		return fmt.Errorf("take the patch back: %w: %s", done.err, done.output)
	}
	return nil
}

// command runs a command line in the tree. There is no shell: words are what stands between spaces.
func (t *tree) command(ctx context.Context, within time.Duration, line string) (outcome, time.Duration) {
	words := strings.Fields(line)
	return t.exec(ctx, within, nil, words[0], words[1:]...)
}

// exec runs a program in the tree, with all that it starts in a group of its own, so that all of it ends.
func (t *tree) exec(ctx context.Context, within time.Duration, input []byte, name string, args ...string) (outcome, time.Duration) {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	c := exec.CommandContext(ctx, name, args...)
	c.Dir, c.Stdin = t.dir, bytes.NewReader(input)
	// Git must not take the copy for a folder of a repository that happens to be above it: it would apply nothing, and say so to nobody.
	c.Env = append(os.Environ(), "GIT_CEILING_DIRECTORIES="+filepath.Dir(t.dir))
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
	c.WaitDelay = afterEnd
	output, err := c.CombinedOutput()
	return outcome{output: string(output), err: err, late: errors.Is(ctx.Err(), context.DeadlineExceeded)}, time.Since(began)
}
