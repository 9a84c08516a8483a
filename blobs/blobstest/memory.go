package blobstest

import (
	"errors"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"runtime"
	"testing"
)

// memory passes many bytes through a store and looks at the heap on the way (B1).
func memory(t *testing.T, f Fixture) {
	if f.Heap == 0 {
		return
	}
	ctx := testContext(t)
	s := f.Nodes[0]
	var before runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	peak := uint64(0)
	look := func() {
		var now runtime.MemStats
		runtime.ReadMemStats(&now)
		peak = max(peak, now.HeapInuse)
	}

	l := NewLedger()
	w, err := s.Writer(ctx, l.Take(s, f.Stream))
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abandon()
	source := rand.NewChaCha8([32]byte{42})
	block := make([]byte, 1<<20)
	sum := uint32(0)
	for range f.Stream >> 20 {
		_, _ = source.Read(block) // never fails
		sum = crc32.Update(sum, crc32.MakeTable(crc32.Castagnoli), block)
		if _, err := w.Write(block); err != nil {
			t.Fatal(err)
		}
		look()
	}
	p, err := w.Close(ctx)
	if err != nil {
		t.Fatal(err)
	}
	l.Save(p, 0)
	done, err := s.Finish(ctx, l.Name(), l.Progress)
	if err != nil {
		t.Fatal(err)
	}
	r, err := f.Nodes[1].Open(ctx, done.Key, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }() // all was read
	got := uint32(0)
	for {
		n, err := r.Read(block)
		got = crc32.Update(got, crc32.MakeTable(crc32.Castagnoli), block[:n])
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	look()
	if got != sum {
		t.Errorf("the stored bytes differ from those written")
	}
	if grown := int64(peak) - int64(before.HeapInuse); grown > f.Heap {
		t.Errorf("the heap grew by %d bytes while %d passed, want at most %d", grown, f.Stream, f.Heap)
	}
}
