package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

const (
	// rpo is how much of what was acknowledged may be gone: the log is shipped every two seconds, and that takes a moment.
	rpo = 4 * time.Second
	// rto is how long a restored cluster may take to its first pull.
	rto = time.Minute
)

// archived is a cluster that takes backups all the time, and collects garbage as fast as it may.
const archived = "gc:\n  unsafeshort: true\n  grace: 5s\n  delay: 3s\n  orphans: 5s\nbackup:\n  enabled: true\n  schedule: \"@every 10s\"\n"

// unarchived is a cluster that takes none.
const unarchived = "gc:\n  unsafeshort: true\n  grace: 5s\n  delay: 3s\n  orphans: 5s\nbackup:\n  enabled: false\n"

// TestALostClusterIsRestoredFromItsBucket pushes for a while, destroys the disks of all three nodes, and restores the cluster:
// as it was at a moment before, for a look, and then as it was last.
func TestALostClusterIsRestoredFromItsBucket(t *testing.T) {
	t.Parallel()
	during := 8 * time.Second // before the moment to go back to, and as long after it
	if *long {
		during = 5 * time.Minute
	}
	d := newDeployment(t, newBucket(t), options{extra: archived, drain: "1s"})
	l := &loss{t: t, d: d, traffic: &traffic{registry: d.url(), push: 50 * time.Millisecond}}
	deleted, point := l.load(during)

	// Before anything is restored for good: how it was at the moment before.
	alone := d.beside("past", unarchived)
	alone.restore("latest", "--to", point.Format(time.RFC3339Nano))
	alone.begin()
	l.as(alone.nodes[0], point)
	if _, err := at(alone.nodes[0].url()).image(t.Context(), deleted.repo, deleted.tag); err != nil {
		t.Errorf("what was deleted after the moment to go back to: %v", err)
	}
	alone.nodes[0].proc.kill()

	if out, err := d.nodes[0].cli("snapshot", "verify", "latest", "--deep"); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	began := time.Now()
	d.restore("latest")
	restored := time.Since(began)
	n := d.nodes[0]
	n.start()
	first := l.images[0]
	eventually(t, rto, "the first pull", func() error {
		_, err := at(n.url()).image(t.Context(), first.repo, first.tag)
		return err
	})
	t.Logf("restored in %v, the first pull %v after the begin", restored.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
	for _, n := range d.nodes[1:] { // their disks are empty
		n.start()
	}
	for _, n := range d.nodes {
		n.waitReady()
	}
	d.voting()
	t.Logf("three nodes again %v after the begin", time.Since(began).Round(time.Millisecond))
	for _, n := range d.nodes {
		l.as(n, l.end)
	}
	if _, err := at(n.url()).want(t.Context(), http.StatusNotFound, http.MethodHead, "/v2/"+deleted.repo+"/manifests/"+deleted.tag, nil, nil); err != nil {
		t.Errorf("what was deleted before the loss: %v", err)
	}
	l.goesOn()
	d.agree()
}

// loss is what was pushed to a cluster until it was lost.
type loss struct {
	t       *testing.T
	d       *deployment
	traffic *traffic
	images  []pushed // by the order of their acknowledgements
	acks    []time.Time
	end     time.Time     // when the last disk was destroyed, or just before
	stood   time.Duration // for how long the machine stood still before that
}

// load pushes images, deletes one of them after half of the time, and destroys all disks.
func (l *loss) load(during time.Duration) (deleted pushed, point time.Time) {
	const pushers = 6
	l.t.Helper()
	working, stop := context.WithCancel(l.t.Context())
	defer stop()
	var group sync.WaitGroup
	for i := range pushers {
		group.Go(func() { l.traffic.pusher(working, i) })
	}
	pause(l.t.Context(), during)
	l.traffic.mu.Lock()
	deleted = l.traffic.images[0]
	l.traffic.mu.Unlock()
	point = time.Now()
	pause(l.t.Context(), time.Second) // the clocks of a command and of its answer are not the same
	if _, err := at(l.d.url()).want(l.t.Context(), http.StatusAccepted, http.MethodDelete, "/v2/"+deleted.repo+"/manifests/"+deleted.digest, nil, nil); err != nil {
		l.t.Fatal(err)
	}
	pause(l.t.Context(), during)

	stop()
	l.end = time.Now()
	l.stood = machine.since(l.end.Add(-10 * time.Second))
	var kills sync.WaitGroup
	for _, n := range l.d.nodes {
		kills.Go(n.proc.kill)
	}
	kills.Wait()
	for _, n := range l.d.nodes {
		l.d.forget(n)
	}
	group.Wait()
	l.traffic.mu.Lock()
	defer l.traffic.mu.Unlock()
	for i, image := range l.traffic.images {
		if image != deleted {
			l.images, l.acks = append(l.images, image), append(l.acks, l.traffic.acks[i])
		}
	}
	l.t.Logf("%d images were acknowledged until the disks were destroyed, the last %v before", len(l.images),
		l.end.Sub(l.acks[len(l.acks)-1]).Round(time.Millisecond))
	return deleted, point
}

// as checks that a node holds what was acknowledged until a moment, and nothing that was pushed well after it. Of the
// moment of the loss, it may lack what the RPO allows to lose.
func (l *loss) as(n *node, moment time.Time) {
	l.t.Helper()
	r := at(n.url())
	defer r.client.CloseIdleConnections()
	pulled, lost, worst := 0, 0, time.Duration(0)
	allowed := time.Duration(0) // what was shipped long before the loss is there to the last entry
	if moment.Equal(l.end) {
		allowed = rpo + l.stood // nothing is shipped meanwhile
	}
	for i, image := range l.images {
		header := http.Header{"Accept": {mediaManifest}}
		a, err := r.do(l.t.Context(), http.MethodHead, "/v2/"+image.repo+"/manifests/"+image.tag, header, nil)
		switch {
		case err != nil:
			l.t.Fatal(err)
		case a.status == http.StatusNotFound && l.acks[i].After(moment.Add(-allowed)):
			if l.acks[i].Before(moment) {
				lost, worst = lost+1, max(worst, moment.Sub(l.acks[i]))
			}
			continue
		case a.status == http.StatusNotFound:
			l.t.Errorf("%s:%s was acknowledged %v before the moment and is not on %s", image.repo, image.tag, moment.Sub(l.acks[i]), n.name)
			continue
		case allowed == 0 && l.acks[i].After(moment.Add(rpo)):
			l.t.Errorf("%s:%s was acknowledged %v after the moment and is on %s", image.repo, image.tag, l.acks[i].Sub(moment), n.name)
		}
		if digest, err := r.image(l.t.Context(), image.repo, image.tag); err != nil || digest != image.digest {
			l.t.Errorf("%s:%s on %s is %q, pushed was %s: %v", image.repo, image.tag, n.name, digest, image.digest, err)
			continue
		}
		pulled++
	}
	if pulled == 0 {
		l.t.Errorf("nothing could be pulled from %s: the test shows nothing", n.name)
	}
	l.t.Logf("%s: %d images pulled byte for byte; %d lost, the oldest acknowledged %v before", n.name, pulled, lost, worst.Round(time.Millisecond))
}

// goesOn pushes to the restored cluster, lets it collect before and after it owns the bucket, and pulls everything again.
func (l *loss) goesOn() {
	l.t.Helper()
	n, r := l.d.nodes[0], at(l.d.url())
	if _, err := pushImage(l.t.Context(), r, "restored/app", "v1"); err != nil {
		l.t.Error(err)
	}
	out, err := n.cli("gc", "run", "--wait")
	l.t.Logf("a cycle before adoption: %v\n%s", err, out)
	if _, err := n.adopt(); err != nil {
		l.t.Fatal(err)
	}
	if _, err := n.cli("gc", "run", "--wait"); err != nil {
		l.t.Errorf("a cycle after adoption: %v", err)
	}
	for _, n := range l.d.nodes {
		l.as(n, l.end)
		if _, err := at(n.url()).image(l.t.Context(), "restored/app", "v1"); err != nil {
			l.t.Error(err)
		}
	}
	if out, err := n.cli("gc", "verify"); err != nil {
		l.t.Errorf("%v\n%s", err, out)
	}
}

// beside is a cluster of one node with other disks over the same store, not yet running.
func (d *deployment) beside(name, extra string) *deployment {
	d.t.Helper()
	o := &deployment{t: d.t, logs: d.logs, data: filepath.Join(d.data, name), secret: d.secret, store: d.store, options: d.options, made: d.made, volumes: map[string]*volume{}}
	o.options.disk, o.options.storage, o.options.wire = 0, nil, nil // nothing spoils what is looked at
	o.options.extra = extra
	if err := os.Mkdir(o.data, 0o700); err != nil {
		d.t.Fatal(err)
	}
	n := o.node(0)
	n.name, n.config = name, filepath.Join(d.logs, name+".yml")
	o.nodes = []*node{n}
	o.move()
	return o
}

// restore builds the data directory of a deployment's first node from a backup.
func (d *deployment) restore(args ...string) {
	d.t.Helper()
	out, err := d.nodes[0].cli(append([]string{"snapshot", "restore"}, args...)...)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Logf("%s restored %v:\n%s", d.nodes[0].name, args, out)
}

// begin starts the one node.
func (d *deployment) begin() {
	d.t.Helper()
	d.nodes[0].start()
	d.nodes[0].waitReady()
}

// TestADrillBesideTheClusterCostsItNothing restores a backup beside the cluster that took it, over the same bucket, while
// that goes on under load and collects. The drill is pushed to, emptied and collected. Last it takes the bucket over, as only
// who thinks the cluster gone would, and deletes all that it holds: from then on the cluster deletes nothing, and keeps everything.
func TestADrillBesideTheClusterCostsItNothing(t *testing.T) {
	t.Parallel()
	b := newBucket(t)
	d := newDeployment(t, b, options{extra: archived + "  keep: 1\n  keepfor: 2s\n", drain: "1s"})
	m := newMill(d.url(), "mill", drillGrace, drillImages)
	c, halt := d.mills(m)
	pause(t.Context(), 6*time.Second)
	if _, err := d.nodes[1].cli("snapshot", "save"); err != nil {
		t.Fatal(err)
	}

	drill := d.beside("drill", unarchived)
	drill.restore("latest")
	drill.begin()
	held := drill.empties(m)
	t.Logf("the drill held %d images of the cluster, and deleted them", held)
	if held == 0 {
		t.Error("the drill held nothing: the test shows nothing")
	}
	for i := range 4 {
		if _, err := pushImage(t.Context(), at(drill.nodes[0].url()), "drill/app", fmt.Sprint("t1", i)); err != nil {
			t.Error(err)
		}
	}
	for round := 0; round < 3 || round < 12 && c.deleted() < 20; round++ {
		drill.collects("which does not own the bucket")
		pause(t.Context(), drillGrace)
	}
	halt()
	if c.deleted() < 20 {
		t.Errorf("the cluster deleted only %d keys beside the drill: the test shows nothing", c.deleted())
	}
	for _, n := range d.nodes {
		if err := m.pullAll(n); err != nil {
			t.Errorf("beside the drill: %v", err)
		}
	}
	b.needs(t, m)

	// Now all is pushed that the drill knows nothing of.
	late := newMill(d.url(), "late", drillGrace, drillImages)
	_, halt = d.mills(late)
	pause(t.Context(), 4*time.Second)
	victim, err := pushImage(t.Context(), at(d.url()), "late/deleted", "t1")
	if err != nil {
		t.Fatal(err)
	}
	out, err := drill.nodes[0].adopt()
	if err != nil {
		t.Fatalf("the drill takes the bucket: %v", err)
	}
	t.Logf("the drill took the bucket: %s", out)
	if _, err := at(d.url()).want(t.Context(), http.StatusAccepted, http.MethodDelete, "/v2/late/deleted/manifests/"+victim, nil, nil); err != nil {
		t.Fatal(err)
	}
	for range 4 { // longer than grace and delay
		drill.collects("which owns the bucket now")
		out, err := d.nodes[0].cli("gc", "run", "--wait")
		t.Logf("the cluster that owned it collects: %v\n%s", err, out)
		pause(t.Context(), drillGrace)
	}
	halt()
	for _, n := range d.nodes {
		for _, images := range []*mill{m, late} {
			if err := images.pullAll(n); err != nil {
				t.Errorf("beside an adopter: %v", err)
			}
		}
	}
	b.needs(t, m)
	b.needs(t, late)
	if held, err := b.digests(t.Context()); err != nil || held[digestOf(noise("late/deletedt1", 32<<10))] == 0 {
		t.Errorf("a cluster that had lost the bucket deleted from it, or: %v", err)
	}
}

const (
	drillGrace  = 5 * time.Second
	drillImages = 120
)

// mills lets workers and pullers run on a cluster, which collects meanwhile, until halt, which tells what they did.
func (d *deployment) mills(m *mill) (c *collecting, halt func()) {
	const workers, pullers = 4, 2
	c = &collecting{t: d.t, d: d, down: map[*node]int{}}
	working, stop := context.WithCancel(d.t.Context())
	var group sync.WaitGroup
	for i := range workers {
		group.Go(func() { m.worker(working, i, workers) })
	}
	for i := range pullers {
		group.Go(func() { m.puller(working, i) })
	}
	group.Go(func() { c.requests(working) })
	halt = sync.OnceFunc(func() {
		stop()
		group.Wait()
		d.t.Logf("the load on %s: %v; %d cycles, %d keys deleted; %d cycles left something undone", m.name, m.count, c.cycles, c.keys, len(c.failed))
		for _, problem := range head(m.violations, 20) {
			d.t.Error(problem)
		}
	})
	d.t.Cleanup(halt)
	return c, halt
}

// adopt takes the bucket's owner mark from the cluster that has it.
func (n *node) adopt() (string, error) {
	out, err := n.cli("gc", "status", "--output", "json")
	if err != nil {
		return "", err
	}
	var status struct {
		Mark struct {
			Held    bool   `json:"held"`
			Cluster string `json:"cluster"`
		} `json:"mark"`
	}
	if err := json.Unmarshal([]byte(out), &status); err != nil {
		return "", fmt.Errorf("decode gc status of %s: %w: %s", n.name, err, out)
	}
	if status.Mark.Held || status.Mark.Cluster == "" {
		return "", fmt.Errorf("%s should not own the bucket yet: %s", n.name, out)
	}
	return n.cli("gc", "adopt", "--from", status.Mark.Cluster, "--yes")
}

// empties deletes all that a drill has of the mill's images, and answers how many those were.
func (d *deployment) empties(m *mill) (held int) {
	d.t.Helper()
	r := at(d.nodes[0].url())
	defer r.client.CloseIdleConnections()
	for _, image := range m.images {
		a, err := r.do(d.t.Context(), http.MethodDelete, "/v2/"+image.repo+"/manifests/"+image.digest, nil, nil)
		switch {
		case err != nil:
			d.t.Error(err)
		case a.status == http.StatusAccepted:
			held++
		case a.status != http.StatusNotFound:
			d.t.Errorf("deletion in the drill answered %d: %s", a.status, a.body)
		}
	}
	return held
}

// collects runs a cycle and shows what came of it.
func (d *deployment) collects(who string) {
	d.t.Helper()
	out, err := d.nodes[0].cli("gc", "run", "--wait")
	d.t.Logf("%s, %s, collects: %v\n%s", d.nodes[0].name, who, err, out)
}

// needs fails the test unless all that the mill's images need is in the bucket.
func (b *bucket) needs(t *testing.T, m *mill) {
	t.Helper()
	held, err := b.digests(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for digest := range m.needed() {
		if held[digest] == 0 {
			t.Errorf("%s is needed and not in the bucket", digest)
		}
	}
}
