package check

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/anishathalye/porcupine"
)

// This file is the model of tags (M6). Tags that one request wrote together are one partition, since the registry
// promises that all are written or none; any other tag is a partition of its own.

// between keeps the digests of a state apart; no digest has it.
const between = "\x00"

// tagModel is a model of the tags in keys, which begin with the digests of initial.
func tagModel(keys []string, initial []string) porcupine.Model {
	m := &tagStates{keys: keys}
	return porcupine.Model{
		Init:              func() any { return strings.Join(initial, between) },
		Step:              func(state, input, _ any) (bool, any) { return m.step(state.(string), input.(*Operation)) },
		DescribeOperation: func(input, _ any) string { return input.(*Operation).brief() },
		DescribeState:     m.describe,
	}
}

type tagStates struct{ keys []string }

func (m *tagStates) describe(state any) string {
	var b strings.Builder
	for i, digest := range strings.Split(state.(string), between) {
		fmt.Fprintf(&b, "%s=%s ", m.keys[i], short(digest))
	}
	return b.String()
}

func (m *tagStates) step(state string, o *Operation) (bool, string) {
	tags := strings.Split(state, between)
	switch o.Kind {
	case TagGet:
		return m.all(tags, o, func(now string) bool { return now == o.Output }), state
	case TagPut:
		holds := m.all(tags, o, func(now string) bool { return meets(now, o.Expect) })
		if o.Outcome == Refused {
			return m.refusedPut(tags, o), state
		}
		if !holds {
			return o.Outcome == Unknown, state
		}
		return true, m.set(tags, o, o.Input)
	case TagDelete:
		there := m.all(tags, o, func(now string) bool { return now != "" })
		holds := there && m.all(tags, o, func(now string) bool { return meets(now, o.Expect) })
		switch {
		case o.Outcome == Refused && o.Status == http.StatusNotFound:
			return !there, state
		case o.Outcome == Refused:
			return there && m.refusedPut(tags, o), state
		case !holds:
			return o.Outcome == Unknown, state
		}
		return true, m.set(tags, o, "")
	case ManifestDelete:
		named := slices.Contains(tags, o.Input)
		if o.Outcome == Refused {
			return !named, state // a manifest that a tag names is there
		}
		for i := range tags {
			if tags[i] == o.Input {
				tags[i] = ""
			}
		}
		return true, strings.Join(tags, between)
	}
	return false, state
}

// refusedPut: one of the tags was what the answer says, and that was not what was expected.
func (m *tagStates) refusedPut(tags []string, o *Operation) bool {
	return !m.all(tags, o, func(now string) bool { return now != o.Output || meets(now, o.Expect) })
}

// all tells whether every tag of the operation is as wanted.
func (m *tagStates) all(tags []string, o *Operation, want func(now string) bool) bool {
	for key := range strings.SplitSeq(o.Key, ",") {
		if !want(tags[slices.Index(m.keys, key)]) {
			return false
		}
	}
	return true
}

func (m *tagStates) set(tags []string, o *Operation, digest string) string {
	for key := range strings.SplitSeq(o.Key, ",") {
		tags[slices.Index(m.keys, key)] = digest
	}
	return strings.Join(tags, between)
}

// meets judges a precondition.
func meets(now, expect string) bool {
	switch expect {
	case "":
		return true
	case Absent:
		return now == ""
	}
	return now == expect
}

// judgesTags tells whether the operation says something about tags: refusals do only when a condition or an absence
// was their reason, reads only when they were answered from the latest state.
func judgesTags(o *Operation) bool {
	switch o.Kind {
	case TagGet:
		return o.Outcome == Done && !o.Stale
	case TagPut:
		return o.Outcome != Refused || o.Status == http.StatusPreconditionFailed
	case TagDelete:
		return o.Outcome != Refused || o.Status == http.StatusPreconditionFailed || o.Status == http.StatusNotFound
	case ManifestDelete:
		return o.Outcome != Refused || o.Status == http.StatusNotFound
	}
	return false
}

// tagPartitions splits the operations of one repository.
func tagPartitions(repo string, ops []*Operation) []*partition {
	groups := newGroups()
	for _, o := range ops {
		if o.Kind != ManifestDelete {
			groups.join(strings.Split(o.Key, ","))
		}
	}
	parts, writes := map[string]*partition{}, map[string][]*partition{}
	for _, keys := range groups.all() {
		p := &partition{model: "tags", name: repo + ":" + strings.Join(keys, ","), keys: keys}
		for _, key := range keys {
			parts[key] = p
		}
	}
	for _, o := range ops {
		if o.Kind == ManifestDelete {
			continue
		}
		key, _, _ := strings.Cut(o.Key, ",")
		p := parts[key]
		p.ops = append(p.ops, o)
		if o.Kind == TagPut && !slices.Contains(writes[o.Input], p) {
			writes[o.Input] = append(writes[o.Input], p)
		}
	}
	for _, o := range ops {
		if o.Kind == ManifestDelete {
			for _, p := range writes[o.Input] {
				p.ops = append(p.ops, o)
			}
		}
	}
	var out []*partition
	for _, keys := range groups.all() {
		p := parts[keys[0]]
		p.build = func(initial []string) porcupine.Model { return tagModel(p.keys, initial) }
		p.settle = settleTags
		if len(keys) == 1 {
			p.pin = pinsTag
		}
		out = append(out, p)
	}
	return out
}

// pinsTag answers the state after an operation that leaves no doubt about it.
func pinsTag(o *Operation) (string, bool) {
	switch {
	case o.Kind == TagGet:
		return o.Output, true
	case o.Kind == TagPut && o.Outcome == Done:
		return o.Input, true
	case o.Kind == TagDelete && o.Outcome == Done:
		return "", true
	}
	return "", false
}

// groups are keys that belong together.
type groups struct{ parent map[string]string }

func newGroups() *groups { return &groups{parent: map[string]string{}} }

func (g *groups) root(key string) string {
	if _, known := g.parent[key]; !known {
		g.parent[key] = key
	}
	for g.parent[key] != key {
		g.parent[key] = g.parent[g.parent[key]]
		key = g.parent[key]
	}
	return key
}

func (g *groups) join(keys []string) {
	for _, key := range keys {
		g.parent[g.root(key)] = g.root(keys[0])
	}
}

// all answers the groups with their keys in order, ordered by their first.
func (g *groups) all() [][]string {
	members := map[string][]string{}
	for key := range g.parent {
		members[g.root(key)] = append(members[g.root(key)], key)
	}
	var out [][]string
	for _, keys := range members {
		slices.Sort(keys)
		out = append(out, keys)
	}
	slices.SortFunc(out, func(a, b []string) int { return strings.Compare(a[0], b[0]) })
	return out
}
