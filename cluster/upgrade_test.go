package cluster

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// older plays the release before the command version could rise.
func older(_ int, c *Config) { c.oldest, c.newest = 1, 1 }

func encodeCommand(t testing.TB, c *metav1.Command) []byte {
	t.Helper()
	b, err := proto.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// upgraded restarts a node as the release that this is.
func upgraded(t testing.TB, n *running, join *running, change func(*Config)) *running {
	t.Helper()
	cfg := n.cfg
	n.halt(t)
	_, gossip := join.Addresses()
	cfg.oldest, cfg.newest, cfg.Dial, cfg.Join = 0, 0, nil, []string{gossip}
	cfg.upgradeAfter = 10 * time.Millisecond
	change(&cfg)
	again := start(t, cfg)
	// It has moved. Were the next one to move before the cluster knows, neither would find the other.
	eventually(t, "the address book has it where it is", func() error {
		for _, m := range join.nodes() {
			if m.GetId() == again.id && m.GetAddress() == again.advertise {
				return nil
			}
		}
		return errors.New("not yet")
	})
	return again
}

func versionIs(t testing.TB, nodes []*running, want uint32) {
	t.Helper()
	for _, n := range nodes {
		eventually(t, fmt.Sprintf("node %s has command version %d", n.id, want), func() error {
			if got := n.version(); got != want {
				return fmt.Errorf("it has %d", got)
			}
			return nil
		})
	}
}

func TestTheVersionRisesOnceAllAreUpgraded(t *testing.T) {
	t.Parallel()
	nodes, _ := formWith(t, 3, &testMark{}, older, func(*Node) {})
	versionIs(t, nodes, 1)
	tooNew := &metav1.Command{Kind: &metav1.Command_RaiseIncarnation{RaiseIncarnation: &metav1.RaiseIncarnation{Incarnation: 2, NodeId: "x"}}}
	for i := range nodes {
		// The door of the leader, asked by each: the old ones would stop at it (M2).
		if _, err := nodes[i].Propose(t.Context(), proto.CloneOf(tooNew)); meta.KindOf(err) != metav1.Kind_KIND_UNSUPPORTED ||
			!strings.Contains(err.Error(), "needs the command version 2, the cluster has 1") {
			t.Errorf("node %d: %v", i, err)
		}
		raise := &metav1.Command{Kind: &metav1.Command_RaiseVersion{RaiseVersion: &metav1.RaiseVersion{Version: 2}}}
		if _, err := nodes[i].Propose(t.Context(), raise); meta.KindOf(err) != preconditionKind {
			t.Errorf("node %d: to raise too early: %v", i, err)
		}
	}
	for i := range nodes {
		nodes[i] = upgraded(t, nodes[i], nodes[(i+1)%3], func(*Config) {})
		settle(t, nodes)
		if i < 2 && slices.ContainsFunc(nodes, func(n *running) bool { return n.version() != 1 }) {
			t.Error("it rose too early")
		}
	}
	versionIs(t, nodes, CommandVersion)

	// There is no way back.
	cfg := nodes[0].cfg
	cfg.oldest, cfg.newest = 1, 1
	nodes[0].halt(t)
	if _, err := tryStart(t, cfg); err == nil || !strings.Contains(err.Error(), "the cluster has command version 3, this release knows 1 to 1: install") {
		t.Errorf("an old release on an upgraded directory: %v", err)
	}
	late := newcomer(t, nodes[1], func(c *Config) { older(0, c) })
	<-late.ended
	if !errors.Is(late.err, errRefused) || !strings.Contains(late.err.Error(), "install the release that the other nodes run") {
		t.Errorf("an old release that joins: %v", late.err)
	}
}

func TestAManualUpgradeWaitsForFinalize(t *testing.T) {
	t.Parallel()
	manual := func(c *Config) { c.ManualUpgrade = true }
	nodes, _ := formWith(t, 3, &testMark{}, func(i int, c *Config) { older(i, c); manual(c) }, func(*Node) {})
	for i := range 2 {
		nodes[i] = upgraded(t, nodes[i], nodes[(i+1)%3], manual)
		settle(t, nodes)
	}
	eventually(t, "the old node alone is in the way", func() error {
		if leader, _ := leaderOf(t, nodes); leader == nodes[2] {
			_ = leader.StepDown(t.Context()) // one that was upgraded must lead
			return errors.New("it leads")
		}
		_, _, err := nodes[0].Finalize(t.Context(), operator())
		if meta.KindOf(err) != preconditionKind || !strings.Contains(err.Error(), nodes[2].id) {
			return fmt.Errorf("got %w", err)
		}
		return nil
	})
	newer := newcomer(t, nodes[0], func(c *Config) { c.oldest, c.newest = 2, CommandVersion+1 })
	<-newer.ended
	if newer.err == nil || !strings.Contains(newer.err.Error(), "this release needs at least 2: install a release between") {
		t.Errorf("a release that has forgotten version 1: %v", newer.err)
	}
	nodes[2] = upgraded(t, nodes[2], nodes[0], manual)
	settle(t, nodes)
	versionIs(t, nodes, 1)
	var before, now uint32
	eventually(t, "all have said what they understand", func() (err error) {
		before, now, err = nodes[1].Finalize(t.Context(), operator())
		if err != nil {
			return fmt.Errorf("finalize: %w", err)
		}
		return nil
	})
	if before != 1 || now != CommandVersion {
		t.Errorf("finalized from %d to %d", before, now)
	}
	versionIs(t, nodes, CommandVersion)
	if before, now, err := nodes[2].Finalize(t.Context(), operator()); err != nil || before != CommandVersion || now != CommandVersion {
		t.Errorf("again: %d, %d, %v", before, now, err)
	}
}
