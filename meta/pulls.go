package meta

import (
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// addPulls adds what one node counted since its last report. Pulls of what was
// deleted meanwhile are dropped.
func (t *txn) addPulls(c *metav1.AddPulls) (*metav1.Result, error) {
	if err := bounded("pulls", len(c.GetPulls())); err != nil {
		return nil, err
	}
	var n int64
	for _, p := range c.GetPulls() {
		d, err := UnpackDigest(p.GetDigest())
		if err != nil {
			return nil, err
		}
		if p.GetCount() < 1 {
			return nil, invalid(metav1.Noun_NOUN_SIZE, "pulls: got a count of %d, expected at least 1", p.GetCount())
		}
		if !t.has(inRepository(nil, rangeManifest, p.GetRepository(), d)) {
			continue
		}
		row := t.pulls(p.GetRepository(), d)
		row.Count += p.GetCount()
		row.LastWallTime = t.wall
		t.put(inRepository(nil, rangePulls, p.GetRepository(), d), row)
		n++
	}
	return counted(n, false), nil
}

// pulls answers the pulls of a manifest, zero if there are none.
func (r *rows) pulls(repository string, d Digest) *metav1.Pulls {
	row := &metav1.Pulls{}
	r.read(inRepository(r.key[:0], rangePulls, repository, d), row)
	return row
}

// Pulls is how often a manifest was pulled; zero when never, or when it is not there.
func (v *View) Pulls(repository string, d Digest) (*metav1.Pulls, error) {
	row := v.pulls(repository, d)
	return answer(v, row, true, metav1.Noun_NOUN_MANIFEST, "")
}
