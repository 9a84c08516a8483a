package meta

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// txn is one command being applied: it reads through its own writes, which are
// kept or dropped as a whole (M3).
type txn struct {
	rows
	buf overlay
	// index, clock and wall are those of the log entry.
	index       uint64
	clock, wall int64
	env         *metav1.Envelope
	// system is the row about the cluster as this command sees it; never changed in place.
	system *metav1.System
	// events is how many events the log entry has written so far.
	events uint32
}

// encoding makes equal rows equal bytes on every node.
var encoding = proto.MarshalOptions{Deterministic: true}

func (t *txn) put(key []byte, row proto.Message) {
	value, err := encoding.Marshal(row)
	if err != nil {
		// Only a string that is not UTF-8 does this, which decoding a command refuses.
		panic(fmt.Sprintf("encode row %x: %v", key, err))
	}
	t.key = key
	t.buf.set(key, value)
}

// mark puts a row that is nothing but its key.
func (t *txn) mark(key []byte) {
	t.key = key
	t.buf.set(key, nil)
}

func (t *txn) del(key []byte) {
	t.key = key
	t.buf.del(key)
}

// reset drops what the command did.
func (t *txn) reset(g *group) {
	clear(t.buf.writes)
	t.events = g.events
	t.system = g.system
}

func (t *txn) settings() *metav1.Settings { return t.system.GetSettings() }

// stamp says when and by whom this command is.
func (t *txn) stamp() *metav1.Stamp {
	return &metav1.Stamp{Index: t.index, ClusterTime: t.clock, WallTime: t.wall, Actor: t.env.GetActor().GetName()}
}
