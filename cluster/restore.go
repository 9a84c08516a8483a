package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	"github.com/pontoon-registry/pontoon/meta"
	"github.com/pontoon-registry/pontoon/meta/kv"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// ErrHasState is answered for a data directory that holds a node already: a restore never writes over one.
var ErrHasState = errors.New("the data directory holds a node's state already")

// ErrUnclaimed is answered beside ErrHasState when that node is of no cluster yet: a start on the directory could still found
// an empty one.
var ErrUnclaimed = errors.New("the node is of no cluster")

// Restoration makes the first node of a new cluster in an empty data directory, from the state of another cluster. Its
// caller fills Store, calls Found, perhaps Record, and Finish. OpenRestoration pairs with Close.
//
//	node.json says restoring ─► state-… filled ─► given its new name ─► term and stub in the log ─► CURRENT ─► node.json names the cluster
//
// Until the last step nothing starts on the directory, and another OpenRestoration throws away what is there and begins
// anew; the last one replaces one file. So a crash at any step is harmless, and doing it again is right. The
// owner mark of a store is neither read nor written: a node that belongs to a cluster claims none (G9).
type Restoration struct {
	dir   *directory
	path  string
	store *kv.Store
	// state is there from Found on.
	state *meta.State
	// finished: the directory is a node's, and stays.
	finished bool
	// step is told between any two steps and ends it there with its error; tests crash there.
	step func(name string) error
}

// OpenRestoration locks an empty data directory, or one in which a restore began and did not end. ErrHasState otherwise.
func OpenRestoration(dataDir string) (*Restoration, error) {
	return openRestoration(dataDir, func(string) error { return nil })
}

func openRestoration(dataDir string, step func(string) error) (_ *Restoration, err error) {
	if err := HasState(dataDir); err != nil {
		return nil, err
	}
	r := &Restoration{step: step}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.Close())
		}
	}()
	if r.dir, err = lockDirectory(dataDir); err != nil {
		return nil, err
	}
	if err := HasState(dataDir); err != nil { // somebody may have been faster
		return nil, err
	}
	if _, err := r.dir.change(func(i *identity) bool { i.Restoring = true; return true }); err != nil {
		return nil, err
	}
	if err := r.step("begun"); err != nil {
		return nil, err
	}
	if err := r.wipe(); err != nil {
		return nil, fmt.Errorf("remove what an earlier restore left in %s: %w", dataDir, err)
	}
	if err := r.step("wiped"); err != nil {
		return nil, err
	}
	r.path = filepath.Join(dataDir, storePrefix+randomID())
	if r.store, err = kv.Open(r.path, kv.Options{Room: Room(dataDir)}); err != nil {
		return nil, fmt.Errorf("open state: %w", err)
	}
	return r, nil
}

// restoreRoom is what a restore leaves free at least, in bytes: the store writes that much behind a commit.
const restoreRoom = 64 << 20

// Room answers a kv.Options.Room for who fills a store below dir: it ends before the disk is full, which the store would not survive.
func Room(dir string) func() error {
	return func() error {
		free, err := freeSpace(dir)
		if err == nil && free < restoreRoom {
			err = fmt.Errorf("disk full: %s has %d MiB free, and %d MiB must stay free: %w", dir, free>>20, restoreRoom>>20, syscall.ENOSPC)
		}
		return err
	}
}

// HasState answers ErrHasState, and why, for a directory into which nothing can be restored. It changes nothing. An
// identity that has done nothing yet is no state.
func HasState(dataDir string) error {
	who := identity{}
	if err := readJSON(filepath.Join(dataDir, "node.json"), &who); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look for a node in %s: %w", dataDir, err)
	}
	if who.ClusterID != "" {
		return fmt.Errorf("%w: %s is that of node %s of cluster %s; restore into an empty one", ErrHasState, dataDir, who.NodeID, who.ClusterID)
	}
	if who.Pledge != nil || who.Founding != nil {
		return fmt.Errorf("%w: node %s in %s has given its word to form a cluster; restore into an empty directory", ErrHasState, who.NodeID, dataDir)
	}
	if who.Restoring {
		return nil
	}
	for _, name := range []string{pointerFile, firstStore, filepath.Join("raft", "log.db")} {
		if _, err := os.Lstat(filepath.Join(dataDir, name)); !errors.Is(err, fs.ErrNotExist) {
			return errors.Join(fmt.Errorf("%w: there is %s in %s, but %w: it was started and found none, or it is damaged; restore into an empty directory",
				ErrHasState, name, dataDir, ErrUnclaimed), err)
		}
	}
	return nil
}

// wipe removes what an earlier restore left.
func (r *Restoration) wipe() error {
	entries, err := os.ReadDir(r.dir.path)
	if err != nil {
		return err
	}
	left := []string{pointerFile, filepath.Join("raft", "log.db")}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), storePrefix) {
			left = append(left, e.Name())
		}
	}
	var errs []error
	for _, name := range left {
		errs = append(errs, os.RemoveAll(filepath.Join(r.dir.path, name)))
	}
	return errors.Join(append(errs, syncFolder(r.dir.path))...)
}

// NodeID is that of the node that is made.
func (r *Restoration) NodeID() string { return r.dir.who().NodeID }

// Store is to be filled before Found, and not used after it: by meta.Import, and by a State that is closed again.
func (r *Restoration) Store() *kv.Store { return r.store }

// Found makes the state in Store that of a new cluster, with this node as its only voter.
func (r *Restoration) Found(wall time.Time) error {
	if err := r.step("filled"); err != nil {
		return err
	}
	err := meta.Restore(r.store, meta.Restoration{
		ClusterID: randomID(), Epoch: randomID()[:12], Life: randomID(), NodeID: r.NodeID(),
		Configuration: raft.EncodeConfiguration(soleVoter(r.NodeID())), WallTime: wall.UnixNano(),
	})
	if err != nil {
		return err
	}
	if r.state, err = meta.Open(r.store); err != nil {
		return err
	}
	return r.step("founded")
}

// soleVoter is Raft's configuration of one voter.
func soleVoter(id string) raft.Configuration {
	return raft.Configuration{Servers: []raft.Server{{Suffrage: raft.Voter, ID: raft.ServerID(id), Address: raft.ServerAddress(id)}}}
}

// View is the new cluster's state, after Found. The caller closes it before Finish.
func (r *Restoration) View() *meta.View { return r.state.View() }

// Record applies commands as the new cluster's, in one entry, after Found. A command that is refused is an error.
func (r *Restoration) Record(wall time.Time, commands ...*metav1.Command) error {
	calls := make([]*call, len(commands))
	for i, c := range commands {
		c.Envelope = &metav1.Envelope{Actor: &metav1.Actor{Name: "system:restore", Method: "system"}, NodeId: r.NodeID()}
		encoded, err := proto.Marshal(c)
		if err != nil {
			return fmt.Errorf("encode command: %w", err)
		}
		calls[i] = newCall(encoded)
	}
	w := r.state.Witness()
	w.Index++
	v := r.state.View()
	clock := v.ClusterTime()
	v.Close()
	results, err := r.state.Apply([]meta.LogEntry{{Index: w.GetIndex(), Term: w.GetTerm(), Data: encodeEntry(clock, wall.UnixNano(), calls), Witness: w}})
	if err != nil {
		return err
	}
	for i, result := range results[0] {
		if refusal := result.GetRefusal(); refusal != nil {
			return fmt.Errorf("record command %d of the restore: %w", i, meta.FromRefusal(refusal))
		}
	}
	return nil
}

// Finish makes the directory a node's: from here on it can be started.
func (r *Restoration) Finish() (*metav1.System, error) {
	v := r.state.View()
	system, err := v.System()
	v.Close()
	if err != nil {
		return nil, err
	}
	w := r.state.Witness()
	err = errors.Join(r.state.Close(), r.store.Sync(), r.store.Close())
	r.state, r.store = nil, nil
	if err != nil {
		return nil, err
	}
	if err := r.step("state closed"); err != nil {
		return nil, err
	}
	if err := r.stub(w); err != nil {
		return nil, err
	}
	if err := (&stores{dir: r.dir.path}).point(r.path); err != nil {
		return nil, fmt.Errorf("point to the state: %w", err)
	}
	if err := r.step("pointed"); err != nil {
		return nil, err
	}
	_, err = r.dir.change(func(i *identity) bool {
		i.ClusterID, i.Incarnation, i.Restoring = system.GetClusterId(), system.GetIncarnation(), false
		return true
	})
	r.finished = err == nil
	return system, err
}

// stub makes the log that goes with the state: one entry where it ends, and a term that is above all that the old cluster had.
func (r *Restoration) stub(w *metav1.Witness) (err error) {
	logs, err := openLog(filepath.Join(r.dir.path, "raft"), func(error) {})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, logs.Close()) }()
	if err := logs.SetUint64([]byte(termKey), w.GetTerm()); err != nil {
		return fmt.Errorf("write the term: %w", err)
	}
	if err := r.step("term written"); err != nil {
		return err
	}
	if err := logs.StoreLog(&raft.Log{Index: w.GetIndex(), Term: w.GetTerm(), Type: raft.LogNoop}); err != nil {
		return fmt.Errorf("write stub entry %d: %w", w.GetIndex(), err)
	}
	return r.step("stub written")
}

// Close gives the directory back, and the space of a restore that did not end.
func (r *Restoration) Close() error {
	var errs []error
	if r.state != nil {
		errs = append(errs, r.state.Close())
	}
	if r.store != nil {
		errs = append(errs, r.store.Close())
	}
	if r.path != "" && !r.finished {
		errs = append(errs, os.RemoveAll(r.path))
	}
	if r.dir != nil {
		errs = append(errs, r.dir.Close())
	}
	r.state, r.store, r.dir = nil, nil, nil
	return errors.Join(errs...)
}
