package chaos

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestANodeBreaksAsItIsTold tries every action and every switch of a node that breaks on command.
func TestANodeBreaksAsItIsTold(t *testing.T) {
	t.Parallel()
	a := newAlone(t, "backup:\n  enabled: false\n")
	for _, step := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"a failure before is none after", a.fails},
		{"a failure after loses the answer alone", a.losesTheAnswer},
		{"a rule acts on what it matches", a.matches},
		{"a sleep takes its time", a.sleeps},
		{"nonsense is refused", a.refuses},
		{"the clock", a.clock},
		{"the free space", a.space},
		{"a slow disk", a.slowDisk},
		{"a disk that hangs ends the process", a.hangingDisk},
		{"a node that hangs while it stops", a.hangsAtItsEnd},
		{"an exit at a point", a.exits},
		{"a term that is opened", a.opensATerm},
	} {
		t.Run(step.name, func(t *testing.T) {
			step.run(t)
			if err := a.p.heal(context.Background()); err != nil {
				t.Error(err)
			}
		})
	}
}

// status pushes a blob and answers the status of the request that ends it.
func (a *alone) status(ctx context.Context, content []byte) (int, error) {
	r := a.registry()
	location, err := r.openUpload(ctx, reachRepo)
	if err != nil {
		return 0, err
	}
	answer, err := r.do(ctx, http.MethodPut, withQuery(location, "digest="+digestOf(content)), nil, strings.NewReader(string(content)))
	return answer.status, err
}

// arm gives the node a rule, or ends the test.
func (a *alone) arm(t *testing.T, r rule) *armed {
	t.Helper()
	made, err := a.p.arm(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func (a *alone) fails(t *testing.T) {
	rule := a.arm(t, rule{Point: "store.finish.before", Action: "fail", Skip: 1, Times: 2})
	var got []int
	for range 4 {
		status, err := a.status(t.Context(), a.content(100))
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, status)
	}
	if fmt.Sprint(got) != "[201 503 503 201]" {
		t.Errorf("skip 1, times 2: answers %v", got)
	}
	if seen, err := rule.release(t.Context()); err != nil || seen.Hits != 4 || seen.Acted != 2 || seen.Held != 0 {
		t.Errorf("the rule says %+v, %v", seen, err)
	}
}

func (a *alone) losesTheAnswer(t *testing.T) {
	content := a.content(100)
	a.arm(t, rule{Point: "ledger.propose.after", Match: "CommitUpload", Action: "fail", Times: 1})
	status, err := a.status(t.Context(), content)
	if err != nil || status < 500 {
		t.Errorf("a push whose answer was lost: %d, %v", status, err)
	}
	if _, err := a.registry().want(t.Context(), http.StatusOK, http.MethodHead, "/v2/"+reachRepo+"/blobs/"+digestOf(content), nil, nil); err != nil {
		t.Errorf("it was done all the same: %v", err)
	}
}

func (a *alone) matches(t *testing.T) {
	one, other := a.content(100), a.content(100)
	rule := a.arm(t, rule{Point: "ledger.propose.*", Match: digestOf(one), Action: "fail"})
	for content, want := range map[string]bool{string(one): false, string(other): true} {
		if status, err := a.status(t.Context(), []byte(content)); err != nil || (status == http.StatusCreated) != want {
			t.Errorf("%s: %d, %v", digestOf([]byte(content)), status, err)
		}
	}
	seen, err := rule.release(t.Context())
	if err != nil || seen.Acted != seen.Hits || !strings.Contains(seen.At, "CommitUpload") || !strings.Contains(seen.At, digestOf(one)) {
		t.Errorf("the rule says %+v, %v", seen, err)
	}
}

func (a *alone) sleeps(t *testing.T) {
	const d = 300 * time.Millisecond
	a.arm(t, rule{Point: "store.finish.after", Action: "sleep", For: d.String()})
	began := time.Now()
	if err := a.push(t.Context()); err != nil || time.Since(began) < d {
		t.Errorf("it took %v: %v", time.Since(began), err)
	}
}

func (a *alone) refuses(t *testing.T) {
	for _, r := range []rule{{Action: "fail"}, {Point: "x"}, {Point: "x", Action: "explode"}, {Point: "x", Action: "sleep"},
		{Point: "x", Action: "sleep", For: "1h"}, {Point: "x", Action: "fail", Error: "none of them"}, {Point: "x", Action: "fail", Skip: -1}} {
		if _, err := a.p.arm(t.Context(), r); err == nil || !strings.Contains(err.Error(), "answered 400: rule: ") {
			t.Errorf("%+v: %v", r, err)
		}
	}
	if err := a.p.call(t.Context(), http.MethodPut, "/", map[string]int{"clocks": 1}, nil); err == nil || !strings.Contains(err.Error(), "unknown field") {
		t.Errorf("an unknown field: %v", err)
	}
	if err := a.p.disk(t.Context(), map[string]diskHarm{"floppy": {}}); err == nil {
		t.Error("an unknown disk was taken")
	}
	for _, addr := range []string{"0.0.0.0:1", "192.0.2.1:1", "localhost:1", "127.0.0.1"} {
		cmd := exec.CommandContext(t.Context(), breakable(t), "serve", a.n.config)
		cmd.Env = append(os.Environ(), "PONTOON_FAULTS="+addr)
		if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "must be a loopback address") {
			t.Errorf("%s: %v: %s", addr, err, out)
		}
	}
}

// signedAt is the date in a URL that the node signed for the store.
func (a *alone) signedAt(ctx context.Context, digest string) (time.Time, error) {
	r := a.registry()
	r.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	answer, err := r.want(ctx, http.StatusTemporaryRedirect, http.MethodGet, "/v2/"+reachRepo+"/blobs/"+digest, nil, nil)
	if err != nil {
		return time.Time{}, err
	}
	u, err := url.Parse(answer.header.Get("Location"))
	if err != nil {
		return time.Time{}, err
	}
	return time.Parse("20060102T150405Z", u.Query().Get("X-Amz-Date"))
}

var cycleEnded = regexp.MustCompile(`"ended":\s*"([^"]+)"`)

// clock sets the clock days ahead, which is longer than anything is kept that nobody needs: entries, and what is signed for
// the store, are of that time, requests to the store pass, and nothing is over because of it.
func (a *alone) clock(t *testing.T) {
	const ahead = 5 * 24 * time.Hour
	content := a.content(100)
	if err := a.registry().pushBlob(t.Context(), reachRepo, content); err != nil {
		t.Fatal(err)
	}
	upload, location, err := a.begun(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := a.p.clock(t.Context(), ahead-time.Hour); err != nil {
		t.Fatal(err)
	}
	if err := a.p.call(t.Context(), http.MethodPut, "/clock", map[string]string{"jump": "1h"}, nil); err != nil {
		t.Fatal(err)
	}
	isAhead := func(what string, at time.Time, err error) {
		if off := time.Until(at); err != nil || off < ahead-time.Minute || off > ahead+time.Minute {
			t.Errorf("%s is of %v: %v", what, at, err)
		}
	}
	signed, err := a.signedAt(t.Context(), digestOf(content))
	isAhead("a signature", signed, err)
	if err := a.push(t.Context()); err != nil {
		t.Errorf("a push with a clock that is ahead: %v", err)
	}
	out, err := a.n.cli("gc", "run", "--wait", "--output", "json")
	if found := cycleEnded.FindStringSubmatch(out); found == nil {
		t.Errorf("no end of a cycle in %s: %v", out, err)
	} else {
		at, err := time.Parse(time.RFC3339Nano, found[1])
		isAhead("an entry", at, err)
	}
	if _, err := a.n.cli("gc", "run", "--wait"); err != nil { // what the first had condemned, the second would delete
		t.Error(err)
	}
	body := manifest{MediaType: mediaManifest, ArtifactType: "chaos/points", Config: new(describe(mediaConfig, content))}.encode()
	if err := a.registry().putManifest(t.Context(), reachRepo, "clock", mediaManifest, body); err != nil {
		t.Errorf("a layer that was pushed before the jump is over: %v", err)
	}
	if held, err := a.bucket.digests(t.Context()); err != nil || held[digestOf(content)] != 1 {
		t.Errorf("it is in the bucket %d times: %v", held[digestOf(content)], err)
	}
	if size, err := upload.offset(t.Context(), location); err != nil || size < 9<<20 {
		t.Errorf("an upload that was begun before the jump has %d bytes: %v", size, err)
	}
}

// unready waits until the node says that it is not ready, for a reason.
func (a *alone) unready(t *testing.T, why string) {
	t.Helper()
	eventually(t, 30*time.Second, a.n.name+" to be unready", func() error {
		_, err := get("http://"+a.n.debug+"/readyz", time.Second)
		switch {
		case err == nil:
			return errors.New("it is ready")
		case !strings.Contains(err.Error(), why):
			return err
		}
		return nil
	})
}

func (a *alone) space(t *testing.T) {
	if err := a.p.space(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	a.unready(t, "disk full")
	if err := a.p.space(t.Context(), -1); err != nil {
		t.Fatal(err)
	}
	a.n.waitReady()
}

func (a *alone) slowDisk(t *testing.T) {
	const d = 150 * time.Millisecond
	for _, name := range []string{"log", "state"} {
		if err := a.p.disk(t.Context(), map[string]diskHarm{name: {Delay: d.String()}}); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if err := a.push(t.Context()); err != nil || time.Since(began) < 2*d { // two commands, one after the other
			t.Errorf("%s: it took %v: %v", name, time.Since(began), err)
		}
	}
}

// ends waits for the end of the node with a code, and starts it again.
func (a *alone) ends(t *testing.T, code int) {
	t.Helper()
	var exit *exec.ExitError
	if err := a.n.proc.ended(time.Minute); !errors.As(err, &exit) || exit.ExitCode() != code {
		t.Errorf("it ended with %v, expected code %d", err, code)
	}
	a.n.start()
	a.n.waitReady()
}

func (a *alone) hangingDisk(t *testing.T) {
	a.n.proc.mayEnd()
	if err := a.p.disk(t.Context(), map[string]diskHarm{"log": {Hang: true}}); err != nil {
		t.Fatal(err)
	}
	var push sync.WaitGroup
	push.Go(func() { _, _ = a.status(context.Background(), []byte("hangs")) }) // it is cut when the process ends
	a.ends(t, 70)
	push.Wait()
}

// hangsAtItsEnd lets the log fail, which ends a node, while the state waits for its disk: the doors close all the same.
func (a *alone) hangsAtItsEnd(t *testing.T) {
	a.n.proc.mayEnd()
	held := a.arm(t, rule{Point: "state.apply.before", Action: "pause", Times: 1})
	var pushes sync.WaitGroup
	push := func() { _, _ = a.status(context.Background(), []byte("hangs")) } // it is cut when the node stops
	pushes.Go(push)
	if err := held.acted(t.Context(), 10*time.Second); err != nil {
		t.Fatal(err)
	}
	failing := a.arm(t, rule{Point: "log.store.before", Action: "fail"})
	pushes.Go(push)
	if err := failing.acted(t.Context(), 10*time.Second); err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, "the door to be closed", func() error {
		conn, err := net.DialTimeout("tcp", a.n.addr, time.Second)
		if err != nil {
			return nil
		}
		return errors.Join(errors.New("it is open"), conn.Close())
	})
	if a.n.proc.over() {
		t.Error("the node has ended although its state hangs: nothing is shown")
	}
	if _, err := held.release(t.Context()); err != nil {
		t.Fatal(err)
	}
	a.ends(t, 1)
	pushes.Wait()
}

func (a *alone) exits(t *testing.T) {
	content := a.content(100)
	a.n.proc.mayEnd()
	a.arm(t, rule{Point: "log.store.after", Match: digestOf(content), Action: "exit"})
	if status, err := a.status(t.Context(), content); err == nil {
		t.Errorf("a push to a process that ended: %d", status)
	}
	a.ends(t, 86)
	if err := a.registry().blob(t.Context(), reachRepo, digestOf(content)); err != nil {
		t.Errorf("what was in the log when the process ended: %v", err)
	}
}

// opensATerm starts the node with a rule that is there from the first moment on.
func (a *alone) opensATerm(t *testing.T) {
	if err := a.n.proc.terminate(30 * time.Second); err != nil {
		t.Fatal(err)
	}
	a.n.env = append(a.n.env, `PONTOON_FAULTS_SET={"rules":[{"point":"node.step","match":"term is opened","action":"pause"}]}`)
	a.n.start()
	held := &armed{a.p, 1}
	eventually(t, 30*time.Second, "the control API", func() error { _, err := held.look(t.Context()); return err })
	if err := held.acted(t.Context(), 30*time.Second); err != nil {
		t.Fatal(err)
	}
	if _, err := get("http://"+a.n.debug+"/readyz", 5*time.Second); err == nil {
		t.Error("it is ready although its term is not opened")
	}
	if _, err := held.release(t.Context()); err != nil {
		t.Fatal(err)
	}
	a.n.waitReady()
}
