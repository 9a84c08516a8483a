package blobstest

import (
	"errors"
	"slices"
	"testing"

	"github.com/pontoon-registry/pontoon/blobs"
)

func resumeAfterSave(t *testing.T, f Fixture) {
	ctx := testContext(t)
	data := Bytes(3*f.Part + 1000)
	l := NewLedger()
	first, err := f.Nodes[0].Writer(ctx, l.Take(f.Nodes[0], int64(len(data))))
	if err != nil {
		t.Fatal(err)
	}
	defer first.Abandon()
	write(t, first, data[:2*f.Part+500])
	p := saveUntil(ctx, t, first, 2*f.Part)
	l.Save(p, f.Nodes[0].Reserve(p, int64(len(data))-p.Size))
	// The first node dies here: nobody closes its writer before the end.
	put(ctx, t, f.Nodes[1], l, data[l.Progress.Size:], -1)
	finish(ctx, t, f.Nodes[1], l, data)
}

func savesEndAtBoundaries(t *testing.T, f Fixture) {
	ctx := testContext(t)
	s := f.Nodes[0]
	data := Bytes(2*f.Part + 300)
	l := NewLedger()
	begun := f.Part / 3
	put(ctx, t, s, l, data[:begun], -1)
	w, err := s.Writer(ctx, l.Take(s, -1))
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abandon()
	boundaries := []int64{begun}
	for b := s.Boundary(begun); b <= int64(len(data)); b = s.Boundary(b) {
		if b <= boundaries[len(boundaries)-1] {
			t.Fatalf("Boundary(%d) = %d, must be above", boundaries[len(boundaries)-1], b)
		}
		boundaries = append(boundaries, b)
	}
	for at := begun; at < int64(len(data)); {
		end := min(at+f.Part/5, int64(len(data)))
		write(t, w, data[at:end])
		at = end
		p, err := w.Save(ctx)
		if err != nil {
			t.Fatalf("Save: %v", err)
		}
		if err := p.Validate(); err != nil {
			t.Fatalf("Save: %v", err)
		}
		if !slices.Contains(boundaries, p.Size) || p.Size > at || p.Size < l.Progress.Size {
			t.Fatalf("Save after %d bytes answers %d, want one of %d", at, p.Size, boundaries)
		}
		l.Save(p, blobs.MaxUnsaved)
	}
	saveUntil(ctx, t, w, s.Boundary(begun))
}

// pausedWriter: A writes and saves, B takes over and commits; A wakes up and goes on (R-A1, R-A3, R-A4).
func pausedWriter(t *testing.T, f Fixture) {
	ctx := testContext(t)
	for _, half := range []int64{100, f.Part / 2, f.Part + f.Part/2} {
		data := Bytes(2*f.Part + 77)
		l := NewLedger()
		a, err := f.Nodes[0].Writer(ctx, l.Take(f.Nodes[0], -1))
		if err != nil {
			t.Fatal(err)
		}
		defer a.Abandon()
		write(t, a, data[:half])
		p, err := a.Save(ctx)
		if err != nil {
			t.Fatal(err)
		}
		l.Save(p, blobs.MaxUnsaved)
		put(ctx, t, f.Nodes[1], l, data[l.Progress.Size:], -1)
		done := finish(ctx, t, f.Nodes[1], l, data)

		// Its calls may fail or succeed; the bytes must not care.
		_, _ = a.Write(Bytes(f.Part + 5))
		_, _ = a.Save(ctx)
		_, _ = a.Close(ctx)
		same(ctx, t, f.Nodes[1], done.Key, data)
	}
}

// pausedWriterOfCommittedSave: what A saved is all there is; it is committed while A still holds its end.
func pausedWriterOfCommittedSave(t *testing.T, f Fixture) {
	ctx := testContext(t)
	data := Bytes(2 * f.Part)
	l := NewLedger()
	a, err := f.Nodes[0].Writer(ctx, l.Take(f.Nodes[0], -1))
	if err != nil {
		t.Fatal(err)
	}
	defer a.Abandon()
	write(t, a, data)
	write(t, a, []byte{1}) // so that the second part is complete for every store
	p := saveUntil(ctx, t, a, 2*f.Part)
	l.Save(p, blobs.MaxUnsaved)
	done := finish(ctx, t, f.Nodes[1], l, data)
	_, _ = a.Write(Bytes(f.Part + 5)) // may fail or succeed
	_, _ = a.Save(ctx)
	_, _ = a.Close(ctx)
	same(ctx, t, f.Nodes[1], done.Key, data)
}

// refusedSave: A saves, closes with more, and the ledger refuses that; what it had accepted is committed.
func refusedSave(t *testing.T, f Fixture) {
	ctx := testContext(t)
	data := Bytes(3*f.Part + 9)
	l := NewLedger()
	a, err := f.Nodes[0].Writer(ctx, l.Take(f.Nodes[0], -1))
	if err != nil {
		t.Fatal(err)
	}
	defer a.Abandon()
	write(t, a, data[:2*f.Part+1])
	p := saveUntil(ctx, t, a, 2*f.Part)
	l.Save(p, blobs.MaxUnsaved)
	write(t, a, data[2*f.Part+1:])
	if _, err := a.Close(ctx); err != nil {
		t.Fatal(err)
	}
	finish(ctx, t, f.Nodes[1], l, data[:p.Size])
}

// twoWriters write the same place of one upload at once with different bytes; the ledger accepts one.
func twoWriters(t *testing.T, f Fixture) {
	ctx := testContext(t)
	for _, begun := range []int64{0, 100, f.Part + 100} {
		data, other := Bytes(begun+2*f.Part+9), Bytes(begun+2*f.Part+10)
		l := NewLedger()
		put(ctx, t, f.Nodes[0], l, data[:begun], begun)
		a, err := f.Nodes[0].Writer(ctx, l.Take(f.Nodes[0], -1))
		if err != nil {
			t.Fatal(err)
		}
		defer a.Abandon()
		b, err := f.Nodes[1].Writer(ctx, l.Take(f.Nodes[1], -1))
		if err != nil {
			t.Fatal(err)
		}
		defer b.Abandon()
		write(t, a, other[begun:begun+f.Part+3])
		write(t, b, data[begun:])
		write(t, a, other[begun+f.Part+3:])
		p, err := b.Close(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.Close(ctx); err != nil {
			t.Fatal(err) // durable, but the ledger does not accept it
		}
		l.Save(p, 0)
		finish(ctx, t, f.Nodes[0], l, data)
	}
}

func endedWriters(t *testing.T, f Fixture) {
	ctx := testContext(t)
	l := NewLedger()
	for _, end := range []func(blobs.Writer){
		func(w blobs.Writer) { _, _ = w.Close(ctx) },
		func(w blobs.Writer) { w.Abandon() },
	} {
		w, err := f.Nodes[0].Writer(ctx, l.Take(f.Nodes[0], -1))
		if err != nil {
			t.Fatal(err)
		}
		write(t, w, []byte("abc"))
		end(w)
		if _, err := w.Write([]byte("d")); err == nil {
			t.Error("Write after the end is no error")
		}
		if _, err := w.Save(ctx); err == nil {
			t.Error("Save after the end is no error")
		}
		if _, err := w.Close(ctx); err == nil {
			t.Error("Close after the end is no error")
		}
		w.Abandon()
		w.Abandon()
	}
	if _, err := f.Nodes[0].Writer(ctx, blobs.Attempt{Name: blobs.Name{Epoch: "..", Upload: "a", Attempt: "b"}, Length: -1}); err == nil {
		t.Error("a Writer under a name that leaves the folder is no error")
	}
}

func abandoned(t *testing.T, f Fixture) {
	ctx := testContext(t)
	data := Bytes(f.Part + 50)
	l := NewLedger()
	put(ctx, t, f.Nodes[0], l, data[:20], 20)
	w, err := f.Nodes[0].Writer(ctx, l.Take(f.Nodes[0], -1))
	if err != nil {
		t.Fatal(err)
	}
	write(t, w, Bytes(2*f.Part))
	w.Abandon()
	put(ctx, t, f.Nodes[1], l, data[20:], -1)
	finish(ctx, t, f.Nodes[1], l, data)
}

func gaps(t *testing.T, f Fixture) {
	ctx := testContext(t)
	data := Bytes(4*f.Part + 1)
	l := NewLedger()
	for _, end := range []int64{f.Part + 1, 2*f.Part + 2, int64(len(data))} {
		l.next += 1000 // as if attempts had reserved these and died
		put(ctx, t, f.Nodes[0], l, data[l.Progress.Size:end], -1)
	}
	l.next += 1000
	l.Progress.Next = l.next
	finish(ctx, t, f.Nodes[1], l, data)
}

func tooManyUnsaved(t *testing.T, f Fixture) {
	if !f.Multipart {
		return
	}
	ctx := testContext(t)
	s := f.Nodes[0]
	l := NewLedger()
	a := l.Take(s, 1) // lies: it reserves no more than one byte needs
	w, err := s.Writer(ctx, a)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abandon()
	for range 4 {
		if _, err = w.Write(Bytes(f.Part)); err != nil {
			break
		}
	}
	if !errors.Is(err, blobs.ErrUnavailable) {
		t.Errorf("parts beyond what is reserved: %v, want ErrUnavailable", err)
	}
}
