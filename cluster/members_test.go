package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// operator is who asks in these tests.
func operator() *metav1.Envelope {
	return &metav1.Envelope{Actor: &metav1.Actor{Name: "ada", Method: "socket"}}
}

// newcomer starts a node that joins through another one.
func newcomer(t testing.TB, at *running, change func(*Config)) *running {
	t.Helper()
	cfg := testConfig(t, nil)
	_, gossip := at.Addresses()
	cfg.Join, cfg.Expect = []string{gossip}, 3
	change(&cfg)
	return start(t, cfg)
}

func asIs(*Config) {}

// crewed waits until every node sees exactly these voters, and these others, and the address book has exactly all of them.
func crewed(t testing.TB, voting, others []*running) {
	t.Helper()
	all := slices.Concat(voting, others)
	want := func(nodes []*running) (ids []string) {
		for _, n := range nodes {
			ids = append(ids, n.id)
		}
		slices.Sort(ids)
		return ids
	}
	for _, at := range all {
		eventually(t, "node "+at.id+" knows who belongs and who votes", func() error {
			var votes, rest, book []string
			for _, s := range at.raft().GetConfiguration().Configuration().Servers {
				if s.Suffrage == raft.Voter {
					votes = append(votes, string(s.ID))
				} else {
					rest = append(rest, string(s.ID))
				}
			}
			for _, m := range at.nodes() {
				book = append(book, m.GetId())
			}
			slices.Sort(votes)
			slices.Sort(rest)
			if !slices.Equal(votes, want(voting)) || !slices.Equal(rest, want(others)) || !slices.Equal(book, want(all)) {
				return fmt.Errorf("it knows the voters %v, the others %v, and in the book are %v", votes, rest, book)
			}
			return at.Ready(t.Context())
		})
	}
}

func TestAFourthStandsByAndAFifthMakesFiveVoters(t *testing.T) {
	t.Parallel()
	nodes := trio(t)
	fourth := newcomer(t, nodes[1], asIs)
	crewed(t, nodes, []*running{fourth})
	fifth := newcomer(t, nodes[2], asIs)
	crewed(t, append(nodes, fourth, fifth), nil)
	sixth := newcomer(t, fifth, asIs)
	crewed(t, append(nodes, fourth, fifth), []*running{sixth})
	// Without a vote it serves like any other, forwarding what it does not decide.
	roundTrip(t, sixth, fourth, "by the sixth:1")
	roundTrip(t, nodes[0], sixth, "for the sixth:1")
}

func TestFreshNodesFormExactlyOneCluster(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ expect, nodes, voters int }{{4, 4, 3}, {6, 6, 5}, {3, 4, 3}} {
		t.Run(fmt.Sprintf("%d of %d", c.nodes, c.expect), func(t *testing.T) {
			mark := &testMark{}
			var all []*running
			var join []string
			for i := range c.nodes {
				cfg := testConfig(t, mark)
				cfg.Name, cfg.Expect, cfg.Join = fmt.Sprintf("n%d", i), c.expect, join
				if i == 0 {
					cfg.Join = []string{"127.0.0.1:1"}
				}
				all = append(all, start(t, cfg))
				_, gossip := all[i].Addresses()
				join = append(join, gossip)
			}
			for _, n := range all {
				eventually(t, "node "+n.id+" is a member like the others", func() error {
					servers := n.raft().GetConfiguration().Configuration()
					owner, _, err := mark.Owner(t.Context())
					if err != nil || len(servers.Servers) != c.nodes || len(voters(servers)) != c.voters || n.ClusterID() != owner {
						return fmt.Errorf("of cluster %s, %d of %d members vote", n.ClusterID(), len(voters(servers)), len(servers.Servers))
					}
					return n.Ready(t.Context())
				})
			}
			roundTrip(t, all[0], all[c.nodes-1], "one:1")
		})
	}
}

// replacing makes the dead lose their votes soon; who is only slow on a busy machine is not dead.
func replacing(_ int, c *Config) { c.DeadReplace = 4 * time.Second }

func TestADeadVoterIsReplacedByWhoStandsByAndMayComeBack(t *testing.T) {
	t.Parallel()
	nodes, _ := formWith(t, 3, &testMark{}, replacing, func(*Node) {})
	spare := newcomer(t, nodes[0], func(c *Config) { replacing(0, c) })
	crewed(t, nodes, []*running{spare})
	_, followers := leaderOf(t, nodes)
	dead := followers[0]
	dead.halt(t)
	alive := append(slices.DeleteFunc(slices.Clone(nodes), func(n *running) bool { return n == dead }), spare)
	eventually(t, "the spare votes in its place", func() error {
		leader, _ := leaderOf(t, alive)
		if v := voters(leader.raft().GetConfiguration().Configuration()); len(v) != 3 || slices.Contains(v, dead.id) {
			return fmt.Errorf("voters are %v", v)
		}
		return nil
	})
	cfg := dead.Node.cfg
	_, gossip := spare.Addresses()
	cfg.Join, cfg.Dial = []string{gossip}, nil
	crewed(t, alive, []*running{start(t, cfg)})
}

func TestANodeThatIsSilentForLongIsForgottenAndSaysSoWhenItComesBack(t *testing.T) {
	t.Parallel()
	forgetting := func(_ int, c *Config) { c.DeadReplace, c.DeadForget = 4*time.Second, 5*time.Second }
	nodes, _ := formWith(t, 3, &testMark{}, forgetting, func(*Node) {})
	spare := newcomer(t, nodes[0], func(c *Config) { forgetting(0, c) })
	crewed(t, nodes, []*running{spare})
	cfg := spare.cfg
	spare.halt(t)
	crewed(t, nodes, nil)
	_, gossip := nodes[0].Addresses()
	cfg.Join = []string{gossip}
	back := start(t, cfg)
	<-back.ended
	if !errors.Is(back.err, ErrDeparted) || !strings.Contains(back.err.Error(), "was removed from the cluster") {
		t.Errorf("got %v", back.err)
	}
	back.halt(t)
	if _, err := tryStart(t, back.Node.cfg); !errors.Is(err, ErrDeparted) {
		t.Errorf("started again: %v", err)
	}
	crewed(t, nodes, nil)
}

func TestAWipedNodeTakesThePlaceOfItsName(t *testing.T) {
	t.Parallel()
	nodes := trio(t) // DeadReplace is a minute: the name alone decides
	_, followers := leaderOf(t, nodes)
	lost := followers[1]
	name := lost.cfg.Name
	lost.halt(t)
	rest := slices.DeleteFunc(slices.Clone(nodes), func(n *running) bool { return n == lost })
	fresh := newcomer(t, rest[0], func(c *Config) { c.Name = name })
	crewed(t, append(rest, fresh), nil)
	roundTrip(t, fresh, rest[1], "wiped:1")
}

func TestTheNameOfAMemberThatAnswersIsRefused(t *testing.T) {
	t.Parallel()
	unlessBusy(t, "the holder answers in time", func() error { // a busy machine may be too slow for askHealth
		nodes := trio(t)
		second := newcomer(t, nodes[0], func(c *Config) { c.Name = nodes[1].cfg.Name })
		joined := false
		eventually(t, "it ends, or joins", func() error {
			select {
			case <-second.ended:
				return nil
			default:
				err := second.Ready(t.Context())
				joined = err == nil
				return err
			}
		})
		if joined {
			for _, n := range append(nodes, second) {
				n.halt(t)
			}
			return errors.New("it has joined")
		}
		if second.err == nil || !strings.Contains(second.err.Error(), "give this node another name") {
			t.Errorf("got %v", second.err)
		}
		crewed(t, nodes, nil)
		return nil
	})
}

// TestARenamedNodeTakesNobodysPlace: the holder of the name would be removed as superseded when it restarts.
func TestARenamedNodeTakesNobodysPlace(t *testing.T) {
	t.Parallel()
	unlessBusy(t, "it keeps its name", func() error { // a holder that a busy machine keeps from answering in time loses it
		nodes := trio(t)
		crewed(t, nodes, nil)
		leader, followers := leaderOf(t, nodes)
		was := followers[0].self().GetName()
		cfg := followers[0].cfg
		followers[0].halt(t)
		_, gossip := leader.Addresses()
		cfg.Dial, cfg.Join, cfg.Name = nil, []string{gossip}, leader.self().GetName()
		again := start(t, cfg)
		eventually(t, "its entry is as it will be", func() error {
			row, err := leader.node(again.id)
			if err != nil || row.GetBootId() != again.boot {
				return fmt.Errorf("%v, %w", row, err)
			}
			return nil
		})
		row, err := leader.node(again.id)
		if err == nil && row.GetName() == was {
			return nil
		}
		for _, n := range append(nodes, again) {
			n.halt(t)
		}
		return fmt.Errorf("it is called %q now, %w; it was %q and wanted the leader's", row.GetName(), err, was)
	})
}

func TestANodeLeavesAndItsDirectoryKnows(t *testing.T) {
	t.Parallel()
	nodes := trio(t)
	leader, _ := leaderOf(t, nodes)
	// Members that a busy machine keeps from answering in time count as failed, so it is asked again.
	eventually(t, "one of three may not leave", func() error {
		err := leader.MayLeave(t.Context(), false, operator())
		if err == nil {
			t.Fatal("one of three may leave")
		}
		if meta.KindOf(err) != preconditionKind || !strings.Contains(err.Error(), "no further voter may fail") {
			return err
		}
		return nil
	})
	spare := newcomer(t, nodes[0], asIs)
	crewed(t, nodes, []*running{spare})
	eventually(t, "with a spare it may", func() error { return leader.MayLeave(t.Context(), false, operator()) })
	eventually(t, "it leaves", func() error {
		return errors.Join(leader.StepDown(t.Context()), leader.Leave(t.Context(), false, operator()))
	})
	cfg := leader.cfg
	leader.halt(t)
	if leader.err != nil {
		t.Errorf("the end of a node that left: %v", leader.err)
	}
	rest := append(slices.DeleteFunc(slices.Clone(nodes), func(n *running) bool { return n == leader }), spare)
	crewed(t, rest, nil)
	if _, err := tryStart(t, cfg); !errors.Is(err, ErrDeparted) || !strings.Contains(err.Error(), "left the cluster at") {
		t.Errorf("started again: %v", err)
	}
	by := ""
	if err := rest[0].View(t.Context(), meta.Read{}, func(v *meta.View) error {
		rows, _, err := v.Events(meta.EventCursor{}, 1000)
		for _, e := range rows {
			if e.GetAction() == metav1.Action_ACTION_REMOVE_NODE && e.GetSubject() == leader.id {
				by = e.GetActor()
			}
		}
		return err
	}); err != nil || by != "ada" {
		t.Errorf("removed by %q, %v", by, err)
	}
}

func TestTheLastVoterStays(t *testing.T) {
	n := start(t, testConfig(t, nil))
	settle(t, []*running{n})
	for _, force := range []bool{false, true} {
		if err := n.MayLeave(t.Context(), force, operator()); meta.KindOf(err) != preconditionKind || !strings.Contains(err.Error(), "last voter") {
			t.Errorf("force %v: %v", force, err)
		}
	}
	if _, err := n.Transfer(t.Context(), "", operator()); meta.KindOf(err) != preconditionKind {
		t.Errorf("transfer: %v", err)
	}
}

func TestARemovedNodeStopsAndSaysSo(t *testing.T) {
	t.Parallel()
	nodes := trio(t)
	leader, followers := leaderOf(t, nodes)
	removed, other := followers[0], followers[1]
	eventually(t, "refused without force", func() error { // asked again where the leader is lost for as long as a verb waits
		_, err := other.Remove(t.Context(), removed.cfg.Name, false, false, operator())
		if err == nil {
			t.Fatal("removed without force")
		}
		if meta.KindOf(err) != preconditionKind {
			return err
		}
		return nil
	})
	if _, err := other.Remove(t.Context(), "nobody", true, false, operator()); meta.KindOf(err) != metav1.Kind_KIND_UNKNOWN {
		t.Errorf("nobody: %v", err)
	}
	if id, err := other.Remove(t.Context(), removed.cfg.Name, true, false, operator()); err != nil || id != removed.id {
		t.Fatalf("removed %q, %v", id, err)
	}
	select {
	case <-removed.ended:
	case <-time.After(time.Minute):
		t.Fatal("the removed node runs on")
	}
	if !errors.Is(removed.err, ErrDeparted) {
		t.Errorf("it ended with %v", removed.err)
	}
	crewed(t, []*running{leader, other}, nil)
	eventually(t, "its address is forgotten", func() error {
		if at := other.dir.address(removed.id); at != (address{}) {
			return fmt.Errorf("it is %v", at)
		}
		return nil
	})
}

// TestANodeThatIsOnlyCutOffWasNotRemoved: no leader for long is no removal.
func TestANodeThatIsOnlyCutOffWasNotRemoved(t *testing.T) {
	t.Parallel()
	nodes, wires := formWith(t, 3, &testMark{}, func(int, *Config) {}, func(*Node) {})
	leader, followers := leaderOf(t, nodes)
	wires.isolate(followers[0].advertise)
	eventually(t, "it has no leader", func() error {
		if id, _ := followers[0].leaders.now(); id != "" {
			return errors.New("it knows " + id)
		}
		return nil
	})
	w := &watch{node: followers[0].Node, members: map[string]bool{}} // heard of a leader never
	if how := w.ended(t.Context()); how != "" {
		t.Errorf("it believes that it %s", how)
	}
	eventually(t, "a node that does not lead says of nobody that he was removed", func() error { // it may have come to lead meanwhile
		_, rest := leaderOf(t, []*running{leader, followers[1]})
		if rest[0].membership(t.Context(), followers[0].id).GetRemoved() {
			t.Fatal("a member was removed")
		}
		if rest[0].membership(t.Context(), "stranger").GetRemoved() {
			return errors.New("it does")
		}
		return nil
	})
	wires.heal()
	settle(t, nodes)
}

// TestALeaderThatIsCutOffTellsNobodyThatItWasRemoved: others may lead by now, and have let him in. It believes to lead for a lease yet.
func TestALeaderThatIsCutOffTellsNobodyThatItWasRemoved(t *testing.T) {
	t.Parallel()
	nodes, wires := formWith(t, 3, &testMark{}, func(_ int, c *Config) { c.TimeScale = 4 }, func(*Node) {}) // a lease of a second
	eventually(t, "a leader that leads says that a stranger is no member", func() error {
		if leader, _ := leaderOf(t, nodes); !leader.membership(t.Context(), "stranger").GetRemoved() {
			return errors.New("it does not")
		}
		return nil
	})
	inSomeTry(t, "one that was cut off is asked within its lease", func() error { // a busy machine may be slower than that
		leader, _ := leaderOf(t, nodes)
		wires.isolate(leader.advertise)
		defer wires.heal()
		if _, leads := leader.leads(); !leads {
			return errors.New("it has stepped down")
		}
		if leader.membership(t.Context(), "stranger").GetRemoved() {
			t.Error("a leader that was cut off ends a membership that it may not know of")
		}
		return nil
	})
	settle(t, nodes)
}

// TestARemovalThatIsNotCommittedEndsNobody: it may be lost with its leader.
func TestARemovalThatIsNotCommittedEndsNobody(t *testing.T) {
	t.Parallel()
	nodes, wires := formWith(t, 3, &testMark{}, func(_ int, c *Config) { c.TimeScale = 4 }, func(*Node) {}) // a lease of a second
	// A busy machine may be slower than the lease.
	eventually(t, "a leader has it in its log while it leads", func() error {
		leader, followers := leaderOf(t, nodes)
		wires.isolate(leader.advertise)
		defer wires.heal()
		change := leader.raft().RemoveServer(raftID(followers[0]), 0, time.Second)
		ended := make(chan error, 1)
		go func() { ended <- change.Error() }()
		for leader.configured(followers[0].id) {
			select {
			case err := <-ended:
				return fmt.Errorf("never: %w", err)
			case <-time.After(time.Millisecond):
			}
		}
		if leader.expelled(followers[0].id) {
			t.Error("it is told that it was removed")
		}
		if err := <-ended; err == nil {
			t.Error("it was committed: the test shows nothing")
		}
		return nil
	})
}

// TestARemovedNodeHearsOfItBesideOneThatSwallowsTheQuestion: a dead machine among those it asks must not keep it serving old state.
func TestARemovedNodeHearsOfItBesideOneThatSwallowsTheQuestion(t *testing.T) {
	t.Parallel()
	s := &swamp{sunk: map[string]bool{}, up: make(chan struct{})}
	voting := trio(t)
	removed := newcomer(t, voting[0], func(c *Config) { c.Dial = s.dialer(new(string)) })
	crewed(t, voting, []*running{removed})
	slices.SortFunc(voting, func(a, b *running) int { return strings.Compare(a.id, b.id) })
	removed.leaving.Store(true) // it is asked here
	if _, err := voting[2].Remove(t.Context(), removed.id, false, false, operator()); err != nil {
		t.Fatal(err)
	}
	inSomeTry(t, "the leader is heard", func() error { // a busy machine may be late with the answer, or lose the leader
		eventually(t, "the last one leads", func() error {
			_, err := voting[0].Transfer(t.Context(), voting[2].id, operator())
			return err
		})
		eventually(t, "a connection that stands", func() error { // it takes the question, and is silent
			_, err := removed.describe(t.Context(), voting[0].id)
			return err
		})
		s.sink(voting[0].advertise) // the first that would be asked
		defer s.drain()
		if !removed.wasRemoved(t.Context()) {
			return errors.New("the leader's answer was not heard")
		}
		return nil
	})
}

// TestAutopilotGivesNoVoteToWhoWasRemoved, by a state that it looked at before: a vote makes a member of whoever gets it.
func TestAutopilotGivesNoVoteToWhoWasRemoved(t *testing.T) {
	t.Parallel()
	nodes := trio(t)
	leader, followers := leaderOf(t, nodes)
	if _, err := leader.Remove(t.Context(), followers[0].id, true, false, operator()); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(raft.ServerID, raft.ServerAddress, uint64, time.Duration) raft.IndexFuture{
		"a vote": raftNow{leader.Node}.AddVoter, "a place": raftNow{leader.Node}.AddNonvoter,
	} {
		if err := change(raftID(followers[0]), raftAddress(followers[0]), 0, 0).Error(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if leader.configured(followers[0].id) {
			t.Fatalf("it was given %s", name)
		}
	}
	crewed(t, []*running{leader, followers[1]}, nil)
}

// TestARemovedNodeRegistersNoOrigin: it would stay for ever. What the node sends comes until it hears that it was removed.
func TestARemovedNodeRegistersNoOrigin(t *testing.T) {
	t.Parallel()
	nodes, _ := formWith(t, 3, &testMark{}, func(_ int, c *Config) { c.Hold = time.Second }, func(*Node) {}) // it is refused after that
	leader, followers := leaderOf(t, nodes)
	removed := followers[0]
	if _, err := leader.Remove(t.Context(), removed.id, true, false, operator()); err != nil {
		t.Fatal(err)
	}
	late := newOrigin(removed.id, "late").register()
	for name, send := range map[string]func(context.Context) error{
		"to the leader":      func(ctx context.Context) error { _, err := leader.Propose(ctx, late); return err },
		"through a follower": func(ctx context.Context) error { _, err := followers[1].Propose(ctx, late); return err },
	} {
		eventually(t, name+": refused because it is no member", func() error { // a leader that changes is asked again
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second) // well over Hold
			defer cancel()
			err := send(ctx)
			if err == nil {
				t.Fatalf("%s: it was registered", name)
			}
			if !isUnavailable(err) || !strings.Contains(err.Error(), "is no member") {
				return err
			}
			return nil
		})
	}
	eventually(t, "a member registers one", func() error {
		_, err := leader.Propose(t.Context(), newOrigin(followers[1].id, "late").register())
		return err
	})
	crewed(t, []*running{leader, followers[1]}, nil)
}

func TestLeadershipGoesWhereItIsSent(t *testing.T) {
	t.Parallel()
	nodes := trio(t)
	spare := newcomer(t, nodes[0], asIs)
	crewed(t, nodes, []*running{spare})
	_, followers := leaderOf(t, nodes)
	to := followers[1]
	// A transfer fails where the other one is slower than an election, and leadership may move by itself on a busy machine.
	sent := func(node string) {
		t.Helper()
		eventually(t, "it goes to "+node, func() error {
			if got, err := spare.Transfer(t.Context(), node, operator()); err != nil || got != to.id {
				return fmt.Errorf("%q leads, %w", got, err)
			}
			return nil
		})
	}
	sent(to.cfg.Name)
	sent(to.id) // who leads already
	eventually(t, "it does not go to a node without a vote", func() error {
		_, err := spare.Transfer(t.Context(), spare.id, operator())
		if err == nil {
			t.Fatal("a node without a vote was made the leader")
		}
		if meta.KindOf(err) != preconditionKind {
			return err
		}
		return nil
	})
	eventually(t, "it goes to anybody else", func() error {
		sent(to.id)
		if got, err := nodes[0].Transfer(t.Context(), "", operator()); err != nil || got == to.id || got == "" {
			return fmt.Errorf("%q leads, %w", got, err)
		}
		return nil
	})
}

func TestARowWithoutAMemberIsSweptUp(t *testing.T) {
	t.Parallel()
	nodes := trio(t)
	crewed(t, nodes, nil)
	leader, _ := leaderOf(t, nodes)
	eventually(t, "every member has its row", func() error {
		if n := len(leader.nodes()); n != len(nodes) {
			return fmt.Errorf("there are %d", n)
		}
		return nil
	})
	mustWrite(t, leader, putNode("ghost", "a:1"))
	b := &bookkeeper{node: leader.Node, ghosts: map[string]time.Time{}}
	if err := b.sweep(t.Context()); err != nil || len(b.ghosts) != 1 || len(leader.nodes()) != 4 {
		t.Errorf("at first it waits: %v, %v", b.ghosts, err)
	}
	b.ghosts["ghost"] = time.Now().Add(-2 * leader.Node.cfg.ghostFor)
	if err := b.sweep(t.Context()); err != nil {
		t.Error(err)
	}
	crewed(t, nodes, nil)
}

func TestAJoinWaitsForTheQuorum(t *testing.T) {
	t.Parallel()
	nodes := trio(t)
	leader, followers := leaderOf(t, nodes)
	leader.halt(t)
	followers[0].halt(t)
	late := newcomer(t, followers[1], asIs)
	eventually(t, "it says what it waits for", func() error {
		if err := late.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "bring a majority of its voters back") {
			return fmt.Errorf("got %w", err)
		}
		return nil
	})
	_, gossip := followers[1].Addresses()
	cfg := followers[0].Node.cfg
	cfg.Join, cfg.Dial = []string{gossip}, nil
	start(t, cfg)
	eventually(t, "it has joined", func() error { return late.Ready(t.Context()) })
}

// TestTheLeaderSaysWhyLessMayFail: it never drops without a cause.
func TestTheLeaderSaysWhyLessMayFail(t *testing.T) {
	t.Parallel()
	inSomeTry(t, "one leads all the time", func() error { // the next one looks for the first time, and has nothing to compare with
		said := &lines{}
		nodes, _ := formWith(t, 3, &testMark{}, func(_ int, c *Config) { c.Log = said.logger() }, func(*Node) {})
		eventually(t, "it rose", func() error { return said.has("failure tolerance rose", "to=1") })
		leader, followers := leaderOf(t, nodes)
		term, _ := leader.leads()
		followers[0].halt(t)
		var missing error
		eventually(t, "it dropped", func() error {
			missing = said.has("failure tolerance dropped", "to=0", "node "+followers[0].id, "has not answered for")
			if now, leads := leader.leads(); !leads || now != term {
				return nil
			}
			return missing
		})
		if missing != nil {
			for _, n := range nodes {
				n.halt(t)
			}
		}
		return missing
	})
}

func TestAChangeOfMembersIsNotInterruptedByALostAnswer(t *testing.T) {
	t.Parallel()
	nodes := trio(t)
	_, followers := leaderOf(t, nodes)
	// Asked twice for the same, as after a lost answer: the second finds nobody, and changes nothing.
	if _, err := followers[0].Remove(t.Context(), followers[1].id, true, false, operator()); err != nil {
		t.Fatal(err)
	}
	<-followers[1].ended
	if _, err := followers[0].Remove(t.Context(), followers[1].id, true, false, operator()); meta.KindOf(err) != metav1.Kind_KIND_UNKNOWN {
		t.Errorf("again: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := followers[0].Leave(ctx, true, operator()); err != nil {
		t.Error(err)
	}
}

// TestAStaleJudgementBringsNobodyBack: autopilot may act on what it saw before a removal.
func TestAStaleJudgementBringsNobodyBack(t *testing.T) {
	t.Parallel()
	nodes := trio(t)
	leader, followers := leaderOf(t, nodes)
	if _, err := leader.Remove(t.Context(), followers[0].id, true, false, operator()); err != nil {
		t.Fatal(err)
	}
	late := raftNow{leader.Node}
	if err := late.AddVoter(raftID(followers[0]), raftAddress(followers[0]), 0, 0).Error(); err != nil {
		t.Error(err)
	}
	if err := late.DemoteVoter(raftID(followers[0]), 0, 0).Error(); err != nil {
		t.Error(err)
	}
	if leader.configured(followers[0].id) {
		t.Error("the removed node is a member again")
	}
}
