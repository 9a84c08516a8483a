package meta

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"

	"github.com/pontoon-registry/pontoon/meta/kv"
)

// The format of an exported state (M7), numbers big-endian:
//
//	"pontoon state\n"  u32 format (1)
//	{ u32 key length (> 0)  key  u32 value length  value }   in key order
//	u32 0  u64 rows  SHA-256 of everything before it
//
// All rows but those that may differ between healthy nodes at one index: the witness is the node's own,
// and a defect has the words of the release that met it. So any node exports the same bytes.

const (
	exportMagic  = "pontoon state\n"
	exportFormat = 1
	// maxRow bounds a key or value that Import believes in, in bytes.
	maxRow = 64 << 20
	// importBatch is how many bytes a Restore commits at a time.
	importBatch = 4 << 20
)

// ErrExport is answered for what is no export of a state, or is damaged.
var ErrExport = errors.New("not a whole exported state")

// Export writes the state at the view's index. Memory does not grow with it.
func (v *View) Export(w io.Writer) error {
	_, err := v.ExportRows(w)
	return err
}

// ExportRows is Export, and answers how many rows of each range it wrote, by the range's name in keys.go.
func (v *View) ExportRows(w io.Writer) (map[string]int64, error) {
	var counts [256]int64
	if err := v.export(w, &counts); err != nil {
		return nil, err
	}
	named := map[string]int64{}
	for r, n := range counts {
		if n > 0 {
			named[rangeName(byte(r))] += n
		}
	}
	return named, nil
}

func (v *View) export(w io.Writer, counts *[256]int64) error {
	if v.err != nil {
		return v.err
	}
	sum := sha256.New()
	buf := bufio.NewWriterSize(w, 1<<16)
	out := io.MultiWriter(buf, sum)
	head := binary.BigEndian.AppendUint32([]byte(exportMagic), exportFormat)
	if _, err := out.Write(head); err != nil {
		return fmt.Errorf("export state: %w", err)
	}
	var n uint64
	var failed error
	v.walk(nil, nil, func(k, value []byte) bool {
		if k[0] == rangeWitness || k[0] == rangeDefect {
			return true
		}
		n++
		counts[k[0]]++
		failed = errors.Join(writeField(out, k), writeField(out, value))
		return failed == nil
	})
	if err := errors.Join(failed, v.err); err != nil {
		return fmt.Errorf("export state: %w", err)
	}
	tail := binary.BigEndian.AppendUint64(make([]byte, 4), n)
	if _, err := out.Write(tail); err != nil {
		return fmt.Errorf("export state: %w", err)
	}
	if _, err := buf.Write(sum.Sum(nil)); err != nil {
		return fmt.Errorf("export state: %w", err)
	}
	if err := buf.Flush(); err != nil {
		return fmt.Errorf("export state: %w", err)
	}
	return nil
}

func writeField(w io.Writer, b []byte) error {
	if _, err := w.Write(binary.BigEndian.AppendUint32(nil, uint32(len(b)))); err != nil {
		return err
	}
	_, err := w.Write(b)
	return err
}

// Import fills an empty store with an exported state and syncs it. On an error
// the store holds a part of it: throw it away.
func Import(store *kv.Store, r io.Reader) error {
	empty := rows{src: stored{store}}
	if empty.first(nil, nil) != nil {
		return errors.New("import state: the store is not empty")
	}
	if empty.err != nil {
		return fmt.Errorf("import state: %w", empty.err)
	}
	sum := sha256.New()
	in := &importer{r: bufio.NewReaderSize(r, 1<<16), sum: sum}
	if err := in.head(); err != nil {
		return fmt.Errorf("import state: %w", err)
	}
	if err := in.rows(store); err != nil {
		return fmt.Errorf("import state: %w", err)
	}
	if err := store.Sync(); err != nil {
		return fmt.Errorf("import state: %w", err)
	}
	return nil
}

type importer struct {
	r   *bufio.Reader
	sum hash.Hash
	// last is the key of the row before. All are reused.
	last, key, value, length []byte
}

// believed is how many bytes a length alone may cost: beyond it, memory grows as they arrive.
const believed = 1 << 20

// read reads n bytes into buf, which it may replace.
func (in *importer) read(buf []byte, n int) (_ []byte, err error) {
	if n <= believed {
		buf = slices.Grow(buf[:0], n)[:n]
		_, err = io.ReadFull(in.r, buf)
	} else {
		var b bytes.Buffer
		_, err = io.CopyN(&b, in.r, int64(n))
		buf = b.Bytes()
	}
	if err != nil {
		return buf, fmt.Errorf("%w: %w", ErrExport, err)
	}
	in.sum.Write(buf)
	return buf, nil
}

func (in *importer) size() (int, error) {
	var err error
	if in.length, err = in.read(in.length, 4); err != nil {
		return 0, err
	}
	n := binary.BigEndian.Uint32(in.length)
	if n > maxRow {
		return 0, fmt.Errorf("%w: a row of %d bytes", ErrExport, n)
	}
	return int(n), nil
}

func (in *importer) head() error {
	b, err := in.read(nil, len(exportMagic))
	if err != nil {
		return err
	}
	if string(b) != exportMagic {
		return ErrExport
	}
	if b, err = in.read(b, 4); err != nil {
		return err
	}
	if f := binary.BigEndian.Uint32(b); f != exportFormat {
		return fmt.Errorf("export format %d: %w", f, ErrFormat)
	}
	return nil
}

// rows copies the rows, and checks the end.
func (in *importer) rows(store *kv.Store) error {
	filling := store.Fill()
	var n uint64
	for {
		more, err := in.row()
		if err == nil && more {
			n++
			err = filling.Set(in.key, in.value)
		}
		if err == nil && !more {
			if err = in.tail(n); err == nil {
				return filling.Close()
			}
		}
		if err != nil {
			return errors.Join(err, filling.Discard())
		}
	}
}

// row reads one row; false at the end.
func (in *importer) row() (more bool, err error) {
	n, err := in.size()
	if err != nil || n == 0 {
		return false, err
	}
	in.last, in.key = in.key, in.last
	if in.key, err = in.read(in.key, n); err != nil {
		return false, err
	}
	if bytes.Compare(in.key, in.last) <= 0 {
		return false, fmt.Errorf("%w: rows out of order", ErrExport)
	}
	if n, err = in.size(); err != nil {
		return false, err
	}
	in.value, err = in.read(in.value, n)
	return true, err
}

func (in *importer) tail(n uint64) error {
	b, err := in.read(nil, 8)
	if err != nil {
		return err
	}
	if got := binary.BigEndian.Uint64(b); got != n {
		return fmt.Errorf("%w: %d rows, it says %d", ErrExport, n, got)
	}
	want := in.sum.Sum(nil)
	got, err := in.read(nil, len(want))
	if err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("%w: checksum differs", ErrExport)
	}
	return nil
}
