package cluster

import (
	"slices"
	"time"

	"github.com/hashicorp/raft"
)

// raftNow is Raft for autopilot. It goes through the handle at each use, since
// Raft is re-created in place, and bounds what autopilot would wait for without end.
type raftNow struct{ n *Node }

// AddNonvoter adds nobody: who joins is let in by admit, and autopilot does not ask for it.
func (r raftNow) AddNonvoter(raft.ServerID, raft.ServerAddress, uint64, time.Duration) raft.IndexFuture {
	return done{}
}

// AddVoter gives a vote to a member without one, and to nobody else: autopilot judges by
// a state that is older than its own last step, and than a removal, which this would undo. Raft
// refuses it once there is another configuration than the one that was looked at.
func (r raftNow) AddVoter(id raft.ServerID, a raft.ServerAddress, _ uint64, _ time.Duration) raft.IndexFuture {
	now, index := r.n.agreed()
	if !slices.ContainsFunc(now.Servers, func(s raft.Server) bool { return s.ID == id && s.Suffrage != raft.Voter }) {
		return done{}
	}
	r.n.log.Info("a node votes from now on", "voter", id)
	return r.n.raft().AddVoter(id, a, index, changeTime)
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

// agreed is the last configuration that was committed and applied, and its index, which
// Raft tells nobody: GetConfiguration answers one that may yet be lost, with index 0.
func (n *Node) agreed() (raft.Configuration, uint64) {
	w := n.state.Witness()
	if len(w.GetConfiguration()) == 0 {
		return raft.Configuration{}, 0
	}
	return raft.DecodeConfiguration(w.GetConfiguration()), w.GetConfigurationIndex()
}

// votes says whether a node has a vote in the latest configuration.
func (n *Node) votes(id string) bool {
	return slices.Contains(voters(n.raft().GetConfiguration().Configuration()), id)
}
