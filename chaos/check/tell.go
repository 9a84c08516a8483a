package check

import (
	"fmt"
	"slices"
	"strings"

	"github.com/anishathalye/porcupine"
)

// tell names the first operation that the longest order has no place for, and the last ones that were called before
// it was over.
func tell(ops []porcupine.Operation, placed map[*Operation]bool) []string {
	var first *Operation
	for _, o := range ops {
		in := o.Input.(*Operation)
		if !placed[in] && in.Outcome != Unknown && (first == nil || in.Return < first.Return) {
			first = in
		}
	}
	if first == nil {
		return []string{"no single operation can be blamed"}
	}
	lines := []string{"fits nowhere: " + first.String()}
	var before []*Operation
	for _, o := range ops {
		if in := o.Input.(*Operation); in != first && in.Call <= first.Return {
			before = append(before, in)
		}
	}
	slices.SortFunc(before, func(a, b *Operation) int { return int(b.Return - a.Return) })
	for _, o := range before[:min(len(before), 8)] {
		lines = append(lines, "before it:    "+o.String())
	}
	return lines
}

// brief is the operation in a drawing that shows its times and its client.
func (o *Operation) brief() string {
	words := []string{string(o.Kind)}
	for _, word := range []string{o.Key, short(o.Input)} {
		if word != "" {
			words = append(words, word)
		}
	}
	if o.Expect != "" {
		words = append(words, "if "+short(o.Expect))
	}
	if o.Token != 0 {
		words = append(words, fmt.Sprintf("token %d", o.Token))
	}
	if o.Outcome != Done {
		words = append(words, string(o.Outcome))
	}
	if o.Kind.Reads() || o.Output != "" {
		words = append(words, "-> "+orNothing(short(o.Output)))
	}
	return strings.Join(words, " ")
}

// String is the operation in a line.
func (o *Operation) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%.4fs to %.4fs client %d", o.Call.Seconds(), o.Return.Seconds(), o.Client)
	for _, word := range []string{"at " + o.Node, string(o.Kind), o.Repo, o.Key, short(o.Input), "expecting " + short(o.Expect)} {
		if word != "" && word != "at " && word != "expecting " {
			b.WriteString(" " + word)
		}
	}
	if o.Token != 0 {
		fmt.Fprintf(&b, " token %d", o.Token)
	}
	fmt.Fprintf(&b, ": %s", o.Outcome)
	if o.Status != 0 {
		fmt.Fprintf(&b, " %d", o.Status)
	}
	if o.Revision != 0 {
		fmt.Fprintf(&b, " at index %d", o.Revision)
	}
	if o.Kind.Reads() || o.Output != "" {
		fmt.Fprintf(&b, " %s", orNothing(short(o.Output)))
	}
	return b.String()
}

func orNothing(s string) string {
	if s == "" {
		return "nothing"
	}
	return s
}

// short keeps a digest to what tells it apart.
func short(digest string) string {
	if rest, ok := strings.CutPrefix(digest, "sha256:"); ok && len(rest) > 12 {
		return rest[:12]
	}
	return digest
}
