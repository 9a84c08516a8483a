package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pontoon-registry/pontoon/chaos/proxy"
)

// TestTheNetworkItself takes from three nodes what no proxy can: datagrams of gossip, packets of every kind, and their addresses.
// It runs wherever root may make network namespaces.
func TestTheNetworkItself(t *testing.T) {
	if !mayIsolate(t) {
		t.Log("NOT RUN: no network namespaces here, or no iptables in them (root and CAP_NET_ADMIN); loss of gossip and changed addresses are tried on loopback only, by proxies and other ports")
		return
	}
	w := newNetwork(t)
	w.writes("with nothing wrong")
	w.loseGossip()
	w.loseANode()
	w.moveANode()
	w.swapTwoNodes()
	w.end()
}

// network is a cluster in namespaces, and writers whose every acknowledged tag is remembered.
type network struct {
	t       *testing.T
	d       *deployment
	s       *namespaces
	pledges *pledges
}

func newNetwork(t *testing.T) *network {
	t.Helper()
	w := &network{t: t, s: newNamespaces(t)}
	b := newBucket(t)
	line, err := proxy.OpenLine(w.s.host()+":0", strings.TrimPrefix(b.endpoint, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := line.Close(); err != nil {
			t.Error(err)
		}
	})
	w.d = newDeployment(t, b, options{
		quiet: true, extra: "auth: none", // the network is ours alone
		storage: func(*node) string { return strings.ReplaceAll(b.yaml(), b.endpoint, "http://"+line.Addr()) },
		before: func(d *deployment) {
			w.d = d
			for i, n := range d.nodes {
				n.binary = w.s.add(n.name, 11+i, pontoon(t))
			}
			w.configure()
		},
	})
	w.pledges = newPledges(t)
	w.pledges.reach(w.d.nodes...)
	return w
}

// configure writes all configs for the addresses that the namespaces have.
func (w *network) configure() {
	w.t.Helper()
	for i, n := range w.d.nodes {
		for j, addr := range []*string{&n.addr, &n.debug, &n.peer, &n.gossip} {
			*addr = w.s.addrs[n.name] + ":" + strconv.Itoa(5000+100*j+i)
		}
	}
	for _, n := range w.d.nodes {
		w.d.configure(n)
		config, err := os.ReadFile(n.config)
		if err != nil {
			w.t.Fatal(err)
		}
		// Beyond loopback a node wants TLS, and to be told whom it may believe where a connection comes from.
		own := strings.NewReplacer("[127.0.0.0/8]", "[127.0.0.0/8, "+w.s.subnet+".0/24]", "http:\n", "http:\n  tls: none\n").Replace(string(config))
		if err := os.WriteFile(n.config, []byte(own), 0o600); err != nil {
			w.t.Fatal(err)
		}
	}
}

// writes demands that writes go on: twenty more are acknowledged, soon.
func (w *network) writes(when string) {
	w.t.Helper()
	began, before := time.Now(), w.pledges.count.Load()
	eventually(w.t, 45*time.Second, "writes to go on "+when, func() error {
		if n := w.pledges.count.Load() - before; n < 20 {
			return fmt.Errorf("%d were acknowledged; the last that was not: %v", n, w.pledges.wrong.Load())
		}
		return nil
	})
	w.t.Logf("%s: 20 writes were acknowledged within %v", when, time.Since(began).Round(time.Millisecond))
}

// whole demands that every node is ready and one of them may fail.
func (w *network) whole() {
	w.t.Helper()
	for _, n := range w.d.nodes {
		n.waitReady()
	}
	w.d.voting()
}

// loseGossip loses three of ten datagrams everywhere, then all datagrams of one node. Raft, over TCP, knows nothing of it: nobody
// loses his vote or the lead, and members that do not hear each other's datagrams ask by TCP before they give each other up.
func (w *network) loseGossip() {
	w.t.Helper()
	began, leader := time.Now(), w.d.leader(10*time.Second)
	var heals []func() int
	for _, n := range w.d.nodes {
		heals = append(heals, w.s.drop(n.name, "-p", "udp", "-m", "statistic", "--mode", "random", "--probability", "0.3"))
	}
	pause(w.t.Context(), 4*time.Second)
	w.writes("with three of ten datagrams lost")
	for i, heal := range heals {
		if n := heal(); n == 0 {
			w.t.Errorf("no datagram to %s was lost: this shows nothing", w.d.nodes[i].name)
		}
	}
	deaf := w.d.others(leader)[0]
	heal := w.s.drop(deaf.name, "-p", "udp")
	pause(w.t.Context(), 4*time.Second)
	w.writes("with a node that hears no datagram")
	if n := heal(); n == 0 {
		w.t.Error("no datagram was lost: this shows nothing")
	}
	w.whole()
	if leads, err := leader.metric("pontoon_raft_leader"); (err != nil || leads != 1) && !machine.costALeader(w.t, began, "the lead was lost") {
		w.t.Errorf("%s lost the lead by lost datagrams: %v, %v", leader.name, leads, err)
	}
}

// loseANode drops every packet between the leader and the others, in the kernel: no reset, no close, no acknowledgement.
func (w *network) loseANode() {
	w.t.Helper()
	leader := w.d.leader(10 * time.Second)
	var heals []func() int
	for _, n := range w.d.others(leader) {
		heals = append(heals, w.s.drop(leader.name, "-s", w.s.addrs[n.name]), w.s.drop(n.name, "-s", w.s.addrs[leader.name]))
	}
	eventually(w.t, 30*time.Second, "another node to lead", func() error {
		for _, n := range w.d.others(leader) {
			if leads, err := n.metric("pontoon_raft_leader"); err == nil && leads == 1 {
				return nil
			}
		}
		return fmt.Errorf("none does")
	})
	w.writes("with the leader cut off")
	for _, heal := range heals {
		if n := heal(); n == 0 {
			w.t.Error("no packet was lost: this shows nothing")
		}
	}
	w.whole()
	w.writes("with the leader back")
}

// moveANode starts a node under an address that nobody has heard of, while the others run.
func (w *network) moveANode() {
	w.t.Helper()
	n := w.d.nodes[1]
	was := n.peer
	n.proc.kill()
	w.s.readdress(n.name, 31)
	w.configure()
	if n.peer == was {
		w.t.Fatalf("%s is where it was, at %s: this shows nothing", n.name, was)
	}
	n.start()
	w.pledges.reach(w.d.nodes...)
	w.whole()
	w.writes("with a node at another address")
}

// swapTwoNodes starts each of two nodes where the other was. Who dials the one finds the other, and must not take him for it.
func (w *network) swapTwoNodes() {
	w.t.Helper()
	a := w.d.leader(10 * time.Second)
	b := w.d.others(a)[0]
	ofA, ofB := a.peer, b.peer
	a.proc.kill()
	b.proc.kill()
	last := func(n *node) int {
		i, err := strconv.Atoi(strings.TrimPrefix(w.s.addrs[n.name], w.s.subnet+"."))
		if err != nil {
			w.t.Fatal(err)
		}
		return i
	}
	lastA, lastB := last(a), last(b)
	w.s.readdress(a.name, 99) // two of one address would hear of each other
	w.s.readdress(b.name, lastA)
	w.s.readdress(a.name, lastB)
	w.swapPorts(a, b)
	if a.peer != ofB || b.peer != ofA {
		w.t.Fatalf("%s is at %s and %s at %s, not where the other was, at %s and %s: this shows nothing", a.name, a.peer, b.name, b.peer, ofB, ofA)
	}
	a.start()
	b.start()
	w.pledges.reach(w.d.nodes...)
	w.whole()
	w.writes("with two nodes at each other's addresses")
}

// swapPorts gives two nodes each other's whole addresses: configure has given ports by the place in the list.
func (w *network) swapPorts(a, b *node) {
	nodes := w.d.nodes
	i, j := -1, -1
	for k, n := range nodes {
		switch n {
		case a:
			i = k
		case b:
			j = k
		}
	}
	nodes[i], nodes[j] = nodes[j], nodes[i]
	w.configure()
}

// end demands that all nodes hold the same, and every tag that was acknowledged.
func (w *network) end() {
	w.t.Helper()
	tags := w.pledges.end()
	w.d.agree()
	for _, n := range w.d.nodes {
		r := at(n.url())
		for tag, digest := range tags {
			if got, err := r.resolve(w.t.Context(), pledged, tag); err != nil || got != digest {
				w.t.Errorf("%s: tag %s is %q, %v; acknowledged as %s", n.name, tag, got, err, digest)
			}
		}
		r.client.CloseIdleConnections()
	}
	w.t.Logf("%d writes were acknowledged and %d not; every node has all that were", len(tags), w.pledges.failed.Load())
	if len(tags) == 0 {
		w.t.Error("nothing was acknowledged")
	}
}

// pledges are tags that were acknowledged. Writers push one after the other to any node and never repeat one.
type pledges struct {
	t      *testing.T
	stop   context.CancelFunc
	group  sync.WaitGroup
	urls   atomic.Pointer[[]string]
	count  atomic.Int64
	failed atomic.Int64
	wrong  atomic.Value // the last error, for messages

	mu   sync.Mutex // guards tags
	tags map[string]string
}

const (
	pledged  = "chaos/pledged"
	pledgers = 3
)

func newPledges(t *testing.T) *pledges {
	ctx, stop := context.WithCancel(context.Background())
	p := &pledges{t: t, stop: stop, tags: map[string]string{}}
	p.urls.Store(&[]string{})
	for id := range pledgers {
		p.group.Go(func() { p.write(ctx, id) })
	}
	t.Cleanup(func() { p.end() })
	return p
}

// reach says where the nodes are now.
func (p *pledges) reach(nodes ...*node) {
	var urls []string
	for _, n := range nodes {
		urls = append(urls, n.url())
	}
	p.urls.Store(&urls)
}

func (p *pledges) write(ctx context.Context, id int) {
	config := []byte("{}")
	for i := 0; ctx.Err() == nil; i++ {
		urls := *p.urls.Load()
		if len(urls) == 0 {
			pause(ctx, 20*time.Millisecond)
			continue
		}
		r := at(urls[rand.IntN(len(urls))])
		r.client.Timeout = 5 * time.Second
		tag := fmt.Sprintf("w%d-%d", id, i)
		body := manifest{MediaType: mediaManifest, ArtifactType: "chaos/pledge", Config: new(describe(mediaEmpty, config)), Annotations: map[string]string{"tag": tag}}.encode()
		err := r.pushBlob(ctx, pledged, config)
		if err == nil {
			err = r.putManifest(ctx, pledged, tag, mediaManifest, body)
		}
		r.client.CloseIdleConnections()
		if err != nil {
			p.failed.Add(1)
			p.wrong.Store(err.Error())
			pause(ctx, 50*time.Millisecond)
			continue
		}
		p.mu.Lock()
		p.tags[tag] = digestOf(body)
		p.mu.Unlock()
		p.count.Add(1)
		pause(ctx, 20*time.Millisecond)
	}
}

// end waits for the writers and answers what was acknowledged.
func (p *pledges) end() map[string]string {
	p.stop()
	p.group.Wait()
	return p.tags
}
