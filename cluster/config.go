package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/pontoon-registry/pontoon/meta"
	"github.com/pontoon-registry/pontoon/meta/kv"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// CommandVersion is the newest version of commands and rows that this release
// writes and understands, OldestVersion the oldest that a cluster may have which it joins (M7).
const (
	CommandVersion = meta.NewestVersion
	OldestVersion  = 1
)

// Bounds of Config that Validate names.
const (
	maxExpect = 9
	maxVoters = 9
	minHold   = 100 * time.Millisecond
	// minLogBytes is a few of the largest groups; anything useful is far above.
	minLogBytes = 64 << 10
)

// Mark is the bucket's owner mark (G9), the tie-breaker of a first start. cmd makes it
// from blobs.Objects; nil where the store knows no conditional writes: then the pledge alone guards.
type Mark interface {
	// Claim creates the mark unless there is one; claiming again what the same
	// cluster owns succeeds.
	Claim(ctx context.Context, clusterID, epoch string) error
	// Owner answers who owns the bucket; an empty cluster id: nobody.
	Owner(ctx context.Context) (clusterID, epoch string, err error)
}

// Metrics is told what a node does. Every method is called on hot paths: it must not block.
type Metrics interface {
	// Proposed: one command has its answer, after that long; kind is the refusal's.
	Proposed(kind metav1.Kind, took time.Duration)
	// Committed: one log entry of so many commands was applied on the leader.
	Committed(commands int)
	// ReadRound: one round trip of the read index served so many reads.
	ReadRound(reads int, took time.Duration, err error)
	// Diverged: a comparison found voters whose states differ (M9); own: this node's is the odd one.
	Diverged(own bool)
}

// Config is what a Node needs. The zero value of a field means its default.
type Config struct {
	// DataDir holds state, log and identity of this node. Required. Never copy
	// it to another node, and never restore an older copy: the node forgets votes and
	// entries that it has acknowledged.
	DataDir string
	// Name is what the operator calls the node; for showing only. Default: the node id.
	Name string
	// Release is the version of the binary, for showing only.
	Release string

	// Listen is the host:port of the node-to-node listener; port 0 picks a free one. Empty:
	// the node is alone, without any network; then Join must be empty.
	Listen string
	// Advertise is the host:port under which other nodes reach Listen. Default: the
	// listener's own address, which must then not be unspecified (0.0.0.0).
	Advertise string
	// GossipListen is the host:port of gossip (TCP and UDP). Empty: no gossip, so no other
	// node can find this one; required with Join.
	GossipListen string
	// GossipAdvertise is the host:port under which other nodes reach gossip. Default: as Advertise.
	GossipAdvertise string
	// Join are gossip addresses of other nodes, own included or not. Empty: the node
	// forms a cluster of its own at its first start, and others may join it later.
	Join []string
	// Expect is the exact number of nodes that form the cluster at the first start,
	// 1 to 9. Default: 1 without Join, else the number of Join addresses, at
	// least 2. Must be equal on all nodes; required when an entry resolves to several addresses.
	Expect int

	// Secrets are the cluster secrets: the first signs, all are trusted. Equal on all nodes. Required with Listen.
	Secrets []string
	// OperatorCA replaces the CA that follows from the secret; nil: it does not. The same on all nodes, and from the first start on.
	OperatorCA *OperatorCA
	// ClusterName is the label of gossip: nodes with another one ignore each other. Default "pontoon".
	ClusterName string
	// ClusterID pins the cluster: the node joins and starts in no other. Needed only when two are in sight.
	ClusterID string
	// Settings are what Apply needs of the configuration; while this node leads, they count for all. Required.
	Settings *metav1.Settings
	// Mark is the bucket's owner mark; nil: none.
	Mark Mark
	// PrivateStore says that the bytes are in a directory that other nodes do
	// not share: then nobody may join, and this node joins nobody.
	PrivateStore bool
	// Voters is how many nodes vote at most, 1 to 9, odd. Default 5. The rest replicates without a vote. The leader's counts.
	Voters int
	// DeadReplace is for how long a voter must have been silent before its vote goes to a node
	// without one that stands by, 1 s to 24 h. Default 1 min. It stays a member and may come back. The leader's counts.
	DeadReplace time.Duration
	// DeadForget is for how long a node without a vote must have been silent before it is removed,
	// at least DeadReplace. Default 72 h. It must then join as a new one. The leader's counts.
	DeadForget time.Duration
	// ManualUpgrade leaves the cluster's command version where it is until Finalize (M7): as long as it is,
	// the release before can be installed again. The leader's counts.
	ManualUpgrade bool

	// LogBytes bounds Raft's log on disk: beyond it the log is compacted to half of
	// that, which is what a node that was away briefly catches up from; a node that lacks more is sent
	// the whole state. At least 64 KiB. Default 512 MiB.
	LogBytes int64

	// ReadsOffline is for how long after its last proven-fresh instant a node without a quorum still
	// answers content by digest from its own state; 0: never.
	ReadsOffline time.Duration
	// ReadsStale is the age up to which every read may be answered so; 0, the default: never. Danger: tags go back in time.
	ReadsStale time.Duration
	// Hold is for how long a write waits for a leader before KIND_UNAVAILABLE, at least 100 ms. Default 3 s.
	Hold time.Duration
	// TimeScale multiplies Raft's timeouts (heartbeat and election 500 ms, lease 250 ms);
	// 0.1 to 20, default 1. Below 1 is for tests, above for slow links. Equal on all nodes.
	TimeScale float64

	// MinFree is how many bytes of the disk under DataDir must be free, else the node does not lead
	// and is not ready, and below a quarter of it keeps out of Raft; 0: it never asks.
	MinFree int64
	// Ballast is the size of a file that holds room for a start on a full disk, in bytes; 0: none. See Space.
	Ballast int64

	// Abort ends the process when the disk has hung for 10 s: what waits for it cannot
	// be waited for, and the others must see this node gone. Default: exit with code 70.
	Abort func(error)
	// Log gets what an operator should know. Default: slog.Default.
	Log *slog.Logger
	// Metrics is told what happens; nil: nobody.
	Metrics Metrics

	// Seams are for tests that break things.
	Seams
	// listen opens Listen, and packets carries what goes through GossipListen: the simulation has its network there.
	listen  func(ctx context.Context, addr string) (net.Listener, error)
	packets func(addr string) (memberlist.Transport, error)
	// commitTimeout is Raft's CommitTimeout, 5 ms; tests lengthen it.
	commitTimeout time.Duration
	// compareEvery is how often hashes are compared, 30 s; tests shorten it.
	compareEvery time.Duration
	// hurry multiplies the intervals of the node's own duties, at most 1; tests shorten them. 0: by TimeScale, where that is below 1.
	hurry float64
	// stableFor is for how long a node must have been healthy before it votes, 10 s; tests shorten it.
	stableFor time.Duration
	// ghostFor is how long a row of the address book may be without a member, 1 min; tests, which write rows of nobody, lengthen it.
	ghostFor time.Duration
	// upgradeAfter is for how long all members must have understood a newer version, 1 min; tests shorten it.
	upgradeAfter time.Duration
	// oldest and newest are the command versions that the node claims to understand; tests play an older release.
	oldest, newest uint32
	// stateMemory is where tests put a state whose disk hangs; nil: the disk.
	stateMemory *kv.Memory
}

// Validate answers what is wrong, naming field and bound, after filling the defaults.
func (c *Config) Validate() error {
	c.fill()
	return errors.Join(c.validateNetwork(), c.validateBounds())
}

func (c *Config) fill() {
	if c.ClusterName == "" {
		c.ClusterName = "pontoon"
	}
	if c.Voters == 0 {
		c.Voters = 5
	}
	if c.Hold == 0 {
		c.Hold = 3 * time.Second
	}
	if c.listen == nil {
		c.listen = func(ctx context.Context, addr string) (net.Listener, error) {
			return new(net.ListenConfig).Listen(ctx, "tcp", addr)
		}
	}
	c.Seams.fill()
	c.fillMembership()
	if c.commitTimeout == 0 {
		c.commitTimeout = 5 * time.Millisecond
	}
	if c.LogBytes == 0 {
		c.LogBytes = 512 << 20
	}
	if c.compareEvery == 0 {
		c.compareEvery = 30 * time.Second
	}
	if c.TimeScale == 0 {
		c.TimeScale = 1
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Abort == nil {
		c.Abort = func(error) { os.Exit(70) }
	}
	if c.Metrics == nil {
		c.Metrics = noMetrics{}
	}
}

func (c *Config) fillMembership() {
	if c.DeadReplace == 0 {
		c.DeadReplace = time.Minute
	}
	if c.DeadForget == 0 {
		c.DeadForget = 72 * time.Hour
	}
	if c.stableFor == 0 {
		c.stableFor = stableFor
	}
	if c.ghostFor == 0 {
		c.ghostFor = ghostFor
	}
	if c.upgradeAfter == 0 {
		c.upgradeAfter = upgradeAfter
	}
	if c.newest == 0 {
		c.oldest, c.newest = OldestVersion, CommandVersion
	}
}

func (c *Config) validateBounds() error {
	switch {
	case c.DataDir == "":
		return errors.New("cluster: DataDir is required")
	case c.Settings == nil:
		return errors.New("cluster: Settings are required")
	case c.Settings.GetGrace() < 1 || c.Settings.GetUploadLifetime() < 1:
		// The state refuses such a term, and a leader without one would try for ever.
		return fmt.Errorf("cluster: Settings have a grace of %d ns and an upload lifetime of %d ns, both must be at least 1",
			c.Settings.GetGrace(), c.Settings.GetUploadLifetime())
	case min(c.Settings.GetDeleteDelay(), c.Settings.GetEventCount(), c.Settings.GetEventAge()) < 0:
		return errors.New("cluster: Settings: delete delay, event count and event age must not be negative")
	case c.Expect < 0 || c.Expect > maxExpect:
		return fmt.Errorf("cluster: Expect is %d, must be 1 to %d", c.Expect, maxExpect)
	case c.Expect == 1 && len(c.Join) > 0:
		return errors.New("cluster: Expect is 1 but Join names other nodes: a node that joins never forms a cluster by itself")
	case c.Expect > 1 && len(c.Join) == 0:
		return fmt.Errorf("cluster: Expect is %d but Join is empty: the nodes could never find each other", c.Expect)
	case c.Voters < 1 || c.Voters > maxVoters || c.Voters%2 == 0:
		return fmt.Errorf("cluster: Voters is %d, must be odd and 1 to %d", c.Voters, maxVoters)
	case c.LogBytes < minLogBytes:
		return fmt.Errorf("cluster: LogBytes is %d, must be at least %d", c.LogBytes, int64(minLogBytes))
	case c.DeadReplace < time.Second || c.DeadReplace > 24*time.Hour:
		return fmt.Errorf("cluster: DeadReplace is %v, must be 1 s to 24 h", c.DeadReplace)
	case c.DeadForget < c.DeadReplace:
		return fmt.Errorf("cluster: DeadForget is %v, must be at least DeadReplace, %v", c.DeadForget, c.DeadReplace)
	case c.Hold < minHold:
		return fmt.Errorf("cluster: Hold is %v, must be at least %v", c.Hold, minHold)
	case c.MinFree < 0 || c.Ballast < 0:
		return fmt.Errorf("cluster: MinFree is %d and Ballast %d, must not be negative", c.MinFree, c.Ballast)
	case c.ReadsOffline < 0 || c.ReadsStale < 0:
		return errors.New("cluster: ReadsOffline and ReadsStale must not be negative")
	case c.TimeScale < 0.1 || c.TimeScale > 20:
		return fmt.Errorf("cluster: TimeScale is %v, must be 0.1 to 20", c.TimeScale)
	}
	return nil
}

func (c *Config) validateNetwork() error {
	if c.Listen == "" {
		if len(c.Join) > 0 || c.GossipListen != "" {
			return errors.New("cluster: Join or GossipListen without Listen: a node without a listener is alone")
		}
		return nil
	}
	if len(c.Secrets) == 0 {
		return errors.New("cluster: Secrets are required with Listen")
	}
	if c.OperatorCA != nil {
		if err := c.OperatorCA.validate(); err != nil {
			return err
		}
	}
	if len(c.Join) > 0 && c.GossipListen == "" {
		return errors.New("cluster: GossipListen is required with Join")
	}
	if c.PrivateStore && len(c.Join) > 0 {
		return errors.New("cluster: Join with a directory store that is not shared: set storage.filesystem.shared " +
			"if every node mounts the same directory, or use storage.s3")
	}
	return errors.Join(hostPort("Listen", c.Listen), hostPort("Advertise", c.Advertise),
		hostPort("GossipListen", c.GossipListen), hostPort("GossipAdvertise", c.GossipAdvertise))
}

func hostPort(field, value string) error {
	if value == "" {
		return nil
	}
	if _, _, err := net.SplitHostPort(value); err != nil {
		return fmt.Errorf("cluster: %s is %q, must be host:port: %w", field, value, err)
	}
	return nil
}

// expected is how many nodes form the cluster at the first start.
func (c *Config) expected(ctx context.Context) (int, error) {
	if c.Expect > 0 {
		return c.Expect, nil
	}
	if len(c.Join) == 0 {
		return 1, nil
	}
	for _, entry := range c.Join {
		host, _, err := net.SplitHostPort(entry)
		if err != nil {
			host = entry
		}
		// A name that does not resolve yet is one node that has not started yet.
		addresses, err := net.DefaultResolver.LookupHost(ctx, host)
		if err == nil && len(distinctFamilies(addresses)) > 1 {
			return 0, fmt.Errorf("cluster: Join entry %q stands for %d addresses: set Expect to the number of nodes that form the cluster", entry, len(addresses))
		}
	}
	return max(2, len(c.Join)), nil
}

// distinctFamilies drops the second family of a host that has one IPv4 and one IPv6 address.
func distinctFamilies(addresses []string) []string {
	var four, six []string
	for _, a := range addresses {
		if ip := net.ParseIP(a); ip != nil && ip.To4() != nil {
			four = append(four, a)
		} else {
			six = append(six, a)
		}
	}
	if len(four) >= len(six) {
		return four
	}
	return six
}

// scaled is a timeout as TimeScale makes it.
func (c *Config) scaled(d time.Duration) time.Duration {
	return time.Duration(float64(d) * c.TimeScale)
}

// brisk is an interval of our own duties: shorter in tests, never longer.
func (c *Config) brisk(d time.Duration) time.Duration {
	return time.Duration(float64(d) * cmp.Or(c.hurry, min(1, c.TimeScale)))
}

type noMetrics struct{}

func (noMetrics) Proposed(metav1.Kind, time.Duration) {}
func (noMetrics) Committed(int)                       {}
func (noMetrics) ReadRound(int, time.Duration, error) {}
func (noMetrics) Diverged(bool)                       {}
