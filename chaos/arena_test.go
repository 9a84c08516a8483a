package chaos

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

// arena is what TestChaos fights in: three voters and a node without a vote, a bucket on an S3 server, HAProxy with room for
// more nodes.
type arena struct {
	t      testing.TB
	d      *deployment
	bucket *bucket
	dir    string // of the run: logs, histories, the report; kept

	// Of the goroutine of the test alone.
	taken   []*node // under a fault
	claimed []*node // taken by the fault that is being injected

	members atomic.Pointer[[]*node] // d.nodes as they were last, for other goroutines
}

const (
	// arenaSlots is how many nodes there may be at once.
	arenaSlots = 6
	// arenaGrace and arenaDelay are how long garbage stays: the shortest that a push of a few requests survives.
	arenaGrace = 6 * time.Second
	arenaDelay = 3 * time.Second
)

// newArena starts all of it and waits until it is whole.
func newArena(t testing.TB, dir string) *arena {
	t.Helper()
	a := &arena{t: t, dir: dir, bucket: newBucket(t)}
	a.d = newDeployment(t, a.bucket, options{
		first: 4, slots: arenaSlots, drain: "1s", quiet: true,
		cluster: []string{"voters: 3"},
		env:     []string{"GOMAXPROCS=1"},
		logs:    dir, data: filepath.Join(dir, "data"),
		extra: fmt.Sprintf("gc:\n  unsafeshort: true\n  grace: %v\n  delay: %v\n  uploads: 20s\n  orphans: 6s\n  schedule: never\n"+
			"backup:\n  enabled: true\n  schedule: \"@every 20s\"\n  keep: 2\n  keepfor: 20s\n", arenaGrace, arenaDelay),
	})
	a.d.settle(settling)
	a.publish()
	return a
}

// publish tells other goroutines which nodes there are.
func (a *arena) publish() {
	nodes := append([]*node(nil), a.d.nodes...)
	a.members.Store(&nodes)
}

// nodes are all that there are, for any goroutine: how the schedule left them last.
func (a *arena) nodes() []*node { return *a.members.Load() }

// any is one of the nodes.
func (a *arena) any() *node {
	nodes := a.nodes()
	return nodes[rand.IntN(len(nodes))]
}

// runFolder is where a run keeps all that it leaves.
func runFolder(t testing.TB, named string, seed uint64) string {
	t.Helper()
	if named == "" {
		named = filepath.Join(os.TempDir(), fmt.Sprintf("pontoon-chaos-%d", seed))
	}
	dir, err := filepath.Abs(named)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "data"), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}
