package chaos

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pontoon-registry/pontoon/chaos/proxy"
)

// arena is what TestChaos fights in: three voters and a node without a vote, a bucket on an S3 server, HAProxy with room for
// more nodes.
type arena struct {
	t      testing.TB
	d      *deployment
	bucket *bucket
	s3     *proxy.S3   // the layer of faults before its server
	mesh   *proxy.Mesh // lines between the nodes, and from each to the store
	dir    string      // of the run: logs, histories, the report; kept

	// Of the goroutine of the test alone.
	taken   []*node // under a fault
	claimed []*node // taken by the fault that is being injected

	absences absences               // of nodes that were removed while they ran
	active   sync.Map               // names of the faults that are there → whether each is confined
	members  atomic.Pointer[[]door] // d.nodes as they were last, for other goroutines
}

const (
	// arenaSlots is how many nodes there may be at once.
	arenaSlots = 6
	// arenaGrace and arenaDelay are how long garbage stays: the shortest that a push of a few requests survives.
	arenaGrace = 6 * time.Second
	arenaDelay = 3 * time.Second
)

// newArena starts all of it and waits until it is whole.
func newArena(t testing.TB, dir string, seed uint64) *arena {
	t.Helper()
	a := &arena{t: t, dir: dir, bucket: newBucket(t), mesh: proxy.NewMesh()}
	a.s3 = proxy.NewS3(proxy.S3Config{Target: strings.TrimPrefix(a.bucket.endpoint, "http://"), Seed: seed})
	t.Cleanup(func() {
		if err := errors.Join(a.mesh.Close(), a.s3.Close()); err != nil {
			t.Error(err)
		}
	})
	drain := "1s"
	if *chaosBalanced {
		drain = "2s" // HAProxy needs up to 1.5 s to turn away from a node that drains
	}
	a.d = newDeployment(t, a.bucket, options{
		first: 4, slots: arenaSlots, drain: drain, quiet: true,
		disk:    512,
		cluster: []string{"voters: 3", "log: {size: 1MiB}", "disk: {minfree: 32MiB, ballast: 16MiB}"},
		env:     []string{"GOMAXPROCS=1"},
		logs:    dir, data: filepath.Join(dir, "data"),
		storage: a.storage, wire: a.wire,
		extra: fmt.Sprintf("gc:\n  unsafeshort: true\n  grace: %v\n  delay: %v\n  uploads: 20s\n  orphans: 6s\n  schedule: never\n"+
			"backup:\n  enabled: true\n  schedule: \"@every 10s\"\n  keep: 1\n  keepfor: 8s\n", arenaGrace, arenaDelay),
	})
	a.route()
	a.d.settle(settling)
	a.publish()
	return a
}

// door is where other goroutines find a node.
type door struct {
	name, addr, debug, socket, config string
	taken                             bool // it is under a fault
	claims                            int  // how often it was
}

// publish tells other goroutines which nodes there are, where, and which are under a fault.
func (a *arena) publish() {
	var doors []door
	for _, n := range a.d.nodes {
		doors = append(doors, door{n.name, n.addr, n.debug, filepath.Join(a.d.data, n.name, "pontoon.sock"), n.config, !a.free(n), n.claims})
	}
	a.members.Store(&doors)
}

// doors are the nodes, for any goroutine, as the schedule left them last.
func (a *arena) doors() []door { return *a.members.Load() }

// doorOf finds a node by its name.
func (a *arena) doorOf(name string) (door, bool) {
	for _, d := range a.doors() {
		if d.name == name {
			return d, true
		}
	}
	return door{}, false
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
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, of := range []string{"*.log", "data"} { // what it says would be judged again, what it holds is in the way
		if earlier, err := filepath.Glob(filepath.Join(dir, of)); err != nil || len(earlier) > 0 {
			t.Fatalf("%s holds an earlier run: remove it, or name another by -chaos.dir (%v)", dir, err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "data"), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}
