package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/pontoon-registry/pontoon/blobs/blobstest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"pontoon": main})
}

// TestScripts runs testdata/script: the program as an operator meets it.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Values[imagesKey{}] = map[scriptImage]*image{}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":      exits,
			"eventually": eventually,
			"push":       push,
			"pull":       pull,
			"ports":      ports,
			"bucket":     bucket,
		},
	})
}

// scriptPatience bounds every wait of a script.
const scriptPatience = time.Minute

// exits CODE COMMAND ARGS... runs the command and asserts its exit code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND ARGS...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	var exit *exec.ExitError
	switch err := ts.Exec(args[1], args[2:]...); {
	case errors.As(err, &exit):
		got = exit.ExitCode()
	case err != nil:
		ts.Fatalf("%s: %s", args[1], err)
	}
	if got != want {
		ts.Fatalf("%s: exit code %d, expected %d", strings.Join(args[1:], " "), got, want)
	}
}

// eventually PATTERN COMMAND ARGS... repeats the command until its output matches.
func eventually(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: eventually PATTERN COMMAND ARGS...")
	}
	pattern, err := regexp.Compile(args[0])
	ts.Check(err)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(scriptPatience); ; <-tick.C {
		_ = ts.Exec(args[1], args[2:]...) // its output decides
		if pattern.MatchString(ts.ReadFile("stdout")) {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("no %q from %s within %s", args[0], strings.Join(args[1:], " "), scriptPatience)
		}
	}
}

// scriptImage is the image of a script's repository and tag.
type scriptImage struct{ repository, tag string }

type imagesKey struct{}

// images are those that the script has pushed.
func images(ts *testscript.TestScript) map[scriptImage]*image {
	return ts.Value(imagesKey{}).(map[scriptImage]*image)
}

// registryURL asks the node of the script where it listens.
func registryURL(ts *testscript.TestScript) string {
	ts.Check(ts.Exec("pontoon", "status", "-o", "json"))
	var s struct {
		Node struct {
			RegistryURL string `json:"registryUrl"`
		} `json:"node"`
	}
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &s))
	return s.Node.RegistryURL
}

// push REPOSITORY TAG pushes a new image to the script's node.
func push(ts *testscript.TestScript, neg bool, args []string) {
	i, err := newImage("from a script")
	ts.Check(err)
	ctx, cancel := context.WithTimeout(context.Background(), scriptPatience)
	defer cancel()
	err = newRegistryClient().push(ctx, []string{registryURL(ts)}, args[0], args[1], i)
	verdict(ts, neg, err)
	if err == nil {
		images(ts)[scriptImage{args[0], args[1]}] = i
	}
}

// pull REPOSITORY TAG pulls an image that the script pushed and compares its bytes.
func pull(ts *testscript.TestScript, neg bool, args []string) {
	i := images(ts)[scriptImage{args[0], args[1]}]
	if i == nil {
		ts.Fatalf("the script has not pushed %s:%s", args[0], args[1])
	}
	ctx, cancel := context.WithTimeout(context.Background(), scriptPatience)
	defer cancel()
	verdict(ts, neg, newRegistryClient().pull(ctx, registryURL(ts), args[0], args[1], i))
}

func verdict(ts *testscript.TestScript, neg bool, err error) {
	if (err != nil) != neg {
		ts.Fatalf("got error %v, expected one: %t", err, neg)
	}
	_, _ = fmt.Fprintf(ts.Stdout(), "%v\n", err)
}

// choosing is held by the script that chooses ports.
var choosing sync.Mutex

// ports NAME... sets variables to free addresses on loopback.
func ports(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: ports NAME...")
	}
	ctx, cancel := context.WithTimeout(context.Background(), scriptPatience)
	defer cancel()
	choosing.Lock() // or another script finds a port free before this one holds it
	defer choosing.Unlock()
	for _, name := range args {
		addr, release, err := heldPort(ctx)
		ts.Check(err)
		ts.Defer(release)
		ts.Setenv(name, addr)
	}
}

// heldPort finds a free port and holds it. Whoever else looks for one, such as a server of another test, may come between.
func heldPort(ctx context.Context) (addr string, release func(), err error) {
	for range 100 {
		free, err := freePorts(ctx, 1)
		if err != nil {
			return "", nil, err
		}
		release, err := hold(free[0])
		if !errors.Is(err, syscall.EADDRINUSE) {
			return free[0], release, err
		}
	}
	return "", nil, errors.New("a hundred free ports were taken before they could be held")
}

// hold keeps a port for the script until it needs it, bound and not listened on: a node takes it over, since both say
// SO_REUSEADDR, and the kernel gives it to nobody's connection meanwhile.
func hold(addr string) (release func(), err error) {
	at, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, err
	}
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("hold %s: %w", addr, err)
	}
	release = func() { _ = syscall.Close(fd) } // it only held the port
	err = syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1)
	if err == nil {
		err = syscall.Bind(fd, &syscall.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()})
	}
	if err != nil {
		release()
		return nil, fmt.Errorf("hold %s: %w", addr, err)
	}
	return release, nil
}

// bucket DIR starts an S3 server with an empty bucket below DIR for the rest of the script, and configures it as the store.
func bucket(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: bucket DIR")
	}
	ctx, cancel := context.WithTimeout(context.Background(), scriptPatience)
	defer cancel()
	dir := ts.MkAbs(args[0])
	server, err := blobstest.NewS3(ctx, dir, io.Discard)
	ts.Check(err)
	ts.Defer(server.Stop)
	for name, value := range map[string]string{
		"REGISTRY_STORAGE": "s3", "REGISTRY_STORAGE_S3_REGIONENDPOINT": server.Endpoint, "REGISTRY_STORAGE_S3_BUCKET": server.Bucket,
		"REGISTRY_STORAGE_S3_ACCESSKEY": server.AccessKey, "REGISTRY_STORAGE_S3_SECRETKEY": server.SecretKey,
		"REGISTRY_STORAGE_S3_FORCEPATHSTYLE": "true",
	} {
		ts.Setenv(name, value)
	}
}
