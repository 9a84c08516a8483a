package kv

import (
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func open(t *testing.T, dir string, o Options) *Store {
	t.Helper()
	s, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func memory(t *testing.T) *Store {
	t.Helper()
	s, err := OpenMemory()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ok(t, s.Close()) })
	return s
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

func all(t *testing.T, r Reader, low, high string) (out []string) {
	t.Helper()
	bound := func(s string) []byte {
		if s == "" {
			return nil
		}
		return []byte(s)
	}
	it, err := r.Iterate(bound(low), bound(high))
	if err != nil {
		t.Fatal(err)
	}
	for more := it.First(); more; more = it.Next() {
		out = append(out, fmt.Sprintf("%s=%s", it.Key(), it.Value()))
	}
	ok(t, it.Close())
	return out
}

func value(t *testing.T, r Reader, key string) string {
	t.Helper()
	v, found, err := r.Get([]byte(key), []byte("buf:"))
	if err != nil {
		t.Fatal(err)
	}
	if !found {
		return string(v) + "none"
	}
	return string(v)
}

// TestABatchIsReadThroughAndInvisibleBeforeItsCommit.
func TestABatchIsReadThroughAndInvisibleBeforeItsCommit(t *testing.T) {
	s := memory(t)
	ok(t, s.Set([]byte("a"), []byte("1")))
	ok(t, s.Set([]byte("b"), []byte("1")))
	b := s.Batch()
	ok(t, b.Set([]byte("c"), []byte("2")))
	ok(t, b.Set([]byte("a"), []byte("2")))
	ok(t, b.Delete([]byte("b")))
	if got, want := all(t, b, "", ""), []string{"a=2", "c=2"}; !slices.Equal(got, want) {
		t.Errorf("the batch reads %v, expected %v", got, want)
	}
	if got, want := all(t, s, "", ""), []string{"a=1", "b=1"}; !slices.Equal(got, want) {
		t.Errorf("the store reads %v, expected %v", got, want)
	}
	before, err := s.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	if b.Len() == 0 {
		t.Error("a batch with writes has no length")
	}
	ok(t, b.Commit())
	if got := value(t, s, "a") + " " + value(t, s, "b"); got != "buf:2 buf:none" {
		t.Errorf("after the commit: %s", got)
	}
	if got := value(t, before, "a") + " " + value(t, before, "c"); got != "buf:1 buf:none" {
		t.Errorf("the snapshot moved: %s", got)
	}
	if got, want := all(t, before, "b", ""), []string{"b=1"}; !slices.Equal(got, want) {
		t.Errorf("the snapshot reads %v, expected %v", got, want)
	}
	ok(t, before.Close())
	dropped := s.Batch()
	ok(t, dropped.Set([]byte("x"), nil))
	ok(t, dropped.Discard())
	if got := value(t, s, "x"); got != "buf:none" {
		t.Errorf("a discarded batch wrote %s", got)
	}
	ok(t, s.Delete([]byte("a")))
	if got := all(t, s, "a", "c"); len(got) != 0 {
		t.Errorf("[a, c) reads %v", got)
	}
}

// TestIteratorsSeek in their bounds.
func TestIteratorsSeek(t *testing.T) {
	s := memory(t)
	for _, k := range []string{"a", "b", "c", "d"} {
		ok(t, s.Set([]byte(k), []byte(k)))
	}
	it, err := s.Iterate([]byte("b"), []byte("d"))
	if err != nil {
		t.Fatal(err)
	}
	if !it.Seek([]byte("a")) || string(it.Key()) != "b" {
		t.Errorf("seek below the bound: %s", it.Key())
	}
	if !it.Last() || string(it.Key()) != "c" {
		t.Errorf("last: %s", it.Key())
	}
	if it.Next() || it.Seek([]byte("d")) {
		t.Error("went beyond the bound")
	}
	ok(t, it.Close())
}

// TestAPowerCutLeavesAPrefixOfTheBatches, and all that was synced.
func TestAPowerCutLeavesAPrefixOfTheBatches(t *testing.T) {
	const batches, synced = 400, 150
	for _, percent := range []int{0, 30, 60, 90, 100} {
		for seed := range uint64(4) {
			m := NewMemory()
			s := open(t, "db", Options{Memory: m, Memtable: 32 << 10})
			for i := range uint64(batches) {
				b := s.Batch()
				// Two rows far apart: a torn batch would show one of them.
				ok(t, b.Set(binary.BigEndian.AppendUint64([]byte("a"), i), make([]byte, 100)))
				ok(t, b.Set(binary.BigEndian.AppendUint64([]byte("z"), i), make([]byte, 100)))
				ok(t, b.Commit())
				if i == synced-1 {
					ok(t, s.Sync())
				}
			}
			crashed := open(t, "db", Options{Memory: m.Crash(percent, seed)})
			n := len(all(t, crashed, "a", "b"))
			if z := len(all(t, crashed, "z", "")); z != n {
				t.Errorf("%d %%: %d first rows, %d second rows", percent, n, z)
			}
			for i := range uint64(n) {
				if _, found, err := crashed.Get(binary.BigEndian.AppendUint64([]byte("a"), i), nil); !found || err != nil {
					t.Fatalf("%d %%: %d batches are there, not %d of them: %v", percent, n, i, err)
				}
			}
			if n < synced {
				t.Errorf("%d %%: %d batches are there, %d were synced", percent, n, synced)
			}
			ok(t, crashed.Close())
			ok(t, s.Close())
		}
	}
}

// TestACheckpointIsWholeAndDurable on disk, and stays as it was.
func TestACheckpointIsWholeAndDurable(t *testing.T) {
	dir := t.TempDir()
	s := open(t, filepath.Join(dir, "db"), Options{})
	ok(t, s.Set([]byte("a"), []byte("1")))
	ok(t, s.Checkpoint(filepath.Join(dir, "copy")))
	ok(t, s.Set([]byte("a"), []byte("2")))
	if s.Size() == 0 {
		t.Error("the store takes no disk")
	}
	ok(t, s.Close())
	c := open(t, filepath.Join(dir, "copy"), Options{})
	if got := value(t, c, "a"); got != "buf:1" {
		t.Errorf("the checkpoint reads %s", got)
	}
	ok(t, c.Close())
	again := open(t, filepath.Join(dir, "db"), Options{})
	if got := value(t, again, "a"); got != "buf:2" {
		t.Errorf("the store reads %s", got)
	}
	ok(t, again.Close())
}

// TestTablesAreIngested all at once.
func TestTablesAreIngested(t *testing.T) {
	dir := t.TempDir()
	s := open(t, filepath.Join(dir, "db"), Options{})
	path := filepath.Join(dir, "one.sst")
	table, err := s.NewTable(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range uint64(1000) {
		ok(t, table.Set(binary.BigEndian.AppendUint64(nil, i), []byte("v")))
	}
	if err := table.Set([]byte{0}, nil); !IsError(err) {
		t.Errorf("a key out of order: %v", err)
	}
	ok(t, table.Close())
	table, err = s.NewTable(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range uint64(1000) {
		ok(t, table.Set(binary.BigEndian.AppendUint64(nil, i), []byte("v")))
	}
	ok(t, table.Close())
	ok(t, s.Ingest(t.Context(), path))
	if n := len(all(t, s, "", "")); n != 1000 {
		t.Errorf("%d rows, expected 1000", n)
	}
	if err := s.Ingest(t.Context(), filepath.Join(dir, "none.sst")); !IsError(err) {
		t.Errorf("a file that is not there: %v", err)
	}
	ok(t, s.Close())
}

// TestFailuresOfTheStoreAreErrorsOfItsOwn, panics in Pebble included.
func TestFailuresOfTheStoreAreErrorsOfItsOwn(t *testing.T) {
	s, err := OpenMemory()
	if err != nil {
		t.Fatal(err)
	}
	ok(t, s.Close())
	_, _, err = s.Get([]byte("a"), nil)
	for name, err := range map[string]error{
		"get": err, "set": s.Set([]byte("a"), nil), "sync": s.Sync(), "close": s.Close(),
	} {
		var e *Error
		if !errors.As(err, &e) || e.Unwrap() == nil {
			t.Errorf("%s of a closed store: %v", name, err)
		}
	}
	if _, err := s.Snapshot(); !IsError(err) {
		t.Errorf("snapshot of a closed store: %v", err)
	}
	if IsError(errors.New("else")) || IsError(nil) {
		t.Error("other errors pass for the store's")
	}
	if _, err := Open(filepath.Join(t.TempDir(), "no", "such", "\x00"), Options{}); !IsError(err) {
		t.Errorf("a folder that cannot be made: %v", err)
	}
}

// lines is a Logger that counts.
type lines struct{ n int }

func (l *lines) Infof(string, ...any)  { l.n++ }
func (l *lines) Errorf(string, ...any) { l.n++ }
func (l *lines) Fatalf(string, ...any) { panic("fatal") }

// TestAfterAWriteThatFailedNothingWaits: Pebble panics when its log cannot be written, and keeps its commit lock. A node on a
// full disk waited for that lock in Close, for ever: no supervisor started it again.
func TestAfterAWriteThatFailedNothingWaits(t *testing.T) {
	memory := NewMemory()
	s, err := Open("state", Options{Memory: memory, Memtable: 1 << 20, Cache: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Set([]byte("before"), []byte("1")); err != nil {
		t.Fatal(err)
	}
	memory.Fill()
	for err == nil { // the log is written behind the commit: a later one fails
		err = s.Set([]byte("during"), make([]byte, 100))
	}
	if !IsError(err) || !strings.Contains(err.Error(), "no space left") {
		t.Fatalf("got %v", err)
	}
	batch := s.Batch()
	if err := batch.Set([]byte("after"), nil); err != nil {
		t.Fatal(err)
	}
	for name, call := range map[string]func() error{
		"a commit": batch.Commit, "set": func() error { return s.Set([]byte("after"), nil) }, "delete": func() error { return s.Delete([]byte("before")) },
		"sync": s.Sync, "a checkpoint": func() error { return s.Checkpoint("copy") }, "ingest": func() error { return s.Ingest(t.Context(), "table") },
		"close": s.Close,
	} {
		ended := make(chan error, 1)
		go func() { ended <- call() }()
		select {
		case err := <-ended:
			if !IsError(err) || !strings.Contains(err.Error(), "no space left") {
				t.Errorf("%s: got %v", name, err)
			}
		case <-time.After(time.Minute):
			t.Fatalf("%s waits", name)
		}
	}
	if got, found, err := s.Get([]byte("before"), nil); err != nil || !found || string(got) != "1" {
		t.Errorf("what was there reads %q, %v, %v", got, found, err)
	}
}

// TestPebblesMessagesGoToTheLogger that was given.
func TestPebblesMessagesGoToTheLogger(t *testing.T) {
	l := &lines{}
	s := open(t, "db", Options{Memory: NewMemory(), Logger: l})
	ok(t, s.Close())
	again := open(t, filepath.Join(t.TempDir(), "db"), Options{Logger: l, Cache: 1 << 20})
	ok(t, again.Set([]byte("a"), nil))
	ok(t, again.Close())
	if l.n == 0 {
		t.Error("no message came")
	}
}

// TestACommitWithoutRoomWritesNothing, and the store goes on.
func TestACommitWithoutRoomWritesNothing(t *testing.T) {
	full := errors.New("full")
	var room error
	s := open(t, "db", Options{Memory: NewMemory(), Room: func() error { return room }})
	b := s.Batch()
	ok(t, b.Set([]byte("a"), nil))
	room = full
	if err := b.Commit(); !errors.Is(err, full) || !IsError(err) {
		t.Errorf("got %v", err)
	}
	room = nil
	if rows := all(t, s, "", ""); len(rows) != 0 {
		t.Errorf("there are %q", rows)
	}
	ok(t, s.Set([]byte("b"), nil))
	ok(t, s.Close())
}
