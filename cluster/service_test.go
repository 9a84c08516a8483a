package cluster

import (
	"testing"

	"google.golang.org/protobuf/proto"

	clusterv1 "github.com/pontoon-registry/pontoon/proto/pontoon/cluster/v1"
)

func TestTheLeaderNamesNoTermForWhatAnEarlierTermCommitted(t *testing.T) {
	t.Parallel()
	n := alone(t)
	if err := n.raft().AddNonvoter("other", "other", 0, 0).Error(); err != nil { // only members have origins
		t.Fatal(err)
	}
	other := newOrigin("other", "b")
	if _, err := n.Propose(t.Context(), other.register()); err != nil {
		t.Fatal(err)
	}
	id, err := other.begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c := putNode("x", "a:1")
	c.Envelope.Origin = id
	command, err := proto.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	propose := func() *clusterv1.ProposeResponse {
		t.Helper()
		r, err := (&service{node: n.Node}).Propose(t.Context(), &clusterv1.ProposeRequest{Commands: [][]byte{command}})
		if err != nil || r.GetOutcomes()[0].GetResult() == nil {
			t.Fatal(r, err)
		}
		return r
	}
	if r := propose(); r.GetTerm() != n.raft().CurrentTerm() {
		t.Errorf("a fresh entry is said to be of term %d, it is of %d", r.GetTerm(), n.raft().CurrentTerm())
	}
	n = n.restart(t)
	settle(t, []*running{n})
	// A copy is answered with the result, hence the index, of the first.
	if r := propose(); r.GetTerm() != 0 {
		t.Errorf("entry %d is said to be of term %d, it is of an earlier one", r.GetOutcomes()[0].GetResult().GetIndex(), r.GetTerm())
	}
}
