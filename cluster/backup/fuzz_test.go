package backup

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// unpacked answers what is in a segment's frame.
func unpacked(t testing.TB, body []byte) []byte {
	t.Helper()
	z, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	plain, err := z.DecodeAll(body, nil)
	if err != nil {
		t.Fatal(err)
	}
	return plain
}

// FuzzManifest: what is accepted encodes to the same bytes, and all else is a FileError.
func FuzzManifest(f *testing.F) {
	r := newRecorder(f)
	_, to, _ := folderOf(r)
	w, err := write(f.Context(), r.view(), "v1", to, nil)
	if err != nil {
		f.Fatal(err)
	}
	body, err := w.Manifest.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(body)
	f.Add([]byte("{}"))
	f.Add([]byte(`{"format": 2}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeManifest("f", b)
		var file *FileError
		if err != nil {
			if !errors.As(err, &file) {
				t.Errorf("error %v", err)
			}
			return
		}
		if again, err := m.encode(); err != nil || !bytes.Equal(again, b) {
			t.Errorf("accepted %q, encodes to %q, %v", b, again, err)
		}
	})
}

// FuzzSegment reads what is within the frame, since no fuzzer guesses a sum: both the parser and the whole.
func FuzzSegment(f *testing.F) {
	p, err := newPacker()
	if err != nil {
		f.Fatal(err)
	}
	body, err := p.encode(segmentOf(aLog(f), 0, 20))
	if err != nil {
		f.Fatal(err)
	}
	plain := unpacked(f, body)
	f.Add(body)
	f.Add(plain[len(segmentMagic):])
	f.Fuzz(func(t *testing.T, b []byte) {
		var file *FileError
		if _, err := decodeSegment("f", b); err != nil && !errors.As(err, &file) {
			t.Errorf("error %v", err)
		}
		s, err := parseSegment(b)
		if err != nil || s.check() != nil {
			return
		}
		again, err := p.encode(s)
		if err != nil {
			t.Fatalf("accepted, cannot be encoded: %v", err)
		}
		back, err := decodeSegment("f", again)
		if err != nil || back.SegmentHeader != s.SegmentHeader || len(back.Entries) != len(s.Entries) {
			t.Errorf("%+v came back as %+v, %v", s, back, err)
		}
	})
}

// FuzzTar: whatever the bytes, opening and verifying ends with a FileError or is right.
func FuzzTar(f *testing.F) {
	r := newRecorder(f)
	r.fill(2, 100)
	f.Add(fileOf(f, r))
	f.Add(make([]byte, 1024))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := OpenTar("f", bytes.NewReader(b), int64(len(b)))
		if err == nil {
			_, err = io.Copy(io.Discard, s.Rows(t.Context()))
		}
		var file *FileError
		if err != nil && !errors.As(err, &file) {
			t.Errorf("error %v", err)
		}
	})
}
