package blobstest

import (
	"context"
	"iter"

	"github.com/pontoon-registry/pontoon/blobs"
)

// FaultyArchive is an Archive that fails, delays and doubles chosen calls to
// another. Its actions are put, get, list and delete; "any" counts and hits all of them together. Safe for concurrent use.
type FaultyArchive struct {
	archive blobs.Archive
	f       *Faulty
}

// NewFaultyArchive answers a FaultyArchive over archive.
func NewFaultyArchive(archive blobs.Archive, faults ...Fault) *FaultyArchive {
	return &FaultyArchive{archive: archive, f: NewFaulty(nil, faults...)}
}

// Set replaces the faults and begins to count anew.
func (f *FaultyArchive) Set(faults ...Fault) { f.f.Set(faults...) }

// Calls answers how many calls of the action there were since the last Set.
func (f *FaultyArchive) Calls(action string) int { return f.f.Calls(action) }

func (f *FaultyArchive) do(ctx context.Context, action string, call func() error) error {
	return f.f.do(ctx, "any", func() error { return f.f.do(ctx, action, call) })
}

// Put implements blobs.Archive.
func (f *FaultyArchive) Put(ctx context.Context, name string, body []byte) error {
	return f.do(ctx, "put", func() error { return f.archive.Put(ctx, name, body) })
}

// Get implements blobs.Archive.
func (f *FaultyArchive) Get(ctx context.Context, name string) (body []byte, err error) {
	err = f.do(ctx, "get", func() (err error) { body, err = f.archive.Get(ctx, name); return err })
	if err != nil {
		return nil, err
	}
	return body, nil
}

// List implements blobs.Archive; a fault ends it before it begins.
func (f *FaultyArchive) List(ctx context.Context, prefix, after string) iter.Seq2[blobs.Object, error] {
	return func(yield func(blobs.Object, error) bool) {
		if err := f.do(ctx, "list", func() error { return nil }); err != nil {
			yield(blobs.Object{}, err)
			return
		}
		f.archive.List(ctx, prefix, after)(yield)
	}
}

// Delete implements blobs.Archive.
func (f *FaultyArchive) Delete(ctx context.Context, names ...string) error {
	return f.do(ctx, "delete", func() error { return f.archive.Delete(ctx, names...) })
}
