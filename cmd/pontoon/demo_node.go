package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"text/template"
	"time"

	adminv1 "github.com/pontoon-registry/pontoon/proto/pontoon/admin/v1"
)

// demoNode is one child process of the demo, with its files and ports.
type demoNode struct {
	name, dir, config      string
	registry, node, gossip string // host:port
	cmd                    *exec.Cmd
	// done is closed once the process has ended; err is why.
	done chan struct{}
	err  error
}

// demoConfig is what a node of the demo is given: production's shape, on loopback.
const demoConfig = `version: 0.1
log:
  accesslog:
    disabled: true
storage:
  filesystem:
    rootdirectory: {{printf "%q" .Store}}
    shared: true
http:
  addr: {{.Registry}}
  drain:
    delay: 300ms
  debug:
    addr: none
cluster:
  name: demo
  node: {{.Name}}
  datadir: {{printf "%q" .Dir}}
  secretfile: {{printf "%q" .Secret}}
  expect: {{len .Join}}
  join: [{{range $i, $j := .Join}}{{if $i}}, {{end}}"{{$j}}"{{end}}]
  addr: {{.Node}}
  gossip:
    addr: {{.Gossip}}
  disk:
    ballast: 0
`

// writeConfig writes the node's configuration file.
func (n *demoNode) writeConfig(store, secret string, join []string) error {
	t, err := template.New("config").Parse(demoConfig)
	if err != nil {
		return fmt.Errorf("configuration of %s: %w", n.name, err)
	}
	var buf bytes.Buffer
	if err := t.Execute(&buf, struct {
		Name, Dir, Store, Secret, Registry, Node, Gossip string
		Join                                             []string
	}{n.name, n.dir, store, secret, n.registry, n.node, n.gossip, join}); err != nil {
		return fmt.Errorf("configuration of %s: %w", n.name, err)
	}
	return os.WriteFile(n.config, buf.Bytes(), 0o600)
}

// start starts `pontoon serve` as a child that ends with us, however we end. Wait
// for it with done.
func (n *demoNode) start() error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find own program: %w", err)
	}
	log, err := os.OpenFile(n.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("log of %s: %w", n.name, err)
	}
	cmd := exec.Command(self, "serve", "--config", n.config) //nolint:noctx // it ends by stop or kill, in an order of their own
	cmd.Args[0] = os.Args[0]
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = childAttributes()
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, envPrefix) {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	if err := cmd.Start(); err != nil {
		return errors.Join(fmt.Errorf("start %s: %w", n.name, err), log.Close())
	}
	n.cmd, n.done = cmd, make(chan struct{})
	go func() { // ends with the process; stop and kill wait for it
		n.err = errors.Join(cmd.Wait(), log.Close())
		close(n.done)
	}()
	return nil
}

func (n *demoNode) logFile() string { return n.dir + ".log" }
func (n *demoNode) url() string     { return "http://" + n.registry }

// running is true between start and the process's end.
func (n *demoNode) running() bool {
	if n.done == nil {
		return false
	}
	select {
	case <-n.done:
		return false
	default:
		return true
	}
}

// kill is kill -9, of the whole process group.
func (n *demoNode) kill() {
	if n.running() {
		_ = syscall.Kill(-n.cmd.Process.Pid, syscall.SIGKILL) // it may have just ended
		<-n.done
	}
}

// stopTime is how long a node has to end by itself.
const stopTime = 20 * time.Second

// terminate asks the node to end; stop waits for it.
func (n *demoNode) terminate() {
	if n.running() {
		_ = n.cmd.Process.Signal(syscall.SIGTERM) // it may have just ended
	}
}

// stop ends the node in order, or by force when that takes too long.
func (n *demoNode) stop() {
	if !n.running() {
		return
	}
	n.terminate()
	timer := time.NewTimer(stopTime)
	defer timer.Stop()
	select {
	case <-n.done:
	case <-timer.C:
		n.kill()
	}
}

// demoPoll is how often the demo looks whether something has come true.
const demoPoll = 50 * time.Millisecond

// until waits for come to be true, for the node's end, or for ctx.
func (n *demoNode) until(ctx context.Context, what string, come func(context.Context) bool) error {
	tick := time.NewTicker(demoPoll)
	defer tick.Stop()
	for !come(ctx) {
		select {
		case <-tick.C:
		case <-n.done:
			return fmt.Errorf("%s ended before it was %s: %w; its last lines:\n%s", n.name, what, n.err, n.lastLines())
		case <-ctx.Done():
			return fmt.Errorf("%s is not %s in time: %w; its last lines:\n%s", n.name, what, context.Cause(ctx), n.lastLines())
		}
	}
	return nil
}

// ready waits until the node answers 200 at /readyz.
func (n *demoNode) ready(ctx context.Context, c *registryClient) error {
	return n.until(ctx, "ready", func(ctx context.Context) bool { return probe(ctx, c.http, n.url()+"/readyz") })
}

// caughtUp waits until the node's own state has reached an index.
func (n *demoNode) caughtUp(ctx context.Context, index uint64) error {
	return n.until(ctx, "caught up", func(ctx context.Context) bool {
		s, err := n.status(ctx)
		return err == nil && s.GetNode().GetAppliedIndex() >= index
	})
}

// status asks the node through its socket.
func (n *demoNode) status(ctx context.Context) (*adminv1.GetStatusResponse, error) {
	a := &app{socket: filepath.Join(n.dir, socketName)}
	return a.statusOnce(ctx)
}

// lastLines is the end of the node's log.
func (n *demoNode) lastLines() string {
	const bound = 4 << 10
	f, err := os.Open(n.logFile())
	if err != nil {
		return err.Error()
	}
	defer func() { _ = f.Close() }() // only read
	if end, err := f.Seek(0, io.SeekEnd); err == nil {
		_, _ = f.Seek(max(0, end-bound), io.SeekStart) // from the start is fine too
	}
	body, err := io.ReadAll(io.LimitReader(f, bound))
	if err != nil {
		return err.Error()
	}
	return string(body)
}

// freePorts answers n loopback addresses that are free for TCP and UDP. All are held
// until the last is found, so they differ; nobody holds them afterwards, so a
// node may still find one taken, and says so.
func freePorts(ctx context.Context, n int) ([]string, error) {
	var addrs []string
	var held []io.Closer
	defer func() {
		for _, c := range held {
			_ = c.Close() // it only held the port
		}
	}()
	var lc net.ListenConfig
	for tries := 0; len(addrs) < n; tries++ {
		if tries > 10*n {
			return nil, fmt.Errorf("find free ports on 127.0.0.1: none in %d tries", tries)
		}
		l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("find free ports on 127.0.0.1: %w", err)
		}
		held = append(held, l)
		p, err := lc.ListenPacket(ctx, "udp", l.Addr().String())
		if err != nil {
			continue // taken by somebody else's UDP: try another
		}
		held = append(held, p)
		addrs = append(addrs, l.Addr().String())
	}
	return addrs, nil
}
