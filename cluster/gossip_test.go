package cluster

import (
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
	"go.uber.org/goleak"
)

// gossiper is a running gossip; stop ends it and waits.
type gossiper struct {
	*gossip
	t    *testing.T
	stop func()
}

func startGossip(t *testing.T, cfg gossipConfig, join func() []string) *gossiper {
	t.Helper()
	if cfg.Listen == "" {
		cfg.Listen = "127.0.0.1:0"
	}
	if cfg.Keys == nil {
		cfg.Keys = mustTrust(t, "any", secretA).GossipKeys()
	}
	if cfg.Meta.NodeAddr == "" {
		cfg.Meta.NodeAddr = "127.0.0.1:7947"
	}
	cfg.Log = slog.New(slog.DiscardHandler)
	g, err := openGossip(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx, join) }()
	s := &gossiper{gossip: g, t: t}
	stopped := false
	s.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(s.stop)
	return s
}

// until waits for a change after which the peers are as wanted.
func (g *gossiper) until(what string, ok func([]Peer) bool) {
	g.t.Helper()
	limit := time.After(time.Minute)
	for !ok(g.Peers()) {
		select {
		case <-g.Changed():
		case <-limit:
			g.t.Fatalf("%s: never %s; peers are %+v", g.cfg.NodeID, what, g.Peers())
		}
	}
}

func joining(to ...*gossiper) func() []string {
	return func() []string {
		var entries []string
		for _, g := range to {
			entries = append(entries, g.Addr().String())
		}
		return entries
	}
}

func nobody() []string { return nil }

func ids(n ...string) func([]Peer) bool {
	return func(peers []Peer) bool {
		var got []string
		for _, p := range peers {
			got = append(got, p.ID)
		}
		return strings.Join(got, " ") == strings.Join(n, " ")
	}
}

func TestNodesFindEachOtherThroughOneAddress(t *testing.T) {
	t.Parallel()
	a := startGossip(t, gossipConfig{NodeID: "a", Label: "x"}, nobody)
	b := startGossip(t, gossipConfig{NodeID: "b", Label: "x", Meta: PeerMeta{NodeAddr: ":9001", Name: "bee", ClusterID: "c1", Incarnation: 3, MinVersion: 1, MaxVersion: 2, Release: "v1"}}, joining(a))
	c := startGossip(t, gossipConfig{NodeID: "c", Label: "x"}, joining(a))
	a.until("saw both", ids("b", "c"))
	b.until("saw both", ids("a", "c"))
	c.until("saw both", ids("a", "b"))
	want := Peer{ID: "b", GossipAddr: b.Addr(), PeerMeta: PeerMeta{NodeAddr: "127.0.0.1:9001", Name: "bee", ClusterID: "c1", Incarnation: 3, MinVersion: 1, MaxVersion: 2, Release: "v1"}}
	if got := c.Peers()[1]; got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if addr, ok := c.Resolve("b"); addr != "127.0.0.1:9001" || !ok {
		t.Errorf("resolved to %q, %v", addr, ok)
	}
	if _, ok := c.Resolve("c"); ok {
		t.Error("a node resolves itself")
	}

	eventually(t, "another one was told", func() error { return b.UpdateMeta(PeerMeta{NodeAddr: ":9002", ClusterID: "c2"}) })
	c.until("heard the news", func([]Peer) bool { addr, _ := c.Resolve("b"); return addr == "127.0.0.1:9002" })

	if err := b.Leave(time.Minute); err != nil {
		t.Fatal(err)
	}
	b.stop()
	c.until("saw b leave", ids("a"))
	a.until("saw b leave", ids("c"))

	// The same node elsewhere: its port is another one now.
	back := startGossip(t, gossipConfig{NodeID: "b", Label: "x"}, joining(a))
	c.until("saw b come back", func(peers []Peer) bool { return ids("a", "b")(peers) && peers[1].GossipAddr == back.Addr() })
}

func TestANodeThatCrashedIsFoundAtItsNewAddress(t *testing.T) {
	t.Parallel()
	a := startGossip(t, gossipConfig{NodeID: "a"}, nobody)
	b := startGossip(t, gossipConfig{NodeID: "b"}, joining(a))
	a.until("saw b", ids("b"))
	b.stop() // says nothing
	back := startGossip(t, gossipConfig{NodeID: "b", Meta: PeerMeta{NodeAddr: "127.0.0.1:9009"}}, joining(a))
	a.until("followed b", func(peers []Peer) bool { return ids("b")(peers) && peers[0].GossipAddr == back.Addr() })
	if addr, _ := a.Resolve("b"); addr != "127.0.0.1:9009" {
		t.Errorf("resolved to %s", addr)
	}
}

func TestANodeWhoseJoinAddressesComeToLifeLaterFindsThem(t *testing.T) {
	t.Parallel()
	a := startGossip(t, gossipConfig{NodeID: "a"}, nobody)
	asked := make(chan struct{}, 1)
	var turn int
	b := startGossip(t, gossipConfig{NodeID: "b"}, func() []string {
		if turn++; turn == 1 {
			asked <- struct{}{}
			return []string{"127.0.0.1:1", "no such host:1", ""} // nobody there, nonsense, nothing
		}
		return []string{a.Addr().String()}
	})
	<-asked
	b.until("found a", ids("a"))
}

func TestGossipOfAnotherSecretOrLabelIsNotHeard(t *testing.T) {
	t.Parallel()
	a := startGossip(t, gossipConfig{NodeID: "a", Label: "x"}, nobody)
	for _, cfg := range []gossipConfig{
		{NodeID: "b", Label: "x", Keys: mustTrust(t, "any", secretB).GossipKeys()},
		{NodeID: "c", Label: "y"},
	} {
		g := startGossip(t, cfg, nobody)
		if err := g.contact(t.Context(), []string{a.Addr().String()}); err == nil {
			t.Errorf("%s made contact", cfg.NodeID)
		}
		if len(g.Peers()) > 0 {
			t.Errorf("%s sees %+v", cfg.NodeID, g.Peers())
		}
	}
	if len(a.Peers()) > 0 {
		t.Errorf("sees %+v", a.Peers())
	}
}

func TestGossipKeysAreChangedWithoutLosingContact(t *testing.T) {
	t.Parallel()
	both := mustTrust(t, "any", secretA, secretB).GossipKeys()
	a := startGossip(t, gossipConfig{NodeID: "a"}, nobody)
	b := startGossip(t, gossipConfig{NodeID: "b"}, joining(a))
	a.until("saw b", ids("b"))
	for _, keys := range [][][]byte{both, {both[1], both[0]}, both[1:]} {
		for _, g := range []*gossiper{a, b} {
			if err := g.SetKeys(keys); err != nil {
				t.Fatal(err)
			}
		}
		eventually(t, "they talk", func() error {
			_, err := b.list.Join([]string{a.Addr().String()})
			return err
		})
	}
	if n := len(a.keyring.GetKeys()); n != 1 {
		t.Errorf("%d keys are left", n)
	}
	old := startGossip(t, gossipConfig{NodeID: "c"}, nobody)
	if err := old.contact(t.Context(), []string{a.Addr().String()}); err == nil {
		t.Error("the old key is still heard")
	}
}

func TestMetaThatDoesNotFitIsRefusedByLength(t *testing.T) {
	cfg := gossipConfig{NodeID: "a", Listen: "127.0.0.1:0", Keys: mustTrust(t, "a", secretA).GossipKeys(), Log: slog.New(slog.DiscardHandler)}
	cfg.Meta = PeerMeta{Name: strings.Repeat("n", 600)}
	if _, err := openGossip(cfg); err == nil || !strings.Contains(err.Error(), "must be at most 512: shorten the name (600 bytes)") {
		t.Errorf("got %v", err)
	}
}

func TestMembersThatMakeNoSenseAreRefused(t *testing.T) {
	good := memberlist.Node{Name: "b", Addr: []byte{127, 0, 0, 1}, Port: 1, Meta: []byte(`{"a":"h:1"}`)}
	if _, err := readPeer(&good); err != nil {
		t.Fatal(err)
	}
	for what, spoil := range map[string]func(*memberlist.Node){
		"id":         func(n *memberlist.Node) { n.Name = "../b" },
		"address":    func(n *memberlist.Node) { n.Addr = nil },
		"no meta":    func(n *memberlist.Node) { n.Meta = nil },
		"bad meta":   func(n *memberlist.Node) { n.Meta = []byte(`{"a":7}`) },
		"no port":    func(n *memberlist.Node) { n.Meta = []byte(`{"a":"host"}`) },
		"no address": func(n *memberlist.Node) { n.Meta = []byte(`{}`) },
	} {
		bad := good
		spoil(&bad)
		if p, err := readPeer(&bad); err == nil {
			t.Errorf("%s: got %+v", what, p)
		}
	}
}

func TestJoinEntriesMayLeaveOutThePort(t *testing.T) {
	for entry, want := range map[string]string{
		"10.0.0.1":         "10.0.0.1 7946",
		"10.0.0.1:99":      "10.0.0.1 99",
		"pontoon.svc":      "pontoon.svc 7946",
		"pontoon.svc:7000": "pontoon.svc 7000",
		"fd00::1":          "fd00::1 7946",
		"[fd00::1]":        "fd00::1 7946",
		"[fd00::1]:1":      "fd00::1 1",
		"":                 "",
		":1":               "",
		"h:0":              "",
		"h:65536":          "",
		"h:x":              "",
		"h:1:2":            "",
	} {
		host, port, err := splitJoin(entry, 7946)
		got := ""
		if err == nil {
			got = host + " " + netip.AddrPortFrom(netip.IPv4Unspecified(), port).String()[len("0.0.0.0:"):]
		}
		if got != want {
			t.Errorf("%q: got %q (%v), want %q", entry, got, err, want)
		}
	}
}

func TestGossipLeavesNoGoroutineBehind(t *testing.T) {
	before := goleak.IgnoreCurrent()
	a := startGossip(t, gossipConfig{NodeID: "a"}, nobody)
	b := startGossip(t, gossipConfig{NodeID: "b"}, joining(a))
	a.until("saw b", ids("b"))
	b.stop()
	a.stop()
	// A stream of memberlist's ends when its peer is gone or after TCPTimeout, a probe by its own timeout.
	eventually(t, "all have ended", func() error { return goleak.Find(before) })
}
