package kv

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	// tableRows bounds a table that a Filling writes, in bytes of rows.
	tableRows = 64 << 20
	// roomRows is after how many bytes of rows a Filling asks for room: as many as a batch has.
	roomRows = 4 << 20
)

// Filling fills an empty store with rows in key order. They go into tables that are moved in, past log, write buffer and
// compactions: several times as fast as batches. Rows are visible, and durable, by the table. Every Filling ends with Close
// or Discard; after an error or a crash the store holds a part of the rows.
type Filling struct {
	store *Store
	table *Table
	path  string
	// bound is that of a table.
	bound int
	// tables counts them; rows is what the current one has, asked what it had when there was room last.
	tables, rows, asked int
}

// Fill begins one.
func (s *Store) Fill() *Filling { return &Filling{store: s, bound: tableRows} }

// Set writes a row; keys must ascend.
func (f *Filling) Set(key, value []byte) error {
	if f.table != nil && f.rows >= f.bound {
		if err := f.move(); err != nil {
			return err
		}
	}
	if f.table == nil || f.rows-f.asked >= roomRows {
		if err := f.store.room(); err != nil {
			return &Error{Op: "fill", Err: err}
		}
		f.asked = f.rows
	}
	if f.table == nil {
		if err := f.begin(); err != nil {
			return err
		}
	}
	f.rows += len(key) + len(value)
	return f.table.Set(key, value)
}

func (f *Filling) fs() vfs.FS {
	if f.store.opts.FS == nil {
		return vfs.Default
	}
	return f.store.opts.FS
}

// begin opens the next table, in the store's own directory, where moving is a link.
func (f *Filling) begin() (err error) {
	f.tables++
	f.path = f.fs().PathJoin(f.store.dir, fmt.Sprintf("filling-%06d", f.tables))
	f.table, err = f.store.NewTable(f.path)
	f.rows, f.asked = 0, 0
	return err
}

// move ends the table and gives it to the store.
func (f *Filling) move() error {
	defer f.store.watch("move rows into the state")()
	err := f.table.Close()
	f.table = nil
	if err == nil {
		err = f.store.Ingest(context.Background(), f.path)
	}
	if err != nil {
		return errors.Join(err, f.remove())
	}
	return nil
}

// Close moves in what is left.
func (f *Filling) Close() error {
	if f.table == nil {
		return nil
	}
	return f.move()
}

// Discard drops what was not moved in yet.
func (f *Filling) Discard() error {
	if f.table == nil {
		return nil
	}
	closed := f.table.Close()
	f.table = nil
	return errors.Join(closed, f.remove())
}

// remove removes the table that was not moved in.
func (f *Filling) remove() error {
	if err := f.fs().Remove(f.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return &Error{Op: "discard", Err: err}
	}
	return nil
}
