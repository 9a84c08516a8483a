package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"go.yaml.in/yaml/v3"
)

// depthBound is how deep a file may nest; the table is five deep.
const depthBound = 16

// readFile reads a YAML file in distribution's shape.
func (k *keyring) readFile(path string, body []byte) {
	fail := func(line int, key, format string, args ...any) {
		k.problems = append(k.problems, problem{Where: at(path, line), Key: key, Text: fmt.Sprintf(format, args...)})
	}
	dec := yaml.NewDecoder(bytes.NewReader(body))
	var doc yaml.Node
	if err := dec.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			fail(0, "", "is empty, expected at least \"version: 0.1\"")
			return
		}
		fail(0, "", "%s", err)
		return
	}
	if err := dec.Decode(&yaml.Node{}); !errors.Is(err, io.EOF) {
		fail(0, "", "holds more than one YAML document, expected one")
		return
	}
	root := resolve(doc.Content[0])
	if root.Kind != yaml.MappingNode {
		fail(root.Line, "", "got %s, expected sections such as http and storage", kindOf(root))
		return
	}
	k.walk("", root, at(path, root.Line))
	if !k.named("version") {
		fail(0, "version", "is missing, expected \"version: 0.1\" as the first line")
	}
}

// at is a place in a file; "$NAME" has no lines.
func at(path string, line int) string {
	if line == 0 {
		return path
	}
	return fmt.Sprintf("%s:%d", path, line)
}

// walk puts each entry of a mapping. The places of entries derive from where, unless it is a variable.
func (k *keyring) walk(section string, n *yaml.Node, where string) {
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, child := n.Content[i], resolve(n.Content[i+1])
		path, place := join(section, name.Value), relocate(where, name.Line)
		switch {
		case name.Kind != yaml.ScalarNode || name.Value == "":
			k.problems = append(k.problems, problem{Where: place, Key: section, Text: "got a key that is no name"})
		case seen[name.Value]:
			k.problems = append(k.problems, problem{Where: place, Key: path, Text: "is there twice"})
		default:
			seen[name.Value] = true
			k.put(path, child, place)
		}
	}
}

// resolve follows an alias to what it stands for, a few steps far.
func resolve(n *yaml.Node) *yaml.Node {
	for range depthBound {
		if n.Kind != yaml.AliasNode {
			break
		}
		n = n.Alias
	}
	return n
}

// relocate moves a place to another line of the same file.
func relocate(where string, line int) string {
	if where == "" || where[0] == '$' {
		return where
	}
	for i := len(where) - 1; i >= 0; i-- {
		if where[i] == ':' {
			return at(where[:i], line)
		}
	}
	return at(where, line)
}

// kindOf names what a node is, for messages.
func kindOf(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a section"
	case yaml.SequenceNode:
		return "a list"
	case yaml.ScalarNode:
		return fmt.Sprintf("%q", clip(n.Value))
	}
	return "nothing"
}

// clip keeps what was written short enough for a message.
func clip(s string) string {
	const bound = 80
	if len(s) > bound {
		return s[:bound] + "..."
	}
	return s
}
