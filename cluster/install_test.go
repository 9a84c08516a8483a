package cluster

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/pontoon-registry/pontoon/meta"
	"github.com/pontoon-registry/pontoon/meta/kv"
)

func ordinary(*Config) {}

// TestRaftsOwnEntriesNeverLeaveTheLogBeyondTheState is R-B1: barriers at the end of
// the log, which the state never sees, are witnessed before they are deleted, or Raft panics at every start.
func TestRaftsOwnEntriesNeverLeaveTheLogBeyondTheState(t *testing.T) {
	h := feed(t, ordinary)
	h.grow(3, raft.LogCommand)
	applied := h.last
	h.grow(2, raft.LogNoop)
	h.grow(2, raft.LogBarrier) // Raft's snapshot index counts them
	h.commit(h.last)
	h.applies(applied) // barriers are not the state's
	compactAll(t, h.node.Node, 0)
	if got := h.standing(); got.last != 0 || got.witness != h.last {
		t.Fatalf("after a compaction of everything: %+v, want an empty log and a witness at %d", got, h.last)
	}
	h.restart("")
	want := standing{first: h.last, last: h.last, applied: applied, witness: h.last}
	if got := h.standing(); got != want {
		t.Errorf("after a restart: %+v, want %+v", got, want)
	}
	h.grow(2, raft.LogCommand)
	h.commit(h.last)
	h.applies(h.last)
}

// TestAnInstalledLogBeginsWithItsSnapshotPoint is R-B2: what was below is gone.
func TestAnInstalledLogBeginsWithItsSnapshotPoint(t *testing.T) {
	h := feed(t, ordinary)
	s := h.forge(1000, h.term)
	h.install(s)
	want := standing{first: 1000, last: 1000, applied: 1000, witness: 1000}
	if got := h.standing(); got != want {
		t.Fatalf("after the install: %+v, want %+v", got, want)
	}
	h.must(h.append(1000, h.term, &raft.Log{Index: 1001, Term: h.term, Data: emptyEntry()}))
	for _, i := range []uint64{1, 500, 999} {
		if h.node.logs.holds(i) {
			t.Errorf("entry %d can still be shipped", i)
		}
	}
	h.restart("")
	if got := h.standing(); got.first != 1000 || got.last != 1001 {
		t.Errorf("after a restart: %+v", got)
	}
	for _, name := range []string{firstStore, outgoingName} {
		if _, err := os.Stat(filepath.Join(dataOf(h.node), name)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there: %v", name, err)
		}
	}
}

// TestTheSnapshotPointIsAcceptedByEveryLaterLeader is R-B3, and hashicorp/raft#697.
func TestTheSnapshotPointIsAcceptedByEveryLaterLeader(t *testing.T) {
	h := feed(t, ordinary)
	// A log that conflicts with the snapshot's point: entries of a leader that lost.
	h.grow(20, raft.LogCommand)
	conflicting := h.last - 5
	h.term += 2
	h.install(h.forge(conflicting, h.term))
	at := h.term
	h.must(h.append(conflicting, at, &raft.Log{Index: conflicting + 1, Term: at, Data: emptyEntry()}, &raft.Log{Index: conflicting + 2, Term: at, Data: emptyEntry()}))
	h.term++ // another leader, which has nothing after the snapshot's point
	h.must(h.append(conflicting, at, &raft.Log{Index: conflicting + 1, Term: h.term, Data: emptyEntry()}))
	h.last = conflicting + 1
	h.commit(h.last)
	if got := h.standing(); got.first != conflicting || got.last != h.last || got.applied != h.last {
		t.Errorf("got %+v, want the log from %d to %d", got, conflicting, h.last)
	}
}

// TestASnapshotThatDoesNotFitIsRefusedBeforeItFillsTheDisk: the log is on it too, and goes on.
func TestASnapshotThatDoesNotFitIsRefusedBeforeItFillsTheDisk(t *testing.T) {
	var free atomic.Int64
	free.Store(500 * mib)
	h := feed(t, func(c *Config) {
		c.MinFree = 100 * mib
		c.FreeSpace = func(string) (int64, error) { return free.Load(), nil }
	})
	s := h.forge(1000, h.term)
	free.Store(25*mib + s.req.Size - 1)
	if resp, err := h.send(s); err == nil || !strings.Contains(err.Error(), "disk full") {
		t.Errorf("got %+v, %v", resp, err)
	}
	free.Store(500 * mib)
	h.install(s)
}

// TestTheWitnessedEntryOutlivesACompaction: a log compacted up to the state's end, with entries above it that
// lost, accepts a leader that has nothing there (R-B3). It would ask that leader for a snapshot of just that point, and need none.
func TestTheWitnessedEntryOutlivesACompaction(t *testing.T) {
	h := feed(t, ordinary)
	h.grow(20, raft.LogCommand)
	h.commit(h.last)
	end, at := h.last, h.term
	h.grow(5, raft.LogCommand) // never committed
	compactAll(t, h.node.Node, 1)
	if got := h.standing(); got.first != end || got.witness != end {
		t.Errorf("got %+v, want a log from %d", got, end)
	}
	h.term++
	h.must(h.append(end, at, &raft.Log{Index: end + 1, Term: h.term, Data: emptyEntry()}))
	h.last = end + 1
	h.commit(h.last)
}

// TestASnapshotThatIsNotNeededIsAnsweredAndNotExecuted is R-B4.
func TestASnapshotThatIsNotNeededIsAnsweredAndNotExecuted(t *testing.T) {
	h := feed(t, ordinary)
	stale := h.forge(h.last, h.term) // what an old leader may yet send
	h.grow(10, raft.LogCommand)
	h.commit(h.last)
	held := h.forge(h.last+5, h.term)
	h.grow(20, raft.LogCommand) // acknowledged, not known to be committed
	before := h.node.raft()

	for name, s := range map[string]*snapshot{"below the commit index": stale, "held by the log": held} {
		resp, err := h.send(s)
		if err != nil || !resp.Success {
			t.Errorf("%s: got %+v, %v; want success", name, resp, err)
		}
		if h.node.raft() != before {
			t.Errorf("%s: it was executed", name)
		}
		if got := h.standing(); got.last != h.last {
			t.Errorf("%s: the log ends at %d, entries up to %d were acknowledged", name, got.last, h.last)
		}
	}
	// Compacted: the log cannot tell any more.
	h.commit(h.last)
	compactAll(t, h.node.Node, 1)
	if resp, err := h.send(stale); err != nil || !resp.Success || h.node.raft() != before {
		t.Errorf("below the log: got %+v, %v; want success, and nothing done", resp, err)
	}
	// The commit index is forgotten by a restart; what was applied is not.
	applied := h.node.applied()
	h.restart("")
	if resp, err := h.send(stale); err != nil || !resp.Success || h.node.applied() < applied {
		t.Errorf("after a restart: got %+v, %v, the state is at %d of %d", resp, err, h.node.applied(), applied)
	}
	// An answer that was lost: the leader sends the same again.
	twice := h.forge(h.last+1000, h.term)
	h.install(twice)
	installed := h.node.raft()
	if resp, err := h.send(twice); err != nil || !resp.Success || h.node.raft() != installed {
		t.Errorf("the second time: got %+v, %v", resp, err)
	}
}

// TestAnInstallRaisesTheTerm is R-B5: no vote and no entry below the term of the state.
func TestAnInstallRaisesTheTerm(t *testing.T) {
	h := feed(t, ordinary)
	h.term = 50
	h.install(h.forge(1000, 50))
	term, err := h.node.logs.GetUint64([]byte(termKey))
	if err != nil || term != 50 || h.node.raft().CurrentTerm() != 50 {
		t.Errorf("the stable term is %d, raft's %d, want 50: %v", term, h.node.raft().CurrentTerm(), err)
	}
	// An old snapshot, replayed by a leader of an older term, is rejected as Raft does.
	s := h.forge(2000, 49)
	h.term = 49
	resp, err := h.send(s)
	if err != nil || resp.Success || resp.Term != 50 {
		t.Errorf("of an older term: got %+v, %v; want a rejection that names term 50", resp, err)
	}
	if h.node.applied() != 1000 {
		t.Errorf("the state is at %d", h.node.applied())
	}
}

// TestTheTransportOutlivesRaft is R-B6: calls are served by the Raft that was made anew, and views that were open go on.
func TestTheTransportOutlivesRaft(t *testing.T) {
	h := feed(t, ordinary)
	old := h.node.state.View()
	index := old.Index()
	for i := range uint64(3) {
		before := h.node.raft()
		h.install(h.forge(1000*(i+1), h.term))
		if h.node.raft() == before {
			t.Fatal("raft was not re-created")
		}
		h.grow(1, raft.LogCommand)
		h.commit(h.last)
	}
	if _, err := old.System(); err != nil || old.Index() != index {
		t.Errorf("a view that was open reads %v at %d", err, old.Index())
	}
	old.Close()
	eventually(t, "the states that were replaced are removed", func() error {
		left, err := filepath.Glob(filepath.Join(dataOf(h.node), "state*"))
		if err == nil && len(left) != 1 {
			err = errors.New(strings.Join(left, " "))
		}
		return err
	})
}

// TestADamagedSnapshotChangesNothing, nor does one of another cluster, or one that is not what was said.
func TestADamagedSnapshotChangesNothing(t *testing.T) {
	h := feed(t, ordinary)
	good := h.forge(1000, h.term)
	before, raftBefore := h.standing(), h.node.raft()
	change := func(edit func(*snapshot)) *snapshot {
		s := &snapshot{req: good.req, data: bytes.Clone(good.data)}
		edit(s)
		return s
	}
	for name, s := range map[string]*snapshot{
		"cut short":           change(func(s *snapshot) { s.data = s.data[:len(s.data)/2]; s.req.Size = int64(len(s.data)) }),
		"another index":       change(func(s *snapshot) { s.req.LastLogIndex++ }),
		"another term":        change(func(s *snapshot) { s.req.LastLogTerm-- }),
		"another config":      change(func(s *snapshot) { s.req.Configuration = s.req.Configuration[:10] }),
		"another config's":    change(func(s *snapshot) { s.req.ConfigurationIndex++ }),
		"not what it seems":   change(func(s *snapshot) { s.data, s.req.Size = []byte("no archive"), 10 }),
		"nothing":             change(func(s *snapshot) { s.data, s.req.Size = nil, 0 }),
		"an unknown version":  change(func(s *snapshot) { s.req.SnapshotVersion = 9 }),
		"shorter than it was": change(func(s *snapshot) { s.req.Size++ }),
	} {
		if resp, err := h.send(s); err == nil {
			t.Errorf("%s: got %+v", name, resp)
		}
		eventually(t, "the node is done with it", func() error { // the sender may have noticed first
			if !h.node.installing.TryLock() {
				return errors.New("not yet")
			}
			h.node.installing.Unlock()
			return nil
		})
	}
	if got := h.standing(); got != before || h.node.raft() != raftBefore {
		t.Errorf("%+v became %+v", before, got)
	}
	if left, err := filepath.Glob(filepath.Join(dataOf(h.node), "state-*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	eventually(t, "a whole one is installed", func() error { // what the sender gave up may be begun yet
		resp, err := h.send(good)
		if err == nil && !resp.Success {
			err = errors.New("refused")
		}
		return err
	})
}

// TestACrashBetweenAnyTwoStepsOfAnInstallIsMended: the files as a kill leaves them
// lead to the same state, whether the leader then sends the snapshot again or goes on with entries.
func TestACrashBetweenAnyTwoStepsOfAnInstallIsMended(t *testing.T) {
	t.Parallel()
	for _, step := range []string{"downloaded", "raft is down", "term is raised", "pointer is written", "state is swapped", "log is wiped", "stub is written"} {
		t.Run(strings.ReplaceAll(step, " ", "-"), func(t *testing.T) {
			copied, killed := filepath.Join(t.TempDir(), "copy"), errors.New("killed by the test")
			h := feed(t, func(c *Config) {
				dir := c.DataDir
				c.Step = func(name string) error {
					if name != step {
						return nil
					}
					return errors.Join(killed, copyLive(dir, copied))
				}
			})
			h.grow(20, raft.LogCommand) // in the way of the snapshot, and of another term there
			h.term += 3
			s := h.forge(h.last-5, h.term)
			want := stateOf(t, s)
			if resp, err := h.send(s); err == nil {
				t.Fatalf("the node was to be killed: %+v", resp)
			}
			<-h.node.ended
			if !errors.Is(h.node.err, killed) || errors.Is(h.node.err, errNotCopied) {
				t.Fatalf("the node ended with %v", h.node.err)
			}
			h.restart(copied)
			h.install(s)
			if got := h.standing(); got.first != h.last || got.last != h.last || got.applied != h.last || got.witness != h.last {
				t.Errorf("after the restart: %+v, want everything at %d", got, h.last)
			}
			if index, sum := h.node.state.Hash(); index != h.last || !bytes.Equal(sum, want) {
				t.Errorf("the state at %d differs from the leader's", index)
			}
			h.grow(3, raft.LogCommand)
			h.commit(h.last)
		})
	}
}

var errNotCopied = errors.New("the files were not copied")

// copyLive copies the files of a node that runs, as a kill would leave them: what
// it holds in memory is not among them. A file that Pebble removes meanwhile is no loss: begin again.
func copyLive(from, to string) (err error) {
	for range 20 {
		if err = os.CopyFS(to, os.DirFS(from)); err == nil {
			return nil
		}
		if rerr := os.RemoveAll(to); rerr != nil {
			return errors.Join(errNotCopied, rerr)
		}
	}
	return errors.Join(errNotCopied, err)
}

// stateOf answers the hash of the state in a snapshot.
func stateOf(t *testing.T, s *snapshot) []byte {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "look")
	if err := unpack(bytes.NewReader(s.data), dir); err != nil {
		t.Fatal(err)
	}
	store, err := kv.Open(dir, kv.Options{})
	if err != nil {
		t.Fatal(err)
	}
	state, err := meta.Open(store)
	if err != nil {
		t.Fatal(err)
	}
	_, sum := state.Hash()
	if err := errors.Join(state.Close(), store.Close()); err != nil {
		t.Fatal(err)
	}
	return sum
}

// TestASnapshotThatIsOvertakenIsNotExecuted: what the log got while it was downloaded counts (R-B4).
func TestASnapshotThatIsOvertakenIsNotExecuted(t *testing.T) {
	var h *hand
	h = feed(t, func(c *Config) {
		c.Step = func(name string) error {
			if name == "downloaded" {
				h.grow(20, raft.LogCommand)
				h.commit(h.last)
			}
			return nil
		}
	})
	s := h.forge(h.last+10, h.term)
	if resp, err := h.send(s); err != nil || !resp.Success {
		t.Errorf("got %+v, %v; want success", resp, err)
	}
	if got := h.standing(); got.first != 1 || got.last != h.last || got.applied != h.last {
		t.Errorf("got %+v: entries up to %d were acknowledged", got, h.last)
	}
	h.grow(1, raft.LogCommand) // raft goes on
	if left, err := filepath.Glob(filepath.Join(dataOf(h.node), "state-*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestWhatRaftWasAskedIsAnsweredAcrossAnInstall: Raft forgets what it has queued when it is shut down.
func TestWhatRaftWasAskedIsAnsweredAcrossAnInstall(t *testing.T) {
	h := feed(t, ordinary)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var asking sync.WaitGroup
	for range 16 {
		asking.Go(func() {
			for ctx.Err() == nil {
				_ = h.node.handle.apply(emptyEntry(), time.Second).Error() // refused: it does not lead
			}
		})
	}
	for i := range uint64(5) {
		h.install(h.forge(1000*(i+1), h.term))
	}
	cancel()
	asking.Wait() // for ever, if one was forgotten
}

// TestASecondSnapshotWaitsForTheFirst: one is in flight (R-B4).
func TestASecondSnapshotWaitsForTheFirst(t *testing.T) {
	var h *hand
	var s *snapshot
	var second error
	h = feed(t, func(c *Config) {
		c.Step = func(name string) error {
			if name == "downloaded" && second == nil {
				_, second = h.send(s)
			}
			return nil
		}
	})
	s = h.forge(1000, h.term)
	h.install(s)
	if second == nil || !strings.Contains(second.Error(), "another snapshot is being installed") {
		t.Errorf("the second got %v", second)
	}
}
