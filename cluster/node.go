package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/pontoon-registry/pontoon/cluster/transport"
	"github.com/pontoon-registry/pontoon/meta"
	"github.com/pontoon-registry/pontoon/meta/kv"
	clusterv1 "github.com/pontoon-registry/pontoon/proto/pontoon/cluster/v1"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// Node is one member of a cluster, or one about to become it. It is a
// meta.Ledger. All methods are safe for concurrent use, except Lead.
type Node struct {
	cfg Config
	log *slog.Logger
	id  string
	// boot is this start of the process.
	boot string

	disk   *diskWatch
	space  *Space
	dir    *directory
	stores *stores
	state  *meta.State
	logs   *logStore
	// handle is how all code reaches Raft, which an install re-creates: never keep what raft() answers.
	handle *handle
	// outgoing are the checkpoints that are sent.
	outgoing *checkpoints
	// installing is held by who brings in a state: one at a time (R-B4).
	installing sync.Mutex
	// replacing is held by who takes Raft down, and by compactions. It guards stopped.
	replacing sync.Mutex
	stopped   bool
	// diverged is set while this node's state is known to be wrong (M9).
	diverged atomic.Pointer[divergence]

	// trust is nil without Secrets, host without Listen, gossip without GossipListen.
	trust     *Trust
	host      *transport.Host
	gossip    *gossip
	advertise string
	listener  net.Listener
	// inmem is Raft's transport of a node without a listener.
	inmem *raft.InmemTransport

	leaders  *leaders
	commit   *committer
	forward  *forwarder
	proposer *proposer
	reader   *reader
	fresh    *freshness
	opened   atomic.Pointer[opened]
	duties   []Duty
	locks    holdings
	// changing serialises judged changes of the membership on the leader.
	changing sync.Mutex
	// leaving is set while Leave is under way: then the end of the membership is no surprise.
	leaving atomic.Bool
	// began is when the process did, for telling which of two clones is younger.
	began time.Time

	// fatal has the first error that ends the node.
	fatal chan error
	// ending is closed when Run begins to end.
	ending chan struct{}
	// phase is what the node waits for, for Ready and Status.
	phase atomic.Pointer[string]
	// raftStarted is when the Raft that runs now was made.
	raftStarted atomic.Pointer[time.Time]
}

var _ meta.Ledger = (*Node)(nil)

// Open reads the data directory, compares log and state, opens the listeners
// and starts Raft. It pairs with Close; nothing is served before Run.
func Open(ctx context.Context, cfg Config) (_ *Node, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	n := &Node{cfg: cfg, boot: randomID(), began: time.Now(), fatal: make(chan error, 1), ending: make(chan struct{}),
		leaders: newLeaders(), handle: newHandle(), fresh: &freshness{start: time.Now()},
		disk: &diskWatch{}, space: NewSpace(cfg.DataDir, cfg.MinFree, cfg.Ballast)}
	if cfg.FreeSpace != nil {
		n.space.free = cfg.FreeSpace
	}
	n.setPhase("starting")
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close())
		}
	}()
	if n.dir, err = openDirectory(cfg.DataDir); err != nil {
		return nil, err
	}
	n.dir.watch = n.disk
	n.id = n.dir.who().NodeID
	n.log = cfg.Log.With("node", n.id)
	if err := n.openState(); err != nil {
		return nil, err
	}
	if err := n.openNetwork(ctx); err != nil {
		return nil, err
	}
	if err := n.refuseClone(ctx); err != nil {
		return nil, err
	}
	if err := n.startRaft(); err != nil {
		return nil, err
	}
	n.assemble()
	return n, nil
}

// stateCache is the block cache of the state, in bytes. Of a million manifests the filters and the upper index blocks
// alone take about that; with less, each command reads most of what it looks up from files and unpacks it.
const stateCache = 32 << 20

// openState opens state and log, and mends or refuses the seam between them.
func (n *Node) openState() (err error) {
	if n.stores, err = openStores(n.cfg.DataDir, kv.Options{Cache: stateCache, Watch: n.watchState, Memory: n.cfg.stateMemory}); err != nil {
		return err
	}
	if n.state, err = meta.Open(n.stores.now); err != nil {
		return fmt.Errorf("open state: %w", err)
	}
	if n.logs, err = openLog(filepath.Join(n.cfg.DataDir, "raft"), n.fail); err != nil {
		return err
	}
	n.logs.disk = n.cfg.LogDisk(n.logs.disk)
	n.logs.watch = n.disk
	n.logs.sizes.grain = min(segmentBytes, n.cfg.LogBytes/64)
	if err := mendSeam(n.logs, n.state.Witness(), n.applied()); err != nil {
		return fmt.Errorf("start node %s: %w", n.id, err)
	}
	n.outgoing = &checkpoints{dir: filepath.Join(n.cfg.DataDir, outgoingName), state: n.state, held: n.logs.holds, stream: n.cfg.Stream}
	if err := n.mendBootstrap(); err != nil {
		return err
	}
	return n.checkCluster()
}

// mendBootstrap takes back the first half of a bootstrap that a crash cut in two:
// Raft writes the term before the entry, and would refuse for ever to begin
// again. The node was in no cluster, so it has voted for nobody.
func (n *Node) mendBootstrap() error {
	last, err := n.logs.LastIndex()
	if who := n.dir.who(); err != nil || last > 0 || who.Founding == nil || who.ClusterID != "" {
		return err
	}
	return n.logs.SetUint64([]byte(termKey), 0)
}

// checkCluster refuses a directory whose halves belong to different clusters, or that is not the pinned one.
func (n *Node) checkCluster() error {
	system, err := n.System()
	if err != nil && meta.KindOf(err) != metav1.Kind_KIND_UNKNOWN {
		return fmt.Errorf("read cluster: %w", err)
	}
	who := n.dir.who()
	if in := system.GetClusterId(); in != "" {
		if who.ClusterID != "" && who.ClusterID != in {
			return fmt.Errorf("the state belongs to cluster %s but node.json to %s: the data directory was put together from two", in, who.ClusterID)
		}
		if who, err = n.dir.change(func(i *identity) bool {
			// Recover raises the directory's first: the state hears of it by the log.
			i.ClusterID, i.Incarnation = in, max(i.Incarnation, system.GetIncarnation())
			return true
		}); err != nil {
			return err
		}
		if err := n.understandsCluster(system.GetVersion()); err != nil {
			return err
		}
	}
	if n.cfg.ClusterID != "" && who.ClusterID != "" && n.cfg.ClusterID != who.ClusterID {
		return fmt.Errorf("ClusterID is %s but the data directory belongs to cluster %s", n.cfg.ClusterID, who.ClusterID)
	}
	return nil
}

// openNetwork opens listener, trust, transport and gossip, if there is to be a network.
func (n *Node) openNetwork(ctx context.Context) (err error) {
	if len(n.cfg.Secrets) > 0 {
		if err := n.openTrust(); err != nil {
			return err
		}
	}
	if n.cfg.Listen == "" {
		_, n.inmem = raft.NewInmemTransport(raft.ServerAddress(n.id))
		return nil
	}
	listener, err := n.cfg.listen(ctx, n.cfg.Listen)
	if err != nil {
		return fmt.Errorf("listen for nodes: %w", err)
	}
	n.listener = listener
	if n.advertise, err = advertised(n.cfg.Advertise, listener.Addr()); err != nil {
		return err
	}
	n.host, err = transport.New(transport.Config{
		NodeID: n.id, Listener: listener, Credentials: n.trust, Resolve: n.resolve, Identity: n.clusterIdentity, Gate: n.gate, Dial: n.cfg.Dial, Log: n.log,
		Open: []string{
			clusterv1.NodeService_Describe_FullMethodName,
			clusterv1.NodeService_Pledge_FullMethodName,
			clusterv1.NodeService_Join_FullMethodName,
		},
		Install: n.install, Snapshot: n.giveSnapshot,
		HeartbeatTimeout: n.cfg.scaled(heartbeat / 2), VoteTimeout: n.cfg.scaled(heartbeat), RecheckEvery: n.cfg.brisk(recheckEvery),
	})
	if err != nil {
		return err
	}
	clusterv1.RegisterNodeServiceServer(n.host.Registrar(), &service{node: n})
	if n.cfg.GossipListen == "" {
		return nil
	}
	n.gossip, err = openGossip(gossipConfig{
		NodeID: n.id, Label: n.cfg.ClusterName, Listen: n.cfg.GossipListen, Advertise: n.cfg.GossipAdvertise,
		DefaultPort: defaultGossipPort, Keys: n.trust.GossipKeys(), Meta: n.gossipMeta(), Log: n.log, Packets: n.cfg.packets,
	})
	return err
}

// advertised is the address that others are told.
func advertised(configured string, bound net.Addr) (string, error) {
	if configured != "" {
		return configured, nil
	}
	if tcp, ok := bound.(*net.TCPAddr); ok && tcp.IP.IsUnspecified() {
		return "", fmt.Errorf("cluster: Advertise is required when Listen is %s: other nodes must be told one address", bound)
	}
	return bound.String(), nil
}

const (
	heartbeat         = 500 * time.Millisecond
	defaultGossipPort = 7946
)

// raftConfig is Raft as design section 4 wants it.
func (n *Node) raftConfig() *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(n.id)
	c.HeartbeatTimeout = n.cfg.scaled(heartbeat)
	c.ElectionTimeout = n.cfg.scaled(heartbeat)
	c.LeaderLeaseTimeout = n.cfg.scaled(heartbeat / 2)
	// Followers hear of a commit with the next append, no later than this (consensus.md 4.4), or from learn.
	c.CommitTimeout = n.cfg.commitTimeout
	c.MaxAppendEntries = 64
	c.BatchApplyCh = true
	c.ShutdownOnRemove = false
	// The live state is the snapshot (R-B8). Raft triggers by entries; compact does, by bytes.
	c.NoSnapshotRestoreOnStart = true
	c.SnapshotThreshold = math.MaxUint64
	c.SnapshotInterval = 24 * time.Hour
	c.TrailingLogs = math.MaxUint64
	c.NoLegacyTelemetry = true
	c.Logger = &raftLogger{log: n.log}
	return c
}

func (n *Node) startRaft() error {
	var trans raft.Transport = n.inmem
	if n.host != nil {
		trans = reluctant{n.host.Raft().Instance(), n.stands}
	}
	n.raftStarted.Store(new(time.Now()))
	snaps := &snapshots{state: n.state, open: n.outgoing.open, fail: n.fail}
	r, err := raft.NewRaft(n.raftConfig(), &fsm{state: n.cfg.Applier(n.state), fail: n.fail, seen: n.state.Witness()}, n.logs, n.logs, snaps, trans)
	if err != nil {
		return fmt.Errorf("start raft: %w", err)
	}
	n.handle.now.Store(r)
	return nil
}

// assemble ties the parts together; nothing runs yet.
func (n *Node) assemble() {
	n.commit = newCommitter(n.handle.apply, n.stamp, n.cfg.Metrics)
	n.forward = &forwarder{queue: newQueue(), leaders: n.leaders, self: n.id, peer: n.peer, learn: n.learn}
	n.proposer = &proposer{self: n.id, origin: newOrigin(n.id, n.boot), leaders: n.leaders, local: n.commit, forward: n.forward,
		wait: n.state.Wait, hold: n.cfg.Hold, metrics: n.cfg.Metrics, permit: n.permit, registering: make(chan struct{}, 1)}
	n.reader = &reader{self: n.id, leaders: n.leaders, local: n.readIndex, term: func() uint64 { return n.raft().CurrentTerm() },
		peer: n.peer, metrics: n.cfg.Metrics, learn: n.learn, wake: make(chan struct{}, 1), forming: newReadBatch()}
}

func (n *Node) raft() *raft.Raft { return n.handle.now.Load() }

// fail ends the node with its first error; Run answers it.
func (n *Node) fail(err error) {
	select {
	case n.fatal <- err:
	default:
	}
}

func (n *Node) setPhase(s string) { n.phase.Store(&s) }

// Propose is meta.Ledger's.
func (n *Node) Propose(ctx context.Context, c *metav1.Command) (*metav1.Result, error) {
	if err := n.trusted(); err != nil {
		return nil, err
	}
	return n.proposer.propose(ctx, c)
}

// ID is the node's id: random, made with the data directory.
func (n *Node) ID() string { return n.id }

// ClusterID is the id of the cluster that this node belongs to, from its
// directory; empty before it has founded or joined one.
func (n *Node) ClusterID() string { return n.dir.who().ClusterID }

// Trust is what the node shows and accepts; nil without Secrets.
func (n *Node) Trust() *Trust { return n.trust }

// Transport is where cmd registers further services before Run; nil without a listener.
func (n *Node) Transport() *transport.Host { return n.host }

// Addresses are those that other nodes are told; empty without a listener or gossip.
func (n *Node) Addresses() (node, gossip string) {
	if n.gossip != nil {
		gossip = n.gossip.Addr().String()
	}
	return n.advertise, gossip
}

// applied is the index that the state has reached.
func (n *Node) applied() uint64 {
	index, _ := n.state.Applied()
	return index
}

// System is the row about the cluster in this node's own state.
func (n *Node) System() (*metav1.System, error) {
	v := n.state.View()
	defer v.Close()
	return v.System()
}

// State answers the index that the state has reached and its hash there (M9).
func (n *Node) State() (applied uint64, hash []byte) {
	index, sum := n.state.Hash()
	return index, sum
}
