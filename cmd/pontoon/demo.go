package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
)

// demo is three nodes on this machine, a balancer before them, and the story told with them.
type demo struct {
	app   *app
	dir   string
	addr  string
	nodes []*demoNode
	http  *registryClient
	begun time.Time
}

const (
	// demoSize is how many nodes the demo starts.
	demoSize = 3
	// storyTime bounds the whole story; stepTime one wait in it.
	storyTime = 3 * time.Minute
	stepTime  = time.Minute
)

func newDemo(a *app) *cobra.Command {
	var once, keep bool
	var addr string
	cmd := &cobra.Command{
		Use: "demo", Short: "Run three nodes on this machine, and kill one of them",
		Long: "Run three nodes on this machine behind a TCP balancer, push an image through one and pull it through the\n" +
			"others, kill the leader, push again, bring it back. Then the cluster runs on until it is interrupted.\n\n" +
			"Everything is on loopback and in a temporary directory. The nodes are processes of this same program.",
		Example: "  pontoon demo\n  pontoon demo --once --addr 127.0.0.1:0     # only the story, with an exit code",
		Args:    exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runDemo(cmd.Context(), &demo{app: a, addr: addr, http: newRegistryClient()}, once, keep)
		},
	}
	cmd.Flags().BoolVar(&once, "once", false, "end after the story")
	cmd.Flags().BoolVar(&keep, "keep", false, "keep the temporary directory with data and logs")
	cmd.Flags().StringVar(&addr, "addr", "127.0.0.1:5000", "where the balancer listens")
	return cmd
}

// runDemo builds up, tells the story, and takes down in every case.
func runDemo(ctx context.Context, d *demo, once, keep bool) (err error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", d.addr)
	if err != nil {
		return fmt.Errorf("balancer: %w: choose another address with --addr", err)
	}
	d.addr = l.Addr().String()
	if d.dir, err = os.MkdirTemp("", "pontoon-demo-"); err != nil {
		return errors.Join(fmt.Errorf("make a directory: %w", err), l.Close())
	}
	if err := d.prepare(ctx); err != nil {
		return errors.Join(err, l.Close(), os.RemoveAll(d.dir))
	}
	d.begun = time.Now()
	d.say("three nodes behind a TCP balancer on %s, all in %s", d.addr, d.dir)

	group, groupCtx := errgroup.WithContext(ctx)
	balanceCtx, stopBalancing := context.WithCancel(groupCtx)
	group.Go(func() error { return newBalancer(d.addresses()...).Run(balanceCtx, l) })
	group.Go(func() error {
		defer stopBalancing()
		if err := d.story(groupCtx); err != nil || once {
			return err
		}
		d.advise()
		d.watch(groupCtx)
		return nil
	})
	err = group.Wait()
	if err != nil && ctx.Err() != nil {
		err = errors.New("demo: interrupted before the story ended")
	}
	d.stop()
	if !keep {
		return errors.Join(err, os.RemoveAll(d.dir))
	}
	d.say("data and logs are kept in %s", d.dir)
	return err
}

// watch tells of nodes that end, by a reader who tries what advise said, until ctx ends.
func (d *demo) watch(ctx context.Context) {
	var group errgroup.Group
	for _, n := range d.nodes {
		group.Go(func() error {
			select {
			case <-n.done:
				d.say("%s has ended; its log is %s", n.name, n.logFile())
			case <-ctx.Done():
			}
			return nil
		})
	}
	_ = group.Wait() // nothing in it fails
	<-ctx.Done()
}

// prepare makes the secret, the configurations and the shared store's directory.
func (d *demo) prepare(ctx context.Context) error {
	secret := filepath.Join(d.dir, "secret")
	if err := writeSecret(secret); err != nil {
		return err
	}
	ports, err := freePorts(ctx, 3*demoSize)
	if err != nil {
		return err
	}
	var join []string
	for i := range demoSize {
		name := fmt.Sprintf("node%d", i+1)
		n := &demoNode{
			name: name, dir: filepath.Join(d.dir, name), config: filepath.Join(d.dir, name+".yml"),
			registry: ports[3*i], node: ports[3*i+1], gossip: ports[3*i+2],
		}
		d.nodes = append(d.nodes, n)
		join = append(join, n.gossip)
	}
	for _, n := range d.nodes {
		if err := n.writeConfig(filepath.Join(d.dir, "store"), secret, join); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) addresses() []string {
	addrs := make([]string, len(d.nodes))
	for i, n := range d.nodes {
		addrs[i] = n.registry
	}
	return addrs
}

// stop ends all nodes: asked together, awaited one by one.
func (d *demo) stop() {
	for _, n := range d.nodes {
		n.terminate()
	}
	for _, n := range d.nodes {
		n.stop()
	}
}

func (d *demo) say(format string, args ...any) {
	if d.app.json() {
		return
	}
	_, _ = fmt.Fprintf(d.app.out, format+"\n", args...) // nobody to tell when it fails
}

func (d *demo) advise() {
	host := d.addr
	d.say(`
The cluster runs on until you press Ctrl-C. Try:

  curl -s http://%[1]s/v2/_catalog
  docker pull %[1]s/demo/hello:before
  docker tag alpine %[1]s/mine/alpine && docker push %[1]s/mine/alpine
  crane copy alpine %[1]s/mine/alpine --insecure
  pontoon status --config %[2]s
  kill -9 %[3]d                                # %[4]s; then push again`,
		host, d.nodes[0].config, d.nodes[0].cmd.Process.Pid, d.nodes[0].name)
}
