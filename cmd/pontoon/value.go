package main

import (
	"fmt"
	"maps"
	"math"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// value is a field of Config that reads itself from YAML. The error says what
// came and what was expected.
type value interface {
	set(n *yaml.Node) error
	// plain is the value as YAML and JSON show it.
	plain() any
}

// expected is the one form of such errors.
func expected(n *yaml.Node, want string, args ...any) error {
	return fmt.Errorf("got %s, expected %s", kindOf(n), fmt.Sprintf(want, args...))
}

// text is a string; check, if any, answers what was expected instead.
type text struct {
	at    *string
	check func(string) string
}

func (t text) set(n *yaml.Node) error {
	if n.Kind != yaml.ScalarNode {
		return expected(n, "text")
	}
	if t.check != nil {
		if want := t.check(n.Value); want != "" {
			return expected(n, "%s", want)
		}
	}
	*t.at = n.Value
	return nil
}

func (t text) plain() any { return *t.at }

// oneOf checks for one of a few words; notes say more of words that others know.
func oneOf(words ...string) func(string) string {
	return func(s string) string {
		if slices.Contains(words, s) {
			return ""
		}
		return strings.Join(words, " or ")
	}
}

// hostPort checks an address to listen on or to reach.
func hostPort(s string) string {
	const want = "host:port with a port of 0 to 65535"
	_, port, err := net.SplitHostPort(s)
	if err != nil {
		return want
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return want
	}
	return ""
}

// optional lets the empty text pass.
func optional(check func(string) string) func(string) string {
	return func(s string) string {
		if s == "" {
			return ""
		}
		return check(s)
	}
}

// prefix checks an IP prefix.
func prefix(s string) string {
	if _, err := netip.ParsePrefix(s); err == nil {
		return ""
	}
	if _, err := netip.ParseAddr(s); err == nil {
		return ""
	}
	return "an IP range such as 10.0.0.0/8"
}

// flag is a boolean.
type flag struct{ at *bool }

func (f flag) set(n *yaml.Node) error {
	b, err := strconv.ParseBool(n.Value)
	if n.Kind != yaml.ScalarNode || err != nil {
		return expected(n, "true or false")
	}
	*f.at = b
	return nil
}

func (f flag) plain() any { return *f.at }

// number is an integer within bounds.
type number struct {
	at       *int64
	min, max int64
}

func (v number) set(n *yaml.Node) error {
	i, err := strconv.ParseInt(n.Value, 10, 64)
	if n.Kind != yaml.ScalarNode || err != nil || i < v.min || i > v.max {
		return expected(n, "a number from %d to %d", v.min, v.max)
	}
	*v.at = i
	return nil
}

func (v number) plain() any { return *v.at }

// amount is a number of bytes within bounds, such as 256MiB.
type amount struct {
	at       *int64
	min, max int64
}

func (v amount) set(n *yaml.Node) error {
	digits := strings.TrimRight(n.Value, "KMGTiB ")
	shift, known := map[string]int{"": 0, "B": 0, "KiB": 10, "MiB": 20, "GiB": 30, "TiB": 40}[strings.TrimSpace(n.Value[len(digits):])]
	i, err := strconv.ParseInt(digits, 10, 64)
	if n.Kind != yaml.ScalarNode || err != nil || !known || i < 0 || i > math.MaxInt64>>shift || i<<shift < v.min || i<<shift > v.max {
		return expected(n, "bytes from %s to %s, such as 64MiB", bytesOf(v.min), bytesOf(v.max))
	}
	*v.at = i << shift
	return nil
}

func (v amount) plain() any { return bytesOf(*v.at) }

// bytesOf writes bytes exactly, in the largest unit that divides them.
func bytesOf(n int64) string {
	for _, u := range []struct {
		shift int
		name  string
	}{{40, "TiB"}, {30, "GiB"}, {20, "MiB"}, {10, "KiB"}} {
		if n != 0 && n&(1<<u.shift-1) == 0 {
			return strconv.FormatInt(n>>u.shift, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10)
}

// odd is a number that must be odd: an even number of voters tolerates no more failures than one less.
type odd struct{ number }

func (v odd) set(n *yaml.Node) error {
	if i, err := strconv.ParseInt(n.Value, 10, 64); err == nil && i%2 == 0 {
		return expected(n, "an odd number from %d to %d", v.min, v.max)
	}
	return v.number.set(n)
}

// span is a duration within bounds.
type span struct {
	at       *time.Duration
	min, max time.Duration
}

func (v span) set(n *yaml.Node) error {
	d, err := time.ParseDuration(n.Value)
	if n.Kind != yaml.ScalarNode || err != nil || d < v.min || d > v.max {
		return expected(n, "a duration from %s to %s, such as 30s or 1h", short(v.min), short(v.max))
	}
	*v.at = d
	return nil
}

func (v span) plain() any { return short(*v.at) }

// short writes 1h instead of 1h0m0s.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return s
}

// listBound is how many entries a list or table may have.
const listBound = 256

// list is a list of texts; one text with commas is one too.
type list struct {
	at    *[]string
	check func(string) string
}

func (l list) set(n *yaml.Node) error {
	var items []string
	switch n.Kind {
	case yaml.ScalarNode:
		for s := range strings.SplitSeq(n.Value, ",") {
			if s = strings.TrimSpace(s); s != "" {
				items = append(items, s)
			}
		}
	case yaml.SequenceNode:
		for _, child := range n.Content {
			child = resolve(child)
			if child.Kind != yaml.ScalarNode {
				return expected(child, "text in the list")
			}
			items = append(items, child.Value)
		}
	default:
		return expected(n, "a list")
	}
	return l.replace(items)
}

func (l list) replace(items []string) error {
	if len(items) > listBound {
		return fmt.Errorf("got %d entries, expected at most %d", len(items), listBound)
	}
	for _, s := range items {
		if l.check == nil {
			continue
		}
		if want := l.check(s); want != "" {
			return expected(scalar(s), "%s", want)
		}
	}
	*l.at = items
	return nil
}

// setAt replaces or appends one entry (REGISTRY_..._0).
func (l list) setAt(i int, s string) error {
	if i > len(*l.at) {
		return fmt.Errorf("got entry %d of a list with %d entries, expected them without gaps from 0", i, len(*l.at))
	}
	items := slices.Clone(*l.at)
	if i == len(items) {
		items = append(items, s)
	} else {
		items[i] = s
	}
	return l.replace(items)
}

func (l list) plain() any { return slices.Clone(*l.at) }

// table is a section whose names are free, each with one or more texts.
type table struct{ at *map[string][]string }

func (t table) set(n *yaml.Node) error {
	if n.Kind != yaml.MappingNode {
		return expected(n, "names with their values")
	}
	if len(n.Content)/2 > listBound {
		return fmt.Errorf("got %d entries, expected at most %d", len(n.Content)/2, listBound)
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if err := t.setAt(n.Content[i].Value, resolve(n.Content[i+1])); err != nil {
			return err
		}
	}
	return nil
}

// setAt sets one name; headers of HTTP have no case, so the last spelling wins.
func (t table) setAt(name string, n *yaml.Node) error {
	var items []string
	switch n.Kind {
	case yaml.ScalarNode:
		items = []string{n.Value}
	default:
		if err := (list{at: &items}).set(n); err != nil {
			return fmt.Errorf("%s: %w", clip(name), err)
		}
	}
	m := maps.Clone(*t.at)
	if m == nil {
		m = map[string][]string{}
	}
	maps.DeleteFunc(m, func(k string, _ []string) bool { return strings.EqualFold(k, name) })
	m[name] = items
	*t.at = m
	return nil
}

func (t table) plain() any { return maps.Clone(*t.at) }
