package cluster

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// statusTimeout ends the question to one member.
const statusTimeout = 500 * time.Millisecond

// Status is where a node stands, as it sees it.
type Status struct {
	NodeID string
	// Phase is what the node waits for; empty once it has proven its state fresh.
	Phase       string
	ClusterID   string
	Epoch       string
	Incarnation uint64
	// Version is the cluster's command version (M7), 0 before it is known.
	Version uint32
	// LeaderID is empty while no leader is known.
	LeaderID string
	Term     uint64
	// Applied is the index of this node's state, Committed what it knows to be committed, LastLog the end of its log.
	Applied, Committed, LastLog uint64
	// QueueBytes are the commands that wait on this node for the log or for the leader.
	QueueBytes int64
	// Panics counts the commands that panicked in this node's state since it was opened: each is a defect (M2).
	Panics uint64
	// Fresh is how long ago the state was last proven to be fresh; negative: never since the start.
	Fresh time.Duration
	// FailureTolerance is how many more voters may fail before writes stop; -1: they have stopped.
	FailureTolerance int
	Members          []Member
}

// Member is one node of the Raft configuration.
type Member struct {
	// Node is from the address book; of a node that is not there yet only the id is set.
	*metav1.Node
	Voter, Leader bool
	// Reachable: it answered now. Contact is how long the answer took.
	Reachable bool
	Contact   time.Duration
	// Heard is how long ago it last heard from a leader; negative: never, or it did not answer.
	Heard time.Duration
	// Applied is its state's index, Lag what it lacks of this node's.
	Applied, Lag uint64
}

// Status asks every member, for at most half a second; members that do not answer are listed as such.
func (n *Node) Status(ctx context.Context) Status {
	who, r := n.dir.who(), n.raft()
	leader, _ := n.leaders.now()
	s := Status{NodeID: n.id, ClusterID: who.ClusterID, Incarnation: who.Incarnation, LeaderID: leader,
		Term: r.CurrentTerm(), Applied: n.applied(), Committed: r.CommitIndex(), LastLog: r.LastIndex(),
		QueueBytes: n.commit.queue.size() + n.forward.queue.size(), Panics: n.state.Panics(), Fresh: -1}
	if system, err := n.System(); err == nil { // a state without one is at its beginning
		s.Epoch, s.Version = system.GetEpoch(), system.GetVersion()
	}
	if age, ever := n.fresh.age(); ever {
		s.Fresh = age
	} else {
		s.Phase = *n.phase.Load()
	}
	s.Members = n.members(ctx, leader)
	healthy, all := 0, 0
	for _, m := range s.Members {
		if m.Voter {
			all++
			if m.Reachable {
				healthy++
			}
		}
	}
	s.FailureTolerance = max(toleranceOf(healthy, all), -1)
	return s
}

func (n *Node) members(ctx context.Context, leader string) []Member {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	book := map[string]*metav1.Node{}
	for _, m := range n.nodes() {
		book[m.GetId()] = m
	}
	servers := n.raft().GetConfiguration().Configuration().Servers
	members := make([]Member, len(servers))
	var asking sync.WaitGroup
	for i, s := range servers {
		m := &members[i]
		m.Node, m.Voter, m.Leader = book[string(s.ID)], s.Suffrage == raft.Voter, string(s.ID) == leader
		if m.Node == nil {
			m.Node = &metav1.Node{Id: string(s.ID)}
		}
		asking.Go(func() { n.contact(ctx, m) })
	}
	asking.Wait()
	return members
}

// contact fills what a member says of itself.
func (n *Node) contact(ctx context.Context, m *Member) {
	began, own := time.Now(), n.applied()
	a, err := n.healthOf(ctx, m.GetId())
	if err != nil {
		m.Heard = -1
		return
	}
	m.Reachable, m.Applied, m.Heard = true, a.GetApplied(), time.Duration(a.GetLastContact())
	if m.GetId() != n.id {
		m.Contact = time.Since(began)
	}
	m.Lag = own - min(own, m.Applied)
}

// Ready is nil when the node may be sent requests: it has proven its state
// fresh since its start (R-B10), and not long ago. Else it says at once what is missing.
func (n *Node) Ready(context.Context) error {
	if err := n.gate(); err != nil {
		return fmt.Errorf("not ready: %w", err)
	}
	if err := n.space.low(); err != nil {
		return fmt.Errorf("not ready: %w", err)
	}
	if err := n.trusted(); err != nil {
		return fmt.Errorf("not ready: %w", err)
	}
	age, ever := n.fresh.age()
	if !ever {
		return fmt.Errorf("not ready: %s", *n.phase.Load())
	}
	if age > readyAge {
		return fmt.Errorf("not ready: no read index for %v: no quorum, or this node is cut off", age.Round(time.Second))
	}
	return nil
}
