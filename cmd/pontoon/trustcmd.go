package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	adminv1 "github.com/pontoon-registry/pontoon/proto/pontoon/admin/v1"
)

func newClusterTrust(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "trust", Short: "Show which secrets every node trusts, and the next safe step of a rotation",
		Long: "Show for every node which secrets (or, with cluster.tls, which authorities) it trusts, by ids that tell nothing of\n" +
			"them; which one signs for it (*); how many of its connections stand by each; when its certificate ends; and\n" +
			"what may be done next on the way from one secret to another.",
		Example: "  pontoon cluster trust\n  pontoon cluster trust -o json | jq '.nodes[].secrets'",
		Args:    exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), callTime)
			defer cancel()
			c, err := a.dial(ctx)
			if err != nil {
				return err
			}
			res, err := c.trust.GetTrust(ctx, &adminv1.GetTrustRequest{})
			if err != nil {
				return err
			}
			return a.show(res, func(w io.Writer) { writeTrust(w, res) })
		},
	}
}

func writeTrust(w io.Writer, t *adminv1.GetTrustResponse) {
	var rows [][]string
	operated := false
	for _, n := range t.GetNodes() {
		row := []string{n.GetId(), dash(n.GetName()), keysText(n.GetSecrets()), dash(n.GetCertificateName()), when(n.GetCertificateExpires())}
		if n.GetError() != "" {
			row[2] = "DOES NOT ANSWER"
		}
		operated = operated || len(n.GetAuthorities()) > 0
		rows = append(rows, row)
	}
	columns(w, "MEMBER\tNAME\tSECRETS (*: SIGNS)\tCERTIFICATE FOR\tEXPIRES", rows)
	if operated {
		rows = nil
		for _, n := range t.GetNodes() {
			rows = append(rows, []string{n.GetId(), dash(n.GetName()), keysText(n.GetAuthorities())})
		}
		_, _ = fmt.Fprintln(w) // a bytes.Buffer takes all
		columns(w, "MEMBER\tNAME\tAUTHORITIES (*: SIGNS)", rows)
	}
	_, _ = fmt.Fprintf(w, "\nnext: %s\n", nextStep("secret", t.GetNodes(), (*adminv1.NodeTrust).GetSecrets))
	if operated {
		_, _ = fmt.Fprintf(w, "next for cluster.tls: %s\n", nextStep("authority", t.GetNodes(), (*adminv1.NodeTrust).GetAuthorities))
	}
}

func keysText(keys []*adminv1.TrustedKey) string {
	var parts []string
	for _, k := range keys {
		text := k.GetId()
		if k.GetSigns() {
			text += "*"
		}
		parts = append(parts, fmt.Sprintf("%s (%d conn)", text, k.GetConnections()))
	}
	return dash(strings.Join(parts, ", "))
}

// rotation is where a cluster stands between two secrets, by id, each with the nodes that it counts for.
type rotation struct {
	what                  string
	nodes                 int
	order                 []string // ids as they were met
	trusted, signs, lacks map[string][]string
	connections           map[string]uint32
	silent                []string
}

func rotationOf(what string, nodes []*adminv1.NodeTrust, keys func(*adminv1.NodeTrust) []*adminv1.TrustedKey) rotation {
	r := rotation{what: what, nodes: len(nodes), trusted: map[string][]string{}, signs: map[string][]string{}, lacks: map[string][]string{}, connections: map[string]uint32{}}
	for _, n := range nodes {
		who := orText(n.GetName(), n.GetId())
		if n.GetError() != "" {
			r.silent = append(r.silent, who)
			continue
		}
		for _, k := range keys(n) {
			if r.trusted[k.GetId()] == nil {
				r.order = append(r.order, k.GetId())
			}
			r.trusted[k.GetId()] = append(r.trusted[k.GetId()], who)
			r.connections[k.GetId()] += k.GetConnections()
			if k.GetSigns() {
				r.signs[k.GetId()] = append(r.signs[k.GetId()], who)
			}
		}
	}
	for _, n := range nodes {
		who := orText(n.GetName(), n.GetId())
		for _, id := range r.order {
			if n.GetError() == "" && !holds(keys(n), id) {
				r.lacks[id] = append(r.lacks[id], who)
			}
		}
	}
	return r
}

func holds(keys []*adminv1.TrustedKey, id string) bool {
	for _, k := range keys {
		if k.GetId() == id {
			return true
		}
	}
	return false
}

// nextStep says what is safe to do next:
//
//	{old} ─► {old, new} on all ─► {new, old} on all ─► nothing stands by old ─► {new} on all
func nextStep(what string, nodes []*adminv1.NodeTrust, keys func(*adminv1.NodeTrust) []*adminv1.TrustedKey) string {
	r := rotationOf(what, nodes, keys)
	for _, id := range r.order { // what is broken comes first
		if len(r.signs[id]) > 0 && len(r.lacks[id]) > 0 {
			return fmt.Sprintf("%s signs on %s, but %s do not trust it and refuse those nodes: add it there at once",
				id, sentenceList(r.signs[id]), sentenceList(r.lacks[id]))
		}
	}
	if len(r.silent) > 0 {
		return fmt.Sprintf("nothing yet: %s did not answer, so what they trust is unknown; whoever lacks the %s that signs is cut off",
			sentenceList(r.silent), what)
	}
	for _, id := range r.order {
		if len(r.lacks[id]) > 0 {
			return fmt.Sprintf("%s is trusted by %s but not by %s, and signs nowhere: to bring it in, add it there too, second; "+
				"to be rid of it, remove it from the others", id, sentenceList(r.trusted[id]), sentenceList(r.lacks[id]))
		}
	}
	switch {
	case len(r.order) == 0:
		return "no node says what it trusts"
	case len(r.order) == 1:
		return fmt.Sprintf("nothing is under way: all %d nodes trust %s alone. To rotate, add a new %s on every node, after the one that signs",
			r.nodes, r.order[0], what)
	case len(r.signs) > 1:
		var parts []string
		for _, id := range r.order {
			if len(r.signs[id]) > 0 {
				parts = append(parts, id+" signs on "+sentenceList(r.signs[id]))
			}
		}
		return strings.Join(parts, ", ") + ": all trust both; make the new one sign on the rest too"
	}
	return r.oneSigns()
}

// oneSigns is nextStep where all nodes trust the same and one of it signs everywhere.
func (r rotation) oneSigns() string {
	var signs string
	var idle, busy []string
	for _, id := range r.order {
		switch {
		case len(r.signs[id]) > 0:
			signs = id
		case r.connections[id] > 0:
			busy = append(busy, fmt.Sprintf("%s (%d connections)", id, r.connections[id]))
		default:
			idle = append(idle, id)
		}
	}
	if len(busy) > 0 {
		return fmt.Sprintf("wait: some connections still stand by %s, which signs nowhere any more. They are made anew within a minute, "+
			"in ten where a transfer is under way. What stands then is of somebody who makes none anew, such as a node that is no member, "+
			"or a thief: remove the old one from every node, which cuts it", sentenceList(busy))
	}
	return fmt.Sprintf("all %d nodes trust %s, %s signs. If %s is the new one: it is safe to make it sign on every node. "+
		"If it is the old one: it is safe to remove it from every node", r.nodes, sentenceList(append([]string{signs}, idle...)), signs, sentenceList(idle))
}

// sentenceList joins words for a sentence.
func sentenceList(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " and " + words[len(words)-1]
}
