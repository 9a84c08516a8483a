package main

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// class says what becomes of a key.
type class int

const (
	honoured class = iota
	// needless: accepted with one notice that says why nothing needs it here.
	needless
	// refused: named with its line, and what to do instead.
	refused
)

// key is one line of the table.
type key struct {
	path  string
	class class
	// into receives the value; nil unless honoured.
	into value
	// def is the default as it would be written; empty is the field's zero.
	def    string
	secret bool
	// doc is what the key does, why it is needless, or what to do instead.
	doc string
}

// keyring reads values into a table of keys and notes where each came from.
type keyring struct {
	keys     []key
	byPath   map[string]*key
	sections map[string]bool
	// source of each key or section that was named.
	source   map[string]string
	problems []problem
	notices  []string
}

// newKeyring sets every default. A default that does not parse is a defect of the table and panics; a test reads it.
func newKeyring(keys []key) *keyring {
	k := &keyring{keys: keys, byPath: map[string]*key{}, sections: map[string]bool{}, source: map[string]string{}}
	for i := range keys {
		key := &keys[i]
		k.byPath[key.path] = key
		for s := parentOf(key.path); s != ""; s = parentOf(s) {
			k.sections[s] = true
		}
		if key.into == nil || key.def == "" {
			continue
		}
		if err := key.into.set(scalar(key.def)); err != nil {
			panic(fmt.Sprintf("default of %s: %s", key.path, err))
		}
	}
	return k
}

func parentOf(path string) string {
	i := strings.LastIndexByte(path, '.')
	return path[:max(i, 0)]
}

func join(section, name string) string {
	if section == "" {
		return name
	}
	return section + "." + name
}

func scalar(s string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Value: s} }

// problem notes what is wrong with the key, where its value came from.
func (k *keyring) problem(path, format string, args ...any) {
	k.problems = append(k.problems, problem{Where: k.source[path], Key: path, Text: fmt.Sprintf(format, args...)})
}

func (k *keyring) notice(where, path, format string, args ...any) {
	k.notices = append(k.notices, problem{Where: where, Key: path, Text: fmt.Sprintf(format, args...)}.String())
}

// named is true when the file or the environment speaks of the key or of anything in the section.
func (k *keyring) named(path string) bool { return k.source[path] != "" }

// put gives a node to whatever path is: a key, a section, or neither.
func (k *keyring) put(path string, n *yaml.Node, where string) {
	key := k.byPath[path]
	switch {
	case key != nil && key.class == needless:
		k.notice(where, path, "needless here: %s", key.doc)
	case key != nil && key.class == refused:
		k.source[path] = where
		k.problem(path, "not supported: %s", key.doc)
	case key == nil && !k.sections[path]:
		k.problems = append(k.problems, problem{Where: where, Key: path, Text: "unknown key" + k.nearest(path)})
	case n.Kind == yaml.ScalarNode && n.Tag == "!!null":
		k.mark(path, where) // "filesystem:" names a section and leaves it as it is
	case k.sections[path] && n.Kind == yaml.MappingNode:
		k.mark(path, where)
		k.walk(path, n, where)
	case key == nil:
		k.problems = append(k.problems, problem{Where: where, Key: path,
			Text: fmt.Sprintf("got %s, expected a section with keys such as %s", kindOf(n), k.example(path))})
	default:
		k.mark(path, where)
		if err := key.into.set(n); err != nil {
			k.problem(path, "%s", redact(key, n, err))
		}
	}
}

// mark notes the source of a path, and of the sections above it that had none.
func (k *keyring) mark(path, where string) {
	k.source[path] = where
	for s := parentOf(path); s != ""; s = parentOf(s) {
		if k.source[s] == "" {
			k.source[s] = where
		}
	}
}

// redact keeps a secret's text out of messages.
func redact(key *key, n *yaml.Node, err error) string {
	if key.secret && n.Value != "" {
		return strings.ReplaceAll(err.Error(), n.Value, "(redacted)")
	}
	return err.Error()
}

// nearest answers " (did you mean ...?)" for a key that is not there.
func (k *keyring) nearest(path string) string {
	best, bestDistance := "", 4
	for _, key := range k.keys {
		for p := key.path; p != ""; p = parentOf(p) {
			d := distance(path, p)
			if parentOf(p) != parentOf(path) && lastOf(p) == lastOf(path) && key.class == honoured {
				d = min(d, 3) // the right name in the wrong section
			}
			if d < bestDistance {
				best, bestDistance = p, d
			}
		}
	}
	if best == "" {
		return ""
	}
	return " (did you mean " + best + "?)"
}

func lastOf(path string) string { return path[strings.LastIndexByte(path, '.')+1:] }

// example names up to three keys of a section.
func (k *keyring) example(section string) string {
	var names []string
	for _, key := range k.keys {
		if rest, ok := strings.CutPrefix(key.path, section+"."); ok && key.class == honoured && len(names) < 3 {
			name, _, _ := strings.Cut(rest, ".")
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return strings.Join(names, ", ")
}

// distance is Levenshtein's, of bytes, cut short for long texts.
func distance(a, b string) int {
	const bound = 64
	if len(a) > bound || len(b) > bound {
		return bound
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
