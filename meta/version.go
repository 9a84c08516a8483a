package meta

import (
	"google.golang.org/protobuf/proto"

	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// Versions of the cluster (M7). Apply depends on the state's, never on the
// binary's; a leader proposes no kind that is newer than it.
//
//	1  the first
//	2  RaiseVersion, RaiseIncarnation; an entry of the address book that does not understand the cluster's version is refused
//	3  cycles of garbage collection, backups; RaiseIncarnation.life counts; the departure of a subject is noted (untagged.go)
const (
	versionOfRaises = 2
	versionOfGC     = 3
)

// NeededVersion is the version from which on a cluster may log a command of this
// kind, and 0 for one that this release does not know. RaiseVersion is how a
// cluster gets to the version that has it: whoever proposes it must have seen
// that all members understand the one that it names.
func NeededVersion(c *metav1.Command) uint32 {
	switch c.GetKind().(type) {
	case nil:
		return 0
	case *metav1.Command_RaiseIncarnation:
		return versionOfRaises
	case *metav1.Command_RequestCycle, *metav1.Command_BeginCycle, *metav1.Command_AdvanceCycle,
		*metav1.Command_CondemnBlobs, *metav1.Command_DeleteUntagged, *metav1.Command_ForgetKeys,
		*metav1.Command_OpenBackup, *metav1.Command_CompleteBackup, *metav1.Command_RetireBackup, *metav1.Command_ForgetBackup:
		return versionOfGC
	}
	return 1
}

// raiseVersion is decided again here: the address book may have changed since it was proposed.
func (t *txn) raiseVersion(c *metav1.RaiseVersion) (*metav1.Result, error) {
	next, now := c.GetVersion(), t.system.GetVersion()
	if next <= now {
		return nil, conflict(metav1.Noun_NOUN_CLUSTER, "cluster version: got %d, it is %d already", next, now)
	}
	if next > NewestVersion {
		// A refusal would depend on the binary (M7).
		return nil, ErrFormat
	}
	nodes, err := t.nodes()
	if err != nil {
		return nil, err
	}
	for _, n := range nodes {
		if !understands(n, next) {
			return nil, Refuse(metav1.Kind_KIND_PRECONDITION, metav1.Noun_NOUN_NODE, "cluster version: got %d, but node %s (%s, release %q) understands %d to %d",
				next, n.GetId(), clip(n.GetName()), clip(n.GetRelease()), n.GetMinVersion(), n.GetMaxVersion())
		}
	}
	row := proto.CloneOf(t.system)
	row.Version = next
	t.putSystem(row)
	t.event(&metav1.Event{Action: metav1.Action_ACTION_RAISE_VERSION, Subject: t.system.GetClusterId()})
	return nil, nil
}

// raiseIncarnation begins another life of the cluster; members of the one before are strangers from then on.
func (t *txn) raiseIncarnation(c *metav1.RaiseIncarnation) (*metav1.Result, error) {
	if now := t.system.GetIncarnation(); c.GetIncarnation() <= now {
		return nil, conflict(metav1.Noun_NOUN_CLUSTER, "incarnation: got %d, it is %d already", c.GetIncarnation(), now)
	}
	if err := checkName(metav1.Noun_NOUN_NODE, "node id", c.GetNodeId()); err != nil {
		return nil, err
	}
	row := proto.CloneOf(t.system)
	row.Incarnation = c.GetIncarnation()
	if row.GetVersion() >= versionOfGC {
		if n := len(c.GetLife()); n > maxName {
			return nil, tooLarge(metav1.Noun_NOUN_CLUSTER, "life: got %d bytes, at most %d are accepted", n, maxName)
		}
		row.Life = c.GetLife() // also when empty: the one before is over
	}
	t.putSystem(row)
	t.event(&metav1.Event{Action: metav1.Action_ACTION_RECOVER_CLUSTER, Subject: c.GetNodeId()})
	return nil, nil
}

// understood refuses the entry of a node that would stop at what the cluster
// logs already. Version 1 did not ask.
func (t *txn) understood(n *metav1.Node) error {
	now := t.system.GetVersion()
	if now < versionOfRaises || understands(n, now) {
		return nil
	}
	return Refuse(metav1.Kind_KIND_UNSUPPORTED, metav1.Noun_NOUN_NODE, "node %s: understands the command versions %d to %d, the cluster has %d",
		n.GetId(), n.GetMinVersion(), n.GetMaxVersion(), now)
}

// understands says whether a node can apply what a cluster of that version logs; an entry without versions says nothing.
func understands(n *metav1.Node, version uint32) bool {
	return n.GetMaxVersion() == 0 || n.GetMinVersion() <= version && version <= n.GetMaxVersion()
}
