package api

import (
	"io"
	"net/http"
	"sync"
	"time"
)

// response stands between a handler and the connection. It counts, adds Server-Timing, and cuts a client
// that takes nothing (A2). It keeps what the connection can do: ReadFrom reaches sendfile, and
// http.ResponseController finds the rest through Unwrap. Not safe for concurrent use, as any ResponseWriter.
type response struct {
	inner http.ResponseWriter
	ctl   *http.ResponseController
	x     *exchange
	// idle is how long one write may stand still.
	idle time.Duration
	// closing says whether clients are told to go elsewhere (A4).
	closing func() bool

	// body is the request's, nil without one.
	body *body

	status  int
	written int64
	// cut: the answer cannot be completed, the connection must go.
	cut bool

	mu       sync.Mutex // guards extended, and the order of write deadlines
	extended time.Time
}

// chunk is how much is handed to the connection at once: the write deadline holds for each, so a living client
// must take a chunk within it (128 KiB in 60 s is 2.2 KiB/s).
const chunk = 128 * kib

func (w *response) Header() http.Header { return w.inner.Header() }

// Unwrap is for http.ResponseController.
func (w *response) Unwrap() http.ResponseWriter { return w.inner }

func (w *response) WriteHeader(status int) {
	if w.status == 0 && status >= 200 || status == http.StatusSwitchingProtocols {
		w.status = status
		h := w.inner.Header()
		h.Set("Server-Timing", w.x.timing.header(time.Since(w.x.begin)))
		if w.closing() {
			h.Set("Connection", "close") // HTTP/2: net/http makes it a GOAWAY
		}
	}
	w.inner.WriteHeader(status)
}

func (w *response) Write(p []byte) (int, error) {
	return pour(w, p, w.inner.Write)
}

// WriteString spares handlers that use io.WriteString a copy.
func (w *response) WriteString(s string) (int, error) {
	return pour(w, s, func(part string) (int, error) { return io.WriteString(w.inner, part) })
}

// pour writes p in chunks.
func pour[T string | []byte](w *response, p T, write func(T) (int, error)) (total int, err error) {
	w.start()
	for {
		part := p[total:min(len(p), total+chunk)]
		begin := w.extend(len(part) == chunk)
		n, err := write(part)
		total += n
		w.wrote(begin, int64(n))
		if err != nil || total == len(p) {
			return total, err
		}
	}
}

// ReadFrom copies src in chunks, each of which may be a sendfile. It looks through one io.LimitedReader, because
// the kernel's fast path does not look through two.
func (w *response) ReadFrom(src io.Reader) (int64, error) {
	w.start()
	limited, ok := src.(*io.LimitedReader)
	if !ok {
		limited = &io.LimitedReader{R: src, N: 1<<63 - 1}
	}
	var total int64
	for limited.N > 0 {
		want := min(limited.N, chunk)
		n, err := w.copyChunk(&io.LimitedReader{R: limited.R, N: want})
		total += n
		limited.N -= n
		if err != nil || n < want {
			return total, err
		}
	}
	return total, nil
}

func (w *response) copyChunk(part *io.LimitedReader) (n int64, err error) {
	begin := w.extend(true)
	if rf, ok := w.inner.(io.ReaderFrom); ok {
		n, err = rf.ReadFrom(part)
	} else {
		n, err = io.Copy(struct{ io.Writer }{w.inner}, part)
	}
	w.wrote(begin, n)
	return n, err
}

// Flush is for handlers that ask for an http.Flusher.
func (w *response) Flush() { _ = w.FlushError() }

// FlushError is for http.ResponseController.
func (w *response) FlushError() error {
	w.start()
	begin := w.extend(false)
	err := w.ctl.Flush()
	w.wrote(begin, 0)
	return err
}

func (w *response) start() {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
}

func (w *response) wrote(begin time.Time, n int64) {
	w.written += n
	w.x.waited.Add(int64(time.Since(begin)))
}

// extend moves the write deadline. Small writes leave it when it is nearly fresh, which spares them the timer.
func (w *response) extend(whole bool) time.Time {
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	if whole || now.Sub(w.extended) >= w.idle/8 {
		w.extended = now
		_ = w.ctl.SetWriteDeadline(now.Add(w.idle)) // a recorder in a test has none
	}
	return now
}

// SetWriteDeadline is for http.ResponseController. A handler's deadline holds until its next write.
func (w *response) SetWriteDeadline(t time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.extended = time.Time{}
	return w.ctl.SetWriteDeadline(t)
}

// SetReadDeadline is for http.ResponseController. From then on the handler watches over its body itself: were it moved
// here as well, a deadline that was meant to interrupt a read could be lost.
func (w *response) SetReadDeadline(t time.Time) error {
	if w.body == nil {
		return w.ctl.SetReadDeadline(t)
	}
	return w.body.setDeadline(t)
}

// finish prepares the connection for what net/http does after the handler: it sends what is buffered, and
// reads what is left of the body. Both are bounded.
func (w *response) finish() {
	now := time.Now()
	_ = w.ctl.SetWriteDeadline(now.Add(w.idle))
	if w.body != nil && !w.body.ended.Load() {
		_ = w.ctl.SetReadDeadline(now.Add(min(w.idle, 5*time.Second)))
	}
}
