package meta

import (
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// What keeps a manifest in a repository: a tag, an index that names it, a subject that lives there, or a confirmation
// within the grace (G8). A referrer whose subject is not there is kept too, unless the subject was here once and left
// longer ago than the grace: one that never came may still come (R-C6). For that the departure of a subject that
// leaves referrers behind is noted, from version 3 on, until it comes back or the last of them goes.

// depart notes that a manifest left the repository, if it has referrers there.
func (t *txn) depart(repository string, d Digest) {
	if t.system.GetVersion() < versionOfGC || !t.any(inRepository(nil, rangeReferrer, repository, d)) {
		return
	}
	t.put(inRepository(nil, rangeDeparted, repository, d), &metav1.Departed{Since: t.clock})
}

// arrive forgets that a manifest had left.
func (t *txn) arrive(repository string, d Digest) {
	if t.system.GetVersion() < versionOfGC {
		return
	}
	if key := inRepository(nil, rangeDeparted, repository, d); t.has(key) {
		t.del(key)
	}
}

// unfollowed forgets the departure of a subject once no referrer of it is left.
func (t *txn) unfollowed(repository string, subject Digest) {
	if subject != "" && !t.any(inRepository(nil, rangeReferrer, repository, subject)) {
		t.arrive(repository, subject)
	}
}

// WhyUntagged says why a manifest may go: no tag and no index names it.
type WhyUntagged struct {
	// Confirmed is when somebody who may push was last told of it, cluster time.
	Confirmed int64
	// Subject is what it refers to and follows; empty if it refers to nothing. It left at Departed, cluster time.
	Subject  Digest
	Departed int64
}

// String says it to a person.
func (w WhyUntagged) String() string {
	if w.Subject == "" {
		return "no tag and no index names it"
	}
	return "no tag and no index names it, and its subject " + w.Subject.String() + " is gone"
}

// untagged says whether a manifest may go at cluster time clock (G3, G8), and why.
func (r *rows) untagged(repository string, d Digest, row *metav1.Manifest, clock, grace int64) (why WhyUntagged, goes bool) {
	why = WhyUntagged{Confirmed: row.GetConfirmed(), Subject: Digest(row.GetSubject())}
	if clock-row.GetConfirmed() < grace ||
		r.any(inRepository(nil, rangeTagged, repository, d)) || r.any(inRepository(nil, rangeChild, repository, d)) {
		return why, false
	}
	if why.Subject == "" {
		return why, true
	}
	var left metav1.Departed
	if r.has(inRepository(nil, rangeManifest, repository, why.Subject)) ||
		!r.read(inRepository(nil, rangeDeparted, repository, why.Subject), &left) {
		return why, false
	}
	why.Departed = left.GetSince()
	return why, clock-why.Departed >= grace
}

// deleteUntagged removes those of the named manifests that nothing keeps at this index. What they needed keeps a grace
// from now: a HEAD of it renewed nothing while they were there (G8).
func (t *txn) deleteUntagged(c *metav1.DeleteUntagged) (*metav1.Result, error) {
	if err := bounded("manifests", len(c.GetDigests())); err != nil {
		return nil, err
	}
	digests, err := unpackAll(c.GetDigests())
	if err != nil {
		return nil, err
	}
	repository := c.GetRepository()
	if err := t.pushable(repository); err != nil {
		return nil, err
	}
	run, err := t.runs(c.GetCycle())
	if err != nil {
		return nil, err
	}
	if !run.GetRunning().GetUntagged() {
		return nil, conflict(metav1.Noun_NOUN_CYCLE, "cycle %d: leaves untagged manifests alone", c.GetCycle())
	}
	var n, work int64
	defer func() { t.countInCycle(run, &metav1.CycleCount{UntaggedManifests: n}) }()
	for i, d := range digests {
		row := t.manifest(repository, d)
		if row == nil {
			continue
		}
		if _, goes := t.untagged(repository, d, row, t.clock, t.settings().GetGrace()); !goes {
			continue
		}
		t.dropManifest(repository, d, row, true)
		t.event(&metav1.Event{Action: metav1.Action_ACTION_DELETE_MANIFEST, Repository: repository, Before: d.Bytes()})
		n++
		if work += 1 + int64(len(row.GetBlobs())+len(row.GetChildren())); work >= maxStep {
			return counted(n, i+1 < len(digests)), nil
		}
	}
	return counted(n, false), nil
}
