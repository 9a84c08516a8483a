package meta

import (
	"maps"
	"slices"

	"github.com/pontoon-registry/pontoon/meta/kv"
)

// overlay is the write buffer of one command over what Apply has so far (M3):
// it is dropped on refusal and on panic, and read through meanwhile.
type overlay struct {
	base   *kv.Batch
	writes map[string]write
}

func (o *overlay) get(key, buf []byte) ([]byte, bool, error) {
	if w, ok := o.writes[string(key)]; ok {
		if w.del {
			return buf, false, nil
		}
		return append(buf, w.value...), true, nil
	}
	return o.base.Get(key, buf)
}

// scan merges the buffer with the rows below. fn may write: it sees the rows as
// they were when the scan began.
func (o *overlay) scan(low, high []byte, fn func(key, value []byte) bool) (err error) {
	mine := o.within(low, high)
	it, err := o.base.Iterate(low, high)
	if err != nil {
		return err
	}
	defer func() {
		if closed := it.Close(); err == nil {
			err = closed
		}
	}()
	below := it.First()
	for below || len(mine) > 0 {
		if len(mine) == 0 || below && string(it.Key()) < mine[0].key {
			if !fn(it.Key(), it.Value()) {
				return nil
			}
			below = it.Next()
			continue
		}
		w := mine[0]
		mine = mine[1:]
		if below && string(it.Key()) == w.key {
			below = it.Next()
		}
		if !w.del && !fn([]byte(w.key), w.value) {
			return nil
		}
	}
	return nil
}

// within answers the buffered writes in [low, high), sorted.
func (o *overlay) within(low, high []byte) (out []write) {
	for k, w := range o.writes {
		if k >= string(low) && (high == nil || k < string(high)) {
			out = append(out, w)
		}
	}
	slices.SortFunc(out, byKey)
	return out
}

// sorted answers all buffered writes in key order.
func (o *overlay) sorted() []write {
	return slices.SortedFunc(maps.Values(o.writes), byKey)
}

func byKey(a, b write) int {
	switch {
	case a.key < b.key:
		return -1
	case a.key > b.key:
		return 1
	}
	return 0
}

func (o *overlay) set(key, value []byte) {
	k := string(key)
	o.writes[k] = write{key: k, value: value}
}

func (o *overlay) del(key []byte) {
	k := string(key)
	o.writes[k] = write{key: k, del: true}
}
