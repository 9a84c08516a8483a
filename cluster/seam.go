package cluster

import (
	"fmt"

	"github.com/hashicorp/raft"

	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// The seam between log and state. The live state is the snapshot: the witness
// row holds Raft's index, term and configuration at a place that the state has
// reached (R-B1), and Raft is told that a snapshot ends there. So a restart
// replays what came after the witness, and the state skips what it has.
//
//	log     |first ........................ last|
//	state   ..................... applied
//	witness ........... i
//
// Always: first ≤ i + 1 (nothing between state and log is missing), i ≤
// applied, and, since a node syncs its log before it applies, applied ≤ last.

// termKey is where Raft keeps the current term in its stable store.
const termKey = "CurrentTerm"

// mendSeam compares log, stable store and state before Raft starts. It refuses
// what would lose or invent entries, saying what to do, and mends the one
// legal gap: a crash between the installation of a snapshot and the wipe of the log (R-B2, R-B3).
func mendSeam(logs *logStore, w *metav1.Witness, applied uint64) error {
	first, err := logs.FirstIndex()
	if err != nil {
		return fmt.Errorf("read first index of the log: %w", err)
	}
	last, err := logs.LastIndex()
	if err != nil {
		return fmt.Errorf("read last index of the log: %w", err)
	}
	if first > w.GetIndex()+1 {
		return fmt.Errorf("the log begins at entry %d but the state was witnessed at %d only: the state was lost or rolled back; "+
			"do not copy files back, replace this node: empty its data directory and let it join as a new one", first, w.GetIndex())
	}
	term, err := logs.GetUint64([]byte(termKey))
	if err != nil && err.Error() != "not found" { // the library's own contract is this text
		return fmt.Errorf("read current term: %w", err)
	}
	if applied > 0 && term < w.GetTerm() || applied > 0 && last == 0 && term == 0 {
		return fmt.Errorf("the state has applied entry %d but the log and its votes are lost (term %d, the state's is %d): a node without "+
			"its votes may vote twice; replace it: empty its data directory and let it join as a new one", applied, term, w.GetTerm())
	}
	if w.GetIndex() > 0 {
		if last, err = mendLog(logs, w, first, last); err != nil {
			return err
		}
	}
	if applied > last {
		return fmt.Errorf("the state has applied entry %d but the log ends at %d: acknowledged entries were lost from the log; "+
			"replace this node: empty its data directory and let it join as a new one", applied, last)
	}
	return nil
}

// mendLog wipes a log that does not hold the witnessed entry and writes a stub
// in its place, so that a leader whose entries begin right after it finds what it compares (R-B3).
func mendLog(logs *logStore, w *metav1.Witness, first, last uint64) (uint64, error) {
	if last >= w.GetIndex() && first <= w.GetIndex() {
		var at raft.Log
		if err := logs.GetLog(w.GetIndex(), &at); err != nil {
			return 0, fmt.Errorf("read witnessed entry %d: %w", w.GetIndex(), err)
		}
		if at.Term == w.GetTerm() {
			return last, nil
		}
	} else if first == w.GetIndex()+1 {
		return last, nil // compacted exactly up to the witness
	}
	if last > 0 {
		if err := logs.DeleteRange(first, last); err != nil {
			return 0, fmt.Errorf("wipe log: %w", err)
		}
	}
	stub := &raft.Log{Index: w.GetIndex(), Term: w.GetTerm(), Type: raft.LogNoop}
	if err := logs.StoreLog(stub); err != nil {
		return 0, fmt.Errorf("write stub entry %d: %w", stub.Index, err)
	}
	return stub.Index, nil
}
