package meta

import metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"

// NeededBy answers the repositories, at most n, in which a manifest needs the blob or a grace of it runs: none for a
// blob that may go. Repositories that are being deleted count until their rows are gone.
func (v *View) NeededBy(d Digest, n int) ([]string, error) {
	var out []string
	seen := map[string]bool{}
	add := func(repository string) bool {
		if !seen[repository] {
			seen[repository] = true
			out = append(out, repository)
		}
		return len(out) < n
	}
	prefix := digestKey(nil, rangeReference, d)
	v.scan(prefix, nil, func(k, _ []byte) bool {
		rest := k[len(prefix):]
		if !v.counts(rest, d) {
			return true
		}
		repository, _ := cutName(rest)
		return add(repository)
	})
	prefix = digestKey(nil, rangeGrace, d)
	v.scan(prefix, nil, func(k, value []byte) bool {
		if len(out) >= n {
			return false
		}
		var row metav1.Grace
		repository, _ := cutName(k[len(prefix):])
		if v.decode(k, value, &row) && v.ClusterTime()-row.GetSince() < v.settings().GetGrace() {
			add(repository)
		}
		return true
	})
	return out, v.err
}
