package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"slices"
	"sync"
	"time"
)

const (
	maxBody  = 16 << 20  // of a request that is kept to be done later, in bytes
	maxKept  = 128 << 20 // of all such
	lateTime = time.Minute
)

// S3Config is what a fault layer is opened with.
type S3Config struct {
	Target string // of the server, host:port
	Seed   uint64 // of every chance
}

// S3 is the fault layer before an S3 server. Clients come by doors, one for each node, so that a rule can be for one.
type S3 struct {
	target    string
	transport *http.Transport
	proxy     *httputil.ReverseProxy
	stop      context.CancelFunc
	late      context.Context // what is done later ends with it; ended by stop alone
	group     sync.WaitGroup  // serving, answering and delivering

	mu       sync.Mutex // guards what follows
	chance   *rand.Rand
	rules    []*armed
	counts   map[string]*Count
	requests map[Operation]int64
	doors    map[string]*door
	lists    lists
	kept     int64 // bytes of requests to be done later
	pending  int   // such requests
	closed   bool
}

type door struct {
	addr   string
	server *http.Server
}

// request is one on its way to the server.
type request struct {
	*http.Request
	node      string
	operation Operation
	key       string
	spoil     *armed // nil: nothing
	at        float64
}

type requestKey struct{}

// NewS3 is a layer without doors.
func NewS3(c S3Config) *S3 {
	late, stop := context.WithCancel(context.Background())
	s := &S3{
		target: c.Target, stop: stop, late: late,
		transport: &http.Transport{
			DialContext:         (&net.Dialer{Timeout: dialTimeout}).DialContext,
			MaxIdleConnsPerHost: 64, IdleConnTimeout: time.Minute, ExpectContinueTimeout: time.Second,
			DisableCompression: true, // an Accept-Encoding of ours would not be in the signature
		},
		chance: rand.New(rand.NewPCG(c.Seed, c.Seed)), counts: map[string]*Count{},
		requests: map[Operation]int64{}, doors: map[string]*door{}, lists: lists{},
	}
	s.proxy = &httputil.ReverseProxy{
		Rewrite: s.rewrite, Transport: s.transport, ModifyResponse: s.answered, ErrorHandler: s.broken,
		ErrorLog: log.New(io.Discard, "", 0), // every error is one that a test asked for, or that it sees
	}
	return s
}

// Door is the address by which a node reaches the server; it is opened when it is asked for first.
func (s *S3) Door(node string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d := s.doors[node]; d != nil {
		return d.addr, nil
	}
	if s.closed {
		return "", fmt.Errorf("open a door for %s: the layer is closed", node)
	}
	listener, err := (&net.ListenConfig{}).Listen(s.late, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("open a door for %s: %w", node, err)
	}
	d := &door{addr: listener.Addr().String(), server: &http.Server{
		Handler:           http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.serve(w, r, node) }),
		ReadHeaderTimeout: time.Minute, ErrorLog: s.proxy.ErrorLog,
	}}
	s.doors[node] = d
	s.group.Go(func() { _ = d.server.Serve(listener) }) // ends by Close
	return d.addr, nil
}

// Arm puts rules in force, after those that are. Of all that meet a request the first is done. The function takes them back.
func (s *S3) Arm(rules ...Rule) (lift func(), err error) {
	var added []*armed
	for _, r := range rules {
		if err := r.Validate(); err != nil {
			return nil, err
		}
		added = append(added, &armed{Rule: r, lifted: make(chan struct{})})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rules = append(slices.Clip(s.rules), added...)
	for _, r := range added {
		if s.counts[r.Name] == nil {
			s.counts[r.Name] = &Count{}
		}
	}
	return sync.OnceFunc(func() { s.lift(added) }), nil
}

func (s *S3) lift(rules []*armed) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rules = slices.DeleteFunc(slices.Clone(s.rules), func(r *armed) bool { return slices.Contains(rules, r) })
	for _, r := range rules {
		close(r.lifted)
	}
}

// Counts is what became of every rule that there was, by its name.
func (s *S3) Counts() map[string]Count {
	s.mu.Lock()
	defer s.mu.Unlock()
	counts := map[string]Count{}
	for name, c := range s.counts {
		counts[name] = *c
	}
	return counts
}

// Requests counts what was asked for, whatever became of it.
func (s *S3) Requests() map[Operation]int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.requests)
}

// Pending is how many requests are still to be done later.
func (s *S3) Pending() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pending
}

// Close ends every connection, drops what was to be done later, and waits until nothing of the layer runs.
func (s *S3) Close() error {
	s.mu.Lock()
	s.closed = true
	doors := slices.Collect(maps.Values(s.doors))
	s.mu.Unlock()
	s.stop()
	var errs []error
	for _, d := range doors {
		errs = append(errs, d.server.Close())
	}
	s.group.Wait()
	s.transport.CloseIdleConnections()
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close the S3 layer: %w", err)
	}
	return nil
}

// enter lets the handlers be waited for; it says false once the layer is closed.
func (s *S3) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.group.Add(1)
	}
	return !s.closed
}

// pick finds the rule that is done to a request, and takes the chance.
func (s *S3) pick(q *request) *armed {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests[q.operation]++
	for _, r := range s.rules {
		if !r.meets(q) {
			continue
		}
		count := s.counts[r.Name]
		count.Met++
		r.met++
		if r.met <= r.After || (r.Times > 0 && r.fired == r.Times) || (r.Chance > 0 && s.chance.Float64() >= r.Chance) {
			continue
		}
		if r.Effect.keeps() && (q.ContentLength < 0 || q.ContentLength > maxBody || s.kept+q.ContentLength > maxKept) {
			count.TooBig++
			continue
		}
		if r.Effect.Do == Stale && s.lists[listKey(q.Request)] == nil {
			continue // nobody has asked this before: it is answered, and the answer remembered
		}
		r.fired++
		count.Fired++
		q.at = s.chance.Float64()
		return r
	}
	return nil
}

// rewrite sends a request on as it came. The path, the query and the Host header are in its signature.
func (s *S3) rewrite(p *httputil.ProxyRequest) {
	p.Out.URL.Scheme, p.Out.URL.Host = "http", s.target
	p.Out.URL.RawQuery = p.In.URL.RawQuery
	p.Out.Host = p.In.Host
}

// keep reads the body of a request that is done later or again, within the bounds that pick has looked at.
func (s *S3) keep(q *request) ([]byte, error) {
	body := make([]byte, q.ContentLength)
	if _, err := io.ReadFull(q.Body, body); err != nil {
		return nil, fmt.Errorf("read the body of %s %s: %w", q.operation, q.key, err)
	}
	q.Body = io.NopCloser(bytes.NewReader(body))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept += int64(len(body))
	s.pending++
	return body, nil
}

// forget gives back what keep has taken.
func (s *S3) forget(body []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept -= int64(len(body))
	s.pending--
}
