package blobs

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"
)

// Call is one thing a Store was asked for and what came of it.
type Call struct {
	// Action is open, read, stat, writer, write, save, close, abandon, finish,
	// abort, delete, list, listmultiparts or presign. read is a stream from its opening to its end,
	// write all that one Writer took.
	Action string
	// Took is the time inside the Store; of list the whole iteration, its consumer included.
	Took time.Duration
	// Bytes is what was moved; for actions that move none it is 0.
	Bytes int64
	Err   error
}

// Observer is told of every call when it ends. It must be quick and safe for concurrent use.
type Observer interface {
	Observe(Call)
}

// Meter answers a Store that tells o of every call to store.
func Meter(store Store, o Observer) Store {
	return &meter{Store: store, o: o}
}

// meter passes Boundary and Reserve through: they are pure.
type meter struct {
	Store
	o Observer
}

func (m *meter) observe(action string, begin time.Time, bytes int64, err error) {
	m.o.Observe(Call{Action: action, Took: time.Since(begin), Bytes: bytes, Err: err})
}

func (m *meter) Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	begin := time.Now()
	r, err := m.Store.Open(ctx, key, offset, length)
	m.observe("open", begin, 0, err)
	if err != nil {
		return nil, err
	}
	return &meteredReader{ReadCloser: r, m: m}, nil
}

func (m *meter) Stat(ctx context.Context, key string) (int64, error) {
	begin := time.Now()
	size, err := m.Store.Stat(ctx, key)
	m.observe("stat", begin, 0, err)
	return size, err
}

func (m *meter) Writer(ctx context.Context, a Attempt) (Writer, error) {
	begin := time.Now()
	w, err := m.Store.Writer(ctx, a)
	m.observe("writer", begin, 0, err)
	if err != nil {
		return nil, err
	}
	return &meteredWriter{Writer: w, m: m}, nil
}

func (m *meter) Finish(ctx context.Context, attempt Name, p Progress) (Finished, error) {
	begin := time.Now()
	f, err := m.Store.Finish(ctx, attempt, p)
	m.observe("finish", begin, f.Size, err)
	return f, err
}

func (m *meter) AbortMultipart(ctx context.Context, key, id string) error {
	begin := time.Now()
	err := m.Store.AbortMultipart(ctx, key, id)
	m.observe("abort", begin, 0, err)
	return err
}

func (m *meter) Delete(ctx context.Context, keys ...string) error {
	begin := time.Now()
	err := m.Store.Delete(ctx, keys...)
	m.observe("delete", begin, 0, err)
	return err
}

func (m *meter) List(ctx context.Context, prefix, after string) iter.Seq2[Object, error] {
	return meterSeq(m, "list", m.Store.List(ctx, prefix, after))
}

func (m *meter) ListMultiparts(ctx context.Context, prefix string) iter.Seq2[Multipart, error] {
	return meterSeq(m, "listmultiparts", m.Store.ListMultiparts(ctx, prefix))
}

func (m *meter) Presign(ctx context.Context, key string, lifetime time.Duration) (string, error) {
	begin := time.Now()
	url, err := m.Store.Presign(ctx, key, lifetime)
	m.observe("presign", begin, 0, err)
	return url, err
}

func meterSeq[T any](m *meter, action string, seq iter.Seq2[T, error]) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		begin := time.Now()
		var last error
		for v, err := range seq {
			last = err
			if !yield(v, err) {
				break
			}
		}
		m.observe(action, begin, 0, last)
	}
}

// meteredReader counts only the time inside Read: a slow client is not a slow store.
type meteredReader struct {
	io.ReadCloser
	m     *meter
	took  time.Duration
	bytes int64
	err   error
	ended bool
}

func (r *meteredReader) Read(p []byte) (int, error) {
	begin := time.Now()
	n, err := r.ReadCloser.Read(p)
	r.took += time.Since(begin)
	r.bytes += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		r.err = err
	}
	return n, err
}

func (r *meteredReader) Close() error {
	err := r.ReadCloser.Close()
	if !r.ended {
		r.ended = true
		r.m.o.Observe(Call{Action: "read", Took: r.took, Bytes: r.bytes, Err: r.err})
	}
	return err
}

type meteredWriter struct {
	Writer
	m     *meter
	took  time.Duration
	bytes int64
	err   error
	ended bool
}

func (w *meteredWriter) Write(p []byte) (int, error) {
	begin := time.Now()
	n, err := w.Writer.Write(p)
	w.took += time.Since(begin)
	w.bytes += int64(n)
	if err != nil {
		w.err = err
	}
	return n, err
}

func (w *meteredWriter) Save(ctx context.Context) (Progress, error) {
	begin := time.Now()
	p, err := w.Writer.Save(ctx)
	w.m.observe("save", begin, 0, err)
	return p, err
}

func (w *meteredWriter) Close(ctx context.Context) (Progress, error) {
	begin := time.Now()
	p, err := w.Writer.Close(ctx)
	w.m.observe("close", begin, 0, err)
	w.end()
	return p, err
}

func (w *meteredWriter) Abandon() {
	begin := time.Now()
	w.Writer.Abandon()
	if !w.ended {
		w.m.observe("abandon", begin, 0, nil)
	}
	w.end()
}

func (w *meteredWriter) end() {
	if !w.ended {
		w.ended = true
		w.m.o.Observe(Call{Action: "write", Took: w.took, Bytes: w.bytes, Err: w.err})
	}
}
