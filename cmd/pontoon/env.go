package main

import (
	"bytes"
	"cmp"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

const envPrefix = "REGISTRY_"

// kubernetes is what a Service called "registry" puts into the environment of every pod beside it
// (kubernetes.io, "Accessing the Service": environment variables).
var kubernetes = regexp.MustCompile(`^REGISTRY_(SERVICE_HOST|SERVICE_PORT(_.+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$`)

// variable is one override.
type variable struct {
	name, value string
	path        []string
}

// readEnv puts REGISTRY_... over what the file said, as distribution spells it:
// REGISTRY_HTTP_ADDR is http.addr, a list's index is a path element, a section takes
// YAML; and NAME_FILE names a file that holds the value.
func (k *keyring) readEnv(env []string) {
	var variables []variable
	for _, kv := range env {
		name, v, _ := strings.Cut(kv, "=")
		rest, ok := strings.CutPrefix(name, envPrefix)
		if !ok || name == pathVariable || kubernetes.MatchString(name) ||
			(name == "REGISTRY_PORT" && strings.Contains(v, "://")) {
			continue
		}
		variables = append(variables, variable{name, v, strings.Split(rest, "_")})
	}
	// Sections come before what is in them, and entry 2 of a list before entry 10.
	slices.SortStableFunc(variables, func(a, b variable) int {
		return slices.CompareFunc(a.path, b.path, comparePart)
	})
	set := map[string]bool{}
	for _, v := range variables {
		set[v.name] = true
	}
	for _, v := range variables {
		k.override(v, set)
	}
}

func comparePart(a, b string) int {
	i, aerr := strconv.Atoi(a)
	j, berr := strconv.Atoi(b)
	if aerr == nil && berr == nil {
		return cmp.Compare(i, j)
	}
	return cmp.Compare(a, b)
}

// override applies one variable.
func (k *keyring) override(v variable, set map[string]bool) {
	where := "$" + v.name
	if k.putPath(v.path, v.value, where) {
		return
	}
	last := len(v.path) - 1
	base := strings.TrimSuffix(v.name, "_FILE")
	if v.path[last] != "FILE" || last == 0 || !k.knows(v.path[:last]) {
		k.notice(where, "", "is no setting of Pontoon and was ignored%s", k.nearest(dotted(v.path)))
		return
	}
	if set[base] {
		k.problems = append(k.problems, problem{Where: where, Text: "both it and $" + base + " are set, expected one"})
		return
	}
	body, err := readBounded(v.value)
	if err != nil {
		k.problems = append(k.problems, problem{Where: where, Key: dotted(v.path[:last]), Text: err.Error()})
		return
	}
	k.putPath(v.path[:last], strings.TrimRight(string(body), "\r\n"), where)
}

func dotted(path []string) string { return strings.ToLower(strings.Join(path, ".")) }

// knows answers whether putPath would take the path.
func (k *keyring) knows(path []string) bool {
	key, rest := k.find(path)
	if key == nil {
		return k.sections[dotted(path)]
	}
	return takes(key, rest)
}

// find answers the key whose path begins the given one, and what is left of it.
func (k *keyring) find(path []string) (*key, []string) {
	for n := len(path); n > 0; n-- {
		if key := k.byPath[dotted(path[:n])]; key != nil {
			return key, path[n:]
		}
	}
	return nil, path
}

// takes says whether a key has room for further path elements: an index, a name, or, if it is not honoured, anything.
func takes(key *key, rest []string) bool {
	if len(rest) == 0 || key.class != honoured {
		return true
	}
	switch key.into.(type) {
	case list:
		_, err := strconv.ParseUint(rest[0], 10, 8)
		return err == nil && len(rest) == 1
	case table:
		return true
	}
	return false
}

// putPath applies a value at a path; false when there is no such path.
func (k *keyring) putPath(path []string, s, where string) bool {
	if !k.knows(path) {
		return false
	}
	key, rest := k.find(path)
	if key == nil || key.class != honoured || len(rest) == 0 {
		name := dotted(path)
		if key != nil {
			name = key.path
		}
		k.put(name, k.nodeFor(name, key, s), where)
		return true
	}
	k.mark(key.path, where)
	if err := putInto(key, rest, s); err != nil {
		k.problem(key.path, "%s", err)
	}
	return true
}

// nodeFor reads a variable as YAML where structure is possible, and as it stands elsewhere: a password may look like YAML.
func (k *keyring) nodeFor(name string, key *key, s string) *yaml.Node {
	structured := k.sections[name]
	if key != nil && key.into != nil {
		switch key.into.(type) {
		case list, table:
			structured = true
		}
	}
	var doc yaml.Node
	if !structured || yaml.NewDecoder(bytes.NewReader([]byte(s))).Decode(&doc) != nil {
		return scalar(s)
	}
	if n := resolve(doc.Content[0]); n.Kind != yaml.ScalarNode {
		return n
	}
	return scalar(s)
}

func putInto(key *key, rest []string, s string) error {
	switch into := key.into.(type) {
	case list:
		i, err := strconv.Atoi(rest[0])
		if err != nil {
			return err
		}
		return into.setAt(i, s)
	case table:
		var doc yaml.Node
		n := scalar(s)
		if yaml.Unmarshal([]byte(s), &doc) == nil && len(doc.Content) == 1 && doc.Content[0].Kind == yaml.SequenceNode {
			n = doc.Content[0]
		}
		return into.setAt(strings.Join(rest, "_"), n)
	}
	return os.ErrInvalid
}
