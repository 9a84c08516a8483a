package cluster

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	clusterv1 "github.com/pontoon-registry/pontoon/proto/pontoon/cluster/v1"
)

// directory is the node's data directory: its lock, its identity (node.json)
// and the last addresses of its peers (peers.json). Every save is synced, file
// and folder, before it returns. Safe for concurrent use.
//
//	LOCK  node.json  peers.json  raft/log.db  state/
type directory struct {
	path string
	lock *os.File
	// watch sees every save; nil before the node has one.
	watch *diskWatch

	// saving orders saves. It is held while the disk works, mu never is: every
	// call between nodes asks who.
	saving sync.Mutex
	// mu guards identity and peers, which are replaced as a whole by who holds saving too.
	mu       sync.Mutex
	identity identity
	peers    map[string]address
}

// identity is what a node must never forget. A node id is random and belongs
// to the directory: a wiped disk is a new node.
type identity struct {
	Format      int     `json:"format"`
	NodeID      string  `json:"node_id"`
	ClusterID   string  `json:"cluster_id,omitempty"`
	Incarnation uint64  `json:"incarnation,omitempty"`
	Pledge      *pledge `json:"pledge,omitempty"`
	// Founding is set on the founder once all have pledged; from then on it yields to nobody.
	Founding *founding `json:"founding,omitempty"`
	// Restoring is set while a restore fills the directory: nothing starts on it before that has ended.
	Restoring bool `json:"restoring,omitempty"`
	// Departed is set once the node is no member any more: nothing starts on this directory again.
	Departed *departed `json:"departed,omitempty"`
}

// departed says how the node's membership ended.
type departed struct {
	// How is a past participle and what follows, for people: "left the cluster".
	How  string    `json:"how"`
	When time.Time `json:"when"`
}

// pledge is the durable word to form a cluster of exactly Members under Founder (R-D2).
type pledge struct {
	Members []string `json:"members"`
	Founder string   `json:"founder"`
}

// founding is the cluster that this node makes.
type founding struct {
	ClusterID string `json:"cluster_id"`
	Epoch     string `json:"epoch"`
}

// address is where a peer was last seen.
type address struct {
	Node   string `json:"node"`
	Gossip string `json:"gossip,omitempty"`
}

func (p *pledge) proto() *clusterv1.PledgeRow {
	if p == nil {
		return nil
	}
	return &clusterv1.PledgeRow{Members: p.Members, Founder: p.Founder}
}

func pledgeOf(r *clusterv1.PledgeRow) *pledge {
	if r.GetFounder() == "" {
		return nil
	}
	return &pledge{Members: r.GetMembers(), Founder: r.GetFounder()}
}

func (p *pledge) equal(q *pledge) bool {
	return p != nil && q != nil && p.Founder == q.Founder && slices.Equal(p.Members, q.Members)
}

// openDirectory locks the directory against other processes and reads, or makes, the identity.
func openDirectory(path string) (*directory, error) {
	d, err := lockDirectory(path)
	if err == nil && d.identity.Restoring {
		err = errors.Join(fmt.Errorf("a restore began in %s and did not end: call `pontoon snapshot restore` again, "+
			"or empty the directory and let the node join as a new one", path), d.Close())
	}
	return d, err
}

// lockDirectory is openDirectory for who may also take up a restore that did not end.
func lockDirectory(path string) (*directory, error) {
	for _, sub := range []string{path, filepath.Join(path, "raft")} {
		if err := os.MkdirAll(sub, 0o700); err != nil {
			return nil, fmt.Errorf("make data directory: %w", err)
		}
	}
	lock, err := os.OpenFile(filepath.Join(path, "LOCK"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock of the data directory: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("lock data directory %s: another process uses it: %w", path, err), lock.Close())
	}
	d := &directory{path: path, lock: lock, peers: map[string]address{}}
	if err := d.load(); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return d, nil
}

func (d *directory) load() error {
	err := readJSON(filepath.Join(d.path, "node.json"), &d.identity)
	if errors.Is(err, fs.ErrNotExist) {
		// A log without an identity is a directory that lost half of itself.
		if _, serr := os.Stat(filepath.Join(d.path, "raft", "log.db")); serr == nil {
			return fmt.Errorf("data directory %s holds a log but no node.json: the node's identity was lost; "+
				"empty the directory and let the node join as a new one", d.path)
		}
		d.identity = identity{Format: 1, NodeID: randomID()}
		err = writeJSON(filepath.Join(d.path, "node.json"), d.identity)
	}
	if err != nil {
		return fmt.Errorf("read identity: %w", err)
	}
	if _, serr := os.Stat(filepath.Join(d.path, "raft", "log.db")); d.identity.ClusterID != "" && errors.Is(serr, fs.ErrNotExist) {
		// Amnesia: it may have voted, and acknowledged entries.
		return fmt.Errorf("data directory %s belongs to node %s of cluster %s but its log was lost; empty the directory and let the node join as a new one",
			d.path, d.identity.NodeID, d.identity.ClusterID)
	}
	if gone := d.identity.Departed; gone != nil {
		return departedError(d.identity.NodeID, d.identity.ClusterID, gone)
	}
	if d.identity.Format != 1 || d.identity.NodeID == "" {
		return fmt.Errorf("read identity: node.json has format %d and node id %q; this release knows format 1", d.identity.Format, d.identity.NodeID)
	}
	if err := readJSON(filepath.Join(d.path, "peers.json"), &d.peers); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read addresses: %w", err)
	}
	return nil
}

// who is the identity as it stands.
func (d *directory) who() identity {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.identity
}

// change edits the identity under the lock and makes it durable; change
// answers false to leave everything as it is.
func (d *directory) change(edit func(*identity) bool) (identity, error) {
	d.saving.Lock()
	defer d.saving.Unlock()
	old := d.who()
	next := old
	if !edit(&next) {
		return old, nil
	}
	done := d.watch.begin("save the node's identity")
	err := writeJSON(filepath.Join(d.path, "node.json"), next)
	done()
	if err != nil {
		return old, fmt.Errorf("save identity: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.identity = next
	return next, nil
}

// forgetPeer drops the address of a node that is no member any more.
func (d *directory) forgetPeer(id string) error {
	d.saving.Lock()
	defer d.saving.Unlock()
	if _, known := d.peers[id]; !known {
		return nil
	}
	next := maps.Clone(d.peers)
	delete(next, id)
	if err := writeJSON(filepath.Join(d.path, "peers.json"), next); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.peers = next
	return nil
}

// acquainted are the ids whose address is known.
func (d *directory) acquainted() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Sorted(maps.Keys(d.peers))
}

// address is where a peer was last seen, or zero.
func (d *directory) address(id string) address {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.peers[id]
}

// gossipAddresses are those of all peers ever seen.
func (d *directory) gossipAddresses() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []string
	for id, a := range d.peers {
		if a.Gossip != "" && id != d.identity.NodeID {
			all = append(all, a.Gossip)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// remember saves addresses that changed.
func (d *directory) remember(seen map[string]address) error {
	d.saving.Lock()
	defer d.saving.Unlock()
	changed, next := false, maps.Clone(d.peers)
	for id, a := range seen {
		if a.Node != "" && next[id] != a {
			next[id], changed = a, true
		}
	}
	if !changed {
		return nil
	}
	done := d.watch.begin("save the peers' addresses")
	err := writeJSON(filepath.Join(d.path, "peers.json"), next)
	done()
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.peers = next
	return nil
}

// Close gives the directory to the next process.
func (d *directory) Close() error { return d.lock.Close() }

func readJSON(path string, into any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// writeJSON replaces a file so that a crash leaves the old or the new one.
func writeJSON(path string, value any) error {
	data, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(path, append(data, '\n'))
}

// writeFile replaces a file so that a crash leaves the old or the new one.
func writeFile(path string, data []byte) error {
	f, err := os.OpenFile(path+".tmp", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(path))
}

// syncFolder makes the names in a folder durable.
func syncFolder(path string) error {
	folder, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

// randomID is 128 random bits in hexadecimal.
func randomID() string {
	b := make([]byte, 16)
	rand.Read(b) // never fails (crypto/rand)
	return hex.EncodeToString(b)
}
