package cluster

import (
	"slices"
	"time"

	"github.com/hashicorp/raft"
)

// raftNow is Raft for autopilot. It goes through the handle at each use, since
// Raft is re-created in place, and bounds what autopilot would wait for without end.
type raftNow struct{ n *Node }

func (r raftNow) AddNonvoter(id raft.ServerID, a raft.ServerAddress, prev uint64, _ time.Duration) raft.IndexFuture {
	return r.n.raft().AddNonvoter(id, a, prev, changeTime)
}

func (r raftNow) AddVoter(id raft.ServerID, a raft.ServerAddress, prev uint64, _ time.Duration) raft.IndexFuture {
	if r.n.votes(string(id)) {
		return done{} // autopilot judges by a state that is older than its own last step
	}
	r.n.log.Info("a node votes from now on", "voter", id)
	return r.n.raft().AddVoter(id, a, prev, changeTime)
}

func (r raftNow) DemoteVoter(id raft.ServerID, prev uint64, _ time.Duration) raft.IndexFuture {
	if !r.n.votes(string(id)) {
		return done{}
	}
	r.n.log.Info("a node votes no longer", "member", id)
	return r.n.raft().DemoteVoter(id, prev, changeTime)
}

func (r raftNow) RemoveServer(id raft.ServerID, prev uint64, _ time.Duration) raft.IndexFuture {
	return r.n.raft().RemoveServer(id, prev, changeTime)
}

func (r raftNow) LeadershipTransferToServer(id raft.ServerID, a raft.ServerAddress) raft.Future {
	return r.n.raft().LeadershipTransferToServer(id, a)
}

func (r raftNow) LastIndex() uint64                          { return r.n.raft().LastIndex() }
func (r raftNow) Leader() raft.ServerAddress                 { a, _ := r.n.raft().LeaderWithID(); return a }
func (r raftNow) GetConfiguration() raft.ConfigurationFuture { return r.n.raft().GetConfiguration() }
func (r raftNow) Stats() map[string]string                   { return r.n.raft().Stats() }
func (r raftNow) State() raft.RaftState                      { return r.n.raft().State() }

// done is the answer to a change that is not needed any more.
type done struct{}

func (done) Error() error  { return nil }
func (done) Index() uint64 { return 0 }

// votes says whether a node has a vote in the latest configuration.
func (n *Node) votes(id string) bool {
	return slices.Contains(voters(n.raft().GetConfiguration().Configuration()), id)
}
