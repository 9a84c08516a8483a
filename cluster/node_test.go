package cluster

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pontoon-registry/pontoon/meta"
	clusterv1 "github.com/pontoon-registry/pontoon/proto/pontoon/cluster/v1"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

func TestThreeFreshNodesFormOneCluster(t *testing.T) {
	t.Parallel()
	mark := &testMark{}
	nodes := form(t, 3, mark)
	owner, epoch, err := mark.Owner(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		eventually(t, "node "+n.id+" sees all", func() error { // a busy machine may be too slow for statusTimeout
			s := n.Status(t.Context())
			if s.ClusterID == "" || s.ClusterID != owner || s.Epoch != epoch || s.FailureTolerance != 1 || len(s.Members) != 3 || s.Phase != "" {
				return fmt.Errorf("%+v", s)
			}
			for _, m := range s.Members {
				if !m.Reachable || !m.Voter {
					return fmt.Errorf("of %s: %+v", m.GetId(), m)
				}
			}
			return nil
		})
	}
}

func TestTwoNodesFormOneClusterAndTolerateNoFailure(t *testing.T) {
	t.Parallel()
	nodes := form(t, 2, &testMark{})
	eventually(t, "no failure is tolerated", func() error { // -1 where the other one is too slow for statusTimeout
		if s := nodes[0].Status(t.Context()); s.FailureTolerance != 0 {
			return fmt.Errorf("failure tolerance is %d, want 0", s.FailureTolerance)
		}
		return nil
	})
	roundTrip(t, nodes[0], nodes[1], "two:1")
}

func TestOneNodeNeedsNoNetwork(t *testing.T) {
	cfg := testConfig(t, nil)
	cfg.Listen, cfg.GossipListen, cfg.Secrets = "", "", nil
	n := start(t, cfg)
	settle(t, []*running{n})
	roundTrip(t, n, n, "one:1")
	cluster := n.Status(t.Context()).ClusterID
	n = n.restart(t)
	settle(t, []*running{n})
	if got := n.Status(t.Context()).ClusterID; got != cluster {
		t.Errorf("after a restart the cluster is %s, was %s", got, cluster)
	}
	if at, err := addressOf(t.Context(), n, "x"); err != nil || at != "one:1" {
		t.Errorf("after a restart the state has %q, %v", at, err)
	}
}

// roundTrip writes on one node and reads on another.
func roundTrip(t *testing.T, writer, reader *running, want string) {
	t.Helper()
	mustWrite(t, writer, putNode("x", want))
	eventually(t, "read on "+reader.id, func() error { // as mustWrite
		got, err := addressOf(t.Context(), reader, "x")
		if err == nil && got != want {
			t.Fatalf("read on %s: %q; want %q", reader.id, got, want)
		}
		return err
	})
}

func TestWhatOneNodeAcknowledgesEveryNodeReads(t *testing.T) {
	t.Parallel()
	nodes := trio(t)
	for i := range 60 {
		for _, reader := range nodes {
			roundTrip(t, nodes[i%3], reader, fmt.Sprintf("host-%d:1", i))
		}
	}
}

// TestReadsWaitForNothingThatNoStateSees: Raft's commit index counts barriers and empty entries, which no state hears of. A
// read that waited for one would wait until somebody writes (R-B1).
func TestReadsWaitForNothingThatNoStateSees(t *testing.T) {
	t.Parallel()
	// Less than until anybody writes, as duties do now and then.
	nodes, _ := formWith(t, 3, &testMark{}, func(_ int, c *Config) { c.Hold = 3 * time.Second }, func(*Node) {})
	roundTrip(t, nodes[0], nodes[0], "before:1")
	inSomeTry(t, "all read after a barrier", func() error { // a busy machine may lose the leader, or be slower than that
		leader, _ := leaderOf(t, nodes)
		if err := leader.raft().Barrier(5 * time.Second).Error(); err != nil {
			return err
		}
		for _, n := range nodes {
			if got, err := addressOf(t.Context(), n, "x"); err != nil || got != "before:1" {
				return fmt.Errorf("after a barrier node %s reads %q, %w", n.id, got, err)
			}
		}
		return nil
	})
}

func TestStatesOfAllNodesHaveTheSameHash(t *testing.T) {
	t.Parallel()
	nodes := trio(t)
	for i := range 20 {
		roundTrip(t, nodes[i%3], nodes[(i+1)%3], fmt.Sprintf("host-%d:1", i))
	}
	eventually(t, "hashes agree", func() error {
		index, hash := nodes[0].State()
		for _, n := range nodes[1:] {
			if i, h := n.State(); i != index || string(h) != string(hash) {
				return fmt.Errorf("%d %x against %d %x", i, h, index, hash)
			}
		}
		return nil
	})
}

func TestWritesGoOnWhenTheLeaderDiesAndNoneIsLost(t *testing.T) {
	t.Parallel()
	nodes := trio(t)
	leader, followers := leaderOf(t, nodes)
	var acked sync.Map
	var writers sync.WaitGroup
	ctx, stop := context.WithCancel(t.Context())
	var count atomic.Int64
	for w := range 8 {
		writers.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				at, id := followers[w%2], fmt.Sprintf("w%d-%d", w, i)
				if _, err := at.Propose(t.Context(), putNode(id, "h:1")); err == nil {
					acked.Store(id, true)
					count.Add(1)
				} else if k := meta.KindOf(err); k != metav1.Kind_KIND_UNAVAILABLE && k != metav1.Kind_KIND_OUTCOME_UNKNOWN {
					t.Errorf("write %s: %v", id, err)
				}
			}
		})
	}
	more := func(than int64) func() error {
		return func() error {
			if n := count.Load(); n <= than {
				return fmt.Errorf("%d writes", n)
			}
			return nil
		}
	}
	eventually(t, "writes flow", more(100))
	leader.halt(t)
	eventually(t, "writes flow again", more(count.Load()+100))
	stop()
	writers.Wait()
	have := map[string]bool{}
	err := followers[0].View(t.Context(), meta.Read{}, func(v *meta.View) error {
		all, err := v.Nodes()
		for _, m := range all {
			have[m.GetId()] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	acked.Range(func(id, _ any) bool {
		if !have[id.(string)] {
			t.Errorf("acknowledged write %s is lost", id)
		}
		return true
	})
}

func TestSteppingDownHandsOverBeforeTheEnd(t *testing.T) {
	t.Parallel()
	nodes := trio(t)
	leader, _ := leaderOf(t, nodes)
	eventually(t, "another node leads", func() error { // leadership may come back by itself on a busy machine
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		term, _ := leader.leads()
		if err := leader.StepDown(ctx); err != nil {
			t.Fatal(err)
		}
		if now, leads := leader.leads(); leads && now == term {
			t.Fatal("it has stepped down and leads")
		}
		t.Log("handed over in", time.Since(began))
		if next, _ := leaderOf(t, nodes); next == leader {
			return errors.New("the same one")
		}
		return nil
	})
}

// forgetful loses the answer of the first Propose that succeeded.
type forgetful struct {
	clusterv1.NodeServiceClient
	lost *atomic.Int64
}

func (f forgetful) Propose(ctx context.Context, in *clusterv1.ProposeRequest, o ...grpc.CallOption) (*clusterv1.ProposeResponse, error) {
	out, err := f.NodeServiceClient.Propose(ctx, in, o...)
	if err == nil && f.lost.Add(-1) >= 0 {
		return nil, status.Error(codes.Unavailable, "answer lost by the test")
	}
	return out, err
}

func TestAForwardedWriteWhoseAnswerWasLostTakesEffectOnce(t *testing.T) {
	t.Parallel()
	var lost atomic.Int64
	nodes, _ := formWith(t, 3, &testMark{}, func(int, *Config) {}, func(n *Node) {
		plain := n.forward.peer
		n.forward.peer = func(id string) (clusterv1.NodeServiceClient, error) {
			c, err := plain(id)
			return forgetful{c, &lost}, err
		}
	})
	try := 0
	inSomeTry(t, "answers are lost", func() error { // none are while the node itself leads, which a busy machine may bring about
		_, followers := leaderOf(t, nodes)
		roundTrip(t, followers[0], followers[0], "registered:1") // the origin is known from here on
		try++
		name := fmt.Sprintf("once-%d", try)
		lost.Store(3)
		// Were the repeat judged anew, the lock would be held already.
		result, err := followers[0].Propose(t.Context(), followers[0].systemCommand(&metav1.Command{Kind: &metav1.Command_AcquireLock{
			AcquireLock: &metav1.AcquireLock{Name: name, Holder: "h", Ttl: int64(time.Minute)}}}))
		if err != nil {
			t.Fatalf("acquire: %v", err)
		}
		if lost.Load() >= 0 {
			return errors.New("not all that were to be")
		}
		return followers[0].View(t.Context(), meta.Read{}, func(v *meta.View) error {
			l, err := v.Lock(name)
			if err == nil && l.GetToken() != result.GetLock().GetToken() {
				t.Errorf("the state has token %d, the answer %d", l.GetToken(), result.GetLock().GetToken())
			}
			return err
		})
	})
}

func TestADeposedLeaderNeverAnswersStaleReads(t *testing.T) {
	// One node's lease outlasts the others' elections: cut off, it leads on for seconds.
	nodes, wires := formWith(t, 3, &testMark{}, func(i int, c *Config) {
		c.Hold = time.Second
		if i == 0 {
			c.TimeScale = 20
		}
	}, func(*Node) {})
	// Its heartbeats are as slow; writes keep the others from electing too soon.
	beats := func() (stop func()) {
		ctx, cancel := context.WithCancel(t.Context())
		var beating sync.WaitGroup
		beating.Go(func() {
			for ctx.Err() == nil {
				_, _ = nodes[0].Propose(ctx, putNode("beat", "a:1")) // fails while nobody leads
				select {
				case <-ctx.Done():
				case <-time.After(20 * time.Millisecond):
				}
			}
		})
		return func() { cancel(); beating.Wait() }
	}
	inSomeTry(t, "a deposed leader is asked before it steps down", func() error { // a busy machine may take longer than its lease
		stop := beats()
		defer stop()
		eventually(t, "the patient node leads", func() error {
			if nodes[0].opened.Load() != nil {
				return nil
			}
			leader, _ := leaderOf(t, nodes)
			_ = leader.raft().LeadershipTransferToServer(raftID(nodes[0]), raftAddress(nodes[0])).Error() // tried again
			return errors.New("not yet")
		})
		roundTrip(t, nodes[0], nodes[1], "old:1")
		stop()
		wires.isolate(nodes[0].advertise)
		defer wires.heal()
		eventually(t, "the others write", func() error {
			_, err := nodes[1].Propose(t.Context(), putNode("x", "new:1"))
			return err
		})
		tried := 0
		for deadline := time.Now().Add(2 * time.Second); time.Now().Before(deadline) && nodes[0].opened.Load() != nil; tried++ {
			if got, err := addressOf(t.Context(), nodes[0], "x"); err == nil && got != "new:1" {
				t.Fatalf("the deposed leader read %q after the others had written", got)
			}
		}
		if tried == 0 {
			return errors.New("it had stepped down")
		}
		return nil
	})
	eventually(t, "it catches up", func() error {
		if got, err := addressOf(t.Context(), nodes[0], "x"); err != nil || got != "new:1" {
			return fmt.Errorf("%q, %w", got, err)
		}
		return nil
	})
}

func TestAMinorityAnswersContentForAWhileAndNothingElse(t *testing.T) {
	t.Parallel()
	nodes, wires := formWith(t, 3, &testMark{}, func(_ int, c *Config) { c.Hold, c.ReadsOffline = 300*time.Millisecond, time.Minute }, func(*Node) {})
	_, followers := leaderOf(t, nodes)
	roundTrip(t, followers[0], followers[0], "x:1")
	wires.isolate(followers[0].advertise)
	eventually(t, "content falls back", func() error {
		return followers[0].View(t.Context(), meta.Read{Content: true}, func(v *meta.View) error {
			if !v.Stale() {
				return errors.New("still fresh")
			}
			return nil
		})
	})
	nothing := func(*meta.View) error { return nil }
	if err := followers[0].View(t.Context(), meta.Read{}, nothing); !isUnavailable(err) {
		t.Errorf("a plain read: %v, want unavailable", err)
	}
	if err := followers[0].View(t.Context(), meta.Read{Content: true, MinIndex: 1 << 40}, nothing); !isUnavailable(err) {
		t.Errorf("content beyond the own state: %v, want unavailable", err)
	}
	_, err := followers[0].Propose(t.Context(), putNode("x", "y:1"))
	if k := meta.KindOf(err); k != metav1.Kind_KIND_UNAVAILABLE && k != metav1.Kind_KIND_OUTCOME_UNKNOWN {
		t.Errorf("a write: %v, want unavailable", err)
	}
	followers[0].fresh.nanos.Store(int64(time.Since(followers[0].fresh.start) - 2*time.Minute))
	if err := followers[0].View(t.Context(), meta.Read{Content: true}, nothing); !isUnavailable(err) {
		t.Errorf("content after the offline time: %v, want unavailable", err)
	}
}

func TestARevisionBeyondTheLeadersIsRefusedAtOnce(t *testing.T) {
	t.Parallel()
	nodes, _ := formWith(t, 3, &testMark{}, func(_ int, c *Config) { c.Hold = time.Minute }, func(*Node) {})
	_, followers := leaderOf(t, nodes)
	began := time.Now()
	err := followers[0].View(t.Context(), meta.Read{MinIndex: 1 << 40}, func(*meta.View) error { return nil })
	// Who waited for it would wait for a minute.
	if meta.KindOf(err) != metav1.Kind_KIND_PRECONDITION || time.Since(began) > 30*time.Second {
		t.Errorf("%v after %v", err, time.Since(began))
	}
}

func TestAFullRestartUnderNewAddressesFindsItselfAgain(t *testing.T) {
	t.Parallel()
	nodes := trio(t)
	roundTrip(t, nodes[0], nodes[1], "kept:1")
	cluster := nodes[0].Status(t.Context()).ClusterID
	for _, n := range nodes {
		n.stop()
	}
	for _, n := range nodes {
		n.halt(t)
	}
	// Ports are free ones, so they differ but by chance; one contact in the join list is enough.
	fresh := make([]*running, 3)
	var contact []string
	for i, n := range nodes {
		cfg := n.cfg
		cfg.DataDir, cfg.Dial = dataOf(n), nil
		cfg.Join, cfg.Expect = contact, 0
		fresh[i] = start(t, cfg)
		_, gossip := fresh[i].Addresses()
		contact = []string{gossip}
	}
	settle(t, fresh)
	moved := 0
	for i, n := range fresh {
		if n.advertise != nodes[i].advertise {
			moved++
		}
		if s := n.Status(t.Context()); s.ClusterID != cluster {
			t.Errorf("node %s is in cluster %s at %s", n.id, s.ClusterID, n.advertise)
		}
		if got, err := addressOf(t.Context(), n, "x"); err != nil || got != "kept:1" {
			t.Errorf("node %s reads %q, %v", n.id, got, err)
		}
	}
	if moved == 0 { // a free port may be the old one, but not three times
		t.Error("no node has another address: the test shows nothing")
	}
	eventually(t, "the address book has the new addresses", func() error {
		for _, n := range fresh {
			if got, err := addressOf(t.Context(), fresh[0], n.id); err != nil || got != n.advertise {
				return fmt.Errorf("%s: %q, %w", n.id, got, err)
			}
		}
		return nil
	})
}

func TestKilledNodesComeBackFromWhatIsOnDisk(t *testing.T) {
	t.Parallel()
	nodes := trio(t)
	for i := range 30 {
		roundTrip(t, nodes[i%3], nodes[i%3], fmt.Sprintf("host-%d:1", i))
	}
	// What a kill leaves: the files as they are, nothing flushed or closed.
	copies := make([]string, 3)
	for i, n := range nodes {
		copies[i] = t.TempDir()
		if err := copyLive(dataOf(n), filepath.Join(copies[i], "data")); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range nodes {
		n.halt(t)
	}
	back := make([]*running, 3)
	var contact []string
	for i, n := range nodes {
		cfg := n.cfg
		cfg.DataDir, cfg.Join, cfg.Dial = filepath.Join(copies[i], "data"), contact, nil
		cfg.Expect = 0
		back[i] = start(t, cfg)
		_, gossip := back[i].Addresses()
		contact = []string{gossip}
	}
	settle(t, back)
	for _, n := range back {
		if got, err := addressOf(t.Context(), n, "x"); err != nil || got != "host-29:1" {
			t.Errorf("node %s reads %q, %v", n.id, got, err)
		}
	}
}

func TestWhatMustNotJoinIsRefusedWithAReason(t *testing.T) {
	t.Parallel()
	nodes := trio(t)
	_, gossip := nodes[1].Addresses()
	for _, c := range []struct {
		name   string
		change func(*Config)
		rename func(*Node)
		want   string
	}{
		{"another cluster", func(c *Config) { c.ClusterID = "0123" }, func(*Node) {}, "ClusterID is 0123, but only"},
		{"another secret", func(c *Config) { c.Secrets = []string{"another-" + testSecret} }, func(*Node) {}, "waiting for 3 nodes to form a cluster, 1 in sight"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := testConfig(t, nil)
			cfg.Join, cfg.Expect = []string{gossip}, 3
			c.change(&cfg)
			n := start(t, cfg)
			eventually(t, "the reason is said", func() error {
				if err := n.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), c.want) {
					return fmt.Errorf("got %w", err)
				}
				return nil
			})
		})
	}
	leader, _ := leaderOf(t, nodes)
	for _, c := range []struct {
		name string
		ask  *clusterv1.JoinRequest
		kind metav1.Kind
	}{
		{"a certificate of another node", &clusterv1.JoinRequest{Node: &metav1.Node{Id: "other"}}, metav1.Kind_KIND_DENIED},
		{"another cluster id", &clusterv1.JoinRequest{Node: &metav1.Node{}, ClusterId: "0123"}, metav1.Kind_KIND_DENIED},
		{"a private store", &clusterv1.JoinRequest{Node: &metav1.Node{}, PrivateStore: true}, metav1.Kind_KIND_DENIED},
		{"a newer release", &clusterv1.JoinRequest{Node: &metav1.Node{MinVersion: CommandVersion + 1, MaxVersion: CommandVersion + 2}}, metav1.Kind_KIND_UNSUPPORTED},
		{"an older release", &clusterv1.JoinRequest{Node: &metav1.Node{MinVersion: 1, MaxVersion: 1}}, metav1.Kind_KIND_UNSUPPORTED},
		{"no address", &clusterv1.JoinRequest{Node: &metav1.Node{MinVersion: 1, MaxVersion: CommandVersion}}, metav1.Kind_KIND_INVALID},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := leader.admit(t.Context(), c.ask); meta.KindOf(err) != c.kind {
				t.Errorf("got %v, want %v", err, c.kind)
			}
		})
	}
}

func TestABucketOfAnotherClusterEndsTheStart(t *testing.T) {
	cfg := testConfig(t, &testMark{owner: "somebody-else", epoch: "e"})
	n := start(t, cfg)
	<-n.ended
	if n.err == nil || !strings.Contains(n.err.Error(), "the store belongs to cluster somebody-else") {
		t.Errorf("got %v", n.err)
	}
}

func TestACrashInTheMiddleOfABootstrapIsMended(t *testing.T) {
	cfg := testConfig(t, &testMark{owner: "c1", epoch: "e1"})
	d, err := openDirectory(cfg.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.change(func(i *identity) bool {
		i.Founding = &founding{ClusterID: "c1", Epoch: "e1"}
		return true
	}); err != nil {
		t.Fatal(err)
	}
	logs, err := openLog(filepath.Join(cfg.DataDir, "raft"), func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(logs.SetUint64([]byte(termKey), 1), logs.Close(), d.Close()); err != nil {
		t.Fatal(err)
	}
	n := start(t, cfg)
	settle(t, []*running{n})
	roundTrip(t, n, n, "mended:1")
}

func TestACopiedDataDirectoryIsAClone(t *testing.T) {
	t.Parallel()
	nodes := trio(t)
	_, followers := leaderOf(t, nodes)
	unlessBusy(t, "the original answers in time", func() error { // a busy machine may be too slow for askTimeout
		dir := filepath.Join(t.TempDir(), "data")
		if err := copyLive(dataOf(followers[0]), dir); err != nil {
			t.Fatal(err)
		}
		cfg := followers[0].cfg
		cfg.DataDir, cfg.Dial, cfg.GossipListen, cfg.Join = dir, nil, "127.0.0.1:0", nil
		cfg.Expect = 0
		twin, err := tryStart(t, cfg)
		if err == nil {
			twin.halt(t)
			return errors.New("the copy started")
		}
		if !strings.Contains(err.Error(), "was copied") {
			t.Errorf("got %v", err)
		}
		return nil
	})
}

func TestTwoProcessesCannotShareADataDirectory(t *testing.T) {
	cfg := testConfig(t, nil)
	start(t, cfg)
	if _, err := tryStart(t, cfg); err == nil || !strings.Contains(err.Error(), "another process uses it") {
		t.Errorf("got %v", err)
	}
}

func TestForwardedRubbishNeverReachesTheLog(t *testing.T) {
	t.Parallel()
	nodes := trio(t)
	leader, followers := leaderOf(t, nodes)
	peer, err := followers[0].peer(leader.id)
	if err != nil {
		t.Fatal(err)
	}
	response, err := peer.Propose(t.Context(), &clusterv1.ProposeRequest{Commands: [][]byte{
		{0xff, 0xff}, {}, make([]byte, meta.MaxCommand+1),
	}})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []metav1.Kind{metav1.Kind_KIND_INVALID, metav1.Kind_KIND_UNSUPPORTED, metav1.Kind_KIND_TOO_LARGE} {
		if got := response.GetOutcomes()[i].GetRefusal().GetKind(); got != want {
			t.Errorf("command %d: %v, want %v", i, got, want)
		}
	}
	roundTrip(t, followers[0], leader, "alive:1")
}
