package kv

import "github.com/cockroachdb/pebble/v2"

// Iterator walks rows in key order:
//
//	for ok := it.First(); ok; ok = it.Next() { it.Key(); it.Value() }
//	err := it.Close()
type Iterator struct {
	it  *pebble.Iterator
	err error
}

func iterate(r pebble.Reader, low, high []byte) (_ *Iterator, err error) {
	defer guard("iterate", &err)
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: low, UpperBound: high})
	if err != nil {
		return nil, err
	}
	return &Iterator{it: it}, nil
}

// First goes to the first row; false when there is none, or after an error.
func (i *Iterator) First() bool {
	return i.step(func() bool { return i.it.First() })
}

// Next goes to the next row; false after the last, or after an error.
func (i *Iterator) Next() bool {
	return i.step(func() bool { return i.it.Next() })
}

// Seek goes to the first row at or above key.
func (i *Iterator) Seek(key []byte) bool {
	return i.step(func() bool { return i.it.SeekGE(key) })
}

// Last goes to the last row.
func (i *Iterator) Last() bool {
	return i.step(func() bool { return i.it.Last() })
}

func (i *Iterator) step(move func() bool) (ok bool) {
	if i.err != nil {
		return false
	}
	defer func() {
		guard("iterate", &i.err)
		ok = ok && i.err == nil
	}()
	ok = move()
	return ok
}

// Key answers the row's key, valid until the next move.
func (i *Iterator) Key() []byte { return i.it.Key() }

// Value answers the row's value, valid until the next move. It is nil after a
// failure to read it, which Close then reports.
func (i *Iterator) Value() (value []byte) {
	defer guard("iterate", &i.err)
	value, err := i.it.ValueAndErr()
	if err != nil && i.err == nil {
		i.err = err
	}
	return value
}

// Close ends the walk and answers the first error of all of it.
func (i *Iterator) Close() (err error) {
	defer guard("iterate", &err)
	err = i.it.Close()
	if i.err != nil {
		return i.err
	}
	return err
}
