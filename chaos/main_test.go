package chaos

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

var (
	long        = flag.Bool("long", false, "run the end-to-end tests at full length: all clients, 1 GiB layers")
	kills       = flag.Int("kills", 0, "how often TestLeader kills the leader; 0: 2, or 20 with -long")
	conformance = flag.String("conformance", "", "path of the official conformance suite, built; empty: not run")
	times       = flag.Int("times", 20, "how often the conformance suite runs on each kind of store")
	cycles      = flag.Int("cycles", 0, "how often TestClusterChurns changes the cluster; 0: 6, or 25 with -long")
	seed        = flag.Uint64("seed", 0, "of the changes that TestClusterChurns makes; 0: 7 for six cycles, else a new one, which is printed")
	restarting  = flag.Bool("restarting", false, "restart nodes, one after the other, while the conformance suite runs")
	figures     = flag.Bool("figures", false, "run the benchmark")
	million     = flag.Int("million", 0, "how many manifests the state holds in TestFiguresOfManyManifests; 0: not run")
	prepared    = flag.String("prepared", "", "a folder in which the filled data directory of TestFiguresOfForgettingAndRemembering is kept and found again; empty: none")
	given       = flag.String("binary", "", "the pontoon to test; empty: build it from the tree")
	givenFaults = flag.String("faultsbinary", "", "the same, built with the tag faults; empty: build it from the tree")
)

// fileServerEnv turns the test binary into the plain file server that the benchmark compares with: a process of its own,
// like a node.
const fileServerEnv = "PONTOON_CHAOS_FILESERVER"

func TestMain(m *testing.M) {
	flag.Parse()
	if addr := os.Getenv(fileServerEnv); addr != "" {
		fmt.Fprintln(os.Stderr, http.ListenAndServe(addr, http.FileServer(http.Dir("."))))
		os.Exit(1)
	}
	go machine.watch() // as long as the process lives
	code := m.Run()
	for _, b := range []*build{&plain, &breaking} {
		if b.dir != "" {
			os.RemoveAll(b.dir)
		}
	}
	if verdict.ran { // the last line of all
		if !verdict.Passed() {
			code = max(code, 1)
		} else if code != 0 { // by another test
			verdict.Void = append(verdict.Void, "a test failed")
		}
		fmt.Println(verdict.Verdict)
	}
	os.Exit(code)
}

// build is a binary that is built once per run of the test binary.
type build struct {
	tags string
	once sync.Once
	dir  string
	path string
	err  error
}

// plain is the binary under test, breaking the one that breaks on command.
var plain, breaking = build{}, build{tags: "faults"}

// pontoon returns the path of the binary under test.
func pontoon(t testing.TB) string {
	t.Helper()
	return plain.binary(t, *given)
}

// breakable returns the path of one that does harm to itself when points tell it to.
func breakable(t testing.TB) string {
	t.Helper()
	return breaking.binary(t, *givenFaults)
}

func (b *build) binary(t testing.TB, given string) string {
	t.Helper()
	if given != "" {
		return given
	}
	b.once.Do(func() {
		if b.dir, b.err = os.MkdirTemp("", "pontoon-chaos-"); b.err != nil {
			return
		}
		b.path = filepath.Join(b.dir, "pontoon")
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, "go", "build", "-tags", b.tags, "-o", b.path, "./cmd/pontoon")
		cmd.Dir = ".."
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			b.err = fmt.Errorf("build pontoon: %w\n%s", err, out)
		}
	})
	if b.err != nil {
		t.Fatal(b.err)
	}
	return b.path
}
