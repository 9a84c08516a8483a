package fs

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/pontoon-registry/pontoon/blobs"
	"github.com/pontoon-registry/pontoon/blobs/blobstest"
)

func TestDirectoryPassesTheSuite(t *testing.T) {
	blobstest.Run(t, func(t *testing.T) blobstest.Fixture {
		dir := t.TempDir()
		a, b := open(t, dir), open(t, dir)
		return blobstest.Fixture{
			Nodes:    []blobs.Store{blobstest.Shield(a, func(context.Context) error { return nil }), b}, // as the product has it, and bare
			Objects:  []blobs.Objects{a, b},
			Archives: []blobs.Archive{blobs.RetryArchive(a.Archive(), new(blobstest.Watch)), b.Archive()},
			Part:     boundary,
			Heap:     16 << 20,
			Stream:   256 << 20,
			Damage: func(t *testing.T, key string) {
				path := filepath.Join(dir, key)
				if err := os.Chmod(path, 0o600); err != nil {
					t.Fatal(err)
				}
				data, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				data[len(data)/2] ^= 1
				if err := os.WriteFile(path, data, 0o600); err != nil {
					t.Fatal(err)
				}
			},
		}
	})
}

// open opens a node's store over a directory for the time of the test.
func open(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(t.Context(), Config{Root: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// small stores data in one attempt and answers the ledger.
func small(t *testing.T, s *Store, data string) *blobstest.Ledger {
	t.Helper()
	l := blobstest.NewLedger()
	w, err := s.Writer(t.Context(), l.Take(s, -1))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, data); err != nil {
		t.Fatal(err)
	}
	p, err := w.Close(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	l.Save(p, 0)
	return l
}

func TestLayerOfOneAttemptIsNotCopied(t *testing.T) {
	s := open(t, t.TempDir())
	l := small(t, s, "abc")
	done, err := s.Finish(t.Context(), l.Name(), l.Progress)
	if err != nil {
		t.Fatal(err)
	}
	if done.Key != l.Progress.Pieces[0].Key {
		t.Errorf("Finish = %q, want the attempt's own file %q", done.Key, l.Progress.Pieces[0].Key)
	}
}

// A file that its writer can still append to is never a layer, even when its length is right (F2, R-A4).
func TestFileThatIsNotSealedIsCopied(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	l := small(t, s, "abc")
	piece := l.Progress.Pieces[0].Key
	if err := os.Chmod(filepath.Join(dir, piece), 0o600); err != nil {
		t.Fatal(err)
	}
	done, err := s.Finish(t.Context(), l.Name(), l.Progress)
	if err != nil {
		t.Fatal(err)
	}
	if done.Key == piece {
		t.Fatal("Finish made a file that can still grow a layer")
	}
	f, err := os.OpenFile(filepath.Join(dir, piece), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("late"); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if size, err := s.Stat(t.Context(), done.Key); size != 3 || err != nil {
		t.Errorf("Stat = %d, %v, want 3", size, err)
	}
}

func TestFullDiskIsNoRoom(t *testing.T) {
	s := open(t, t.TempDir())
	for _, end := range []func(*writer) error{
		func(w *writer) error { _, err := w.Write(make([]byte, 2*writeBuffer)); return err },
		func(w *writer) error { _, err := w.Close(context.Background()); return err },
		func(w *writer) error { _, err := w.Save(context.Background()); return err },
	} {
		l := blobstest.NewLedger()
		opened, err := s.Writer(t.Context(), l.Take(s, -1))
		if err != nil {
			t.Fatal(err)
		}
		w := opened.(*writer)
		full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		_ = w.f.Close() // it is empty
		w.f, w.buf = full, bufio.NewWriterSize(full, 2*boundary)
		if _, err := w.Write(make([]byte, boundary)); err != nil {
			t.Fatal(err)
		}
		w.buf = bufio.NewWriterSize(full, writeBuffer)
		if _, err := w.buf.WriteString("pending"); err != nil {
			t.Fatal(err)
		}
		if err := end(w); !errors.Is(err, blobs.ErrNoRoom) {
			t.Errorf("on a full disk: %v, want ErrNoRoom", err)
		}
		w.Abandon()
		if _, err := s.Stat(t.Context(), w.a.Key(0)); !errors.Is(err, blobs.ErrNotFound) {
			t.Errorf("the file that nobody knows was left: %v", err)
		}
	}
}

func TestNoLinkLeadsOutOfTheDirectory(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	s := open(t, dir)
	if err := os.MkdirAll(filepath.Join(outside, "u"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(outside, "u", "a"), []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(dir, "e9")); err != nil {
		t.Fatal(err)
	}
	if r, err := s.Open(t.Context(), "e9/u/a", 0, -1); err == nil {
		_ = r.Close() // it should not be there
		t.Error("Open follows a link out of the directory")
	}
	if err := s.Delete(t.Context(), "e9/u/a"); err == nil {
		t.Error("Delete follows a link out of the directory")
	}
	if w, err := s.Writer(t.Context(), blobs.Attempt{Name: blobs.Name{Epoch: "e9", Upload: "u", Attempt: "b"}, Length: -1}); err == nil {
		w.Abandon()
		t.Error("Writer follows a link out of the directory")
	}
	for _, key := range []string{"../x/y", "e1/../../x", "/etc/passwd", "e1/u/a/b", "_objects/owner"} {
		if r, err := s.Open(t.Context(), key, 0, -1); err == nil {
			_ = r.Close() // it should not be there
			t.Errorf("Open(%q) is no error", key)
		}
	}
}

func TestNameOfAnAttemptIsUsedOnce(t *testing.T) {
	s := open(t, t.TempDir())
	a := blobs.Attempt{Name: blobstest.NewLedger().Name(), Length: -1}
	w, err := s.Writer(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abandon()
	if _, err := s.Writer(t.Context(), a); !errors.Is(err, blobs.ErrExists) {
		t.Errorf("a second Writer of one attempt: %v, want ErrExists", err)
	}
}

func TestConfigErrorsNameFieldAndBound(t *testing.T) {
	for _, c := range []Config{{}, {Root: "x", Perm: 0o077}, {Root: "x", Perm: 0o4700}} {
		if _, err := Open(t.Context(), c); err == nil {
			t.Errorf("Open(%+v) is no error", c)
		}
	}
	if _, err := Open(t.Context(), Config{Root: filepath.Join(t.TempDir(), "no", "parent")}); err == nil {
		t.Error("Open without a parent directory is no error")
	}
}
