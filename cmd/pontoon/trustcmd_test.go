package main

import (
	"strings"
	"testing"

	adminv1 "github.com/pontoon-registry/pontoon/proto/pontoon/admin/v1"
)

// keysWith makes trusted keys of "a0*:3": id, signs, connections.
func keysWith(t *testing.T, text string) (keys []*adminv1.TrustedKey) {
	t.Helper()
	for word := range strings.FieldsSeq(text) {
		id, busy := strings.CutSuffix(word, "!")
		id, signs := strings.CutSuffix(id, "*")
		k := &adminv1.TrustedKey{Id: id, Signs: signs}
		if busy {
			k.Connections = 4
		}
		keys = append(keys, k)
	}
	return keys
}

func TestTheNextStepOfARotationIsSafe(t *testing.T) {
	for _, c := range []struct {
		name  string
		nodes [3]string // "*": signs, "!": connections stand by it, "?": does not answer
		want  []string
		never string
	}{
		{"at rest", [3]string{"a0*!", "a0*!", "a0*!"}, []string{"all 3 nodes trust a0 alone", "add a new secret"}, "remove"},
		{"one has the new", [3]string{"a0*! b1", "a0*!", "a0*!"}, []string{"b1 is trusted by n1 but not by n2 and n3", "add it there too"}, "safe"},
		{"all have the new", [3]string{"a0*! b1", "a0*! b1", "a0*! b1"}, []string{"all 3 nodes trust a0 and b1, a0 signs", "safe to make it sign"}, "wait"},
		{"one signs with it", [3]string{"b1*! a0!", "a0*! b1!", "a0*! b1!"}, []string{"b1 signs on n1", "a0 signs on n2 and n3", "sign on the rest"}, "remove"},
		{"all sign, not all anew", [3]string{"b1*! a0", "b1*! a0!", "b1*! a0"}, []string{"wait", "a0 (4 connections)"}, "safe to remove"},
		{"all anew", [3]string{"b1*! a0", "b1*! a0", "b1*! a0"}, []string{"b1 signs", "safe to remove it"}, "wait"},
		{"too early", [3]string{"b1*! a0", "a0*!", "a0*!"}, []string{"b1 signs on n1", "n2 and n3 do not trust it", "at once"}, "safe"},
		{"one is silent", [3]string{"b1*! a0", "b1*! a0", "?"}, []string{"nothing yet", "n3 did not answer"}, "safe"},
		{"silent and broken", [3]string{"b1*! a0", "a0*!", "?"}, []string{"add it there at once"}, "safe"},
	} {
		var nodes []*adminv1.NodeTrust
		for i, text := range c.nodes {
			n := &adminv1.NodeTrust{Id: string(rune('x' + i)), Name: "n" + string(rune('1'+i))}
			if text == "?" {
				n.Error = "no answer"
			} else {
				n.Secrets = keysWith(t, text)
			}
			nodes = append(nodes, n)
		}
		got := nextStep("secret", nodes, (*adminv1.NodeTrust).GetSecrets)
		for _, part := range c.want {
			if !strings.Contains(got, part) {
				t.Errorf("%s: %q lacks %q", c.name, got, part)
			}
		}
		if strings.Contains(got, c.never) {
			t.Errorf("%s: %q says %q", c.name, got, c.never)
		}
	}
}
