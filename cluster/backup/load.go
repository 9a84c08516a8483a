package backup

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/pontoon-registry/pontoon/meta"
	"github.com/pontoon-registry/pontoon/meta/kv"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

const (
	// replayEntries and replayBytes bound what is applied at once.
	replayEntries = 256
	replayBytes   = 4 << 20
)

// Target is the moment whose state is wanted; zero: the last that is archived. At most one field is set.
type Target struct {
	// Index of the last entry that counts.
	Index uint64
	// WallTime in Unix nanoseconds: entries stamped later do not count, from the first of them on.
	WallTime int64
}

// String names it for people.
func (t Target) String() string {
	switch {
	case t.Index != 0:
		return fmt.Sprintf("index %d", t.Index)
	case t.WallTime != 0:
		return clock(t.WallTime)
	}
	return "the last moment that is archived"
}

// clock is a wall time for people.
func clock(wall int64) string { return time.Unix(0, wall).UTC().Format(time.RFC3339) }

// Progress is how far a Load has come: Rows of Size bytes of the snapshot, Entries of the log.
type Progress struct {
	Rows, Size int64
	Entries    int64
}

// Loaded is what a Load has put into a store.
type Loaded struct {
	Snapshot *Manifest
	// System is the row about the cluster.
	System *metav1.System
	// Index, Term and WallTime are of the last entry in the state.
	Index, Term uint64
	WallTime    int64
	// Replayed counts entries of the log, behind the snapshot.
	Replayed int64
}

// Load fills an empty store with the state at the target: the snapshot, and the log behind it. Every byte is verified
// before it counts, and the result by the hash chain (M9). ErrUnreached says that what is archived ends before the target. On an error
// the store holds a part: throw it away. progress may be nil.
func Load(ctx context.Context, s *Snapshot, store *kv.Store, to Target, progress func(Progress)) (_ *Loaded, err error) {
	l := &loader{ctx: ctx, snapshot: s, to: to, progress: progress, told: Progress{Size: s.Manifest().Size}}
	if err := l.load(store); err != nil {
		return nil, fmt.Errorf("load snapshot: %w", err)
	}
	if l.state, err = meta.Open(store); err != nil {
		return nil, fmt.Errorf("load snapshot: %w", err)
	}
	defer func() { err = errors.Join(err, l.state.Close()) }()
	if err := l.compare(); err != nil {
		return nil, fmt.Errorf("load snapshot: %w", err)
	}
	if err := l.replay(); err != nil {
		return nil, err
	}
	if err := l.reached(); err != nil {
		return nil, err
	}
	at := l.loaded()
	v := l.state.View()
	defer v.Close()
	at.System, err = v.System()
	return at, err
}

type loader struct {
	ctx      context.Context // of the one call
	snapshot *Snapshot
	to       Target
	progress func(Progress)
	told     Progress
	state    *meta.State
	// pending are read and not applied; pendingBytes is their size.
	pending      []meta.LogEntry
	pendingBytes int
	// passed is set by an entry that is beyond the target.
	passed bool
}

func (l *loader) tell() {
	if l.progress != nil {
		l.progress(l.told)
	}
}

// read counts the rows.
func (l *loader) read(from io.Reader) io.Reader {
	return readerFunc(func(p []byte) (int, error) {
		n, err := from.Read(p)
		l.told.Rows += int64(n)
		l.tell()
		return n, err
	})
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func (l *loader) load(store *kv.Store) error {
	if m := l.snapshot.Manifest(); m.CommandVersion > meta.NewestVersion {
		return fileError(l.snapshot.from.full(manifestName), ErrNewerFormat, "command version %d, this release reads %d", m.CommandVersion, meta.NewestVersion)
	}
	rows := l.snapshot.Rows(l.ctx)
	return errors.Join(meta.Import(store, l.read(rows)), rows.Close())
}

// compare holds the rows to what the manifest says of them.
func (l *loader) compare() error {
	m, v := l.snapshot.Manifest(), l.state.View()
	defer v.Close()
	system, err := v.System()
	if err != nil {
		return err
	}
	file := l.snapshot.from.full(manifestName)
	if v.Index() != m.Index || v.Term() != m.Term || hex.EncodeToString(v.Hash()) != m.Chain {
		return fileError(file, ErrAltered, "it says index %d of term %d, its rows are of index %d, term %d, or of another history", m.Index, m.Term, v.Index(), v.Term())
	}
	if system.GetClusterId() != m.ClusterID || system.GetIncarnation() != m.Incarnation || system.GetEpoch() != m.Epoch {
		return fileError(file, ErrOtherCluster, "it says cluster %s, incarnation %d; its rows are of %s, %d", m.ClusterID, m.Incarnation, system.GetClusterId(), system.GetIncarnation())
	}
	return nil
}

// replay applies the log behind the snapshot, up to the target.
func (l *loader) replay() error {
	log, from := l.snapshot.Log(), l.snapshot.Manifest().Index
	if log == nil || l.to.Index != 0 && l.to.Index <= from {
		return nil
	}
	for e, err := range log.Entries(l.ctx, from, 0) {
		if err != nil {
			return l.stopped(err)
		}
		if l.beyond(e.LogEntry) {
			l.passed = true
			break
		}
		l.pending = append(l.pending, e.LogEntry)
		l.pendingBytes += len(e.Data)
		if e.Chain != nil || len(l.pending) >= replayEntries || l.pendingBytes >= replayBytes {
			if err := l.apply(); err != nil {
				return err
			}
		}
		if _, hash := l.state.Hash(); e.Chain != nil && !bytes.Equal(hash, e.Chain) {
			return fmt.Errorf("replay log: %w", fileError(logFolder(log.clusterID, log.incarnation), ErrAltered,
				"after entry %d the state is not what the cluster's was: a segment is of another history", e.Index))
		}
		if e.Index == l.to.Index {
			break
		}
	}
	return l.apply()
}

// stopped says how far one can get in spite of what is wrong.
func (l *loader) stopped(err error) error {
	if applied := l.apply(); applied != nil {
		return applied
	}
	index, _ := l.state.Applied()
	return fmt.Errorf("replay log: %w; all before it is there: go to index %d instead", err, index)
}

// beyond says whether an entry is later than the target. An index that is Raft's own is no entry: the next one passes it.
func (l *loader) beyond(e meta.LogEntry) bool {
	if l.to.Index != 0 {
		return e.Index > l.to.Index
	}
	if l.to.WallTime == 0 || len(e.Data) == 0 {
		return false
	}
	var entry metav1.Entry
	// What cannot be decoded is for Apply to refuse.
	return proto.Unmarshal(e.Data, &entry) == nil && entry.GetWallTime() > l.to.WallTime
}

func (l *loader) apply() error {
	if len(l.pending) == 0 {
		return nil
	}
	if l.ctx.Err() != nil {
		return context.Cause(l.ctx)
	}
	if _, err := l.state.Apply(l.pending); err != nil {
		return fmt.Errorf("replay log: %w", err)
	}
	l.told.Entries += int64(len(l.pending))
	l.pending, l.pendingBytes = l.pending[:0], 0
	l.tell()
	return nil
}

func (l *loader) loaded() *Loaded {
	v := l.state.View()
	defer v.Close()
	return &Loaded{Snapshot: l.snapshot.Manifest(), Index: v.Index(), Term: v.Term(), WallTime: v.WallTime(), Replayed: l.told.Entries}
}

// reached refuses a state that is not at the target: what is missing cannot be told from what never was.
func (l *loader) reached() error {
	at := l.loaded()
	short := l.to.Index != 0 && at.Index != l.to.Index || l.to.WallTime != 0 && at.WallTime != l.to.WallTime
	if !short || l.passed {
		return nil
	}
	what := "the archive ends at"
	if l.snapshot.Log() == nil {
		what = "a file has no log, this one is of"
	}
	return fmt.Errorf("%s %w: %s index %d, %s", l.to, ErrUnreached, what, at.Index, clock(at.WallTime))
}
