package meta

import (
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// UnneededBlob is a blob that CondemnBlobs would take away at the view's index.
type UnneededBlob struct {
	Digest Digest
	*metav1.Blob
	Why WhyUnneeded
}

// Unneeded finds the blobs that nothing needs, in digest order above after: at most limit of them, among at most visit
// blobs, so that no view is held for long. next is where to go on unless done; visited is how many were looked at.
// The blob, reference and grace ranges are merged: memory holds none of them.
func (v *View) Unneeded(after Digest, limit, visit int) (rows []UnneededBlob, next Digest, done bool, visited int64, err error) {
	low := oneRow(nil, rangeBlob)
	if after != "" {
		low = append(low, beyond([]byte(after))...)
	}
	m := marking{
		view:       v,
		blobs:      v.cursor(low, oneRow(nil, rangeBlob+1)),
		references: v.cursor(digestKey(nil, rangeReference, Digest(low[1:])), oneRow(nil, rangeReference+1)),
		graces:     v.cursor(digestKey(nil, rangeGrace, Digest(low[1:])), oneRow(nil, rangeGrace+1)),
		clock:      v.ClusterTime(), grace: v.settings().GetGrace(),
	}
	next = after
	for ; m.blobs.ok && v.err == nil; m.blobs.next() {
		if len(rows) >= limit || visited >= int64(visit) {
			break
		}
		visited++
		d, _ := cutDigest(m.blobs.it.Key()[1:])
		next = d
		if row, ok := m.judge(d); ok {
			rows = append(rows, row)
		}
	}
	done = !m.blobs.ok
	v.closeAll(m.blobs, m.references, m.graces)
	if v.err != nil {
		return nil, after, false, 0, v.err
	}
	return rows, next, done, visited, nil
}

// marking merges the three ranges.
type marking struct {
	view                      *View
	blobs, references, graces *cursor
	clock, grace              int64
	// prefix is reused.
	prefix []byte
}

// judge is the decision of CondemnBlobs, on cursors.
func (m *marking) judge(d Digest) (out UnneededBlob, ok bool) {
	m.prefix = digestKey(m.prefix[:0], rangeReference, d)
	for m.references.within(m.prefix) {
		if m.view.counts(m.references.it.Key()[len(m.prefix):], d) {
			return out, false
		}
		m.references.next()
	}
	m.prefix = digestKey(m.prefix[:0], rangeGrace, d)
	for m.graces.within(m.prefix) {
		var row metav1.Grace
		repository, _ := cutName(m.graces.it.Key()[len(m.prefix):])
		if !m.view.decode(m.graces.it.Key(), m.graces.it.Value(), &row) {
			return out, false
		}
		out.Why.add(repository, row.GetSince())
		m.graces.next()
	}
	if !out.Why.over(m.clock, m.grace) {
		return out, false
	}
	out.Digest, out.Blob = d, &metav1.Blob{}
	return out, m.view.decode(m.blobs.it.Key(), m.blobs.it.Value(), out.Blob)
}
