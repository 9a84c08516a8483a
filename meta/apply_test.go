package meta

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/pontoon-registry/pontoon/meta/kv"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

func decodeEntry(t testing.TB, data []byte, e *metav1.Entry) {
	t.Helper()
	if err := proto.Unmarshal(data, e); err != nil {
		t.Fatal(err)
	}
}

func kindName(c *metav1.Command) string {
	m := c.ProtoReflect()
	f := m.WhichOneof(m.Descriptor().Oneofs().ByName("kind"))
	if f == nil {
		return ""
	}
	return string(f.Name())
}

func entryOf(t testing.TB, index uint64, cs ...*metav1.Command) LogEntry {
	t.Helper()
	return entryAt(t, index, 0, cs...)
}

func entryAt(t testing.TB, index uint64, clock int64, cs ...*metav1.Command) LogEntry {
	t.Helper()
	data, err := proto.Marshal(&metav1.Entry{Format: 1, ClusterTime: clock, Commands: cs})
	if err != nil {
		t.Fatal(err)
	}
	return LogEntry{Index: index, Term: 1, Data: data}
}

// begun answers the two commands that make a state usable.
func begun() []*metav1.Command {
	return []*metav1.Command{
		{Kind: &metav1.Command_InitCluster{InitCluster: &metav1.InitCluster{ClusterId: "c", Epoch: "e1", Version: 1}}},
		{Kind: &metav1.Command_OpenTerm{OpenTerm: &metav1.OpenTerm{Term: 1, Settings: DefaultSettings()}}},
	}
}

func lockCommand(name string) *metav1.Command {
	return &metav1.Command{Kind: &metav1.Command_AcquireLock{AcquireLock: &metav1.AcquireLock{Name: name, Holder: "h", Ttl: second}}}
}

func mustApply(t testing.TB, s *State, es ...LogEntry) [][]*metav1.Result {
	t.Helper()
	results, err := s.Apply(es)
	if err != nil {
		t.Fatal(err)
	}
	return results
}

// panicking is a decision that writes and then panics for one lock.
func panicking(t *txn, c *metav1.Command) (*metav1.Result, error) {
	result, err := t.judge(c)
	if strings.HasPrefix(c.GetAcquireLock().GetName(), "poison") {
		var none *metav1.Lock
		none.Token++
	}
	return result, err
}

// TestAPanicRefusesOneCommandAndStopsNothing is M2 and M3 for a defect of ours.
func TestAPanicRefusesOneCommandAndStopsNothing(t *testing.T) {
	a, b := newState(t), newState(t)
	a.decide, b.decide = panicking, panicking
	for _, s := range []*State{a, b} {
		mustApply(t, s, entryOf(t, 1, begun()...))
		results := mustApply(t, s, entryOf(t, 2, lockCommand("before"), lockCommand("poison"), lockCommand("after")))[0]
		kinds := []metav1.Kind{results[0].GetRefusal().GetKind(), results[1].GetRefusal().GetKind(), results[2].GetRefusal().GetKind()}
		if kinds[0] != 0 || kinds[1] != metav1.Kind_KIND_INTERNAL || kinds[2] != 0 {
			t.Fatalf("results %v, expected only the middle one to be refused as internal", kinds)
		}
		v := s.View()
		if _, err := v.Lock("poison"); KindOf(err) != metav1.Kind_KIND_UNKNOWN {
			t.Errorf("the panicked command left its write: %v", err)
		}
		if _, err := v.Lock("after"); err != nil {
			t.Errorf("the command after it: %v", err)
		}
		events, _, err := v.Events(EventCursor{Index: 1, N: 1 << 20}, 10)
		if err != nil || len(events) != 2 || events[1].N != 1 {
			t.Errorf("events of the entry: %v, %v; expected two, numbered 0 and 1", events, err)
		}
		v.Close()
		if s.Panics() != 1 {
			t.Errorf("panics: %d, expected 1", s.Panics())
		}
		defects, err := s.Defects()
		if err != nil || len(defects) != 1 || defects[0].GetCommand() != "acquire_lock" || defects[0].GetIndex() != 2 {
			t.Errorf("defects: %v, %v", defects, err)
		}
	}
	if hashOf(a) != hashOf(b) {
		t.Error("two nodes that panicked alike differ")
	}
}

// TestDefectsAreBounded repeats a poisoned command as a stubborn client would.
func TestDefectsAreBounded(t *testing.T) {
	s := newState(t)
	s.decide = panicking
	mustApply(t, s, entryOf(t, 1, begun()...))
	for i := range uint64(defectsKept + 20) {
		mustApply(t, s, entryOf(t, 2+i, lockCommand("poison")))
	}
	defects, err := s.Defects()
	if err != nil || len(defects) != defectsKept || defects[0].GetIndex() != 22 {
		t.Errorf("%d defects from index %d, %v; expected the last %d", len(defects), defects[0].GetIndex(), err, defectsKept)
	}
}

// TestAPanicInTheStoreIsTheNodesOwn: a store that is closed below makes Pebble panic.
func TestAPanicInTheStoreIsTheNodesOwn(t *testing.T) {
	store, err := kv.OpenMemory()
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(store)
	if err != nil {
		t.Fatal(err)
	}
	mustApply(t, s, entryOf(t, 1, begun()...))
	broken := entryOf(t, 2, lockCommand("l"))
	s.decide = func(tx *txn, c *metav1.Command) (*metav1.Result, error) {
		tx.fail(&kv.Error{Op: "get", Err: errors.New("disk on fire")})
		return panicking(tx, lockCommand("poison"))
	}
	if _, err := s.Apply([]LogEntry{broken}); !kv.IsError(err) {
		t.Errorf("a failure of the store before a panic: %v, expected it to stop the node", err)
	}
	if s.Panics() != 0 {
		t.Error("it was counted as a defect")
	}
	s.decide = (*txn).judge
	closed(t, s.Close())
	closed(t, store.Close())
	if _, _, err := store.Get([]byte("x"), nil); !kv.IsError(err) {
		t.Errorf("get of a closed store: %v, expected a store error", err)
	}
}

// TestWhatIsNotKnownStopsTheNode is M2 and M7: going on would be divergence.
func TestWhatIsNotKnownStopsTheNode(t *testing.T) {
	s := newState(t)
	mustApply(t, s, entryOf(t, 1, begun()...))
	before := hashOf(s)
	newer, err := proto.Marshal(&metav1.Entry{Format: 2})
	if err != nil {
		t.Fatal(err)
	}
	version := &metav1.Command{Kind: &metav1.Command_InitCluster{InitCluster: &metav1.InitCluster{ClusterId: "c", Epoch: "e1", Version: 9}}}
	for name, e := range map[string]LogEntry{
		"garbage":         {Index: 2, Term: 1, Data: []byte{0xff, 0xff}},
		"a newer format":  {Index: 2, Term: 1, Data: newer},
		"an unknown kind": entryOf(t, 2, lockCommand("l"), &metav1.Command{}),
	} {
		if _, err := s.Apply([]LogEntry{e}); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v, expected ErrFormat", name, err)
		}
	}
	if _, err := newState(t).Apply([]LogEntry{entryOf(t, 1, version)}); !errors.Is(err, ErrFormat) {
		t.Errorf("a newer cluster version: %v, expected ErrFormat", err)
	}
	if hashOf(s) != before {
		t.Error("something of it was applied")
	}
	mustApply(t, s, entryOf(t, 2, lockCommand("l")))
}

// TestACorruptRowStopsThisNodeOnly: what does not decode is the disk's fault, not the command's.
func TestACorruptRowStopsThisNodeOnly(t *testing.T) {
	store, err := kv.OpenMemory()
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(store)
	if err != nil {
		t.Fatal(err)
	}
	mustApply(t, s, entryOf(t, 1, begun()...))
	if err := store.Set(nameKey(nil, rangeLock, "l"), []byte{0xff}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Apply([]LogEntry{entryOf(t, 2, lockCommand("l"))}); !kv.IsError(err) {
		t.Errorf("apply over a corrupt row: %v, expected a store error", err)
	}
	closed(t, s.Close())
	closed(t, store.Close())
}

// TestWaitReturnsOnceTheIndexIsApplied and not before; and when its context ends.
func TestWaitReturnsOnceTheIndexIsApplied(t *testing.T) {
	s := newState(t)
	mustApply(t, s, entryOf(t, 1, begun()...))
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := s.Wait(ctx, 1); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 2)
	for _, index := range []uint64{2, 3} {
		go func() { done <- s.Wait(ctx, index) }()
	}
	for waiting(s) < 2 {
		runtime.Gosched()
	}
	mustApply(t, s, entryOf(t, 2, lockCommand("a")))
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if n := waiting(s); n != 1 {
		t.Errorf("%d wait, expected the one for index 3", n)
	}
	gone, end := context.WithCancelCause(ctx)
	cause := errors.New("client left")
	end(cause)
	if err := s.Wait(gone, 9); !errors.Is(err, cause) {
		t.Errorf("wait with an ended context: %v", err)
	}
	if n := waiting(s); n != 1 {
		t.Errorf("%d wait, expected the one for index 3", n)
	}
	closed(t, s.Close())
	if err := <-done; !errors.Is(err, ErrClosed) {
		t.Errorf("wait over a close: %v", err)
	}
	if err := s.Wait(ctx, 9); !errors.Is(err, ErrClosed) {
		t.Errorf("wait after a close: %v", err)
	}
}

func waiting(s *State) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.waiters)
}

// TestAViewDoesNotMove while the state goes on, and outlives its close.
func TestAViewDoesNotMove(t *testing.T) {
	s := newState(t)
	mustApply(t, s, entryOf(t, 1, begun()...))
	old := s.View()
	same := s.View()
	mustApply(t, s, entryOf(t, 2, lockCommand("l")))
	if _, err := old.Lock("l"); KindOf(err) != metav1.Kind_KIND_UNKNOWN || old.Index() != 1 {
		t.Errorf("the view at 1 sees the lock of 2: %v at %d", err, old.Index())
	}
	v := s.View()
	if _, err := v.Lock("l"); err != nil || v.Index() != 2 {
		t.Errorf("the view at 2: %v at %d", err, v.Index())
	}
	same.Close()
	same.Close()
	closed(t, s.Close())
	if _, err := v.Lock("l"); err != nil {
		t.Errorf("a view that is open when the state closes: %v", err)
	}
	if _, err := s.Apply([]LogEntry{entryOf(t, 3, lockCommand("m"))}); !errors.Is(err, ErrClosed) {
		t.Errorf("apply after the close: %v", err)
	}
	old.Close()
	v.Close()
	late := s.View()
	if _, err := late.Lock("l"); !errors.Is(err, ErrClosed) {
		t.Errorf("a view after the close: %v", err)
	}
	late.Close()
}

// TestTheWitnessIsOutsideHashAndExport: it is the node's own (R-B1).
func TestTheWitnessIsOutsideHashAndExport(t *testing.T) {
	s := newState(t)
	mustApply(t, s, entryOf(t, 1, begun()...))
	hash, rows := hashOf(s), exported(t, s)
	w := &metav1.Witness{Index: 7, Term: 3, Configuration: []byte("conf"), ConfigurationIndex: 2}
	if err := s.SetWitness(w); err != nil {
		t.Fatal(err)
	}
	got := s.Witness()
	if !proto.Equal(got, w) {
		t.Errorf("witness %v", got)
	}
	mustApply(t, s, LogEntry{Index: 2, Term: 4})
	if index, term := s.Applied(); index != 2 || term != 4 {
		t.Errorf("applied %d of term %d", index, term)
	}
	if _, sum := s.Hash(); !strings.HasSuffix(hash, hexOf(sum)) {
		t.Error("the hash moved")
	}
	if string(exported(t, s)) == string(rows) {
		t.Error("the applied index is not exported")
	}
	if strings.Contains(string(exported(t, s)), "conf") {
		t.Error("the witness is exported")
	}
}

// TestAStateIsAPrefixAfterAPowerCut: what survives is the state at some index,
// at least the one that was synced, and the rest of the log leads to the same hash.
func TestAStateIsAPrefixAfterAPowerCut(t *testing.T) {
	log := fullLog(t, 5, 300)
	want := hashOf(replay(t, log, one))
	for seed := range uint64(8) {
		memory := kv.NewMemory()
		store, err := kv.Open("state", kv.Options{Memory: memory, Memtable: 64 << 10})
		if err != nil {
			t.Fatal(err)
		}
		s, err := Open(store)
		if err != nil {
			t.Fatal(err)
		}
		synced := uint64(len(log) / 3)
		mustApply(t, s, log[:synced]...)
		if err := s.SetWitness(&metav1.Witness{Index: synced, Term: 1}); err != nil {
			t.Fatal(err)
		}
		for _, e := range log[synced:] {
			mustApply(t, s, e)
		}
		crashed, err := kv.Open("state", kv.Options{Memory: memory.Crash(int(seed)*14, seed)})
		if err != nil {
			t.Fatal(err)
		}
		again, err := Open(crashed)
		if err != nil {
			t.Fatal(err)
		}
		index, _ := again.Applied()
		if index < synced {
			t.Errorf("seed %d: the state is at %d, %d was synced", seed, index, synced)
		}
		mustApply(t, again, log...)
		if got := hashOf(again); got != want {
			t.Errorf("seed %d: from %d the log leads to %s, expected %s", seed, index, got, want)
		}
		closed(t, again.Close())
		closed(t, crashed.Close())
		closed(t, s.Close())
		closed(t, store.Close())
	}
}
