package meta

import (
	"bytes"
	"fmt"

	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// A blob is unneeded when no reference row has it in any repository, and every grace row of it is older than the
// grace. The view that finds such blobs (unneeded.go) may be old by the time that its finds arrive here: they are
// decided again (G3).

// neededAnywhere says whether a manifest of any repository needs the blob. Its own row in the references counts when
// the body is the blob (links.go).
func (r *rows) neededAnywhere(d Digest) (needed bool) {
	prefix := digestKey(nil, rangeReference, d)
	r.scan(prefix, nil, func(k, _ []byte) bool {
		needed = r.counts(k[len(prefix):], d)
		return !needed
	})
	return needed
}

// counts says whether a reference to a blob is one: rest is what follows the blob in its key.
func (r *rows) counts(rest []byte, d Digest) bool {
	end := bytes.IndexByte(rest, 0)
	return string(rest[end+1:]) != string(d) || r.manifest(string(rest[:max(end, 0)]), d).GetLarge()
}

// graces answers the repositories with a grace row of the blob, and the latest of the rows.
func (r *rows) graces(d Digest) (repositories []string, last WhyUnneeded) {
	prefix := digestKey(nil, rangeGrace, d)
	r.scan(prefix, nil, func(k, value []byte) bool {
		repository, _ := cutName(k[len(prefix):])
		repositories = append(repositories, repository)
		var row metav1.Grace
		return r.decode(k, value, &row) && last.add(repository, row.GetSince())
	})
	return repositories, last
}

// WhyUnneeded says why a blob may go: no manifest needs it, and the links below ran out.
type WhyUnneeded struct {
	// Links is how many repositories it was linked to by a push, mount or confirmation.
	Links int
	// Repository has the latest of them, from Since, cluster time. Empty without links.
	Repository string
	Since      int64
}

// add takes in one grace row. It answers true.
func (w *WhyUnneeded) add(repository string, since int64) bool {
	if w.Links == 0 || since > w.Since {
		w.Repository, w.Since = repository, since
	}
	w.Links++
	return true
}

// over says whether all links have run out (G8).
func (w *WhyUnneeded) over(clock, grace int64) bool { return w.Links == 0 || clock-w.Since >= grace }

// String says it to a person.
func (w WhyUnneeded) String() string {
	switch w.Links {
	case 0:
		return "no manifest needs it, and no repository has it"
	case 1:
		return fmt.Sprintf("no manifest needs it; repository %s had it last", w.Repository)
	}
	return fmt.Sprintf("no manifest needs it; repository %s had it last, of %d", w.Repository, w.Links)
}

// doomed is a blob that goes, and the repositories whose links to it ran out.
type doomed struct {
	Digest
	*metav1.Blob
	graces []string
}

// condemnBlobs takes away those of the named blobs that are unneeded at this index, and condemns their keys.
func (t *txn) condemnBlobs(c *metav1.CondemnBlobs) (*metav1.Result, error) {
	if err := bounded("blobs", len(c.GetDigests())); err != nil {
		return nil, err
	}
	digests, err := unpackAll(c.GetDigests())
	if err != nil {
		return nil, err
	}
	row, err := t.runs(c.GetCycle())
	if err != nil {
		return nil, err
	}
	// All are judged before the first write: a scan costs what the buffer holds.
	var gone []doomed
	for _, d := range digests {
		if blob := t.blob(d); blob != nil && !t.neededAnywhere(d) {
			if graces, last := t.graces(d); last.over(t.clock, t.settings().GetGrace()) {
				gone = append(gone, doomed{d, blob, graces})
			}
		}
	}
	result := t.condemnAll(gone)
	t.countInCycle(row, &metav1.CycleCount{CondemnedBlobs: result.GetCount().GetRows(), CondemnedBytes: result.GetCount().GetBytes()})
	return result, nil
}

// condemnAll drops the rows of blobs that go; absent rows stay: a push of the blob gives it to those who wait for it.
func (t *txn) condemnAll(gone []doomed) *metav1.Result {
	result := counted(int64(len(gone)), false)
	freed := map[string]int64{}
	for _, b := range gone {
		t.del(digestKey(nil, rangeBlob, b.Digest))
		for _, repository := range b.graces {
			t.dropGrace(repository, b.Digest)
			freed[repository] += b.GetSize()
		}
		t.condemn(b.GetStore(), b.GetKey(), b.GetSize(), "")
		result.GetCount().Bytes += b.GetSize()
	}
	for repository, n := range freed { // sums: their order is nothing
		t.count(repository, tally{bytes: -n})
	}
	return result
}
