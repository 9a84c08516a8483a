package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// cli runs the node's own binary against it, as an operator on its machine does.
func (n *node) cli(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, pontoon(n.t), append(args, "--config", n.config)...)
	var complaints strings.Builder
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("pontoon %s on %s: %w: %s", strings.Join(args, " "), n.name, err, strings.TrimSpace(complaints.String()))
	}
	return string(out), nil
}

// membership is what `pontoon cluster members -o json` says.
type membership struct {
	Cluster struct {
		Leader           string `json:"leader"`
		Voters           int    `json:"voters"`
		FailureTolerance int    `json:"failureTolerance"`
	} `json:"cluster"`
	Members []member `json:"members"`
}

type member struct {
	ID        string `json:"id"`
	Name      string `json:"name"`
	Voter     bool   `json:"voter"`
	Reachable bool   `json:"reachable"`
}

func (n *node) members() (membership, error) {
	var m membership
	out, err := n.cli("cluster", "members", "--output", "json")
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal([]byte(out), &m); err != nil {
		return m, fmt.Errorf("decode members of %s: %w: %s", n.name, err, out)
	}
	return m, nil
}

// ids are the running nodes: id → name.
func (d *deployment) ids() (map[string]string, error) {
	ids := map[string]string{}
	for _, n := range d.nodes {
		s, err := n.state()
		if err != nil {
			return nil, err
		}
		ids[s.Node] = n.name
	}
	return ids, nil
}

// votersOf is how many of so many nodes vote: an odd number, at most as many as the config allows.
func (d *deployment) votersOf(nodes int) int {
	most := 5
	for _, line := range d.options.cluster {
		if _, err := fmt.Sscanf(line, "voters: %d", &most); err == nil {
			break
		}
	}
	voters := min(nodes, most)
	if voters > 2 && voters%2 == 0 {
		voters--
	}
	return voters
}

// whole says what is missing until the members are the running nodes on every node's word, all answer, as many vote as
// should, and as many may fail as that allows.
func (d *deployment) whole() error {
	running, err := d.ids()
	if err != nil {
		return err
	}
	voters := d.votersOf(len(d.nodes))
	for _, n := range d.nodes {
		m, err := n.members()
		if err != nil {
			return err
		}
		listed := map[string]string{}
		for _, who := range m.Members {
			listed[who.ID] = who.Name
			if !who.Reachable {
				return fmt.Errorf("%s says that %s (%s) does not answer", n.name, who.Name, who.ID)
			}
		}
		if !maps.Equal(listed, running) {
			return fmt.Errorf("%s lists the members %v, running are %v", n.name, listed, running)
		}
		if m.Cluster.Voters != voters || m.Cluster.FailureTolerance != (voters-1)/2 {
			return fmt.Errorf("%s says that %d vote and %d more may fail; with %d nodes it should be %d and %d", n.name,
				m.Cluster.Voters, m.Cluster.FailureTolerance, len(d.nodes), voters, (voters-1)/2)
		}
	}
	return nil
}

// settle waits until the cluster is whole.
func (d *deployment) settle(within time.Duration) {
	d.t.Helper()
	eventually(d.t, within, "the cluster to be whole", func() error {
		err := d.whole()
		if err != nil {
			time.Sleep(100 * time.Millisecond) // each look starts a program per node
		}
		return err
	})
}

// noGhosts fails the test when a node remembers, on its disk, any node that does not run.
func (d *deployment) noGhosts() {
	d.t.Helper()
	eventually(d.t, 30*time.Second, "every node to have forgotten those that are gone", func() error {
		running, err := d.ids()
		if err != nil {
			return err
		}
		for _, n := range d.nodes {
			content, err := os.ReadFile(filepath.Join(d.data, n.name, "peers.json"))
			if err != nil {
				return err
			}
			var peers map[string]any
			if err := json.Unmarshal(content, &peers); err != nil {
				return err
			}
			if len(peers) < len(d.nodes)-1 {
				return fmt.Errorf("%s remembers only %d peers: %s", n.name, len(peers), content)
			}
			for id := range peers {
				if running[id] == "" {
					return fmt.Errorf("%s remembers the address of %s, which does not run", n.name, id)
				}
			}
		}
		return nil
	})
}

// join starts a node with an empty disk in a free slot and waits until it serves.
func (d *deployment) join() *node {
	d.t.Helper()
	slot := 0
	for slices.ContainsFunc(d.nodes, func(n *node) bool { return n.slot == slot }) {
		slot++
	}
	n := d.node(slot)
	n.place()
	d.nodes = append(d.nodes, n)
	d.comeBack(n)
	return n
}

// leave lets a node leave for good, and forgets it and its disk.
func (d *deployment) leave(n *node) {
	d.t.Helper()
	n.proc.mayEnd()
	if _, err := n.cli("cluster", "leave", "--yes"); err != nil {
		d.t.Error(err)
	}
	if err := n.proc.ended(time.Minute); err != nil {
		d.t.Errorf("%v; the end of its log:\n%s", n.proc.accuse("left and ended with %v", err), tail(filepath.Join(n.logs, n.name+".log"), 10))
	}
	d.forget(n)
	d.nodes = d.others(n)
	if d.slots != nil {
		d.slots.empty(n.slot)
	}
}

// forget wipes a node's disk.
func (d *deployment) forget(n *node) {
	d.t.Helper()
	wipe := func() error { return os.RemoveAll(filepath.Join(d.data, n.name)) }
	if n.volume != nil {
		wipe = n.volume.format
	}
	if err := wipe(); err != nil {
		d.t.Error(err)
	}
}

// stop ends a node as an operator does.
func (d *deployment) stop(n *node) {
	d.t.Helper()
	if err := n.proc.terminate(90 * time.Second); err != nil {
		d.t.Error(n.proc.accuse("was asked to stop and ended with %v", err))
	}
}

// comeBack starts a node that has ended, with a config that knows where the others are now, and waits until it serves.
func (d *deployment) comeBack(n *node) {
	d.t.Helper()
	d.configure(n)
	n.start()
	n.waitReady()
	if d.slots != nil {
		d.slots.point(n.slot, n.addr)
	}
}

// transfer hands leadership to a node, or, if that leads or has no vote, to whom the leader chooses. The call is made on any.
func (d *deployment) transfer(by, to *node) {
	d.t.Helper()
	if err := d.handOver(by, to); err != nil {
		d.t.Error(err)
	}
}

// errAstray is a transfer that was answered as done, and nobody leads who should.
var errAstray = errors.New("leadership went astray")

// handOver is transfer, where it may fail.
func (d *deployment) handOver(by, to *node) (err error) {
	d.t.Helper()
	for tries := 1; tries <= transferTries; tries++ {
		if err = d.handOverOnce(by, to); err == nil || errors.Is(err, errAstray) {
			return err
		}
	}
	return err
}

// transferTries is how often it is tried: a follower that lags for a moment may not take it in time, and the leader leads on.
const transferTries = 3

func (d *deployment) handOverOnce(by, to *node) error {
	d.t.Helper()
	leader := d.leader(30 * time.Second)
	args := []string{"cluster", "transfer"}
	m, err := leader.members()
	if err != nil {
		return err
	}
	if to != leader && slices.ContainsFunc(m.Members, func(who member) bool { return who.Name == to.name && who.Voter }) {
		args = append(args, to.name)
	}
	began := time.Now()
	_, err = by.cli(args...)
	if now := d.leader(30 * time.Second); err == nil && (now == leader || len(args) == 3 && now != to) {
		err = fmt.Errorf("%v: %s led, then %s", args, leader.name, now.name)
		if !machine.costALeader(d.t, began, err) {
			err = fmt.Errorf("%w: %w", errAstray, err)
		}
	}
	return err
}

// mayEnd says that the process will end by itself.
func (p *process) mayEnd() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.expected = true
}

// ended waits for the end of a process that ends by itself, and reports how it did.
func (p *process) ended(within time.Duration) error {
	select {
	case <-p.done:
		return p.err
	case <-time.After(within):
		return p.accuse("is still running after %v", within)
	}
}

// TestMembersBeyondTheVotersServe joins a fourth and a fifth node to a cluster in which three may vote. Both stay without a
// vote, take pushes and answer pulls, and one of them takes over when a voter leaves for good.
func TestMembersBeyondTheVotersServe(t *testing.T) {
	d := newDeployment(t, newDirectory(t), options{cluster: []string{"voters: 3"}, drain: "0s"})
	joined := []*node{d.join(), d.join()}
	d.settle(time.Minute)
	for _, n := range joined {
		m, err := n.members()
		if err != nil {
			t.Fatal(err)
		}
		for _, who := range m.Members {
			if who.Name == n.name && who.Voter {
				t.Errorf("%s votes beside three others", n.name)
			}
		}
		if err := pushSmall(t.Context(), at(n.url()), "chaos/beyond", n.name); err != nil {
			t.Errorf("push to %s: %v", n.name, err)
		}
	}
	for _, n := range d.nodes {
		for _, tag := range joined {
			if _, err := at(n.url()).image(t.Context(), "chaos/beyond", tag.name); err != nil {
				t.Errorf("pull from %s: %v", n.name, err)
			}
		}
	}
	d.leave(d.leader(20 * time.Second))
	d.settle(time.Minute)
	d.noGhosts()
	d.agree()
}
