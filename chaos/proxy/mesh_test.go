package proxy

import (
	"context"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

// threeNodes is a mesh of echo servers.
func threeNodes(t *testing.T) (*Mesh, map[string]string) {
	t.Helper()
	m, addrs := NewMesh(), map[string]string{}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, name := range []string{"a", "b", "c"} {
		addrs[name] = echo(t)
		if err := m.Join(name, addrs[name]); err != nil {
			t.Fatal(err)
		}
	}
	return m, addrs
}

// speaks says whether one node gets an answer of another, by the route that its dial table gives.
func speaks(t *testing.T, m *Mesh, from, to string, addrs map[string]string) bool {
	t.Helper()
	c, err := net.DialTimeout("tcp", m.Routes(from)[addrs[to]], patience)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	say(t, c, "x")
	if m.Line(from, to).Mode() == (Mode{}) {
		hear(t, c, "x")
		return true
	}
	nothing(t, c)
	return false
}

// TestPartitionsPartNobodyElse puts each partition on three nodes and tries every pair.
func TestPartitionsPartNobodyElse(t *testing.T) {
	m, addrs := threeNodes(t)
	for name, c := range map[string]struct {
		pairs []Pair
		want  string // the pairs that are parted
	}{
		"none":       {nil, ""},
		"symmetric":  {Apart([]string{"a"}, []string{"b", "c"}), "a→b a→c b→a c→a"},
		"asymmetric": {Between([]string{"b", "c"}, []string{"a"}), "b→a c→a"},
		"bridge":     {Apart([]string{"a"}, []string{"c"}), "a→c c→a"},
		"ring":       {Ring(m.Nodes()), "a→c b→a c→b"},
		"all":        {Apart([]string{"a"}, []string{"b"}, []string{"c"}), "a→b a→c b→a b→c c→a c→b"},
	} {
		heal, err := m.Set(c.pairs, Hole())
		if err != nil {
			t.Fatal(err)
		}
		var parted []string
		for _, pair := range m.Pairs() {
			if !speaks(t, m, pair.From, pair.To, addrs) {
				parted = append(parted, pair.String())
			}
		}
		if got := strings.Join(parted, " "); got != c.want {
			t.Errorf("%s: parted %s, want %s", name, got, c.want)
		}
		heal()
		if i := slices.IndexFunc(m.Pairs(), func(p Pair) bool { return m.Line(p.From, p.To).Mode() != (Mode{}) }); i >= 0 {
			t.Errorf("%s: %v has not healed", name, m.Pairs()[i])
		}
	}
}

func TestALineThatIsNotTherePartsNobody(t *testing.T) {
	m, _ := threeNodes(t)
	if _, err := m.Set([]Pair{{"a", "b"}, {"a", "z"}}, Hole()); err == nil || !strings.Contains(err.Error(), "a→z") {
		t.Errorf("a mode on a line that is not there: %v", err)
	}
	if m.Line("a", "b").Mode() != (Mode{}) {
		t.Error("the other pair was parted")
	}
}

func TestWhatHealsFirstLeavesTheRest(t *testing.T) {
	m, _ := threeNodes(t)
	set := func(mode Mode, pairs ...Pair) func() {
		heal, err := m.Set(pairs, mode)
		if err != nil {
			t.Fatal(err)
		}
		return heal
	}
	expect := func(what string, ab, ac Mode) {
		t.Helper()
		if m.Line("a", "b").Mode() != ab || m.Line("a", "c").Mode() != ac {
			t.Errorf("%s: a→b has %+v, a→c %+v", what, m.Line("a", "b").Mode(), m.Line("a", "c").Mode())
		}
	}
	first := set(Hole(), Pair{"a", "b"}, Pair{"a", "c"})
	second := set(Narrow(9), Pair{"a", "b"})
	expect("the later one counts", Narrow(9), Hole())
	first()
	expect("the later one stays", Narrow(9), Mode{})
	third := set(Hole(), Pair{"a", "b"})
	third()
	expect("the earlier one is back", Narrow(9), Mode{})
	second()
	second()
	expect("all have healed", Mode{}, Mode{})
}

func TestNodesMoveComeAndGo(t *testing.T) {
	m, addrs := threeNodes(t)
	store, err := m.Connect("a", "s3", echo(t))
	if err != nil {
		t.Fatal(err)
	}
	if routes := m.Routes("a"); len(routes) != 2 {
		t.Errorf("the dial table holds what is no node: %v", routes)
	}
	addrs["b"] = echo(t)
	if err := m.Move("b", addrs["b"]); err != nil {
		t.Fatal(err)
	}
	if !speaks(t, m, "a", "b", addrs) {
		t.Error("a does not reach b at its new address")
	}
	if err := m.Leave("a"); err != nil {
		t.Fatal(err)
	}
	if _, err := net.Dial("tcp", store.Addr()); err == nil {
		t.Error("a's line to the store is open after a left")
	}
	if err := m.Join("a", echo(t)); err != nil {
		t.Fatal(err)
	}
	if got := len(m.Pairs()); got != 6 {
		t.Errorf("%d lines between three nodes", got)
	}
	if err := m.Join("a", echo(t)); err == nil {
		t.Error("a joined twice")
	}
}

func TestAFlappingPartitionIsHealedAtItsEnd(t *testing.T) {
	m, _ := threeNodes(t)
	pairs := Apart([]string{"a"}, []string{"b", "c"})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Flap(ctx, pairs, Hole(), time.Millisecond, time.Millisecond) }()
	line := m.Line("a", "b")
	for range 3 {
		until(t, "a part", func() bool { return line.Mode().Up.Hole })
		until(t, "a heal", func() bool { return !line.Mode().Up.Hole })
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	for _, pair := range pairs {
		if m.Line(pair.From, pair.To).Mode() != (Mode{}) {
			t.Errorf("%v has not healed", pair)
		}
	}
}
