package blobstest

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/pontoon-registry/pontoon/blobs"
)

func wrongETag(t *testing.T, f Fixture) {
	if !f.Multipart {
		return
	}
	ctx := testContext(t)
	data := Bytes(3 * f.Part)
	for n := range 2 {
		l := NewLedger()
		put(ctx, t, f.Nodes[0], l, data, -1)
		l.Progress.Parts[n].ETag = "0123456789abcdef0123456789abcdef"
		if _, err := f.Nodes[1].Finish(ctx, l.Name(), l.Progress); !errors.Is(err, blobs.ErrCorrupt) {
			t.Errorf("Finish with a wrong ETag of part %d: %v, want ErrCorrupt", n, err)
		}
	}
}

func damagedTail(t *testing.T, f Fixture) {
	ctx := testContext(t)
	for _, size := range []int64{1000, 2*f.Part + 1000} {
		l := NewLedger()
		data := Bytes(size)
		if f.Multipart {
			put(ctx, t, f.Nodes[0], l, data, -1)
		} else { // two pieces or more, so that the last is a tail
			put(ctx, t, f.Nodes[0], l, data[:size-900], -1)
			put(ctx, t, f.Nodes[0], l, data[size-900:], -1)
		}
		pieces := l.Progress.Pieces
		if len(pieces) == 0 {
			t.Fatalf("%d bytes have no tail", size)
		}
		f.Damage(t, pieces[len(pieces)-1].Key)
		for _, s := range f.Nodes {
			if err := resume(ctx, s, l); !errors.Is(err, blobs.ErrCorrupt) {
				t.Errorf("resuming a damaged tail: %v, want ErrCorrupt", err)
			}
		}
		if len(pieces) > 1 || len(l.Progress.Parts) > 0 {
			if _, err := f.Nodes[0].Finish(ctx, l.Name(), l.Progress); !errors.Is(err, blobs.ErrCorrupt) {
				t.Errorf("Finish of a damaged tail: %v, want ErrCorrupt", err)
			}
		}
		if err := f.Nodes[0].Delete(ctx, pieces[len(pieces)-1].Key); err != nil {
			t.Fatal(err)
		}
		if err := resume(ctx, f.Nodes[1], l); !errors.Is(err, blobs.ErrNotFound) {
			t.Errorf("resuming without the tail: %v, want ErrNotFound", err)
		}
		if _, err := f.Nodes[0].Finish(ctx, l.Name(), l.Progress); !errors.Is(err, blobs.ErrNotFound) {
			t.Errorf("Finish without the tail: %v, want ErrNotFound", err)
		}
	}
}

// resume begins an attempt and answers what the Writer says to that.
func resume(ctx context.Context, s blobs.Store, l *Ledger) error {
	w, err := s.Writer(ctx, l.Take(s, -1))
	if err == nil {
		w.Abandon()
	}
	return err
}

func wrongProgress(t *testing.T, f Fixture) {
	ctx := testContext(t)
	l := NewLedger()
	put(ctx, t, f.Nodes[0], l, Bytes(100), 100)
	good := l.Progress
	for what, change := range map[string]func(*blobs.Progress){
		"a size that is not the sum": func(p *blobs.Progress) { p.Size++ },
		"a key that is none":         func(p *blobs.Progress) { p.Pieces[0].Key = "../../etc/passwd" },
		"another length": func(p *blobs.Progress) {
			p.Pieces[0].Size, p.Size = 101, 101
		},
	} {
		p := good
		p.Pieces = append([]blobs.Piece(nil), good.Pieces...)
		change(&p)
		if done, err := f.Nodes[0].Finish(ctx, l.Name(), p); err == nil {
			t.Errorf("Finish with %s answers %q", what, done.Key)
		}
	}
	finish(ctx, t, f.Nodes[0], l, Bytes(100))
}

func finishTwice(t *testing.T, f Fixture) {
	ctx := testContext(t)
	for _, size := range []int64{0, 10, 2*f.Part + 10} {
		data := Bytes(size)
		l := NewLedger()
		put(ctx, t, f.Nodes[0], l, data[:size/2], -1)
		put(ctx, t, f.Nodes[0], l, data[size/2:], -1)
		name := l.Name()
		first, err := f.Nodes[0].Finish(ctx, name, l.Progress)
		if err != nil {
			t.Fatal(err)
		}
		second, err := f.Nodes[0].Finish(ctx, name, l.Progress)
		if err != nil {
			t.Fatalf("second Finish: %v", err)
		}
		if first != second {
			t.Errorf("Finish twice: %+v, then %+v", first, second)
		}
		same(ctx, t, f.Nodes[0], second.Key, data)
	}
}

// finishElsewhere: the answer of the first Finish is lost; the client's retry is another attempt on another node (R-A5).
func finishElsewhere(t *testing.T, f Fixture) {
	ctx := testContext(t)
	for _, size := range []int64{0, 10, 2 * f.Part, 2*f.Part + 10} {
		data := Bytes(size)
		l := NewLedger()
		put(ctx, t, f.Nodes[0], l, data, -1)
		lost := NewFaulty(f.Nodes[0], Fault{Action: "finish", After: blobs.ErrUnavailable})
		if _, err := lost.Finish(ctx, l.Name(), l.Progress); !errors.Is(err, blobs.ErrUnavailable) {
			t.Fatal(err)
		}
		done := finish(ctx, t, f.Nodes[1], l, data)
		if f.Multipart && size > f.Part && done.Key != l.Progress.MultipartKey {
			t.Errorf("the second Finish answers %q, want the multipart upload's key %q", done.Key, l.Progress.MultipartKey)
		}
	}
}

func abort(t *testing.T, f Fixture) {
	ctx := testContext(t)
	s := f.Nodes[0]
	l := NewLedger()
	if err := s.AbortMultipart(ctx, l.Name().Key(0), "no-such-id"); err != nil {
		t.Errorf("AbortMultipart of an absent one: %v", err)
	}
	put(ctx, t, s, l, Bytes(2*f.Part+10), -1)
	if l.Progress.MultipartID == "" {
		if f.Multipart {
			t.Fatal("no multipart upload was made")
		}
		return
	}
	for range 2 {
		if err := s.AbortMultipart(ctx, l.Progress.MultipartKey, l.Progress.MultipartID); err != nil {
			t.Fatalf("AbortMultipart: %v", err)
		}
	}
	if done, err := s.Finish(ctx, l.Name(), l.Progress); !errors.Is(err, blobs.ErrNotFound) && !errors.Is(err, blobs.ErrCorrupt) {
		t.Errorf("Finish of an aborted upload: %+v, %v, want ErrNotFound or ErrCorrupt", done, err)
	}
	w, err := s.Writer(ctx, l.Take(s, -1))
	if err == nil {
		_, err = w.Write(bytes.Repeat([]byte{1}, int(2*f.Part)))
		if err == nil {
			_, err = w.Close(ctx)
		}
		w.Abandon()
	}
	if err == nil {
		t.Error("an aborted upload can be continued")
	}
}
