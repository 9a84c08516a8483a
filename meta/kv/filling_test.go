package kv

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// numbered is a key, in the order of numbers.
func numbered(i uint64) []byte { return binary.BigEndian.AppendUint64(nil, i) }

// fill sets rows of 100 bytes, several tables of them.
func fill(t *testing.T, f *Filling, count uint64) {
	t.Helper()
	f.bound = 10_000
	for i := range count {
		if err := f.Set(numbered(i), make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAFillingIsThereAndDurable after its Close, in as many tables as it takes, and leaves nothing beside the store.
func TestAFillingIsThereAndDurable(t *testing.T) {
	m := NewMemory()
	s := open(t, "db", Options{Memory: m})
	f := s.Fill()
	fill(t, f, 1000)
	ok(t, f.Close())
	if f.tables < 5 {
		t.Errorf("%d tables, expected several", f.tables)
	}
	if n := len(all(t, s, "", "")); n != 1000 {
		t.Errorf("%d rows, expected 1000", n)
	}
	crashed := open(t, "db", Options{Memory: m.Crash(0, 1)})
	if n := len(all(t, crashed, "", "")); n != 1000 {
		t.Errorf("%d rows after a power cut, expected 1000", n)
	}
	ok(t, crashed.Close())
	ok(t, s.Fill().Close())
	ok(t, s.Close())
}

// TestAFillingThatIsDiscardedLeavesNoFile, nor one of rows out of order or without room.
func TestAFillingThatIsDiscardedLeavesNoFile(t *testing.T) {
	full := errors.New("full")
	var room error
	dir := filepath.Join(t.TempDir(), "db")
	s := open(t, dir, Options{Room: func() error { return room }})
	f := s.Fill()
	fill(t, f, 150)
	if err := f.Set(numbered(3), nil); !IsError(err) {
		t.Errorf("a row out of order: %v", err)
	}
	ok(t, f.Discard())
	ok(t, f.Discard())
	room = full
	f = s.Fill()
	if err := f.Set(numbered(1000), nil); !errors.Is(err, full) || !IsError(err) {
		t.Errorf("without room: %v", err)
	}
	ok(t, f.Discard())
	room = nil
	f = s.Fill()
	ok(t, f.Set(numbered(1001), nil))
	room = full
	if err := f.Set(numbered(1002), make([]byte, 2*roomRows)); err != nil {
		t.Errorf("a row while the last answer holds: %v", err)
	}
	if err := f.Set(numbered(1003), nil); !errors.Is(err, full) {
		t.Errorf("after %d bytes: %v", 2*roomRows, err)
	}
	ok(t, f.Discard())
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "filling") {
			t.Errorf("%s is left", e.Name())
		}
	}
	ok(t, s.Close())
}
