package meta

import (
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// A lock's row outlives its release until it expires: it remembers the token,
// so that one log entry that grants, releases and grants again does not grant one token twice (C4).
//
//	(none) ── acquire ──► held ── release ──► released ── expire ──► (none)
//	                       ▲ │                    │
//	                       └─┘ renew              └── acquire, at a later index ──► held
//	  held, past its expiry: as released, for acquire; renew and release are refused

// Bounds of a lock's time to live, in nanoseconds.
const (
	minTTL = second
	maxTTL = 24 * hour
)

func (r *rows) lock(name string) *metav1.Lock {
	row := &metav1.Lock{}
	if !r.read(nameKey(r.key[:0], rangeLock, name), row) {
		return nil
	}
	return row
}

// isHeld says whether somebody holds the lock at cluster time clock.
func isHeld(l *metav1.Lock, clock int64) bool {
	return l != nil && l.GetHolder() != "" && clock < l.GetExpires()
}

func (t *txn) acquireLock(c *metav1.AcquireLock) (*metav1.Result, error) {
	if err := checkName(metav1.Noun_NOUN_LOCK, "lock", c.GetName()); err != nil {
		return nil, err
	}
	if err := checkName(metav1.Noun_NOUN_LOCK, "lock holder", c.GetHolder()); err != nil {
		return nil, err
	}
	if err := checkTTL(c.GetTtl()); err != nil {
		return nil, err
	}
	old := t.lock(c.GetName())
	if isHeld(old, t.clock) {
		return nil, conflict(metav1.Noun_NOUN_LOCK, "lock %s: held by %s for %d s more",
			c.GetName(), old.GetHolder(), (old.GetExpires()-t.clock+second-1)/second)
	}
	if old.GetToken() == t.index {
		return nil, conflict(metav1.Noun_NOUN_LOCK, "lock %s: was granted and released at this very moment; try again", c.GetName())
	}
	row := &metav1.Lock{Holder: c.GetHolder(), Token: t.index, Expires: t.clock + c.GetTtl(), Ttl: c.GetTtl(), Acquired: t.stamp()}
	t.put(nameKey(nil, rangeLock, c.GetName()), row)
	t.event(&metav1.Event{Action: metav1.Action_ACTION_ACQUIRE_LOCK, Subject: c.GetName()})
	return granted(row), nil
}

func (t *txn) renewLock(c *metav1.RenewLock) (*metav1.Result, error) {
	if err := checkTTL(c.GetTtl()); err != nil {
		return nil, err
	}
	row, err := t.heldLock(c.GetName(), c.GetToken())
	if err != nil {
		return nil, err
	}
	row.Ttl, row.Expires = c.GetTtl(), t.clock+c.GetTtl()
	t.put(nameKey(nil, rangeLock, c.GetName()), row)
	return granted(row), nil
}

func (t *txn) releaseLock(c *metav1.ReleaseLock) (*metav1.Result, error) {
	token := c.GetToken()
	if c.GetForce() {
		old := t.lock(c.GetName())
		if !isHeld(old, t.clock) {
			return nil, unknown(metav1.Noun_NOUN_LOCK, "lock %s: nobody holds it", clip(c.GetName()))
		}
		token = old.GetToken()
	}
	row, err := t.heldLock(c.GetName(), token)
	if err != nil {
		return nil, err
	}
	row.Holder = ""
	t.put(nameKey(nil, rangeLock, c.GetName()), row)
	t.event(&metav1.Event{Action: metav1.Action_ACTION_RELEASE_LOCK, Subject: c.GetName()})
	return granted(row), nil
}

// heldLock answers the lock that the token holds.
func (t *txn) heldLock(name string, token uint64) (*metav1.Lock, error) {
	row := t.lock(name)
	if !isHeld(row, t.clock) || row.GetToken() != token {
		return nil, conflict(metav1.Noun_NOUN_LOCK, "lock %s: token %d does not hold it", clip(name), token)
	}
	return row, nil
}

func (t *txn) expireLocks(c *metav1.ExpireLocks) (*metav1.Result, error) {
	if err := bounded("locks", len(c.GetNames())); err != nil {
		return nil, err
	}
	var n int64
	for _, name := range c.GetNames() {
		row := t.lock(name)
		if row == nil || t.clock < row.GetExpires() {
			continue
		}
		n++
		t.del(nameKey(nil, rangeLock, name))
		if row.GetHolder() != "" {
			t.event(&metav1.Event{Action: metav1.Action_ACTION_RELEASE_LOCK, Subject: name})
		}
	}
	return counted(n, false), nil
}

func checkTTL(ttl int64) error {
	if ttl < minTTL || ttl > maxTTL {
		return invalid(metav1.Noun_NOUN_LOCK, "lock ttl: got %d ns, expected 1 s to 24 h", ttl)
	}
	return nil
}

func granted(l *metav1.Lock) *metav1.Result {
	return &metav1.Result{Value: &metav1.Result_Lock{Lock: &metav1.LockResult{Token: l.GetToken(), Expires: l.GetExpires()}}}
}

// Lock looks a lock up; a released or expired one is unknown.
func (v *View) Lock(name string) (*metav1.Lock, error) {
	row := v.lock(name)
	return answer(v, row, isHeld(row, v.ClusterTime()), metav1.Noun_NOUN_LOCK, "lock %s: nobody holds it", clip(name))
}

// LockItem is a lock with its name.
type LockItem struct {
	Name string
	*metav1.Lock
}

// Locks lists the held locks above after.
func (v *View) Locks(after string, n int) (rows []LockItem, more bool, err error) {
	return v.locks(after, n, func(l *metav1.Lock) bool { return isHeld(l, v.ClusterTime()) })
}

// ExpiredLocks lists at most n lock rows that ExpireLocks would forget.
func (v *View) ExpiredLocks(n int) (names []string, err error) {
	rows, _, err := v.locks("", n, func(l *metav1.Lock) bool { return v.ClusterTime() >= l.GetExpires() })
	for _, row := range rows {
		names = append(names, row.Name)
	}
	return names, err
}

func (v *View) locks(after string, n int, want func(*metav1.Lock) bool) ([]LockItem, bool, error) {
	prefix := oneRow(nil, rangeLock)
	return list(&v.rows, prefix, afterName(prefix, after), n, func(rest, value []byte) (LockItem, bool) {
		it := LockItem{Lock: &metav1.Lock{}}
		it.Name, _ = cutName(rest)
		return it, v.decode(rest, value, it.Lock) && want(it.Lock)
	})
}
