package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"
)

const (
	fewestNodes = 3
	mostNodes   = 6
	// settling bounds how long a cluster needs to be whole again: a new node has to prove itself for ten seconds.
	settling = 2 * time.Minute
	// fewCycles and fewSeed are those of make check, the same each time: two joins, a wiped disk, a kill, a leave, a move.
	fewCycles = 6
	fewSeed   = 7
)

// TestClusterChurnsUnderLoad changes the cluster over and over while clients push and pull through HAProxy: nodes join and
// are promoted, leave, are killed, lose their disks, move to other addresses, and hand leadership over. No pull fails but
// by the cut of its own connection, every push that fails succeeds when the client repeats it, the failure tolerance never
// drops without a cause, and in the end every image is on every node and nobody remembers a node that is gone.
func TestClusterChurnsUnderLoad(t *testing.T) {
	rounds, clients, given := *cycles, 16, *seed
	if rounds == 0 {
		rounds = fewCycles
		if *long {
			rounds = 25
		}
	}
	if given == 0 {
		given = fewSeed
		if rounds != fewCycles {
			given = rand.Uint64()
		}
	}
	t.Logf("seed %d: -seed=%d -cycles=%d runs the same again", given, given, rounds)
	d := newDeployment(t, newBucket(t), options{drain: "2s", slots: mostNodes})
	c := &churn{t: t, d: d, chance: rand.New(rand.NewPCG(given, 0)), watch: &watch{},
		traffic: &traffic{registry: d.url(), push: 250 * time.Millisecond, pull: 100 * time.Millisecond}}
	d.settle(settling)
	c.watch.expect("start", 1, d.nodes)

	working, stop := context.WithCancel(t.Context())
	defer stop()
	var group sync.WaitGroup
	for i := range clients {
		group.Go(func() { c.traffic.pusher(working, i) })
		group.Go(func() { c.traffic.puller(working, i) })
	}
	group.Go(func() { c.watch.run(working) })
	finish := sync.OnceFunc(func() {
		stop()
		group.Wait()
		c.tell()
	})
	defer finish() // also where a change ends the test
	for i := range rounds {
		c.cycle(i)
	}
	finish()
	c.judge()
}

// churn is one run of changes.
type churn struct {
	t       testing.TB
	d       *deployment
	chance  *rand.Rand
	deck    []string
	dealt   bool // the first deck
	watch   *watch
	traffic *traffic
	gaps    []time.Duration
}

// draw chooses what comes next. A deck holds every kind, joins and leaves twice, in any order as far as the number of nodes
// allows; the first begins with two joins, so that of three voters there are five.
func (c *churn) draw() string {
	if len(c.deck) == 0 {
		c.deck = []string{"join", "join", "leave", "leave", "kill", "wipe", "move", "transfer"}
		first := 0
		if !c.dealt {
			first, c.dealt = 2, true
		}
		rest := c.deck[first:]
		c.chance.Shuffle(len(rest), func(i, j int) { rest[i], rest[j] = rest[j], rest[i] })
	}
	possible := func(kind string) bool {
		return (kind != "join" || len(c.d.nodes) < mostNodes) && (kind != "leave" || len(c.d.nodes) > fewestNodes)
	}
	i := max(0, slices.IndexFunc(c.deck, possible))
	kind := c.deck[i]
	c.deck = slices.Delete(c.deck, i, i+1)
	if !possible(kind) { // only leave was left, with as few nodes as may be
		return "join"
	}
	return kind
}

// cycle makes one change and waits until the cluster is whole and the pushers go on.
func (c *churn) cycle(i int) {
	c.t.Helper()
	kind, victim := c.draw(), c.d.nodes[c.chance.IntN(len(c.d.nodes))]
	leads := ""
	if c.d.leader(30*time.Second) == victim {
		leads = ", which leads"
	}
	what := fmt.Sprintf("cycle %d: %s %s%s", i+1, kind, victim.name, leads)
	whole := (c.d.votersOf(len(c.d.nodes)) - 1) / 2
	others := c.d.others(victim)
	began := time.Now()
	switch kind {
	case "join":
		c.watch.expect(what, whole, c.d.nodes)
		what = fmt.Sprintf("cycle %d: join %s", i+1, c.d.join().name)
	case "leave":
		c.watch.expect(what, (c.d.votersOf(len(others))-1)/2, others)
		c.d.leave(victim)
	case "kill":
		c.watch.expect(what, whole-1, others)
		victim.proc.kill()
		time.Sleep(time.Duration(c.chance.IntN(3000)) * time.Millisecond) // for how long it stays away is part of the change
		c.d.comeBack(victim)
	case "wipe":
		c.watch.expect(what, whole-1, others)
		victim.proc.kill()
		c.d.forget(victim)
		c.d.slots.waitDown(victim.slot) // a disk takes longer to replace than the balancer to notice
		c.d.comeBack(victim)
	case "move":
		c.watch.expect(what, whole-1, others)
		c.d.stop(victim)
		victim.place()
		c.d.comeBack(victim)
	case "transfer":
		c.watch.expect(what, whole, c.d.nodes)
		c.d.transfer(c.d.nodes[c.chance.IntN(len(c.d.nodes))], victim)
	}
	c.d.settle(settling)
	if err := c.traffic.goesOn(30*time.Second, 32); err != nil {
		c.t.Fatalf("%s: %v", what, err)
	}
	end := time.Now()
	gap := c.traffic.gap(began, end)
	c.gaps = append(c.gaps, gap)
	c.watch.mu.Lock()
	least := c.watch.least
	c.watch.mu.Unlock()
	c.watch.expect(what+", done", (c.d.votersOf(len(c.d.nodes))-1)/2, c.d.nodes)
	c.t.Logf("%s: whole after %v with %d nodes; longest time without an acknowledged push %v; at least %d more might have failed",
		what, end.Sub(began).Round(100*time.Millisecond), len(c.d.nodes), gap.Round(time.Millisecond), least)
}

// tell prints the numbers, and fails the test for what clients and watch saw.
func (c *churn) tell() {
	t, f := c.t, c.traffic
	t.Helper()
	t.Logf("%d pushes acknowledged, the longest took %v; %d attempts failed, of %d pushes, each repeated at most %d times; %d pulls, %d cut and repeated",
		len(f.images), f.longestPush.Round(time.Millisecond), len(f.pushFailures), len(f.retries), slices.Max(append(f.retries, 0)), f.pulls, f.cutPulls)
	t.Logf("longest time without an acknowledged push: p50 %v, longest %v; failure tolerance asked %d times",
		percentile(c.gaps, 50), percentile(c.gaps, 100), c.watch.asked)
	for _, failure := range f.pushFailures[:min(10, len(f.pushFailures))] {
		t.Logf("repeated: %.300s", failure)
	}
	if c.watch.asked == 0 || f.pulls == 0 {
		t.Error("nothing was asked or pulled: the test shows nothing")
	}
	for _, problem := range slices.Concat(f.violations, c.watch.drops)[:min(20, len(f.violations)+len(c.watch.drops))] {
		t.Error(problem)
	}
}

// judge compares the nodes, once nothing changes any more.
func (c *churn) judge() {
	t, f := c.t, c.traffic
	t.Helper()
	for _, n := range c.d.nodes {
		n.waitReady()
	}
	c.d.settle(settling)
	c.d.noGhosts()
	c.d.agree()
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	defer cancel()
	for _, n := range c.d.nodes {
		if failed, errs := f.pullAll(ctx, n); failed > 0 {
			t.Errorf("%d of %d acknowledged images cannot be pulled from %s: %v", failed, len(f.images), n.name, errs)
		}
	}
}
