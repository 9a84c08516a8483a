package proxy

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// keeps says whether the body of the request is needed again.
func (e *Effect) keeps() bool { return e.Do == Late || e.Do == LateLost || e.Do == Twice }

// serve answers one request, as it is or spoilt.
func (s *S3) serve(w http.ResponseWriter, r *http.Request, node string) {
	if !s.enter() {
		abort(w)
		return
	}
	defer s.group.Done()
	q := &request{Request: r, node: node}
	q.operation, _, q.key = operationOf(r.Method, r.URL, r.Header)
	q.spoil = s.pick(q)
	if q.spoil == nil {
		s.forward(w, q)
		return
	}
	e := q.spoil.Effect
	switch e.Do {
	case Refuse:
		refuse(w, q)
	case Hang:
		s.hang(r, q.spoil)
		abort(w)
	case Stale:
		s.stale(w, q)
	case Lag:
		if pass(r.Context(), s.late, e.For) {
			s.forward(w, q)
		}
	case Late, LateLost, Twice:
		s.later(w, q)
	default: // Lose, Truncate, Corrupt: done to the answer
		s.forward(w, q)
	}
}

// forward sends a request to the server and answers with what comes, through answered.
func (s *S3) forward(w http.ResponseWriter, q *request) {
	s.proxy.ServeHTTP(w, q.WithContext(context.WithValue(q.Context(), requestKey{}, q)))
}

// hang takes the body and says nothing.
func (s *S3) hang(r *http.Request, rule *armed) {
	_, _ = io.Copy(io.Discard, r.Body) // its end is seen by the context
	var end <-chan time.Time
	if rule.Effect.For > 0 {
		t := time.NewTimer(rule.Effect.For)
		defer t.Stop()
		end = t.C
	}
	select {
	case <-end:
	case <-rule.lifted:
	case <-r.Context().Done():
	case <-s.late.Done():
	}
}

// later does a request after a while: instead of now, or once more.
func (s *S3) later(w http.ResponseWriter, q *request) {
	body, err := s.keep(q)
	if err != nil {
		abort(w)
		return
	}
	again := q.Clone(context.WithoutCancel(q.Context()))
	deliver := func() { s.group.Go(func() { defer s.forget(body); s.deliver(q, again, body) }) }
	switch q.spoil.Effect.Do {
	case LateLost:
		deliver()
		abort(w)
	case Twice:
		defer deliver() // also when the client has gone away
		s.forward(w, q)
	default: // Late: the answer is the client's, if he waits for it
		defer s.forget(body)
		if !pass(s.late, s.late, q.spoil.Effect.For) {
			s.dropped(q)
			abort(w)
			return
		}
		ctx, cancel := context.WithTimeout(again.Context(), lateTime)
		defer cancel()
		defer context.AfterFunc(s.late, cancel)()
		q.Request = q.WithContext(ctx)
		s.forward(w, q)
	}
}

// deliver does a request of which nobody waits for the answer. The client signed it minutes ago; a server takes it for a
// quarter of an hour.
func (s *S3) deliver(q *request, again *http.Request, body []byte) {
	if !pass(s.late, s.late, q.spoil.Effect.For) {
		s.dropped(q)
		return
	}
	ctx, cancel := context.WithTimeout(s.late, lateTime)
	defer cancel()
	again = again.WithContext(ctx)
	again.URL.Scheme, again.URL.Host = "http", s.target // Host stays what the client signed
	again.RequestURI = ""
	again.Header.Del("Expect")
	again.Body = io.NopCloser(bytes.NewReader(body))
	if len(body) == 0 {
		again.Body = http.NoBody
	}
	answer, err := s.transport.RoundTrip(again)
	if err != nil {
		s.dropped(q)
		return
	}
	_, _ = io.Copy(io.Discard, answer.Body) // nobody waits for it
	answer.Body.Close()
}

func (s *S3) dropped(q *request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts[q.spoil.Name].Dropped++
}

var errLost = errors.New("the answer is lost")

// answered spoils what the server said, or remembers it.
func (s *S3) answered(answer *http.Response) error {
	q, _ := answer.Request.Context().Value(requestKey{}).(*request)
	if q.spoil == nil {
		return s.remember(q, answer)
	}
	e := q.spoil.Effect
	switch {
	case e.Do == Lose:
		_, _ = io.Copy(io.Discard, answer.Body) // done, whatever it says
		answer.Body.Close()
		pass(q.Context(), s.late, e.For)
		return errLost
	case answer.ContentLength <= 0 || q.Method == http.MethodHead:
	case e.Do == Truncate:
		answer.Body = &truncated{ReadCloser: answer.Body, left: answer.ContentLength / 2}
	case e.Do == Corrupt:
		if e.Bare {
			for name := range answer.Header {
				if strings.HasPrefix(name, "X-Amz-Checksum-") {
					answer.Header.Del(name)
				}
			}
		}
		bit := int64(q.at * float64(8*answer.ContentLength))
		answer.Body = &corrupted{ReadCloser: answer.Body, at: bit / 8, bit: 1 << (bit % 8)}
	}
	return nil
}

// broken answers for a server that did not, or whose answer is lost: by a reset.
func (s *S3) broken(w http.ResponseWriter, _ *http.Request, _ error) { abort(w) }

// refuse answers as S3 does, without asking it.
func refuse(w http.ResponseWriter, q *request) {
	_, _ = io.CopyN(io.Discard, q.Body, maxBody) // who is still sending would see a reset instead
	name := q.spoil.Effect.Code
	if name == "" {
		name = "SlowDown"
	}
	status, message := errorOf(name)
	body, err := xml.Marshal(struct {
		XMLName   xml.Name `xml:"Error"`
		Code      string
		Message   string
		Resource  string
		RequestID string `xml:"RequestId"`
	}{Code: name, Message: message, Resource: q.URL.Path, RequestID: "CHAOS"})
	if err != nil { // strings always marshal
		abort(w)
		return
	}
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	if q.Method != http.MethodHead {
		fmt.Fprintf(w, "%s%s", xml.Header, body)
	}
}

// abort resets the client's connection.
func abort(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil { // taken already
		return
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		reset(tcp)
	}
	conn.Close()
}

// pass waits, and says false when one of the contexts ended before.
func pass(ctx, other context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
		return false
	case <-other.Done():
		return false
	}
	return true
}

// truncated ends in the middle.
type truncated struct {
	io.ReadCloser
	left int64
}

func (b *truncated) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, io.ErrUnexpectedEOF
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

// corrupted has one bit wrong.
type corrupted struct {
	io.ReadCloser
	at  int64 // the byte, from where the stream is
	bit byte
}

func (b *corrupted) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.at >= 0 && b.at < int64(n) {
		p[b.at] ^= b.bit
	}
	b.at -= int64(n)
	return n, err
}
