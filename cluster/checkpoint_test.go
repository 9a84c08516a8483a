package cluster

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/pontoon-registry/pontoon/meta"
	"github.com/pontoon-registry/pontoon/meta/kv"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// outgoingState is checkpoints over a state on disk, and the lowest entry that the log has.
func outgoingState(t *testing.T) (c *checkpoints, state *meta.State, lowest *uint64) {
	t.Helper()
	dir := t.TempDir()
	store, err := kv.Open(filepath.Join(dir, firstStore), kv.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if state, err = meta.Open(store); err != nil {
		t.Fatal(err)
	}
	lowest = new(uint64)
	c = &checkpoints{dir: filepath.Join(dir, outgoingName), state: state, held: func(index uint64) bool { return index >= *lowest },
		stream: func(_ string, r io.Reader) io.Reader { return r }}
	t.Cleanup(func() {
		if err := errors.Join(c.sweep(0), state.Close(), store.Close()); err != nil {
			t.Error(err)
		}
	})
	return c, state, lowest
}

func applyAt(t *testing.T, state *meta.State, index uint64) {
	t.Helper()
	config := raft.EncodeConfiguration(raft.Configuration{Servers: []raft.Server{{ID: "a", Address: "a"}}})
	w := &metav1.Witness{Index: index, Term: 2, Configuration: config, ConfigurationIndex: 1}
	if _, err := state.Apply([]meta.LogEntry{{Index: index, Term: 2, Data: emptyEntry(), Witness: w}}); err != nil {
		t.Fatal(err)
	}
}

func openCheckpoint(t *testing.T, c *checkpoints) (uint64, io.ReadCloser) {
	t.Helper()
	m, data, err := c.open()
	if err != nil {
		t.Fatal(err)
	}
	return m.Index, data
}

func onDisk(t *testing.T, c *checkpoints) int {
	t.Helper()
	entries, err := os.ReadDir(c.dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return len(entries)
}

// TestACheckpointServesAllWhileTheLogGoesOnFromIt, then there is a newer one, never more than two, and none for long.
func TestACheckpointServesAllWhileTheLogGoesOnFromIt(t *testing.T) {
	c, state, lowest := outgoingState(t)
	applyAt(t, state, 10)
	first, one := openCheckpoint(t, c)
	applyAt(t, state, 20)
	same, two := openCheckpoint(t, c)
	if first != 10 || same != 10 || onDisk(t, c) != 1 {
		t.Errorf("checkpoints of %d and %d, %d on disk: want one of 10", first, same, onDisk(t, c))
	}
	*lowest = 15
	later, three := openCheckpoint(t, c)
	if later != 20 || onDisk(t, c) != 2 {
		t.Errorf("a checkpoint of %d, %d on disk", later, onDisk(t, c))
	}
	applyAt(t, state, 30)
	*lowest = 25
	if _, _, err := c.open(); err == nil {
		t.Error("a third was made while two are being sent")
	}
	for _, r := range []io.ReadCloser{one, two} {
		if _, err := io.Copy(io.Discard, r); err != nil {
			t.Errorf("what is being sent was removed: %v", err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	last, four := openCheckpoint(t, c)
	if last != 30 || onDisk(t, c) != 2 {
		t.Errorf("a checkpoint of %d, %d on disk", last, onDisk(t, c))
	}
	if err := errors.Join(three.Close(), four.Close(), c.sweep(time.Hour)); err != nil {
		t.Error(err)
	}
	if onDisk(t, c) != 2 {
		t.Error("one that was read just now was removed")
	}
	if err := c.sweep(0); err != nil || onDisk(t, c) != 0 {
		t.Errorf("%d are left, %v", onDisk(t, c), err)
	}
}

// TestACheckpointIsNotServedForEver to a node that asks again and again: one that
// heals itself has no use for a state of before it was found odd, and an idle log goes on from that for ever.
func TestACheckpointIsNotServedForEver(t *testing.T) {
	c, state, _ := outgoingState(t)
	applyAt(t, state, 10)
	_, asked := openCheckpoint(t, c)
	if err := asked.Close(); err != nil {
		t.Fatal(err)
	}
	applyAt(t, state, 20)
	age := func() { // as time does
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, cp := range c.all {
			cp.made = cp.made.Add(-checkpointFresh)
		}
	}
	age()
	second, two := openCheckpoint(t, c)
	if second != 20 || onDisk(t, c) != 1 {
		t.Errorf("a checkpoint of %d, %d on disk: want one of 20", second, onDisk(t, c))
	}
	age()
	applyAt(t, state, 30)
	third, three := openCheckpoint(t, c)
	age()
	applyAt(t, state, 40)
	fourth, four := openCheckpoint(t, c)
	if third != 30 || fourth != 30 || onDisk(t, c) != 2 {
		t.Errorf("checkpoints of %d and %d, %d on disk: want 30 twice, since two are being sent", third, fourth, onDisk(t, c))
	}
	if err := errors.Join(two.Close(), three.Close(), four.Close()); err != nil {
		t.Error(err)
	}
}

// TestACheckpointIsOfOneMoment while entries are applied all the time: what it says it
// is, is what it holds, and its hash is the one that the state had there.
func TestACheckpointIsOfOneMoment(t *testing.T) {
	t.Parallel()
	c, state, lowest := outgoingState(t)
	sums := make(chan map[uint64]string, 1)
	stop := make(chan struct{})
	applyAt(t, state, 1)
	go func() {
		seen := map[uint64]string{}
		for i := uint64(2); ; i++ {
			select {
			case <-stop:
				sums <- seen
				return
			default:
			}
			config := raft.EncodeConfiguration(raft.Configuration{Servers: []raft.Server{{ID: "a", Address: "a"}}})
			e := meta.LogEntry{Index: i, Term: i/10 + 1, Data: encodeEntry(int64(i), 1, nil)}
			if i%7 == 0 {
				e.Witness = &metav1.Witness{Index: i, Term: e.Term, Configuration: config, ConfigurationIndex: i}
			}
			if _, err := state.Apply([]meta.LogEntry{e}); err != nil {
				t.Error(err)
			}
			_, sum := state.Hash()
			seen[i] = string(sum)
		}
	}()
	type taken struct {
		index, term, config, applied uint64
		sum                          string
	}
	var all []taken
	for range 5 {
		m, data, err := c.open()
		if err != nil {
			t.Fatal(err)
		}
		*lowest = 1 << 40 // the next is to be another one
		archive, err := io.ReadAll(data)
		if err := errors.Join(err, data.Close()); err != nil {
			t.Fatal(err)
		}
		dir := filepath.Join(t.TempDir(), "got")
		if err := unpack(bytes.NewReader(archive), dir); err != nil {
			t.Fatal(err)
		}
		store, err := kv.Open(dir, kv.Options{})
		if err != nil {
			t.Fatal(err)
		}
		got, err := meta.Open(store)
		if err != nil {
			t.Fatal(err)
		}
		applied, term := got.Applied()
		_, sum := got.Hash()
		if w := got.Witness(); w.GetIndex() != m.Index || w.GetTerm() != m.Term || term != m.Term {
			t.Errorf("it says %d of term %d, it witnesses %v and has applied %d of %d", m.Index, m.Term, w, applied, term)
		}
		all = append(all, taken{m.Index, m.Term, m.ConfigurationIndex, applied, string(sum)})
		if err := errors.Join(got.Close(), store.Close()); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	seen := <-sums
	for _, at := range all {
		if at.index != at.applied || at.config > at.index || at.index-at.config > 7 && at.index > 14 || at.applied > 1 && seen[at.applied] != at.sum {
			t.Errorf("got %+v, the hash there was %x", at, seen[at.applied])
		}
	}
}
