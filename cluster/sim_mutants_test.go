package cluster

import (
	"context"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	clusterv1 "github.com/pontoon-registry/pontoon/proto/pontoon/cluster/v1"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// bentPeer is another node's service, with a defect of the caller on the way.
type bentPeer struct {
	clusterv1.NodeServiceClient
	readIndex func(*clusterv1.ReadIndexResponse)
	propose   func(*clusterv1.ProposeRequest)
}

func (p bentPeer) ReadIndex(ctx context.Context, in *clusterv1.ReadIndexRequest, o ...grpc.CallOption) (*clusterv1.ReadIndexResponse, error) {
	out, err := p.NodeServiceClient.ReadIndex(ctx, in, o...)
	if err == nil && p.readIndex != nil {
		p.readIndex(out)
	}
	return out, err
}

func (p bentPeer) Propose(ctx context.Context, in *clusterv1.ProposeRequest, o ...grpc.CallOption) (*clusterv1.ProposeResponse, error) {
	if p.propose != nil {
		p.propose(in)
	}
	return p.NodeServiceClient.Propose(ctx, in, o...)
}

type peerFunc = func(id string) (clusterv1.NodeServiceClient, error)

func bend(peer peerFunc, with func(id string) bentPeer) peerFunc {
	return func(id string) (clusterv1.NodeServiceClient, error) {
		c, err := peer(id)
		b := with(id)
		b.NodeServiceClient = c
		return b, err
	}
}

// readWithoutVoters believes whoever says that it leads.
func readWithoutVoters(n *Node) {
	n.reader.local = func() (readIndex, error) {
		at, err := n.readIndex()
		at.voters = []string{n.id}
		return at, err
	}
	n.reader.peer = bend(n.reader.peer, func(id string) bentPeer {
		return bentPeer{readIndex: func(r *clusterv1.ReadIndexResponse) { r.Voters = []string{id} }}
	})
}

// readWithoutWaiting serves from the state as it is.
func readWithoutWaiting(n *Node) {
	n.reader.peer = bend(n.reader.peer, func(string) bentPeer {
		return bentPeer{readIndex: func(r *clusterv1.ReadIndexResponse) { r.Index = 1 }}
	})
}

// retryAsAnother gives every copy of a command an id of its own, as a cluster without M5 would.
func retryAsAnother(n *Node) {
	next := new(atomic.Uint64)
	n.forward.peer = bend(n.forward.peer, func(string) bentPeer {
		return bentPeer{propose: func(r *clusterv1.ProposeRequest) {
			for i, encoded := range r.GetCommands() {
				var c metav1.Command
				if proto.Unmarshal(encoded, &c) != nil || c.GetEnvelope().GetOrigin() == nil {
					continue
				}
				c.Envelope.Origin.Sequence = 1<<40 + next.Add(1)
				r.Commands[i], _ = proto.Marshal(&c)
			}
		}}
	})
}

// answerWithoutWaiting answers a write before the own state has it.
func answerWithoutWaiting(n *Node) {
	n.proposer.wait = func(context.Context, uint64) error { return nil }
}

// hurryTheClock lets leases run out early.
func hurryTheClock(n *Node) {
	stamp := n.commit.stamp
	n.commit.stamp = func() (int64, int64, error) {
		clock, wall, err := stamp()
		return clock + rand.Int64N(int64(3*time.Second)), wall, err
	}
}

// simMutantSeeds is how many seeds a defect may stay unseen.
const simMutantSeeds = 10

// TestTheSimulationCatches shows that the checks see what they are for: each of
// these nodes breaks one promise, and a few seeds must find it.
func TestTheSimulationCatches(t *testing.T) {
	for _, m := range []struct {
		name   string
		change func(*Node)
		lying  bool
		breaks string
	}{
		{"reads without a quorum of the voters", readWithoutVoters, false, "C2"},
		{"reads that do not wait for the state", readWithoutWaiting, false, "C1 C2"},
		{"retries under another id", retryAsAnother, false, "M5 C2"},
		{"writes answered before the own state has them", answerWithoutWaiting, false, "C2"},
		{"a clock that runs ahead", hurryTheClock, false, "C4"},
		{"disks that lose what they said was synced", nil, true, "C1 C2 M9"},
	} {
		t.Run(m.name, func(t *testing.T) {
			for seed := uint64(1); seed <= simMutantSeeds; seed++ {
				began := time.Now()
				report := simulation{seed: seed, nodes: 3, duration: 3 * time.Minute, change: m.change, lying: m.lying, patient: true}.run(t)
				if slices.ContainsFunc(report.problems, func(p string) bool { return slices.Contains(strings.Fields(m.breaks), p[:2]) }) {
					t.Logf("seed %d, %v: %.300s", seed, time.Since(began).Round(time.Millisecond), report.problems[0])
					return
				}
				t.Logf("seed %d, %v: not seen; %.200q", seed, time.Since(began).Round(time.Millisecond), report.problems)
			}
			t.Errorf("none of %d seeds found it", simMutantSeeds)
		})
	}
}
