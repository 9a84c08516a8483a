package cluster

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pontoon-registry/pontoon/meta"
	clusterv1 "github.com/pontoon-registry/pontoon/proto/pontoon/cluster/v1"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// alone starts one node without a network.
func alone(t *testing.T) *running {
	t.Helper()
	cfg := testConfig(t, nil)
	cfg.Listen, cfg.GossipListen, cfg.Secrets = "", "", nil
	n := start(t, cfg)
	settle(t, []*running{n})
	return n
}

func TestALateRegistrationOfAnOlderBootDoesNotSilenceTheNode(t *testing.T) {
	n := alone(t)
	roundTrip(t, n, n, "before:1")
	// The copy lay in a queue while the node was started anew.
	late := newOrigin(n.id, "an-older-boot")
	if _, err := n.Propose(t.Context(), late.register()); err != nil {
		t.Fatal(err)
	}
	roundTrip(t, n, n, "after:1")
}

func TestACopyOfACommandHasNoEffectOnceItsOriginWasForgotten(t *testing.T) {
	n := alone(t)
	roundTrip(t, n, n, "before:1")
	// A command takes effect, its answer is lost, so its sequence stays outstanding.
	id, err := n.proposer.origin.begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer n.proposer.origin.end(id.GetSequence())
	doubtful := putNode("y", "first:1")
	doubtful.Envelope.Origin = id
	if result, _, err := n.proposer.encoded(t.Context(), doubtful); err != nil || result.GetRefusal() != nil {
		t.Fatal(result, err)
	}
	eventually(t, "the node is in the address book", func() error {
		_, err := n.Propose(t.Context(), n.systemCommand(&metav1.Command{Kind: &metav1.Command_RemoveNode{RemoveNode: &metav1.RemoveNode{Id: n.id}}}))
		return err
	})
	if _, err := n.Propose(t.Context(), putNode("y", "second:1")); err != nil { // registers again
		t.Fatal(err)
	}
	if result, _, err := n.proposer.encoded(t.Context(), doubtful); err != nil || !originUnknown(result) {
		t.Errorf("the copy was answered %v, %v", result, err)
	}
	if got, err := addressOf(t.Context(), n, "y"); err != nil || got != "second:1" {
		t.Errorf("after the copy the state has %q, %v", got, err)
	}
}

func TestRegisteringKeepsNobodyWaitingBeyondHisOwnTime(t *testing.T) {
	synctest.Test(t, registerWithAStuckLeader)
}

// registerWithAStuckLeader, which takes commands and never answers.
func registerWithAStuckLeader(t *testing.T) {
	asked := make(chan struct{}, 100)
	stuck := fakeProposer(t, func(ctx context.Context) (*clusterv1.ProposeResponse, error) {
		asked <- struct{}{}
		<-ctx.Done()
		return nil, status.FromContextError(ctx.Err()).Err()
	})
	first := make(chan error, 1)
	go func() { _, err := stuck.propose(t.Context(), putNode("x", "a:1")); first <- err }()
	<-asked
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err := stuck.propose(ctx, putNode("x", "b:1"))
	if took := time.Since(began); took > 20*time.Millisecond || !isUnavailable(err) {
		t.Errorf("a caller with 10 ms waited %v for %v", took, err)
	}
	if err := <-first; !isUnavailable(err) || time.Since(began) > stuck.hold+time.Second {
		t.Errorf("the first caller waited %v for %v, want unavailable", time.Since(began), err)
	}
}

// fakeProposer forwards everything to a leader that answers by the function.
func fakeProposer(t *testing.T, answer func(context.Context) (*clusterv1.ProposeResponse, error)) *proposer {
	t.Helper()
	l := newLeaders()
	l.set("leader")
	f := &forwarder{queue: newQueue(), leaders: l, self: "me", peer: func(string) (clusterv1.NodeServiceClient, error) {
		return answering{propose: answer}, nil
	}}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- f.run(ctx) }()
	t.Cleanup(func() { stop(); <-ended })
	return &proposer{self: "me", origin: newOrigin("me", "b"), leaders: l, forward: f, hold: 2 * time.Second, metrics: noMetrics{}, permit: func(*metav1.Command) error { return nil },
		registering: make(chan struct{}, 1), wait: func(context.Context, uint64) error { return nil }}
}

type answering struct {
	clusterv1.NodeServiceClient
	propose func(context.Context) (*clusterv1.ProposeResponse, error)
}

func (a answering) Propose(ctx context.Context, _ *clusterv1.ProposeRequest, _ ...grpc.CallOption) (*clusterv1.ProposeResponse, error) {
	return a.propose(ctx)
}

func TestAWriteThatNeverLeftTheNodeIsUnavailableAndNotUnknown(t *testing.T) {
	t.Parallel()
	nodes, wires := formWith(t, 3, &testMark{}, func(_ int, c *Config) { c.Hold = 500 * time.Millisecond }, func(*Node) {})
	var cutOff *running
	inSomeTry(t, "a node that does not lead is cut off", func() error { // it may come to lead meanwhile, and then has taken the write
		_, followers := leaderOf(t, nodes)
		cutOff = followers[0]
		roundTrip(t, cutOff, cutOff, "x:1")
		wires.isolate(cutOff.advertise)
		// A write on a connection of which it does not know yet that it is broken has left the node.
		eventually(t, "it has no connections", func() error {
			if n := len(cutOff.host.Standing()); n > 0 {
				return fmt.Errorf("%d stand", n)
			}
			return nil
		})
		if cutOff.opened.Load() != nil {
			wires.heal()
			return errors.New("it leads")
		}
		return nil
	})
	for range 5 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		began := time.Now()
		_, err := cutOff.Propose(ctx, putNode("x", "y:1"))
		cancel()
		if took := time.Since(began); !isUnavailable(err) || took > 30*time.Second {
			t.Fatalf("after %v: %v, want unavailable after half a second", took, err)
		}
	}
}

func TestACallThatMayHaveReachedTheLeaderIsUnknown(t *testing.T) {
	if got := meta.KindOf(lostCall("l", status.Error(codes.Unavailable, "broken pipe"), true)); got != metav1.Kind_KIND_OUTCOME_UNKNOWN {
		t.Errorf("got %v", got)
	}
	if got := meta.KindOf(lostCall("l", status.Error(codes.Unavailable, "connection refused"), false)); got != metav1.Kind_KIND_UNAVAILABLE {
		t.Errorf("got %v", got)
	}
}
