//go:build faults

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// exitFaults is the exit code of a process that a rule ended.
const exitFaults = 86

// longestPause ends every pause: a test that forgets one must not hang for ever.
const longestPause = 10 * time.Minute

// rule says what happens at a point; see faults.
type rule struct {
	ID     int      `json:"id"`
	Point  string   `json:"point"`
	Match  string   `json:"match,omitempty"`
	Action string   `json:"action"`
	For    duration `json:"for,omitempty"`
	Error  string   `json:"error,omitempty"`
	Skip   int      `json:"skip,omitempty"`
	Times  int      `json:"times,omitempty"`

	// Hits matched, Acted of them were acted on, Held wait now; At is the detail of the last that was acted on.
	Hits  int    `json:"hits"`
	Acted int    `json:"acted"`
	Held  int    `json:"held"`
	At    string `json:"at,omitempty"`

	// deleted is closed when the rule is taken away.
	deleted chan struct{}
}

func (r *rule) check() error {
	switch {
	case r.Point == "":
		return errors.New("rule: point is missing")
	case !slices.Contains([]string{"pause", "sleep", "fail", "exit"}, r.Action):
		return fmt.Errorf("rule: action is %q, must be pause, sleep, fail or exit", r.Action)
	case r.Action == "sleep" && (r.For <= 0 || time.Duration(r.For) > longestPause):
		return fmt.Errorf("rule: for is %v, must be above 0 and at most %v", time.Duration(r.For), longestPause)
	case r.Skip < 0 || r.Times < 0:
		return fmt.Errorf("rule: skip is %d and times %d, must not be negative", r.Skip, r.Times)
	}
	if _, known := storeErrors[r.Error]; !known {
		return fmt.Errorf("rule: error is %q, which is none", r.Error)
	}
	return nil
}

func (r *rule) covers(point string) bool {
	if prefix, ok := strings.CutSuffix(r.Point, "*"); ok {
		return strings.HasPrefix(point, prefix)
	}
	return r.Point == point
}

// injected is the error of a rule; kind is its Error.
type injected struct{ point, kind string }

func (e *injected) Error() string { return "a test wants it so at " + e.point }

// rules are those of a node, in the order in which they were made. Safe for concurrent use.
type rules struct {
	// exit ends the process.
	exit func(point, detail string)

	mu     sync.Mutex // guards what follows
	all    []*rule
	last   int
	points map[string]int
}

// at is a point: the first rule that covers it and has something left to do acts. detail is asked only when it matters.
func (rs *rules) at(point string, detail func() string) error {
	rs.mu.Lock()
	if rs.points == nil {
		rs.points = map[string]int{}
	}
	rs.points[point]++
	r, text := rs.choose(point, detail)
	if r == nil {
		rs.mu.Unlock()
		return nil
	}
	r.Acted++
	r.At = text
	waits := r.Action == "pause" || r.Action == "sleep"
	if waits {
		r.Held++
	}
	action, kind, wait, deleted := r.Action, r.Error, time.Duration(r.For), r.deleted
	rs.mu.Unlock()
	switch action {
	case "exit":
		rs.exit(point, text)
	case "fail":
		return &injected{point, kind}
	case "pause":
		wait = longestPause
	}
	rest(wait, deleted)
	rs.mu.Lock()
	r.Held--
	rs.mu.Unlock()
	return nil
}

// choose counts the hit and answers the rule that acts on it. For whoever holds mu.
func (rs *rules) choose(point string, detail func() string) (*rule, string) {
	text, asked := "", false
	for _, r := range rs.all {
		if !r.covers(point) {
			continue
		}
		if !asked {
			text, asked = point+" "+detail(), true
		}
		if !strings.Contains(text, r.Match) {
			continue
		}
		r.Hits++
		if r.Hits > r.Skip && (r.Times == 0 || r.Acted < r.Times) {
			return r, text
		}
	}
	return nil, ""
}

func rest(d time.Duration, deleted <-chan struct{}) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-deleted:
	}
}

// add makes a rule and answers its id.
func (rs *rules) add(r rule) (int, error) {
	if err := r.check(); err != nil {
		return 0, err
	}
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.last++
	r.ID, r.Hits, r.Acted, r.Held, r.deleted = rs.last, 0, 0, 0, make(chan struct{})
	rs.all = append(rs.all, &r)
	return r.ID, nil
}

// get answers a rule as it is now.
func (rs *rules) get(id int) (rule, bool) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	for _, r := range rs.all {
		if r.ID == id {
			return *r, true
		}
	}
	return rule{}, false
}

// remove takes a rule away, lets go of who it holds, and answers what it was.
func (rs *rules) remove(id int) (rule, bool) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	for i, r := range rs.all {
		if r.ID == id {
			rs.all = slices.Delete(rs.all, i, i+1)
			close(r.deleted)
			return *r, true
		}
	}
	return rule{}, false
}

func (rs *rules) clear() {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	for _, r := range rs.all {
		close(r.deleted)
	}
	rs.all = nil
}

// list answers the rules, and how often each point was passed.
func (rs *rules) list() ([]rule, map[string]int) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	all, points := []rule{}, map[string]int{}
	for _, r := range rs.all {
		all = append(all, *r)
	}
	for name, n := range rs.points {
		points[name] = n
	}
	return all, points
}

// exit ends the process without a word to anybody but the log.
func (f *faults) exit(point, detail string) {
	f.log.Warn("the process ends as a test wants", "point", point, "detail", detail)
	os.Exit(exitFaults)
}

// strictly decodes JSON without fields that nobody knows.
func strictly(body []byte, into any) error {
	d := json.NewDecoder(strings.NewReader(string(body)))
	d.DisallowUnknownFields()
	return d.Decode(into)
}
