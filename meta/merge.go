package meta

import (
	"bytes"

	"github.com/pontoon-registry/pontoon/meta/kv"
)

// nearby is how many rows a cursor steps over before it seeks: a step costs a tenth of a seek.
const nearby = 16

// cursor walks one range of a view in step with another: its rows are in the same order. Nothing is held in memory.
type cursor struct {
	it *kv.Iterator
	ok bool
}

// cursor begins at the first row at or above low, below high. A failure sticks in the view as any other.
func (v *View) cursor(low, high []byte) *cursor {
	if v.err != nil {
		return &cursor{}
	}
	it, err := v.at.snap.Iterate(low, high)
	if err != nil {
		v.fail(err)
		return &cursor{}
	}
	return &cursor{it: it, ok: it.First()}
}

func (c *cursor) next() { c.ok = c.it.Next() }

// to goes on to the first row at or above key.
func (c *cursor) to(key []byte) {
	for i := 0; c.ok && bytes.Compare(c.it.Key(), key) < 0; i++ {
		if i == nearby {
			c.ok = c.it.Seek(key)
			return
		}
		c.ok = c.it.Next()
	}
}

// within goes on to the first row at or above prefix, and says whether it is under it.
func (c *cursor) within(prefix []byte) bool {
	c.to(prefix)
	return c.ok && bytes.HasPrefix(c.it.Key(), prefix)
}

// close ends the walks: only then is it known whether they failed.
func (v *View) closeAll(cs ...*cursor) {
	for _, c := range cs {
		if c.it != nil {
			v.fail(c.it.Close())
		}
	}
}
