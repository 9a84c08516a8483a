package cluster

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	autopilot "github.com/hashicorp/raft-autopilot"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	clusterv1 "github.com/pontoon-registry/pontoon/proto/pontoon/cluster/v1"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

const (
	// lookEvery is how often the leader asks all members for their health, and acts on it.
	lookEvery = 500 * time.Millisecond
	// askHealth ends one question to a member.
	askHealth = time.Second
	// stableFor is for how long a node must have been healthy before it votes.
	stableFor = 10 * time.Second
	// caughtUp is how many entries a member may lack and still be healthy.
	caughtUp = 256
	// silentFor is how long a member may be silent before its name may be taken by another.
	silentFor = 3 * time.Second
	// changeTime ends one change of the configuration: to be queued, and the ledger's part.
	changeTime = 5 * time.Second
)

// pilot is what autopilot needs of a leader. It lives as long as the term: what
// it has heard is heard anew by the next leader. Raft's configuration says who is
// a member; gossip is not asked.
type pilot struct {
	node *Node

	// mu guards what follows.
	mu sync.Mutex
	// heard is when each member last answered, or was first known.
	heard map[string]time.Time
	// order is the members as the configuration lists them: who joined later stands later.
	order []string
	// tolerance is what NotifyState saw last; negative before.
	tolerance int
}

// keepVoters is the duty: who votes, and who is forgotten.
func (n *Node) keepVoters(ctx context.Context, _ Leadership) error {
	p := &pilot{node: n, heard: map[string]time.Time{}, tolerance: -1}
	a := autopilot.New(raftNow{n}, p,
		autopilot.WithLogger(&raftLogger{log: n.log}), autopilot.WithPromoter(promoter{p}),
		autopilot.WithUpdateInterval(n.cfg.brisk(lookEvery)), autopilot.WithReconcileInterval(n.cfg.brisk(lookEvery)))
	a.Start(ctx)
	<-ctx.Done()
	<-a.Stop()
	return nil
}

// AutopilotConfig is called before every judgement.
func (p *pilot) AutopilotConfig() *autopilot.Config {
	c := &p.node.cfg
	return &autopilot.Config{
		CleanupDeadServers: true,
		// Raft's heartbeats come several times in this; a busy machine must not look like a dead one.
		LastContactThreshold: max(c.scaled(2*heartbeat), 2*heartbeat),
		MaxTrailingLogs:      caughtUp,
		MinQuorum:            1, // nobody who votes is removed here, see FilterFailedServerRemovals
	}
}

// KnownServers are all members, with what the address book says of them.
func (p *pilot) KnownServers() map[raft.ServerID]*autopilot.Server {
	names := map[string]*metav1.Node{}
	for _, m := range p.node.nodes() {
		names[m.GetId()] = m
	}
	known := map[raft.ServerID]*autopilot.Server{}
	config := p.node.raft().GetConfiguration().Configuration()
	p.meet(config)
	for _, s := range config.Servers {
		status := autopilot.NodeAlive
		if p.dead(string(s.ID)) {
			status = autopilot.NodeFailed
		}
		known[s.ID] = &autopilot.Server{ID: s.ID, Address: s.Address, Name: names[string(s.ID)].GetName(), NodeStatus: status,
			NodeType: autopilot.NodeVoter, IsLeader: string(s.ID) == p.node.id}
	}
	return known
}

// meet notes members that are new, and forgets those that are gone.
func (p *pilot) meet(c raft.Configuration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	heard := make(map[string]time.Time, len(c.Servers))
	p.order = p.order[:0]
	for _, s := range c.Servers {
		id := string(s.ID)
		at, known := p.heard[id]
		if !known {
			at = time.Now()
		}
		heard[id], p.order = at, append(p.order, id)
	}
	p.heard = heard
}

// FetchServerStats asks all members at once. Who does not answer keeps its old figures, which age.
func (p *pilot) FetchServerStats(ctx context.Context, servers map[raft.ServerID]*autopilot.Server) map[raft.ServerID]*autopilot.ServerStats {
	// Autopilot gives half of its interval, less than a busy node may need.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askHealth)
	defer cancel()
	stats := make(map[raft.ServerID]*autopilot.ServerStats, len(servers))
	var mu sync.Mutex
	var asking sync.WaitGroup
	for id := range servers {
		asking.Go(func() {
			s := p.ask(ctx, string(id))
			mu.Lock()
			defer mu.Unlock()
			stats[id] = s
		})
	}
	asking.Wait()
	return stats
}

// ask answers one member's figures; a silent one's contact is negative, which is never healthy.
func (p *pilot) ask(ctx context.Context, id string) *autopilot.ServerStats {
	h, err := p.node.healthOf(ctx, id)
	if err != nil {
		return &autopilot.ServerStats{LastContact: -1}
	}
	p.mu.Lock()
	p.heard[id] = time.Now()
	p.mu.Unlock()
	// A voter must have the log; a node that serves must have applied it too.
	return &autopilot.ServerStats{LastContact: time.Duration(h.GetLastContact()), LastTerm: h.GetLastLogTerm(), LastIndex: min(h.GetLastLog(), h.GetApplied())}
}

// healthOf asks a member, or this node itself.
func (n *Node) healthOf(ctx context.Context, id string) (*clusterv1.HealthResponse, error) {
	if id == n.id {
		return n.health(), nil
	}
	peer, err := n.peer(id)
	if err != nil {
		return nil, err
	}
	return healthBy(ctx, peer)
}

// healthBy is what a member of this release, or of the previous one, says of itself.
func healthBy(ctx context.Context, peer clusterv1.NodeServiceClient) (*clusterv1.HealthResponse, error) {
	h, err := peer.Health(ctx, &clusterv1.HealthRequest{})
	if status.Code(err) != codes.Unimplemented {
		return h, err
	}
	// A release of command version 1, which has not been upgraded yet. It answers, so it is not dead, and follows who asks.
	a, err := peer.Term(ctx, &clusterv1.TermRequest{})
	if err != nil {
		return nil, err
	}
	return &clusterv1.HealthResponse{LastLog: a.GetLastLog(), LastLogTerm: a.GetTerm(), Applied: a.GetApplied()}, nil
}

// silent is for how long a member has not answered.
func (p *pilot) silent(id string) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	at, known := p.heard[id]
	if !known {
		return 0
	}
	return time.Since(at)
}

// dead: its vote may go to another.
func (p *pilot) dead(id string) bool {
	return p.silent(id) >= p.node.cfg.DeadReplace || p.superseded(id) != ""
}

// forgotten: it may be removed, if it has no vote.
func (p *pilot) forgotten(id string) bool {
	return p.silent(id) >= p.node.cfg.DeadForget || p.superseded(id) != ""
}

// superseded answers the node that has taken a silent one's place: one with its
// name that joined later, as a node does whose disk was wiped. A join is refused
// while the name's holder answers (admissible), so a name is a place.
func (p *pilot) superseded(id string) string {
	limit := p.node.cfg.brisk(silentFor)
	if p.silent(id) < limit {
		return ""
	}
	names := map[string]string{}
	for _, m := range p.node.nodes() {
		names[m.GetId()] = m.GetName()
	}
	p.mu.Lock()
	order := slices.Clone(p.order)
	p.mu.Unlock()
	at := slices.Index(order, id)
	if at < 0 || names[id] == "" {
		return ""
	}
	for _, other := range order[at+1:] {
		if names[other] == names[id] && p.silent(other) < limit {
			return other
		}
	}
	return ""
}

// candidates is autopilot's state as chooseVoters wants it.
func (p *pilot) candidates(s *autopilot.State) []candidate {
	now, wait := time.Now(), p.node.cfg.brisk(p.node.cfg.stableFor)
	if len(s.Voters) < p.node.founders() {
		wait = 0 // the cluster is being formed: waiting would only delay its first safety
	}
	var all []candidate
	for id, m := range s.Servers {
		all = append(all, candidate{
			id: string(id), voter: m.HasVotingRights(), leader: m.State == autopilot.RaftLeader, healthy: m.Health.Healthy,
			ready: m.Health.IsStable(now, wait), dead: p.dead(string(id)), gone: p.superseded(string(id)) != "", since: m.Health.StableSince,
		})
	}
	return all
}

// founders is how many nodes form the cluster, as far as this one has pledged to.
func (n *Node) founders() int {
	if p := n.dir.who().Pledge; p != nil {
		return len(p.Members)
	}
	return 1
}

// RemoveFailedServer removes a node that nothing has been heard of for long, or whose place is taken.
func (p *pilot) RemoveFailedServer(s *autopilot.Server) {
	why := fmt.Sprintf("silent for %v", p.silent(string(s.ID)).Round(time.Second))
	if other := p.superseded(string(s.ID)); other != "" {
		why = "node " + other + " has its name and took its place"
	}
	ctx, cancel := context.WithTimeout(context.Background(), changeTime)
	defer cancel()
	p.node.changing.Lock()
	defer p.node.changing.Unlock()
	if suffrage, member := memberIn(p.node.raft().GetConfiguration().Configuration(), string(s.ID)); !member || suffrage == raft.Voter {
		return // it was removed, or promoted, since autopilot looked
	}
	if err := p.node.expel(ctx, string(s.ID), &metav1.Envelope{Actor: &metav1.Actor{Name: "system:voters", Method: "system"}}); err != nil {
		p.node.log.Warn("a dead member could not be removed, it will be tried again", "member", s.ID, "name", s.Name, "error", err)
		return
	}
	p.node.log.Warn("removed a dead member", "member", s.ID, "name", s.Name, "reason", why)
}

// NotifyState says when the failure tolerance changes, and why: it never drops without a cause.
func (p *pilot) NotifyState(s *autopilot.State) {
	if s.Leader == "" {
		return
	}
	p.mu.Lock()
	before := p.tolerance
	p.tolerance = s.FailureTolerance
	p.mu.Unlock()
	switch {
	case before < 0 || before == s.FailureTolerance:
	case before > s.FailureTolerance:
		p.node.log.Warn("failure tolerance dropped", "from", before, "to", s.FailureTolerance, "voters", len(s.Voters), "cause", p.cause(s))
	default:
		p.node.log.Info("failure tolerance rose", "from", before, "to", s.FailureTolerance, "voters", len(s.Voters))
	}
}

// cause names the voters that are not healthy, else the number of voters.
func (p *pilot) cause(s *autopilot.State) string {
	var sick []string
	for _, id := range s.Voters {
		m := s.Servers[id]
		if m.Health.Healthy {
			continue
		}
		what := "lags or does not hear the leader"
		if m.Stats.LastContact < 0 {
			what = "has not answered for " + p.silent(string(id)).Round(100*time.Millisecond).String()
		}
		sick = append(sick, fmt.Sprintf("node %s (%s) %s", id, m.Server.Name, what))
	}
	if len(sick) == 0 {
		return fmt.Sprintf("a voter was removed or lost its vote, %d are left", len(s.Voters))
	}
	return strings.Join(sick, "; ")
}
