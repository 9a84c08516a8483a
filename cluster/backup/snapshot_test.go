package backup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pontoon-registry/pontoon/blobs/mem"
)

// folderOf answers the place of a snapshot in an archive of its own.
func folderOf(r *recorder) (Place, *bucketSink, *mem.Archive) {
	index, _ := r.state.Applied()
	archive := mem.New(0).Archive()
	folder := fmt.Sprintf("%s%020d-%032d/", fullFolder("c0", 1), index, 7)
	p, ok := parseName(folder + manifestName)
	if !ok {
		r.t.Fatalf("%s is no name", folder)
	}
	return p, &bucketSink{archive: archive, folder: folder}, archive
}

func TestASnapshotInABucketGivesBackTheExport(t *testing.T) {
	r := newRecorder(t)
	r.fill(150, 64<<10)
	v := r.view()
	p, to, archive := folderOf(r)
	var heard []int64
	w, err := write(t.Context(), v, "v1", to, func(n int64) { heard = append(heard, n) })
	if err != nil {
		t.Fatal(err)
	}
	s, err := OpenBucket(t.Context(), archive, Selector{})
	if err != nil {
		t.Fatal(err)
	}
	m := s.Manifest()
	if len(m.Chunks) != 2 || m.Index != p.Index || m.Rows["manifest"] != 150 || m.ClusterID != "c0" || len(heard) != 2 {
		t.Errorf("manifest %+v, progress %v", m, heard)
	}
	if !bytes.Equal(s.SHA256(), w.SHA256) || s.Size() != w.Size || s.Size() != sizeIn(t, archive) {
		t.Errorf("size %d, %d were written, %d are there", s.Size(), w.Size, sizeIn(t, archive))
	}
	got, err := io.ReadAll(s.Rows(t.Context()))
	if err != nil || !bytes.Equal(got, exported(t, v)) {
		t.Fatalf("rows: %d bytes, %v", len(got), err)
	}
	if err := s.Verify(t.Context(), nil); err != nil {
		t.Error(err)
	}
}

func sizeIn(t *testing.T, archive *mem.Archive) (n int64) {
	t.Helper()
	for o, err := range archive.List(t.Context(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		n += o.Size
	}
	return n
}

// TestTheBytesAreTheSameFromAnyNode is K2: two states that came to one index in batches of their own, one of them with a
// witness, each written as folder and as file.
func TestTheBytesAreTheSameFromAnyNode(t *testing.T) {
	r := newRecorder(t)
	r.fill(40, 20_000)
	other := openState(t)
	for n := 0; n < len(r.log); n += 7 {
		if _, err := other.Apply(r.log[n:min(n+7, len(r.log))]); err != nil {
			t.Fatal(err)
		}
	}
	v := other.View()
	defer v.Close()
	_, one, first := folderOf(r)
	_, two, second := folderOf(r)
	if _, err := write(t.Context(), r.view(), "v1", one, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := write(t.Context(), v, "v1", two, nil); err != nil {
		t.Fatal(err)
	}
	n := 0
	for o, err := range first.List(t.Context(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		a, errA := first.Get(t.Context(), o.Key)
		b, errB := second.Get(t.Context(), o.Key)
		if errA != nil || errB != nil || !bytes.Equal(a, b) {
			t.Errorf("%s differs: %v, %v", o.Key, errA, errB)
		}
		n++
	}
	if n < 2 || sizeIn(t, first) != sizeIn(t, second) {
		t.Errorf("%d objects", n)
	}
	if a, b := fileOf(t, r), fileOf(t, r); !bytes.Equal(a, b) {
		t.Error("two files of one state differ")
	}
}

// fileOf answers a snapshot as a file.
func fileOf(t testing.TB, r *recorder) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := WriteFile(t.Context(), r.view(), "v1", &b, nil)
	if err != nil {
		t.Fatal(err)
	}
	if w.Size >= int64(b.Len()) {
		t.Errorf("%d bytes are said to be stored in a file of %d", w.Size, b.Len())
	}
	return b.Bytes()
}

func TestASnapshotInAFileGivesBackTheExport(t *testing.T) {
	r := newRecorder(t)
	r.fill(150, 64<<10)
	path := filepath.Join(t.TempDir(), "snapshot")
	if err := os.WriteFile(path, fileOf(t, r), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(s.Rows(t.Context()))
	if err != nil || !bytes.Equal(got, exported(t, r.view())) {
		t.Errorf("rows: %d bytes, %v", len(got), err)
	}
	if err := errors.Join(s.Verify(t.Context(), nil), s.Close()); err != nil {
		t.Error(err)
	}
	if s.Log() != nil {
		t.Error("a file has a log")
	}
}

// TestWhateverIsWrongIsFoundAndNamed is K3, for every file of a snapshot: bits flipped, cut, gone, exchanged.
func TestWhateverIsWrongIsFoundAndNamed(t *testing.T) {
	r := newRecorder(t)
	r.fill(150, 64<<10)
	_, to, archive := folderOf(r)
	if _, err := write(t.Context(), r.view(), "v1", to, nil); err != nil {
		t.Fatal(err)
	}
	whole := map[string][]byte{}
	for o, err := range archive.List(t.Context(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		whole[o.Key], _ = archive.Get(t.Context(), o.Key)
	}
	if len(whole) != 3 {
		t.Fatalf("%d files, want two chunks and a manifest", len(whole))
	}
	check := func(what, name string, kinds ...error) {
		t.Helper()
		err := verifyStored(t.Context(), archive)
		var file *FileError
		if !errors.As(err, &file) || file.File != name || !isAny(err, kinds) {
			t.Errorf("%s: %v", what, err)
		}
		if !strings.Contains(fmt.Sprint(err), name) {
			t.Errorf("%s: the error does not name the file: %v", what, err)
		}
	}
	for name, body := range whole {
		set := func(b []byte) { archive.Change(name, func([]byte) []byte { return b }) }
		for _, at := range places(len(body)) {
			flipped := bytes.Clone(body)
			flipped[at] ^= 1 << (at % 8)
			set(flipped)
			check(fmt.Sprintf("%s: bit flipped at %d", name, at), name, ErrAltered, ErrNewerFormat)
			set(body[:at])
			check(fmt.Sprintf("%s: cut at %d", name, at), name, ErrTruncated)
		}
		set(append(bytes.Clone(body), 'x'))
		check(name+": one byte more", name, ErrAltered)
		set(body)
	}
	for name, body := range whole {
		if strings.HasSuffix(name, manifestName) {
			continue
		}
		archive.Change(name, func([]byte) []byte { return nil })
		check(name+" gone", name, ErrMissing)
		if err := archive.Put(t.Context(), name, body); err != nil {
			t.Fatal(err)
		}
	}
	if err := verifyStored(t.Context(), archive); err != nil {
		t.Errorf("all is as it was: %v", err)
	}
}

func verifyStored(ctx context.Context, archive *mem.Archive) error {
	s, err := OpenBucket(ctx, archive, Selector{})
	if err != nil {
		return err
	}
	return s.Verify(ctx, nil)
}

func isAny(err error, kinds []error) bool {
	for _, kind := range kinds {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

// places are offsets all over n bytes, the first and the last among them.
func places(n int) []int {
	all := []int{0, 1, n / 3, n / 2, n - 2, n - 1}
	for i := 7; i < n; i += 1 + n/20 {
		all = append(all, i)
	}
	return all
}

// TestADamagedFileIsFoundAndNamed is K3 for the tar: at every place of its first blocks and its end, and all over it.
func TestADamagedFileIsFoundAndNamed(t *testing.T) {
	r := newRecorder(t)
	r.fill(20, 3000)
	body := fileOf(t, r)
	try := func(b []byte) error {
		s, err := OpenTar("f", bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return err
		}
		return s.Verify(t.Context(), nil)
	}
	if err := try(body); err != nil {
		t.Fatal(err)
	}
	for at := 0; at < len(body); at += 1 + len(body)/4000 {
		var file *FileError
		if err := try(body[:at]); !errors.Is(err, ErrTruncated) || !errors.As(err, &file) || !strings.HasPrefix(file.File, "f") {
			t.Errorf("cut at %d of %d: %v", at, len(body), err)
		}
		flipped := bytes.Clone(body)
		flipped[at] ^= 1
		if err := try(flipped); err == nil {
			t.Errorf("bit flipped at %d of %d: not found", at, len(body))
		} else if err != nil && (!errors.As(err, &file) || !isAny(err, []error{ErrAltered, ErrTruncated, ErrNewerFormat})) {
			t.Errorf("bit flipped at %d of %d: %v", at, len(body), err)
		}
	}
	if err := try(append(bytes.Clone(body), make([]byte, 512)...)); !errors.Is(err, ErrAltered) {
		t.Errorf("more at the end: %v", err)
	}
}
