package kv

import (
	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Table writes a file for Ingest.
type Table struct{ w *sstable.Writer }

// NewTable creates the file at path, on the store's file system.
func (s *Store) NewTable(path string) (t *Table, err error) {
	defer guard("create table "+path, &err)
	fs := s.opts.FS
	if fs == nil {
		fs = vfs.Default
	}
	f, err := fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, err
	}
	o := s.opts.MakeWriterOptions(0, s.db.TableFormat())
	return &Table{w: sstable.NewWriter(objstorageprovider.NewFileWritable(f), o)}, nil
}

// Set adds a row; keys must ascend.
func (t *Table) Set(key, value []byte) (err error) {
	defer guard("write table", &err)
	return t.w.Set(key, value)
}

// Close syncs and closes the file.
func (t *Table) Close() (err error) {
	defer guard("close table", &err)
	return t.w.Close()
}
