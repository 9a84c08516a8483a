package chaos

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

var shellBlock = regexp.MustCompile("(?ms)^```sh\n(.*?)^```$")

// makeStandIn is the make of README blocks. These run inside make check already, so it looks whether the target exists
// and builds nothing; bin/pontoon is there.
const makeStandIn = `#!/bin/sh
exec make -C "%s" -n "$@" >/dev/null
`

// TestTheBlocksOfTheReadmeRun pastes every shell block of the README, in order, into one shell that stops at the first
// failure. The folder holds what a clone holds of what they name, and port 5000 is replaced by one that is free.
func TestTheBlocksOfTheReadmeRun(t *testing.T) {
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	addr := freeAddr(t)
	script := readmeScript(string(text), addr)
	if strings.Count(script, "\n") < 10 {
		t.Fatalf("the README has hardly any shell block:\n%s", script)
	}

	dir := t.TempDir()
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"README.md", "deploy"} {
		if err := os.Symlink(filepath.Join(root, name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	tools := filepath.Join(dir, "tools")
	for _, folder := range []string{"bin", "tools"} {
		if err := os.Mkdir(filepath.Join(dir, folder), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(pontoon(t), filepath.Join(dir, "bin", "pontoon")); err != nil {
		t.Fatal(err)
	}
	makeProgram := strings.Replace(fmt.Sprintf(makeStandIn, root), "exec make", "exec "+need(t, "make"), 1)
	if err := os.WriteFile(filepath.Join(tools, "make"), []byte(makeProgram), 0o755); err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-euxo", "pipefail", "-c", script)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PATH="+tools+":"+filepath.Dir(need(t, "crane"))+":"+os.Getenv("PATH"))
	// A group of its own: what the blocks leave running ends with the test.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.CombinedOutput()
	t.Cleanup(func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }) // nothing is left when all went well
	t.Logf("%s", out)
	if err != nil {
		demo, _ := os.ReadFile(filepath.Join(dir, "demo.log")) // missing when it did not come so far
		t.Fatalf("%v; demo.log:\n%s", err, demo)
	}
	if !strings.Contains(string(out), `"tags":["v1"]`) {
		t.Error("the first push of the README is not listed")
	}
}

// readmeScript joins the shell blocks, with another address for that of the README.
func readmeScript(text, addr string) string {
	var script strings.Builder
	for _, block := range shellBlock.FindAllStringSubmatch(text, -1) {
		script.WriteString(block[1])
	}
	s := strings.ReplaceAll(script.String(), "bin/pontoon demo", "bin/pontoon demo --addr 127.0.0.1:5000")
	return strings.ReplaceAll(s, "127.0.0.1:5000", addr)
}

// TestTheShippedConfigIsAccepted checks deploy/config.yml as the runbook says to.
func TestTheShippedConfigIsAccepted(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, pontoon(t), "config", "check", "../deploy/config.yml").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if strings.Contains(string(out), "notice") {
		t.Errorf("the shipped config is accepted with notices:\n%s", out)
	}
}
