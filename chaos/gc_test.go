package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"
)

// TestGarbageIsCollectedUnderLoad keeps a load of pushes, pushes of just-deleted content, mounts, deletions and pulls on three
// nodes, requests one cycle of garbage collection after the other, and kills the leader again and again. No push fails
// because of it, what was acknowledged and not deleted is whole on every node, and in the end the bucket holds exactly that.
func TestGarbageIsCollectedUnderLoad(t *testing.T) {
	t.Parallel() // like the other tests of what is forgotten and remembered: they wait much of the time
	collectUnderLoad(t, garbage{during: 45 * time.Second, grace: 5 * time.Second, delay: 3 * time.Second,
		backup: []string{"  enabled: false"}})
}

// TestGarbageIsCollectedUnderLoadBesideBackups does the same while backups are taken and retired: what a backup may need
// stays until it is retired, and no longer.
func TestGarbageIsCollectedUnderLoadBesideBackups(t *testing.T) {
	t.Parallel()
	collectUnderLoad(t, garbage{during: 30 * time.Second, grace: 5 * time.Second, delay: 3 * time.Second,
		backup: []string{"  enabled: true", `  schedule: "@every 10s"`, "  keep: 1", "  keepfor: 20s"}})
}

// garbage is how TestGarbageIsCollected runs.
type garbage struct {
	during, grace, delay time.Duration
	backup               []string // lines of the section backup
}

// killEvery is how long a leader lives.
const killEvery = 20 * time.Second

func (g garbage) yaml() string {
	yaml := fmt.Sprintf("gc:\n  unsafeshort: true\n  grace: %v\n  delay: %v\n  uploads: 10s\n  orphans: 5s\n  schedule: never\nbackup:\n", g.grace, g.delay)
	for _, line := range g.backup {
		yaml += line + "\n"
	}
	return yaml
}

func collectUnderLoad(t *testing.T, g garbage) {
	const workers, pullers, images = 6, 4, 240
	if *long {
		g.during = 10 * time.Minute
	}
	b := newBucket(t)
	d := newDeployment(t, b, options{extra: g.yaml(), drain: "1s"})
	m := newMill(d.url(), "mill", g.grace, images)
	c := &collecting{t: t, d: d}

	working, stop := context.WithTimeout(t.Context(), g.during)
	defer stop()
	var group sync.WaitGroup
	for i := range workers {
		group.Go(func() { m.worker(working, i, workers) })
	}
	for i := range pullers {
		group.Go(func() { m.puller(working, i) })
	}
	group.Go(func() { c.requests(working) })
	c.kills(working)
	stop()
	group.Wait()

	for _, n := range d.nodes {
		n.waitReady()
	}
	d.voting()
	t.Logf("%v with grace %v and delay %v: %v", g.during, g.grace, g.delay, m.count)
	t.Logf("%d leaders killed, %d cycles awaited meanwhile, which deleted %d keys and %d MiB; %d requests cut with their node",
		len(c.killed), c.cycles, c.keys, c.bytes/mib, len(c.cut))
	for _, line := range slices.Concat(head(m.repeated, 5), head(m.late, 5), head(c.cut, 3)) {
		t.Logf("repeated: %.400s", line)
	}
	for _, problem := range slices.Concat(head(m.violations, 20), head(c.failed, 10)) {
		t.Error(problem)
	}
	if m.count.again == 0 || m.count.mounted == 0 || m.count.deletes == 0 || m.count.pulls == 0 || m.count.known == 0 || c.keys == 0 {
		t.Error("some of the load was not there: the test shows nothing")
	}
	for _, n := range d.nodes {
		if err := m.pullAll(n); err != nil {
			t.Error(err)
		}
	}
	c.cleanUp(b, m)
	d.agree()
}

// deleted is how many keys the cycles deleted so far.
func (c *collecting) deleted() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.keys
}

func head(lines []string, most int) []string { return lines[:min(most, len(lines))] }

// collecting requests cycles and kills leaders.
type collecting struct {
	t      testing.TB
	d      *deployment
	killed []time.Time

	mu     sync.Mutex    // guards what follows
	down   map[*node]int // how often it was killed
	cycles int
	keys   int64 // deleted by those cycles
	bytes  int64
	cut    []string // requests whose own node was killed
	failed []string
}

// requests asks one node after the other for a cycle, and waits for its end.
func (c *collecting) requests(ctx context.Context) {
	for i := 0; ctx.Err() == nil; i++ {
		n := c.d.nodes[i%len(c.d.nodes)]
		c.mu.Lock()
		before := c.down[n]
		c.mu.Unlock()
		began := time.Now()
		out, err := n.cli("gc", "run", "--wait", "--output", "json")
		c.mu.Lock()
		switch {
		case err == nil:
			c.cycles++
			c.keys += sumOf(deletedKeys, out)
			c.bytes += sumOf(deletedBytes, out)
		case c.down[n] != before || before%2 == 1:
			c.cut = append(c.cut, err.Error())
		case machine.costALeader(c.t, began, err):
		default:
			c.failed = append(c.failed, fmt.Sprintf("%s a cycle was requested on %s, which lived: %v", time.Now().Format("15:04:05.000"), n.name, err))
		}
		c.mu.Unlock()
		pause(ctx, 200*time.Millisecond)
	}
}

// What the end of a cycle says in JSON, where 64-bit numbers are strings.
var (
	deletedKeys  = regexp.MustCompile(`"(?:deletedKeys|orphanKeys)":\s*"?(\d+)`)
	deletedBytes = regexp.MustCompile(`"(?:deletedBytes|orphanBytes)":\s*"?(\d+)`)
)

func sumOf(what *regexp.Regexp, in string) (sum int64) {
	for _, found := range what.FindAllStringSubmatch(in, -1) {
		n, _ := strconv.ParseInt(found[1], 10, 64) // digits
		sum += n
	}
	return sum
}

// kills kills the leader every killEvery and starts it again a moment later.
func (c *collecting) kills(ctx context.Context) {
	c.down = map[*node]int{}
	for pause(ctx, killEvery/2); ctx.Err() == nil; pause(ctx, killEvery) {
		victim := c.d.leader(30 * time.Second)
		c.killed = append(c.killed, time.Now())
		c.note(victim)
		victim.proc.kill()
		pause(ctx, time.Duration(500+rand.IntN(2000))*time.Millisecond)
		victim.start()
		victim.waitReady()
		c.note(victim)
	}
}

func (c *collecting) note(n *node) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.down[n]++
}

// cleanUp collects until the bucket holds nothing but what the images need, and lets the registry check itself.
func (c *collecting) cleanUp(b *bucket, m *mill) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	began, rounds, n := time.Now(), 0, c.d.nodes[0]
	eventually(c.t, 2*time.Minute, "the bucket to hold only what is needed", func() error {
		rounds++
		_, err := n.cli("gc", "run", "--wait")
		return errors.Join(err, b.holds(ctx, m.needed()))
	})
	c.t.Logf("%d live images need %d blobs, and the bucket holds just these %v after the load, %d cycles later",
		len(m.live()), len(m.needed()), time.Since(began).Round(100*time.Millisecond), rounds)
	if out, err := n.cli("gc", "verify"); err != nil {
		c.t.Errorf("%v\n%s", err, out)
	}
	for _, n := range c.d.nodes {
		if err := m.pullAll(n); err != nil {
			c.t.Errorf("after all was collected: %v", err)
		}
	}
}
