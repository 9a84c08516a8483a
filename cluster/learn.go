package cluster

import (
	"context"
	"time"

	"github.com/pontoon-registry/pontoon/cluster/transport"
)

const (
	// learnFor is how long a follower waits for an entry that it knows to be
	// committed; Raft tells it by itself soon after (CommitTimeout).
	learnFor = 5 * time.Millisecond
	// learnEvery is how often it looks.
	learnEvery = 500 * time.Microsecond
)

// learn brings forward what the leader's next append would say. A follower
// hears of a commit only with the append after the one that carried the entry,
// 5 to 10 ms later on an idle cluster (consensus.md 4.4), but the leader's answer
// to a forwarded command or to a read index says it already.
func (n *Node) learn(ctx context.Context, c transport.Commit) {
	if n.host == nil || c.Term == 0 || n.applied() >= c.Index {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, learnFor)
	defer cancel()
	tick := time.NewTicker(learnEvery)
	defer tick.Stop()
	for n.raft().LastIndex() < c.Index {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
	if n.applied() < c.Index {
		n.host.Raft().Learn(ctx, c)
	}
}
