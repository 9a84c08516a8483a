package meta

import (
	"fmt"
	"strings"

	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// condemnedVisit bounds the rows that one call of Condemned looks at.
const condemnedVisit = 100_000

// Stay says why a condemned key must not be deleted yet (G6); zero: it is due.
type Stay struct {
	// Backup needs it: the one that reaches back furthest, to an index at or below that of the condemnation.
	Backup string
	// Until is the cluster time at which its delay is over; 0 when it is.
	Until int64
}

// IsDue says whether the key may be deleted.
func (s Stay) IsDue() bool { return s == Stay{} }

// stays judges a condemned key (G6).
type stays struct {
	oldest *BackupItem
	index  uint64
	clock  int64
}

func (r *rows) stays(clock int64) (s stays) {
	s.oldest, s.index = r.oldestRestorable()
	s.clock = clock
	return s
}

func (s stays) judge(c *metav1.Condemned) (out Stay) {
	if s.oldest != nil && c.GetIndex() >= s.index {
		out.Backup = s.oldest.ID
	}
	if s.clock < c.GetNotBefore() {
		out.Until = c.GetNotBefore()
	}
	return out
}

// forgetKeys drops the rows of keys whose bytes are gone. From now on the ledger does not know them: what a late write
// leaves under one is an orphan.
func (t *txn) forgetKeys(c *metav1.ForgetKeys) (*metav1.Result, error) {
	if err := bounded("keys", len(c.GetKeys())); err != nil {
		return nil, err
	}
	if err := checkName(metav1.Noun_NOUN_STORE, "store", c.GetStore()); err != nil {
		return nil, err
	}
	must := t.stays(t.clock)
	result := counted(0, false)
	for _, key := range c.GetKeys() {
		if hasNUL(key) {
			return nil, invalid(metav1.Noun_NOUN_STORE, "storage key: got %q, expected one without NUL", clip(key))
		}
		row := t.object(c.GetStore(), key)
		if row == nil {
			continue
		}
		if err := forgettable(key, row, must); err != nil {
			return nil, err
		}
		t.del(objectKey(nil, c.GetStore(), key))
		result.GetCount().Rows++
		result.GetCount().Bytes += row.GetCondemned().GetSize()
	}
	if row := t.collection(); c.GetCycle() != 0 && row.GetRunning().GetBegun().GetIndex() == c.GetCycle() {
		t.countInCycle(row, &metav1.CycleCount{DeletedKeys: result.GetCount().GetRows(), DeletedBytes: result.GetCount().GetBytes()})
	}
	return result, nil
}

// forgettable refuses a key that must stay: whoever asks has deleted what he must not, or is about to.
func forgettable(key string, row *metav1.Object, must stays) error {
	var why string
	switch c := row.GetCondemned(); {
	case c == nil:
		why = "is not condemned"
	case must.judge(c).Backup != "":
		why = fmt.Sprintf("was condemned at index %d, and backup %s reaches back to %d", c.GetIndex(), must.oldest.ID, must.index)
	case must.judge(c).Until != 0:
		why = fmt.Sprintf("is kept for %d s more", (c.GetNotBefore()-must.clock+second-1)/second)
	default:
		return nil
	}
	e := Refuse(metav1.Kind_KIND_PRECONDITION, metav1.Noun_NOUN_STORE, "storage key %s: %s", clip(key), why)
	e.Names = []string{clip(key)}
	return e
}

// CondemnedKey is a key that waits for its deletion.
type CondemnedKey struct {
	Key string
	*metav1.Condemned
	Stay Stay
}

// Condemned lists the condemned keys of a store above after, in key order: at most n of them, among a bounded number
// of keys. next is where to go on unless done. An answer may be empty and not the last.
func (v *View) Condemned(store, after string, n int) (rows []CondemnedKey, next string, done bool, err error) {
	must := v.stays(v.ClusterTime())
	prefix := nameKey(nil, rangeObject, store)
	visited := 0
	next, done = after, true
	v.scan(prefix, afterName(prefix, after), func(k, value []byte) bool {
		if done = len(rows) < n && visited < condemnedVisit; !done {
			return false
		}
		visited++
		next, _ = cutName(k[len(prefix):])
		var row metav1.Object
		if v.decode(k, value, &row) && row.GetCondemned() != nil {
			rows = append(rows, CondemnedKey{Key: next, Condemned: row.GetCondemned(), Stay: must.judge(row.GetCondemned())})
		}
		return true
	})
	if v.err != nil {
		return nil, after, false, v.err
	}
	return rows, next, done, nil
}

// ObjectItem is a storage key with its life.
type ObjectItem struct {
	Key string
	*metav1.Object
}

// Objects lists the keys of a store that begin with prefix, in key order above after, at most n: in the order in which
// a store lists them, so that the two can be merged.
func (v *View) Objects(store, prefix, after string, n int) (rows []ObjectItem, more bool, err error) {
	if after < prefix {
		after = ""
	}
	if hasNUL(store+prefix) || after != "" && !strings.HasPrefix(after, prefix) {
		return nil, false, v.err // no such key, or all of them lie before after
	}
	all := nameKey(nil, rangeObject, store)
	return list(&v.rows, append(nameKey(nil, rangeObject, store), prefix...), afterName(all, after), n, func(rest, value []byte) (ObjectItem, bool) {
		it := ObjectItem{Object: &metav1.Object{}}
		key, _ := cutName(rest)
		it.Key = prefix + key
		return it, v.decode(rest, value, it.Object)
	})
}
