package meta

import (
	"bytes"

	"google.golang.org/protobuf/proto"

	"github.com/pontoon-registry/pontoon/meta/kv"
)

// rewriter changes the rows of a store that nobody uses, reading them as they were when it began. Its writes go in
// batches of a bounded size, in an order that depends on the rows alone, and are chained: so two
// rewritings of one state end with one hash (M9). Its first failure sticks, as that of rows does.
type rewriter struct {
	rows
	store *kv.Store
	batch *kv.Batch
	// writes are those of the batch that are not in the chain yet.
	writes []write
	head   link
	// bound is the size of a batch, in bytes.
	bound int
}

// each decodes every row of a range into row and calls fn.
func (w *rewriter) each(r byte, row proto.Message, fn func(key []byte)) {
	w.scan(oneRow(nil, r), nil, func(k, value []byte) bool {
		proto.Reset(row)
		if w.decode(k, value, row) {
			fn(bytes.Clone(k))
		}
		return w.err == nil
	})
}

// drop deletes every row of a range.
func (w *rewriter) drop(r byte) {
	w.scan(oneRow(nil, r), nil, func(k, _ []byte) bool {
		w.del(bytes.Clone(k))
		return w.err == nil
	})
}

func (w *rewriter) put(key []byte, row proto.Message) {
	value, err := encoding.Marshal(row)
	w.fail(err)
	w.set(key, value)
}

func (w *rewriter) set(key, value []byte) {
	if w.err == nil {
		w.fail(w.batch.Set(key, value))
		w.wrote(write{key: string(key), value: value})
	}
}

func (w *rewriter) del(key []byte) {
	if w.err == nil {
		w.fail(w.batch.Delete(key))
		w.wrote(write{key: string(key), del: true})
	}
}

func (w *rewriter) wrote(one write) {
	w.writes = append(w.writes, one)
	if w.batch.Len() >= w.bound {
		w.flush()
	}
}

// chain takes the writes since the last call into the hash.
func (w *rewriter) chain() {
	w.head = w.head.extend(w.writes)
	w.writes = w.writes[:0]
}

// flush commits the batch and begins another one, which the caller discards in the end.
func (w *rewriter) flush() {
	if w.err != nil {
		return
	}
	w.chain()
	if err := w.batch.Commit(); err != nil {
		w.fail(err)
		return
	}
	w.batch = w.store.Batch()
}
