package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
)

// same waits until all nodes have the same state at the same index.
func same(t testing.TB, nodes ...*running) {
	t.Helper()
	eventually(t, "all have the same state", func() error {
		index, sum := nodes[0].State()
		for _, n := range nodes[1:] {
			at, other := n.State()
			if at != index {
				return fmt.Errorf("%s is at %d, %s at %d", nodes[0].id, index, n.id, at)
			}
			if !bytes.Equal(sum, other) {
				t.Fatalf("at %d the states of %s and %s differ: %x, %x", at, nodes[0].id, n.id, sum, other)
			}
		}
		return nil
	})
}

// smallLogs makes nodes compact early.
func smallLogs(_ int, c *Config) { c.LogBytes = 128 << 10 }

// miss halts a follower, and writes until no log holds what it lacks. back is what it is to be started with, at its old addresses.
func miss(t *testing.T, nodes []*running) (leader, rest, away *running, back Config) {
	t.Helper()
	leader, followers := leaderOf(t, nodes)
	rest, away = followers[0], followers[1]
	lacks := away.raft().LastIndex()
	_, gossip := leader.Addresses()
	back = away.cfg
	back.Listen, back.GossipListen, back.Join = away.advertise, away.gossip.Addr().String(), []string{gossip}
	away.halt(t)
	fill(t, leader, 400<<10)
	eventually(t, "the logs begin after what it has", func() error {
		for _, n := range []*running{leader, rest} {
			if first := standingOf(t, n.Node).first; first <= lacks+1 {
				return fmt.Errorf("%s holds entries from %d, the follower lacks %d", n.id, first, lacks+1)
			}
		}
		return nil
	})
	return leader, rest, away, back
}

// TestAFollowerThatMissedMoreThanTheLogHoldsConverges, is ready again, and its log goes on.
func TestAFollowerThatMissedMoreThanTheLogHoldsConverges(t *testing.T) {
	t.Parallel()
	nodes, _ := formWith(t, 3, &testMark{}, smallLogs, func(*Node) {})
	leader, rest, _, cfg := miss(t, nodes)
	back := start(t, cfg)
	eventually(t, "it is ready", func() error { return back.Ready(t.Context()) })
	same(t, leader, rest, back)
	mustWrite(t, back, putNode("after", "the.install:1"))
	same(t, leader, rest, back)
	if got := standingOf(t, back.Node); got.first > got.witness+1 {
		t.Errorf("got %+v", got)
	}
	eventually(t, "no checkpoint is kept", func() error {
		if err := leader.outgoing.sweep(0); err != nil {
			return err
		}
		if left, _ := filepath.Glob(filepath.Join(dataOf(leader), outgoingName, "*")); len(left) > 0 {
			return errors.New(strings.Join(left, " "))
		}
		return nil
	})
}

// TestAFollowerKilledAtAnyStepOfAnInstallConverges: the same with real nodes, each step with the files as a kill leaves them.
func TestAFollowerKilledAtAnyStepOfAnInstallConverges(t *testing.T) {
	t.Parallel()
	nodes, _ := formWith(t, 3, &testMark{}, smallLogs, func(*Node) {})
	leader, rest, away, cfg := miss(t, nodes)
	dir := dataOf(away)
	for _, step := range []string{"downloaded", "raft is down", "term is raised", "pointer is written", "state is swapped", "log is wiped", "stub is written"} {
		copied, killed := filepath.Join(t.TempDir(), "copy"), errors.New("killed by the test")
		cfg.DataDir = filepath.Join(t.TempDir(), "data")
		if err := copyLive(dir, cfg.DataDir); err != nil {
			t.Fatal(err)
		}
		live := cfg.DataDir
		cfg.Step = func(name string) error {
			if name != step {
				return nil
			}
			return errors.Join(killed, copyLive(live, copied))
		}
		dying := start(t, cfg)
		<-dying.ended
		if !errors.Is(dying.err, killed) || errors.Is(dying.err, errNotCopied) {
			t.Fatalf("%s: the node ended with %v", step, dying.err)
		}
		dying.halt(t)
		cfg.DataDir, cfg.Step = copied, nil
		back := start(t, cfg)
		eventually(t, "it is ready", func() error { return back.Ready(t.Context()) })
		same(t, leader, rest, back)
		back.halt(t)
	}
}

// TestADivergentFollowerConverges: it has entries that nobody else has, where the others have compacted.
func TestADivergentFollowerConverges(t *testing.T) {
	t.Parallel()
	nodes, _ := formWith(t, 3, &testMark{}, smallLogs, func(*Node) {})
	leader, rest, away, _ := miss(t, nodes)
	again := make([]Config, 3)
	for i, n := range []*running{leader, rest, away} {
		n.halt(t)
		again[i] = n.Node.cfg
	}
	// As if it had led a term of its own and written, far beyond what the others
	// have now. They know of the term, and that they did not lead it.
	term := leader.raft().CurrentTerm() + 1
	for i, cfg := range again {
		logs, err := openLog(filepath.Join(cfg.DataDir, "raft"), func(err error) { t.Error(err) })
		if err != nil {
			t.Fatal(err)
		}
		last, err := logs.LastIndex()
		if err != nil {
			t.Fatal(err)
		}
		for at := last + 1; i == 2 && at < last+1500; at++ {
			if err := logs.StoreLog(&raft.Log{Index: at, Term: term, Type: raft.LogCommand, Data: emptyEntry()}); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(logs.SetUint64([]byte(termKey), term), logs.Close()); err != nil {
			t.Fatal(err)
		}
	}
	// The one with the longer log could win now: the others go first.
	one := start(t, again[0])
	_, gossip := one.Addresses()
	again[1].Join, again[2].Join = []string{gossip}, []string{gossip}
	two := start(t, again[1])
	leaderOf(t, []*running{one, two})
	back := start(t, again[2])
	eventually(t, "it is ready", func() error { return back.Ready(t.Context()) })
	same(t, one, two, back)
	eventually(t, "what nobody else has is gone", func() error { // the state is installed before the log is wiped
		if got := standingOf(t, back.Node); got.last > got.applied+100 {
			return fmt.Errorf("%+v", got)
		}
		return nil
	})
}

// TestANewNodeJoinsAClusterThatHasCompacted: it never sees the first entries.
func TestANewNodeJoinsAClusterThatHasCompacted(t *testing.T) {
	t.Parallel()
	nodes, _ := formWith(t, 3, &testMark{}, smallLogs, func(*Node) {})
	leader, _ := leaderOf(t, nodes)
	fill(t, leader, 400<<10)
	eventually(t, "the first entry is gone", func() error {
		for _, n := range nodes {
			if standingOf(t, n.Node).first < 2 {
				return errors.New(n.id)
			}
		}
		return nil
	})
	cfg := testConfig(t, nil)
	_, gossip := leader.Addresses()
	cfg.Join, cfg.LogBytes = []string{gossip}, 128<<10
	fourth := start(t, cfg)
	eventually(t, "the fourth is ready", func() error { return fourth.Ready(t.Context()) })
	same(t, append(nodes, fourth)...)
}
