package cluster

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/pontoon-registry/pontoon/meta"
	"github.com/pontoon-registry/pontoon/meta/kv"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// TestEntriesLeadAnotherStateToTheSameHash reads the whole log in small steps and applies it elsewhere: indexes, rows and every
// head that comes with them agree.
func TestEntriesLeadAnotherStateToTheSameHash(t *testing.T) {
	one := start(t, testConfig(t, &testMark{}))
	eventually(t, "it is ready", func() error { return one.Ready(t.Context()) })
	for n := range 20 {
		if _, err := one.Propose(t.Context(), putNode(fmt.Sprintf("n%d", n), "h:1")); err != nil {
			t.Fatal(err)
		}
	}
	store, err := kv.OpenMemory()
	if err != nil {
		t.Fatal(err)
	}
	other, err := meta.Open(store)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := other.Close(); err != nil {
			t.Error(err)
		}
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	}()
	heads := 0
	for {
		at, _ := other.Applied()
		entries, chain, err := one.Entries(at, 300)
		if err != nil {
			t.Fatal(err)
		}
		if len(entries) == 0 {
			break
		}
		if size := sizeOf(entries[:len(entries)-1]); size >= 300 {
			t.Errorf("%d bytes came at once", size)
		}
		if _, err := other.Apply(entries); err != nil {
			t.Fatal(err)
		}
		if chain == nil {
			continue
		}
		heads++
		index, sum := other.Hash()
		if index != entries[len(entries)-1].Index || !bytes.Equal(sum, chain) {
			t.Fatalf("at %d the head is %x, it came as %x", index, sum, chain)
		}
	}
	if at, _ := other.Applied(); heads == 0 || at < 20 {
		t.Errorf("%d heads came, applied %d", heads, at)
	}
}

func sizeOf(entries []meta.LogEntry) (n int) {
	for _, e := range entries {
		n += len(e.Data)
	}
	return n
}

// TestEntriesThatWereCompactedAreRefused, and the one before which the log begins too: it may be a stub.
func TestEntriesThatWereCompactedAreRefused(t *testing.T) {
	cfg := testConfig(t, &testMark{})
	cfg.LogBytes = 256 << 10
	one := start(t, cfg)
	eventually(t, "it is ready", func() error { return one.Ready(t.Context()) })
	if entries, _, err := one.Entries(0, 1); err != nil || len(entries) != 1 || entries[0].Index != 1 || entries[0].Data != nil {
		t.Fatalf("the first entry, Raft's configuration: %v, %v", entries, err)
	}
	fill(t, one, 1<<20)
	eventually(t, "the log is compacted", func() error {
		if got := standingOf(t, one.Node); got.first < 10 {
			return fmt.Errorf("it begins at %d", got.first)
		}
		return nil
	})
	if _, _, err := one.Entries(5, 1); meta.KindOf(err) != metav1.Kind_KIND_UNKNOWN {
		t.Errorf("after a compacted entry: %v", err)
	}
	applied, head := one.State()
	if entries, chain, err := one.Entries(applied+100, 1); err != nil || len(entries) != 0 || len(chain) != len(head) {
		t.Errorf("beyond the state: %v, %v", entries, err)
	}
}

// TestAStubIsNeverReadAsAnEntry: what an installed state stands on is not what was in the log there (R-B2).
func TestAStubIsNeverReadAsAnEntry(t *testing.T) {
	h := feed(t, ordinary)
	h.install(h.forge(1000, h.term))
	h.must(h.append(1000, h.term, &raft.Log{Index: 1001, Term: h.term, Data: emptyEntry()}))
	h.last = 1001
	h.commit(h.last)
	h.applies(h.last)
	if _, _, err := h.node.Entries(999, 1<<20); meta.KindOf(err) != metav1.Kind_KIND_UNKNOWN {
		t.Errorf("across the stub: %v", err)
	}
	if entries, _, err := h.node.Entries(1000, 1<<20); err != nil || len(entries) != 1 || entries[0].Index != 1001 {
		t.Errorf("after the stub: %v, %v", entries, err)
	}
}
