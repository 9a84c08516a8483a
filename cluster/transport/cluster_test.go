package transport

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"go.uber.org/goleak"
)

// tally is a state machine that keeps a hash chained over all entries.
type tally struct {
	mu   sync.Mutex
	sum  [32]byte
	n    int
	more chan struct{} // closed and replaced with each entry
}

func newTally() *tally { return &tally{more: make(chan struct{})} }

func (m *tally) Apply(l *raft.Log) any {
	m.mu.Lock()
	defer m.mu.Unlock()
	h := sha256.New()
	h.Write(m.sum[:])
	h.Write(l.Data)
	h.Sum(m.sum[:0])
	m.n++
	close(m.more)
	m.more = make(chan struct{})
	return nil
}

func (m *tally) Snapshot() (raft.FSMSnapshot, error) { return nil, errors.ErrUnsupported }
func (m *tally) Restore(io.ReadCloser) error         { return errors.ErrUnsupported }

func (m *tally) state() (n int, sum [32]byte, more chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.n, m.sum, m.more
}

// wait waits until n entries were applied, and gives the hash.
func (m *tally) wait(t testing.TB, n int) [32]byte {
	t.Helper()
	limit := time.After(3 * time.Minute)
	for {
		got, sum, more := m.state()
		if got >= n {
			return sum
		}
		select {
		case <-more:
		case <-limit:
			t.Fatalf("%d of %d entries were applied", got, n)
		}
	}
}

// voter is a node with a real Raft on it.
type voter struct {
	*node
	*raft.Raft
	fsm   *tally
	store *raft.InmemStore
	book  *book
	proxy *proxy // before its listener
	gate  atomic.Pointer[error]
}

func (v *voter) start(t testing.TB, servers []raft.Server, bootstrap bool) {
	t.Helper()
	cfg := raft.DefaultConfig()
	cfg.LocalID = raft.ServerID(v.id)
	// Twice those of the product, and a long lease: busy machines run this.
	cfg.HeartbeatTimeout, cfg.ElectionTimeout = time.Second, time.Second
	cfg.LeaderLeaseTimeout, cfg.CommitTimeout = time.Second, 5*time.Millisecond
	cfg.SnapshotThreshold = 1 << 60
	cfg.Logger = hclog.NewNullLogger()
	if bootstrap {
		must(t, raft.BootstrapCluster(cfg, v.store, v.store, raft.NewDiscardSnapshotStore(), v.Host.Raft().Instance(), raft.Configuration{Servers: servers}))
	}
	r, err := raft.NewRaft(cfg, v.fsm, v.store, v.store, raft.NewDiscardSnapshotStore(), v.Host.Raft().Instance())
	must(t, err)
	v.Raft = r
}

// startVoters runs n Rafts, each behind a proxy.
func startVoters(t testing.TB, n int) []*voter {
	t.Helper()
	b := newBook()
	var all []*voter
	var servers []raft.Server
	for i := range n {
		v := &voter{fsm: newTally(), store: raft.NewInmemStore(), book: b}
		v.node = startNode(t, b, fmt.Sprintf("node-%c", 'a'+i), func(c *Config) {
			c.HeartbeatTimeout, c.VoteTimeout = 500*time.Millisecond, time.Second
			c.Gate = func() error {
				if err := v.gate.Load(); err != nil {
					return *err
				}
				return nil
			}
		})
		v.proxy = startProxy(t, v.Addr().String())
		b.set(v.id, v.proxy.ln.Addr().String())
		servers = append(servers, raft.Server{ID: raft.ServerID(v.id), Address: raft.ServerAddress(v.id)})
		all = append(all, v)
	}
	for _, v := range all {
		v.start(t, servers, true)
	}
	t.Cleanup(func() {
		for _, v := range all {
			v.Host.Raft().Detach()
			if err := v.Shutdown().Error(); err != nil {
				t.Error(err)
			}
		}
	})
	return all
}

// leaderOf waits until one of the voters leads.
func leaderOf(t testing.TB, voters ...*voter) *voter {
	t.Helper()
	limit := time.After(3 * time.Minute)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		for _, v := range voters {
			if v.State() == raft.Leader {
				return v
			}
		}
		select {
		case <-tick.C:
		case <-limit:
			t.Fatal("nobody leads")
		}
	}
}

// commit writes through whoever leads, again if that one is lost meanwhile (a
// busy machine may do that to it), and gives the leader and how many entries
// its state holds.
func commit(t testing.TB, data []byte, voters ...*voter) (leader *voter, n int) {
	t.Helper()
	for until := time.Now().Add(3 * time.Minute); ; {
		leader = leaderOf(t, voters...)
		err := leader.Apply(data, 5*time.Second).Error()
		if err == nil {
			n, _, _ = leader.fsm.state()
			return leader, n
		}
		if time.Now().After(until) {
			t.Fatal(err)
		}
	}
}

func others(all []*voter, not *voter) []*voter {
	var rest []*voter
	for _, v := range all {
		if v != not {
			rest = append(rest, v)
		}
	}
	return rest
}

func sameState(t testing.TB, voters []*voter, n int) {
	t.Helper()
	want := voters[0].fsm.wait(t, n)
	for _, v := range voters[1:] {
		if got := v.fsm.wait(t, n); got != want {
			t.Errorf("%s has another state", v.id)
		}
	}
}

func TestThreeRaftsElectAndReplicate(t *testing.T) {
	voters := startVoters(t, 3)
	var leader *voter
	var n int
	for i := range 300 {
		leader, n = commit(t, fmt.Appendf(nil, "entry %d", i), voters...)
	}
	sameState(t, voters, n)
	until(t, time.Minute, func() error { // a busy machine may be slower than an election, or have lost the leader
		leader = leaderOf(t, voters...)
		return leader.LeadershipTransfer().Error() // TimeoutNow
	})
	_, n = commit(t, []byte("one more"), others(voters, leader)...)
	sameState(t, voters, n)
}

// TestAHundredMegabytesReplicateInLargeBatches lets one follower miss 100 MB
// and catch up: its appends carry 64 entries of 1.5 MiB each.
func TestAHundredMegabytesReplicateInLargeBatches(t *testing.T) {
	voters := startVoters(t, 3)
	leader := leaderOf(t, voters...)
	behind := others(voters, leader)[0]
	behind.Host.Raft().Detach()
	must(t, behind.Shutdown().Error())
	const entries, size = 70, 3 * mib / 2
	var n int
	for i := range entries {
		_, n = commit(t, bytes.Repeat([]byte{byte(i)}, size), others(voters, behind)...)
	}
	began := time.Now()
	behind.start(t, nil, false) // a new Raft on the same host
	sameState(t, voters, n)
	t.Logf("%d MiB caught up in %s", n*size/mib, time.Since(began))
}

func TestALostLeaderIsReplacedAndCatchesUpWhenItIsBack(t *testing.T) {
	voters := startVoters(t, 3)
	leader, n := commit(t, []byte("before"), voters...)
	sameState(t, voters, n)
	rest := others(voters, leader)
	// Nobody reaches it, and it reaches nobody.
	leader.proxy.hole()
	silent := fmt.Errorf("cut off")
	leader.gate.Store(&silent)
	_, n = commit(t, []byte("after"), rest...)
	sameState(t, rest, n)
	leader.gate.Store(nil)
	leader.proxy.heal()
	took, late := timed(func() { leader.fsm.wait(t, n) })
	t.Logf("caught up %s after healing, the machine was %s late", took, late)
	if took-late > 2*time.Second {
		t.Errorf("catching up took %s after healing", took)
	}
	sameState(t, voters, n)
}

// TestAFollowerThatWasDownForSecondsCatchesUpAtOnce: Raft itself would pause
// for up to 10 s after a dozen appends that failed at once.
func TestAFollowerThatWasDownForSecondsCatchesUpAtOnce(t *testing.T) {
	voters := startVoters(t, 3)
	leader, n := commit(t, []byte("before"), voters...)
	down := others(voters, leader)[0]
	down.fsm.wait(t, n)
	down.Host.Raft().Detach()
	must(t, down.Shutdown().Error())
	down.stop()
	down.proxy.close() // connection refused, from here on
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for range 300 { // six seconds in which traffic goes on
		<-tick.C
		_, n = commit(t, []byte("meanwhile"), others(voters, down)...)
	}

	back := &voter{fsm: newTally(), store: down.store}
	back.node = startNode(t, down.book, down.id) // at another address
	back.start(t, nil, false)
	defer func() {
		back.Host.Raft().Detach()
		must(t, back.Shutdown().Error())
	}()
	took, late := timed(func() { back.fsm.wait(t, n) })
	t.Logf("caught up with %d entries %s after it was back, the machine was %s late", n, took, late)
	if took-late > 2*time.Second {
		t.Errorf("catching up took %s", took)
	}
}

// TestALeaderWhoseGateIsClosedIsReplaced: T6, the reason for the gate.
func TestALeaderWhoseGateIsClosedIsReplaced(t *testing.T) {
	voters := startVoters(t, 3)
	leader := leaderOf(t, voters...)
	stuck := fmt.Errorf("disk stuck")
	leader.gate.Store(&stuck)
	commit(t, []byte("on we go"), others(voters, leader)...)
}

func TestThreeRaftsLeaveNoGoroutineBehind(t *testing.T) {
	before := goleak.IgnoreCurrent()
	t.Run("", func(t *testing.T) {
		voters := startVoters(t, 3)
		commit(t, []byte("x"), voters...)
	})
	until(t, time.Minute, func() error { return goleak.Find(before) })
}
