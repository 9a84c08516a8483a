package cluster

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
)

func folderOf(t testing.TB, files map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestAFolderSurvivesItsArchive(t *testing.T) {
	files := map[string][]byte{"empty": {}, "MANIFEST-000001": []byte("x"), "000002.sst": bytes.Repeat([]byte("y"), 512), "marker.a.b": bytes.Repeat([]byte("z"), 70_000)}
	dir := folderOf(t, files)
	list, err := archivable(dir)
	if err != nil {
		t.Fatal(err)
	}
	released := 0
	r := &archiveReader{dir: dir, files: list, closed: func() { released++ }}
	data, err := io.ReadAll(r)
	if err != nil || int64(len(data)) != archiveSize(list) {
		t.Fatalf("%d bytes, %d were announced: %v", len(data), archiveSize(list), err)
	}
	if err := r.Close(); err != nil || r.Close() != nil || released != 1 {
		t.Errorf("released %d times, %v", released, err)
	}
	out := filepath.Join(t.TempDir(), "out")
	if err := unpack(bytes.NewReader(data), out); err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		if got, err := os.ReadFile(filepath.Join(out, name)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s has %d bytes, %v", name, len(got), err)
		}
	}
	// A file that became shorter since it was listed.
	if err := os.Truncate(filepath.Join(dir, "marker.a.b"), 5); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(&archiveReader{dir: dir, files: list}); err == nil {
		t.Error("a file that was cut short was archived")
	}
}

func tarOf(t testing.TB, headers ...*tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(make([]byte, h.Size)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestAnArchiveNeverLeavesItsFolder(t *testing.T) {
	for name, h := range map[string]*tar.Header{
		"parent":      {Typeflag: tar.TypeReg, Name: "../evil", Format: tar.FormatUSTAR},
		"absolute":    {Typeflag: tar.TypeReg, Name: "/evil", Format: tar.FormatUSTAR},
		"subfolder":   {Typeflag: tar.TypeReg, Name: "a/evil", Format: tar.FormatUSTAR},
		"symlink":     {Typeflag: tar.TypeSymlink, Name: "evil", Linkname: "/etc/passwd", Format: tar.FormatUSTAR},
		"hard link":   {Typeflag: tar.TypeLink, Name: "evil", Linkname: "../x", Format: tar.FormatUSTAR},
		"folder":      {Typeflag: tar.TypeDir, Name: "evil", Format: tar.FormatUSTAR},
		"pipe":        {Typeflag: tar.TypeFifo, Name: "evil", Format: tar.FormatUSTAR},
		"other words": {Typeflag: tar.TypeReg, Name: "evil", Format: tar.FormatPAX, PAXRecords: map[string]string{"X.y": "z"}},
	} {
		parent := t.TempDir()
		if err := unpack(bytes.NewReader(tarOf(t, h)), filepath.Join(parent, "in")); err == nil {
			t.Errorf("%s was unpacked", name)
		}
		if left, err := filepath.Glob(filepath.Join(parent, "*")); err != nil || len(left) != 1 {
			t.Errorf("%s: %v, %v", name, left, err)
		}
	}
	twice := &tar.Header{Typeflag: tar.TypeReg, Name: "a", Size: 3, Format: tar.FormatUSTAR}
	if err := unpack(bytes.NewReader(tarOf(t, twice, twice)), filepath.Join(t.TempDir(), "in")); err == nil {
		t.Error("a file was written twice")
	}
}

// FuzzUnpack: whatever comes, nothing is written beside the folder, and nothing larger than what came.
func FuzzUnpack(f *testing.F) {
	f.Add(tarOf(f, &tar.Header{Typeflag: tar.TypeReg, Name: "000001.log", Size: 600, Format: tar.FormatUSTAR}))
	f.Add(tarOf(f, &tar.Header{Typeflag: tar.TypeReg, Name: "../x", Size: 1, Format: tar.FormatUSTAR}))
	f.Add([]byte("short"))
	f.Fuzz(func(t *testing.T, data []byte) {
		parent := t.TempDir()
		err := unpack(bytes.NewReader(data), filepath.Join(parent, "in"))
		entries, rerr := os.ReadDir(parent)
		if rerr != nil || len(entries) > 1 {
			t.Fatalf("%d entries, %v (unpack: %v)", len(entries), rerr, err)
		}
		total := int64(0)
		werr := filepath.WalkDir(parent, func(_ string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			info, err := d.Info()
			if err == nil && !info.Mode().IsRegular() {
				err = fmt.Errorf("%s is no file", d.Name())
			}
			if err == nil {
				total += info.Size()
			}
			return err
		})
		if werr != nil || total > int64(len(data)) {
			t.Fatalf("%d bytes of %d, %v", total, len(data), werr)
		}
	})
}
