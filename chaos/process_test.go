package chaos

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// process is a program that a test started. It dies with the test, and with the test binary.
type process struct {
	t    testing.TB
	name string
	cmd  *exec.Cmd
	log  *os.File
	done chan struct{} // closed once the process has been waited for
	err  error         // how it ended; read after done

	mu       sync.Mutex       // guards what follows
	expected bool             // its end was asked for
	sent     []syscall.Signal // to end it
	wrong    []string         // how it ended, where it should not have ended so
}

// start runs the program with its output appended to dir/name.log. An end that nobody asked for fails the test.
func start(t testing.TB, dir, name string, env []string, program string, args ...string) *process {
	t.Helper()
	return launch(t, false, dir, name, env, program, args...)
}

// launch is start; a frail process may end by itself.
func launch(t testing.TB, frail bool, dir, name string, env []string, program string, args ...string) *process {
	t.Helper()
	log, err := os.OpenFile(filepath.Join(dir, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, name: name, log: log, done: make(chan struct{}), expected: frail}
	p.cmd = exec.Command(program, args...)
	p.cmd.Dir = dir
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	go p.wait()
	t.Cleanup(func() { p.kill() })
	return p
}

func (p *process) wait() {
	p.err = p.cmd.Wait()
	p.log.Close()
	p.mu.Lock() // with done, so that who takes mayEnd back knows whether it was in time
	var wrong error
	switch {
	case !p.expected:
		wrong = p.blame("ended by itself: %v", p.err)
	case p.broke():
		wrong = p.blame("ended with %v", p.err)
	}
	close(p.done)
	p.mu.Unlock()
	if wrong != nil {
		p.t.Errorf("%v; the end of its log:\n%s", wrong, tail(p.log.Name(), 25))
	}
}

// exitPanic is how the Go runtime ends a process, for a panic or a state that it cannot go on from.
const exitPanic = 2

// broke says whether a process that has ended did so as no process may: by a panic, or by a signal that nobody sent.
func (p *process) broke() bool {
	status, _ := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	return status.Exited() && status.ExitStatus() == exitPanic || status.Signaled() && !slices.Contains(p.sent, status.Signal())
}

// blame notes what is wrong with how the process ended; with mu.
func (p *process) blame(format string, args ...any) error {
	text := fmt.Sprintf(format, args...)
	p.wrong = append(p.wrong, text)
	return errors.New(p.name + " " + text)
}

// accuse is blame, for others.
func (p *process) accuse(format string, args ...any) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.blame(format, args...)
}

// misbehaved says what is wrong with how the process ended; "" is nothing.
func (p *process) misbehaved() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.wrong) == 0 {
		return ""
	}
	return fmt.Sprintf("%s %s; see %s", p.name, strings.Join(p.wrong, ", "), p.log.Name())
}

// signal sends one signal; a process that has ended already ignores it.
func (p *process) signal(s syscall.Signal) {
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Errorf("signal %s: %v", p.name, err)
	}
}

// kill ends the process as a power cut would, paused or not, and waits until it is gone.
func (p *process) kill() {
	p.end(syscall.SIGKILL, time.Minute) // a disk that is busy may keep it
}

// terminate asks the process to end and reports how it did.
func (p *process) terminate(within time.Duration) error {
	p.end(syscall.SIGTERM, within)
	return p.err
}

func (p *process) end(s syscall.Signal, within time.Duration) {
	p.mu.Lock()
	p.expected = true
	p.sent = append(p.sent, s)
	p.mu.Unlock()
	p.signal(s)
	select {
	case <-p.done:
		return
	case <-time.After(within):
	}
	late := fmt.Errorf("%s did not end within %v of %v", p.name, within, s)
	if s != syscall.SIGKILL { // that is the kernel's matter
		late = p.accuse("did not end within %v of %v", within, s)
	}
	p.t.Error(late)
	p.mu.Lock()
	p.sent = append(p.sent, syscall.SIGKILL)
	p.mu.Unlock()
	p.signal(syscall.SIGKILL)
	<-p.done
}

// pause stops the process in the middle of whatever it does; wake lets it go on as if nothing had been.
func (p *process) pause() { p.signal(syscall.SIGSTOP) }
func (p *process) wake()  { p.signal(syscall.SIGCONT) }

// peakMemory is the largest resident set since the last call of forgetPeak, in bytes.
func (p *process) peakMemory() int64 {
	peak, err := memoryOf(p, "VmHWM:")
	if err != nil {
		p.t.Fatal(err)
	}
	return peak
}

// memoryOf is one of the sizes in bytes that the kernel tells of a process.
func memoryOf(p *process, name string) (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == name {
			kib, err := strconv.ParseInt(fields[1], 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("%s: no %s in its status", p.name, name)
}

func (p *process) forgetPeak() {
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", p.cmd.Process.Pid), []byte("5"), 0); err != nil {
		p.t.Logf("%s: peak memory counts from the start of the process: %v", p.name, err)
	}
}

// tail returns the last lines of a file, for messages.
func tail(file string, lines int) string {
	content, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimRight(string(content), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// need names the program that a test cannot do without. A missing one fails the test.
func need(t testing.TB, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		for _, dir := range []string{"/usr/sbin", "/usr/local/sbin", "../bin"} {
			if found, err := filepath.Abs(filepath.Join(dir, program)); err == nil {
				if _, err := os.Stat(found); err == nil {
					return found
				}
			}
		}
		t.Fatalf("%s is missing: make tools installs it, make e2e-tools what only -long needs", program)
	}
	return path
}

// Ports are given out below the range that the kernel gives to outgoing connections, so that nothing takes one between
// the look and the use except another program that listens.
const (
	lowestPort = 20000
	portBlocks = 24
	blockSize  = 500
)

// ports are taken in blocks: who listens on the first port of a block has all of it, so two runs on one machine never
// meet, not even on a port whose node is down right now.
var ports struct {
	mu   sync.Mutex
	held []net.Listener // as long as the process lives
	left []int          // of the blocks that are held; each port is given out once
}

// freeAddr returns a loopback address that is free for TCP and UDP.
func freeAddr(t testing.TB) string {
	t.Helper()
	ports.mu.Lock()
	defer ports.mu.Unlock()
	for {
		for len(ports.left) > 0 {
			addr := loopback(ports.left[0])
			ports.left = ports.left[1:]
			tcp, err := net.Listen("tcp", addr)
			if err != nil {
				continue
			}
			udp, err := net.ListenPacket("udp", addr)
			tcp.Close()
			if err != nil {
				continue
			}
			udp.Close()
			return addr
		}
		if !takePorts() {
			t.Fatalf("all ports from %d on have been given out, here or in other runs", lowestPort)
		}
	}
}

// takePorts takes a block that nobody has; the caller holds ports.mu.
func takePorts() bool {
	for _, block := range rand.Perm(portBlocks) {
		first := lowestPort + block*blockSize
		l, err := net.Listen("tcp", loopback(first))
		if err != nil {
			continue
		}
		ports.held = append(ports.held, l)
		for _, i := range rand.Perm(blockSize - 1) {
			ports.left = append(ports.left, first+1+i)
		}
		return true
	}
	return false
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// scratch is a folder for processes. It is kept when the test fails, and named, because the logs lie in it.
func scratch(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "pontoon-chaos-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("logs are kept in %s", dir)
			return
		}
		os.RemoveAll(dir)
	})
	return dir
}

// eventually asks until the condition holds and fails the test when it does not within the time.
func eventually(t testing.TB, within time.Duration, what string, holds func() error) {
	t.Helper()
	deadline := time.Now().Add(within)
	for {
		err := holds()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited %v for %s: %v", within, what, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// deaf hears no complaint.
type deaf struct{ testing.TB }

func (deaf) Error(...any)          {}
func (deaf) Errorf(string, ...any) {}

// TestHowAProcessEndsIsJudged, also of one that may end by itself.
func TestHowAProcessEndsIsJudged(t *testing.T) {
	const up = "echo up; while :; do sleep 0.02; done" // traps hold from then on
	asked := func(p *process) { _ = p.terminate(time.Minute) }
	for name, c := range map[string]struct {
		script string
		frail  bool
		end    func(*process)
		wrong  string
	}{
		"by itself":                    {script: "exit 0", wrong: "ended by itself"},
		"by itself, as it may":         {script: "exit 70", frail: true},
		"by a panic":                   {script: "exit 2", frail: true, wrong: "ended with exit status 2"},
		"by a signal that nobody sent": {script: "kill -SEGV $$", frail: true, wrong: "ended with signal: segmentation fault"},
		"killed":                       {script: up, end: (*process).kill},
		"asked":                        {script: "trap 'exit 0' TERM; " + up, end: asked},
		"asked, and deaf to it":        {script: up, end: asked},
		"asked, by a panic":            {script: "trap 'exit 2' TERM; " + up, end: asked, wrong: "ended with exit status 2"},
		"asked, and does not": {script: "trap '' TERM; " + up, end: func(p *process) { _ = p.terminate(10 * time.Millisecond) },
			wrong: "did not end within 10ms of terminated"},
		"not, though it should": {script: up, frail: true, end: func(p *process) { _ = p.ended(time.Millisecond); p.kill() }, wrong: "is still running after 1ms"},
	} {
		t.Run(name, func(t *testing.T) {
			p := launch(deaf{t}, c.frail, t.TempDir(), "script", nil, "sh", "-c", c.script)
			if c.end != nil {
				eventually(t, 10*time.Second, "the script to be up", func() error {
					if tail(p.log.Name(), 1) == "" {
						return errors.New("it is not")
					}
					return nil
				})
				c.end(p)
			}
			<-p.done
			if got := p.misbehaved(); (c.wrong == "") != (got == "") || !strings.Contains(got, c.wrong) {
				t.Errorf("it is said that %q, want %q", got, c.wrong)
			}
		})
	}
}
