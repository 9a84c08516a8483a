package kv

import (
	"errors"

	"github.com/cockroachdb/pebble/v2"
)

// Batch gathers writes and reads through them. Nothing is visible elsewhere
// before Commit. Every Batch ends with Commit or Discard.
type Batch struct {
	b     *pebble.Batch
	store *Store
}

// Batch begins one.
func (s *Store) Batch() *Batch { return &Batch{b: s.db.NewIndexedBatch(), store: s} }

// Get implements Reader.
func (b *Batch) Get(key, buf []byte) ([]byte, bool, error) { return get(b.b, key, buf) }

// Iterate implements Reader. Writes made while the Iterator is open are not seen by it.
func (b *Batch) Iterate(low, high []byte) (*Iterator, error) { return iterate(b.b, low, high) }

// Set writes a row.
func (b *Batch) Set(key, value []byte) (err error) {
	defer guard("set", &err)
	return b.b.Set(key, value, nil)
}

// Delete removes a row; an absent one is no error.
func (b *Batch) Delete(key []byte) (err error) {
	defer guard("delete", &err)
	return b.b.Delete(key, nil)
}

// Len answers the size of the writes so far, in bytes.
func (b *Batch) Len() int { return b.b.Len() }

// Commit applies the writes, unsynced, and ends the Batch, also with an error.
func (b *Batch) Commit() error {
	return b.store.write("commit", func() error {
		if err := b.store.room(); err != nil {
			return errors.Join(err, b.b.Close())
		}
		defer b.store.watch("commit to the state")()
		if err := b.b.Commit(pebble.NoSync); err != nil {
			return err
		}
		return b.b.Close()
	})
}

// Discard drops the writes and ends the Batch.
func (b *Batch) Discard() (err error) {
	defer guard("discard", &err)
	return b.b.Close()
}
