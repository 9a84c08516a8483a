package proxy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

// Mesh is the lines of a cluster: one for every directed pair of nodes, and one from a node to whatever else it dials.
// A mode reaches a pair by the names of its ends.
type Mesh struct {
	mu    sync.Mutex // guards what follows
	nodes map[string]string
	lines map[Pair]*Line
	// settings are the modes in force, in the order in which they were set.
	settings []*setting
}

// setting is a mode on some pairs.
type setting struct {
	pairs []Pair
	mode  Mode
}

// Pair is one direction between two ends: From dials To.
type Pair struct{ From, To string }

func (p Pair) String() string { return p.From + "→" + p.To }

// NewMesh is a mesh without nodes.
func NewMesh() *Mesh { return &Mesh{nodes: map[string]string{}, lines: map[Pair]*Line{}} }

// Join opens the lines between a node, at the address where others reach it, and all nodes that have joined before.
func (m *Mesh) Join(name, addr string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.nodes[name]; ok {
		return fmt.Errorf("join %s: a node of that name is in the mesh", name)
	}
	for other, at := range m.nodes {
		for pair, target := range map[Pair]string{{name, other}: at, {other, name}: addr} {
			if err := m.open(pair, target); err != nil {
				return fmt.Errorf("join %s: %w", name, err)
			}
		}
	}
	m.nodes[name] = addr
	return nil
}

// Connect opens one more line, to what is no node, such as the store.
func (m *Mesh) Connect(from, to, target string) (*Line, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	pair := Pair{from, to}
	if err := m.open(pair, target); err != nil {
		return nil, err
	}
	return m.lines[pair], nil
}

func (m *Mesh) open(pair Pair, target string) error {
	if m.lines[pair] != nil {
		return fmt.Errorf("open line %v: there is one", pair)
	}
	l, err := OpenLine("127.0.0.1:0", target)
	if err != nil {
		return fmt.Errorf("open line %v: %w", pair, err)
	}
	m.lines[pair] = l
	return nil
}

// Move leads all lines to a node to its new address. Routes are others then.
func (m *Mesh) Move(name, addr string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.nodes[name]; !ok {
		return fmt.Errorf("move %s: no node of that name is in the mesh", name)
	}
	m.nodes[name] = addr
	for pair, l := range m.lines {
		if pair.To == name {
			l.Aim(addr)
		}
	}
	return nil
}

// Leave closes all lines of a node, those to what is no node too.
func (m *Mesh) Leave(name string) error {
	m.mu.Lock()
	var lines []*Line
	for pair, l := range m.lines {
		if pair.From == name || pair.To == name {
			lines = append(lines, l)
			delete(m.lines, pair)
		}
	}
	delete(m.nodes, name)
	m.mu.Unlock()
	return closeAll(lines)
}

// Nodes are the names of all that have joined, sorted.
func (m *Mesh) Nodes() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Sorted(maps.Keys(m.nodes))
}

// Routes is the dial table of a node: address of another → address of the line to it.
func (m *Mesh) Routes(from string) map[string]string {
	m.mu.Lock()
	defer m.mu.Unlock()
	routes := map[string]string{}
	for pair, l := range m.lines {
		if at, node := m.nodes[pair.To]; node && pair.From == from {
			routes[at] = l.Addr()
		}
	}
	return routes
}

// Line is the one of a pair, nil when there is none.
func (m *Mesh) Line(from, to string) *Line {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.lines[Pair{from, to}]
}

// Set puts a mode in force on some pairs, or on none when one of them has no line. What is returned takes it back: a pair
// then has the mode that was set on it last and not taken back, or passes.
func (m *Mesh) Set(pairs []Pair, mode Mode) (heal func(), err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, pair := range pairs {
		if m.lines[pair] == nil {
			return nil, fmt.Errorf("set a mode: there is no line %v", pair)
		}
	}
	set := &setting{pairs: slices.Clone(pairs), mode: mode}
	m.settings = append(m.settings, set)
	m.apply(pairs)
	return sync.OnceFunc(func() { m.heal(set) }), nil
}

func (m *Mesh) heal(set *setting) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.settings = slices.DeleteFunc(m.settings, func(s *setting) bool { return s == set })
	m.apply(set.pairs)
}

// apply gives pairs the mode that is theirs now. Those whose line was closed need none.
func (m *Mesh) apply(pairs []Pair) {
	for _, pair := range pairs {
		l := m.lines[pair]
		if l == nil {
			continue
		}
		mode := Mode{}
		for _, s := range m.settings {
			if slices.Contains(s.pairs, pair) {
				mode = s.mode
			}
		}
		if mode != l.Mode() { // setting it again would forget how many connections it has cut
			l.Set(mode)
		}
	}
}

// Pairs are all lines that there are, sorted.
func (m *Mesh) Pairs() []Pair {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.SortedFunc(maps.Keys(m.lines), func(a, b Pair) int {
		return slices.Compare([]string{a.From, a.To}, []string{b.From, b.To})
	})
}

// Flap puts a mode in force and takes it back, by turns, until the context ends; then it is taken back.
func (m *Mesh) Flap(ctx context.Context, pairs []Pair, mode Mode, bad, good time.Duration) error {
	for ctx.Err() == nil {
		heal, err := m.Set(pairs, mode)
		if err != nil {
			return fmt.Errorf("flap: %w", err)
		}
		wait(ctx, bad)
		heal()
		wait(ctx, good)
	}
	return nil
}

// Close closes every line.
func (m *Mesh) Close() error {
	m.mu.Lock()
	lines := slices.Collect(maps.Values(m.lines))
	m.lines, m.nodes = map[Pair]*Line{}, map[string]string{}
	m.mu.Unlock()
	return closeAll(lines)
}

func closeAll(lines []*Line) error {
	var errs []error
	for _, l := range lines {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}
