package meta

import (
	"google.golang.org/protobuf/proto"

	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// closedKept bounds how many closed boots of a node are remembered, so that a
// late copy of a registration cannot bring one back.
const closedKept = 16

func (r *rows) origin(node string) *metav1.OriginRow {
	row := &metav1.OriginRow{}
	if !r.read(nameKey(r.key[:0], rangeOrigin, node), row) {
		return nil
	}
	return row
}

// registerOrigin makes a boot of a node known, and closes the one before it (M5, R-B12).
func (t *txn) registerOrigin(c *metav1.RegisterOrigin) (*metav1.Result, error) {
	if err := checkName(metav1.Noun_NOUN_ORIGIN, "origin: node id", c.GetNodeId()); err != nil {
		return nil, err
	}
	if err := checkName(metav1.Noun_NOUN_ORIGIN, "origin: boot id", c.GetBootId()); err != nil {
		return nil, err
	}
	row := &metav1.OriginRow{BootId: c.GetBootId(), Registered: t.index}
	if old := t.origin(c.GetNodeId()); old != nil {
		if old.GetBootId() == c.GetBootId() {
			return nil, nil
		}
		row.Closed = old.GetClosed()
		for _, boot := range row.Closed {
			if boot == c.GetBootId() {
				return nil, conflict(metav1.Noun_NOUN_ORIGIN, "origin: boot %s of node %s is closed", clip(boot), clip(c.GetNodeId()))
			}
		}
		row.Closed = append(row.Closed, old.GetBootId())
		if n := len(row.Closed); n > closedKept {
			row.Closed = row.Closed[n-closedKept:]
		}
		t.forgetResults(resultPrefix(nil, c.GetNodeId(), old.GetBootId()), nil)
	}
	t.put(nameKey(t.key[:0], rangeOrigin, c.GetNodeId()), row)
	return nil, nil
}

// repeated judges a command's origin before the command itself (M5). It answers
// a result when the command must have no effect: a refusal, or the result that it had the
// first time; else nil.
func (t *txn) repeated(c *metav1.Command) *metav1.Result {
	o := t.env.GetOrigin()
	if o == nil || c.GetRegisterOrigin() != nil {
		return nil
	}
	refuse := func(e *Error) *metav1.Result {
		return &metav1.Result{Refusal: e.Proto(), Index: t.index}
	}
	if o.GetSequence() == 0 || o.GetLowestOutstanding() > o.GetSequence() || hasNUL(o.GetNodeId()) || hasNUL(o.GetBootId()) {
		return refuse(invalid(metav1.Noun_NOUN_ORIGIN, "origin: got sequence %d and lowest outstanding %d, expected 1 <= lowest <= sequence",
			o.GetSequence(), o.GetLowestOutstanding()))
	}
	row := t.origin(o.GetNodeId())
	if row == nil || row.GetBootId() != o.GetBootId() {
		return refuse(conflict(metav1.Noun_NOUN_ORIGIN, "origin: boot %s of node %s is not registered", clip(o.GetBootId()), clip(o.GetNodeId())))
	}
	if o.GetSequence() < row.GetLowest() {
		return refuse(conflict(metav1.Noun_NOUN_ORIGIN, "origin: sequence %d is stale, the lowest outstanding is %d", o.GetSequence(), row.GetLowest()))
	}
	first := &metav1.Result{}
	if t.read(resultKey(t.key[:0], o.GetNodeId(), o.GetBootId(), o.GetSequence()), first) {
		if r := first.GetRefusal(); r != nil {
			r.Message = "this command was refused when it first arrived"
		}
		return first
	}
	return nil
}

// remember notes that the origin's command was applied, and forgets results that it has heard of (M5).
func (t *txn) remember(c *metav1.Command, result *metav1.Result) {
	o := t.env.GetOrigin()
	if o == nil || c.GetRegisterOrigin() != nil {
		return
	}
	row := t.origin(o.GetNodeId())
	if row == nil {
		// The command removed its own node.
		return
	}
	if low := o.GetLowestOutstanding(); low > row.GetLowest() {
		t.forgetResults(resultKey(nil, o.GetNodeId(), o.GetBootId(), row.GetLowest()),
			resultKey(nil, o.GetNodeId(), o.GetBootId(), low))
		row.Lowest = low
		t.put(nameKey(t.key[:0], rangeOrigin, o.GetNodeId()), row)
	}
	if repeatable(c) {
		return
	}
	kept := proto.CloneOf(result)
	if r := kept.GetRefusal(); r != nil {
		// Words may change from one release to the next; the state may not (M7).
		r.Message = ""
	}
	t.put(resultKey(t.key[:0], o.GetNodeId(), o.GetBootId(), o.GetSequence()), kept)
}

// repeatable says that applying a command once more, later, does nothing that
// its first time did not: only then no result is kept. Whatever sets or deletes would undo
// what somebody else did in between; steps of an upload and locks would answer otherwise.
func repeatable(c *metav1.Command) bool {
	switch c.GetKind().(type) {
	case *metav1.Command_InitCluster, *metav1.Command_OpenTerm,
		*metav1.Command_ExpireUploads, *metav1.Command_ExpireLocks, *metav1.Command_TrimEvents,
		*metav1.Command_ConfirmContent, *metav1.Command_MarkLost:
		return true
	}
	return false
}

// forgetResults removes the result rows in [low, high), or under low when high is nil.
func (t *txn) forgetResults(low, high []byte) {
	if high == nil {
		high = beyond(low)
	}
	var keys [][]byte
	t.walk(low, high, func(k, _ []byte) bool {
		keys = append(keys, append([]byte(nil), k...))
		return true
	})
	for _, k := range keys {
		t.buf.del(k)
	}
}
