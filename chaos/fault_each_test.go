package chaos

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"
)

// fewFaults are tried on every change. The rest take minutes: -chaos.faults names others, or all.
const fewFaults = "kill-all,power-cut-leader,power-cut-all,swap-addresses"

// TestEachFaultIsSurvived does one fault after the other to a small cluster while clients write and read. Of what was
// acknowledged nothing is lost, nobody ever reads anything else, and after each fault the cluster is whole and all its
// nodes hold the same.
func TestEachFaultIsSurvived(t *testing.T) {
	names := cmp.Or(*chaosFaults, fewFaults)
	if names == "all" {
		names = ""
	}
	kinds, err := chosen(faults(), names)
	if err != nil {
		t.Fatal(err)
	}
	seed := cmp.Or(*chaosSeed, rand.Uint64N(1<<32))
	t.Logf("-chaos.seed=%d hits the same nodes again", seed)
	a := newArena(t, runFolder(t, scratch(t), seed), seed)
	l := newLedger(t, a.d)
	for i, f := range kinds {
		if err := l.goesOn(30 * time.Second); err != nil { // or the first fault would meet nothing to lose
			t.Fatal(err)
		}
		survive(t, a, l, f, rand.New(rand.NewPCG(seed, uint64(i))))
		if t.Failed() {
			break
		}
	}
	l.stop()
	a.d.settle(settling)
	a.d.agree()
	l.verify(a.d)
}

// survive does one fault and demands that all is well again.
func survive(t *testing.T, a *arena, l *ledger, f fault, chance *rand.Rand) {
	t.Helper()
	began := time.Now()
	heal, detail, err := f.inject(t.Context(), a, chance)
	if err != nil {
		t.Fatalf("%s: %s: %v", f.name, detail, err)
	}
	harmed := time.Now()
	hold := f.hold
	if hold[1] == 0 {
		hold = [2]time.Duration{time.Second, 2 * time.Second}
	}
	pause(t.Context(), hold[0]+time.Duration(chance.Int64N(int64(hold[1]-hold[0]))))
	healing := time.Now()
	if err := heal(t.Context()); err != nil {
		t.Fatalf("%s: %s: heal: %v", f.name, detail, err)
	}
	a.taken, a.claimed = nil, nil
	a.publish()
	a.d.settle(settling)
	if err := l.goesOn(30 * time.Second); err != nil {
		t.Errorf("%s: %s: %v", f.name, detail, err)
	}
	a.d.agree()
	t.Logf("%s: %s: injected in %v, held for %v, all well %v later; longest time without an acknowledged write %v", f.name, detail,
		harmed.Sub(began).Round(time.Millisecond), healing.Sub(harmed).Round(time.Millisecond),
		time.Since(healing).Round(time.Millisecond), l.gap(began).Round(time.Millisecond))
}

// ledger is what clients were told by a cluster under faults.
type ledger struct {
	t    testing.TB
	url  string
	base descriptor
	end  context.CancelFunc
	all  sync.WaitGroup

	mu   sync.Mutex // guards what follows
	told []acked
	lies []string
}

const ledgerRepo = "chaos/ledger"

// newLedger starts clients: four write, two read what was acknowledged.
func newLedger(t testing.TB, d *deployment) *ledger {
	t.Helper()
	l := &ledger{t: t, url: d.url(), base: describe(mediaEmpty, []byte("{}"))}
	if err := at(l.url).pushBlob(t.Context(), ledgerRepo, []byte("{}")); err != nil {
		t.Fatal(err)
	}
	working, end := context.WithCancel(context.Background())
	l.end = end
	for i := range 4 {
		l.all.Go(func() { l.write(working, i) })
	}
	for range 2 {
		l.all.Go(func() { l.read(working) })
	}
	t.Cleanup(l.stop)
	return l
}

func (l *ledger) stop() {
	l.end()
	l.all.Wait()
}

// write pushes one manifest after the other under a tag of its own, without a kept connection.
func (l *ledger) write(ctx context.Context, id int) {
	r := &registry{base: l.url, client: &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}}
	for i := 0; ctx.Err() == nil; i++ {
		tag := fmt.Sprintf("w%d-%06d", id, i)
		body := manifest{MediaType: mediaManifest, ArtifactType: "chaos/ledger", Config: &l.base,
			Annotations: map[string]string{"tag": tag}}.encode()
		if r.putManifest(ctx, ledgerRepo, tag, mediaManifest, body) == nil {
			l.mu.Lock()
			l.told = append(l.told, acked{tag: tag, digest: digestOf(body), at: time.Now()})
			l.mu.Unlock()
		}
		pause(ctx, 10*time.Millisecond)
	}
}

// read resolves tags that were acknowledged, the newest as often as any other. An answer is that digest, or says that there
// is none now: 404 is a lie.
func (l *ledger) read(ctx context.Context) {
	r := &registry{base: l.url, client: &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}}
	for ; ctx.Err() == nil; pause(ctx, 5*time.Millisecond) {
		l.mu.Lock()
		if len(l.told) == 0 {
			l.mu.Unlock()
			continue
		}
		w := l.told[len(l.told)-1]
		if rand.IntN(2) == 0 {
			w = l.told[rand.IntN(len(l.told))]
		}
		l.mu.Unlock()
		a, err := r.do(ctx, http.MethodHead, "/v2/"+ledgerRepo+"/manifests/"+w.tag, http.Header{"Accept": {mediaManifest}}, nil)
		if err != nil || a.status >= 500 || a.status == http.StatusTooManyRequests {
			continue
		}
		if got := a.header.Get("Docker-Content-Digest"); a.status != http.StatusOK || got != w.digest {
			l.mu.Lock()
			l.lies = append(l.lies, fmt.Sprintf("at %s tag %s, acknowledged at %s as %s, was answered %d %q", time.Now().Format("15:04:05.000"),
				w.tag, w.at.Format("15:04:05.000"), w.digest, a.status, got))
			l.mu.Unlock()
		}
	}
}

// goesOn waits until more writes are acknowledged.
func (l *ledger) goesOn(within time.Duration) error {
	l.mu.Lock()
	from := len(l.told)
	l.mu.Unlock()
	for end := time.Now().Add(within); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		l.mu.Lock()
		now := len(l.told)
		l.mu.Unlock()
		if now >= from+20 {
			return nil
		}
	}
	return fmt.Errorf("no 20 writes were acknowledged within %v", within)
}

// gap is the longest time without an acknowledged write since a moment.
func (l *ledger) gap(since time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	var acks []time.Time
	for _, w := range l.told {
		acks = append(acks, w.at)
	}
	slices.SortFunc(acks, time.Time.Compare)
	return gapsAfter(acks, []time.Time{since}, time.Now())[0]
}

// verify asks every node for a share of what was acknowledged, after all clients have stopped.
func (l *ledger) verify(d *deployment) {
	l.t.Helper()
	for _, lie := range l.lies[:min(10, len(l.lies))] {
		l.t.Error(lie)
	}
	lost, doors := 0, map[*node]*registry{}
	for _, n := range d.nodes {
		doors[n] = at(n.url())
		defer doors[n].client.CloseIdleConnections()
	}
	for i, w := range l.told {
		n := d.nodes[i%len(d.nodes)]
		digest, err := doors[n].resolve(context.Background(), ledgerRepo, w.tag)
		if err == nil && digest == w.digest {
			continue
		}
		if lost++; lost <= 10 {
			l.t.Errorf("tag %s was acknowledged as %s at %s; now %s says %q, %v", w.tag, w.digest, w.at.Format("15:04:05.000"), n.name, digest, err)
		}
	}
	l.t.Logf("%d acknowledged writes, %d lost", len(l.told), lost)
	if len(l.told) == 0 {
		l.t.Error("nothing was written: the test shows nothing")
	}
}
