package chaos

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// deployment is a cluster of real nodes over one store, and a balancer before them.
type deployment struct {
	t        testing.TB
	logs     string
	data     string
	secret   string
	store    store
	options  options
	nodes    []*node
	made     *[]*node           // that there ever were, here and beside
	balancer string             // address of HAProxy, host:port
	slots    *slots             // HAProxy's, where nodes come and go
	volumes  map[string]*volume // by the name of their node, also of those that are gone
}

// options are what tests ask of a cluster beyond the defaults.
type options struct {
	extra string // further YAML at the top level of every node's config
	drain string // http.drain.delay; empty: the default
	cut   string // http.draintimeout; empty: the default
	idle  string // http.idlebody; empty: the default
	tls   bool   // the registry speaks TLS with a certificate that the cluster issues
	quiet bool   // no line in the log for each request
	first int    // so many nodes found the cluster; 0: three
	disk  int    // MiB of a volume of its own under each node's data, where this machine has volumes; 0: a folder
	slots int    // so many nodes at most, which come and go; 0: the three that start stay

	logs, data string   // folders that stay; empty: the test's own, which go
	env        []string // of every node; NODE stands for its name
	// storage is the block under storage: in the config of a node, where that is not the store's for all; nil: it is.
	storage func(*node) string
	wire    func(*node) // is called before each start of a node; nil: nothing

	cluster []string // further lines in the cluster section of every node's config; NODE stands for its name
	// before is called when the configs are written and no node runs; nil: nothing.
	before func(*deployment)
}

// newDeployment starts three nodes, or as many as asked for, over the store, waits until all are ready, and puts HAProxy before them.
func newDeployment(t testing.TB, over store, o options) *deployment {
	t.Helper()
	d := &deployment{t: t, logs: o.logs, data: o.data, store: over, options: o, made: new([]*node), volumes: map[string]*volume{}}
	if o.disk > 0 {
		if why := noVolumes(t); why != nil {
			t.Log("NOT RUN: no power is cut and no disk filled here: ", why)
			d.options.disk = 0
		}
	}
	if o.logs == "" {
		d.logs, d.data = scratch(t), t.TempDir()
	}
	d.secret = filepath.Join(d.data, "secret")
	if err := os.WriteFile(d.secret, []byte("chaos-"+strings.Repeat("0123456789abcdef", 4)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range cmp.Or(o.first, 3) {
		d.nodes = append(d.nodes, d.node(i))
	}
	d.move()
	if o.before != nil {
		o.before(d)
	}
	d.start()
	if o.slots == 0 {
		d.balancer = newBalancer(t, d.logs, d.addrs(), o.tls)
		return d
	}
	d.slots = newSlots(t, d.logs, o.slots)
	d.balancer = d.slots.addr
	for _, n := range d.nodes {
		d.slots.point(n.slot, n.addr)
	}
	return d
}

// node is one that has no addresses yet and does not run.
func (d *deployment) node(slot int) *node {
	n := d.bare(fmt.Sprintf("node%d", slot+1), slot)
	n.volume = d.volume(n.name)
	return n
}

// bare is a node without a disk of its own.
func (d *deployment) bare(name string, slot int) *node {
	n := &node{t: d.t, name: name, slot: slot, logs: d.logs, config: filepath.Join(d.logs, name+".yml"), wire: d.options.wire}
	for _, line := range d.options.env {
		n.env = append(n.env, strings.ReplaceAll(line, "NODE", name))
	}
	*d.made = append(*d.made, n)
	return n
}

// place gives a node new addresses.
func (n *node) place() {
	n.addr, n.debug, n.peer, n.gossip = freeAddr(n.t), freeAddr(n.t), freeAddr(n.t), freeAddr(n.t)
}

// configure writes a node's config; it joins all nodes that there are now.
func (d *deployment) configure(n *node) {
	d.t.Helper()
	var join []string
	for _, other := range d.nodes {
		if len(d.nodes) > 1 { // a node that founds a cluster alone names nobody
			join = append(join, other.gossip)
		}
	}
	if err := os.WriteFile(n.config, []byte(d.configOf(n, join)), 0o600); err != nil {
		d.t.Fatal(err)
	}
}

// move gives every node new addresses and writes the configs.
func (d *deployment) move() {
	d.t.Helper()
	for _, n := range d.nodes {
		n.place()
	}
	for _, n := range d.nodes {
		d.configure(n)
	}
}

func (d *deployment) configOf(n *node, join []string) string {
	lines := []string{
		"version: 0.1",
		"log:",
		"  level: info",
		"  formatter: json",
		"http:",
		"  addr: " + n.addr,
		"  debug:",
		"    addr: " + n.debug,
		"  proxyprotocol:",
		"    trusted: [127.0.0.0/8]",
	}
	if d.options.quiet {
		lines = slices.Insert(lines, slices.Index(lines, "http:"), "  accesslog:", "    disabled: true")
	}
	if d.options.drain != "" {
		lines = append(lines, "  drain:", "    delay: "+d.options.drain)
	}
	if d.options.cut != "" {
		lines = append(lines, "  draintimeout: "+d.options.cut)
	}
	if d.options.idle != "" {
		lines = append(lines, "  idlebody: "+d.options.idle)
	}
	if d.options.tls {
		lines = append(lines, "  tls:", "    names: [127.0.0.1]")
	}
	storage := d.store.yaml()
	if d.options.storage != nil {
		storage = d.options.storage(n)
	}
	lines = append(lines, "cluster:")
	for _, line := range d.options.cluster {
		lines = append(lines, "  "+strings.ReplaceAll(line, "NODE", n.name))
	}
	return strings.Join(append(lines,
		"  name: chaos",
		"  node: "+n.name,
		"  datadir: "+filepath.Join(d.data, n.name),
		"  secretfile: "+d.secret,
		"  addr: "+n.peer,
		"  gossip:",
		"    addr: "+n.gossip,
		"  join: ["+strings.Join(join, ", ")+"]",
		"storage:",
		strings.TrimRight(storage, "\n"),
		d.options.extra,
	), "\n")
}

func (d *deployment) addrs() (addrs []string) {
	for _, n := range d.nodes {
		addrs = append(addrs, n.addr)
	}
	return addrs
}

// start starts all nodes and waits until each is ready and one of them may fail. The first nodes of a new cluster are
// ready before the last has a vote, and a kill at that moment would take the quorum with it.
func (d *deployment) start() {
	d.t.Helper()
	for _, n := range d.nodes {
		n.start()
	}
	for _, n := range d.nodes {
		n.waitReady()
	}
	d.voting()
}

// voting waits until as many nodes may fail as their number allows.
func (d *deployment) voting() {
	d.t.Helper()
	eventually(d.t, 30*time.Second, "all nodes to vote", func() error {
		for _, n := range d.nodes {
			tolerance, err := n.metric("pontoon_failure_tolerance")
			if err != nil {
				return err
			}
			if int(tolerance) < (len(d.nodes)-1)/2 {
				return fmt.Errorf("%s says that %v more voters may fail", n.name, tolerance)
			}
		}
		return nil
	})
}

// leader waits until one of the nodes says that it leads.
func (d *deployment) leader(within time.Duration) *node {
	d.t.Helper()
	var leader *node
	eventually(d.t, within, "a leader", func() error {
		leader = nil
		for _, n := range d.nodes {
			if leads, err := n.metric("pontoon_raft_leader"); err == nil && leads == 1 {
				leader = n
				return nil
			}
		}
		return errors.New("no node says that it leads")
	})
	return leader
}

// others returns all nodes but one.
func (d *deployment) others(one *node) []*node {
	var rest []*node
	for _, n := range d.nodes {
		if n != one {
			rest = append(rest, n)
		}
	}
	return rest
}

// url is the address of the balancer, for clients that speak HTTP themselves.
func (d *deployment) url() string { return "http://" + d.balancer }

// agree waits until all nodes have applied the same index and fails the test when their hashes then differ.
func (d *deployment) agree() {
	d.t.Helper()
	eventually(d.t, 30*time.Second, "all nodes to hold the same state", func() error {
		var first state
		for i, n := range d.nodes {
			s, err := n.state()
			if err != nil {
				return err
			}
			if i == 0 {
				first = s
			}
			if s.Applied != first.Applied {
				return fmt.Errorf("%s applied %d, %s %d", d.nodes[0].name, first.Applied, n.name, s.Applied)
			}
			if s.Hash != first.Hash {
				return fmt.Errorf("at index %d %s has hash %s, %s %s", s.Applied, d.nodes[0].name, first.Hash, n.name, s.Hash)
			}
		}
		return nil
	})
}
