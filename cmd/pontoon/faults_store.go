//go:build faults

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"time"

	"github.com/pontoon-registry/pontoon/blobs"
	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// storeErrors are what a rule's error stands for where a store is asked.
var storeErrors = map[string]error{
	"": blobs.ErrUnavailable, "unavailable": blobs.ErrUnavailable, "notfound": blobs.ErrNotFound, "corrupt": blobs.ErrCorrupt,
	"noroom": blobs.ErrNoRoom, "exists": blobs.ErrExists, "changed": blobs.ErrChanged,
}

// asked makes a call of a store between its two points.
func (f *faults) asked(point, detail string, call func() error) error {
	return stored(f.around(point, func() string { return detail }, call))
}

// stored is an injected error as a store would answer it.
func stored(err error) error {
	var i *injected
	if errors.As(err, &i) {
		return fmt.Errorf("%w: %w", i, storeErrors[i.kind])
	}
	return err
}

// faultyStore is a store of layers; name is who asks.
type faultyStore struct {
	blobs.Store
	f    *faults
	name string
}

func (f *faults) store(name string, s blobs.Store) blobs.Store {
	if f == nil {
		return s
	}
	return &faultyStore{s, f, name}
}

func (s *faultyStore) Open(ctx context.Context, key string, offset, length int64) (r io.ReadCloser, err error) {
	err = s.f.asked(s.name+".open", key, func() error { r, err = s.Store.Open(ctx, key, offset, length); return err })
	if err != nil && r != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, err
}

func (s *faultyStore) Stat(ctx context.Context, key string) (size int64, err error) {
	err = s.f.asked(s.name+".stat", key, func() error { size, err = s.Store.Stat(ctx, key); return err })
	return size, err
}

func (s *faultyStore) Writer(ctx context.Context, a blobs.Attempt) (blobs.Writer, error) {
	var w blobs.Writer
	detail := nameText(a.Name)
	err := s.f.asked(s.name+".writer", detail, func() (err error) { w, err = s.Store.Writer(ctx, a); return err })
	if err != nil {
		if w != nil {
			w.Abandon()
		}
		return nil, err
	}
	return &faultyWriter{w, s, detail}, nil
}

func (s *faultyStore) Finish(ctx context.Context, attempt blobs.Name, p blobs.Progress) (done blobs.Finished, err error) {
	err = s.f.asked(s.name+".finish", nameText(attempt), func() error { done, err = s.Store.Finish(ctx, attempt, p); return err })
	return done, err
}

func (s *faultyStore) AbortMultipart(ctx context.Context, key, id string) error {
	return s.f.asked(s.name+".abort", key+" "+id, func() error { return s.Store.AbortMultipart(ctx, key, id) })
}

func (s *faultyStore) Delete(ctx context.Context, keys ...string) error {
	return s.f.asked(s.name+".delete", strings.Join(keys, " "), func() error { return s.Store.Delete(ctx, keys...) })
}

func (s *faultyStore) List(ctx context.Context, prefix, after string) iter.Seq2[blobs.Object, error] {
	return brokenList(s.f, s.name+".list", prefix, s.Store.List(ctx, prefix, after))
}

func (s *faultyStore) ListMultiparts(ctx context.Context, prefix string) iter.Seq2[blobs.Multipart, error] {
	return brokenList(s.f, s.name+".listmultiparts", prefix, s.Store.ListMultiparts(ctx, prefix))
}

func (s *faultyStore) Presign(ctx context.Context, key string, lifetime time.Duration) (url string, err error) {
	err = s.f.asked(s.name+".presign", key, func() error { url, err = s.Store.Presign(ctx, key, lifetime); return err })
	return url, err
}

// brokenList is a listing; after is after the last that it yielded.
func brokenList[T any](f *faults, point, prefix string, all iter.Seq2[T, error]) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		goOn := true
		err := f.asked(point, prefix, func() error {
			for v, err := range all {
				if goOn = yield(v, err); !goOn {
					return nil
				}
			}
			return nil
		})
		if err != nil && goOn {
			var none T
			yield(none, err)
		}
	}
}

func nameText(n blobs.Name) string { return n.Epoch + "/" + n.Upload + "/" + n.Attempt }

// faultyWriter is a writer of one attempt.
type faultyWriter struct {
	blobs.Writer
	s      *faultyStore
	detail string
}

func (w *faultyWriter) Write(p []byte) (n int, err error) {
	err = w.s.f.asked(w.s.name+".write", w.detail, func() error { n, err = w.Writer.Write(p); return err })
	return n, err
}

func (w *faultyWriter) Save(ctx context.Context) (p blobs.Progress, err error) {
	err = w.s.f.asked(w.s.name+".save", w.detail, func() error { p, err = w.Writer.Save(ctx); return err })
	return p, err
}

func (w *faultyWriter) Close(ctx context.Context) (p blobs.Progress, err error) {
	before := w.s.f.rules.at(w.s.name+".close.before", func() string { return w.detail })
	if before != nil { // a Writer ends with Close, also with an error
		w.Writer.Abandon()
		return p, stored(before)
	}
	p, err = w.Writer.Close(ctx)
	if after := w.s.f.rules.at(w.s.name+".close.after", func() string { return fmt.Sprintf("%s error=%v", w.detail, err) }); after != nil {
		return blobs.Progress{}, stored(after)
	}
	return p, err
}

func (w *faultyWriter) Abandon() {
	detail := func() string { return w.detail }
	_ = w.s.f.rules.at(w.s.name+".abandon.before", detail) // it cannot fail
	w.Writer.Abandon()
	_ = w.s.f.rules.at(w.s.name+".abandon.after", detail)
}

// faultyObjects is where the owner mark is.
type faultyObjects struct {
	blobs.Objects
	f *faults
}

func (f *faults) objects(o blobs.Objects) blobs.Objects {
	if f == nil || o == nil {
		return o
	}
	return &faultyObjects{o, f}
}

func (o *faultyObjects) Get(ctx context.Context, name string) (body []byte, version string, err error) {
	err = o.f.asked("mark.get", name, func() error { body, version, err = o.Objects.Get(ctx, name); return err })
	return body, version, err
}

func (o *faultyObjects) PutIfAbsent(ctx context.Context, name string, body []byte) (version string, err error) {
	err = o.f.asked("mark.put", name+" absent", func() error { version, err = o.Objects.PutIfAbsent(ctx, name, body); return err })
	return version, err
}

func (o *faultyObjects) PutIfMatch(ctx context.Context, name string, body []byte, version string) (next string, err error) {
	err = o.f.asked("mark.put", name+" "+version, func() error { next, err = o.Objects.PutIfMatch(ctx, name, body, version); return err })
	return next, err
}

// faultyArchive is the place of backups.
type faultyArchive struct {
	blobs.Archive
	f *faults
}

func (f *faults) archive(a blobs.Archive) blobs.Archive {
	if f == nil || a == nil {
		return a
	}
	return &faultyArchive{a, f}
}

func (a *faultyArchive) Put(ctx context.Context, name string, body []byte) error {
	return a.f.asked("archive.put", name, func() error { return a.Archive.Put(ctx, name, body) })
}

func (a *faultyArchive) Get(ctx context.Context, name string) (body []byte, err error) {
	err = a.f.asked("archive.get", name, func() error { body, err = a.Archive.Get(ctx, name); return err })
	return body, err
}

func (a *faultyArchive) List(ctx context.Context, prefix, after string) iter.Seq2[blobs.Object, error] {
	return brokenList(a.f, "archive.list", prefix, a.Archive.List(ctx, prefix, after))
}

func (a *faultyArchive) Delete(ctx context.Context, names ...string) error {
	return a.f.asked("archive.delete", strings.Join(names, " "), func() error { return a.Archive.Delete(ctx, names...) })
}

// faultyLedger is the ledger as this node's callers see it.
type faultyLedger struct {
	meta.Ledger
	f *faults
}

func (f *faults) ledger(l meta.Ledger) meta.Ledger {
	if f == nil {
		return l
	}
	f.mu.Lock()
	f.shown = l
	f.mu.Unlock()
	return &faultyLedger{l, f}
}

func (l *faultyLedger) View(ctx context.Context, read meta.Read, fn func(*meta.View) error) error {
	return ledgerError(l.f.around("ledger.view", func() string { return "" }, func() error { return l.Ledger.View(ctx, read, fn) }))
}

func (l *faultyLedger) Propose(ctx context.Context, c *metav1.Command) (result *metav1.Result, err error) {
	text := describeCommand(c) // before it is proposed: it belongs to the ledger then
	err = ledgerError(l.f.around("ledger.propose", func() string { return text }, func() error {
		result, err = l.Ledger.Propose(ctx, c)
		return err
	}))
	return result, err
}

// ledgerError is an injected error as a ledger would answer it.
func ledgerError(err error) error {
	var i *injected
	switch {
	case !errors.As(err, &i):
		return err
	case strings.HasSuffix(i.point, ".before") || i.point == "ledger.view.after":
		return meta.Refuse(metav1.Kind_KIND_UNAVAILABLE, metav1.Noun_NOUN_CLUSTER, "%v", i)
	}
	return meta.Refuse(metav1.Kind_KIND_OUTCOME_UNKNOWN, metav1.Noun_NOUN_CLUSTER, "%v", i)
}
