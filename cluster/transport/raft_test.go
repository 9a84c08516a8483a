package transport

import (
	"context"
	"errors"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	raftv1 "github.com/pontoon-registry/pontoon/proto/pontoon/raft/v1"
)

var (
	_ raft.Transport   = (*Instance)(nil)
	_ raft.WithPreVote = (*Instance)(nil)
)

// echo answers every kind of request with something of its own.
func echo(rpc raft.RPC) {
	switch req := rpc.Command.(type) {
	case *raft.AppendEntriesRequest:
		rpc.Respond(&raft.AppendEntriesResponse{RPCHeader: header("node-b"), Term: req.Term, LastLog: uint64(len(req.Entries)), Success: true}, nil)
	case *raft.RequestVoteRequest:
		rpc.Respond(&raft.RequestVoteResponse{Term: req.Term, Granted: req.LeadershipTransfer}, nil)
	case *raft.RequestPreVoteRequest:
		rpc.Respond(&raft.RequestPreVoteResponse{Term: req.Term, Granted: true}, nil)
	case *raft.TimeoutNowRequest:
		rpc.Respond(&raft.TimeoutNowResponse{RPCHeader: header("node-b")}, nil)
	default:
		rpc.Respond(nil, errors.New("unexpected command"))
	}
}

// patient has calls wait for a busy machine.
func patient(c *Config) {
	c.HeartbeatTimeout, c.VoteTimeout, c.AppendTimeout = time.Minute, time.Minute, time.Minute
}

// pair is two nodes, the first of which calls the second.
func pair(t *testing.T, respond func(raft.RPC), change ...func(*Config)) (from, to *node, i *Instance) {
	t.Helper()
	b := newBook()
	change = append([]func(*Config){patient}, change...)
	from, to = startNode(t, b, "node-a", change...), startNode(t, b, "node-b", change...)
	i = to.Raft().Instance()
	if respond != nil {
		fakeRaft(t, i, respond)
	}
	return from, to, i
}

func heartbeat(id string) *raft.AppendEntriesRequest {
	return &raft.AppendEntriesRequest{RPCHeader: header(id), Term: 1}
}

func TestEveryRaftCallIsAnswered(t *testing.T) {
	a, _, _ := pair(t, echo)
	i := a.Raft().Instance()
	if i.LocalAddr() != "node-a" || string(i.EncodePeer("x", "y")) != "y" || i.DecodePeer([]byte("z")) != "z" {
		t.Error("addresses are not node ids")
	}
	for _, n := range []int{0, 1, frameSize - entryOverhead, frameSize, 5 * frameSize} {
		var resp raft.AppendEntriesResponse
		must(t, i.AppendEntries("node-b", "node-b", &raft.AppendEntriesRequest{RPCHeader: header("node-a"), Term: 7, PrevLogEntry: 1, PrevLogTerm: 1, Entries: request(n, n).Entries}, &resp))
		if resp.Term != 7 || resp.LastLog != 2 || !resp.Success || string(resp.ID) != "node-b" {
			t.Errorf("%d bytes: got %+v", n, resp)
		}
	}
	var vote raft.RequestVoteResponse
	must(t, i.RequestVote("node-b", "node-b", &raft.RequestVoteRequest{RPCHeader: header("node-a"), Term: 3, LeadershipTransfer: true}, &vote))
	var pre raft.RequestPreVoteResponse
	must(t, i.RequestPreVote("node-b", "node-b", &raft.RequestPreVoteRequest{RPCHeader: header("node-a"), Term: 4}, &pre))
	if vote.Term != 3 || !vote.Granted || pre.Term != 4 || !pre.Granted {
		t.Errorf("got %+v and %+v", vote, pre)
	}
	var now raft.TimeoutNowResponse
	must(t, i.TimeoutNow("node-b", "node-b", &raft.TimeoutNowRequest{RPCHeader: header("node-a")}, &now))
	if string(now.ID) != "node-b" {
		t.Errorf("got %+v", now)
	}
}

func TestWhatIsNotCarriedSaysSo(t *testing.T) {
	a, _, _ := pair(t, echo, func(c *Config) { c.MaxAppend = 2 * mib })
	i := a.Raft().Instance()
	if _, err := i.AppendEntriesPipeline("node-b", "node-b"); !errors.Is(err, raft.ErrPipelineReplicationNotSupported) {
		t.Errorf("got %v", err)
	}
	if _, ok := any(i).(raft.WithClose); ok {
		t.Error("raft would close the transport with itself")
	}
	req := &raft.AppendEntriesRequest{RPCHeader: header("node-a"), Term: 1, PrevLogEntry: 1, Entries: request(mib, mib, 1).Entries}
	if err := i.AppendEntries("node-b", "node-b", req, new(raft.AppendEntriesResponse)); !errors.Is(err, errTooLarge) {
		t.Errorf("got %v", err)
	}
}

func TestTheReceiverHasItsOwnBoundOnAppends(t *testing.T) {
	b := newBook()
	a := startNode(t, b, "node-a")
	n := startNode(t, b, "node-b", func(c *Config) { c.MaxAppend = 2 * mib })
	fakeRaft(t, n.Raft().Instance(), echo)
	req := &raft.AppendEntriesRequest{RPCHeader: header("node-a"), Term: 1, PrevLogEntry: 1, Entries: request(40*mib, 1).Entries}
	err := a.Raft().Instance().AppendEntries("node-b", "node-b", req, new(raft.AppendEntriesResponse))
	refused(t, err, codes.ResourceExhausted, "size is 41943041 bytes, must be at most 2097152")
}

func TestARequestThatNamesAnotherSenderIsRefused(t *testing.T) {
	a, _, _ := pair(t, echo)
	err := a.Raft().Instance().AppendEntries("node-b", "node-b", heartbeat("node-c"), new(raft.AppendEntriesResponse))
	refused(t, err, codes.PermissionDenied, `node node-a sent a raft request that names node "node-c" as its sender`)
}

func TestHeartbeatsPassAMainLoopThatIsStuck(t *testing.T) {
	a, to, i := pair(t, nil, func(c *Config) { c.HeartbeatTimeout, c.VoteTimeout = 250*time.Millisecond, 500*time.Millisecond }) // nobody reads the consumer
	i.SetHeartbeatHandler(echo)
	from := a.Raft().Instance()
	var resp raft.AppendEntriesResponse
	beat := func() error { return from.AppendEntries("node-b", "node-b", heartbeat("node-a"), &resp) }
	until(t, time.Minute, beat) // a busy machine may take longer than the deadline
	if !resp.Success {
		t.Errorf("got %+v", resp)
	}
	vote := new(raft.RequestVoteResponse)
	began := time.Now()
	err := from.RequestVote("node-b", "node-b", &raft.RequestVoteRequest{RPCHeader: header("node-a"), Term: 1}, vote)
	refused(t, err, codes.DeadlineExceeded)
	if took := time.Since(began); took > 20*time.Second { // its deadline is half a second; without one it would hang
		t.Errorf("a vote took %s", took)
	}
	i.SetHeartbeatHandler(nil)
	refused(t, beat(), codes.DeadlineExceeded)
	i.SetHeartbeatHandler(func(raft.RPC) {}) // as Raft's does after its shutdown
	until(t, time.Minute, func() error {
		err = beat()
		if status.Code(err) == codes.DeadlineExceeded {
			return err
		}
		return nil
	})
	refused(t, err, codes.Unavailable, "raft has shut down")
	to.stop() // waits for all handlers
	// Nothing that was given up is left for Raft to execute later (T3).
	select {
	case rpc := <-i.Consumer():
		t.Errorf("a request was left behind: %+v", rpc.Command)
	default:
	}
}

func TestALargeAppendDoesNotHoldUpHeartbeats(t *testing.T) {
	a, _, i := pair(t, echo)
	i.SetHeartbeatHandler(echo)
	from := a.Raft().Instance()
	var entries []*raft.Log
	for n := range 64 {
		entries = append(entries, &raft.Log{Index: uint64(n + 1), Data: make([]byte, 3*mib)})
	}
	done := make(chan error, 1)
	go func() {
		req := &raft.AppendEntriesRequest{RPCHeader: header("node-a"), Term: 1, PrevLogEntry: 1, Entries: entries}
		done <- from.AppendEntries("node-b", "node-b", req, new(raft.AppendEntriesResponse))
	}()
	var longest time.Duration
	for beats := 0; ; beats++ {
		select {
		case err := <-done:
			must(t, err)
			if beats < 10 { // one that is held up is answered when the append is, however long either takes
				t.Errorf("only %d heartbeats were answered meanwhile", beats)
			}
			t.Logf("%d heartbeats during the append, the longest took %s", beats, longest)
			return
		default:
			began := time.Now()
			err := from.AppendEntries("node-b", "node-b", heartbeat("node-a"), new(raft.AppendEntriesResponse))
			longest = max(longest, time.Since(began))
			must(t, err)
		}
	}
}

func TestAnInstanceThatIsReplacedEndsItsCalls(t *testing.T) {
	a, to, i := pair(t, nil)
	from := a.Raft().Instance()
	beat := func() error {
		return from.AppendEntries("node-b", "node-b", heartbeat("node-a"), new(raft.AppendEntriesResponse))
	}
	failed := make(chan error, 1)
	go func() { failed <- beat() }()
	<-i.Consumer() // taken, never answered
	to.Raft().Detach()
	refused(t, <-failed, codes.Unavailable, "this raft instance was replaced")
	refused(t, beat(), codes.Unavailable, "raft does not run on node node-b")
	taken := make(chan struct{})
	fakeRaft(t, to.Raft().Instance(), func(raft.RPC) { close(taken) })
	go func() { failed <- beat() }()
	<-taken
	a.Raft().Instance()
	refused(t, <-failed, codes.Unavailable, "this raft instance was replaced")
	refused(t, beat(), codes.Unavailable, "this raft instance was replaced")
}

// TestNoHeartbeatOutlivesItsRaft: one that is in Raft's handler when Raft is shut down would write its term afterwards.
func TestNoHeartbeatOutlivesItsRaft(t *testing.T) {
	a, to, i := pair(t, nil)
	from := a.Raft().Instance()
	entered, goOn, handled := make(chan struct{}), make(chan struct{}), new(atomic.Int32)
	i.SetHeartbeatHandler(func(rpc raft.RPC) {
		close(entered)
		<-goOn
		handled.Add(1)
		echo(rpc)
	})
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		_ = from.AppendEntries("node-b", "node-b", heartbeat("node-a"), new(raft.AppendEntriesResponse)) // whatever it hears
	}()
	<-entered
	to.Raft().Detach()
	quiet := make(chan int32)
	go func() { to.Raft().Quiesce(); quiet <- handled.Load() }()
	select {
	case <-quiet:
		t.Error("it is quiet while a heartbeat is being handled")
	case <-time.After(50 * time.Millisecond):
	}
	close(goOn)
	if n := <-quiet; n != 1 {
		t.Errorf("quiet with %d heartbeats handled", n)
	}
	<-answered
	if i.beating.TryAcquire(1) {
		t.Error("a heartbeat that was late is let in")
	}
	to.Raft().Quiesce() // again: nothing to wait for
}

func TestAnAppendWaitsForAPeerThatIsNotReadyYet(t *testing.T) {
	b := newBook()
	a := startNode(t, b, "node-a", patient)
	var cluster atomic.Pointer[string]
	asked := make(chan struct{}, 100)
	n := startNode(t, b, "node-b", func(c *Config) {
		c.Identity = func() (string, uint64) {
			asked <- struct{}{}
			if id := cluster.Load(); id != nil {
				return *id, 1
			}
			return "", 0
		}
	})
	failed := make(chan error, 1)
	req := &raft.AppendEntriesRequest{RPCHeader: header("node-a"), Term: 1, PrevLogEntry: 1}
	go func() {
		failed <- a.Raft().Instance().AppendEntries("node-b", "node-b", req, new(raft.AppendEntriesResponse))
	}()
	thrice := func() {
		for range 3 {
			select {
			case <-asked:
			case err := <-failed:
				t.Fatalf("it did not wait: %v", err)
			}
		}
	}
	thrice()
	id := "c1" // now it knows of its cluster, but has no Raft
	cluster.Store(&id)
	thrice()
	fakeRaft(t, n.Raft().Instance(), echo)
	must(t, <-failed)
}

func TestTheGateStopsElectionsInBothDirections(t *testing.T) {
	stuck := errors.New("the disk is stuck")
	for _, side := range []string{"node-a", "node-b"} {
		var closed atomic.Bool
		a, _, i := pair(t, echo, func(c *Config) {
			if c.NodeID == side {
				c.Gate = func() error {
					if closed.Load() {
						return stuck
					}
					return nil
				}
			}
		})
		i.SetHeartbeatHandler(echo)
		from := a.Raft().Instance()
		elections := map[string]func() error{
			"heartbeat": func() error {
				return from.AppendEntries("node-b", "node-b", heartbeat("node-a"), new(raft.AppendEntriesResponse))
			},
			"vote": func() error {
				return from.RequestVote("node-b", "node-b", &raft.RequestVoteRequest{RPCHeader: header("node-a")}, new(raft.RequestVoteResponse))
			},
			"pre-vote": func() error {
				return from.RequestPreVote("node-b", "node-b", &raft.RequestPreVoteRequest{RPCHeader: header("node-a")}, new(raft.RequestPreVoteResponse))
			},
			"timeout now": func() error {
				return from.TimeoutNow("node-b", "node-b", &raft.TimeoutNowRequest{RPCHeader: header("node-a")}, new(raft.TimeoutNowResponse))
			},
		}
		for _, shut := range []bool{false, true, false} {
			closed.Store(shut)
			for what, call := range elections {
				if err := call(); (err != nil) != shut {
					t.Errorf("gate of %s closed: %v; %s: %v", side, shut, what, err)
				}
			}
			// Appends, with entries or without, are what a stuck leader must not
			// send; a stuck follower may take them.
			err := from.AppendEntries("node-b", "node-b", &raft.AppendEntriesRequest{RPCHeader: header("node-a"), Term: 1, PrevLogEntry: 1}, new(raft.AppendEntriesResponse))
			if (err != nil) != (shut && side == "node-a") {
				t.Errorf("gate of %s closed: %v; append: %v", side, shut, err)
			}
		}
	}
}

func TestErrorsOfRaftArriveWithTheirText(t *testing.T) {
	a, _, _ := pair(t, func(rpc raft.RPC) { rpc.Respond(nil, errors.New("unexpected command")) })
	err := a.Raft().Instance().RequestPreVote("node-b", "node-b", &raft.RequestPreVoteRequest{RPCHeader: header("node-a")}, new(raft.RequestPreVoteResponse))
	refused(t, err, codes.Unknown, "unexpected command")
	wrong, _, _ := pair(t, func(rpc raft.RPC) { rpc.Respond(&raft.TimeoutNowResponse{}, nil) })
	err = wrong.Raft().Instance().RequestVote("node-b", "node-b", &raft.RequestVoteRequest{RPCHeader: header("node-a")}, new(raft.RequestVoteResponse))
	refused(t, err, codes.Internal, "raft answered with *raft.TimeoutNowResponse")
}

// TestABlackHoleHoldsNoGoroutineBeyondTheDeadlines calls a peer that swallows
// everything, with every kind of call, many times, and counts.
func TestABlackHoleHoldsNoGoroutineBeyondTheDeadlines(t *testing.T) {
	b := newBook()
	a := startNode(t, b, "node-a", func(c *Config) { c.AppendTimeout = 300 * time.Millisecond })
	n := startNode(t, b, "node-b")
	fakeRaft(t, n.Raft().Instance(), echo)
	p := startProxy(t, n.Addr().String())
	b.set("node-b", p.ln.Addr().String())
	from := a.Raft().Instance()
	entries := request(2 * mib).Entries
	calls := map[string]func() error{
		"heartbeat": func() error {
			return from.AppendEntries("node-b", "node-b", heartbeat("node-a"), new(raft.AppendEntriesResponse))
		},
		"append": func() error {
			return from.AppendEntries("node-b", "node-b", &raft.AppendEntriesRequest{RPCHeader: header("node-a"), Term: 1, PrevLogEntry: 1}, new(raft.AppendEntriesResponse))
		},
		"large append": func() error {
			return from.AppendEntries("node-b", "node-b", &raft.AppendEntriesRequest{RPCHeader: header("node-a"), Term: 1, PrevLogEntry: 1, Entries: entries}, new(raft.AppendEntriesResponse))
		},
		"vote": func() error {
			return from.RequestVote("node-b", "node-b", &raft.RequestVoteRequest{RPCHeader: header("node-a")}, new(raft.RequestVoteResponse))
		},
		"timeout now": func() error {
			return from.TimeoutNow("node-b", "node-b", &raft.TimeoutNowRequest{RPCHeader: header("node-a")}, new(raft.TimeoutNowResponse))
		},
	}
	for what, call := range calls {
		took := until(t, time.Minute, call)
		t.Logf("%s answered after %s", what, took)
	}
	before := runtime.NumGoroutine()
	p.hole()
	const each = 20
	type result struct {
		what string
		took time.Duration
		err  error
	}
	results := make(chan result)
	for what, call := range calls {
		for range each {
			go func() {
				began := time.Now()
				err := call()
				results <- result{what, time.Since(began), err}
			}()
		}
	}
	for range each * len(calls) { // the longest deadline is a second; without one a call would hang
		if r := <-results; r.err == nil || r.took > 20*time.Second {
			t.Errorf("%s: %v after %s", r.what, r.err, r.took)
		}
	}
	until(t, time.Minute, func() error {
		if now := runtime.NumGoroutine(); now > before+10 { // room for connections being made anew
			return errors.New("goroutines are left")
		}
		return nil
	})
	p.heal()
	for what, call := range calls {
		took := until(t, time.Minute, call)
		t.Logf("%s answered %s after healing", what, took)
	}
}

func TestRaftEndpointLeavesNothingBehind(t *testing.T) {
	before := goleak.IgnoreCurrent()
	t.Run("", func(t *testing.T) {
		a, n, _ := pair(t, nil)
		from := a.Raft().Instance()
		for range 8 { // nobody answers
			go func() {
				_ = from.AppendEntries("node-b", "node-b", &raft.AppendEntriesRequest{RPCHeader: header("node-a"), Term: 1, PrevLogEntry: 1, Entries: request(2 * mib).Entries}, new(raft.AppendEntriesResponse))
			}()
		}
		cc, err := a.Conn("node-b", Log)
		must(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		stream, err := raftv1.NewRaftServiceClient(cc).AppendEntriesStream(ctx)
		must(t, err)
		must(t, stream.Send(&raftv1.AppendEntriesStreamRequest{Request: &raftv1.AppendEntriesRequest{}, Count: 5, Size: 5}))
		cancel() // half a request
		n.stop()
		a.stop()
	})
	until(t, time.Minute, func() error { return goleak.Find(before) })
}
