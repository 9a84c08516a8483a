package cluster

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// lost halts all nodes and answers their configurations: each may be started again.
func lost(t testing.TB, nodes []*running) (cfgs []Config) {
	t.Helper()
	for _, n := range nodes {
		cfg := n.cfg
		n.halt(t)
		cfg.Dial, cfg.Join, cfg.Expect = nil, nil, 0
		cfgs = append(cfgs, cfg)
	}
	return cfgs
}

func recovered(t testing.TB, dir string) Standing {
	t.Helper()
	r, err := OpenRecovery(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(r.Recover(time.Now()), r.Close()); err != nil {
		t.Fatal(err)
	}
	return r.Standing
}

func TestANodeGoesOnAloneWithAllOfItsLogAndTheOthersAreRefused(t *testing.T) {
	t.Parallel()
	nodes := trio(t)
	roundTrip(t, nodes[0], nodes[1], "before:1")
	cluster := nodes[0].ClusterID()
	cfgs := lost(t, nodes)

	r, err := OpenRecovery(cfgs[0].DataDir)
	if err != nil {
		t.Fatal(err)
	}
	before := r.Standing
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if len(before.Voters) != 3 || before.LastIndex < before.Applied || before.LastTerm == 0 || before.ClusterID != cluster || before.Incarnation != 1 {
		t.Errorf("it stands at %+v", before)
	}
	// An entry that was never acknowledged: it becomes true all the same.
	append1(t, cfgs[0].DataDir, before, putNode("y", "never acknowledged:1"))
	after := recovered(t, cfgs[0].DataDir)
	if after.Incarnation != 2 || len(after.Voters) != 1 || after.LastTerm <= before.LastTerm {
		t.Errorf("recovered, it stands at %+v", after)
	}

	alone := start(t, cfgs[0])
	settle(t, []*running{alone})
	for id, want := range map[string]string{"y": "never acknowledged:1"} {
		if got, err := addressOf(t.Context(), alone, id); err != nil || got != want {
			t.Errorf("row %s reads %q, %v", id, got, err)
		}
	}
	system, err := alone.System()
	if err != nil || system.GetIncarnation() != 2 || alone.dir.who().Incarnation != 2 || system.GetClusterId() != cluster {
		t.Errorf("the state says %v, %v", system, err)
	}
	if term := alone.raft().CurrentTerm(); term <= after.LastTerm {
		t.Errorf("it leads in term %d, the log ends in %d (R-B5)", term, after.LastTerm)
	}

	// Two old members have a majority of their own: they end nevertheless, and what is new joins.
	_, gossip := alone.Addresses()
	for _, cfg := range cfgs[1:] {
		cfg.Join, cfg.Expect = []string{gossip}, 3
		old := start(t, cfg)
		select {
		case <-old.ended:
		case <-time.After(time.Minute):
			t.Fatal("an old member runs on")
		}
		if !errors.Is(old.err, ErrDeparted) || !strings.Contains(old.err.Error(), "recovered without it") || !strings.Contains(old.err.Error(), "empty the data directory") {
			t.Errorf("it ended with %v", old.err)
		}
	}
	fresh := newcomer(t, alone, asIs)
	eventually(t, "a new node joins", func() error { return fresh.Ready(t.Context()) })
	if fresh.dir.who().Incarnation != 2 {
		t.Errorf("the new node has incarnation %d", fresh.dir.who().Incarnation)
	}
	roundTrip(t, fresh, alone, "after:1")
}

// append1 writes an entry behind the log of a node that does not run.
func append1(t testing.TB, dir string, s Standing, c *metav1.Command) {
	t.Helper()
	r, err := OpenRecovery(dir)
	if err != nil {
		t.Fatal(err)
	}
	data := encodeEntry(0, 0, []*call{newCall(encodeCommand(t, c))})
	err = r.node.logs.StoreLog(&raft.Log{Index: s.LastIndex + 1, Term: s.LastTerm, Type: raft.LogCommand, Data: data})
	if err := errors.Join(err, r.Close()); err != nil {
		t.Fatal(err)
	}
}

// brokenLog fails the write of entries, or of the term.
type brokenLog struct {
	LogDisk
	entries, term bool
}

var errBroken = errors.New("broken by the test")

func (b brokenLog) StoreLogs(l []*raft.Log) error {
	if b.entries {
		return errBroken
	}
	return b.LogDisk.StoreLogs(l)
}

func (b brokenLog) SetUint64(k []byte, v uint64) error {
	if b.term {
		return errBroken
	}
	return b.LogDisk.SetUint64(k, v)
}

// TestARecoveryThatACrashCutShortIsDoneAgain stops it before each of its steps.
func TestARecoveryThatACrashCutShortIsDoneAgain(t *testing.T) {
	t.Parallel()
	nodes := trio(t)
	roundTrip(t, nodes[0], nodes[1], "kept:1")
	cfg := lost(t, nodes)[0]
	for _, broken := range []brokenLog{{term: true}, {entries: true}} {
		r, err := OpenRecovery(cfg.DataDir)
		if err != nil {
			t.Fatal(err)
		}
		broken.LogDisk = r.node.logs.disk
		r.node.logs.disk = broken
		if err := r.Recover(time.Now()); !errors.Is(err, errBroken) {
			t.Fatalf("got %v", err)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		// Started as it is, it is still one of three, and does nothing alone.
		n := start(t, cfg)
		if n.Ready(t.Context()) == nil || len(voters(n.raft().GetConfiguration().Configuration())) != 3 {
			t.Error("half a recovery decides alone")
		}
		n.halt(t)
	}
	if got := recovered(t, cfg.DataDir).Incarnation; got != 3 {
		t.Errorf("incarnation %d, expected 3: one for each time that was begun", got)
	}
	alone := start(t, cfg)
	settle(t, []*running{alone})
	system, err := alone.System()
	if err != nil || system.GetIncarnation() != 3 {
		t.Errorf("the state says %v, %v", system, err)
	}
	roundTrip(t, alone, alone, "alone:1")
}

func TestARecoveryIsRefusedWhereItWouldHarm(t *testing.T) {
	n := start(t, testConfig(t, nil))
	settle(t, []*running{n})
	if _, err := OpenRecovery(n.cfg.DataDir); err == nil || !strings.Contains(err.Error(), "another process uses it") {
		t.Errorf("of a node that runs: %v", err)
	}
	if _, err := OpenRecovery(t.TempDir()); err == nil || !strings.Contains(err.Error(), "look for a node in") {
		t.Errorf("of nothing: %v", err)
	}
	cfg := testConfig(t, nil)
	cfg.Join, cfg.Expect = []string{"127.0.0.1:1"}, 3
	waiting := start(t, cfg)
	waiting.halt(t)
	if _, err := OpenRecovery(waiting.Node.cfg.DataDir); err == nil || !strings.Contains(err.Error(), "belongs to no cluster yet") {
		t.Errorf("of a node without a cluster: %v", err)
	}
}

// TestARecoveryByANewerReleaseRaisesTheVersion: nobody had told the book that this node was upgraded, and the
// incarnation that is logged is beyond the old version: a node of the older release must not be let in to stop at it.
func TestARecoveryByANewerReleaseRaisesTheVersion(t *testing.T) {
	t.Parallel()
	nodes, _ := formWith(t, 3, &testMark{}, older, func(*Node) {})
	crewed(t, nodes, nil)
	cfg := lost(t, nodes)[0]
	recovered(t, cfg.DataDir)
	cfg.oldest, cfg.newest = 0, 0
	alone := start(t, cfg)
	eventually(t, "ready", func() error { return alone.Ready(t.Context()) })
	if system, err := alone.System(); err != nil || system.GetVersion() != CommandVersion || system.GetIncarnation() != 2 {
		t.Errorf("the cluster is %v, %v", system, err)
	}
}

func TestALifeNamesThoseThatItComesFrom(t *testing.T) {
	first, apart := nextLife(""), nextLife("")
	if first == apart || strings.Contains(first, ".") {
		t.Errorf("two lives that begin apart are %s and %s", first, apart)
	}
	life := first
	for i := range 20 {
		next := nextLife(life)
		if len(next) > 255 || !strings.Contains(next, life[strings.LastIndexByte(life, '.')+1:]+".") {
			t.Fatalf("recovery %d made %s of %s", i, next, life)
		}
		life = next
	}
}
