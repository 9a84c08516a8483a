package cluster

import (
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
// a state that is older than its own last step, and than a removal, which this would undo.
func (r raftNow) AddVoter(id raft.ServerID, a raft.ServerAddress, _ uint64, _ time.Duration) raft.IndexFuture {
	return r.change(id, raft.Nonvoter, "a node votes from now on", func(index uint64) raft.IndexFuture {
		return r.n.raft().AddVoter(id, a, index, changeTime)
	})
}

// DemoteVoter is as careful.
func (r raftNow) DemoteVoter(id raft.ServerID, _ uint64, _ time.Duration) raft.IndexFuture {
	return r.change(id, raft.Voter, "a node votes no longer", func(index uint64) raft.IndexFuture {
		return r.n.raft().DemoteVoter(id, index, changeTime)
	})
}

// change makes one change of a member's suffrage, alone among all changes, and waits for it. Raft refuses it
// once there is another configuration than the one that was looked at.
func (r raftNow) change(id raft.ServerID, from raft.ServerSuffrage, what string, make func(index uint64) raft.IndexFuture) raft.IndexFuture {
	r.n.changing.Lock()
	defer r.n.changing.Unlock()
	now, index := r.n.agreed()
	if s, member := memberIn(now, string(id)); !member || s != from {
		return done{}
	}
	r.n.log.Info(what, "member", id)
	f := make(index)
	_ = f.Error() // autopilot asks for it again
	return f
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

// memberIn answers a node's suffrage in a configuration, and whether it is in it.
func memberIn(c raft.Configuration, id string) (raft.ServerSuffrage, bool) {
	for _, s := range c.Servers {
		if string(s.ID) == id {
			return s.Suffrage, true
		}
	}
	return raft.Nonvoter, false
}
