package cluster

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// witnessEvery is how many entries a restart replays at most.
const witnessEvery = 1024

// applier is what the fsm needs of meta.State; tests put a failing disk there.
type applier interface {
	Apply([]meta.LogEntry) ([][]*metav1.Result, error)
	SetWitness(w *metav1.Witness, sync bool) error
}

// fsm feeds Raft's committed entries to the state. A storage error is no result:
// the first one ends the node (M2), and nothing is applied after it.
type fsm struct {
	state  applier
	fail   func(error)
	broken atomic.Pointer[error]
	// seen is the last row written; only Raft's FSM goroutine touches it.
	seen *metav1.Witness
}

// ApplyBatch answers each command with its []*metav1.Result, or an error when the node is ending.
func (f *fsm) ApplyBatch(logs []*raft.Log) []any {
	answers := make([]any, len(logs))
	if err := f.apply(logs, answers); err != nil {
		if f.broken.CompareAndSwap(nil, &err) {
			f.fail(err)
		}
		for i := range answers {
			answers[i] = err
		}
	}
	return answers
}

func (f *fsm) apply(logs []*raft.Log, answers []any) error {
	if err := f.broken.Load(); err != nil {
		return *err
	}
	entries := make([]meta.LogEntry, len(logs))
	for i, l := range logs {
		entries[i] = meta.LogEntry{Index: l.Index, Term: l.Term}
		if l.Type == raft.LogCommand { // a configuration only moves the applied index
			entries[i].Data = l.Data
		}
	}
	results, err := f.state.Apply(entries)
	for i := range results {
		answers[i] = results[i]
	}
	if err != nil {
		return err
	}
	return f.witness(logs)
}

// witness notes index, term and configuration from time to time. Unsynced: Pebble's log
// keeps the order, so a witness never survives what it witnesses (R-B7).
func (f *fsm) witness(logs []*raft.Log) error {
	last := logs[len(logs)-1]
	next, changed := &metav1.Witness{Index: last.Index, Term: last.Term,
		Configuration: f.seen.GetConfiguration(), ConfigurationIndex: f.seen.GetConfigurationIndex()}, false
	for _, l := range logs {
		if l.Type == raft.LogConfiguration {
			next.Configuration, next.ConfigurationIndex, changed = l.Data, l.Index, true
		}
	}
	if last.Index <= f.seen.GetIndex() || len(next.Configuration) == 0 || !changed && last.Index-f.seen.GetIndex() < witnessEvery {
		return nil
	}
	if err := f.state.SetWitness(next, false); err != nil {
		return fmt.Errorf("witness entry %d: %w", last.Index, err)
	}
	f.seen = next
	return nil
}

// Apply is not used: ApplyBatch is.
func (f *fsm) Apply(l *raft.Log) any { return f.ApplyBatch([]*raft.Log{l})[0] }

// errNoSnapshots: the log is not compacted yet, and the live state is the snapshot.
var errNoSnapshots = errors.New("this release neither makes, streams nor installs snapshots")

// Snapshot refuses.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) { return nil, errNoSnapshots }

// Restore refuses.
func (f *fsm) Restore(r io.ReadCloser) error { return errors.Join(errNoSnapshots, r.Close()) }
