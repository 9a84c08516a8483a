package chaos

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
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
	// arenaUploads is how old an upload becomes that nobody goes on with.
	arenaUploads = 20 * time.Second
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
		extra: fmt.Sprintf("gc:\n  unsafeshort: true\n  grace: %v\n  delay: %v\n  uploads: %v\n  orphans: 6s\n  schedule: never\n"+
			"backup:\n  enabled: true\n  schedule: \"@every 10s\"\n  keep: 1\n  keepfor: 8s\n", arenaGrace, arenaDelay, arenaUploads),
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

// runFolder is where a run keeps all that it leaves: the folder of that name, or the next in the folder for temporary files.
func runFolder(t testing.TB, named string, seed uint64) string {
	t.Helper()
	dir := named
	for i := 1; named == "" && (i == 1 || used(dir)); i++ {
		dir = filepath.Join(os.TempDir(), fmt.Sprintf("pontoon-chaos-%d", seed))
		if i > 1 {
			dir += fmt.Sprintf("-%d", i)
		}
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		t.Fatal(err)
	}
	if used(dir) { // what its logs say would be judged again, what it holds is in the way
		t.Fatalf("%s holds an earlier run: remove it, or name another by -chaos.dir (DIR of make chaos)", dir)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "data"), 0o755); err != nil { // another run that began just now has it
		t.Fatal(err)
	}
	return dir
}

// used says whether a run has left something in a folder.
func used(dir string) bool {
	there, err := os.ReadDir(dir)
	return err == nil && slices.ContainsFunc(there, func(e os.DirEntry) bool { return e.Name() == "data" || filepath.Ext(e.Name()) == ".log" })
}

func TestARunHasAFolderOfItsOwn(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	var given []string
	for range 3 {
		given = append(given, filepath.Base(runFolder(t, "", 7)))
	}
	if want := []string{"pontoon-chaos-7", "pontoon-chaos-7-2", "pontoon-chaos-7-3"}; !slices.Equal(given, want) {
		t.Errorf("got %q, want %q", given, want)
	}
}
