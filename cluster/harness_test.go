package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

func TestMain(m *testing.M) {
	code := m.Run()
	// memberlist's Shutdown does not wait for a probe that is under way, nor for a stream; they end by their own timeouts.
	probe := goleak.IgnoreTopFunction("github.com/hashicorp/memberlist.(*Memberlist).probeNode")
	for until := time.Now().Add(time.Minute); code == 0; {
		err := goleak.Find(probe)
		if err == nil {
			break
		}
		if time.Now().After(until) {
			fmt.Fprintln(os.Stderr, "goroutines are left:", err)
			code = 1
		}
	}
	os.Exit(code)
}

const testSecret = "correct-horse-battery-staple-0123456789abcdef"

// testMark is a bucket's owner mark in memory.
type testMark struct {
	mu           sync.Mutex
	owner, epoch string
}

func (m *testMark) Claim(_ context.Context, id, epoch string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.owner != "" && m.owner != id {
		return errors.New("precondition failed")
	}
	m.owner, m.epoch = id, epoch
	return nil
}

func (m *testMark) Owner(context.Context) (string, string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.owner, m.epoch, nil
}

// running is a node that runs in the test's process.
type running struct {
	*Node
	cfg   Config
	stop  context.CancelFunc
	ended chan struct{}
	err   error // after ended
}

// testLog shows what nodes say when PONTOON_TEST_LOG is set to a level.
func testLog(t testing.TB) *slog.Logger {
	level, err := strconv.Atoi(os.Getenv("PONTOON_TEST_LOG"))
	if err != nil {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.Level(level)}))
}

// network can cut nodes off. Nodes are known by their listen address, dialled or dialling.
type network struct {
	mu    sync.Mutex
	cut   map[string]bool
	conns map[net.Conn][2]string
}

func newNetwork() *network {
	return &network{cut: map[string]bool{}, conns: map[net.Conn][2]string{}}
}

// name says which address own stands for, once it is known; a node may dial already.
func (w *network) name(own *string, address string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	*own = address
}

// dialer is the dial of the node at from.
func (w *network) dialer(from *string) func(context.Context, string) (net.Conn, error) {
	return func(ctx context.Context, to string) (net.Conn, error) {
		w.mu.Lock()
		blocked := w.cut[*from] || w.cut[to]
		w.mu.Unlock()
		if blocked {
			return nil, errors.New("cut off by the test")
		}
		c, err := new(net.Dialer).DialContext(ctx, "tcp", to)
		if err != nil {
			return nil, err
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.cut[*from] || w.cut[to] { // since it was looked at
			_ = c.Close()
			return nil, errors.New("cut off by the test")
		}
		w.conns[c] = [2]string{*from, to}
		return c, nil
	}
}

// isolate cuts a node off: its connections break, and no new ones are made.
func (w *network) isolate(address string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut[address] = true
	for c, ends := range w.conns {
		if ends[0] == address || ends[1] == address {
			_ = c.Close() // closed by its owner already, perhaps
		}
	}
}

func (w *network) heal() {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.cut)
}

// testConfig has thrice Raft's timeouts of production, so that a busy machine costs no leader now and then, and hurries all
// else. Requests wait for as long as an election may take on such a machine; what is about the wait itself sets a shorter one.
func testConfig(t testing.TB, mark Mark) Config {
	return Config{
		DataDir: t.TempDir(), Listen: "127.0.0.1:0", GossipListen: "127.0.0.1:0", Secrets: []string{testSecret},
		Settings: meta.DefaultSettings(), Mark: mark, Log: testLog(t), Hold: 30 * time.Second,
		TimeScale: 3, hurry: 0.4, stableFor: time.Second,
		ghostFor: time.Hour, // the rows that tests write are nobody's: they must not go while a busy machine takes its time
	}
}

// start opens and runs a node; it is stopped at the end of the test.
func start(t testing.TB, cfg Config) *running {
	t.Helper()
	r, err := tryStart(t, cfg)
	if err != nil {
		t.Fatalf("open node: %v", err)
	}
	return r
}

func tryStart(t testing.TB, cfg Config) (*running, error) {
	t.Helper()
	return startWith(t, cfg, func(*Node) {})
}

// startWith lets a test change the node between Open and Run.
func startWith(t testing.TB, cfg Config, change func(*Node)) (*running, error) {
	t.Helper()
	n, err := Open(t.Context(), cfg)
	// A node that comes back to its address may find another test on it, for as long as that takes.
	for until := time.Now().Add(3 * time.Minute); err != nil && strings.Contains(err.Error(), syscall.EADDRINUSE.Error()) && time.Now().Before(until); {
		<-time.After(50 * time.Millisecond)
		n, err = Open(t.Context(), cfg)
	}
	if err != nil {
		return nil, err
	}
	change(n)
	ctx, stop := context.WithCancel(context.Background())
	r := &running{Node: n, cfg: cfg, stop: stop, ended: make(chan struct{})}
	go func() {
		defer close(r.ended)
		r.err = n.Run(ctx)
	}()
	t.Cleanup(func() { r.halt(t) })
	return r, nil
}

// halt stops the node as a supervisor would, without stepping down; again does nothing.
func (r *running) halt(t testing.TB) {
	t.Helper()
	r.stop()
	select {
	case <-r.ended:
	case <-time.After(time.Minute):
		t.Fatalf("node %s does not end", r.id)
	}
	if r.cfg.DataDir == "" {
		return
	}
	if err := r.Close(); err != nil {
		t.Errorf("close node %s: %v", r.id, err)
	}
	r.cfg.DataDir = ""
}

// restart halts the node and starts another process on its data, at new addresses.
func (r *running) restart(t testing.TB, join ...string) *running {
	t.Helper()
	cfg := r.cfg
	r.halt(t)
	if join != nil {
		cfg.Join = join
	}
	return start(t, cfg)
}

// trio starts three nodes that form one cluster, and waits until all are ready voters.
func trio(t testing.TB) []*running {
	t.Helper()
	return form(t, 3, &testMark{})
}

// form starts expect fresh nodes.
func form(t testing.TB, expect int, mark Mark) []*running {
	t.Helper()
	nodes, _ := formWith(t, expect, mark, func(int, *Config) {}, func(*Node) {})
	return nodes
}

// formWith also answers the network between them, and lets a test change each node before it runs.
func formWith(t testing.TB, expect int, mark Mark, configure func(int, *Config), change func(*Node)) ([]*running, *network) {
	t.Helper()
	wires := newNetwork()
	nodes := make([]*running, expect)
	var join []string
	for i := range nodes {
		cfg := testConfig(t, mark)
		cfg.Name, cfg.Expect, cfg.Join = fmt.Sprintf("n%d", i), expect, join
		if i == 0 && expect > 1 {
			cfg.Join = []string{"127.0.0.1:1"} // nobody; the others find this one
		}
		own := new(string)
		cfg.Dial = wires.dialer(own)
		configure(i, &cfg)
		var err error
		if nodes[i], err = startWith(t, cfg, func(n *Node) { wires.name(own, n.advertise); change(n) }); err != nil {
			t.Fatalf("open node: %v", err)
		}
		_, gossip := nodes[i].Addresses()
		join = append(join, gossip)
	}
	settle(t, nodes)
	return nodes, wires
}

// settle waits until every node is ready and votes.
func settle(t testing.TB, nodes []*running) {
	t.Helper()
	for _, n := range nodes {
		eventually(t, "node "+n.id+" is ready", func() error { return n.Ready(t.Context()) })
	}
	eventually(t, "all vote", func() error {
		for _, n := range nodes {
			if v := voters(n.raft().GetConfiguration().Configuration()); len(v) != len(nodes) {
				return fmt.Errorf("%s knows the voters %v", n.id, v)
			}
		}
		return nil
	})
}

// eventually looks every few milliseconds until check is satisfied.
func eventually(t testing.TB, what string, check func() error) {
	t.Helper()
	deadline := time.Now().Add(3 * time.Minute) // of a machine that does much else, and of the race detector
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		<-time.After(5 * time.Millisecond)
	}
}

// inSomeTry is for what a busy machine may be too slow for, such as two steps within one lease: it is done again, however
// long one try takes.
func inSomeTry(t testing.TB, what string, try func() error) {
	t.Helper()
	const tries = 10
	for n := 1; ; n++ {
		err := try()
		if err == nil {
			return
		}
		if n == tries {
			t.Fatalf("%s: not in %d tries, the last: %v", what, tries, err)
		}
	}
}

// unlessBusy does a try, and again only where goroutines were late meanwhile, which whoever did not answer in time may have
// been too: a defect shows at once on a machine that has time.
func unlessBusy(t testing.TB, what string, try func() error) {
	t.Helper()
	inSomeTry(t, what, func() error {
		done, late := make(chan struct{}), make(chan time.Duration)
		go func() {
			var sum time.Duration
			for last := time.Now(); ; last = time.Now() {
				select {
				case <-done:
					late <- sum
					return
				case <-time.After(10 * time.Millisecond):
					if l := time.Since(last); l > 30*time.Millisecond {
						sum += l
					}
				}
			}
		}()
		err := try()
		close(done)
		if l := <-late; err != nil && l < 100*time.Millisecond {
			t.Fatalf("%s: %v, and the machine was late for %v only", what, err, l)
		}
		return err
	})
}

func leaderOf(t testing.TB, nodes []*running) (leader *running, followers []*running) {
	t.Helper()
	eventually(t, "one node leads", func() error {
		leader, followers = nil, nil
		for _, n := range nodes {
			if n.opened.Load() != nil {
				leader = n
			} else {
				followers = append(followers, n)
			}
		}
		if leader == nil || len(followers) != len(nodes)-1 {
			return errors.New("none, or several")
		}
		return nil
	})
	return leader, followers
}

// mustWrite commits a command that may be committed twice: where the leader is lost, which a busy machine may do to it, again.
// That requests do not fail is load's to show.
func mustWrite(t testing.TB, n *running, c *metav1.Command) {
	t.Helper()
	eventually(t, "write on "+n.id, func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_, err := n.Propose(ctx, proto.CloneOf(c))
		if k := meta.KindOf(err); err != nil && k != metav1.Kind_KIND_UNAVAILABLE && k != metav1.Kind_KIND_OUTCOME_UNKNOWN {
			t.Fatalf("write on %s: %v", n.id, err)
		}
		return err
	})
}

// putNode is a small write whose effect can be read back: the address book.
func putNode(id, address string) *metav1.Command {
	return &metav1.Command{
		Envelope: &metav1.Envelope{Actor: &metav1.Actor{Name: "test", Method: "system"}},
		Kind:     &metav1.Command_PutNode{PutNode: &metav1.PutNode{Node: &metav1.Node{Id: id, Address: address}}},
	}
}

// addressOf reads it, linearizably.
func addressOf(ctx context.Context, n *running, id string) (string, error) {
	var at string
	err := n.View(ctx, meta.Read{}, func(v *meta.View) error {
		nodes, err := v.Nodes()
		for _, m := range nodes {
			if m.GetId() == id {
				at = m.GetAddress()
			}
		}
		return err
	})
	return at, err
}

// dataOf is where a node keeps its data, halted or not.
func dataOf(n *running) string { return n.Node.cfg.DataDir }

func raftID(n *running) raft.ServerID           { return raft.ServerID(n.id) }
func raftAddress(n *running) raft.ServerAddress { return raft.ServerAddress(n.id) }
