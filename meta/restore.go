package meta

import (
	"errors"
	"fmt"
	"math"

	"google.golang.org/protobuf/proto"

	"github.com/pontoon-registry/pontoon/meta/kv"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

const (
	// restoreIndexes is how far the log index moves on: beyond all that the old cluster can have told anybody after the
	// moment that is restored, so that no revision or fencing token is ever seen twice.
	restoreIndexes = 1 << 32
	// restoreTime is how far the cluster's clock moves on, for the same reason: no deadline that was told lies ahead for long.
	restoreTime = 24 * hour
)

// ErrUnrestored is answered for a store in which a Restore began and did not end: nothing in it is to be believed.
var ErrUnrestored = errors.New("a restore began in this state and did not end: begin again with an empty directory")

// Restoration says whose a restored state becomes.
type Restoration struct {
	// ClusterID, Epoch and Life are random and new.
	ClusterID, Epoch, Life string
	// NodeID is the first node; Configuration is Raft's, encoded, with that node as its only voter.
	NodeID        string
	Configuration []byte
	// WallTime of the restore, for showing.
	WallTime int64
}

// Restore makes the state in store, as Import and Apply left it, that of a new cluster. What was pushed stays. What
// belonged to the old cluster's nodes goes: nodes, origins, locks, uploads (their keys are condemned), cycles of
// collection, backups. Index, term and clock move on; the state's own witness says where to. Memory does not grow with the state.
//
// It is not resumed: a store in which it was cut short opens nowhere (ErrUnrestored).
func Restore(store *kv.Store, to Restoration) (err error) {
	snap, err := store.Snapshot()
	if err != nil {
		return fmt.Errorf("restore state: %w", err)
	}
	defer func() { err = errors.Join(err, snap.Close()) }()
	r, err := newRestorer(store, snap, to)
	if err != nil {
		return fmt.Errorf("restore state: %w", err)
	}
	for _, step := range r.steps() {
		step()
		r.flush()
	}
	r.fail(r.batch.Discard())
	if r.err == nil {
		r.fail(store.Sync())
	}
	if r.err != nil {
		return fmt.Errorf("restore state: %w", r.err)
	}
	return nil
}

// restorer is one Restore under way.
type restorer struct {
	rewriter
	to     Restoration
	system *metav1.System
	// old is the clock that is restored, clock the new one; index and term are where the new cluster begins.
	old, clock  int64
	from, index uint64
	term        uint64
	wall        int64
	// upload is the last one that was looked at: its keys stand side by side.
	uploadID string
	upload   *metav1.Upload
}

func newRestorer(store *kv.Store, snap *kv.Snapshot, to Restoration) (*restorer, error) {
	m, _, err := load(&home{store: store})
	if err != nil {
		return nil, err
	}
	if err := m.snap.Close(); err != nil {
		return nil, err
	}
	switch {
	case m.system.GetClusterId() == "":
		return nil, errors.New("it holds no cluster")
	case m.index > math.MaxInt64 || m.term > math.MaxInt64 || m.clock.GetClusterTime() > math.MaxInt64-restoreTime:
		return nil, fmt.Errorf("index %d, term %d or clock %d cannot move on", m.index, m.term, m.clock.GetClusterTime())
	case to.ClusterID == "" || to.ClusterID == m.system.GetClusterId() || !isEpoch(to.Epoch) || to.Epoch == m.system.GetEpoch() || to.NodeID == "" || len(to.Configuration) == 0:
		return nil, errors.New("the new cluster needs an id and an epoch of its own, a node and a configuration")
	}
	return &restorer{
		rewriter: rewriter{rows: rows{src: stored{snap}}, store: store, batch: store.Batch(), head: m.head, bound: importBatch},
		to:       to, system: m.system, old: m.clock.GetClusterTime(), clock: m.clock.GetClusterTime() + restoreTime,
		from: m.index, index: m.index + restoreIndexes, term: max(m.term, m.system.GetTerm()) + 1, wall: m.clock.GetWallTime(),
	}, nil
}

// steps are written in this order. The first makes the store one that opens nowhere, the last takes that back in the
// batch that gives it its new name.
func (r *restorer) steps() []func() {
	return []func(){
		func() { r.set(oneRow(nil, rangeRestoring), nil) },
		func() {
			for _, gone := range []byte{rangeChainNote, rangeDefect, rangeNode, rangeOrigin, rangeOriginResult} {
				r.drop(gone)
			}
		},
		r.confirms, r.graces, r.objects,
		func() {
			for _, gone := range []byte{rangeUpload, rangeLock, rangeCollection, rangeCycle, rangeBackup} {
				r.drop(gone)
			}
		},
		r.departures, r.begin,
	}
}

// within says whether a grace from since on was running at the moment that is restored.
//
// G8 across the step of the clock: what was within its grace gets a fresh one. Somebody was told that it is there, and
// repeats a push that the disaster cut; by its old time a day would have passed. What was over stays over.
func (r *restorer) within(since int64) bool {
	return r.old-since < r.system.GetSettings().GetGrace()
}

func (r *restorer) confirms() {
	row := &metav1.Manifest{}
	r.each(rangeManifest, row, func(key []byte) {
		if r.within(row.GetConfirmed()) {
			row.Confirmed = r.clock
			r.put(key, row)
		}
	})
}

func (r *restorer) graces() {
	row := &metav1.Grace{}
	r.each(rangeGrace, row, func(key []byte) {
		if r.within(row.GetSince()) {
			row.Since = r.clock
			r.put(key, row)
		}
	})
}

func (r *restorer) departures() {
	row := &metav1.Departed{}
	r.each(rangeDeparted, row, func(key []byte) {
		if r.within(row.GetSince()) {
			row.Since = r.clock
			r.put(key, row)
		}
	})
}

// objects condemns what uploads had stored, as their end would have. What is condemned already keeps its distance to
// its not-before: that stands for links that clients hold, which no step of a clock makes invalid (G6).
//
// A key that an upload had is condemned at the new index, not at the restored one: later states of the old cluster may
// have it live, so whoever deletes it must raise the owner mark above all of those (G9).
func (r *restorer) objects() {
	row := &metav1.Object{}
	r.each(rangeObject, row, func(key []byte) {
		switch s := row.GetState().(type) {
		case *metav1.Object_Uploading:
			_, rest := cutName(key[1:])
			name, _ := cutName(rest)
			c := r.abandoned(s.Uploading.GetUpload(), name)
			c.Index, c.NotBefore = r.index, r.clock+r.system.GetSettings().GetDeleteDelay()
			r.put(key, &metav1.Object{State: &metav1.Object_Condemned{Condemned: c}})
		case *metav1.Object_Condemned:
			s.Condemned.NotBefore += r.clock - r.old
			r.put(key, row)
		}
	})
}

// abandoned says how much an upload has under a key, and which multipart upload is to be aborted there.
func (r *restorer) abandoned(id, key string) *metav1.Condemned {
	if r.upload == nil || r.uploadID != id {
		r.upload, r.uploadID = &metav1.Upload{}, id
		r.read(nameKey(nil, rangeUpload, id), r.upload)
	}
	c := &metav1.Condemned{}
	if key == r.upload.GetMultipartKey() {
		c.Size, c.MultipartIds = partsSize(r.upload.GetParts()), []string{r.upload.GetMultipartId()}
	}
	for _, p := range r.upload.GetPieces() {
		if p.GetKey() == key {
			c.Size = p.GetSize()
		}
	}
	return c
}

// begin names the new cluster, at its first index. Everything else is written by now.
func (r *restorer) begin() {
	row := proto.CloneOf(r.system)
	row.Restored = &metav1.Restored{
		ClusterId: row.GetClusterId(), Epoch: row.GetEpoch(), Incarnation: row.GetIncarnation(),
		Index: r.from, WallTime: r.wall, RestoredWallTime: r.to.WallTime,
	}
	row.ClusterId, row.Epoch, row.Life, row.Incarnation = r.to.ClusterID, r.to.Epoch, r.to.Life, row.GetIncarnation()+1
	row.Term, row.Leader, row.Uploads = r.term, "", 0
	r.put(oneRow(nil, rangeSystem), row)
	r.put(oneRow(nil, rangeClock), &metav1.Clock{ClusterTime: r.clock, WallTime: r.to.WallTime})
	r.put(placeKey(nil, rangeEvent, r.index, 0), &metav1.Event{
		Action: metav1.Action_ACTION_RESTORE_CLUSTER, ClusterTime: r.clock, WallTime: r.to.WallTime,
		Actor: "system:restore", Method: "system", NodeId: r.to.NodeID, Subject: r.system.GetClusterId(),
	})
	r.del(oneRow(nil, rangeRestoring))
	r.chain()
	r.put(oneRow(nil, rangeApplied), &metav1.Applied{Index: r.index, Term: r.term})
	r.put(oneRow(nil, rangeChain), &metav1.Chain{Index: r.index, Sha256: r.head[:]})
	r.put(oneRow(nil, rangeWitness), &metav1.Witness{Index: r.index, Term: r.term, Configuration: r.to.Configuration, ConfigurationIndex: r.index})
}
