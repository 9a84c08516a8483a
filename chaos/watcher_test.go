package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pontoon-registry/pontoon/chaos/check"
)

// watcher looks at every node all the time. What they say of their states and terms is judged at the end (I5, I6, I8), what
// they do not answer at once (I13).
type watcher struct {
	c     *guests
	fixed string // path of a manifest that is pushed before the run and never deleted

	mu       sync.Mutex // guards what follows
	states   []check.State
	leaders  []check.Leader    // that certainly led
	suspects map[string]uint64 // node's id → term that it said to lead in, in the look before
	ready    map[string]int    // name → after so many claims it was ready
	asked    int               // sentinels that were judged
	healed   []check.Recovery
}

// sentinelClass is no class of request: it is what the suite itself asks.
const sentinelClass = "sentinel"

const (
	lookEvery = 500 * time.Millisecond
	lookTime  = 2 * time.Second
)

func newWatcher(c *guests, fixed string) *watcher {
	return &watcher{c: c, fixed: fixed, suspects: map[string]uint64{}, ready: map[string]int{}}
}

// run looks until the run ends.
func (w *watcher) run(ctx context.Context) {
	for ctx.Err() == nil {
		w.round()
		pause(ctx, lookEvery)
	}
}

// round looks at all nodes at once.
func (w *watcher) round() {
	var group sync.WaitGroup
	for _, d := range w.c.a.doors() {
		group.Go(func() { w.look(d) })
		group.Go(func() { w.sentinel(d) })
	}
	group.Wait()
}

// look reads the state and the measures of one node. One that does not answer says nothing, and of one that is not ready the
// state is not judged: after a kill or a power cut it may lack what it applied last, until it has applied it again (I6).
func (w *watcher) look(d door) {
	_, notReady := get("http://"+d.debug+"/readyz", lookTime)
	body, err := get("http://"+d.debug+"/debug/state", lookTime)
	if err != nil {
		return
	}
	var s state
	if err := json.Unmarshal(body, &s); err != nil || s.Node == "" {
		return
	}
	if notReady == nil {
		w.state(s)
	}
	if body, err = get("http://"+d.debug+"/metrics", lookTime); err == nil {
		w.measures(d, s.Node, readMetrics(body))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if now, ok := w.c.a.doorOf(d.name); notReady == nil && ok && now == d && !d.taken {
		w.ready[d.name] = d.claims + 1
	}
}

// state notes what a node says of its state.
func (w *watcher) state(s state) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.states = append(w.states, check.State{Node: s.Node, At: w.c.history.Now(), Index: s.Applied, Hash: s.Hash})
}

// recovered notes how long a node took.
func (w *watcher) recovered(r check.Recovery) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.healed = append(w.healed, r)
}

// facts are what was seen.
func (w *watcher) facts() *check.Facts {
	w.mu.Lock()
	defer w.mu.Unlock()
	return &check.Facts{States: w.states, Leaders: w.leaders, Recoveries: w.healed,
		Bounds: check.Bounds{Heal: time.Duration(float64(healthy) * (*chaosScale))}}
}

// measures judges what a node counts: no panic, no divergence, one leader of a term (I8). A node led in a term for certain
// when two looks in a row say so: the two numbers of one look are not read at one instant.
func (w *watcher) measures(d door, id string, m map[string]float64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, told := range []string{"pontoon_http_panics_total", "pontoon_state_panics_total"} {
		if _, tells := m[told]; !tells {
			w.c.violated("metrics", "%s does not tell its %s: nobody would see any", d.name, told)
		}
	}
	for _, never := range []string{"pontoon_http_panics_total", "pontoon_state_panics_total", "pontoon_state_diverged_total"} {
		if m[never] > 0 {
			w.c.violated("metrics", "%s: %s is %v", d.name, never, m[never])
		}
	}
	term := uint64(m["pontoon_raft_term"])
	if m["pontoon_raft_leader"] != 1 {
		delete(w.suspects, id)
	} else {
		if w.suspects[id] == term {
			w.leaders = append(w.leaders, check.Leader{Term: term, Node: id})
		}
		w.suspects[id] = term
	}
}

// readMetrics sums the series of each metric.
func readMetrics(body []byte) map[string]float64 {
	sums := map[string]float64{}
	for line := range strings.Lines(string(body)) {
		series, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok || strings.HasPrefix(line, "#") {
			continue
		}
		name, _, _ := strings.Cut(series, "{")
		if v, err := strconv.ParseFloat(value[strings.LastIndexByte(value, ' ')+1:], 64); err == nil {
			sums[name] += v
		}
	}
	return sums
}

// sentinel asks a node for a manifest by digest. A node that runs and was ready answers, whatever became of the others (I13):
// judged while all faults are confined to the processes that they took.
func (w *watcher) sentinel(d door) {
	judged, asked := w.answerable(d), time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	o := check.Operation{Client: -1, Node: d.name, Class: sentinelClass, Kind: "sentinel", Repo: "sentinel", Input: w.fixed, Call: w.c.history.Now()}
	a, err := exchange(ctx, client, "http://"+d.addr, request{method: http.MethodGet, path: w.fixed, header: accepts})
	o.Status, o.Outcome, o.Return = a.status, check.Judge(check.ManifestGet, a.status, err), w.c.history.Now()
	if err != nil {
		o.Error = err.Error()
	}
	w.c.history.Add(o)
	if !judged || !w.answerable(d) {
		return
	}
	w.mu.Lock()
	w.asked++
	w.mu.Unlock()
	switch {
	case err != nil && machine.stood(w.c.a.t, asked, time.Second, err): // nobody answers on a machine that stands still
	case a.status != http.StatusOK || err != nil:
		w.c.violated("I13", "%s, which runs and was ready, does not answer by digest: %d %.200s %v", d.name, a.status, a.body, err)
	case !strings.HasSuffix(w.fixed, "/"+digestOf(a.body)):
		w.c.violated("I3", "%s: the bytes of %s have digest %s", d.name, w.fixed, digestOf(a.body))
	}
}

// answerable says whether nothing excuses a node for not answering by digest.
func (w *watcher) answerable(d door) bool {
	excused := false
	w.c.a.active.Range(func(_, confined any) bool {
		excused = !confined.(bool)
		return !excused
	})
	now, ok := w.c.a.doorOf(d.name)
	w.mu.Lock()
	defer w.mu.Unlock()
	return !excused && ok && now == d && !d.taken && w.ready[d.name] == d.claims+1
}

// collector requests one cycle of garbage collection after the other, of any node.
type collector struct {
	c      *guests
	binary string

	mu     sync.Mutex // guards what follows
	cycles int
	keys   int64
	failed map[string]int
}

func (l *collector) run(ctx context.Context) {
	for i := 0; ctx.Err() == nil; i++ {
		doors := l.c.a.doors()
		out, err := l.cycle(ctx, doors[i%len(doors)])
		l.mu.Lock()
		if err == nil {
			l.cycles++
			l.keys += sumOf(deletedKeys, out)
		} else if ctx.Err() == nil {
			l.failed[lastLines([]byte(err.Error()), 1)]++
		}
		l.mu.Unlock()
		pause(ctx, time.Second)
	}
}

func (l *collector) cycle(ctx context.Context, d door) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, l.binary, "gc", "run", "--wait", "--output", "json", "--config", d.config)
	var complaints strings.Builder
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, complaints.String())
	}
	return string(out), nil
}
