package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// gossip finds nodes with memberlist (SWIM). It only suggests: what it says of
// a peer is that peer's own word, known to come from a holder of the secret
// and not more. Addresses are used to dial, and the answer must then prove to
// be the node that was meant (T1); who belongs is decided by Raft alone.
type gossip struct {
	cfg     gossipConfig
	list    *memberlist.Memberlist
	keyring *memberlist.Keyring
	self    netip.AddrPort // as advertised
	changed chan struct{}
	// twins delivers where another node with this one's id is. For one receiver; it may miss some, they come again.
	twins chan string
	// moves delivers where others say that a node is which gossip has elsewhere. For one receiver, like twins.
	moves chan Peer

	mu   sync.Mutex // guards what follows
	meta []byte     // of this node, as sent
	// peers are those alive, by node id; never this node.
	peers map[string]Peer
	// followed are nodes that answer at another address than gossip has for them, until it has news of them.
	followed map[string]move
	// told are the conflicts that the log has: gossip repeats each for as long as it lasts.
	told map[string]bool
}

const (
	// toldMost bounds told.
	toldMost = 64
	// movesMost bounds moves: several nodes may move at once.
	movesMost = 16
)

// gossipConfig is what openGossip needs.
type gossipConfig struct {
	// NodeID of this node. Required.
	NodeID string
	// Label separates clusters whose networks touch: the cluster's name.
	Label string
	// Listen is the host:port to bind, TCP and UDP; port 0 takes a free one.
	Listen string
	// Advertise is the host:port that others are told. Default: what is bound,
	// which for 0.0.0.0 is the private address of the machine.
	Advertise string
	// DefaultPort is for join entries without one.
	DefaultPort int
	// Keys of the encryption, Trust.GossipKeys.
	Keys [][]byte
	// Meta is what this node says of itself; see UpdateMeta.
	Meta PeerMeta
	// Log takes memberlist's own words at level debug. Required.
	Log *slog.Logger
	// Packets opens another network than the machine's at Listen; nil: the machine's.
	Packets func(addr string) (memberlist.Transport, error)
}

// PeerMeta is what a node says of itself. As JSON it must fit in 512 bytes.
type PeerMeta struct {
	Name        string `json:"n,omitempty"` // for people
	NodeAddr    string `json:"a"`           // host:port of node-to-node calls
	ClusterID   string `json:"c,omitempty"` // empty: belongs to none yet
	Incarnation uint64 `json:"k,omitempty"`
	MinVersion  uint32 `json:"v,omitempty"` // of commands that it understands
	MaxVersion  uint32 `json:"w,omitempty"`
	Release     string `json:"r,omitempty"`
}

// Peer is another node that gossip believes to be alive.
type Peer struct {
	ID         string
	GossipAddr netip.AddrPort
	PeerMeta
}

const (
	joinAlone    = time.Second      // between attempts while no peer is known
	joinSettled  = 15 * time.Second // otherwise
	joinLookup   = 2 * time.Second  // for one name
	joinMost     = 32               // addresses tried in one attempt
	gossipStream = 2 * time.Second  // connecting to, and talking with, one peer
)

// openGossip binds the sockets and takes part from then on; Run makes contact.
// It pairs with Close.
func openGossip(cfg gossipConfig) (*gossip, error) {
	meta, err := encodeMeta(cfg.Meta)
	if err != nil {
		return nil, err
	}
	if len(cfg.Keys) == 0 {
		return nil, errors.New("gossip: Keys are required")
	}
	keyring, err := memberlist.NewKeyring(cfg.Keys, cfg.Keys[0])
	if err != nil {
		return nil, fmt.Errorf("gossip keys: %w", err)
	}
	g := &gossip{cfg: cfg, keyring: keyring, meta: meta, changed: make(chan struct{}, 1), twins: make(chan string, 1), moves: make(chan Peer, movesMost),
		peers: make(map[string]Peer), followed: make(map[string]move), told: make(map[string]bool)}
	mc, err := g.memberlistConfig()
	if err != nil {
		return nil, err
	}
	if cfg.Packets != nil {
		if mc.Transport, err = cfg.Packets(cfg.Listen); err != nil {
			return nil, fmt.Errorf("open gossip on %s: %w", cfg.Listen, err)
		}
	}
	if g.list, err = memberlist.Create(mc); err != nil {
		return nil, fmt.Errorf("open gossip on %s: %w", cfg.Listen, err)
	}
	local := g.list.LocalNode()
	if ip, ok := netip.AddrFromSlice(local.Addr); ok {
		g.self = netip.AddrPortFrom(ip.Unmap(), local.Port)
	}
	return g, nil
}

func (g *gossip) memberlistConfig() (*memberlist.Config, error) {
	mc := memberlist.DefaultLANConfig()
	mc.Name = g.cfg.NodeID
	mc.Label = g.cfg.Label
	mc.Keyring = g.keyring
	mc.Delegate = gossipDelegate{g}
	mc.Events = gossipDelegate{g}
	mc.Conflict = gossipDelegate{g}
	mc.Logger = log.New(gossipLog{g.cfg.Log}, "", 0)
	mc.TCPTimeout = gossipStream
	mc.PushPullInterval = 5 * time.Second // few nodes, and they must find one that moved
	mc.DeadNodeReclaimTime = time.Second  // a node may come back under another address
	var err error
	if mc.BindAddr, mc.BindPort, err = splitIPPort("gossip listen", g.cfg.Listen); err != nil {
		return nil, err
	}
	mc.AdvertisePort = mc.BindPort
	if g.cfg.Advertise == "" {
		return mc, nil
	}
	if mc.AdvertiseAddr, mc.AdvertisePort, err = splitIPPort("gossip advertise", g.cfg.Advertise); err != nil {
		return nil, err
	}
	return mc, nil
}

func encodeMeta(m PeerMeta) ([]byte, error) {
	b, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("gossip meta: %w", err)
	}
	if len(b) > memberlist.MetaMaxSize {
		return nil, fmt.Errorf("gossip meta is %d bytes, must be at most %d: shorten the name (%d bytes), node address (%d) or release (%d)",
			len(b), memberlist.MetaMaxSize, len(m.Name), len(m.NodeAddr), len(m.Release))
	}
	return b, nil
}

// Addr is the address that this node advertises.
func (g *gossip) Addr() netip.AddrPort { return g.self }

// Peers are the other nodes believed to be alive, by id.
func (g *gossip) Peers() []Peer {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.SortedFunc(maps.Values(g.peers), func(a, b Peer) int { return strings.Compare(a.ID, b.ID) })
}

// Resolve gives the address for calls to a node, if it is believed alive.
func (g *gossip) Resolve(nodeID string) (addr string, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	p, ok := g.peers[nodeID]
	if m, moved := g.followed[nodeID]; ok && moved && m.from == p.NodeAddr {
		return m.to, true
	}
	return p.NodeAddr, ok
}

// Changed delivers after Peers has changed, once for many changes. It is for
// one receiver.
func (g *gossip) Changed() <-chan struct{} { return g.changed }

// UpdateMeta replaces what this node says of itself, and tells it to others;
// it waits at most 2 s until one of them was told (the rest hear in time).
func (g *gossip) UpdateMeta(m PeerMeta) error {
	b, err := encodeMeta(m)
	if err != nil {
		return err
	}
	g.mu.Lock()
	g.meta = b
	g.mu.Unlock()
	if err := g.list.UpdateNode(gossipStream); err != nil {
		return fmt.Errorf("gossip meta: %w", err)
	}
	return nil
}

// SetKeys follows a change of secrets: it accepts all keys and encrypts with
// the first. Others must accept that one already.
func (g *gossip) SetKeys(keys [][]byte) error {
	if len(keys) == 0 {
		return errors.New("gossip: Keys are required")
	}
	for _, k := range keys {
		if err := g.keyring.AddKey(k); err != nil {
			return fmt.Errorf("gossip keys: %w", err)
		}
	}
	if err := g.keyring.UseKey(keys[0]); err != nil {
		return fmt.Errorf("gossip keys: %w", err)
	}
	for _, old := range g.keyring.GetKeys() {
		if !slices.ContainsFunc(keys, func(k []byte) bool { return string(k) == string(old) }) {
			if err := g.keyring.RemoveKey(old); err != nil {
				return fmt.Errorf("gossip keys: %w", err)
			}
		}
	}
	return nil
}

// Leave tells the others that this node goes, so that they need not find out;
// it waits at most the timeout. It does not remove the node from the cluster.
func (g *gossip) Leave(timeout time.Duration) error {
	if err := g.list.Leave(timeout); err != nil {
		return fmt.Errorf("leave gossip: %w", err)
	}
	return nil
}

// Close ends all part in gossip, after Run has returned.
func (g *gossip) Close() error {
	if err := g.list.Shutdown(); err != nil {
		return fmt.Errorf("close gossip: %w", err)
	}
	return nil
}

// readPeer judges what a member says of itself.
func readPeer(n *memberlist.Node) (Peer, error) {
	p := Peer{ID: n.Name}
	ip, ok := netip.AddrFromSlice(n.Addr)
	if !ok || !isDNSLabel(n.Name) {
		return Peer{}, fmt.Errorf("gossip member %q at %v: not a node", n.Name, n.Addr)
	}
	p.GossipAddr = netip.AddrPortFrom(ip.Unmap(), n.Port)
	if err := json.Unmarshal(n.Meta, &p.PeerMeta); err != nil {
		return Peer{}, fmt.Errorf("gossip member %s: meta: %w", n.Name, err)
	}
	host, port, err := net.SplitHostPort(p.NodeAddr)
	if err != nil {
		return Peer{}, fmt.Errorf("gossip member %s: node address: %w", n.Name, err)
	}
	if host == "" { // the node leaves it to us to see where it is
		p.NodeAddr = net.JoinHostPort(p.GossipAddr.Addr().String(), port)
	}
	return p, nil
}

// note records a member that came, changed or went, and wakes the receiver.
func (g *gossip) note(n *memberlist.Node, alive bool) {
	if n.Name == g.cfg.NodeID {
		return
	}
	p, err := readPeer(n)
	if alive && err != nil {
		if g.tellOnce(err.Error()) {
			g.cfg.Log.Warn("ignored a gossip member", "error", err)
		}
		return
	}
	g.mu.Lock()
	if alive {
		g.peers[p.ID] = p
	} else {
		delete(g.peers, n.Name)
	}
	delete(g.followed, n.Name)
	g.mu.Unlock()
	select {
	case g.changed <- struct{}{}:
	default: // one is waiting already
	}
}

// gossipDelegate is what memberlist calls, some of it under its own lock, which
// is why it never calls back.
type gossipDelegate struct{ g *gossip }

func (d gossipDelegate) NodeMeta(int) []byte {
	d.g.mu.Lock()
	defer d.g.mu.Unlock()
	return d.g.meta
}

func (d gossipDelegate) NotifyJoin(n *memberlist.Node)   { d.g.note(n, true) }
func (d gossipDelegate) NotifyUpdate(n *memberlist.Node) { d.g.note(n, true) }
func (d gossipDelegate) NotifyLeave(n *memberlist.Node)  { d.g.note(n, false) }

func (gossipDelegate) NotifyMsg([]byte)                {}
func (gossipDelegate) GetBroadcasts(int, int) [][]byte { return nil }
func (gossipDelegate) LocalState(bool) []byte          { return nil }
func (gossipDelegate) MergeRemoteState([]byte, bool)   {}

// gossipLog passes memberlist's lines on at level debug: to it every lost
// packet is an error.
type gossipLog struct{ log *slog.Logger }

func (l gossipLog) Write(b []byte) (int, error) {
	l.log.Debug("gossip", "says", strings.TrimSpace(string(b)))
	return len(b), nil
}
