package main

import (
	"bytes"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
)

// setting is a value in effect.
type setting struct {
	Key    string `json:"key"`
	Value  any    `json:"value"`
	Source string `json:"source"`
}

const redacted = "(redacted)"

// settings lists what is in effect, in the table's order: what was named and what has a value.
func (l *loaded) settings() []setting {
	var out []setting
	for _, k := range l.keys.keys {
		if k.class != honoured || !l.relevant(k.path) {
			continue
		}
		s := setting{Key: k.path, Value: k.into.plain(), Source: orText(strings.TrimPrefix(l.keys.source[k.path], "$"), "default")}
		if !l.keys.named(k.path) && isZero(s.Value) {
			continue
		}
		if k.secret && !isZero(s.Value) {
			s.Value = redacted
		}
		out = append(out, s)
	}
	return out
}

func isZero(v any) bool {
	switch v := v.(type) {
	case string:
		return v == ""
	case []string:
		return len(v) == 0
	case map[string][]string:
		return len(v) == 0
	}
	return false
}

// relevant leaves out the alternatives that were not chosen, and the choice itself where its section shows it.
func (l *loaded) relevant(path string) bool {
	switch section, rest, _ := strings.Cut(path, "."); {
	case path == "storage", path == "auth.none":
		return false
	case section == "storage" && (strings.HasPrefix(rest, "s3.") || strings.HasPrefix(rest, "filesystem.")):
		return strings.HasPrefix(rest, l.Storage.Driver+".")
	case strings.HasPrefix(path, "backup.s3."):
		return l.keys.named("backup.s3")
	case path == "auth":
		return l.Auth.Kind == "none"
	case section == "auth":
		return l.Auth.Kind == "htpasswd"
	case path == "http.tls":
		return l.HTTP.TLS.Mode == "none"
	case strings.HasPrefix(path, "http.tls."):
		return l.HTTP.TLS.Mode != "none"
	}
	return true
}

// yaml writes the settings as a file, each with its source behind it.
func (l *loaded) yaml() ([]byte, error) {
	root := &yaml.Node{Kind: yaml.MappingNode}
	for _, s := range l.settings() {
		var n yaml.Node
		if err := n.Encode(s.Value); err != nil {
			return nil, fmt.Errorf("print %s: %w", s.Key, err)
		}
		n.LineComment = "# " + s.Source
		if n.Kind != yaml.ScalarNode {
			n.HeadComment, n.LineComment = n.LineComment, ""
			n.Style = yaml.FlowStyle
		}
		plant(root, strings.Split(s.Key, "."), &n)
	}
	var buf bytes.Buffer
	enc := yaml.NewEncoder(&buf)
	enc.SetIndent(2)
	if err := enc.Encode(root); err != nil {
		return nil, fmt.Errorf("print configuration: %w", err)
	}
	return buf.Bytes(), enc.Close()
}

// plant puts a value where its path says, making the sections on the way.
func plant(n *yaml.Node, path []string, leaf *yaml.Node) {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == path[0] {
			plant(n.Content[i+1], path[1:], leaf)
			return
		}
	}
	name := scalar(path[0])
	if len(path) == 1 {
		name.HeadComment, leaf.HeadComment = leaf.HeadComment, ""
		n.Content = append(n.Content, name, leaf)
		return
	}
	section := &yaml.Node{Kind: yaml.MappingNode}
	n.Content = append(n.Content, name, section)
	plant(section, path[1:], leaf)
}
