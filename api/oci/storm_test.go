package oci

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pontoon-registry/pontoon/blobs"
	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// dice is a source that many requests share.
type dice struct {
	mu  sync.Mutex
	rng *rand.Rand
}

func newDice(seed uint64) *dice { return &dice{rng: rand.New(rand.NewPCG(seed, 11))} }

func (d *dice) n(n int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rng.IntN(n)
}

// unsure is a ledger whose commands are lost on the way there, or whose answers on the way back.
type unsure struct {
	meta.Ledger
	dice *dice
}

func (l *unsure) Propose(ctx context.Context, c *metav1.Command) (*metav1.Result, error) {
	lost := func(kind metav1.Kind) error { return meta.Refuse(kind, metav1.Noun_NOUN_CLUSTER, "lost") }
	switch l.dice.n(12) {
	case 0:
		return nil, lost(metav1.Kind_KIND_UNAVAILABLE)
	case 1:
		_, err := l.Ledger.Propose(ctx, c)
		return nil, errors.Join(lost(metav1.Kind_KIND_OUTCOME_UNKNOWN), err)
	}
	return l.Ledger.Propose(ctx, c)
}

// shaky is a store whose calls fail, before or after their effect.
type shaky struct {
	blobs.Store
	dice *dice
}

func (s *shaky) fails() error {
	if s.dice.n(15) == 0 {
		return fmt.Errorf("shaken: %w", blobs.ErrUnavailable)
	}
	return nil
}

func (s *shaky) Writer(ctx context.Context, a blobs.Attempt) (blobs.Writer, error) {
	if err := s.fails(); err != nil {
		return nil, err
	}
	w, err := s.Store.Writer(ctx, a)
	return &shakyWriter{w, s}, err
}

func (s *shaky) Finish(ctx context.Context, n blobs.Name, p blobs.Progress) (blobs.Finished, error) {
	if err := s.fails(); err != nil {
		return blobs.Finished{}, err
	}
	f, err := s.Store.Finish(ctx, n, p)
	if failed := s.fails(); err == nil && failed != nil {
		return blobs.Finished{}, failed
	}
	return f, err
}

type shakyWriter struct {
	blobs.Writer
	s *shaky
}

func (w *shakyWriter) Close(ctx context.Context) (blobs.Progress, error) {
	if err := w.s.fails(); err != nil {
		w.Abandon()
		return blobs.Progress{}, err
	}
	return w.Writer.Close(ctx)
}

// storm is many clients that write few uploads through several nodes, with two
// contents of one length, and repeat, break off and cancel as they like.
type storm struct {
	*rig
	dice  *dice
	nodes []string
	// pair answers two contents of one length.
	pair func(n int) [2][]byte
	meet chan struct{}

	// mu guards what follows.
	mu   sync.Mutex
	locs []string
	// contents are those of each upload: half of the uploads share the first pair.
	contents map[string][2][]byte
	bad      []string
}

func (s *storm) complain(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bad = append(s.bad, fmt.Sprintf(format, args...))
}

// ask sends one request to some node; a broken one is answered 0.
func (s *storm) ask(method, path string, body io.Reader, header ...string) (status int, answer http.Header) {
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.nodes[s.dice.n(len(s.nodes))]+path, body)
	if err != nil {
		s.complain("%v", err)
		return 0, nil
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := s.client.Do(req)
	if err != nil {
		return 0, nil
	}
	text, _ := io.ReadAll(res.Body)
	_ = res.Body.Close()
	if res.StatusCode >= 500 && res.StatusCode != http.StatusServiceUnavailable || strings.Contains(string(text), `"errors":[]`) {
		s.complain("%s %s: %d %s", method, path, res.StatusCode, text)
	}
	return res.StatusCode, res.Header
}

// offsetOf asks where an upload is, -1 when it does not say.
func (s *storm) offsetOf(loc string) int {
	status, header := s.ask("GET", loc, nil)
	end := 0
	if status != http.StatusNoContent {
		return -1
	}
	if _, err := fmt.Sscanf(header.Get("Range"), "0-%d", &end); err != nil {
		s.complain("range %q", header.Get("Range"))
	}
	if end > 0 {
		end++
	}
	return end
}

// location answers an upload that others may write too.
func (s *storm) location() string {
	s.mu.Lock()
	if n := len(s.locs); n > 0 && s.dice.n(8) > 0 {
		defer s.mu.Unlock()
		return s.locs[n-1-s.dice.n(min(n, 2))]
	}
	s.mu.Unlock()
	status, header := s.ask("POST", "/v2/a/blobs/uploads/", nil)
	if status != http.StatusAccepted {
		return ""
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	loc := header.Get("Location")
	s.locs = append(s.locs, loc)
	s.contents[loc] = s.pair(s.dice.n(2) * len(s.locs))
	return loc
}

// content is one of the two that an upload may get.
func (s *storm) content(loc string) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.contents[loc][s.dice.n(2)]
}

// body is some bytes, which may break off, with or without a length, or in whose midst others write.
func (s *storm) body(data []byte, depth int) io.Reader {
	switch s.dice.n(6) {
	case 0:
		return &breaking{bytes.NewReader(data), func() error { return io.ErrClosedPipe }}
	case 1:
		return struct{ io.Reader }{bytes.NewReader(data)}
	case 2, 3, 4:
		if depth >= 3 {
			break
		}
		half := s.dice.n(len(data) + 1)
		meanwhile := &breaking{bytes.NewReader(data[:half]), func() error {
			if s.dice.n(4) == 0 {
				s.step(depth + 1)
				return io.EOF
			}
			select { // two requests in the midst of their bodies go on together
			case s.meet <- struct{}{}:
			case <-s.meet:
			case <-time.After(5 * time.Millisecond): // nobody came
			}
			return io.EOF
		}}
		return io.MultiReader(meanwhile, bytes.NewReader(data[half:]))
	}
	return bytes.NewReader(data)
}

// step is one request with what precedes it; deeper ones run in the midst of another's body.
func (s *storm) step(depth int) {
	loc := s.location()
	if loc == "" {
		return
	}
	data := s.content(loc)
	at := s.offsetOf(loc)
	if at < 0 || at > len(data) {
		return
	}
	end := len(data) // as often as not, so that what is whole waits for its commit while others write on
	if s.dice.n(2) == 0 {
		end = at + s.dice.n(len(data)-at+1)
	}
	var header []string
	if s.dice.n(2) == 0 && end > at {
		header = []string{"Content-Range", fmt.Sprintf("%d-%d", at, end-1)}
	}
	switch s.dice.n(12) {
	case 0:
		s.ask("DELETE", loc, nil)
	case 1, 2:
		s.ask("PUT", loc+"?digest="+sha(data), nil)
	case 3, 4, 5:
		if header != nil {
			header[1] = fmt.Sprintf("%d-%d", at, len(data)-1)
		}
		s.ask("PUT", loc+"?digest="+sha(data), s.body(data[at:], depth), header...)
	case 6:
		s.ask("POST", "/v2/a/blobs/uploads/?digest="+sha(data), s.body(data, depth))
	default:
		s.ask("PATCH", loc, s.body(data[at:end], depth), header...)
	}
}

func TestNoStormMakesABlobOfOtherBytes(t *testing.T) {
	stores(t, func(t *testing.T, store blobs.Store) {
		committed := 0
		for seed := range uint64(40) {
			d := newDice(seed)
			s := &storm{dice: d, meet: make(chan struct{}), contents: map[string][2][]byte{}}
			s.rig = newRigOn(t, &shaky{store, d}, func(c *Config) {
				c.Ledger = &unsure{c.Ledger, d}
				c.SaveBytes = 2 << 10
			})
			s.nodes = []string{s.url}
			for range 2 {
				_, url := s.node()
				s.nodes = append(s.nodes, url)
			}
			unit := 1 << 10
			if seed%2 == 1 {
				unit = 100 // less than a part: one object, whose length alone says whether it is whole (R-A1)
			}
			shared := content("shared", 4*unit)
			s.pair = func(n int) (p [2][]byte) {
				for i := range p {
					p[i] = append(bytes.Clone(shared), content(fmt.Sprint(seed, n, i), 5*unit)...)
				}
				return p
			}
			var clients sync.WaitGroup
			for range 4 {
				clients.Go(func() {
					for range 12 {
						s.step(0)
					}
				})
			}
			clients.Wait()
			seen := map[string]bool{}
			for _, pair := range s.contents {
				for _, data := range pair {
					if seen[string(data)] {
						continue
					}
					seen[string(data)] = true
					p := s.do("GET", "/v2/a/blobs/"+sha(data), nil)
					if p.StatusCode == 200 && !bytes.Equal(p.body, data) {
						t.Errorf("seed %d: the blob has other bytes", seed)
					}
					if p.StatusCode == 200 {
						committed++
					}
				}
			}
			for _, text := range s.bad {
				t.Errorf("seed %d: %s", seed, text)
			}
		}
		if committed == 0 {
			t.Error("nothing was ever committed")
		}
		t.Logf("%d blobs committed", committed)
	})
}
