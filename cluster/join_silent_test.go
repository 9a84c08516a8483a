package cluster

import "testing"

func TestAMemberThatDoesNotAnswerKeepsNobodyFromJoining(t *testing.T) {
	t.Parallel()
	nodes, wires := formWith(t, 3, &testMark{}, func(int, *Config) {}, func(*Node) {})
	// Gossip still sees it, calls do not reach it.
	wires.isolate(nodes[2].advertise)
	leader, _ := leaderOf(t, nodes[:2])
	cfg := testConfig(t, nil)
	_, gossip := leader.Addresses()
	own := new(string)
	cfg.Join, cfg.Expect, cfg.Dial = []string{gossip}, 3, wires.dialer(own)
	late, err := startWith(t, cfg, func(n *Node) { wires.name(own, n.advertise) })
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the late node is ready", func() error { return late.Ready(t.Context()) })
	roundTrip(t, late, late, "joined:1")
}
