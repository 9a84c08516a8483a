package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

// node is one pontoon serve, with a data directory that survives its kills.
type node struct {
	t                         testing.TB
	name                      string
	slot                      int // of the balancer
	logs                      string
	config                    string // file
	addr, debug, peer, gossip string
	proc                      *process
	earlier                   []*process // that it was before
	env                       []string   // of its process, beside the test's
	binary                    string     // its program; empty: the one under test
	points                    *points    // what it breaks in itself on command; nil: it has no such thing
	wire                      func(*node)
	claims                    int     // how often a fault took it
	volume                    *volume // under its data; nil: a folder
}

func (n *node) start() { n.launch(false) }

// startFrail is start, for a node that may end by itself.
func (n *node) startFrail() { n.launch(true) }

func (n *node) launch(frail bool) {
	if n.wire != nil {
		n.wire(n)
	}
	program := n.binary
	if program == "" {
		program = pontoon(n.t)
	}
	if n.proc != nil {
		n.earlier = append(n.earlier, n.proc)
	}
	n.proc = launch(n.t, frail, n.logs, n.name, n.env, program, "serve", n.config)
}

func (n *node) url() string { return "http://" + n.addr }

func (n *node) waitReady() {
	n.t.Helper()
	eventually(n.t, time.Minute, n.name+" to be ready", n.ready)
}

// ready is nil while the node says that it is, and else why not.
func (n *node) ready() error {
	_, err := get("http://"+n.debug+"/readyz", 2*time.Second)
	return err
}

// state is what /debug/state tells of a node.
type state struct {
	Node    string `json:"node"`
	Applied uint64 `json:"applied"`
	Hash    string `json:"hash"`
}

func (n *node) state() (state, error) {
	body, err := get("http://"+n.debug+"/debug/state", time.Second)
	if err != nil {
		return state{}, err
	}
	var s state
	if err := json.Unmarshal(body, &s); err != nil {
		return state{}, fmt.Errorf("decode state of %s: %w: %s", n.name, err, body)
	}
	return s, nil
}

// metric sums all series of one metric of the node.
func (n *node) metric(name string) (float64, error) { return n.series(name, "") }

// series sums the series of one metric whose labels contain a text, like code="206".
func (n *node) series(name, labels string) (sum float64, err error) {
	body, err := get("http://"+n.debug+"/metrics", 2*time.Second)
	if err != nil {
		return 0, err
	}
	found := false
	for line := range strings.Lines(string(body)) {
		series, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		base, with, _ := strings.Cut(series, "{")
		if !ok || base != name {
			continue
		}
		found = true
		if !strings.Contains(with, labels) {
			continue
		}
		v, err := strconv.ParseFloat(value[strings.LastIndexByte(value, ' ')+1:], 64)
		if err != nil {
			return 0, fmt.Errorf("metric %q: %w", line, err)
		}
		sum += v
	}
	if !found {
		return 0, fmt.Errorf("%s has no metric %s", n.name, name)
	}
	return sum, nil
}

// get asks one URL and returns the body of a 200, which is small.
func get(url string, within time.Duration) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, 16<<20))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", url, err)
	}
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answered %s: %.300s", url, answer.Status, body)
	}
	return body, nil
}
