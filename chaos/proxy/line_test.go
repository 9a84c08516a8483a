package proxy

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// patience is how long a test waits for what must come. It is far above what a busy machine needs.
const patience = 20 * time.Second

// silence is how long a test listens for what must not come.
const silence = 150 * time.Millisecond

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server is a target: every connection is given to the function, which need not close it.
func server(t *testing.T, serve func(*net.TCPConn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	group.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, conn)
			mu.Unlock()
			group.Go(func() { serve(conn.(*net.TCPConn)) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, c := range conns {
			c.Close()
		}
		mu.Unlock()
		group.Wait()
	})
	return l.Addr().String()
}

// echo sends back what comes and closes its half when the client does.
func echo(t *testing.T) string {
	return server(t, func(c *net.TCPConn) {
		_, _ = io.Copy(c, c) // resets are what is tested
		_ = c.CloseWrite()
	})
}

func openLine(t *testing.T, target string) *Line {
	t.Helper()
	l, err := OpenLine("127.0.0.1:0", target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func dial(t *testing.T, l *Line) *net.TCPConn {
	t.Helper()
	c, err := net.DialTimeout("tcp", l.Addr(), patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

// dialReset dials a line that resets it, which may come before the dial has seen that it is through.
func dialReset(t *testing.T, l *Line) {
	t.Helper()
	c, err := net.DialTimeout("tcp", l.Addr(), patience)
	if errors.Is(err, syscall.ECONNRESET) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ends(t, c, syscall.ECONNRESET)
}

func say(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatalf("send %.20q: %v", text, err)
	}
}

// hear expects a text from a connection.
func hear(t *testing.T, c net.Conn, want string) {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(want))
	if n, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Fatalf("heard %.40q, %v; want %.40q", got[:n], err, want)
	}
}

// nothing expects that nothing comes for a while and that the connection stays open.
func nothing(t *testing.T, c net.Conn) {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(silence)); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("heard %d bytes, %v; want silence", n, err)
	}
}

// ends expects how a connection ends, nil being a close, after whatever it still carries.
func ends(t *testing.T, c net.Conn, how error) {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	_, err := io.Copy(io.Discard, c)
	if !errors.Is(err, how) {
		t.Fatalf("the connection ended with %v, want %v", err, how)
	}
}

func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v for %s", patience, what)
		}
	}
}

// held is an address that is nobody's for the time of the test, and on which no process but one that asks for it can listen:
// it is bound here. What listens takes it over, since both say SO_REUSEADDR, and the kernel gives it to nobody else.
func held(t *testing.T) string {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint("127.0.0.1:", name.(*unix.SockaddrInet4).Port)
}

func TestALineThatPassesChangesNothing(t *testing.T) {
	l := openLine(t, echo(t))
	c := dial(t, l)
	text := strings.Repeat("0123456789abcdef", 200_000) // far more than the queues hold
	var group sync.WaitGroup
	group.Go(func() {
		if _, err := io.WriteString(c, text); err != nil {
			t.Error(err)
		}
		if err := c.CloseWrite(); err != nil {
			t.Error(err)
		}
	})
	hear(t, c, text)
	group.Wait()
	ends(t, c, nil) // the half close went to the target, and its own came back
	if got := l.Counts(); got.Accepted != 1 || got.Up != int64(len(text)) || got.Down != int64(len(text)) {
		t.Errorf("counted %+v", got)
	}
	until(t, "the connection to be forgotten", func() bool { return l.Counts().Open == 0 })
}

func TestAResetGoesThrough(t *testing.T) {
	ended := make(chan error, 1)
	l := openLine(t, server(t, func(c *net.TCPConn) {
		_, err := io.Copy(io.Discard, c)
		ended <- err
	}))
	c := dial(t, l)
	say(t, c, "hello")
	until(t, "the bytes to pass", func() bool { return l.Counts().Up == 5 })
	reset(c)
	if err := <-ended; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the target saw %v, want a reset", err)
	}
}

func TestAHoleCarriesNothingAndClosesNothing(t *testing.T) {
	l := openLine(t, echo(t))
	c := dial(t, l)
	say(t, c, "before")
	hear(t, c, "before")
	l.Set(Hole())
	say(t, c, "during")
	nothing(t, c)
	late := dial(t, l) // a new connection is taken and hears nothing
	say(t, late, "late")
	until(t, "it to be held", func() bool { return l.Counts().Held == 1 })
	nothing(t, late)
	l.Set(Mode{})
	hear(t, c, "during")
	hear(t, late, "late")
	if got := l.Counts().Held; got != 1 {
		t.Errorf("held %d connections, want 1", got)
	}
}

// TestAHoleHidesTheEnd: whoever dies behind a black hole is not known to be dead.
func TestAHoleHidesTheEnd(t *testing.T) {
	ended := make(chan error, 1)
	l := openLine(t, server(t, func(c *net.TCPConn) {
		_, err := io.Copy(io.Discard, c)
		ended <- err
	}))
	c := dial(t, l)
	until(t, "the connection", func() bool { return l.Counts().Open == 1 })
	l.Set(Hole())
	reset(c)
	select {
	case err := <-ended:
		t.Fatalf("the target heard through a hole that the dialer had ended: %v", err)
	case <-time.After(silence):
	}
	l.Set(Mode{})
	if err := <-ended; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("after the hole the target saw %v, want a reset", err)
	}
}

func TestWhoGaveUpInAHoleNeverReachesTheTarget(t *testing.T) {
	reached := make(chan struct{}, 10)
	l := openLine(t, server(t, func(c *net.TCPConn) { reached <- struct{}{}; _, _ = io.Copy(c, c) }))
	l.Set(Hole())
	gaveUp, stays := dial(t, l), dial(t, l)
	until(t, "both to be held", func() bool { return l.Counts().Held == 2 })
	if err := gaveUp.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	until(t, "the line's end of it to have heard", func() bool { return acknowledged(t, gaveUp) })
	gaveUp.Close()
	l.Set(Mode{})
	say(t, stays, "still here")
	hear(t, stays, "still here")
	if len(reached) != 1 {
		t.Errorf("%d connections reached the target, want 1", len(reached))
	}
}

// acknowledged says whether the other end's kernel has the end of what a connection sent. A busy one takes a moment.
func acknowledged(t *testing.T, c *net.TCPConn) bool {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var info *unix.TCPInfo
	if ended := raw.Control(func(fd uintptr) { info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) }); ended != nil || err != nil {
		t.Fatal(ended, err)
	}
	return info.State == unix.BPF_TCP_FIN_WAIT2
}

func TestOneWayCarriesThatWay(t *testing.T) {
	heard := make(chan string, 10)
	l := openLine(t, server(t, func(c *net.TCPConn) {
		buf := make([]byte, 100)
		for {
			n, err := c.Read(buf)
			if err != nil {
				return
			}
			heard <- string(buf[:n])
			if _, err := c.Write(buf[:n]); err != nil {
				return
			}
		}
	}))
	c := dial(t, l)
	say(t, c, "1")
	<-heard
	hear(t, c, "1")
	l.Set(OneWay(Up)) // the request arrives, the answer does not
	say(t, c, "2")
	if got := <-heard; got != "2" {
		t.Errorf("the target heard %q", got)
	}
	nothing(t, c)
	l.Set(OneWay(Down)) // the answer arrives, a request does not
	hear(t, c, "2")
	say(t, c, "3")
	nothing(t, c)
	if len(heard) != 0 {
		t.Errorf("the target heard %q through a hole", <-heard)
	}
	l.Set(Mode{})
	hear(t, c, "3")
}

func TestEveryByteIsDelayedAndNoneOvertakes(t *testing.T) {
	const delay, jitter = 60 * time.Millisecond, 40 * time.Millisecond
	l := openLine(t, echo(t))
	c := dial(t, l)
	say(t, c, "quick")
	hear(t, c, "quick")
	l.Set(Slow(delay, jitter))
	began := time.Now()
	var sent strings.Builder
	for i := range 50 {
		text := strings.Repeat(string(rune('a'+i%26)), 1+i)
		say(t, c, text)
		sent.WriteString(text)
	}
	hear(t, c, sent.String())
	if took := time.Since(began); took < 2*(delay-jitter) {
		t.Errorf("a round trip took %v, want at least %v", took, 2*(delay-jitter))
	}
}

func TestALongDelayEndsWithItsMode(t *testing.T) {
	l := openLine(t, echo(t))
	c := dial(t, l)
	say(t, c, "x")
	hear(t, c, "x")
	l.Set(Slow(time.Hour, 0))
	say(t, c, "held")
	nothing(t, c)
	l.Set(Mode{})
	hear(t, c, "held")
}

func TestBandwidthIsLimited(t *testing.T) {
	const size, per = 200_000, 400_000
	l := openLine(t, echo(t))
	l.Set(Mode{Down: Flow{Rate: per}})
	c := dial(t, l)
	began := time.Now()
	say(t, c, strings.Repeat("x", size))
	hear(t, c, strings.Repeat("x", size))
	// The first piece is free.
	if took, least := time.Since(began), time.Second*(size-2*pieceSize)/per; took < least {
		t.Errorf("%d bytes took %v at %d per second, want at least %v", size, took, per, least)
	}
}

// TestALimitEndsWithItsMode: what waits for bandwidth need not wait for it any more.
func TestALimitEndsWithItsMode(t *testing.T) {
	l := openLine(t, echo(t))
	l.Set(Narrow(1))
	c := dial(t, l)
	say(t, c, strings.Repeat("x", 3*pieceSize))
	until(t, "the first piece", func() bool { return l.Counts().Up > 0 })
	l.Set(Mode{})
	hear(t, c, strings.Repeat("x", 3*pieceSize))
}

func TestResetEndsWhatIsOpenAndWhatComes(t *testing.T) {
	ended := make(chan error, 1)
	l := openLine(t, server(t, func(c *net.TCPConn) {
		_, err := io.Copy(io.Discard, c)
		ended <- err
	}))
	c := dial(t, l)
	say(t, c, "hello")
	until(t, "the bytes to pass", func() bool { return l.Counts().Up == 5 })
	l.Set(Mode{Reset: true})
	ends(t, c, syscall.ECONNRESET)
	if err := <-ended; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the target saw %v, want a reset", err)
	}
	dialReset(t, l)
	if got := l.Counts().Resets; got != 2 {
		t.Errorf("counted %d resets, want 2", got)
	}
}

func TestHalfCloseEndsOneWayOnly(t *testing.T) {
	ended := make(chan struct{})
	l := openLine(t, server(t, func(c *net.TCPConn) {
		_, _ = io.Copy(io.Discard, c)
		close(ended)
		_, _ = io.WriteString(c, "I still speak")
	}))
	c := dial(t, l)
	say(t, c, "hello")
	until(t, "the bytes to pass", func() bool { return l.Counts().Up == 5 })
	l.Set(HalfClose(Up))
	<-ended // though the dialer has not closed anything
	hear(t, c, "I still speak")
	say(t, c, "nobody hears this, and it does no harm")
}

func TestTheFirstLargeConnectionsAreCut(t *testing.T) {
	const size = 100_000
	l := openLine(t, server(t, func(c *net.TCPConn) {
		_, _ = io.WriteString(c, strings.Repeat("x", size)) // a cut is what is tested
		c.Close()
	}))
	l.Set(Mode{Up: Flow{CutAfter: size / 2, Cuts: 2}, Down: Flow{CutAfter: size / 2, Cuts: 2}})
	for i := range 4 {
		c := dial(t, l)
		if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		n, _ := io.Copy(io.Discard, c)
		c.Close()
		want := int64(size)
		if i < 2 {
			want /= 2
		}
		if n != want {
			t.Errorf("connection %d carried %d bytes, want %d", i, n, want)
		}
	}
	if got := l.Counts(); got.CutUp != 0 || got.CutDown != 2 {
		t.Errorf("cut %d connections up and %d down, want 0 and 2", got.CutUp, got.CutDown)
	}
}

func TestATargetThatIsNotThereIsAReset(t *testing.T) {
	l := openLine(t, held(t)) // nobody listens there
	dialReset(t, l)
	l.Aim(echo(t))
	c := dial(t, l)
	say(t, c, "elsewhere")
	hear(t, c, "elsewhere")
	if got := l.Counts().Unreachable; got != 1 {
		t.Errorf("counted %d connections without a target, want 1", got)
	}
}

// TestCloseEndsWhatIsUnderWay in each mode in which something waits. That nothing is left running is TestMain's.
func TestCloseEndsWhatIsUnderWay(t *testing.T) {
	for name, mode := range map[string]Mode{
		"pass": {}, "hole": Hole(), "slow": Slow(time.Hour, 0), "narrow": Narrow(1), "half closed": HalfClose(Down),
	} {
		t.Run(name, func(t *testing.T) {
			l := openLine(t, echo(t))
			c := dial(t, l)
			say(t, c, "x")
			hear(t, c, "x")
			l.Set(mode)
			held := dial(t, l)
			say(t, held, "y")
			say(t, c, strings.Repeat("z", 5*pieceSize))
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			for _, conn := range []net.Conn{c, held} {
				if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
					t.Fatal(err)
				}
				if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
					t.Error("a connection outlived its line")
				}
			}
			if err := l.Close(); err != nil {
				t.Errorf("closing again: %v", err)
			}
		})
	}
}
