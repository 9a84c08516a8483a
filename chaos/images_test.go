package chaos

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// layout is an OCI image layout in a folder, which skopeo, crane and podman all read.
type layout struct {
	t   testing.TB
	dir string
}

func newLayout(t testing.TB) *layout {
	t.Helper()
	// Not t.TempDir: podman makes an image name of the folder, and such names have no capitals.
	dir, err := os.MkdirTemp("", "pontoon-layout-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l := &layout{t: t, dir: dir}
	if err := os.MkdirAll(filepath.Join(l.dir, "blobs", "sha256"), 0o755); err != nil {
		t.Fatal(err)
	}
	l.write("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`))
	return l
}

// remove frees the space before the test ends.
func (l *layout) remove() {
	if err := os.RemoveAll(l.dir); err != nil {
		l.t.Errorf("remove a layout: %v", err)
	}
}

func (l *layout) write(name string, content []byte) {
	l.t.Helper()
	if err := os.WriteFile(filepath.Join(l.dir, name), content, 0o644); err != nil {
		l.t.Fatal(err)
	}
}

func (l *layout) put(mediaType string, content []byte) descriptor {
	l.t.Helper()
	d := describe(mediaType, content)
	l.write(blobFile(d.Digest), content)
	return d
}

// putStream stores what write produces, of any size.
func (l *layout) putStream(mediaType string, write func(io.Writer) error) descriptor {
	l.t.Helper()
	file, err := os.CreateTemp(l.dir, "blob-")
	if err != nil {
		l.t.Fatal(err)
	}
	defer file.Close()
	sum := sha256.New()
	if err := write(io.MultiWriter(file, sum)); err != nil {
		l.t.Fatal(err)
	}
	size, err := file.Seek(0, io.SeekCurrent)
	if err != nil {
		l.t.Fatal(err)
	}
	d := descriptor{MediaType: mediaType, Digest: "sha256:" + hex.EncodeToString(sum.Sum(nil)), Size: size}
	if err := os.Rename(file.Name(), filepath.Join(l.dir, blobFile(d.Digest))); err != nil {
		l.t.Fatal(err)
	}
	return d
}

// name makes one manifest the content of the layout. Clients that look for a tag find it as v1.
func (l *layout) name(d descriptor) {
	d.Annotations = map[string]string{"org.opencontainers.image.ref.name": "v1"}
	l.write("index.json", manifest{MediaType: mediaIndex, Manifests: []descriptor{d}}.encode())
}

// image stores a config for the layers (with their uncompressed digests) and a manifest.
func (l *layout) image(arch string, layers []descriptor, diffs []string) descriptor {
	l.t.Helper()
	config, err := json.Marshal(map[string]any{
		"architecture": arch, "os": "linux", "created": "2026-01-01T00:00:00Z",
		"config": map[string]any{"Cmd": []string{"/bin/sh"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": diffs},
	})
	if err != nil {
		l.t.Fatal(err)
	}
	described := l.put(mediaConfig, config)
	d := l.put(mediaManifest, manifest{MediaType: mediaManifest, Config: &described, Layers: layers}.encode())
	d.Platform = map[string]string{"architecture": arch, "os": "linux"}
	return d
}

// adopt links all that another layout holds.
func (l *layout) adopt(other *layout) {
	l.t.Helper()
	blobs, err := filepath.Glob(filepath.Join(other.dir, "blobs", "sha256", "*"))
	if err != nil {
		l.t.Fatal(err)
	}
	for _, blob := range blobs {
		if err := os.Link(blob, filepath.Join(l.dir, "blobs", "sha256", filepath.Base(blob))); err != nil {
			l.t.Fatal(err)
		}
	}
}

func blobFile(digest string) string {
	return filepath.Join("blobs", strings.Replace(digest, ":", string(filepath.Separator), 1))
}

// contents returns all that the layout names, checked against its digest: digest → size.
func (l *layout) contents() (map[string]int64, error) {
	index, err := os.ReadFile(filepath.Join(l.dir, "index.json"))
	if err != nil {
		return nil, fmt.Errorf("read layout: %w", err)
	}
	found := map[string]int64{}
	return found, l.follow(index, found)
}

func (l *layout) follow(body []byte, found map[string]int64) error {
	var m manifest
	if err := json.Unmarshal(body, &m); err != nil {
		return fmt.Errorf("decode manifest: %w", err)
	}
	for _, d := range m.Manifests {
		content, err := os.ReadFile(filepath.Join(l.dir, blobFile(d.Digest)))
		if err != nil {
			return fmt.Errorf("read manifest: %w", err)
		}
		if got := digestOf(content); got != d.Digest {
			return fmt.Errorf("manifest %s has digest %s", d.Digest, got)
		}
		found[d.Digest] = int64(len(content))
		if err := l.follow(content, found); err != nil {
			return err
		}
	}
	blobs := m.Layers
	if m.Config != nil {
		blobs = append([]descriptor{*m.Config}, blobs...)
	}
	for _, d := range blobs {
		file, err := os.Open(filepath.Join(l.dir, blobFile(d.Digest)))
		if err != nil {
			return fmt.Errorf("open blob: %w", err)
		}
		sum := sha256.New()
		size, err := io.Copy(sum, file)
		file.Close()
		if err != nil {
			return fmt.Errorf("read blob: %w", err)
		}
		if got := "sha256:" + hex.EncodeToString(sum.Sum(nil)); got != d.Digest || size != d.Size {
			return fmt.Errorf("blob %s (%d bytes) has digest %s and %d bytes", d.Digest, d.Size, got, size)
		}
		found[d.Digest] = size
	}
	return nil
}

// root returns the one manifest that the layout names.
func (l *layout) root() (descriptor, error) {
	var m manifest
	body, err := os.ReadFile(filepath.Join(l.dir, "index.json"))
	if err != nil {
		return descriptor{}, err
	}
	if err := json.Unmarshal(body, &m); err != nil {
		return descriptor{}, fmt.Errorf("decode layout: %w", err)
	}
	if len(m.Manifests) != 1 {
		return descriptor{}, fmt.Errorf("layout names %d manifests, want one", len(m.Manifests))
	}
	return m.Manifests[0], nil
}

// pictures are the images that real clients push and pull.
type pictures struct {
	debian *layout // a Debian root filesystem cut into layers
	multi  *layout // an index: Debian for amd64, a small image for arm64
	giant  *layout // one layer over 1 GiB; only with -long
}

func newPictures(t testing.TB) pictures {
	t.Helper()
	const layers = 3
	p := pictures{debian: newLayout(t), multi: newLayout(t)}
	debian := debianImage(p.debian, debianRoot(t), layers)
	p.debian.name(debian)

	p.multi.adopt(p.debian)
	small := tarOf(t, "hello", noise("hello", 100_000))
	arm := p.multi.image("arm64", []descriptor{p.multi.put(mediaLayer, small)}, []string{digestOf(small)})
	index := p.multi.put(mediaIndex, manifest{MediaType: mediaIndex, Manifests: []descriptor{debian, arm}}.encode())
	p.multi.name(index)

	if *long {
		p.giant = newLayout(t)
		const size = 1<<30 + 12345
		layer := p.giant.putStream(mediaLayer, func(w io.Writer) error {
			return writeTar(w, "giant", size, io.LimitReader(noiseReader("giant"), size))
		})
		p.giant.name(p.giant.image("amd64", []descriptor{layer}, []string{layer.Digest}))
	}
	return p
}

// freshImage is an image of noise that nobody has pushed before.
func freshImage(t testing.TB, name string, layers int, size int64) *layout {
	t.Helper()
	l := newLayout(t)
	var descriptors []descriptor
	var diffs []string
	for i := range layers {
		file := fmt.Sprintf("layer%d", i)
		layer := tarOf(t, file, noise(name+file, size))
		descriptors, diffs = append(descriptors, l.put(mediaLayer, layer)), append(diffs, digestOf(layer))
	}
	l.name(l.image("amd64", descriptors, diffs))
	return l
}

// debianRoot returns the path of a Debian root filesystem as a tar, made once per user and kept in the cache folder.
func debianRoot(t testing.TB) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	file := filepath.Join(cache, "pontoon-chaos", "debian-bookworm-minbase.tar")
	if _, err := os.Stat(file); err == nil {
		return file
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	half := file + fmt.Sprintf(".%d", os.Getpid())
	defer os.Remove(half)
	cmd := exec.CommandContext(ctx, need(t, "mmdebstrap"), "--variant=minbase", "--quiet", "--format=tar", "bookworm", half)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make a Debian root filesystem: %v\n%s", err, out)
	}
	if err := os.Rename(half, file); err != nil {
		t.Fatal(err)
	}
	return file
}

// debianImage cuts the tarball into layers of about equal size. Device nodes are left out: unpacking them needs rights
// that a test does not have everywhere.
func debianImage(l *layout, tarball string, layers int) descriptor {
	l.t.Helper()
	file, err := os.Open(tarball)
	if err != nil {
		l.t.Fatal(err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		l.t.Fatal(err)
	}
	in := tar.NewReader(file)
	var descriptors []descriptor
	var diffs []string
	for i := range layers {
		diff := sha256.New()
		end := errors.New("not at the end")
		descriptors = append(descriptors, l.putStream(mediaLayerGz, func(w io.Writer) error {
			packed, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
			if err != nil {
				return err
			}
			limit := info.Size() / int64(layers)
			if i == layers-1 {
				limit = info.Size()
			}
			if end = copyEntries(io.MultiWriter(packed, diff), in, limit); end != nil && !errors.Is(end, io.EOF) {
				return end
			}
			return packed.Close()
		}))
		diffs = append(diffs, "sha256:"+hex.EncodeToString(diff.Sum(nil)))
	}
	return l.image("amd64", descriptors, diffs)
}

// copyEntries writes a tar of the next entries, up to about limit bytes.
func copyEntries(w io.Writer, in *tar.Reader, limit int64) error {
	out := tar.NewWriter(w)
	defer out.Close()
	for written := int64(0); written < limit; {
		header, err := in.Next()
		if err != nil {
			return err
		}
		if header.Typeflag == tar.TypeChar || header.Typeflag == tar.TypeBlock {
			continue
		}
		if err := out.WriteHeader(header); err != nil {
			return err
		}
		n, err := io.Copy(out, in)
		if err != nil {
			return err
		}
		written += n + 512
	}
	return nil
}

func tarOf(t testing.TB, name string, content []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := writeTar(&b, name, int64(len(content)), bytes.NewReader(content)); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func writeTar(w io.Writer, name string, size int64, content io.Reader) error {
	out := tar.NewWriter(w)
	if err := out.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: size}); err != nil {
		return err
	}
	if _, err := io.Copy(out, content); err != nil {
		return err
	}
	return out.Close()
}

func TestLayoutsOfRealImagesHoldWhatTheyName(t *testing.T) {
	p := newPictures(t)
	for name, l := range map[string]*layout{"debian": p.debian, "multi": p.multi} {
		contents, err := l.contents()
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if len(contents) < 5 {
			t.Errorf("%s names only %d things", name, len(contents))
		}
	}
	root, err := p.debian.root()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(p.debian.dir, blobFile(root.Digest)), []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := p.debian.contents(); err == nil {
		t.Error("a changed manifest was not noticed")
	}
}
