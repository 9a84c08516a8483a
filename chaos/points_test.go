package chaos

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// points tells a node that was built with the tag faults what to break in itself. cmd/pontoon/faults.go says what there is:
// points, actions and the control API. All of it is gone when the process ends, but for what its environment sets.
//
//	held, err := n.points.pause(ctx, "store.finish.after", digest)  // the next one waits there
//	err = held.acted(ctx, 10*time.Second)                           // now it does
//	seen, err := held.release(ctx)                                  // and goes on
type points struct{ addr string }

// pointsTime bounds one call: the node may be paused, or gone.
const pointsTime = 3 * time.Second

// rule is what happens at a point.
type rule struct {
	Point  string `json:"point"`
	Match  string `json:"match,omitempty"`
	Action string `json:"action"` // pause, sleep, fail or exit
	For    string `json:"for,omitempty"`
	Error  string `json:"error,omitempty"`
	Skip   int    `json:"skip,omitempty"`
	Times  int    `json:"times,omitempty"`
}

// ruleSeen is a rule and what has become of it.
type ruleSeen struct {
	ID int `json:"id"`
	rule
	Hits  int    `json:"hits"`
	Acted int    `json:"acted"`
	Held  int    `json:"held"`
	At    string `json:"at"` // the detail of the last hit that was acted on
}

// diskHarm is what a disk does to each write.
type diskHarm struct {
	Delay string `json:"delay,omitempty"`
	Hang  bool   `json:"hang,omitempty"`
}

// pointsSeen is what a node says of the harm that it does to itself.
type pointsSeen struct {
	Dial   map[string]string   `json:"dial"`
	Clock  string              `json:"clock"`
	Space  *int64              `json:"space"`
	Disk   map[string]diskHarm `json:"disk"`
	Rules  []ruleSeen          `json:"rules"`
	Points map[string]int      `json:"points"`
	Now    time.Time           `json:"now"`
}

// armed is a rule that a node has.
type armed struct {
	p  *points
	id int
}

// withPoints lets a node that has not been started listen for commands. set is what holds from its first moment on; nil: nothing.
func withPoints(t testing.TB, n *node, set map[string]any) *points {
	t.Helper()
	p := &points{addr: freeAddr(t)}
	n.binary = breakable(t)
	n.env = append(n.env, "PONTOON_FAULTS="+p.addr)
	if set != nil {
		body, err := json.Marshal(set)
		if err != nil {
			t.Fatal(err)
		}
		n.env = append(n.env, "PONTOON_FAULTS_SET="+string(body))
	}
	return p
}

// pause holds whoever comes by until the rule is released. Empty match: any.
func (p *points) pause(ctx context.Context, point, match string) (*armed, error) {
	return p.arm(ctx, rule{Point: point, Match: match, Action: "pause"})
}

// exit ends the process at the point, as kill -9 would.
func (p *points) exit(ctx context.Context, point, match string) (*armed, error) {
	return p.arm(ctx, rule{Point: point, Match: match, Action: "exit"})
}

// arm gives the node a rule.
func (p *points) arm(ctx context.Context, r rule) (*armed, error) {
	var made struct{ ID int }
	err := p.call(ctx, http.MethodPost, "/rules", r, &made)
	return &armed{p, made.ID}, err
}

// dial sends connections to a peer's address through another; who is not named is dialled directly.
func (p *points) dial(ctx context.Context, table map[string]string) error {
	return p.call(ctx, http.MethodPut, "/dial", table, nil)
}

// clock sets the node's wall clock so much ahead of the machine's.
func (p *points) clock(ctx context.Context, offset time.Duration) error {
	return p.call(ctx, http.MethodPut, "/clock", map[string]string{"offset": offset.String()}, nil)
}

// space makes the node believe that its disk has so many bytes free; below 0: the truth.
func (p *points) space(ctx context.Context, free int64) error {
	body := map[string]int64{}
	if free >= 0 {
		body["free"] = free
	}
	return p.call(ctx, http.MethodPut, "/space", body, nil)
}

// disk changes what the disks do to writes: "log" is Raft's, "state" Pebble's. Who is not named is well.
func (p *points) disk(ctx context.Context, harm map[string]diskHarm) error {
	return p.call(ctx, http.MethodPut, "/disk", harm, nil)
}

// heal takes all rules away, and lets go of who is held.
func (p *points) heal(ctx context.Context) error {
	return errors.Join(p.call(ctx, http.MethodDelete, "/rules", nil, nil), p.disk(ctx, map[string]diskHarm{}),
		p.space(ctx, -1), p.clock(ctx, 0))
}

// seen is all that the node says of it.
func (p *points) seen(ctx context.Context) (s pointsSeen, err error) {
	err = p.call(ctx, http.MethodGet, "/", nil, &s)
	return s, err
}

// look answers the rule as it is now.
func (a *armed) look(ctx context.Context) (s ruleSeen, err error) {
	err = a.p.call(ctx, http.MethodGet, fmt.Sprintf("/rules/%d", a.id), nil, &s)
	return s, err
}

// acted waits until the rule has acted.
func (a *armed) acted(ctx context.Context, within time.Duration) error {
	deadline := time.Now().Add(within)
	for {
		s, err := a.look(ctx)
		if err == nil && s.Acted > 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return errors.Join(fmt.Errorf("nobody came by %+v within %v", s, within), err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// release takes the rule away, lets go of who it holds, and answers what it was.
func (a *armed) release(ctx context.Context) (s ruleSeen, err error) {
	err = a.p.call(ctx, http.MethodDelete, fmt.Sprintf("/rules/%d", a.id), nil, &s)
	return s, err
}

func (p *points) call(ctx context.Context, method, path string, body, into any) error {
	ctx, cancel := context.WithTimeout(ctx, pointsTime)
	defer cancel()
	var in io.Reader = http.NoBody
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			return err
		}
		in = bytes.NewReader(encoded)
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://"+p.addr+path, in)
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("tell a node what to break: %w", err)
	}
	defer answer.Body.Close()
	content, err := io.ReadAll(io.LimitReader(answer.Body, 16<<20))
	switch {
	case err != nil:
		return fmt.Errorf("tell a node what to break: %w", err)
	case answer.StatusCode != http.StatusOK:
		return fmt.Errorf("%s %s: answered %d: %s", method, path, answer.StatusCode, strings.TrimSpace(string(content)))
	case into == nil:
		return nil
	}
	return json.Unmarshal(content, into)
}
