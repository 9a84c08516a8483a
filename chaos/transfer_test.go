package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestWritesPauseForMillisecondsWhenLeadershipIsHandedOver hands leadership on under clients that repeat nothing: none of
// their writes fails. How long no write was acknowledged is printed, at the clients, with what it is without a transfer.
func TestWritesPauseForMillisecondsWhenLeadershipIsHandedOver(t *testing.T) {
	transfers := 5
	if *long {
		transfers = 40
	}
	d := newDeployment(t, newDirectory(t), options{})
	const repo = "chaos/transfer"
	config := []byte("{}")
	if err := at(d.url()).pushBlob(t.Context(), repo, config); err != nil {
		t.Fatal(err)
	}
	working, stop := context.WithCancel(t.Context())
	defer stop()
	var group sync.WaitGroup
	acks := &ackTimes{}
	for n := range rollers {
		c := &caller{addr: d.balancer, keep: true}
		group.Go(func() {
			defer c.close()
			for i := 0; working.Err() == nil; i++ {
				tag := fmt.Sprintf("t%02d-%05d", n, i)
				body := manifest{MediaType: mediaManifest, ArtifactType: "chaos/transfer", Config: new(describe(mediaEmpty, config)),
					Annotations: map[string]string{"tag": tag}}.encode()
				began := time.Now()
				if _, err := c.want(t.Context(), http.StatusCreated, http.MethodPut, "/v2/"+repo+"/manifests/"+tag,
					http.Header{"Content-Type": {mediaManifest}}, body); err != nil {
					if machine.excuses(t, began, err) {
						pause(context.Background(), calmTime/100) // or it burns the time of those who elect
						continue
					}
					t.Errorf("writer %d: %v", n, err)
				}
				acks.add()
			}
		})
	}
	const window = 300 * time.Millisecond
	var gaps, without []time.Duration
	for range transfers {
		var leader *node
		var began time.Time
		for tries := 1; ; tries++ {
			leader, began = d.leader(20*time.Second), time.Now()
			out, err := leader.cli("cluster", "transfer")
			if err == nil {
				break
			}
			if tries == transferTries {
				t.Fatalf("transfer: %v\n%s", err, out)
			}
		}
		var at time.Time
		eventually(t, 10*time.Second, leader.name+" to say that it leads no longer", func() error {
			if at = leader.deposed(); at.Before(began) {
				return fmt.Errorf("it led until %v", at)
			}
			return nil
		})
		pause(working, window) // the writes after it are what is looked at
		gaps = append(gaps, acks.gap(at.Add(-window/2), at.Add(window/2)))
		without = append(without, acks.gap(at.Add(-3*window/2), at.Add(-window/2)))
	}
	stop()
	group.Wait()
	t.Logf("longest time without an acknowledged write around %d transfers: p50 %v, p90 %v, max %v; in as long a time before them: p50 %v, p90 %v, max %v",
		transfers, percentile(gaps, 50), percentile(gaps, 90), percentile(gaps, 100),
		percentile(without, 50), percentile(without, 90), percentile(without, 100))
	// An election takes about a second; so may anything on a machine that is busy with something else.
	if half, usual := percentile(gaps, 50), percentile(without, 50); half > max(500*time.Millisecond, 4*usual) {
		t.Errorf("half of the transfers paused writes for %v or longer, usual are %v: they were elections", half, usual)
	}
	d.agree()
}

// ackTimes is when writes were acknowledged, at the clients.
type ackTimes struct {
	mu  sync.Mutex // guards all
	all []time.Time
}

func (a *ackTimes) add() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.all = append(a.all, time.Now())
}

// gap is the longest time between two acknowledged writes, one of which lies between from and to.
func (a *ackTimes) gap(from, to time.Time) (longest time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := 1; i < len(a.all); i++ {
		if a.all[i].After(from) && a.all[i-1].Before(to) {
			longest = max(longest, a.all[i].Sub(a.all[i-1]))
		}
	}
	return longest
}

// deposed is when the node's log says that it led for the last time; zero while it does not say so.
func (n *node) deposed() (last time.Time) {
	n.t.Helper()
	log, err := os.ReadFile(n.proc.log.Name())
	if err != nil {
		n.t.Fatal(err)
	}
	for line := range strings.Lines(string(log)) {
		var entry struct {
			Time time.Time `json:"time"`
			Msg  string    `json:"msg"`
		}
		if json.Unmarshal([]byte(line), &entry) == nil && entry.Msg == "this node leads no longer" {
			last = entry.Time
		}
	}
	return last
}
