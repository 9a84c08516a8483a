package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/pontoon-registry/pontoon/meta"
	"github.com/pontoon-registry/pontoon/meta/kv"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// TestACompactionIsDurableBeforeRaftDeletes: once Create returns, a power cut leaves
// a state that witnesses and holds everything that Raft may now delete (R-B8).
func TestACompactionIsDurableBeforeRaftDeletes(t *testing.T) {
	for _, percent := range []int{0, 50} {
		memory := kv.NewMemory()
		store, err := kv.Open("state", kv.Options{Memory: memory})
		if err != nil {
			t.Fatal(err)
		}
		state, err := meta.Open(store)
		if err != nil {
			t.Fatal(err)
		}
		f := &fsm{state: state, fail: func(err error) { t.Error(err) }}
		config := raft.Configuration{Servers: []raft.Server{{ID: "a", Address: "a"}}}
		f.ApplyBatch([]*raft.Log{{Index: 1, Term: 2, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(config)}})
		for i := uint64(2); i <= 40; i++ {
			f.ApplyBatch([]*raft.Log{{Index: i, Term: 2, Type: raft.LogCommand, Data: emptyEntry()}})
		}
		s := &snapshots{state: state, fail: f.fail}
		if _, err := s.Create(1, 41, 3, config, 1, nil); err != nil { // 41 is Raft's own
			t.Fatal(err)
		}
		after, err := kv.Open("state", kv.Options{Memory: memory.Crash(percent, 1)})
		if err != nil {
			t.Fatal(err)
		}
		again, err := meta.Open(after)
		if err != nil {
			t.Fatal(err)
		}
		if at, _ := again.Applied(); at != 40 || again.Witness().GetIndex() != 41 || again.Witness().GetTerm() != 3 {
			t.Errorf("%d %%: after the power cut the state is at %d and witnesses %v", percent, at, again.Witness())
		}
		if err := errors.Join(again.Close(), after.Close(), state.Close(), store.Close()); err != nil {
			t.Error(err)
		}
	}
}

// TestAFailedWitnessEndsTheNodeBeforeAnythingIsDeleted.
func TestAFailedWitnessEndsTheNodeBeforeAnythingIsDeleted(t *testing.T) {
	var failed error
	s := &snapshots{state: &brokenState{err: errors.New("disk on fire")}, fail: func(err error) { failed = err }}
	if _, err := s.Create(1, 5, 1, raft.Configuration{}, 1, nil); err == nil || failed == nil {
		t.Errorf("got %v, the node's end is %v", err, failed)
	}
}

// TestAnOlderWitnessNeverReplacesALaterOne: a compaction is told an index that the state has left behind meanwhile.
func TestAnOlderWitnessNeverReplacesALaterOne(t *testing.T) {
	store, err := kv.OpenMemory()
	if err != nil {
		t.Fatal(err)
	}
	state, err := meta.Open(store)
	if err != nil {
		t.Fatal(err)
	}
	later := &metav1.Witness{Index: 9, Term: 2, Configuration: []byte("new"), ConfigurationIndex: 9}
	if _, err := state.Apply([]meta.LogEntry{{Index: 9, Term: 2, Witness: later}}); err != nil {
		t.Fatal(err)
	}
	if err := state.SetWitness(&metav1.Witness{Index: 8, Term: 1, Configuration: []byte("old")}); err != nil {
		t.Fatal(err)
	}
	if w := state.Witness(); w.GetIndex() != 9 || string(w.GetConfiguration()) != "new" {
		t.Errorf("got %v", w)
	}
	if err := errors.Join(state.Close(), store.Close()); err != nil {
		t.Error(err)
	}
}

// seamLog checks the seam at every change of the log.
type seamLog struct {
	LogDisk
	node *Node
	t    testing.TB
	// deletions are the steps seen, and failAt the one to fail, counted from 1.
	mu        sync.Mutex
	deletions [][2]uint64
	failAt    int
	onDelete  func()
}

func (s *seamLog) DeleteRange(low, high uint64) error {
	s.mu.Lock()
	s.deletions = append(s.deletions, [2]uint64{low, high})
	fail := len(s.deletions) == s.failAt
	s.mu.Unlock()
	if s.onDelete != nil {
		s.onDelete()
	}
	if fail {
		return errors.New("input/output error")
	}
	err := s.LogDisk.DeleteRange(low, high)
	first, ferr := s.FirstIndex()
	if ferr != nil || first > s.node.state.Witness().GetIndex()+1 {
		s.t.Errorf("after deleting %d to %d the log begins at %d, the witness is %d: %v", low, high, first, s.node.state.Witness().GetIndex(), ferr)
	}
	return err
}

// watchSeam puts a seamLog under a node that does not run yet.
func watchSeam(t testing.TB, n *Node) *seamLog {
	s := &seamLog{LogDisk: n.logs.disk, node: n, t: t}
	n.logs.disk = s
	return s
}

// fill writes about so many bytes of commands, and answers how many there were.
func fill(t testing.TB, n *running, bytes int) (count int) {
	t.Helper()
	for written := 0; written < bytes; count++ {
		c := putNode(fmt.Sprintf("filler-%d", count%50), strings.Repeat("x", 200)+":1")
		c.Envelope.RequestId = strings.Repeat("r", 4000)
		mustWrite(t, n, c)
		written += 4200
	}
	return count
}

// TestTheLogIsBoundedInBytesAndNeverBeginsBeyondTheState, while entries are written, and after a restart.
func TestTheLogIsBoundedInBytesAndNeverBeginsBeyondTheState(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t, &testMark{})
	cfg.LogBytes = 256 << 10
	var seam *seamLog
	one, err := startWith(t, cfg, func(n *Node) { seam = watchSeam(t, n) })
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is ready", func() error { return one.Ready(t.Context()) })
	fill(t, one, 1<<20)
	eventually(t, "the log is within its bound", func() error {
		if got := one.logs.Bytes(); got > cfg.LogBytes {
			return fmt.Errorf("%d bytes", got)
		}
		return nil
	})
	seam.mu.Lock()
	if len(seam.deletions) == 0 {
		t.Error("nothing was deleted")
	}
	seam.mu.Unlock()
	got := standingOf(t, one.Node)
	if got.first < 2 || got.first > got.witness+1 || one.logs.Bytes() < cfg.LogBytes/8 {
		t.Errorf("got %+v with %d bytes: some of the log is kept for nodes that were away", got, one.logs.Bytes())
	}
	counted := one.logs.Bytes()
	hashed, sum := one.State()
	one = one.restart(t)
	if measured := one.logs.Bytes(); measured < counted*9/10 || measured > counted*11/10 {
		t.Errorf("the log was measured to have %d bytes, counted to have %d", measured, counted)
	}
	if again, after := one.State(); again < hashed || again == hashed && !bytes.Equal(sum, after) {
		t.Errorf("after the restart the state is at %d, it was at %d", again, hashed)
	}
}

// TestAFailedDeletionEndsTheNodeAndTheNextStartGoesOn (R-B2): what was deleted before is within the witness.
func TestAFailedDeletionEndsTheNodeAndTheNextStartGoesOn(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t, &testMark{})
	var seam *seamLog
	one, err := startWith(t, cfg, func(n *Node) { seam = watchSeam(t, n) })
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is ready", func() error { return one.Ready(t.Context()) })
	count := fill(t, one, (deleteEntries*2+200)*4200)
	seam.mu.Lock()
	seam.failAt = 2
	seam.mu.Unlock()
	r := one.raft()
	c := r.ReloadableConfig()
	c.TrailingLogs = 10
	if err := r.ReloadConfig(c); err != nil {
		t.Fatal(err)
	}
	if err := r.Snapshot().Error(); err == nil {
		t.Fatal("the compaction went on after a failed deletion")
	}
	<-one.ended
	if one.err == nil || !strings.Contains(one.err.Error(), "input/output error") {
		t.Errorf("the node ended with %v", one.err)
	}
	again := one.restart(t)
	eventually(t, "it is ready again", func() error { return again.Ready(t.Context()) })
	got := standingOf(t, again.Node)
	if got.first != seam.deletions[0][1]+1 || got.applied < uint64(count) {
		t.Errorf("got %+v, the first step deleted up to %d", got, seam.deletions[0][1])
	}
	compactAll(t, again.Node, 10)
}

// TestACrashBetweenAnyTwoStepsOfACompactionIsNone: after the witness, and after each step of the deletion.
func TestACrashBetweenAnyTwoStepsOfACompactionIsNone(t *testing.T) {
	logs := memoryLog(t, 1, 2000, 3)
	if err := logs.SetUint64([]byte(termKey), 3); err != nil {
		t.Fatal(err)
	}
	w := &metav1.Witness{Index: 1990, Term: 3}
	watch := &seamLog{LogDisk: logs.disk, t: t, node: &Node{state: stateWitnessing(t, w)}}
	logs.disk = watch
	steps := 0
	watch.onDelete = func() {
		steps++
		// The start after a kill here: nothing is refused, nothing is mended.
		first, _ := logs.disk.FirstIndex()
		if err := mendSeam(logs, w, 1980); err != nil {
			t.Errorf("a start before step %d: %v", steps, err)
		}
		if again, _ := logs.disk.FirstIndex(); again != first {
			t.Errorf("a start before step %d mended what was whole", steps)
		}
	}
	if err := logs.DeleteRange(1, 1990); err != nil {
		t.Fatal(err)
	}
	if steps != (1990+deleteEntries-1)/deleteEntries {
		t.Errorf("%d steps", steps)
	}
	if err := mendSeam(logs, w, 1980); err != nil {
		t.Errorf("a start after the last: %v", err)
	}
}

func stateWitnessing(t *testing.T, w *metav1.Witness) *meta.State {
	t.Helper()
	store, err := kv.OpenMemory()
	if err != nil {
		t.Fatal(err)
	}
	state, err := meta.Open(store)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(state.Close(), store.Close()); err != nil {
			t.Error(err)
		}
	})
	if err := state.SetWitness(w); err != nil {
		t.Fatal(err)
	}
	return state
}

// TestDeletionsLeaveNoHole, whichever end they begin at, and are interrupted only where that is safe.
func TestDeletionsLeaveNoHole(t *testing.T) {
	for _, c := range []struct {
		name      string
		low, high uint64
		first     func(steps [][2]uint64) bool
	}{
		{"the beginning, from below", 1, 1500, func(s [][2]uint64) bool { return s[0][0] == 1 }},
		{"the end, from above", 100, 2000, func(s [][2]uint64) bool { return s[0][1] == 2000 }},
		{"all, from above", 1, 2000, func(s [][2]uint64) bool { return s[0][1] == 2000 }},
		{"more than there is", 0, 1 << 40, func(s [][2]uint64) bool { return s[0][1] == 2000 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			logs := memoryLog(t, 1, 2000, 1)
			watch := &seamLog{LogDisk: logs.disk, t: t, node: &Node{state: stateWitnessing(t, &metav1.Witness{Index: 2000})}}
			logs.disk = watch
			watch.onDelete = func() {
				first, _ := logs.disk.FirstIndex()
				last, _ := logs.disk.LastIndex()
				var l raft.Log
				for i := first; i <= last && i > 0; i++ {
					if logs.disk.GetLog(i, &l) != nil {
						t.Fatalf("a hole at %d", i)
					}
				}
			}
			if err := logs.DeleteRange(c.low, c.high); err != nil {
				t.Fatal(err)
			}
			if len(watch.deletions) < 2 || !c.first(watch.deletions) {
				t.Errorf("steps %v", watch.deletions)
			}
			watch.onDelete()
		})
	}
	logs := memoryLog(t, 1, 2000, 1)
	logs.interrupt.Store(true)
	if err := logs.DeleteRange(1, 1500); !errors.Is(err, errInterrupted) {
		t.Errorf("a compaction that was interrupted: %v", err)
	}
	if err := logs.DeleteRange(1, 2000); err != nil {
		t.Errorf("a wipe that was interrupted: %v", err)
	}
}

// TestTheSizeOfTheLogIsKnown against a sum that is kept the dull way.
func TestTheSizeOfTheLogIsKnown(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		z := logSizes{grain: 1000}
		sizes := map[uint64]int64{}
		lo, next := uint64(1), uint64(1)
		for range 3000 {
			switch n := next - lo; {
			case n > 50 && r.IntN(60) == 0:
				lo += r.Uint64N(n)
				z.cutBelow(lo)
			case n > 50 && r.IntN(60) == 0:
				next -= r.Uint64N(20)
				z.cutAbove(next - 1)
			default:
				sizes[next] = 100 + r.Int64N(10)
				z.add(next, sizes[next])
				next++
			}
			want := int64(0)
			for i := lo; i < next; i++ {
				want += sizes[i]
			}
			if off := z.total - want; z.next != next || off > 1100 || off < -1100 {
				t.Fatalf("seed %d: %d bytes in [%d, %d), counted %d to %d", seed, want, lo, next, z.total, z.next)
			}
		}
		from := z.tail(5000)
		kept := int64(0)
		for i := from; i < next; i++ {
			kept += sizes[i]
		}
		if kept > 5100 || kept < 3500 && z.total > 5000 {
			t.Errorf("seed %d: the tail of 5000 bytes has %d", seed, kept)
		}
	}
}

// TestWritesGoOnWhileTheLogIsCompacted: a write waits for one step, not for all.
func TestWritesGoOnWhileTheLogIsCompacted(t *testing.T) {
	inSomeTry(t, "writes are done between the steps", func() error { return writeWhileCompacting(t) }) // a busy machine may keep the writer away
}

func writeWhileCompacting(t *testing.T) error {
	t.Helper()
	const steps = 7
	disk := &slowDeletes{memoryStore: memoryStore{raft.NewInmemStore()}}
	logs := newLogStore(disk, func(err error) { t.Error(err) })
	for i := uint64(1); i <= deleteEntries*8; i++ {
		if err := logs.StoreLog(&raft.Log{Index: i, Term: 1}); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	var deleting sync.WaitGroup
	deleting.Go(func() {
		defer cancel()
		if err := logs.DeleteRange(1, deleteEntries*steps); err != nil {
			t.Error(err)
		}
	})
	between := 0
	for index := uint64(deleteEntries*8 + 1); ctx.Err() == nil; index++ {
		disk.writing.Store(true)
		if err := logs.StoreLog(&raft.Log{Index: index, Term: 1}); err != nil {
			t.Error(err)
			break
		}
		disk.writing.Store(false)
		if done := disk.steps.Load(); done > 0 && done < steps {
			between++
		}
	}
	deleting.Wait()
	if got := disk.steps.Load(); between == 0 || got != steps {
		return fmt.Errorf("%d were done between the %d steps of the compaction", between, got)
	}
	return nil
}

// slowDeletes does no step of a deletion before somebody wants to write, and then takes its time.
type slowDeletes struct {
	memoryStore
	writing atomic.Bool
	steps   atomic.Int64
}

func (s *slowDeletes) DeleteRange(low, high uint64) error {
	for end := time.Now().Add(10 * time.Second); !s.writing.Load() && time.Now().Before(end); {
		<-time.After(time.Millisecond)
	}
	<-time.After(10 * time.Millisecond) // until he waits
	defer s.steps.Add(1)
	return s.memoryStore.DeleteRange(low, high)
}

// TestAnArchiveIsItsFolder, and names that lead elsewhere are refused.
func TestAnArchiveIsItsFolder(t *testing.T) {
	for _, bad := range []string{"", ".", "..", "../x", "/etc/x", "a/b", `a\b`, ".hidden", "a\x00b", "ü", strings.Repeat("x", 101)} {
		if checkFileName(bad) == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
	if err := unpack(bytes.NewReader(nil), filepath.Join(t.TempDir(), "no", "such")); err == nil {
		t.Error("unpacked into a folder that cannot be made")
	}
}
