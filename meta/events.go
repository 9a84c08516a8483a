package meta

import (
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// maxStep bounds the rows that one command of a duty may change (R-E3).
const maxStep = 1000

// event writes one line of the audit log and the change feed (R-E2); e says what
// happened, the envelope who asked.
func (t *txn) event(e *metav1.Event) {
	e.ClusterTime, e.WallTime = t.clock, t.wall
	e.Actor, e.Method = t.env.GetActor().GetName(), t.env.GetActor().GetMethod()
	e.ClientAddress, e.RequestId, e.NodeId = t.env.GetClientAddress(), t.env.GetRequestId(), t.env.GetNodeId()
	t.put(placeKey(t.key[:0], rangeEvent, t.index, t.events), e)
	t.events++
}

// trimEvents forgets the oldest events, a bounded number at a time.
func (t *txn) trimEvents(c *metav1.TrimEvents) (*metav1.Result, error) {
	n, err := step(c.GetLimit())
	if err != nil {
		return nil, err
	}
	low, high := oneRow(nil, rangeEvent), indexKey(nil, rangeEvent, c.GetBefore())
	var keys [][]byte
	more := false
	t.walk(low, high, func(k, _ []byte) bool {
		if more = len(keys) >= n; !more {
			keys = append(keys, append([]byte(nil), k...))
		}
		return !more
	})
	for _, k := range keys {
		t.del(k)
	}
	return counted(int64(len(keys)), more), nil
}

// step checks the limit of a bounded command.
func step(limit int32) (int, error) {
	if limit < 1 || limit > maxStep {
		return 0, invalid(metav1.Noun_NOUN_SIZE, "limit: got %d, expected 1 to %d", limit, maxStep)
	}
	return int(limit), nil
}

// bounded checks a list that a command carries.
func bounded(field string, n int) error {
	if n > maxStep {
		return tooLarge(metav1.Noun_NOUN_SIZE, "%s: got %d, at most %d are accepted", field, n, maxStep)
	}
	return nil
}

// EventCursor is an event's place in the log.
type EventCursor struct {
	Index uint64
	N     uint32
}

// EventItem is an event with its place.
type EventItem struct {
	EventCursor
	*metav1.Event
}

// Events lists events above (index, n), oldest first; the zero cursor is before the first.
func (v *View) Events(after EventCursor, n int) (rows []EventItem, more bool, err error) {
	var low []byte
	if after != (EventCursor{}) {
		low = placeKey(nil, rangeEvent, after.Index, after.N)
	}
	return list(&v.rows, oneRow(v.key[:0], rangeEvent), low, n, func(rest, value []byte) (EventItem, bool) {
		it := EventItem{Event: &metav1.Event{}}
		it.Index, it.N = cutPlace(rest)
		return it, v.decode(rest, value, it.Event)
	})
}
