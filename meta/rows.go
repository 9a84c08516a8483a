package meta

import (
	"bytes"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/pontoon-registry/pontoon/meta/kv"
)

// source is where rows are read: a snapshot, or what Apply has so far.
type source interface {
	// get appends the value to buf.
	get(key, buf []byte) (value []byte, found bool, err error)
	// scan calls fn for the rows in [low, high) in order until it answers
	// false. Key and value are valid until fn returns.
	scan(low, high []byte, fn func(key, value []byte) bool) error
}

// stored is a source on the store.
type stored struct{ kv.Reader }

func (s stored) get(key, buf []byte) ([]byte, bool, error) { return s.Get(key, buf) }

func (s stored) scan(low, high []byte, fn func(key, value []byte) bool) (err error) {
	it, err := s.Iterate(low, high)
	if err != nil {
		return err
	}
	defer func() {
		if closed := it.Close(); err == nil {
			err = closed
		}
	}()
	for ok := it.First(); ok; ok = it.Next() {
		if !fn(it.Key(), it.Value()) {
			break
		}
	}
	return nil
}

// rows reads typed rows. The first failure of the store sticks in err, and
// from then on every row reads as absent: the caller looks at err once, at its end, and
// must believe nothing if it is set.
type rows struct {
	src source
	err error
	// key and val are reused: a key made in key is valid until the next lookup.
	key, val []byte
}

// read reads the row at key into m; false when there is none.
func (r *rows) read(key []byte, m proto.Message) bool {
	r.key = key
	if r.err != nil {
		return false
	}
	val, found, err := r.src.get(key, r.val[:0])
	r.val = val
	if err != nil || !found {
		r.fail(err)
		return false
	}
	return r.decode(key, val, m)
}

// has says whether there is a row at key.
func (r *rows) has(key []byte) bool {
	r.key = key
	if r.err != nil {
		return false
	}
	val, found, err := r.src.get(key, r.val[:0])
	r.val = val
	r.fail(err)
	return found && err == nil
}

// scan walks the rows under prefix, above the key after if that is not nil.
func (r *rows) scan(prefix, after []byte, fn func(key, value []byte) bool) {
	low := bytes.Clone(prefix)
	if after != nil {
		low = next(after)
	}
	r.walk(low, beyond(prefix), fn)
}

// walk walks the rows in [low, high).
func (r *rows) walk(low, high []byte, fn func(key, value []byte) bool) {
	if r.err != nil {
		return
	}
	r.fail(r.src.scan(low, high, func(k, v []byte) bool {
		return fn(k, v) && r.err == nil
	}))
}

// first answers the first key in [low, high), nil when there is none.
func (r *rows) first(low, high []byte) (key []byte) {
	r.walk(low, high, func(k, _ []byte) bool {
		key = bytes.Clone(k)
		return false
	})
	return key
}

// any says whether there is a row under prefix.
func (r *rows) any(prefix []byte) bool {
	return r.first(bytes.Clone(prefix), beyond(prefix)) != nil
}

// decode reads a value. A row that is not what was written is a failure of this
// node's store, not of the command (M2).
func (r *rows) decode(key, value []byte, m proto.Message) bool {
	if err := proto.Unmarshal(value, m); err != nil {
		r.fail(&kv.Error{Op: "decode", Err: fmt.Errorf("row %x: %w", key, err)})
		return false
	}
	return true
}

func (r *rows) fail(err error) {
	if r.err == nil && err != nil {
		r.err = err
	}
}

// list gathers at most n items of the rows under prefix above after, and
// whether there are more. item answers false for a row that does not count.
func list[T any](r *rows, prefix, after []byte, n int, item func(rest, value []byte) (T, bool)) (out []T, more bool, err error) {
	size := len(prefix)
	r.scan(prefix, after, func(k, v []byte) bool {
		it, ok := item(k[size:], v)
		if !ok {
			return true
		}
		if len(out) >= n {
			more = true
			return false
		}
		out = append(out, it)
		return true
	})
	if r.err != nil {
		return nil, false, r.err
	}
	return out, more, nil
}

// afterName answers the key of name under prefix, to list above it; nil begins.
func afterName(prefix []byte, name string) []byte {
	if name == "" {
		return nil
	}
	return addName(bytes.Clone(prefix), name)
}

// afterDigest is afterName for rows whose keys end with a digest.
func afterDigest(prefix []byte, d Digest) []byte {
	if d == "" {
		return nil
	}
	return append(bytes.Clone(prefix), d...)
}
