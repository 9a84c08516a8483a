package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/pontoon-registry/pontoon/meta"
	"github.com/pontoon-registry/pontoon/meta/kv"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// TestOnlyAMajorityAgainstItStopsANode is the table of M9.
func TestOnlyAMajorityAgainstItStopsANode(t *testing.T) {
	abc := []string{"a", "b", "c"}
	notes := func(pairs ...any) map[uint64]string {
		m := map[uint64]string{}
		for i := 0; i < len(pairs); i += 2 {
			m[uint64(pairs[i].(int))] = pairs[i+1].(string)
		}
		return m
	}
	type answers = map[string]map[uint64]string
	for _, c := range []struct {
		name   string
		voters []string
		own    map[uint64]string
		others answers
		says   opinion
		index  uint64
	}{
		{"all agree", abc, notes(1000, "x", 2000, "y"), answers{"b": notes(1000, "x", 2000, "y"), "c": notes(1000, "x", 2000, "y")}, notesAgree, 2000},
		{"one lags", abc, notes(1000, "x", 2000, "y"), answers{"b": notes(1000, "x"), "c": notes(1000, "x")}, notesAgree, 1000},
		{"one is silent", abc, notes(1000, "x"), answers{"b": notes(1000, "x")}, notesAgree, 1000},
		{"this one is odd", abc, notes(1000, "x", 2000, "z"), answers{"b": notes(2000, "y"), "c": notes(2000, "y")}, selfOdd, 2000},
		{"odd at an older index", abc, notes(1000, "z", 2000, "q"), answers{"b": notes(1000, "x", 2000, "y"), "c": notes(1000, "x")}, selfOdd, 1000},
		{"another is odd", abc, notes(1000, "x"), answers{"b": notes(1000, "x"), "c": notes(1000, "z")}, othersOdd, 1000},
		{"one against one, one silent", abc, notes(1000, "x"), answers{"b": notes(1000, "z")}, notesDiffer, 1000},
		{"three ways", abc, notes(1000, "x"), answers{"b": notes(1000, "y"), "c": notes(1000, "z")}, notesDiffer, 1000},
		{"a tie of two", abc[:2], notes(1000, "x"), answers{"b": notes(1000, "y")}, notesDiffer, 1000},
		{"a tie of four", []string{"a", "b", "c", "d"}, notes(1000, "x"), answers{"b": notes(1000, "x"), "c": notes(1000, "y"), "d": notes(1000, "y")}, notesDiffer, 1000},
		{"newer notes differ without a majority", abc, notes(1000, "x", 2000, "y"), answers{"b": notes(1000, "x", 2000, "z"), "c": notes(1000, "x")}, notesDiffer, 2000},
		{"two of five are no majority", []string{"a", "b", "c", "d", "e"}, notes(1000, "x"), answers{"b": notes(1000, "y"), "c": notes(1000, "y")}, notesDiffer, 1000},
		{"nobody answers", abc, notes(1000, "x"), answers{}, notesMissing, 0},
		{"nothing in common", abc, notes(2000, "x"), answers{"b": notes(1000, "y"), "c": notes(1000, "y")}, notesMissing, 0},
		{"without a vote, odd", []string{"b", "c", "d"}, notes(1000, "x"), answers{"b": notes(1000, "y"), "c": notes(1000, "y")}, selfOdd, 1000},
		{"without a vote, it counts for nothing", []string{"b", "c", "d"}, notes(1000, "x"), answers{"b": notes(1000, "x")}, notesMissing, 0},
		{"alone", abc[:1], notes(1000, "x"), answers{}, notesAgree, 1000},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := judgeNotes("a", c.own, c.voters, c.others)
			if v.says != c.says || v.index != c.index {
				t.Errorf("got %d at %d, want %d at %d", v.says, v.index, c.says, c.index)
			}
		})
	}
}

// clockRow is the key of the cluster's clock (meta/keys.go).
var clockRow = []byte{0x02}

// damage writes another value into a row of a halted node, as a bad disk would: its
// clock is some hours ahead, and every entry says so to the next.
func damage(t *testing.T, dir string) {
	t.Helper()
	path, err := statePath(dir)
	if err != nil {
		t.Fatal(err)
	}
	store, err := kv.Open(path, kv.Options{})
	if err != nil {
		t.Fatal(err)
	}
	value, found, err := store.Get(clockRow, nil)
	var clock metav1.Clock
	if err != nil || !found || proto.Unmarshal(value, &clock) != nil {
		t.Fatal("no clock in the state", err)
	}
	clock.ClusterTime += int64(5 * time.Hour)
	if value, err = proto.Marshal(&clock); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(store.Set(clockRow, value), store.Sync(), store.Close()); err != nil {
		t.Fatal(err)
	}
}

// pass writes until the state of the node is beyond index.
func pass(t *testing.T, n *running, index uint64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute) // a thousand syncs of a disk that many use
	defer cancel()
	var writers sync.WaitGroup
	for w := range 6 {
		writers.Go(func() {
			for i := 0; ; i++ {
				if at, _ := n.State(); at > index || ctx.Err() != nil {
					return
				}
				// One that stopped serving refuses: that is what is waited for elsewhere.
				_, _ = n.Propose(ctx, putNode(fmt.Sprintf("w%d", w), fmt.Sprintf("host-%d:1", i)))
			}
		})
	}
	writers.Wait()
	if ctx.Err() != nil {
		t.Fatal("the entries were not written in time")
	}
}

// oddMetrics counts comparisons that found this node odd.
type oddMetrics struct {
	noMetrics
	odd atomic.Int64
}

func (m *oddMetrics) Diverged(own bool) {
	if own {
		m.odd.Add(1)
	}
}

// TestANodeWithADamagedStateHealsItself: it is noticed, stops serving, gets the leader's
// state, keeps its log, and is equal again (M9). So is one that leads when it is noticed.
func TestANodeWithADamagedStateHealsItself(t *testing.T) {
	t.Parallel()
	for _, leads := range []bool{false, true} {
		t.Run(fmt.Sprintf("leads=%v", leads), func(t *testing.T) {
			t.Parallel()
			metrics := &oddMetrics{}
			nodes, _ := formWith(t, 3, &testMark{}, func(_ int, c *Config) { c.compareEvery = 200 * time.Millisecond }, func(*Node) {})
			leader, followers := leaderOf(t, nodes)
			rest, odd := followers[0], followers[1]
			cfg := odd.cfg
			cfg.Listen, cfg.GossipListen = odd.advertise, odd.gossip.Addr().String()
			_, gossip := leader.Addresses()
			cfg.Join, cfg.Metrics = []string{gossip}, metrics
			var refused atomic.Bool
			var logs atomic.Pointer[Node]
			firstBefore, firstAfter := uint64(0), uint64(0)
			cfg.Step = func(name string) error {
				n := logs.Load()
				if name == "raft is down" {
					err := n.View(t.Context(), meta.Read{Content: true}, func(*meta.View) error { return nil })
					_, perr := n.Propose(t.Context(), putNode("x", "y:1"))
					rerr := n.Ready(t.Context())
					refused.Store(isUnavailable(err) && isUnavailable(perr) && rerr != nil && strings.Contains(err.Error(), "differs from that of a majority"))
					firstBefore, _ = n.logs.FirstIndex()
				}
				if name == "stub is written" {
					firstAfter, _ = n.logs.FirstIndex()
				}
				return nil
			}
			odd.halt(t)
			damage(t, cfg.DataDir)
			// It must apply something before it can lead, which a busy machine may have it do at any time: else its clock, which
			// is what is wrong, becomes everybody's, and all agree.
			mustWrite(t, leader, putNode("before", "leading:1"))
			odd, err := startWith(t, cfg, func(n *Node) { logs.Store(n) })
			if err != nil {
				t.Fatal(err)
			}
			eventually(t, "it is ready", func() error { return odd.Ready(t.Context()) })
			if leads {
				eventually(t, "the odd one leads", func() error {
					if odd.opened.Load() != nil {
						return nil
					}
					l, _ := leaderOf(t, []*running{leader, rest, odd})
					if l != odd {
						_ = l.raft().LeadershipTransferToServer(raftID(odd), raftAddress(odd)).Error() // tried again
					}
					return errors.New("not yet")
				})
			}
			pass(t, leader, 1000)
			eventually(t, "it is noticed", func() error {
				if metrics.odd.Load() == 0 {
					return errors.New("not yet")
				}
				return nil
			})
			eventually(t, "it serves again", func() error { return odd.trusted() })
			eventually(t, "it is ready", func() error { return odd.Ready(t.Context()) })
			if !refused.Load() {
				t.Error("it served while its state was known to be wrong")
			}
			if firstBefore != 1 || firstAfter != 1 {
				t.Errorf("its log began at %d before, at %d after: it forgot what it had acknowledged", firstBefore, firstAfter)
			}
			mustWrite(t, odd, putNode("after", "healing:1"))
			same(t, leader, rest, odd)
			for _, index := range odd.state.NotedIndexes(1) {
				a, _ := odd.state.HashAt(index)
				b, _ := leader.state.HashAt(index)
				if !bytes.Equal(a, b) {
					t.Errorf("the notes at %d differ", index)
				}
			}
		})
	}
}
