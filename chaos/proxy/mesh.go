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

// Set puts a mode in force on some pairs, or on none when one of them has no line.
func (m *Mesh) Set(pairs []Pair, mode Mode) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, pair := range pairs {
		if m.lines[pair] == nil {
			return fmt.Errorf("set a mode: there is no line %v", pair)
		}
	}
	for _, pair := range pairs {
		m.lines[pair].Set(mode)
	}
	return nil
}

// Heal lets some pairs pass again. Lines that have been closed meanwhile need no healing.
func (m *Mesh) Heal(pairs []Pair) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, pair := range pairs {
		if l := m.lines[pair]; l != nil {
			l.Set(Mode{})
		}
	}
}

// HealAll lets everything pass again.
func (m *Mesh) HealAll() { m.Heal(m.Pairs()) }

// Pairs are all lines that there are, sorted.
func (m *Mesh) Pairs() []Pair {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.SortedFunc(maps.Keys(m.lines), func(a, b Pair) int {
		return slices.Compare([]string{a.From, a.To}, []string{b.From, b.To})
	})
}

// Flap puts a mode in force and takes it back, by turns, until the context ends; then all passes.
func (m *Mesh) Flap(ctx context.Context, pairs []Pair, mode Mode, bad, good time.Duration) error {
	defer m.Heal(pairs)
	for ctx.Err() == nil {
		if err := m.Set(pairs, mode); err != nil {
			return fmt.Errorf("flap: %w", err)
		}
		wait(ctx, bad)
		m.Heal(pairs)
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
