package cluster

import (
	"errors"
	"io"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// A restart reads and replays at most about so many entries, of so many bytes.
const (
	witnessEvery = 1024
	witnessBytes = 8 << 20
)

// fsm feeds Raft's committed entries to the state. A storage error is no result:
// the first one ends the node (M2), and nothing is applied after it.
type fsm struct {
	state  Applier
	fail   func(error)
	broken atomic.Pointer[error]
	// seen is the last witness given to Apply; only Raft's FSM goroutine touches it.
	seen *metav1.Witness
	// since is the bytes of the entries after it.
	since int
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
	next := f.witness(logs)
	entries[len(entries)-1].Witness = next
	results, err := f.state.Apply(entries)
	for i := range results {
		answers[i] = results[i]
	}
	if err == nil && next != nil {
		f.seen, f.since = next, 0
	}
	return err
}

// witness notes index, term and configuration from time to time, and with every
// configuration, in the batch that applies it: a witness never survives what it
// witnesses (R-B7), nor a configuration its witness. Nil: not now.
func (f *fsm) witness(logs []*raft.Log) *metav1.Witness {
	last := logs[len(logs)-1]
	next, changed := &metav1.Witness{Index: last.Index, Term: last.Term,
		Configuration: f.seen.GetConfiguration(), ConfigurationIndex: f.seen.GetConfigurationIndex()}, false
	for _, l := range logs {
		f.since += len(l.Data)
		if l.Type == raft.LogConfiguration {
			next.Configuration, next.ConfigurationIndex, changed = l.Data, l.Index, true
		}
	}
	due := changed || f.since >= witnessBytes || last.Index >= f.seen.GetIndex()+witnessEvery
	if !due || last.Index <= f.seen.GetIndex() || len(next.Configuration) == 0 {
		return nil
	}
	return next
}

// Apply is not used: ApplyBatch is.
func (f *fsm) Apply(l *raft.Log) any { return f.ApplyBatch([]*raft.Log{l})[0] }

// Snapshot answers the state as it is. Raft takes the index with it, on this goroutine, so
// the state has everything up to there.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	if err := f.broken.Load(); err != nil {
		return nil, *err
	}
	return liveSnapshot{}, nil
}

// Restore refuses: a snapshot is never handed to Raft (install.go).
func (f *fsm) Restore(r io.ReadCloser) error {
	return errors.Join(errors.New("raft must not restore a snapshot: the node installs it"), r.Close())
}
