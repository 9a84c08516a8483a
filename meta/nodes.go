package meta

import (
	"google.golang.org/protobuf/proto"

	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// maxText bounds free text in a row: an address, a release, a holder.
const maxText = 1024

// putNode writes an entry of the address book. A node keeps the certificate
// name that it joined with (R-D1): a new one is leave and join.
func (t *txn) putNode(c *metav1.PutNode) (*metav1.Result, error) {
	n := c.GetNode()
	if err := checkName(metav1.Noun_NOUN_NODE, "node id", n.GetId()); err != nil {
		return nil, err
	}
	if size := proto.Size(n); size > 8*maxText {
		return nil, tooLarge(metav1.Noun_NOUN_NODE, "node: got %d bytes, at most %d are accepted", size, 8*maxText)
	}
	if err := t.understood(n); err != nil {
		return nil, err
	}
	row := proto.CloneOf(n)
	old := &metav1.Node{}
	key := nameKey(nil, rangeNode, n.GetId())
	if t.read(key, old) {
		name := old.GetCertificateName()
		if row.GetCertificateName() == "" {
			row.CertificateName = name
		}
		if name != "" && name != row.GetCertificateName() {
			return nil, conflict(metav1.Noun_NOUN_NODE, "node %s: joined with the certificate name %q, got %q",
				n.GetId(), clip(name), clip(row.GetCertificateName()))
		}
		if proto.Equal(old, row) {
			return nil, nil
		}
	}
	t.put(key, row)
	t.event(&metav1.Event{Action: metav1.Action_ACTION_PUT_NODE, Subject: n.GetId()})
	return nil, nil
}

// removeNode forgets a node and its origin: what its boot still sends is refused. That it registers no other is the
// leader's to see to, who knows the members.
func (t *txn) removeNode(c *metav1.RemoveNode) (*metav1.Result, error) {
	if err := checkName(metav1.Noun_NOUN_NODE, "node id", c.GetId()); err != nil {
		return nil, err
	}
	key := nameKey(nil, rangeNode, c.GetId())
	if !t.has(key) {
		return nil, unknown(metav1.Noun_NOUN_NODE, "node %s: is not in the address book", c.GetId())
	}
	t.del(key)
	t.del(nameKey(nil, rangeOrigin, c.GetId()))
	t.forgetResults(nameKey(nil, rangeOriginResult, c.GetId()), nil)
	t.event(&metav1.Event{Action: metav1.Action_ACTION_REMOVE_NODE, Subject: c.GetId()})
	return nil, nil
}

// Node answers one entry of the address book, nil if it is not there.
func (v *View) Node(id string) (*metav1.Node, error) {
	row := &metav1.Node{}
	if !v.read(nameKey(v.key[:0], rangeNode, id), row) {
		return nil, v.err
	}
	return row, nil
}

// Nodes lists the address book.
func (v *View) Nodes() ([]*metav1.Node, error) { return v.nodes() }

func (r *rows) nodes() ([]*metav1.Node, error) {
	const bound = 10_000
	out, _, err := list(r, oneRow(r.key[:0], rangeNode), nil, bound, func(_, value []byte) (*metav1.Node, bool) {
		row := &metav1.Node{}
		return row, r.decode(nil, value, row)
	})
	return out, err
}
