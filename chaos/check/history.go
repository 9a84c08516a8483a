package check

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// ErrFull is a history that had no room for an operation. What it holds proves nothing any more.
var ErrFull = errors.New("the history is full: take what is judged out of it more often, or make it larger")

// maxError bounds the text of an error in the file.
const maxError = 512

// Record is one line of a history's file; one of its fields is set.
type Record struct {
	Run       *Run       `json:"run,omitempty"`
	Operation *Operation `json:"op,omitempty"`
	Fault     *Fault     `json:"fault,omitempty"`
}

// Run is the first line of a history's file.
type Run struct {
	Seed  uint64    `json:"seed"`
	Began time.Time `json:"began"`
}

// History records what all clients do at once. It writes every operation to a file as a line of JSON and keeps it until
// it is taken, at most limit of them; of those that were taken a Sample stays, and each TagPut whole, some 400 bytes.
// Safe for concurrent use.
type History struct {
	began time.Time
	limit int

	mu      sync.Mutex // guards what follows
	out     *bufio.Writer
	encoder *json.Encoder
	ops     []Operation
	writes  []Operation
	samples []Sample
	faults  []Fault
	err     error
}

// NewHistory begins a history of a seed now. Out may be nil; limit bounds the operations that are kept and not yet taken.
func NewHistory(out io.Writer, seed uint64, limit int) *History {
	if out == nil {
		out = io.Discard
	}
	h := &History{began: time.Now(), limit: limit, out: bufio.NewWriterSize(out, 64<<10)}
	h.encoder = json.NewEncoder(h.out)
	h.write(Record{Run: &Run{Seed: seed, Began: h.began}})
	return h
}

// Began is the zero of all times of the history.
func (h *History) Began() time.Time { return h.began }

// Now is the time since the begin, by the monotonic clock.
func (h *History) Now() time.Duration { return time.Since(h.began) }

// Add records an operation that is over. A zero Return is now.
func (h *History) Add(o Operation) {
	if o.Return == 0 {
		o.Return = h.Now()
	}
	o.Error = o.Error[:min(len(o.Error), maxError)]
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := o.validate(); err != nil {
		h.fail(fmt.Errorf("record %s of client %d: %w", o.Kind, o.Client, err))
		return
	}
	if len(h.ops) >= h.limit {
		h.fail(ErrFull)
		return
	}
	h.ops = append(h.ops, o)
	if o.Kind == TagPut {
		h.writes = append(h.writes, o)
	}
	if s, ok := sampleOf(&o); ok {
		h.samples = append(h.samples, s)
	}
	h.write(Record{Operation: &o})
}

// AddFault records a fault that is over.
func (h *History) AddFault(f Fault) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.faults = append(h.faults, f)
	h.write(Record{Fault: &f})
}

func (h *History) write(r Record) {
	if err := h.encoder.Encode(r); err != nil {
		h.fail(fmt.Errorf("write history: %w", err))
	}
}

// fail keeps the first failure.
func (h *History) fail(err error) {
	if h.err == nil {
		h.err = err
	}
}

// Take removes and returns, in the order of their end, the operations that which picks; nil picks all. A repository is
// taken when nobody uses it any more and its requests are over, so that its whole history is judged together.
func (h *History) Take(which func(*Operation) bool) []Operation {
	h.mu.Lock()
	defer h.mu.Unlock()
	var taken, left []Operation
	for i := range h.ops {
		if which == nil || which(&h.ops[i]) {
			taken = append(taken, h.ops[i])
		} else {
			left = append(left, h.ops[i])
		}
	}
	h.ops = left
	return taken
}

// Writes are all operations of the kind TagPut so far, the taken ones too.
func (h *History) Writes() []Operation {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]Operation(nil), h.writes...)
}

// Samples are the times and outcomes of all requests so far, the taken ones too.
func (h *History) Samples() []Sample {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]Sample(nil), h.samples...)
}

// Faults are those that are over.
func (h *History) Faults() []Fault {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]Fault(nil), h.faults...)
}

// Len is the number of requests so far, the taken ones too.
func (h *History) Len() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.samples)
}

// Err is the first failure: the history is not whole, and the run void.
func (h *History) Err() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.err
}

// Flush writes what is buffered.
func (h *History) Flush() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.out.Flush(); err != nil {
		h.fail(fmt.Errorf("write history: %w", err))
	}
	return h.err
}
