package cluster

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// Standing is how far a data directory has come, read while its node does not
// run. Of those that are left after a lost quorum the one with the highest LastTerm
// is the best, and among equals the one with the highest LastIndex: that is
// Raft's own order, so it has everything that was acknowledged and is still anywhere.
type Standing struct {
	NodeID, ClusterID string
	Incarnation       uint64
	// LastTerm and LastIndex are those of the last entry of the log, Applied what the state contains.
	LastTerm, LastIndex, Applied uint64
	// Voters are those of the last configuration in the log, committed or not.
	Voters []string
}

// Recovery is the data directory of a node that does not run. OpenRecovery pairs with Close.
type Recovery struct {
	Standing
	node *Node
	term uint64
}

// OpenRecovery opens a data directory to look at it. It is refused while the node
// runs, and for a directory that must not be started either.
func OpenRecovery(dataDir string) (_ *Recovery, err error) {
	n := &Node{cfg: Config{DataDir: dataDir}, fatal: make(chan error, 1), leaders: newLeaders(), handle: newHandle()}
	n.cfg.fill()
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close())
		}
	}()
	if _, err := os.Stat(filepath.Join(dataDir, "node.json")); err != nil {
		return nil, fmt.Errorf("look for a node in %s: %w", dataDir, err) // opening would make one
	}
	if n.dir, err = openDirectory(dataDir); err != nil {
		return nil, err
	}
	who := n.dir.who()
	n.id = who.NodeID
	if who.ClusterID == "" {
		return nil, fmt.Errorf("node %s belongs to no cluster yet: there is nothing to recover in %s", n.id, dataDir)
	}
	if err := n.openState(); err != nil {
		return nil, err
	}
	r := &Recovery{node: n}
	return r, r.look()
}

// Close gives the directory back.
func (r *Recovery) Close() error { return r.node.Close() }

// look reads the standing.
func (r *Recovery) look() error {
	n := r.node
	who := n.dir.who()
	r.Standing = Standing{NodeID: n.id, ClusterID: who.ClusterID, Incarnation: who.Incarnation, Applied: n.applied()}
	last, err := n.logs.LastIndex()
	if err != nil {
		return fmt.Errorf("read the end of the log: %w", err)
	}
	if last == 0 {
		return fmt.Errorf("node %s has no log: it has just joined and knows nothing; recover on another node", n.id)
	}
	var entry raft.Log
	if err := n.logs.GetLog(last, &entry); err != nil {
		return fmt.Errorf("read entry %d: %w", last, err)
	}
	r.LastIndex, r.LastTerm = last, entry.Term
	if r.term, err = n.logs.GetUint64([]byte(termKey)); err != nil {
		return fmt.Errorf("read current term: %w", err)
	}
	config, err := r.configuration()
	r.Voters = voters(config)
	return err
}

// configuration is the last one: in the log above the witness, else the witness's.
func (r *Recovery) configuration() (raft.Configuration, error) {
	w := r.node.state.Witness()
	for i := r.LastIndex; i > w.GetIndex(); i-- {
		var entry raft.Log
		if err := r.node.logs.GetLog(i, &entry); err != nil {
			return raft.Configuration{}, fmt.Errorf("read entry %d: %w", i, err)
		}
		if entry.Type == raft.LogConfiguration {
			return raft.DecodeConfiguration(entry.Data), nil
		}
	}
	if len(w.GetConfiguration()) == 0 {
		return raft.Configuration{}, nil
	}
	return raft.DecodeConfiguration(w.GetConfiguration()), nil
}

// Recover makes the node the only voter of another life of the cluster. Whatever
// its log holds, acknowledged or not, becomes true; what only the others had is lost. The others are
// refused from then on by their incarnation. Its order makes a crash at any
// step harmless, and doing it again right:
//
//	raise the stable term (R-B5) ─► raise the directory's incarnation ─► one write of the log: configuration, commands
//
// The entries are of a term that nobody led and nobody ever will, since the node starts above it.
// Nothing is rewritten: log, state and witness stay as the rules of seam.go want them.
func (r *Recovery) Recover(wall time.Time) error {
	n := r.node
	term := max(r.term, r.LastTerm) + 1
	if err := n.logs.SetUint64([]byte(termKey), term); err != nil {
		return fmt.Errorf("raise the term: %w", err)
	}
	system, err := n.System()
	if err != nil && meta.KindOf(err) != metav1.Kind_KIND_UNKNOWN {
		return fmt.Errorf("read cluster: %w", err)
	}
	who, err := n.dir.change(func(i *identity) bool {
		i.Incarnation = max(i.Incarnation, system.GetIncarnation()) + 1
		return true
	})
	if err != nil {
		return err
	}
	last, err := r.configuration()
	if err != nil {
		return err
	}
	commands, err := r.commands(system, last, who.Incarnation)
	if err != nil {
		return err
	}
	clock, _, err := n.clock()
	if err != nil {
		return err
	}
	err = n.logs.StoreLogs([]*raft.Log{
		{Index: r.LastIndex + 1, Term: term, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(soleVoter(n.id))},
		{Index: r.LastIndex + 2, Term: term, Type: raft.LogCommand, Data: encodeEntry(clock, wall.UnixNano(), commands)},
	})
	if err != nil {
		return err
	}
	return r.look()
}

// commands forget the others, and begin the new life. The version rises with it: nobody is left who does not know it.
func (r *Recovery) commands(system *metav1.System, config raft.Configuration, incarnation uint64) ([]*call, error) {
	n := r.node
	var all []*metav1.Command
	own, others := &metav1.Node{Id: n.id}, map[string]bool{}
	for _, m := range n.nodes() {
		others[m.GetId()] = true
		if m.GetId() == n.id {
			own = proto.CloneOf(m)
		}
	}
	for _, s := range config.Servers { // the rows of some may be in entries that the state has not applied
		others[string(s.ID)] = true
	}
	delete(others, n.id)
	for _, id := range slices.Sorted(maps.Keys(others)) {
		all = append(all, &metav1.Command{Kind: &metav1.Command_RemoveNode{RemoveNode: &metav1.RemoveNode{Id: id}}})
	}
	if system.GetVersion() < n.cfg.newest {
		// Upgraded since it could say so last: its row would keep the version below what is logged here.
		own.MinVersion, own.MaxVersion = n.cfg.oldest, n.cfg.newest
		all = append(all, &metav1.Command{Kind: &metav1.Command_PutNode{PutNode: &metav1.PutNode{Node: own}}})
		all = append(all, &metav1.Command{Kind: &metav1.Command_RaiseVersion{RaiseVersion: &metav1.RaiseVersion{Version: n.cfg.newest}}})
	}
	all = append(all, &metav1.Command{Kind: &metav1.Command_RaiseIncarnation{RaiseIncarnation: &metav1.RaiseIncarnation{
		Incarnation: incarnation, NodeId: n.id, Life: nextLife(system.GetLife()),
	}}})
	calls := make([]*call, len(all))
	for i, c := range all {
		c.Envelope = &metav1.Envelope{Actor: &metav1.Actor{Name: "system:recover", Method: "system"}, NodeId: n.id}
		encoded, err := proto.Marshal(c)
		if err != nil {
			return nil, fmt.Errorf("encode command: %w", err)
		}
		calls[i] = newCall(encoded)
	}
	return calls, nil
}

// lifeElements bounds a life, which has at most 255 bytes.
const lifeElements = 7

// nextLife names a life that begins: random, after the names of those that it comes from. Of two directories that were
// recovered apart neither comes from the other, so that only one of the two takes up the store's owner mark (G9).
func nextLife(before string) string {
	var elements []string
	if before != "" {
		elements = strings.Split(before, ".")
	}
	elements = append(elements, randomID())
	return strings.Join(elements[max(0, len(elements)-lifeElements):], ".")
}
