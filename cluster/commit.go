package cluster

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

const (
	// entriesInFlight is how many log entries of ours Raft works on at once:
	// while one waits for followers the next is written to disk, and while all are
	// busy commands gather, which is what makes groups (group commit).
	entriesInFlight = 4
	// enqueueTimeout is how long Raft's main loop may be too busy to take an entry.
	enqueueTimeout = 2 * time.Second
	entryFormat    = 1
	// entryCommands is the field number of Entry.commands.
	entryCommands = 4
)

// committer is the leader's group commit: calls that wait go into one log
// entry, stamped with the time. It runs on every node and refuses all
// while the node does not lead.
//
//	queue ─take→ dispatch ─Raft.Apply→ flight ─FSM→ complete ─→ calls
type committer struct {
	queue *queue
	// apply is Raft.Apply.
	apply func(entry []byte, timeout time.Duration) raft.ApplyFuture
	// stamp answers cluster time and wall time, or a refusal while this node does not lead an opened term.
	stamp   func() (clusterTime, wallTime int64, err error)
	metrics Metrics
	flight  chan group
}

// group is a dispatched log entry.
type group struct {
	calls  []*call
	future raft.ApplyFuture
}

func newCommitter(apply func([]byte, time.Duration) raft.ApplyFuture, stamp func() (int64, int64, error), m Metrics) *committer {
	// One is held by complete, one by dispatch.
	return &committer{queue: newQueue(), apply: apply, stamp: stamp, metrics: m, flight: make(chan group, entriesInFlight-2)}
}

// dispatch hands groups to Raft until ctx ends, then refuses what waits. It
// ends before Raft is shut down: Raft forgets to answer what it has queued then.
func (c *committer) dispatch(ctx context.Context) error {
	defer close(c.flight)
	for {
		calls, err := c.queue.take(ctx)
		if err != nil {
			c.queue.drain()
			return nil
		}
		clusterTime, wallTime, err := c.stamp()
		if err != nil {
			answerAll(calls, outcome{err: err})
			continue
		}
		c.flight <- group{calls: calls, future: c.apply(encodeEntry(clusterTime, wallTime, calls), enqueueTimeout)}
	}
}

// complete answers the calls of each group once its entry is applied, or lost.
// It ends when dispatch has, and all in flight is answered.
func (c *committer) complete() error {
	for g := range c.flight {
		c.answer(g)
	}
	return nil
}

func (c *committer) answer(g group) {
	if err := g.future.Error(); err != nil {
		answerAll(g.calls, outcome{err: classify(err)})
		return
	}
	results, ok := g.future.Response().([]*metav1.Result)
	if !ok || len(results) != len(g.calls) {
		answerAll(g.calls, outcome{err: unknownOutcome("the state of this node failed while it applied the command")})
		return
	}
	c.metrics.Committed(len(results))
	for i, call := range g.calls {
		call.done <- outcome{result: results[i]}
	}
}

// classify sorts Raft's errors: what certainly was not appended may be tried
// again freely; of all else the outcome is unknown (consensus.md 5).
func classify(err error) error {
	for _, never := range []error{raft.ErrNotLeader, raft.ErrLeadershipTransferInProgress, raft.ErrEnqueueTimeout, raft.ErrAbortedByRestore} {
		if errors.Is(err, never) {
			return unavailable("the command was not taken: %v", err)
		}
	}
	return unknownOutcome("the leader lost its place while the command was under way: %v", err)
}

// encodeEntry writes an Entry around commands that are encoded already; it is
// what proto.Marshal would write, without decoding them.
func encodeEntry(clusterTime, wallTime int64, calls []*call) []byte {
	size := 64
	for _, c := range calls {
		size += len(c.command) + 8
	}
	head, err := proto.MarshalOptions{Deterministic: true}.MarshalAppend(make([]byte, 0, size),
		&metav1.Entry{Format: entryFormat, ClusterTime: clusterTime, WallTime: wallTime})
	if err != nil {
		panic(err) // three integers always encode
	}
	for _, c := range calls {
		head = protowire.AppendTag(head, entryCommands, protowire.BytesType)
		head = protowire.AppendBytes(head, c.command)
	}
	return head
}

// checkCommand refuses what must never reach the log: every node would stop at
// a command that it cannot read (M2), an older one at a kind that it does not know (M7).
func checkCommand(encoded []byte, permit func(*metav1.Command) error) error {
	if len(encoded) > meta.MaxCommand {
		return meta.Refuse(metav1.Kind_KIND_TOO_LARGE, metav1.Noun_NOUN_SIZE, "the command has %d bytes, the bound is %d", len(encoded), meta.MaxCommand)
	}
	var c metav1.Command
	if err := proto.Unmarshal(encoded, &c); err != nil {
		return meta.Refuse(metav1.Kind_KIND_INVALID, metav1.Noun_NOUN_CLUSTER, "the command cannot be decoded: %v", err)
	}
	if c.GetKind() == nil || c.GetEnvelope() == nil {
		return meta.Refuse(metav1.Kind_KIND_UNSUPPORTED, metav1.Noun_NOUN_CLUSTER,
			"the command is of a kind that this leader (command version %d) does not know, or has no envelope", CommandVersion)
	}
	return permit(&c)
}
