package transport

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"time"

	"github.com/hashicorp/raft"
)

// Credentials are what a node shows and trusts. cluster.Trust is one.
// All methods are safe for concurrent use, and the configurations they return
// stay right when certificates are renewed.
type Credentials interface {
	// ServerTLS accepts every node of the cluster.
	ServerTLS() *tls.Config
	// ClientTLS accepts the node with that id only; with an empty id, every
	// node of the cluster.
	ClientTLS(nodeID string) *tls.Config
	// Claims says that certificates do not tell node ids. Then each end says its
	// own right after the handshake, and Judge decides whether it may.
	Claims() bool
	// Judge says who the other end of a connection is, by what is trusted now, or
	// why it is refused. It is asked after each handshake and again while the connection stands.
	Judge(tls.ConnectionState, End) (Judgement, error)
	// Shown names the certificate that this node shows now.
	Shown() string
}

// End is the other end of a connection.
type End struct {
	// Accepted: it dialled this node, and so showed a client's certificate.
	Accepted bool
	// Dialled is the node id that was dialled; empty for any.
	Dialled string
	// Claimed is the node id that it says it is; empty unless Credentials.Claims.
	Claimed string
}

func (e End) describe() string { return cmp.Or(e.Claimed, e.Dialled, "unknown") }

// Judgement is what Credentials say of the other end of a connection.
type Judgement struct {
	NodeID string
	// Name is what its certificate is for: recorded when the node joins.
	Name string
	// By names who signed the certificate.
	By string
	// Outgoing: the peer may have a newer certificate to show, since the signer is not the one that this node prefers, or
	// what it has shown ends soon.
	Outgoing bool
}

// Config is what a Host needs. Zero durations and sizes take their default.
type Config struct {
	// NodeID of this node: also its Raft server id and address. Required.
	NodeID string
	// Listener takes the nodes' connections; Run closes it. Required.
	Listener net.Listener
	// Credentials of this node. Required: there is no insecure mode.
	Credentials Credentials
	// Resolve finds the present "host:port" of a node. It is asked on every
	// dial and must not block on calls through this host. Required.
	Resolve func(nodeID string) (addr string, ok bool)
	// Identity is the cluster this node belongs to, sent and checked with every
	// call; the id is empty while it belongs to none. Required.
	Identity func() (clusterID string, incarnation uint64)
	// Open names full methods ("/package.Service/Method") that nodes of no or
	// another cluster id may call: those of joining and discovery. The secret
	// they must hold all the same.
	Open []string
	// Gate reports an error while this node must not take part in elections,
	// such as when its disk is stuck (T6). It is called for each Raft call,
	// in both directions, and must return at once. Nil: always open.
	Gate func() error
	// Dial opens connections. Nil: net.Dialer. Chaos tests put faults here.
	Dial func(ctx context.Context, addr string) (net.Conn, error)
	// Install is given every snapshot that a leader sends to this node. It must
	// read data to io.EOF before it believes it, and answers for Raft. Nil: refused.
	Install func(ctx context.Context, req *raft.InstallSnapshotRequest, data io.Reader) (*raft.InstallSnapshotResponse, error)
	// Snapshot opens this node's state for one that pulls it (M9). Nil: refused.
	Snapshot func() (req *raft.InstallSnapshotRequest, data io.ReadCloser, err error)
	// Log takes what operators should see: refused handshakes, panics. Nil: none.
	Log *slog.Logger

	// MaxMessage bounds one message in bytes, both ways. Default 8 MiB, which
	// fits a forwarded command of 2 MiB with room; at least 2 MiB, since frames
	// of log entries take a little over 1 MiB.
	MaxMessage int
	// MaxAppend bounds one append request in bytes, all entries together; it is
	// the memory that one leader's catching up may take. Default 256 MiB: 64
	// entries of the largest command, twice over.
	MaxAppend int
	// HeartbeatTimeout of a call is half of Raft's HeartbeatTimeout, so that a
	// lost one is repeated before the follower gives up. Default 250 ms.
	HeartbeatTimeout time.Duration
	// VoteTimeout ends votes, pre-votes and TimeoutNow; at most Raft's
	// ElectionTimeout. Default 500 ms.
	VoteTimeout time.Duration
	// AppendTimeout ends an append; a second more is granted for each 4 MiB.
	// Default 5 s.
	AppendTimeout time.Duration
	// SnapshotTimeout ends a snapshot of which no byte came or went for so long.
	// There is no other bound on the way. Default 30 s.
	SnapshotTimeout time.Duration
	// InstallTimeout is how long a peer may take to install a snapshot that it has
	// received. Default 2 min.
	InstallTimeout time.Duration
	// SilentAfter cuts a connection on which a call ran into its deadline if
	// nothing was read from it for so long. TCP alone would wait out its
	// retransmission backoff, long after the network has healed. Default 2 s.
	SilentAfter time.Duration
	// RecheckEvery is how often connections that stand are judged again, besides at Recheck. Default 5 s.
	RecheckEvery time.Duration
	// DrainTimeout is how long Run, when its context ends, lets calls in
	// progress finish before it cuts them. Default 1 s.
	DrainTimeout time.Duration
}

const (
	mib = 1 << 20
	// frameSize bounds the entries of one message; more go as a stream.
	frameSize = mib
	// appendRate is the slowest network that deadlines of appends allow for.
	appendRate = 4 * mib // bytes per second
	// maxConns and maxStreams bound what peers may open: connections in all,
	// and concurrent calls on each.
	maxConns   = 512
	maxStreams = 1024

	connectTimeout = time.Second
	// handshakeTimeout of an incoming connection.
	handshakeTimeout = 5 * time.Second
)

func (c *Config) setDefaults() {
	setDefault(&c.MaxMessage, 8*mib)
	setDefault(&c.MaxAppend, 256*mib)
	setDefault(&c.HeartbeatTimeout, 250*time.Millisecond)
	setDefault(&c.VoteTimeout, 500*time.Millisecond)
	setDefault(&c.AppendTimeout, 5*time.Second)
	setDefault(&c.SnapshotTimeout, 30*time.Second)
	setDefault(&c.InstallTimeout, 2*time.Minute)
	setDefault(&c.SilentAfter, 2*time.Second)
	setDefault(&c.RecheckEvery, 5*time.Second)
	setDefault(&c.DrainTimeout, time.Second)
	if c.Gate == nil {
		c.Gate = func() error { return nil }
	}
	if c.Dial == nil {
		c.Dial = func(ctx context.Context, addr string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", addr)
		}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
}

func setDefault[T int | time.Duration](v *T, d T) {
	if *v == 0 {
		*v = d
	}
}

// validate names the first field that is missing or out of bounds.
func (c *Config) validate() error {
	switch {
	case c.NodeID == "":
		return errors.New("transport config: NodeID is required")
	case c.Listener == nil:
		return errors.New("transport config: Listener is required")
	case c.Credentials == nil:
		return errors.New("transport config: Credentials are required")
	case c.Resolve == nil:
		return errors.New("transport config: Resolve is required")
	case c.Identity == nil:
		return errors.New("transport config: Identity is required")
	case c.MaxMessage < 2*mib:
		return fmt.Errorf("transport config: MaxMessage is %d, must be at least %d", c.MaxMessage, 2*mib)
	case c.MaxAppend < frameSize:
		return fmt.Errorf("transport config: MaxAppend is %d, must be at least %d", c.MaxAppend, frameSize)
	case min(c.HeartbeatTimeout, c.VoteTimeout, c.AppendTimeout, c.SnapshotTimeout, c.InstallTimeout, c.SilentAfter, c.RecheckEvery, c.DrainTimeout) < 0:
		return errors.New("transport config: HeartbeatTimeout, VoteTimeout, AppendTimeout, SnapshotTimeout, InstallTimeout, SilentAfter, RecheckEvery and DrainTimeout must not be negative")
	}
	return nil
}
