package meta

import (
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

func (r *rows) manifest(repository string, d Digest) *metav1.Manifest {
	row := &metav1.Manifest{}
	if !r.read(inRepository(r.key[:0], rangeManifest, repository, d), row) {
		return nil
	}
	return row
}

// parents answers at most n indexes of the repository that name a child.
func (r *rows) parents(repository string, child Digest, n int) (out []Digest) {
	prefix := inRepository(nil, rangeChild, repository, child)
	r.scan(prefix, nil, func(k, _ []byte) bool {
		d, _ := cutDigest(k[len(prefix):])
		out = append(out, d)
		return len(out) < n
	})
	return out
}

// putManifest commits a manifest with its tags, references, counters, referrer
// and events in one command (M4).
func (t *txn) putManifest(c *metav1.PutManifest) (*metav1.Result, error) {
	m, err := checkManifest(c)
	if err != nil {
		return nil, err
	}
	repository := c.GetRepository()
	if err := t.pushable(repository); err != nil {
		return nil, err
	}
	for _, tag := range c.GetTags() {
		if err := t.holds(repository, tag, c.GetCondition()); err != nil {
			return nil, err
		}
	}
	if err := t.commitBody(c, m.digest); err != nil {
		return nil, err
	}
	absent, err := t.present(repository, m)
	if err != nil {
		return nil, err
	}
	t.ensureRepository(repository)
	created := t.writeManifest(c, m, absent)
	for _, tag := range c.GetTags() {
		t.setTag(repository, tag, m.digest)
	}
	return &metav1.Result{Value: &metav1.Result_Manifest{Manifest: &metav1.ManifestResult{Created: created}}}, nil
}

// commitBody makes a large body the blob of the manifest's digest (R-C1, G2).
func (t *txn) commitBody(c *metav1.PutManifest, d Digest) error {
	u := c.GetUpload()
	if u == nil {
		return nil
	}
	if u.GetRepository() != c.GetRepository() || Digest(u.GetDigest()) != d || u.GetSize() != c.GetSize() {
		return invalid(metav1.Noun_NOUN_MANIFEST, "manifest: its upload is of another repository, digest or size")
	}
	if _, err := t.commitUpload(u); err != nil {
		return err
	}
	// A commit that is repeated changes nothing: the body may have been deleted since.
	if t.liveBlob(c.GetRepository(), d, t.clock, t.settings().GetGrace()) == nil {
		return noBlob(c.GetRepository(), d)
	}
	return nil
}

// present is M4: everything that the manifest names is live in the repository at
// this index, or its kind lets it be absent. It answers the absent blobs.
func (t *txn) present(repository string, m named) (absent map[Digest]bool, err error) {
	var missing []Digest
	for _, d := range m.blobs {
		if t.liveBlob(repository, d, t.clock, t.settings().GetGrace()) == nil {
			missing = append(missing, d)
		}
	}
	if len(missing) > 0 && !t.settings().GetSparseImages() {
		return nil, refuseMissing(metav1.Noun_NOUN_BLOB, repository, missing)
	}
	absent = make(map[Digest]bool, len(missing))
	for _, d := range missing {
		absent[d] = true
	}
	missing = nil
	for _, d := range m.children {
		if d != m.digest && t.manifest(repository, d) == nil {
			missing = append(missing, d)
		}
	}
	if len(missing) > 0 && !t.settings().GetSparseIndexes() {
		return nil, refuseMissing(metav1.Noun_NOUN_MANIFEST, repository, missing)
	}
	return absent, nil
}

func refuseMissing(noun metav1.Noun, repository string, missing []Digest) error {
	what := "blobs"
	if noun == metav1.Noun_NOUN_MANIFEST {
		what = "manifests"
	}
	e := unknown(noun, "manifest: %d of the %s that it names are not in repository %s; push them first", len(missing), what, repository)
	e.Names = digestNames(missing[:min(len(missing), namesBound)])
	return e
}

// writeManifest writes the rows of a manifest that was judged. One that is there
// already is confirmed; if the push says other facts of the same bytes, these count from now on.
func (t *txn) writeManifest(c *metav1.PutManifest, m named, absent map[Digest]bool) (created bool) {
	repository := c.GetRepository()
	row := &metav1.Manifest{
		Pushed: t.stamp(), Confirmed: t.clock, MediaType: c.GetMediaType(), Size: c.GetSize(),
		Subject: c.GetSubject(), ArtifactType: c.GetArtifactType(), Annotations: c.GetAnnotations(),
		Blobs: packAll(m.blobs), Children: packAll(m.children), Large: c.GetUpload() != nil,
	}
	old := t.manifest(repository, m.digest)
	if old == nil {
		t.holdBody(m.digest, c)
		t.count(repository, tally{manifests: 1})
		t.event(&metav1.Event{Action: metav1.Action_ACTION_PUSH_MANIFEST, Repository: repository, After: m.digest.Bytes()})
	} else {
		row.Pushed = old.GetPushed()
		if !sameFacts(old, row) {
			t.dropLinks(repository, m.digest, old, true)
		}
	}
	t.put(inRepository(nil, rangeManifest, repository, m.digest), row)
	t.drawLinks(repository, m, row, absent)
	t.arrive(repository, m.digest)
	if old != nil {
		t.unfollowed(repository, Digest(old.GetSubject()))
	}
	return old == nil
}

// drawLinks writes the rows that say what a manifest names.
func (t *txn) drawLinks(repository string, m named, row *metav1.Manifest, absent map[Digest]bool) {
	for _, b := range m.blobs {
		if absent[b] {
			t.mark(linkKey(nil, rangeAbsent, b, repository, m.digest))
			continue
		}
		t.refer(repository, b, m.digest)
	}
	t.mark(linkKey(nil, rangeReference, m.digest, repository, m.digest))
	if row.GetLarge() {
		t.dropGrace(repository, m.digest)
	}
	for _, child := range m.children {
		t.mark(childKey(nil, repository, child, m.digest))
	}
	if m.subject != "" {
		t.put(referrerKey(nil, repository, m.subject, row.GetArtifactType(), m.digest), &metav1.Referrer{
			MediaType: row.GetMediaType(), Size: row.GetSize(), Annotations: row.GetAnnotations(), Large: row.GetLarge(),
		})
	}
}

// dropLinks takes back what drawLinks wrote.
func (t *txn) dropLinks(repository string, d Digest, row *metav1.Manifest, graced bool) {
	for _, b := range row.GetBlobs() {
		t.unrefer(repository, Digest(b), d, graced)
	}
	for _, child := range row.GetChildren() {
		t.del(childKey(nil, repository, Digest(child), d))
		t.letGo(repository, Digest(child))
	}
	if len(row.GetSubject()) > 0 {
		t.del(referrerKey(nil, repository, Digest(row.GetSubject()), row.GetArtifactType(), d))
	}
}

// letGo starts the grace of a manifest that lost a tag or an index: while it had
// one, telling a pusher that it exists renewed nothing (G8).
func (t *txn) letGo(repository string, d Digest) {
	if row := t.manifest(repository, d); row != nil && row.GetConfirmed() < t.clock {
		row.Confirmed = t.clock
		t.put(inRepository(nil, rangeManifest, repository, d), row)
	}
}

// holdBody keeps the body once per registry, as long as a repository has it.
func (t *txn) holdBody(d Digest, c *metav1.PutManifest) {
	body := &metav1.ManifestBody{}
	if !t.read(digestKey(nil, rangeManifestBody, d), body) {
		body = &metav1.ManifestBody{MediaType: c.GetMediaType(), Body: c.GetBody()}
	}
	body.Repositories++
	t.put(digestKey(nil, rangeManifestBody, d), body)
}

func (t *txn) releaseBody(d Digest) {
	body := &metav1.ManifestBody{}
	t.read(digestKey(nil, rangeManifestBody, d), body)
	if body.Repositories--; body.Repositories <= 0 {
		t.del(digestKey(nil, rangeManifestBody, d))
		return
	}
	t.put(digestKey(nil, rangeManifestBody, d), body)
}

// deleteManifest removes a manifest with its tags (R-C9). Its blobs keep a grace
// in the repository from now on: a push of the same image needs no bytes again, and GC decides later.
func (t *txn) deleteManifest(c *metav1.DeleteManifest) (*metav1.Result, error) {
	d, err := UnpackDigest(c.GetDigest())
	if err != nil {
		return nil, err
	}
	repository := c.GetRepository()
	if err := t.pushable(repository); err != nil {
		return nil, err
	}
	row := t.manifest(repository, d)
	if row == nil {
		return nil, noManifest(repository, d)
	}
	if parents := t.parents(repository, d, namesBound); len(parents) > 0 && !t.settings().GetSparseIndexes() {
		refusal := Refuse(metav1.Kind_KIND_UNSUPPORTED, metav1.Noun_NOUN_MANIFEST,
			"manifest %s: indexes of repository %s name it; delete them first", d, repository)
		refusal.Names = digestNames(parents)
		return nil, refusal
	}
	for _, tag := range t.tagsOf(repository, d, -1) {
		t.dropTag(repository, tag, d)
	}
	t.dropManifest(repository, d, row, true)
	t.event(&metav1.Event{Action: metav1.Action_ACTION_DELETE_MANIFEST, Repository: repository, Before: d.Bytes()})
	return nil, nil
}

// dropManifest removes a manifest without tags from a repository.
func (t *txn) dropManifest(repository string, d Digest, row *metav1.Manifest, graced bool) {
	t.del(inRepository(nil, rangeManifest, repository, d))
	t.del(inRepository(nil, rangePulls, repository, d))
	t.dropLinks(repository, d, row, graced)
	if row.GetLarge() {
		t.unrefer(repository, d, d, graced)
	} else {
		t.del(linkKey(nil, rangeReference, d, repository, d))
	}
	t.releaseBody(d)
	t.count(repository, tally{manifests: -1})
	t.depart(repository, d)
	t.unfollowed(repository, Digest(row.GetSubject()))
}

func noManifest(repository string, d Digest) *Error {
	e := unknown(metav1.Noun_NOUN_MANIFEST, "manifest %s: is not in repository %s", d, clip(repository))
	e.Names = []string{d.String()}
	return e
}
