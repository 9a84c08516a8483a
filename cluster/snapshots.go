package cluster

import (
	"errors"
	"fmt"
	"io"

	"github.com/hashicorp/raft"

	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// witnesses is what snapshots needs of meta.State.
type witnesses interface {
	Witness() *metav1.Witness
	SetWitness(*metav1.Witness) error
}

// snapshots is Raft's snapshot store. The live state is the snapshot (R-B8): List
// answers the witness, Create makes the state witness, and Open gives a
// checkpoint to be sent. Never is a staged directory listed (R-B2).
type snapshots struct {
	state witnesses
	// open answers a checkpoint of the state and its index, term and configuration.
	open func() (*raft.SnapshotMeta, io.ReadCloser, error)
	fail func(error)
}

// snapshotID is the only one there is.
const snapshotID = "state"

// List answers the witness, or nothing for a state that witnessed nothing.
func (s *snapshots) List() ([]*raft.SnapshotMeta, error) {
	w := s.state.Witness()
	if w.GetIndex() == 0 {
		return nil, nil
	}
	return []*raft.SnapshotMeta{metaOf(w)}, nil
}

func metaOf(w *metav1.Witness) *raft.SnapshotMeta {
	return &raft.SnapshotMeta{
		Version: raft.SnapshotVersionMax, ID: snapshotID, Index: w.GetIndex(), Term: w.GetTerm(),
		Configuration: raft.DecodeConfiguration(w.GetConfiguration()), ConfigurationIndex: w.GetConfigurationIndex(),
	}
}

// Create is all of a compaction but the deletion of entries: Raft has delivered
// everything up to index, and once this returns the state has it durably, and
// says so. Raft deletes entries only after that: the log never begins above the witness + 1 (R-B1).
func (s *snapshots) Create(_ raft.SnapshotVersion, index, term uint64, c raft.Configuration, configIndex uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	w := &metav1.Witness{Index: index, Term: term, Configuration: raft.EncodeConfiguration(c), ConfigurationIndex: configIndex}
	if err := s.state.SetWitness(w); err != nil {
		err = fmt.Errorf("compact the log up to %d: %w", index, err)
		s.fail(err)
		return nil, err
	}
	return witnessSink{}, nil
}

// Open answers a checkpoint, which is newer than what List said. Raft uses what is answered here.
func (s *snapshots) Open(string) (*raft.SnapshotMeta, io.ReadCloser, error) { return s.open() }

// witnessSink is what Raft writes a snapshot to: nothing, it is all there.
type witnessSink struct{}

func (witnessSink) ID() string    { return snapshotID }
func (witnessSink) Close() error  { return nil }
func (witnessSink) Cancel() error { return nil }
func (witnessSink) Write([]byte) (int, error) {
	return 0, errors.New("the live state is the snapshot: nothing is written to it")
}

// liveSnapshot is the snapshot that the FSM gives: the state as it is.
type liveSnapshot struct{}

func (liveSnapshot) Persist(raft.SnapshotSink) error { return nil }
func (liveSnapshot) Release()                        {}
