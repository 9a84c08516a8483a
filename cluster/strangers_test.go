package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// lines is a log that tests read.
type lines struct {
	mu  sync.Mutex
	all []string
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, string(bytes.TrimSpace(b)))
	return len(b), nil
}

func (l *lines) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// has wants a line with all the words.
func (l *lines) has(words ...string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
search:
	for _, line := range l.all {
		for _, w := range words {
			if !strings.Contains(line, w) {
				continue search
			}
		}
		return nil
	}
	return fmt.Errorf("no line has %q", words)
}

func (l *lines) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.all)
}

func TestTwoClustersInSightAreRefusedUntilOneIsNamed(t *testing.T) {
	t.Parallel()
	unlessBusy(t, "both come in sight in time", func() error { // one that is not seen cannot be refused
		one, two := start(t, testConfig(t, nil)), start(t, testConfig(t, nil))
		settle(t, []*running{one})
		settle(t, []*running{two})
		_, a := one.Addresses()
		_, b := two.Addresses()
		join := func(c *Config) { c.Join, c.Expect = []string{a, b}, 2 }
		undecided := newcomer(t, one, join)
		joined := false
		eventually(t, "it says that there are two, or joins one", func() error {
			err := undecided.Ready(t.Context())
			joined = err == nil
			if !joined && !strings.Contains(err.Error(), "2 clusters are in sight") {
				return err
			}
			return nil
		})
		undecided.halt(t)
		if joined {
			one.halt(t)
			two.halt(t)
			return errors.New("it joined one")
		}
		named := newcomer(t, one, func(c *Config) { join(c); c.ClusterID = two.ClusterID() })
		eventually(t, "it joins the one that is named", func() error { return named.Ready(t.Context()) })
		if named.ClusterID() != two.ClusterID() || one.configured(named.id) {
			t.Errorf("it is of cluster %s", named.ClusterID())
		}
		return nil
	})
}

// TestStrangersInGossipChangeNothing sends what is no gossip, and gossip of another secret and of another name.
func TestStrangersInGossipChangeNothing(t *testing.T) {
	said := &lines{}
	cfg := testConfig(t, nil)
	cfg.Log = said.logger()
	n := start(t, cfg)
	settle(t, []*running{n})
	_, gossip := n.Addresses()
	before := said.count()
	for _, kind := range []string{"udp", "tcp"} {
		for i := range 200 {
			c, err := net.Dial(kind, gossip)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = c.Write(bytes.Repeat([]byte{byte(i)}, 1+i*5)) // whether it is read is not ours to know
			_ = c.Close()
		}
	}
	for _, change := range []func(*Config){
		func(c *Config) { c.Secrets = []string{"another-" + testSecret} },
		func(c *Config) { c.ClusterName = "another" },
	} {
		stranger := newcomer(t, n, change)
		eventually(t, "the stranger has tried", func() error {
			if err := stranger.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "1 in sight") {
				return fmt.Errorf("got %w", err)
			}
			return nil
		})
		stranger.halt(t)
	}
	if p := n.gossip.Peers(); len(p) != 0 {
		t.Errorf("peers are %v", p)
	}
	eventually(t, "it serves", func() error { return n.Ready(t.Context()) })
	if more := said.count() - before; more > 10 {
		said.mu.Lock()
		defer said.mu.Unlock()
		t.Errorf("%d lines in the log, the last: %s", more, said.all[len(said.all)-1])
	}
}

// TestANodePutsItsOwnEntryRight, which a copy of its directory wrote that ran while it was paused.
func TestANodePutsItsOwnEntryRight(t *testing.T) {
	t.Parallel()
	nodes := trio(t)
	own := nodes[1].self()
	is := func(want *metav1.Node) func() error {
		return func() error {
			for _, m := range nodes[0].nodes() {
				if m.GetId() == own.GetId() && proto.Equal(m, want) {
					return nil
				}
			}
			return errors.New("not yet")
		}
	}
	eventually(t, "the address book has it as it is", is(own)) // or it would be written again and again
	copied := proto.CloneOf(own)
	copied.Name, copied.Address, copied.BootId = "a-copy", "127.0.0.1:1", "another"
	if _, err := nodes[0].Propose(t.Context(), nodes[0].systemCommand(&metav1.Command{Kind: &metav1.Command_PutNode{PutNode: &metav1.PutNode{Node: copied}}})); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the address book has it as it is again", is(own))
}

// TestTheYoungerOfTwoCopiesEnds: the copy was cut off when it started, and then was not.
func TestTheYoungerOfTwoCopiesEnds(t *testing.T) {
	t.Parallel()
	nodes := trio(t)
	_, followers := leaderOf(t, nodes)
	original := followers[0]
	dir := filepath.Join(t.TempDir(), "data")
	if err := copyLive(dataOf(original), dir); err != nil {
		t.Fatal(err)
	}
	wires := newNetwork()
	cfg, self := original.cfg, "copy"
	cfg.DataDir, cfg.Dial, cfg.Expect = dir, wires.dialer(&self), 0
	_, gossip := nodes[0].Addresses()
	cfg.Join, cfg.GossipListen, cfg.Listen, cfg.Mark = []string{gossip}, "127.0.0.1:0", "127.0.0.1:0", nil
	cfg.Expect = 3
	wires.isolate(self)
	twin, err := tryStart(t, cfg)
	if err != nil {
		t.Fatalf("the copy does not start although it is cut off: %v", err)
	}
	wires.heal()
	select {
	case <-twin.ended:
	case <-time.After(time.Minute):
		t.Fatal("the copy runs on")
	}
	if twin.err == nil || !strings.Contains(twin.err.Error(), "the data directory was copied") {
		t.Errorf("it ended with %v", twin.err)
	}
	settle(t, nodes)
	select {
	case <-original.ended:
		t.Errorf("the original ended: %v", original.err)
	default:
	}
}

func TestADirectoryPutTogetherFromTwoIsRefused(t *testing.T) {
	n := start(t, testConfig(t, nil))
	settle(t, []*running{n})
	cfg := n.cfg
	n.halt(t)
	path := filepath.Join(cfg.DataDir, "node.json")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, bytes.ReplaceAll(text, []byte(n.ClusterID()), []byte("0123")), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := tryStart(t, cfg); err == nil || !strings.Contains(err.Error(), "put together from two") {
		t.Errorf("got %v", err)
	}
}

func TestATruncatedLogIsRefusedWithWhatToDo(t *testing.T) {
	t.Parallel()
	nodes := trio(t)
	roundTrip(t, nodes[0], nodes[1], "kept:1")
	_, followers := leaderOf(t, nodes)
	cfg := followers[0].cfg
	followers[0].halt(t)
	logs, err := openLog(filepath.Join(cfg.DataDir, "raft"), func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	last, err := logs.LastIndex()
	if err := errors.Join(err, logs.DeleteRange(last-2, last), logs.Close()); err != nil {
		t.Fatal(err)
	}
	cfg.Dial = nil
	if _, err := tryStart(t, cfg); err == nil || !strings.Contains(err.Error(), "empty its data directory and let it join as a new one") {
		t.Errorf("got %v", err)
	}
}
