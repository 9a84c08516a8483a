package cluster

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// The archive of a checkpoint is a tar (USTAR) of its files, which lie in one
// folder. Its checksum and length travel with the frames (cluster/transport).

const (
	tarBlock = 512
	// maxArchived bounds the files that unpack believes in.
	maxArchived = 1 << 20
)

// archived is a file of an archive.
type archived struct {
	name string
	size int64
}

// archivable lists the files of a folder.
func archivable(dir string) ([]archived, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	files := make([]archived, 0, len(entries))
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return nil, err
		}
		if err := checkFileName(e.Name()); err != nil || !info.Mode().IsRegular() {
			return nil, errors.Join(fmt.Errorf("%s: not a file of a store", e.Name()), err)
		}
		files = append(files, archived{e.Name(), info.Size()})
	}
	return files, nil
}

// checkFileName refuses what is no plain name: a file must land in the folder that it was meant for.
func checkFileName(name string) error {
	plain := func(r rune) bool {
		return r == '.' || r == '-' || r == '_' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
	}
	if name == "" || len(name) > 100 || name[0] == '.' || strings.ContainsFunc(name, func(r rune) bool { return !plain(r) }) {
		return fmt.Errorf("file name %.120q: must be 1 to 100 letters, digits, dots, dashes and underscores, and not begin with a dot", name)
	}
	return nil
}

func padding(size int64) int64 { return (tarBlock - size%tarBlock) % tarBlock }

// archiveSize is how long the archive is.
func archiveSize(files []archived) int64 {
	size := int64(2 * tarBlock)
	for _, f := range files {
		size += tarBlock + f.size + padding(f.size)
	}
	return size
}

// archiveReader reads a folder as an archive, one open file at a time.
type archiveReader struct {
	dir   string
	files []archived
	next  int
	// part is what is being read: header, body, padding, trailer.
	part   io.Reader
	body   *os.File
	ended  bool
	closed func()
}

func (a *archiveReader) Read(p []byte) (int, error) {
	for {
		if a.part != nil {
			n, err := a.part.Read(p)
			if n > 0 || !errors.Is(err, io.EOF) && err != nil {
				return n, err
			}
			if errors.Is(err, io.EOF) {
				a.part = nil
			}
			continue
		}
		if a.ended {
			return 0, io.EOF
		}
		if err := a.advance(); err != nil {
			return 0, err
		}
	}
}

// advance opens the next file, or comes to the trailer.
func (a *archiveReader) advance() error {
	if err := a.closeBody(); err != nil {
		return err
	}
	if a.next == len(a.files) {
		a.ended, a.part = true, bytes.NewReader(make([]byte, 2*tarBlock))
		return nil
	}
	f := a.files[a.next]
	a.next++
	var head bytes.Buffer
	err := tar.NewWriter(&head).WriteHeader(&tar.Header{
		Typeflag: tar.TypeReg, Name: f.name, Size: f.size, Mode: 0o600, ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR})
	if err != nil {
		return err
	}
	if a.body, err = os.Open(filepath.Join(a.dir, f.name)); err != nil {
		return err
	}
	a.part = io.MultiReader(&head, &exactly{r: a.body, left: f.size}, bytes.NewReader(make([]byte, padding(f.size))))
	return nil
}

func (a *archiveReader) closeBody() error {
	if a.body == nil {
		return nil
	}
	err := a.body.Close()
	a.body = nil
	return err
}

// Close lets go of the checkpoint.
func (a *archiveReader) Close() error {
	err := a.closeBody()
	if a.closed != nil {
		a.closed()
		a.closed = nil
	}
	return err
}

// exactly fails when a file is shorter than it was.
type exactly struct {
	r    io.Reader
	left int64
}

func (e *exactly) Read(p []byte) (int, error) {
	if e.left == 0 {
		return 0, io.EOF
	}
	n, err := e.r.Read(p[:min(int64(len(p)), e.left)])
	e.left -= int64(n)
	if errors.Is(err, io.EOF) && e.left > 0 {
		return n, io.ErrUnexpectedEOF
	}
	return n, err
}

// unpack writes the files of an archive into dir, which it makes, durably. It
// reads r to its end, so what checks the whole of it has its say. On an error dir holds rubbish.
func unpack(r io.Reader, dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	in := &counter{r: r}
	t, files := tar.NewReader(in), []archived(nil)
	for n := 0; ; n++ {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read archive: %w", err)
		}
		// Other formats know links, devices, sparse files and names of any length.
		if h.Typeflag != tar.TypeReg || h.Format != tar.FormatUSTAR || n >= maxArchived {
			return fmt.Errorf("read archive: entry %d %.120q is no plain file", n, h.Name)
		}
		if err := checkFileName(h.Name); err != nil {
			return fmt.Errorf("read archive: %w", err)
		}
		if err := writeNew(filepath.Join(dir, h.Name), t); err != nil {
			return fmt.Errorf("read archive: %w", err)
		}
		files = append(files, archived{h.Name, h.Size})
	}
	if _, err := io.Copy(io.Discard, in); err != nil {
		return fmt.Errorf("read archive: %w", err)
	}
	if want := archiveSize(files); in.n != want { // a tar that is cut between two files looks whole
		return fmt.Errorf("read archive: it has %d bytes, its %d files take %d", in.n, len(files), want)
	}
	return errors.Join(syncFolder(dir), syncFolder(filepath.Dir(dir)))
}

func writeNew(path string, from io.Reader) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, from)
	return errors.Join(err, f.Sync(), f.Close())
}

// counter counts what is read through it.
type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}
