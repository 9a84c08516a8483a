package cluster

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// TestWhatWasAcknowledgedStaysAndWhatWasUnavailableNeverHappens lets leadership
// change, cuts nodes off and restarts them under writes; then all states are the same.
func TestWhatWasAcknowledgedStaysAndWhatWasUnavailableNeverHappens(t *testing.T) {
	t.Parallel()
	nodes, wires := formWith(t, 3, &testMark{}, func(_ int, c *Config) { c.Hold = time.Second }, func(*Node) {})
	var nmu sync.RWMutex
	var mu sync.Mutex
	acked, never := map[string]bool{}, map[string]bool{}
	unknown := 0
	ctx, stop := context.WithCancel(t.Context())
	var writers sync.WaitGroup
	for w := range 12 {
		writers.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				nmu.RLock()
				at := nodes[(w+i)%3]
				id := fmt.Sprintf("w%d-%d", w, i)
				c, cancel := context.WithTimeout(context.Background(), time.Duration(20+rand.N(4000))*time.Millisecond)
				_, err := at.Propose(c, putNode(id, at.id+":1"))
				cancel()
				nmu.RUnlock()
				mu.Lock()
				switch k := meta.KindOf(err); {
				case err == nil:
					acked[id] = true
				case k == metav1.Kind_KIND_UNAVAILABLE:
					never[id] = true
				case k == metav1.Kind_KIND_OUTCOME_UNKNOWN:
					unknown++
				default:
					t.Errorf("%s: %v", id, err)
				}
				mu.Unlock()
				<-time.After(2 * time.Millisecond)
			}
		})
	}
	for deadline := time.Now().Add(6 * time.Second); time.Now().Before(deadline); {
		i := rand.N(3)
		switch rand.N(6) {
		case 0, 1:
			for _, n := range nodes {
				c, cancel := context.WithTimeout(t.Context(), 2*time.Second)
				_ = n.StepDown(c)
				cancel()
			}
		case 2, 3:
			wires.isolate(nodes[i].advertise)
			<-time.After(time.Duration(100+rand.N(900)) * time.Millisecond)
			wires.heal()
		case 4:
			nmu.Lock()
			old := nodes[i]
			cfg := old.cfg
			old.halt(t)
			own := new(string)
			cfg.Dial = wires.dialer(own)
			_, g := nodes[(i+1)%3].Addresses()
			cfg.Join, cfg.Expect = []string{g}, 3
			r, err := startWith(t, cfg, func(n *Node) { wires.name(own, n.advertise) })
			if err != nil {
				t.Fatal(err)
			}
			nodes[i] = r
			nmu.Unlock()
		}
		<-time.After(time.Duration(rand.N(600)) * time.Millisecond)
	}
	eventually(t, "a write is acknowledged, or the run proves nothing", func() error {
		mu.Lock()
		defer mu.Unlock()
		if len(acked) == 0 {
			return errors.New("none")
		}
		return nil
	})
	stop()
	writers.Wait()
	wires.heal()
	settle(t, nodes)
	have := map[string]bool{}
	eventually(t, "the writes are read", func() error {
		return nodes[0].View(t.Context(), meta.Read{}, func(v *meta.View) error {
			all, err := v.Nodes()
			for _, m := range all {
				have[m.GetId()] = true
			}
			return err
		})
	})
	for id := range acked {
		if !have[id] {
			t.Errorf("acknowledged write %s is lost", id)
		}
	}
	for id := range never {
		if have[id] {
			t.Errorf("%s was unavailable and took effect", id)
		}
	}
	t.Logf("%d acknowledged, %d unavailable, %d unknown", len(acked), len(never), unknown)
	eventually(t, "hashes agree", func() error {
		index, hash := nodes[0].State()
		for _, n := range nodes[1:] {
			if i, h := n.State(); i != index || string(h) != string(hash) {
				return fmt.Errorf("%d %x against %d %x", i, h, index, hash)
			}
		}
		return nil
	})
}
