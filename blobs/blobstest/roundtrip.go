package blobstest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"

	"github.com/pontoon-registry/pontoon/blobs"
)

func anySizeRoundTrips(t *testing.T, f Fixture) {
	ctx := testContext(t)
	for _, size := range []int64{0, 1, f.Part - 1, f.Part, f.Part + 1, 3 * f.Part} {
		data := Bytes(size)
		for _, length := range []int64{size, -1} {
			l := NewLedger()
			put(ctx, t, f.Nodes[0], l, data, length)
			finish(ctx, t, f.Nodes[1], l, data)
		}
	}
}

func anyChunkSize(t *testing.T, f Fixture) {
	ctx := testContext(t)
	for _, c := range []struct {
		total, chunk int64
		known        bool
	}{
		{2 << 10, 1, true},
		{150, 1, false},
		{2*f.Part + f.Part/2 + 5, f.Part / 8, true},
		{2*f.Part + 5, f.Part / 8, false},
		{3*f.Part + 17, f.Part * 7 / 8, true},
		{3*f.Part + 17, f.Part * 7 / 8, false},
		{4 * f.Part, 2 * f.Part, true},
	} {
		t.Logf("%d bytes in chunks of %d, length known: %v", c.total, c.chunk, c.known)
		data := Bytes(c.total)
		l := NewLedger()
		for at, n := int64(0), 0; at < c.total; n++ {
			end := min(at+c.chunk, c.total)
			length := int64(-1)
			if c.known {
				length = end - at
			}
			put(ctx, t, f.Nodes[n%len(f.Nodes)], l, data[at:end], length)
			at = end
		}
		if len(l.Progress.Pieces) > 8 {
			t.Errorf("%d pieces for %d bytes: small chunks must not make many", len(l.Progress.Pieces), c.total)
		}
		finish(ctx, t, f.Nodes[0], l, data)
	}
}

func ranges(t *testing.T, f Fixture) {
	ctx := testContext(t)
	data := Bytes(f.Part + 100)
	size := int64(len(data))
	l := NewLedger()
	put(ctx, t, f.Nodes[0], l, data, size)
	done := finish(ctx, t, f.Nodes[0], l, data)
	for _, r := range []struct{ offset, length int64 }{
		{0, 0}, {0, 1}, {0, size}, {1, -1}, {f.Part - 1, 2}, {size - 1, 1}, {size - 1, -1}, {size, -1}, {size, 0}, {5, 1000},
	} {
		want := data[r.offset:]
		if r.length >= 0 {
			want = want[:r.length]
		}
		if got := read(ctx, t, f.Nodes[1], done.Key, r.offset, r.length); !bytes.Equal(got, want) {
			t.Errorf("Open(%d, %d): %d bytes, want %d equal ones", r.offset, r.length, len(got), len(want))
		}
	}
	if r, err := f.Nodes[0].Open(ctx, done.Key, size+1, -1); err == nil {
		_ = r.Close() // it should not be there
		t.Errorf("Open beyond the end is no error")
	}
	r, err := f.Nodes[0].Open(ctx, done.Key, size-10, 20)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	got, err := io.ReadAll(r)
	if !errors.Is(err, io.ErrUnexpectedEOF) || len(got) > 10 {
		t.Errorf("a stream of 10 bytes where 20 were asked for ends with %d bytes and %v, want io.ErrUnexpectedEOF", len(got), err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

func absentKeys(t *testing.T, f Fixture) {
	ctx := testContext(t)
	key := NewLedger().Name().Key(0)
	if _, err := f.Nodes[0].Stat(ctx, key); !errors.Is(err, blobs.ErrNotFound) {
		t.Errorf("Stat of an absent key: %v, want ErrNotFound", err)
	}
	for _, length := range []int64{-1, 0, 10} {
		r, err := f.Nodes[0].Open(ctx, key, 0, length)
		if !errors.Is(err, blobs.ErrNotFound) {
			t.Errorf("Open of an absent key, length %d: %v, want ErrNotFound", length, err)
		}
		if err == nil {
			_ = r.Close() // it should not be there
		}
	}
}

func atOnce(t *testing.T, f Fixture) {
	ctx := testContext(t)
	var all sync.WaitGroup
	for n := range 6 {
		all.Go(func() {
			if err := upload(ctx, f.Nodes[n%len(f.Nodes)], Bytes(f.Part+int64(n)*101)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

// upload pushes data in one attempt and compares what is stored.
func upload(ctx context.Context, s blobs.Store, data []byte) error {
	l := NewLedger()
	w, err := s.Writer(ctx, l.Take(s, int64(len(data))))
	if err != nil {
		return err
	}
	defer w.Abandon()
	if _, err := w.Write(data); err != nil {
		return err
	}
	p, err := w.Close(ctx)
	if err != nil {
		return err
	}
	l.Save(p, 0)
	done, err := s.Finish(ctx, l.Name(), l.Progress)
	if err != nil {
		return err
	}
	r, err := s.Open(ctx, done.Key, 0, -1)
	if err != nil {
		return err
	}
	got, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil {
		return err
	}
	if !bytes.Equal(got, data) {
		return fmt.Errorf("%s: %d bytes stored differ from the %d written", done.Key, len(got), len(data))
	}
	return nil
}
