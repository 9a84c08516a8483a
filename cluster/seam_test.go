package cluster

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// memoryLog is a log of entries first to last, all of one term.
func memoryLog(t *testing.T, first, last, term uint64) *logStore {
	t.Helper()
	mem := raft.NewInmemStore()
	for i := first; i <= last && first > 0; i++ {
		if err := mem.StoreLog(&raft.Log{Index: i, Term: term, Type: raft.LogCommand, Data: fmt.Append(nil, i)}); err != nil {
			t.Fatal(err)
		}
	}
	return newLogStore(memoryStore{mem}, func(err error) { t.Errorf("the log failed: %v", err) })
}

type memoryStore struct{ *raft.InmemStore }

func (memoryStore) Close() error { return nil }

// TestTheStartComparesLogAndState is the table of R-B2, R-B3 and R-B7.
func TestTheStartComparesLogAndState(t *testing.T) {
	witness := func(i, term uint64) *metav1.Witness { return &metav1.Witness{Index: i, Term: term} }
	for _, c := range []struct {
		name              string
		first, last, term uint64 // of the log
		stable            uint64 // current term
		witness           *metav1.Witness
		applied           uint64
		refused           string
		stub              uint64 // the log's only entry afterwards
	}{
		{name: "nothing at all"},
		{name: "first start after a bootstrap", first: 1, last: 1, term: 1, stable: 1},
		{name: "never witnessed", first: 1, last: 9, term: 2, stable: 2, applied: 9},
		{name: "state behind after a power cut", first: 1, last: 9, term: 2, stable: 2, witness: witness(3, 2), applied: 4},
		{name: "state at the end", first: 1, last: 9, term: 2, stable: 5, witness: witness(9, 2), applied: 9},
		{name: "compacted up to the witness", first: 6, last: 9, term: 2, stable: 2, witness: witness(5, 2), applied: 5},
		{name: "state lost", first: 6, last: 9, term: 2, stable: 2, refused: "replace this node"},
		{name: "state rolled back", first: 6, last: 9, term: 2, stable: 2, witness: witness(3, 2), applied: 3, refused: "replace this node"},
		{name: "log lost", witness: witness(5, 2), applied: 5, refused: "may vote twice"},
		{name: "log lost, never witnessed", applied: 5, refused: "may vote twice"},
		{name: "log of an older time", first: 1, last: 2, term: 1, stable: 1, witness: witness(5, 2), applied: 5, refused: "may vote twice"},
		{name: "end of the log lost", first: 1, last: 7, term: 2, stable: 2, witness: witness(5, 2), applied: 9, refused: "acknowledged entries were lost"},
		{name: "crash after an install, log empty", stable: 3, witness: witness(5, 2), applied: 5, stub: 5},
		{name: "crash after an install, log behind", first: 1, last: 3, term: 1, stable: 3, witness: witness(5, 2), applied: 5, stub: 5},
		{name: "crash after an install, log diverged", first: 1, last: 9, term: 1, stable: 3, witness: witness(5, 2), applied: 5, stub: 5},
	} {
		t.Run(c.name, func(t *testing.T) {
			logs := memoryLog(t, c.first, c.last, c.term)
			if c.stable > 0 {
				if err := logs.SetUint64([]byte(termKey), c.stable); err != nil {
					t.Fatal(err)
				}
			}
			err := mendSeam(logs, c.witness, c.applied)
			if c.refused != "" {
				if err == nil || !strings.Contains(err.Error(), c.refused) {
					t.Fatalf("got %v, want %q", err, c.refused)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			first, last := c.first, c.last
			if c.stub > 0 {
				first, last = c.stub, c.stub
				var l raft.Log
				if err := logs.GetLog(c.stub, &l); err != nil || l.Type != raft.LogNoop || l.Term != c.witness.GetTerm() {
					t.Errorf("the stub is %+v, %v", l, err)
				}
			}
			gotFirst, _ := logs.FirstIndex()
			gotLast, _ := logs.LastIndex()
			if gotFirst != first || gotLast != last {
				t.Errorf("the log holds %d to %d, want %d to %d", gotFirst, gotLast, first, last)
			}
		})
	}
}

func TestRaftStartsFromTheWitness(t *testing.T) {
	config := raft.Configuration{Servers: []raft.Server{{ID: "a", Address: "a"}, {ID: "b", Address: "b"}}}
	w := &metav1.Witness{Index: 7, Term: 3, Configuration: raft.EncodeConfiguration(config), ConfigurationIndex: 2}
	list, err := (&snapshots{state: &brokenState{witness: w}}).List()
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	if m := list[0]; m.Index != 7 || m.Term != 3 || m.ConfigurationIndex != 2 || len(m.Configuration.Servers) != 2 {
		t.Errorf("got %+v", m)
	}
	for _, none := range []*metav1.Witness{nil, {}} {
		if list, err := (&snapshots{state: &brokenState{witness: none}}).List(); err != nil || list != nil {
			t.Errorf("nothing witnessed: got %v, %v", list, err)
		}
	}
}

// brokenState fails when told to, and remembers what it was given.
type brokenState struct {
	err     error
	applied []meta.LogEntry
	witness *metav1.Witness
}

func (s *brokenState) Apply(entries []meta.LogEntry) ([][]*metav1.Result, error) {
	if s.err != nil {
		return nil, s.err
	}
	s.applied = append(s.applied, entries...)
	if w := entries[len(entries)-1].Witness; w != nil {
		s.witness = w
	}
	return make([][]*metav1.Result, len(entries)), nil
}

func (s *brokenState) Witness() *metav1.Witness { return s.witness }

func (s *brokenState) SetWitness(w *metav1.Witness) error {
	if s.err != nil {
		return s.err
	}
	s.witness = w
	return nil
}

func TestAStorageErrorEndsTheNodeAndIsNeverAResult(t *testing.T) {
	s := &brokenState{err: errors.New("disk on fire")}
	var failed error
	f := &fsm{state: s, fail: func(err error) { failed = err }}
	answer := f.ApplyBatch([]*raft.Log{{Index: 1, Type: raft.LogCommand}})[0]
	if _, isErr := answer.(error); !isErr || failed == nil {
		t.Errorf("the answer is %v, the node's end %v", answer, failed)
	}
	s.err = nil
	if answer := f.ApplyBatch([]*raft.Log{{Index: 2, Type: raft.LogCommand}})[0]; answer == nil || len(s.applied) > 0 {
		t.Error("an entry was applied after one was left out")
	}
}

func TestTheStateWitnessesConfigurationsAndEveryThousandEntries(t *testing.T) {
	s := &brokenState{}
	f := &fsm{state: s, fail: func(err error) { t.Error(err) }}
	f.ApplyBatch([]*raft.Log{{Index: 1, Term: 1, Type: raft.LogConfiguration, Data: []byte("c")}, {Index: 2, Term: 1, Type: raft.LogCommand}})
	if s.witness.GetIndex() != 2 || s.witness.GetConfigurationIndex() != 1 || s.applied[0].Data != nil {
		t.Errorf("got %v", s.witness)
	}
	f.ApplyBatch([]*raft.Log{{Index: 3, Term: 2, Type: raft.LogCommand}})
	if s.witness.GetIndex() != 2 {
		t.Error("witnessed every entry")
	}
	f.ApplyBatch([]*raft.Log{{Index: 4, Term: 2, Type: raft.LogCommand, Data: make([]byte, witnessBytes-10)}})
	if s.witness.GetIndex() != 2 {
		t.Error("witnessed too few bytes")
	}
	f.ApplyBatch([]*raft.Log{{Index: 5, Term: 2, Type: raft.LogCommand, Data: make([]byte, 10)}})
	if s.witness.GetIndex() != 5 {
		t.Error("many bytes were not witnessed")
	}
	f.ApplyBatch([]*raft.Log{{Index: 5 + witnessEvery, Term: 2, Type: raft.LogCommand}})
	if s.witness.GetIndex() != 5+witnessEvery || s.witness.GetTerm() != 2 || string(s.witness.GetConfiguration()) != "c" {
		t.Errorf("got %v", s.witness)
	}
}

func TestTheLogCacheIsBoundedInBytesAndForgetsWhatIsDeleted(t *testing.T) {
	logs := memoryLog(t, 0, 0, 0)
	logs.limit = 10 * 1128
	for i := uint64(1); i <= 100; i++ {
		if err := logs.StoreLog(&raft.Log{Index: i, Term: 1, Data: make([]byte, 1000)}); err != nil {
			t.Fatal(err)
		}
	}
	if len(logs.recent) != 10 || logs.lo != 91 {
		t.Fatalf("%d entries from %d, %d bytes", len(logs.recent), logs.lo, logs.bytes)
	}
	if err := logs.DeleteRange(95, 100); err != nil {
		t.Fatal(err)
	}
	var l raft.Log
	if err := logs.GetLog(96, &l); !errors.Is(err, raft.ErrLogNotFound) {
		t.Errorf("a deleted entry was read: %+v, %v", l, err)
	}
	if err := logs.StoreLog(&raft.Log{Index: 95, Term: 2}); err != nil {
		t.Fatal(err)
	}
	if err := logs.GetLog(95, &l); err != nil || l.Term != 2 {
		t.Errorf("got %+v, %v", l, err)
	}
	if !logs.IsMonotonic() {
		t.Error("not monotonic")
	}
}

// stuckStore blocks writes until released, then fails them.
type stuckStore struct {
	memoryStore
	release chan struct{}
}

func (s stuckStore) StoreLogs([]*raft.Log) error {
	<-s.release
	return errors.New("input/output error")
}

func TestAStuckWriteIsSeenAndAFailedOneEndsTheNode(t *testing.T) {
	release, failed := make(chan struct{}), make(chan error, 1)
	logs := newLogStore(stuckStore{memoryStore{raft.NewInmemStore()}, release}, func(err error) { failed <- err })
	logs.watch = &diskWatch{}
	done := make(chan error)
	go func() { done <- logs.StoreLog(&raft.Log{Index: 1}) }()
	eventually(t, "the stall is seen", func() error {
		if what, took := logs.watch.oldest(); what != "store entries in the log" || took < 1 {
			return fmt.Errorf("%q for %v", what, took)
		}
		return nil
	})
	close(release)
	if err := <-done; err == nil || <-failed == nil || len(logs.watch.open) != 0 {
		t.Errorf("got %v", err)
	}
}
