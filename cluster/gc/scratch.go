package gc

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"github.com/pontoon-registry/pontoon/meta"
	"github.com/pontoon-registry/pontoon/meta/kv"
)

// scratch is an ordered store on disk for what is recomputed, so that memory does not grow with it. Its keys are one
// kind byte and then what the ledger's keys of the same noun hold, in the same order: so the two can be merged.
type scratch struct {
	dir   string
	store *kv.Store
	batch *kv.Batch
	err   error
}

// Kinds of scratch rows.
const (
	// scratchNeed: blob, repository, manifest → 1 if the body is a blob.
	scratchNeed byte = iota + 1
	// scratchLink: blob, repository: what the repository's bytes count.
	scratchLink
	// scratchChild: repository, child, index.
	scratchChild
	// scratchReferrer: repository, subject, artifact type, manifest.
	scratchReferrer
	// scratchTagged: repository, manifest, tag.
	scratchTagged
	// scratchGraced: repository, blob.
	scratchGraced
	// scratchSum: repository → tally. scratchProject: project → tally. scratchBody: digest → tally (manifests).
	scratchSum
	scratchProject
	scratchBody
)

// scratchBatch is how many bytes are gathered before they are written.
const scratchBatch = 1 << 20

func openScratch(parent string) (*scratch, error) {
	dir, err := os.MkdirTemp(parent, "pontoon-verify-")
	if err != nil {
		return nil, fmt.Errorf("make a temporary folder: %w", err)
	}
	store, err := kv.Open(dir, kv.Options{})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open a temporary store in %s: %w", dir, err), os.RemoveAll(dir))
	}
	return &scratch{dir: dir, store: store, batch: store.Batch()}, nil
}

func (s *scratch) close() error {
	err := errors.Join(s.batch.Discard(), s.store.Close(), os.RemoveAll(s.dir))
	if err != nil {
		return fmt.Errorf("remove the temporary store %s: %w", s.dir, err)
	}
	return nil
}

// set writes a row. The first failure sticks in err.
func (s *scratch) set(key, value []byte) {
	if s.err == nil {
		s.err = s.batch.Set(key, value)
	}
	if s.err == nil && s.batch.Len() > scratchBatch {
		s.flush()
	}
}

func (s *scratch) flush() {
	if s.err == nil {
		s.err = s.batch.Commit()
		s.batch = s.store.Batch()
	}
}

func (s *scratch) get(key []byte) ([]byte, bool) {
	if s.err != nil {
		return nil, false
	}
	value, found, err := s.batch.Get(key, nil)
	s.err = err
	return value, found
}

// tally are sums of one repository, project or body.
type tally struct{ repositories, bytes, manifests, tags int64 }

func (t tally) encode() []byte {
	var b []byte
	for _, n := range []int64{t.repositories, t.bytes, t.manifests, t.tags} {
		b = binary.AppendVarint(b, n)
	}
	return b
}

func decodeTally(b []byte) (t tally) {
	for _, n := range []*int64{&t.repositories, &t.bytes, &t.manifests, &t.tags} {
		value, size := binary.Varint(b)
		if size <= 0 {
			return t
		}
		*n, b = value, b[size:]
	}
	return t
}

// add adds to a tally.
func (s *scratch) add(key []byte, n tally) {
	old, _ := s.get(key)
	sum := decodeTally(old)
	sum.repositories += n.repositories
	sum.bytes += n.bytes
	sum.manifests += n.manifests
	sum.tags += n.tags
	s.set(key, sum.encode())
}

// each walks the rows of a kind.
func (s *scratch) each(kind byte, fn func(rest, value []byte) error) error {
	s.flush()
	if s.err != nil {
		return s.err
	}
	it, err := s.store.Iterate([]byte{kind}, []byte{kind + 1})
	if err != nil {
		return err
	}
	for ok := it.First(); ok; ok = it.Next() {
		if err := fn(it.Key()[1:], it.Value()); err != nil {
			return errors.Join(err, it.Close())
		}
	}
	return it.Close()
}

// compare merges the rows of a kind with those of the ledger, which walk must call found with in order: it tells missing of
// what only scratch has, and answers of each of the ledger's whether scratch has it, with the value.
func (s *scratch) compare(kind byte, missing func(rest []byte) error, walk func(found func(rest []byte) (value []byte, both bool, err error)) error) error {
	s.flush()
	if s.err != nil {
		return s.err
	}
	it, err := s.store.Iterate([]byte{kind}, []byte{kind + 1})
	if err != nil {
		return err
	}
	ok := it.First()
	err = walk(func(rest []byte) ([]byte, bool, error) {
		for ok {
			switch c := bytes.Compare(it.Key()[1:], rest); {
			case c == 0:
				value := bytes.Clone(it.Value())
				ok = it.Next()
				return value, true, nil
			case c > 0:
				return nil, false, nil
			}
			if err := missing(it.Key()[1:]); err != nil {
				return nil, false, err
			}
			ok = it.Next()
		}
		return nil, false, nil
	})
	for ; ok && err == nil; ok = it.Next() {
		err = missing(it.Key()[1:])
	}
	return errors.Join(err, it.Close())
}

// Parts of keys, as in meta/keys.go.

func addName(k []byte, name string) []byte      { return append(append(k, name...), 0) }
func addDigest(k []byte, d meta.Digest) []byte  { return append(k, d...) }
func nameKey(kind byte, name string) []byte     { return addName([]byte{kind}, name) }
func digestKey(kind byte, d meta.Digest) []byte { return addDigest([]byte{kind}, d) }
func inRepository(kind byte, repository string, d meta.Digest) []byte {
	return addDigest(nameKey(kind, repository), d)
}

func linkKey(kind byte, l meta.Link) []byte {
	return addDigest(addName(digestKey(kind, l.Blob), l.Repository), l.Manifest)
}

func cutName(k []byte) (name string, rest []byte) {
	name1, rest, _ := bytes.Cut(k, []byte{0})
	return string(name1), rest
}

// cutDigest cuts a digest off: its algorithm byte says how long it is.
func cutDigest(k []byte) (d meta.Digest, rest []byte) {
	if len(k) == 0 {
		return "", nil
	}
	n := 1 + map[byte]int{meta.SHA256: 32, meta.SHA512: 64, meta.SHA384: 48}[k[0]]
	if len(k) < n {
		return "", nil
	}
	return meta.Digest(k[:n]), k[n:]
}

func cutLink(k []byte) (l meta.Link) {
	l.Blob, k = cutDigest(k)
	l.Repository, k = cutName(k)
	l.Manifest, _ = cutDigest(k)
	return l
}
