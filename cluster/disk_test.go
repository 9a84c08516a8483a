package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/pontoon-registry/pontoon/meta/kv"
)

// hangingLog is a disk under Raft's log that hangs when it is told to, until it is released.
type hangingLog struct {
	LogDisk
	hung atomic.Bool
	goOn chan struct{}
}

func (l *hangingLog) wait() {
	if l.hung.Load() {
		<-l.goOn
	}
}

func (l *hangingLog) StoreLog(e *raft.Log) error         { l.wait(); return l.LogDisk.StoreLog(e) }
func (l *hangingLog) StoreLogs(e []*raft.Log) error      { l.wait(); return l.LogDisk.StoreLogs(e) }
func (l *hangingLog) SetUint64(k []byte, v uint64) error { l.wait(); return l.LogDisk.SetUint64(k, v) }
func (l *hangingLog) Set(k, v []byte) error              { l.wait(); return l.LogDisk.Set(k, v) }

// hanging forms three nodes each of whose log can be hung, with what each said when it would have ended the process.
func hanging(t *testing.T) (nodes []*running, logs map[string]*hangingLog, aborted map[string]chan error) {
	t.Helper()
	logs, aborted = map[string]*hangingLog{}, map[string]chan error{}
	byIndex := make([]*hangingLog, 3)
	ends := make([]chan error, 3)
	nodes, _ = formWith(t, 3, &testMark{}, func(i int, c *Config) {
		c.LogDisk = func(l LogDisk) LogDisk {
			byIndex[i] = &hangingLog{LogDisk: l, goOn: make(chan struct{})}
			return byIndex[i]
		}
		ends[i] = make(chan error, 1)
		c.Abort = func(err error) { ends[i] <- err }
	}, func(*Node) {})
	for i, n := range nodes {
		logs[n.id], aborted[n.id] = byIndex[i], ends[i]
	}
	return nodes, logs, aborted
}

// TestAHungDiskOfTheLeaderDoesNotHangTheCluster: the others elect and write on, and at last the process ends.
func TestAHungDiskOfTheLeaderDoesNotHangTheCluster(t *testing.T) {
	t.Parallel()
	var leader *running
	var followers []*running
	var aborted map[string]chan error
	var release func()
	var writes sync.WaitGroup
	inSomeTry(t, "the others elect before the process ends", func() error { // a busy machine may be slower than that
		var nodes []*running
		var logs map[string]*hangingLog
		nodes, logs, aborted = hanging(t)
		leader, followers = leaderOf(t, nodes)
		log := logs[leader.id]
		log.hung.Store(true)
		release = sync.OnceFunc(func() { log.hung.Store(false); close(log.goOn) })
		t.Cleanup(release)
		// Somebody must write for a hung disk to be noticed. This copy may be retried elsewhere, or stay unknown.
		at := leader
		writes.Go(func() {
			stuck, cancel := context.WithTimeout(t.Context(), 40*time.Second)
			defer cancel()
			_, _ = at.Propose(stuck, putNode("hung", "a:1"))
		})
		eventually(t, "others elect", func() error {
			for _, f := range followers {
				if f.opened.Load() != nil {
					return nil
				}
			}
			return errors.New("not yet")
		})
		if len(aborted[leader.id]) == 0 {
			return nil
		}
		release()
		writes.Wait()
		for _, n := range nodes {
			n.halt(t)
		}
		return errors.New("only after it had ended")
	})
	for i, f := range followers {
		if _, err := f.Propose(t.Context(), putNode(fmt.Sprintf("after-%d", i), "a:1")); err != nil {
			t.Errorf("a write beside the hung leader: %v", err)
		}
		if at, err := addressOf(t.Context(), f, "after-0"); err != nil || at != "a:1" {
			t.Errorf("a read beside the hung leader: %q, %v", at, err)
		}
	}
	eventually(t, "the hung node is unready and says why", func() error {
		if err := leader.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "the disk under "+leader.Node.cfg.DataDir+" hangs: to store") {
			return fmt.Errorf("it says %w", err)
		}
		return nil
	})
	select {
	case err := <-aborted[leader.id]:
		if !strings.Contains(err.Error(), "hangs: to store") || !strings.Contains(err.Error(), "start it again") {
			t.Errorf("the process ended with %v", err)
		}
	case <-time.After(time.Minute):
		t.Error("the process with the hung disk does not end")
	}
	release()
	writes.Wait()
}

// TestAHungDiskOfAFollowerFailsNoRequest of the others, and ends that node.
func TestAHungDiskOfAFollowerFailsNoRequest(t *testing.T) {
	t.Parallel()
	nodes, logs, aborted := hanging(t)
	leader, followers := leaderOf(t, nodes)
	hung, other := followers[0], followers[1]
	logs[hung.id].hung.Store(true)
	release := sync.OnceFunc(func() { logs[hung.id].hung.Store(false); close(logs[hung.id].goOn) })
	t.Cleanup(release)
	stop := load(t, []*running{leader, other})
	select {
	case err := <-aborted[hung.id]:
		if !strings.Contains(err.Error(), "the disk under "+hung.Node.cfg.DataDir+" hangs") {
			t.Errorf("the process ended with %v", err)
		}
	case <-time.After(time.Minute):
		t.Error("the process with the hung disk does not end")
	}
	stop()
	release()
}

// TestADiskThatHangsWithTheLogOnItEndsTheProcess: its last words may take a second, and are not waited for any longer.
func TestADiskThatHangsWithTheLogOnItEndsTheProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		read := make(chan struct{})
		defer close(read)
		began, after := time.Now(), time.Duration(0)
		n := &Node{log: slog.New(slog.NewTextHandler(unread(read), nil)), disk: &diskWatch{}}
		n.cfg.Abort = func(error) { after = time.Since(began) }
		defer n.disk.begin("store")()
		if err := n.watchDisk(t.Context()); err == nil || after < abortAfter || after > abortAfter+2*watchEvery+lastWords {
			t.Errorf("it ended after %v with %v", after, err)
		}
	})
}

// unread is a log that takes no line until somebody reads it.
type unread chan struct{}

func (u unread) Write(p []byte) (int, error) { <-u; return len(p), nil }

// TestAHungCommitOfTheStateIsSeen as a write of the log is.
func TestAHungCommitOfTheStateIsSeen(t *testing.T) {
	t.Parallel()
	memory := kv.NewMemory()
	cfg := testConfig(t, nil)
	cfg.Listen, cfg.GossipListen, cfg.stateMemory = "", "", memory
	cfg.Abort = func(error) {}
	n := start(t, cfg)
	eventually(t, "ready", func() error { return n.Ready(t.Context()) })
	release := memory.Hang()
	t.Cleanup(release)
	ctx, cancel := context.WithCancel(t.Context())
	var writes sync.WaitGroup
	for w := range 4 { // Pebble buffers: some MiB must come before a commit waits
		writes.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				c := putNode(fmt.Sprintf("n%d-%d", w, i), "a:1")
				c.GetPutNode().GetNode().Release = strings.Repeat("x", 7000)
				_, _ = n.Propose(ctx, c)
			}
		})
	}
	eventually(t, "the hung commit closes the gate", func() error {
		if err := n.gate(); err == nil || !strings.Contains(err.Error(), "hangs: to commit to the state") {
			return fmt.Errorf("the gate says %w", err)
		}
		return nil
	})
	cancel()
	release()
	writes.Wait()
}

func TestSavesOfTheIdentityAreWatched(t *testing.T) {
	dir := t.TempDir()
	d, err := openDirectory(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	d.watch = &diskWatch{}
	fifo := filepath.Join(dir, "node.json.tmp") // opening it for writing waits until somebody reads
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = d.change(func(i *identity) bool { i.Incarnation++; return true })
	}()
	eventually(t, "the save is seen", func() error {
		if what, took := d.watch.oldest(); what != "save the node's identity" || took == 0 {
			return fmt.Errorf("%q %v", what, took)
		}
		return nil
	})
	f, err := os.Open(fifo)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	<-done
}

// TestAPauseOfTheProcessIsNoHangOfTheDisk: who was stopped for half a minute in the middle of a write must not end for it.
func TestAPauseOfTheProcessIsNoHangOfTheDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &diskWatch{}
		w.tick(time.Now())
		run := func(seconds int) {
			for range seconds {
				time.Sleep(watchEvery)
				w.tick(time.Now())
			}
		}
		run(3)
		done := w.begin("store entries in the log")
		time.Sleep(30 * time.Second) // stopped: no tick
		w.tick(time.Now())
		if what, took := w.stuck(); took > abortAfter {
			t.Errorf("to %s has taken %v, of which it ran for a tick or two", what, took)
		}
		if _, took := w.oldest(); took < 30*time.Second {
			t.Errorf("the write began %v ago", took) // others may lead by now: the gate is shut
		}
		run(11)
		if _, took := w.stuck(); took <= abortAfter {
			t.Errorf("the disk hangs for %v of 11 s", took)
		}
		done()
		if what, took := w.stuck(); what != "" || took != 0 {
			t.Errorf("to %s takes %v after its end", what, took)
		}
	})
}

const mib = 1 << 20

func TestTheLevelOfADiskFollowsItsFreeSpace(t *testing.T) {
	s := NewSpace(t.TempDir(), 100*mib, 0)
	var free int64
	s.free = func(string) (int64, error) { return free * mib, nil }
	for i, c := range []struct {
		free int64
		want SpaceLevel
	}{{500, Roomy}, {100, Roomy}, {99, Low}, {100, Low}, {124, Low}, {125, Roomy}, {25, Low}, {24, Full}, {90, Full}, {125, Roomy}, {0, Full}, {124, Full}, {126, Roomy}} {
		free = c.free
		f, err := s.Look()
		if err != nil || f.Level != c.want || (f.Err() == nil) != (c.want == Roomy) || (s.closed() == nil) != (c.want < Full) || (s.low() == nil) != (c.want == Roomy) {
			t.Errorf("%d: %d MiB free: %+v, %v, %v, closed %v", i, c.free, f, err, f.Err(), s.closed())
		}
	}
	// What the ballast lacks is not free.
	s.ballast, free = 64*mib, 160
	if f, _ := s.Look(); f.Level != Low || !strings.Contains(f.Err().Error(), s.dir+" has 167772160 bytes (160.0 MiB) free; free space until it has 198180864 (189.0 MiB)") {
		t.Errorf("%+v: %v", f, f.Err())
	}
	if s.minFree = 0; s.Secure() != nil || s.Last().Level != Roomy {
		t.Error("without a bound the disk is full")
	}
}

// TestTheBallastIsMadeOfRealBlocks, given back and made again.
func TestTheBallastIsMadeOfRealBlocks(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, ballastName)
	blocks := func() int64 {
		var s syscall.Stat_t
		if err := syscall.Stat(path, &s); err != nil {
			return 0
		}
		return s.Blocks * 512
	}
	s := NewSpace(dir, mib, 4*mib)
	for _, step := range []struct {
		wanted int64
		do     func() error
		blocks int64
	}{{4 * mib, s.Secure, 4 * mib}, {4 * mib, s.Secure, 4 * mib}, {2 * mib, s.Secure, 2 * mib}, {8 * mib, s.Secure, 8 * mib}, {8 * mib, s.Release, 0}, {8 * mib, s.Release, 0}, {0, s.Secure, 0}} {
		s.ballast = step.wanted
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		if got := blocks(); got < step.blocks || got > step.blocks+mib {
			t.Errorf("wanted %d: the file takes %d bytes of disk, want %d", step.wanted, got, step.blocks)
		}
	}
	s.ballast = 4 * mib
	s.free = func(string) (int64, error) { return 4 * mib, nil } // room for it, but not for more
	if err := s.Secure(); err != nil || blocks() != 0 {
		t.Errorf("a ballast was made on a full disk: %v", err)
	}
}

// TestANodeWithoutSpaceLeadsNotAndComesBack, without a failed request at the others.
func TestANodeWithoutSpaceLeadsNotAndComesBack(t *testing.T) {
	t.Parallel()
	free := make([]atomic.Int64, 3)
	nodes, _ := formWith(t, 3, &testMark{}, func(i int, c *Config) {
		c.MinFree = 100 * mib
		free[i].Store(500 * mib)
		c.FreeSpace = func(string) (int64, error) { return free[i].Load(), nil }
	}, func(*Node) {})
	indexOf := func(n *running) int {
		for i := range nodes {
			if nodes[i] == n {
				return i
			}
		}
		return -1
	}
	leader, followers := leaderOf(t, nodes)
	stop := load(t, nodes)
	for _, mibs := range []int64{80, 10} { // low, full
		free[indexOf(leader)].Store(mibs * mib)
		if mibs == 10 {
			stop() // its own clients must move now; the others' requests go on below
			stop = load(t, followers)
		}
		eventually(t, "another leads", func() error {
			for _, f := range followers {
				if f.opened.Load() != nil {
					return nil
				}
			}
			return errors.New("none of the others")
		})
		eventually(t, "the full one is unready and says why", func() error {
			if err := leader.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "disk full: "+leader.Node.cfg.DataDir) {
				return fmt.Errorf("it says %w", err)
			}
			return nil
		})
	}
	eventually(t, "the full one keeps out of Raft", func() error {
		if leader.gate() == nil {
			return errors.New("it takes part")
		}
		return nil
	})
	stop()
	free[indexOf(leader)].Store(500 * mib)
	eventually(t, "ready again", func() error { return leader.Ready(t.Context()) })
	eventually(t, "the states are the same", func() error {
		a, hash := leader.State()
		b, other := followers[0].State()
		if a != b || string(hash) != string(other) {
			return fmt.Errorf("%d %x, %d %x", a, hash, b, other)
		}
		return nil
	})
}

// TestWhereAllAreLowReadsGoOn and writes are refused: the leader has nobody to hand over to, and when it dies a low one
// is elected in the end.
func TestWhereAllAreLowReadsGoOn(t *testing.T) {
	t.Parallel()
	var free atomic.Int64
	free.Store(500 * mib)
	nodes, wires := formWith(t, 3, &testMark{}, func(_ int, c *Config) {
		c.MinFree, c.Hold = 100*mib, 500*time.Millisecond
		c.FreeSpace = func(string) (int64, error) { return free.Load(), nil }
	}, func(*Node) {})
	mustWrite(t, nodes[0], putNode("y", "a:1"))
	free.Store(80 * mib)
	for _, n := range nodes {
		eventually(t, "low", func() error {
			if n.space.low() == nil {
				return errors.New("not yet")
			}
			return nil
		})
	}
	refusesAndReads := func(nodes []*running) {
		t.Helper()
		eventually(t, "write", func() error { // its outcome is unknown when the leader was lost to a busy machine meanwhile
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			_, err := nodes[0].Propose(ctx, putNode("x", "a:1"))
			if err == nil {
				t.Fatal("a cluster whose disks are all low takes a write")
			}
			if !isUnavailable(err) {
				return err
			}
			return nil
		})
		for _, n := range nodes {
			eventually(t, "read", func() error { // the leader may be lost to a busy machine, and found again
				at, err := addressOf(t.Context(), n, "y")
				if err == nil && at != "a:1" {
					t.Fatalf("a cluster whose disks are all low reads %q", at)
				}
				return err
			})
		}
	}
	refusesAndReads(nodes)
	patience := lowPatience * nodes[0].Node.cfg.scaled(heartbeat)
	inSomeTry(t, "one that is handed over to is elected at once", func() error { // as before a node ends
		leader, _ := leaderOf(t, nodes)
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if err := leader.StepDown(ctx); err != nil {
			t.Errorf("hand over among low nodes: %v", err)
		}
		eventually(t, "another one leads", func() error {
			if l, _ := leaderOf(t, nodes); l == leader && time.Since(began) < patience {
				return errors.New("still the same")
			}
			return nil
		})
		if took := time.Since(began); took > patience*9/10 {
			return fmt.Errorf("handing over took %v, as long as it takes a low node to stand by itself", took)
		}
		return nil
	})
	leader, followers := leaderOf(t, nodes)
	wires.isolate(leader.advertise)
	refusesAndReads(followers)
	wires.heal()
	free.Store(500 * mib)
	eventually(t, "writes go on", func() error {
		_, err := nodes[0].Propose(t.Context(), putNode("x", "a:1"))
		return err
	})
}

// TestALowNodeIsNotElected although it has all entries and the leader is gone.
func TestALowNodeIsNotElected(t *testing.T) {
	t.Parallel()
	var free [3]atomic.Int64
	nodes, wires := formWith(t, 3, &testMark{}, func(i int, c *Config) {
		c.MinFree = 100 * mib
		free[i].Store(500 * mib)
		c.FreeSpace = func(string) (int64, error) { return free[i].Load(), nil }
	}, func(*Node) {})
	_, followers := leaderOf(t, nodes)
	low := followers[0]
	for i, n := range nodes {
		if n == low {
			free[i].Store(80 * mib)
		}
	}
	eventually(t, "low", func() error {
		if low.space.low() == nil {
			return errors.New("not yet")
		}
		return nil
	})
	inSomeTry(t, "the other one is elected before the low one stands at last", func() error { // a busy machine may take that long
		var leader *running
		eventually(t, "one with space leads", func() error {
			if leader, _ = leaderOf(t, nodes); leader == low {
				return errors.New("the low one does")
			}
			return nil
		})
		wires.isolate(leader.advertise)
		defer wires.heal()
		next, _ := leaderOf(t, slices.DeleteFunc(slices.Clone(nodes), func(n *running) bool { return n == leader }))
		if next != low {
			return nil
		}
		if took := time.Since(low.raft().LastContact()); took < lowPatience*low.Node.cfg.scaled(heartbeat) {
			t.Fatalf("the low one was elected %v after it heard a leader", took)
		}
		return errors.New("it was not")
	})
}

// TestANodeAloneOnALowDiskRefusesWritesAndReads on.
func TestANodeAloneOnALowDiskRefusesWritesAndReadsOn(t *testing.T) {
	t.Parallel()
	var free atomic.Int64
	free.Store(500 * mib)
	cfg := testConfig(t, nil)
	cfg.Listen, cfg.GossipListen, cfg.MinFree, cfg.Hold = "", "", 100*mib, 200*time.Millisecond
	cfg.FreeSpace = func(string) (int64, error) { return free.Load(), nil }
	n := start(t, cfg)
	eventually(t, "ready", func() error { return n.Ready(t.Context()) })
	mustWrite(t, n, putNode("x", "a:1"))
	for _, low := range []int64{80, 1} {
		free.Store(low * mib)
		eventually(t, "unready", func() error {
			if n.Ready(t.Context()) == nil {
				return errors.New("ready")
			}
			return nil
		})
		if _, err := n.Propose(t.Context(), putNode("x", "b:1")); !isUnavailable(err) || !strings.Contains(err.Error(), "disk full") {
			t.Errorf("%d MiB free: a write gives %v", low, err)
		}
		eventually(t, "read", func() error { // a busy machine may be slower than Hold
			at, err := addressOf(t.Context(), n, "x")
			if err == nil && at != "a:1" {
				t.Fatalf("%d MiB free: a read gives %q", low, at)
			}
			return err
		})
	}
	free.Store(500 * mib)
	eventually(t, "ready again", func() error { return n.Ready(t.Context()) })
	mustWrite(t, n, putNode("x", "b:1"))
}
