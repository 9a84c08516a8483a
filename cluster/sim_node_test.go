package cluster

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pontoon-registry/pontoon/meta"
)

// simCluster is the cluster under simulation. Its nodes are real, as is all
// below them but the network and the time.
type simCluster struct {
	t     testing.TB
	seed  uint64
	wires *wires
	mark  *testMark
	dir   string
	slots []*slot
	// change is a test's own defect, put into every node before it runs.
	change func(*Node)
	dirs   atomic.Int64
	work   sync.WaitGroup

	mu       sync.Mutex // guards what follows
	problems []string
}

// slot is a place for a node: its address, and the data directory that stays with it.
type slot struct {
	sim  *simCluster
	i    int
	ip   string
	data string
	// scale is Config.TimeScale. One node's above the others': its lease outlasts their
	// elections, so cut off it believes to lead on, as after a pause of the process.
	scale float64
	proc  atomic.Pointer[process]
	// highest is the largest index that its state was seen at; only the driver looks, as at what follows.
	highest uint64
	// first is where its log began when last looked at, store where its state was.
	first uint64
	store string
	// busy while somebody starts or stops it.
	busy atomic.Bool
}

// process is one start of a node. down is when it was killed; what it answers after is nobody's.
type process struct {
	*Node
	slot  *slot
	host  *simHost
	disk  *simDisk
	stop  context.CancelFunc
	ended chan struct{}
	err   error // after ended
	// cleared is closed when nothing of it uses the disk any more.
	cleared chan struct{}
	down    atomic.Bool
	// readied: it was ready once, and its state compared with what it had before.
	readied bool
}

func (s *simCluster) problem(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.problems) < 20 {
		s.problems = append(s.problems, fmt.Sprintf(format, args...))
	}
}

func (s *simCluster) failed() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.problems
}

func newSimCluster(t testing.TB, seed uint64, size int, change func(*Node)) *simCluster {
	// Certificates of the cluster begin in 2020, the bubble in 2000.
	time.Sleep(time.Until(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)))
	s := &simCluster{t: t, seed: seed, wires: newWires(seed), mark: &testMark{}, dir: simFolder(t), change: change}
	for i := range size {
		s.slots = append(s.slots, &slot{sim: s, i: i, ip: fmt.Sprintf("10.0.0.%d", i+1), data: s.newDir(), scale: 1})
	}
	return s
}

func (s *simCluster) newAddress() string {
	n := s.dirs.Add(1)
	return fmt.Sprintf("10.1.%d.%d", n/250, 1+n%250)
}

func (s *simCluster) newDir() string {
	return filepath.Join(s.dir, fmt.Sprintf("data%d", s.dirs.Add(1)))
}

func (sl *slot) config(host *simHost, disk *simDisk) Config {
	s := sl.sim
	settings := meta.DefaultSettings()
	settings.EventCount, settings.EventAge = 1<<40, int64(1000*time.Hour) // the checks read them all
	c := Config{
		DataDir: sl.data, Name: fmt.Sprintf("n%d", sl.i), Listen: sl.ip + ":7947", GossipListen: sl.ip + ":7946",
		Secrets: []string{testSecret}, Settings: settings, Mark: s.mark, Expect: len(s.slots), Log: testLog(s.t), TimeScale: sl.scale,
		LogBytes: minLogBytes, commitTimeout: 40 * time.Millisecond, stableFor: time.Second,
		compareEvery: 5 * time.Second, packets: host.openPackets,
		listen: func(_ context.Context, addr string) (net.Listener, error) { return host.listen(addr) },
		Seams: Seams{Dial: host.dial, Step: host.step,
			LogDisk: func(b LogDisk) LogDisk { disk.LogDisk = b; return disk }},
	}
	for _, other := range s.slots {
		if other != sl {
			c.Join = append(c.Join, other.ip+":7946")
		}
	}
	return c
}

// start runs a node on the slot's data.
func (sl *slot) start() error {
	s, n := sl.sim, uint64(sl.sim.dirs.Add(1))
	host := s.wires.boot(sl.ip)
	disk := newSimDisk(s.seed*1000+n, 3*time.Millisecond)
	cfg := sl.config(host, disk)
	p := &process{slot: sl, host: host, disk: disk, ended: make(chan struct{}), cleared: make(chan struct{})}
	cfg.Abort = func(error) { s.work.Go(func() { p.kill(false) }) }
	node, err := Open(context.Background(), cfg)
	if err != nil {
		host.end(false)
		return fmt.Errorf("open node %d: %w", sl.i, err)
	}
	p.Node = node
	if s.change != nil {
		s.change(node)
	}
	ctx, stop := context.WithCancel(context.Background())
	p.stop = stop
	s.work.Go(func() {
		defer close(p.ended)
		if p.err = node.Run(ctx); p.err != nil && !p.down.Load() {
			s.problem("node %d ended by itself: %v", sl.i, p.err)
		}
	})
	sl.proc.Store(p)
	return nil
}

// live answers the process, or nil.
func (sl *slot) live() *process {
	if p := sl.proc.Load(); p != nil && !p.down.Load() {
		return p
	}
	return nil
}

// crash is kill -9, or with power the end of the machine's power: the state loses
// what came after the image in older, a prefix as any (kv's promise 2); a lying
// disk loses everything since then. Only the driver calls it.
func (sl *slot) crash(power bool, older string, lying bool) error {
	p := sl.live()
	if p == nil {
		return nil
	}
	synctest.Wait() // all others wait, and time stands: the directory is as a crash leaves it
	next := sl.sim.newDir()
	if err := image(sl.data, next); err != nil {
		return err
	}
	switch {
	case older != "" && lying:
		next = older
	case older != "":
		if err := imageState(older, next); err != nil {
			return err
		}
	}
	old := sl.data
	sl.data = next
	p.kill(power)
	sl.sim.work.Go(func() { <-p.cleared; _ = os.RemoveAll(old) }) // only to save room
	return nil
}

// kill takes the process off the network and its disk, and clears it away.
func (p *process) kill(silent bool) {
	if p.down.Swap(true) {
		return
	}
	p.host.end(silent)
	p.disk.free()
	p.slot.proc.CompareAndSwap(p, nil)
	p.slot.sim.work.Go(func() { p.clear() })
}

// halt is SIGTERM without stepping down first.
func (p *process) halt() {
	if p.down.Swap(true) {
		return
	}
	p.slot.proc.CompareAndSwap(p, nil)
	if err := p.clear(); err != nil {
		p.slot.sim.problem("node %d: halt: %v", p.slot.i, err)
	}
	p.host.end(false)
}

func (p *process) clear() error {
	defer close(p.cleared)
	p.stop()
	<-p.ended
	time.Sleep(10 * time.Millisecond) // time passes only when nobody uses it any more
	return errors.Join(p.err, p.Close())
}

// freeze is SIGSTOP as far as it can be had: nothing reaches the node or leaves
// it, and its disk hangs. Its goroutines run on, its clocks too.
func (p *process) freeze()   { p.host.pause(); p.disk.hang() }
func (p *process) unfreeze() { p.disk.work(); p.host.resume() }

// form starts all nodes and waits until they are one cluster.
func (s *simCluster) form() error {
	for _, sl := range s.slots {
		if err := sl.start(); err != nil {
			return err
		}
	}
	return s.settled(time.Minute)
}

// settled waits until every node is ready and knows all voters.
func (s *simCluster) settled(within time.Duration) error {
	deadline := time.Now().Add(within)
	for {
		err := s.unsettled()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (s *simCluster) unsettled() error {
	for _, sl := range s.slots {
		p := sl.live()
		if p == nil {
			return fmt.Errorf("node %d is down", sl.i)
		}
		if err := p.Ready(context.Background()); err != nil {
			return fmt.Errorf("node %d: %w", sl.i, err)
		}
		if v := voters(p.raft().GetConfiguration().Configuration()); len(v) != len(s.slots) {
			return fmt.Errorf("node %d knows %d voters", sl.i, len(v))
		}
		if q := p.commit.queue.size() + p.forward.queue.size(); q > 0 {
			return fmt.Errorf("node %d has %d bytes queued", sl.i, q)
		}
	}
	return nil
}

// end stops all nodes, and lets what they leave behind run out.
func (s *simCluster) end() {
	for _, sl := range s.slots {
		if p := sl.live(); p != nil {
			p.halt()
		}
	}
	s.work.Wait()
	time.Sleep(2 * time.Minute) // memberlist's probes, gRPC's linger: by their own timeouts
}

func pick[T any](r *rand.Rand, from []T) T { return from[r.IntN(len(from))] }
