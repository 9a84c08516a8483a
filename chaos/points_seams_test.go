package chaos

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/pontoon-registry/pontoon/chaos/proxy"
)

// brittle is three nodes that break on command.
type brittle struct {
	*alone // whose pushes go to whichever node is n
	ps     map[*node]*points
	needed map[string]int64 // blobs that manifests need
}

func newBrittle(t testing.TB, extra string) *brittle {
	t.Helper()
	b := &brittle{alone: &alone{t: t, bucket: newBucket(t)}, ps: map[*node]*points{}, needed: map[string]int64{}}
	b.d = newDeployment(t, b.bucket, options{quiet: true, drain: "0s", cluster: []string{"log:", "  size: 1MiB"}, extra: extra,
		before: func(d *deployment) {
			for _, n := range d.nodes {
				b.ps[n] = withPoints(t, n, nil)
			}
		}})
	b.at(b.d.nodes[0])
	return b
}

// at makes a node the one that is talked to.
func (b *brittle) at(n *node) { b.n, b.p = n, b.ps[n] }

// roles answers the leader and the two others.
func (b *brittle) roles() (leader *node, others []*node) {
	leader = b.d.leader(30 * time.Second)
	return leader, b.d.others(leader)
}

// dies waits until the process has ended at a point.
func dies(n *node) error {
	err := n.proc.ended(time.Minute)
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 86 {
		return nil
	}
	return errors.Join(fmt.Errorf("%s did not end at its point, with code 86", n.name), err)
}

// revive starts a node again and waits until all is as before.
func (b *brittle) revive(n *node) {
	n.start()
	n.waitReady()
	b.d.voting()
}

// doomed arms an exit at a node.
func (b *brittle) doomed(t *testing.T, n *node, point, match string) {
	t.Helper()
	n.proc.mayEnd()
	if _, err := b.ps[n].exit(t.Context(), point, match); err != nil {
		t.Fatal(err)
	}
}

// TestProcessesEndAtTheSeams ends processes, and holds requests, where the protocols have their seams.
func TestProcessesEndAtTheSeams(t *testing.T) {
	t.Parallel()
	b := newBrittle(t, "gc:\n  unsafeshort: true\n  grace: 4s\n  delay: 1s\n  uploads: 4s\n  orphans: 2s\n  schedule: never\nbackup:\n  enabled: false\n")
	for _, step := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"a push is held between store and ledger while garbage is swept", b.heldPush},
		{"a leader ends after it stored an entry", func(t *testing.T) { b.lostLeader(t, "log.store.after") }},
		{"a leader ends before it applies an entry", func(t *testing.T) { b.lostLeader(t, "state.apply.before") }},
		{"a leader ends after it applied an entry", func(t *testing.T) { b.lostLeader(t, "state.apply.after") }},
		{"a collector ends between deleting and forgetting", b.lostCollector},
		{"a peer is reached by another way", b.reroutes},
		{"a state is held on its way", b.heldState},
		{"a node ends before and after it points at a new state", b.swaps},
	} {
		t.Run(step.name, step.run)
	}
	for _, p := range b.ps {
		if err := p.heal(t.Context()); err != nil {
			t.Error(err)
		}
	}
	b.d.agree()
}

// heldPush holds pushes at each place between the store's last word and the ledger's, for longer than all that garbage
// collection waits for, while cycles run. Each ends in success, and the layer is there, or it fails and a push anew succeeds (M4, G8).
func (b *brittle) heldPush(t *testing.T) {
	_, others := b.roles()
	b.at(others[0])
	var pushes []*heldPush
	for _, point := range []string{"store.finish.before", "store.finish.after", "ledger.propose.before", "ledger.propose.after"} {
		pushes = append(pushes, b.hold(t, point))
	}
	for began, cycles := time.Now(), 0; time.Since(began) < 6*time.Second || cycles < 3; cycles++ {
		if err := at(others[1].url()).pushBlob(t.Context(), reachRepo, b.content(1000)); err != nil { // something to do
			t.Fatal(err)
		}
		if _, err := others[1].cli("gc", "run", "--wait"); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range pushes {
		if seen, err := p.rule.release(t.Context()); err != nil || seen.Held != 1 {
			t.Fatalf("%+v, %v", seen, err)
		}
		got := <-p.status
		t.Logf("%s: held for longer than grace, delay and the life of an upload: answered %d", p.point, got)
		b.keeps(t, p, got)
	}
}

// heldPush is a push that waits at a point.
type heldPush struct {
	point   string
	content []byte
	rule    *armed
	status  chan int // -1: no answer
}

func (b *brittle) hold(t *testing.T, point string) *heldPush {
	t.Helper()
	p := &heldPush{point: point, content: b.content(1000), status: make(chan int, 1)}
	r := rule{Point: point, Action: "pause", Times: 1}
	if strings.HasPrefix(point, "ledger") {
		r.Match = digestOf(p.content)
	}
	p.rule = b.arm(t, r)
	go func() {
		got, err := b.status(context.WithoutCancel(t.Context()), p.content)
		if err != nil {
			got = -1
		}
		p.status <- got
	}()
	if err := p.rule.acted(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
	return p
}

// keeps judges a push by its answer: what was acknowledged is kept by a manifest from then on, and what was not can be pushed.
func (b *brittle) keeps(t *testing.T, p *heldPush, status int) {
	r := b.registry()
	if status != http.StatusCreated {
		if status < 400 {
			t.Errorf("%s: answered %d, neither success nor a clean failure", p.point, status)
		}
		if err := r.pushBlob(t.Context(), reachRepo, p.content); err != nil {
			t.Errorf("%s: a push after the one that failed: %v", p.point, err)
		}
	}
	body := manifest{MediaType: mediaManifest, ArtifactType: "chaos/points", Config: new(describe(mediaConfig, p.content))}.encode()
	err := r.putManifest(t.Context(), reachRepo, "kept", mediaManifest, body)
	if err != nil && p.point == "ledger.propose.after" { // its grace was over before it was told: that may be said, and a push mends it
		if err = r.pushBlob(t.Context(), reachRepo, p.content); err == nil {
			err = r.putManifest(t.Context(), reachRepo, "kept", mediaManifest, body)
		}
	}
	if err != nil {
		t.Errorf("%s: a manifest for a layer that was acknowledged just now: %v", p.point, err)
		return
	}
	b.needed[digestOf(p.content)] = int64(len(p.content))
	if _, err := b.d.nodes[0].cli("gc", "run", "--wait"); err != nil {
		t.Error(err)
	}
	for _, n := range b.d.nodes {
		if err := at(n.url()).blob(t.Context(), reachRepo, digestOf(p.content)); err != nil {
			t.Errorf("%s: on %s: %v", p.point, n.name, err)
		}
	}
}

// lostLeader ends the leader with an entry of a conditional write by another node in its hands. That node finds out, and
// the write has one effect: a second one would be refused, since the tag is there by then.
func (b *brittle) lostLeader(t *testing.T, point string) {
	leader, others := b.roles()
	b.at(others[0])
	config := b.content(100)
	if err := b.registry().pushBlob(t.Context(), reachRepo, config); err != nil {
		t.Fatal(err)
	}
	b.needed[digestOf(config)] = int64(len(config))
	body := manifest{MediaType: mediaManifest, ArtifactType: "chaos/points", Config: new(describe(mediaConfig, config))}.encode()
	tag := fmt.Sprintf("once-%d", b.count.Add(1))
	b.doomed(t, leader, point, digestOf(body))
	header := http.Header{"Content-Type": {mediaManifest}, "If-None-Match": {"*"}}
	_, err := b.registry().want(t.Context(), http.StatusCreated, http.MethodPut, "/v2/"+reachRepo+"/manifests/"+tag, header, body)
	if err != nil {
		t.Errorf("a write that the leader's end must not double or lose: %v", err)
	}
	if err := dies(leader); err != nil {
		t.Error(err)
	}
	if found, err := b.registry().resolve(t.Context(), reachRepo, tag); err != nil || found != digestOf(body) {
		t.Errorf("it is %q: %v", found, err)
	}
	b.revive(leader)
}

// lostCollector ends the leader with keys that are deleted and not forgotten. The next one goes on, and the bucket ends with
// just what is needed.
func (b *brittle) lostCollector(t *testing.T) {
	points := []rule{{Point: "gc.delete.after"}, {Point: "gc.delete.before"}, {Point: "ledger.propose.before", Match: "ForgetKeys"}, {Point: "ledger.propose.after", Match: "ForgetKeys"}}
	if !*long {
		points = points[:1]
	}
	for _, point := range points {
		leader, others := b.roles()
		b.doomed(t, leader, point.Point, point.Match)
		b.at(others[0])
		ended := make(chan error, 1)
		go func() { ended <- dies(leader) }()
		for cycles := 0; len(ended) == 0; cycles++ {
			if cycles == 20 {
				t.Fatalf("%s: nobody came by in %d cycles", point.Point, cycles)
			}
			_ = b.garbage(t.Context()) // the leader may end meanwhile
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
		b.revive(leader)
		eventually(t, time.Minute, "the next leader to delete all garbage", func() error {
			if err := b.collect(t.Context()); err != nil {
				return err
			}
			return b.bucket.holds(t.Context(), b.needed)
		})
		if out, err := b.n.cli("gc", "verify"); err != nil {
			t.Errorf("%s: %v\n%s", point.Point, err, out)
		}
	}
}

// reroutes sends what one node says to another through a line of the test's, and back.
func (b *brittle) reroutes(t *testing.T) {
	leader, others := b.roles()
	line, err := proxy.OpenLine("127.0.0.1:0", others[0].peer)
	if err != nil {
		t.Fatal(err)
	}
	defer line.Close()
	table := map[string]string{others[0].peer: line.Addr()}
	if err := b.ps[leader].dial(t.Context(), table); err != nil {
		t.Fatal(err)
	}
	b.at(leader)
	eventually(t, 30*time.Second, "the leader to take the other way", func() error {
		if line.Counts().Accepted == 0 {
			return errors.New("it has not")
		}
		return b.push(t.Context())
	})
	line.Set(proxy.Hole())
	eventually(t, 30*time.Second, "the leader to miss the node behind a black hole", func() error {
		tolerance, err := leader.metric("pontoon_failure_tolerance")
		if err == nil && tolerance != 0 {
			err = fmt.Errorf("it says that %v more may fail", tolerance)
		}
		return err
	})
	if err := b.ps[leader].dial(t.Context(), map[string]string{}); err != nil {
		t.Fatal(err)
	}
	b.d.voting()
}

// behind stops a node and lets the others go on until their log has nothing any more that it could go on with.
func (b *brittle) behind(t *testing.T, n *node) {
	t.Helper()
	leader := b.d.leader(30 * time.Second)
	b.at(leader)
	n.proc.kill()
	passed, err := b.p.seen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "the log to be compacted twice", func() error {
		now, err := b.p.seen(t.Context())
		if done := now.Points["log.delete.after"] - passed.Points["log.delete.after"]; err == nil && done < 2 {
			err = errors.Join(fmt.Errorf("%d times", done), b.tag(t.Context()))
		}
		return err
	})
}

// heldState holds a state on its way, at the one that gives it and at the one that installs it.
func (b *brittle) heldState(t *testing.T) {
	leader, others := b.roles()
	b.behind(t, others[0])
	give, err := b.ps[leader].arm(t.Context(), rule{Point: "stream.give", Action: "pause", Skip: 2, Times: 1})
	if err != nil {
		t.Fatal(err)
	}
	n := others[0]
	n.env = append(n.env, `PONTOON_FAULTS_SET={"rules":[{"point":"stream.install","action":"pause","skip":3,"times":1}]}`)
	n.start()
	for _, held := range []*armed{give, {b.ps[n], 1}} {
		if err := held.acted(t.Context(), time.Minute); err != nil {
			t.Fatal(err)
		}
		if _, err := get("http://"+n.debug+"/readyz", time.Second); err == nil {
			t.Error("it is ready without the state")
		}
		if err := b.push(t.Context()); err != nil { // nobody waits for it
			t.Error(err)
		}
		if seen, err := held.release(t.Context()); err != nil || !strings.Contains(seen.At, "bytes=") {
			t.Errorf("%+v, %v", seen, err)
		}
	}
	n.env = n.env[:len(n.env)-1]
	n.waitReady()
	b.d.voting()
}

// swaps ends a node right before and right after CURRENT names the state that it was sent: the next start mends what it finds.
func (b *brittle) swaps(t *testing.T) {
	_, others := b.roles()
	n := others[0]
	for _, step := range []string{"term is raised", "pointer is written"} {
		b.behind(t, n)
		n.env = append(n.env, `PONTOON_FAULTS_SET={"rules":[{"point":"node.step","match":"`+step+`","action":"exit"}]}`)
		n.startFrail()
		if err := dies(n); err != nil {
			t.Error(err)
		}
		n.env = n.env[:len(n.env)-1]
		b.revive(n)
		b.d.agree()
	}
}

// TestALeaderEndsInTheMiddleOfABackup ends it before and after it has uploaded a part of one: the next leader completes it,
// and what it completes is whole.
func TestALeaderEndsInTheMiddleOfABackup(t *testing.T) {
	t.Parallel()
	b := newBrittle(t, "backup:\n  enabled: true\n  schedule: \"@daily\"\n  keep: 3\n")
	for range 3 {
		if err := b.tag(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for _, point := range []string{"archive.put.before", "archive.put.after"} {
		leader, others := b.roles()
		b.doomed(t, leader, point, "/full/")
		b.at(others[0])
		out, err := b.n.cli("snapshot", "save")
		if err != nil {
			t.Errorf("%s: a snapshot whose leader ended: %v", point, err)
		}
		t.Logf("%s: %s", point, strings.TrimSpace(out))
		if err := dies(leader); err != nil {
			t.Error(err)
		}
		b.revive(leader)
		if out, err := b.n.cli("snapshot", "verify", "latest"); err != nil {
			t.Errorf("%s: %v: %s", point, err, out)
		}
	}
	b.d.agree()
}
