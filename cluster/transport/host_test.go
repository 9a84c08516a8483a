package transport

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

const checkMethod = "/grpc.health.v1.Health/Check"

func soon(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // of a busy machine
	t.Cleanup(cancel)
	return ctx
}

// refused checks a refusal's code and the parts of its message.
func refused(t *testing.T, err error, code codes.Code, parts ...string) {
	t.Helper()
	if status.Code(err) != code {
		t.Errorf("got %v, want %s", err, code)
	}
	for _, p := range parts {
		if !strings.Contains(status.Convert(err).Message(), p) {
			t.Errorf("got %v, want %q in it", err, p)
		}
	}
}

func TestNodesCallEachOtherAndKnowWhoCalls(t *testing.T) {
	b := newBook()
	a := startNode(t, b, "node-a")
	startNode(t, b, "node-b")
	for _, l := range []Lane{Control, Log, Bulk} {
		cc, err := a.Conn("node-b", l)
		must(t, err)
		_, err = grpc_health_v1.NewHealthClient(cc).Check(soon(t), &grpc_health_v1.HealthCheckRequest{Service: "node-a"})
		must(t, err)
	}
	must(t, a.ask(soon(t), "node-a", "node-a")) // itself, too
	one, _ := a.Conn("node-b", Control)
	two, _ := a.Conn("node-b", Control)
	other, _ := a.Conn("node-b", Log)
	if one != two || one == other {
		t.Error("connections are not one per peer and lane")
	}
	a.Forget("node-b")
	if three, _ := a.Conn("node-b", Control); three == one {
		t.Error("a forgotten node's connection is still used")
	}
	if _, ok := PeerID(t.Context()); ok {
		t.Error("a caller was found where there is none")
	}
}

func TestDialByAddressLearnsTheNode(t *testing.T) {
	b := newBook()
	a := startNode(t, b, "node-a")
	n := startNode(t, b, "node-b")
	cc, err := a.Dial(n.Addr().String())
	must(t, err)
	defer cc.Close()
	var p peer.Peer
	_, err = grpc_health_v1.NewHealthClient(cc).Check(soon(t), &grpc_health_v1.HealthCheckRequest{}, grpc.Peer(&p))
	must(t, err)
	if id, ok := IDOf(&p); id != "node-b" || !ok {
		t.Errorf("got %q, %v", id, ok)
	}
}

func TestAnotherSecretIsRefused(t *testing.T) {
	b := newBook()
	var log lockedBuffer
	a := startNode(t, b, "node-a", func(c *Config) { c.Credentials = newCreds(t, "other", "node-a") })
	startNode(t, b, "node-b", func(c *Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	refused(t, a.ask(soon(t), "node-b", ""), codes.Unavailable, "certificate signed by unknown authority")
	// A connection that is refused is not hammered, but tried again.
	refused(t, a.ask(soon(t), "node-b", ""), codes.Unavailable, "certificate signed by unknown authority")
	for !strings.Contains(log.String(), "refused a node's connection") {
		runtime.Gosched()
		if soonOver(t) {
			t.Fatalf("the server's log says only %q", log.String())
		}
	}
}

// soonOver is true when the test has run for too long.
func soonOver(t *testing.T) bool {
	d, ok := t.Deadline()
	return ok && time.Until(d) < 30*time.Second
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestAnotherNodeBehindAnAddressIsRefused(t *testing.T) {
	b := newBook()
	a := startNode(t, b, "node-a")
	n := startNode(t, b, "node-b")
	b.set("node-c", n.Addr().String())
	refused(t, a.ask(soon(t), "node-c", ""), codes.Unavailable, "node node-c was dialled, node node-b answers")
	refused(t, a.ask(soon(t), "node-d", ""), codes.Unavailable, "no address is known for node node-d")
}

func TestAnotherClusterOrIncarnationIsRefusedByName(t *testing.T) {
	for _, c := range []struct {
		id   string
		inc  uint64
		want string
	}{
		{"c2", 1, `node node-b belongs to cluster "c1", incarnation 1; the caller node-a belongs to cluster "c2", incarnation 1`},
		{"c1", 2, `the caller node-a belongs to cluster "c1", incarnation 2`},
		{"", 0, `the caller node-a belongs to cluster "", incarnation 0`},
	} {
		b := newBook()
		a := startNode(t, b, "node-a", func(cfg *Config) { cfg.Identity = func() (string, uint64) { return c.id, c.inc } })
		startNode(t, b, "node-b")
		refused(t, a.ask(soon(t), "node-b", ""), codes.FailedPrecondition, c.want)
		cc, err := a.Conn("node-b", Control)
		must(t, err)
		stream, err := grpc_health_v1.NewHealthClient(cc).Watch(soon(t), &grpc_health_v1.HealthCheckRequest{})
		must(t, err)
		_, err = stream.Recv()
		refused(t, err, codes.FailedPrecondition, c.want)
		if c.id == "" { // and the other way round
			n := &node{Host: a.Host}
			b.set("node-a", n.Addr().String())
			back := startNode(t, b, "node-x")
			refused(t, back.ask(soon(t), "node-a", ""), codes.FailedPrecondition, "node node-a belongs to no cluster yet")
		}
	}
}

func TestOpenMethodsMayBeCalledByNodesOfNoCluster(t *testing.T) {
	b := newBook()
	a := startNode(t, b, "node-a", func(cfg *Config) { cfg.Identity = func() (string, uint64) { return "", 0 } })
	startNode(t, b, "node-b", func(cfg *Config) { cfg.Open = []string{checkMethod} })
	must(t, a.ask(soon(t), "node-b", "node-a"))
	// With another secret, not even those.
	stranger := startNode(t, b, "node-s", func(cfg *Config) { cfg.Credentials = newCreds(t, "other", "node-s") })
	refused(t, stranger.ask(soon(t), "node-b", ""), codes.Unavailable)
}

func TestAPanicEndsTheCallNotTheProcess(t *testing.T) {
	b := newBook()
	var log lockedBuffer
	a := startNode(t, b, "node-a")
	startNode(t, b, "node-b", func(c *Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	refused(t, a.ask(soon(t), "node-b", "panic"), codes.Internal, "panic in the handler of "+checkMethod)
	cc, err := a.Conn("node-b", Control)
	must(t, err)
	stream, err := grpc_health_v1.NewHealthClient(cc).Watch(soon(t), &grpc_health_v1.HealthCheckRequest{})
	must(t, err)
	_, err = stream.Recv()
	refused(t, err, codes.Internal, "panic in the handler of")
	must(t, a.ask(soon(t), "node-b", ""))
	if !strings.Contains(log.String(), "as asked") || !strings.Contains(log.String(), "support_test.go") {
		t.Errorf("the log says only %q", log.String())
	}
}

func TestAPeerIsFollowedToItsNewAddress(t *testing.T) {
	b := newBook()
	a := startNode(t, b, "node-a")
	old := startNode(t, b, "node-b")
	must(t, a.ask(soon(t), "node-b", ""))
	old.stop()
	startNode(t, b, "node-b")
	took, late := timed(func() { until(t, time.Minute, func() error { return a.ask(soon(t), "node-b", "node-a") }) })
	if took-late > 2*time.Second {
		t.Errorf("it was found after %s, the machine was %s late", took, late)
	}
}

// until repeats until there is no error, for at most d, and says how long it took.
func until(t testing.TB, d time.Duration, do func() error) time.Duration {
	t.Helper()
	start := time.Now()
	for {
		err := do()
		if err == nil {
			return time.Since(start)
		}
		if time.Since(start) > d {
			t.Fatalf("after %s still: %v", time.Since(start), err)
		}
		<-time.After(time.Millisecond)
	}
}

// TestASilentPeerIsCutAndFoundAgain: the connection that was lost never comes
// back, as when a machine is replaced; only a new one gets through.
func TestASilentPeerIsCutAndFoundAgain(t *testing.T) {
	b := newBook()
	a := startNode(t, b, "node-a")
	n := startNode(t, b, "node-b")
	p := startProxy(t, n.Addr().String())
	b.set("node-b", p.ln.Addr().String())
	must(t, a.ask(soon(t), "node-b", ""))
	p.hole()
	lost := time.Now()
	var last error
	for time.Since(lost) < 4*time.Second {
		ctx, cancel := context.WithTimeout(t.Context(), 250*time.Millisecond)
		began := time.Now()
		last = a.ask(ctx, "node-b", "")
		cancel()
		if last == nil {
			t.Fatal("a call came through a black hole")
		}
		if took := time.Since(began); took > 20*time.Second { // without a deadline it would hang
			t.Fatalf("a call with a deadline of 250 ms took %s", took)
		}
	}
	p.heal()
	took, late := timed(func() {
		until(t, time.Minute, func() error {
			ctx, cancel := context.WithTimeout(t.Context(), 250*time.Millisecond)
			defer cancel()
			return a.ask(ctx, "node-b", "")
		})
	})
	t.Logf("found again %s after healing, the machine was %s late", took, late)
	if took-late > 2*time.Second {
		t.Error("too late")
	}
}

func TestASlowHandlerIsNotTakenForASilentPeer(t *testing.T) {
	for n := 1; ; n++ { // where the machine itself stood still, nothing came in either
		err := hang(t)
		if err == nil {
			return
		}
		if n == 5 {
			t.Fatalf("not in %d tries, the last: %v", n, err)
		}
	}
}

// hang calls a handler that hangs, and answers an error if the connection was cut for it.
func hang(t *testing.T) error {
	t.Helper()
	b := newBook()
	var dials atomic.Int32
	a := startNode(t, b, "node-a", func(c *Config) {
		c.SilentAfter = 50 * time.Millisecond
		c.Dial = func(ctx context.Context, addr string) (net.Conn, error) {
			dials.Add(1)
			return new(net.Dialer).DialContext(ctx, "tcp", addr)
		}
	})
	startNode(t, b, "node-b")
	for range 2 { // each for long enough that the peer's own ping comes in, on a busy machine too
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		err := a.ask(ctx, "node-b", "hang")
		cancel()
		if status.Code(err) != codes.DeadlineExceeded {
			return fmt.Errorf("a call that hangs ended with %w", err)
		}
	}
	if err := a.ask(soon(t), "node-b", ""); err != nil {
		return err
	}
	if n := dials.Load(); n != 1 {
		return fmt.Errorf("dialled %d times", n)
	}
	return nil
}

func TestShutdownCutsWhatHangsAndLeavesNothingBehind(t *testing.T) {
	before := goleak.IgnoreCurrent()
	b := newBook()
	a := startNode(t, b, "node-a")
	n := startNode(t, b, "node-b", func(c *Config) { c.DrainTimeout = 50 * time.Millisecond })
	must(t, a.ask(soon(t), "node-b", ""))
	must(t, n.ask(soon(t), "node-a", ""))
	hung := make(chan error, 1)
	go func() { hung <- a.ask(context.Background(), "node-b", "hang") }()
	unused, err := a.Conn("node-c", Bulk) // never connected
	must(t, err)
	_ = unused
	// The call is under way once another one, sent after it, was answered; both
	// orders are fine for the test, which only needs it to be likely.
	must(t, a.ask(soon(t), "node-b", ""))
	n.stop()
	if err := <-hung; err == nil {
		t.Error("the call that hung has succeeded")
	}
	a.stop()
	if _, err := a.Conn("node-b", Control); status.Code(err) != codes.Unavailable {
		t.Errorf("a closed host connects: %v", err)
	}
	until(t, time.Minute, func() error { return goleak.Find(before) })
}

func TestConfigurationsOutOfBoundsAreRefusedByField(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer ln.Close()
	for want, change := range map[string]func(*Config){
		"NodeID is required":                func(c *Config) { c.NodeID = "" },
		"Listener is required":              func(c *Config) { c.Listener = nil },
		"Credentials are required":          func(c *Config) { c.Credentials = nil },
		"Resolve is required":               func(c *Config) { c.Resolve = nil },
		"Identity is required":              func(c *Config) { c.Identity = nil },
		"MaxMessage is 1, must be at least": func(c *Config) { c.MaxMessage = 1 },
		"MaxAppend is 1, must be at least":  func(c *Config) { c.MaxAppend = 1 },
		"must not be negative":              func(c *Config) { c.VoteTimeout = -1 },
	} {
		cfg := Config{NodeID: "a", Listener: ln, Credentials: newCreds(t, "s", "a"), Resolve: newBook().resolve, Identity: func() (string, uint64) { return "", 0 }}
		change(&cfg)
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}
