package chaos

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pontoon-registry/pontoon/chaos/check"
)

// guests are all clients of TestChaos. None of them is sticky: each request goes through HAProxy or, one of four, straight to
// a node, whichever it is. None repeats a request but as a new one, and each request is in the history.
type guests struct {
	a       *arena
	history *check.History
	// judgement is what the models said so far. It belongs to the one goroutine that judges, and after that to the test.
	judgement *check.Judgement
	rules     []check.Finding // the same, of the rules that are functions of a history
	findings
}

// requestTime is how long a client waits for an answer, longer than what the registry says that it waits itself.
const requestTime = 12 * time.Second

// findings are what is wrong for certain, by the rule that it breaks.
type findings struct {
	mu     sync.Mutex // guards what follows
	first  []check.Violation
	count  int
	judged map[string]int // rule → how often it was looked at
}

// mostFindings bounds those that are kept.
const mostFindings = 100

// violated notes a violation.
func (f *findings) violated(rule, format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.count++; f.count <= mostFindings {
		f.first = append(f.first, check.Violation{Rule: rule, Where: "at " + time.Now().Format("15:04:05.000"), Text: fmt.Sprintf(format, args...)})
	}
}

// looked notes that a rule had something to judge, whatever came of it.
func (f *findings) looked(rule string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.judged == nil {
		f.judged = map[string]int{}
	}
	f.judged[rule]++
}

// observed are the rules that were looked at. What is broken of them is among the violations.
func (f *findings) observed() (all []check.Finding) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for rule, n := range f.judged {
		all = append(all, check.Finding{Rule: rule, Judged: n})
	}
	return all
}

// violations are those that were noted.
func (f *findings) violations() []check.Violation {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]check.Violation(nil), f.first...)
}

// guest is one client.
type guest struct {
	c      *guests
	id     int
	chance *rand.Rand
	client *http.Client
}

// guest makes the id-th client: every second one keeps its connections.
func (c *guests) guest(id int) *guest {
	return &guest{c: c, id: id, chance: rand.New(rand.NewPCG(uint64(id), 5)), client: &http.Client{
		Transport:     &http.Transport{MaxIdleConnsPerHost: 8, DisableCompression: true, DisableKeepAlives: id%2 == 1},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// leave closes its connections.
func (v *guest) leave() { v.client.CloseIdleConnections() }

const balancerDoor = "balancer"

// door chooses where the next request goes.
func (v *guest) door() (name, addr string) {
	if doors := v.c.a.doors(); !*chaosBalanced && v.chance.IntN(4) == 0 && len(doors) > 0 {
		d := doors[v.chance.IntN(len(doors))]
		return d.name, d.addr
	}
	return balancerDoor, v.c.a.d.balancer
}

// request is what is asked beside what the history records of it.
type request struct {
	method, path string
	header       http.Header
	body         []byte
	node         string // this one and no other; empty: any door
	// output reads what the operation answered, where it is done.
	output func(answer) string
}

// do makes one request, records it as the operation that it is, and answers both.
func (v *guest) do(ctx context.Context, o check.Operation, r request) (answer, check.Operation) {
	addr := ""
	if o.Node, addr = v.door(); r.node != "" {
		o.Node = r.node
		d, ok := v.c.a.doorOf(r.node)
		if !ok {
			return answer{}, o
		}
		addr = d.addr
	}
	return v.send(ctx, v.client, "http://"+addr, o, r)
}

// send makes one request of a client.
func (v *guest) send(ctx context.Context, client *http.Client, base string, o check.Operation, r request) (answer, check.Operation) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTime)
	defer cancel()
	o.Client, o.Call = v.id, v.c.history.Now()
	a, err := exchange(ctx, client, base, r)
	o.Return = v.c.history.Now()
	o.Status, o.Outcome = a.status, check.Judge(o.Kind, a.status, err)
	if err != nil {
		o.Error = err.Error()
	} else if a.status >= 400 {
		o.Error = string(a.body)
	}
	if a.header != nil {
		o.Request = a.header.Get("X-Request-Id")
		o.Revision, _ = strconv.ParseUint(a.header.Get("Pontoon-Revision"), 10, 64) // none is 0
		o.Stale = slices.ContainsFunc(a.header.Values("Warning"), func(text string) bool { return strings.HasPrefix(text, "110 ") })
	}
	switch {
	case o.Outcome == check.Done && r.output != nil:
		o.Output = r.output(a)
	case o.Status == http.StatusPreconditionFailed:
		o.Output = currentIn(a.body)
	}
	v.c.history.Add(o)
	return a, o
}

// currentIn is the digest that a tag had in place of the expected one.
func currentIn(body []byte) string {
	var refusal struct {
		Errors []struct {
			Detail struct {
				Current string `json:"current"`
			} `json:"detail"`
		} `json:"errors"`
	}
	if json.Unmarshal(body, &refusal) != nil || len(refusal.Errors) == 0 {
		return ""
	}
	return refusal.Errors[0].Detail.Current
}

// exchange sends a request and reads the answer to its end.
func exchange(ctx context.Context, client *http.Client, base string, r request) (answer, error) {
	var body io.Reader
	if r.body != nil {
		body = bytes.NewReader(r.body)
	}
	request, err := http.NewRequestWithContext(ctx, r.method, base+r.path, body)
	if err != nil {
		return answer{}, err
	}
	for key, values := range r.header {
		request.Header[key] = values
	}
	response, err := client.Do(request)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	a := answer{status: response.StatusCode, header: response.Header}
	if a.body, err = io.ReadAll(response.Body); err != nil {
		return a, fmt.Errorf("read answer: %w", err)
	}
	return a, nil
}

// operator makes a client of the operators' socket of a node, which speaks connect.
func operator(socket string) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}
}

// manifestOutput is what a pull of a manifest answered: the digest of its bytes, or nothing. It holds what the registry says
// of them against them (I3).
func (v *guest) manifestOutput(what string, asked string, head bool) func(answer) string {
	return func(a answer) string {
		if a.status != http.StatusOK {
			return ""
		}
		said := a.header.Get("Docker-Content-Digest")
		got := said
		if !head {
			got = digestOf(a.body)
		}
		if got == "" || got != said || asked != "" && got != asked {
			v.c.violated("I3", "%s: the bytes have digest %s, the answer says %q, asked was %q", what, got, said, asked)
		}
		return got
	}
}

// named is the digest that the answer to a push names (I3).
func named(a answer) string { return a.header.Get("Docker-Content-Digest") }

// until repeats what is not certain, with a pause that grows, until it is or the run ends.
func (v *guest) until(ctx context.Context, once func() (certain bool)) bool {
	for wait := 100 * time.Millisecond; ctx.Err() == nil; wait = min(2*wait, 2*time.Second) {
		if once() {
			return true
		}
		pause(ctx, wait)
	}
	return false
}

// accepts is what a puller of manifests takes.
var accepts = http.Header{"Accept": {mediaManifest, mediaIndex}}
