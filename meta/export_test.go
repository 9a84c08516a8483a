package meta

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"testing"

	"github.com/pontoon-registry/pontoon/meta/kv"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// TestAnyNodeExportsTheSameBytes gives two nodes what healthy ones may differ in: a witness, and the words of a panic.
func TestAnyNodeExportsTheSameBytes(t *testing.T) {
	exports := map[string][]byte{}
	for _, words := range []string{"ours", "theirs, of another release"} {
		s := newState(t)
		mustApply(t, s, entryOf(t, 1, begun()...))
		s.decide = func(*txn, *metav1.Command) (*metav1.Result, error) { panic(words) }
		mustApply(t, s, entryOf(t, 2, begun()...))
		s.decide = (*txn).judge
		mustApply(t, s, LogEntry{Index: 3, Term: 2, Witness: &metav1.Witness{Index: 3, Term: 2, Configuration: []byte(words)}})
		if defects, err := s.Defects(); err != nil || len(defects) == 0 {
			t.Fatalf("defects: %v, %v", defects, err)
		}
		exports[words] = exported(t, s)
	}
	for words, file := range exports {
		if !bytes.Equal(file, exports["ours"]) {
			t.Errorf("the node that says %q exports other bytes", words)
		}
	}
}

// TestAnExportWithDefectsIsStillRead: releases before this one wrote them (M7).
func TestAnExportWithDefectsIsStillRead(t *testing.T) {
	s := newState(t)
	mustApply(t, s, entryOf(t, 1, begun()...))
	file := exported(t, s)
	with := func(key []byte) []byte {
		var out bytes.Buffer
		for _, field := range [][]byte{key, []byte("value")} {
			if err := writeField(&out, field); err != nil {
				t.Fatal(err)
			}
		}
		return out.Bytes()
	}
	// The export of one row, made by hand: head, row, tail, sum.
	head := file[:len(exportMagic)+4]
	body := append(bytes.Clone(head), with(placeKey(nil, rangeDefect, 1, 0))...)
	body = binary.BigEndian.AppendUint64(append(body, 0, 0, 0, 0), 1)
	sum := sha256.Sum256(body)
	body = append(body, sum[:]...)
	store, err := kv.OpenMemory()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { closed(t, store.Close()) }()
	if err := Import(store, bytes.NewReader(body)); err != nil {
		t.Errorf("import: %v", err)
	}
}

// TestExportRowsCountsWhatItWrites compares the counts with the stream's own.
func TestExportRowsCountsWhatItWrites(t *testing.T) {
	s := replay(t, fullLog(t, 1, 200), one)
	v := s.View()
	defer v.Close()
	rows, err := v.ExportRows(io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	var sum int64
	for _, n := range rows {
		sum += n
	}
	file := exported(t, s)
	if total := int64(binary.BigEndian.Uint64(file[len(file)-40:])); sum != total || rows["blob"] == 0 || rows["system"] != 1 {
		t.Errorf("counts %v sum to %d, the stream has %d rows", rows, sum, total)
	}
	for name := range rows {
		if len(name) > 5 && name[:5] == "range" {
			t.Errorf("%s has no name", name)
		}
	}
}
