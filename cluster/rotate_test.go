package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/pontoon-registry/pontoon/cluster/transport"
	clusterv1 "github.com/pontoon-registry/pontoon/proto/pontoon/cluster/v1"
)

// load writes and reads through every node until stop, which answers how many requests there were and fails the test for each that failed.
func load(t *testing.T, nodes []*running) (stop func() int64) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var done atomic.Int64
	var failed sync.Map
	var all sync.WaitGroup
	for i, n := range nodes {
		for w := range 4 {
			all.Go(func() {
				id := fmt.Sprintf("load-%d-%d", i, w)
				for round := 0; ctx.Err() == nil; round++ {
					want := fmt.Sprintf("%d:1", round)
					call, end := context.WithTimeout(context.Background(), time.Minute)
					_, err := n.Propose(call, putNode(id, want))
					got := ""
					if err == nil {
						got, err = addressOf(call, n, id)
					}
					end()
					if err == nil && got != want {
						err = fmt.Errorf("wrote %s, read %s", want, got)
					}
					if err != nil {
						failed.Store(fmt.Sprintf("%s round %d", id, round), err)
					}
					done.Add(1)
				}
			})
		}
	}
	stop = sync.OnceValue(func() int64 {
		cancel()
		all.Wait()
		failed.Range(func(what, err any) bool { t.Errorf("%s: %v", what, err); return true })
		return done.Load()
	})
	t.Cleanup(func() { stop() })
	return stop
}

// standBy waits until every member's connections are authenticated by the one authority, as TrustReport tells.
func standBy(t *testing.T, asked *running, id string, members int) {
	t.Helper()
	eventually(t, "all connections stand by "+id, func() error {
		report := asked.TrustReport(t.Context())
		if len(report) != members {
			return fmt.Errorf("%d members", len(report))
		}
		for _, m := range report {
			if m.Err != nil {
				return m.Err
			}
			total := uint32(0)
			for _, s := range append(m.Report.GetSecrets(), m.Report.GetAuthorities()...) {
				total += s.GetConnections()
				if s.GetId() != id && s.GetConnections() > 0 {
					return fmt.Errorf("%s has %d connections by %s", m.GetId(), s.GetConnections(), s.GetId())
				}
			}
			if total == 0 {
				return fmt.Errorf("%s has no connections", m.GetId())
			}
		}
		return nil
	})
}

func TestTheSecretRotatesUnderLoadWithoutAFailedRequest(t *testing.T) {
	t.Parallel()
	nodes, _ := formWith(t, 3, &testMark{}, func(_ int, c *Config) { c.Secrets = []string{secretA} }, func(*Node) {})
	old, next := mustTrust(t, "x", secretA).SecretIDs()[0], mustTrust(t, "x", secretB).SecretIDs()[0]
	stop := load(t, nodes)
	standBy(t, nodes[0], old, 3)
	for _, step := range []struct {
		secrets []string
		by      string
	}{{[]string{secretA, secretB}, old}, {[]string{secretB, secretA}, next}, {[]string{secretB}, next}} {
		for i, n := range nodes {
			if err := n.SetSecrets(step.secrets); err != nil {
				t.Fatal(err)
			}
			// Requests cross the cluster while its nodes are at different steps.
			if _, err := nodes[(i+1)%3].Propose(t.Context(), putNode(fmt.Sprintf("step-%d", i), "a:1")); err != nil {
				t.Fatal(err)
			}
		}
		standBy(t, nodes[0], step.by, 3)
		for _, n := range nodes {
			eventually(t, "gossip goes on", func() error { // a busy machine may have it take a peer for dead, for a moment
				if peers := n.gossip.Peers(); len(peers) != 2 {
					return fmt.Errorf("node %s sees %d peers", n.id, len(peers))
				}
				return nil
			})
			if keys := n.gossip.keyring.GetKeys(); len(keys) != len(step.secrets) || string(keys[0]) != string(n.trust.GossipKeys()[0]) {
				t.Errorf("the keyring of node %s has %d keys, or another first one", n.id, len(keys))
			}
		}
	}
	if n := stop(); n == 0 {
		t.Fatal("nothing was written")
	}
}

// hostOf is a host that does not run: it is told nothing, and keeps whatever it has opened as long as it can.
func hostOf(t *testing.T, creds *Trust, nodeID string) *transport.Host {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	h, err := transport.New(transport.Config{
		NodeID: nodeID, Listener: listener, Credentials: creds,
		Resolve: func(string) (string, bool) { return "", false }, Identity: func() (string, uint64) { return "", 0 },
	})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestARemovedSecretOpensNothingAndKeepsNothingOpen(t *testing.T) {
	t.Parallel()
	nodes, _ := formWith(t, 3, &testMark{}, func(_ int, c *Config) { c.Secrets = []string{secretA} }, func(*Node) {})
	old := mustTrust(t, "x", secretA).SecretIDs()[0]
	loyal, stale := nodes[:2], nodes[2]
	conn, err := hostOf(t, mustTrust(t, "thief", secretA), "thief").Dial(loyal[0].advertise)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ask := func() error {
		_, err := clusterv1.NewNodeServiceClient(conn).Describe(t.Context(), &clusterv1.DescribeRequest{}, grpc.WaitForReady(false))
		return err
	}
	if err := ask(); err != nil {
		t.Fatalf("the thief, while its secret is good: %v", err)
	}
	for _, secrets := range [][]string{{secretA, secretB}, {secretB, secretA}, {secretB}} {
		for _, n := range loyal {
			if err := n.SetSecrets(secrets); err != nil {
				t.Fatal(err)
			}
		}
	}
	began := time.Now()
	for _, n := range loyal {
		eventually(t, "node "+n.id+" cuts what stands by the old secret", func() error {
			for _, s := range n.host.Standing() {
				if s.By == old {
					return fmt.Errorf("one with %s stands, accepted %v", s.Peer, s.Accepted)
				}
			}
			return nil
		})
	}
	if took := time.Since(began); took > time.Minute { // two looks, seconds apart, and what a busy machine adds
		t.Errorf("connections of the old secret stood for %v", took)
	}
	eventually(t, "the thief is refused", func() error {
		if err := ask(); err == nil || !strings.Contains(err.Error(), "does not hold this cluster's secret") {
			return fmt.Errorf("it got %w", err)
		}
		return nil
	})
	eventually(t, "it may not ask to join", func() error {
		_, err := clusterv1.NewNodeServiceClient(conn).Join(t.Context(), &clusterv1.JoinRequest{})
		if err == nil {
			t.Fatal("it joins")
		}
		if !strings.Contains(err.Error(), "secret") {
			return err
		}
		return nil
	})
	eventually(t, "gossip forgets the stale node", func() error {
		for _, n := range loyal {
			if _, seen := n.gossip.Resolve(stale.id); seen {
				return errors.New("it is seen by " + n.id)
			}
		}
		return nil
	})
	eventually(t, "the stale node has nothing open", func() error {
		if c := len(stale.host.Standing()); c > 0 {
			return fmt.Errorf("%v", stale.host.Standing())
		}
		return nil
	})
	if _, err := stale.gossip.list.Join([]string{loyal[0].gossip.Addr().String()}); err == nil {
		t.Error("the stale node joins gossip")
	}
	// As a server it is as strange: nobody gives it a request.
	if _, err := tls.Dial("tcp", stale.advertise, loyal[0].trust.ClientTLS(stale.id)); err == nil {
		t.Error("a node of the new secret accepts one of the old")
	}
	eventually(t, "the others go on", func() error { // the call that stood by the old secret was cut
		_, err := loyal[0].Propose(t.Context(), putNode("after", "a:1"))
		return err
	})
}

// TestASecretReplacedAtOnceCostsSecondsOnly: the fast way, for one that was stolen, as the runbook says.
func TestASecretReplacedAtOnceCostsSecondsOnly(t *testing.T) {
	t.Parallel()
	nodes, _ := formWith(t, 3, &testMark{}, func(_ int, c *Config) { c.Secrets = []string{secretA} }, func(*Node) {})
	for _, n := range nodes {
		if err := n.SetSecrets([]string{secretB}); err != nil {
			t.Fatal(err)
		}
	}
	standBy(t, nodes[0], mustTrust(t, "x", secretB).SecretIDs()[0], 3)
	for i, n := range nodes {
		eventually(t, "writes go on", func() error {
			_, err := n.Propose(t.Context(), putNode(fmt.Sprintf("n%d", i), "a:1"))
			return err
		})
		eventually(t, "gossip goes on", func() error {
			if peers := n.gossip.Peers(); len(peers) != 2 {
				return fmt.Errorf("node %s sees %d peers", n.id, len(peers))
			}
			return nil
		})
	}
}
