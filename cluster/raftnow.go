package cluster

import (
	"time"

	"github.com/hashicorp/raft"
)

// raftNow is Raft for autopilot. It goes through the handle at each use, since
// Raft is re-created in place, and bounds what autopilot would wait for without end.
type raftNow struct{ n *Node }

func (r raftNow) AddNonvoter(id raft.ServerID, a raft.ServerAddress, prev uint64, _ time.Duration) raft.IndexFuture {
	return r.n.raft().AddNonvoter(id, a, prev, changeTime)
}

// AddVoter promotes only who is a member without a vote at this moment: autopilot judges by a state that
// may be older than a removal, and would bring the removed node back.
func (r raftNow) AddVoter(id raft.ServerID, a raft.ServerAddress, prev uint64, _ time.Duration) raft.IndexFuture {
	return r.change(id, raft.Nonvoter, "a node votes from now on", func() raft.IndexFuture { return r.n.raft().AddVoter(id, a, prev, changeTime) })
}

// DemoteVoter is as careful.
func (r raftNow) DemoteVoter(id raft.ServerID, prev uint64, _ time.Duration) raft.IndexFuture {
	return r.change(id, raft.Voter, "a node votes no longer", func() raft.IndexFuture { return r.n.raft().DemoteVoter(id, prev, changeTime) })
}

// change makes one change of a member's suffrage, alone among all changes, and waits for it.
func (r raftNow) change(id raft.ServerID, from raft.ServerSuffrage, what string, make func() raft.IndexFuture) raft.IndexFuture {
	r.n.changing.Lock()
	defer r.n.changing.Unlock()
	if s, member := memberIn(r.n.raft().GetConfiguration().Configuration(), string(id)); !member || s != from {
		return done{}
	}
	r.n.log.Info(what, "member", id)
	f := make()
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

// memberIn answers a node's suffrage in a configuration, and whether it is in it.
func memberIn(c raft.Configuration, id string) (raft.ServerSuffrage, bool) {
	for _, s := range c.Servers {
		if string(s.ID) == id {
			return s.Suffrage, true
		}
	}
	return raft.Nonvoter, false
}
