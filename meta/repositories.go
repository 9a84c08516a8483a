package meta

import (
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// A repository exists from the first blob, mount or manifest that is committed
// to it until DeleteRepository has removed its last row:
//
//	(none) ── first content ──► hosted ── DeleteRepository ──► deleting ── the last step ──► (none)
//
// While it is deleting nothing in it can be seen or pushed.
//
// What is counted, exactly and in the same command as the change: manifests and
// tags are rows; bytes are the sizes of the blobs linked to the repository, each
// once however many manifests need it. A blob is linked while a manifest of the repository
// needs it or a grace row stands, expired or not; a body above 64 KiB is a blob, a smaller one
// is not counted; absent blobs are not counted, lost ones are.

func (r *rows) repository(name string) *metav1.Repository {
	row := &metav1.Repository{}
	if !r.read(nameKey(r.key[:0], rangeRepository, name), row) {
		return nil
	}
	return row
}

func (r *rows) usage(project string) *metav1.Usage {
	row := &metav1.Usage{}
	if !r.read(nameKey(r.key[:0], rangeUsage, project), row) {
		return nil
	}
	return row
}

// pushable refuses names that are no key and repositories that are being deleted.
func (t *txn) pushable(repository string) error {
	if err := checkName(metav1.Noun_NOUN_NAME, "repository name", repository); err != nil {
		return err
	}
	if t.repository(repository).GetDeleting() {
		return conflict(metav1.Noun_NOUN_REPOSITORY, "repository %s: is being deleted", repository)
	}
	return nil
}

// ensureRepository makes a repository with its first content. The caller has asked pushable.
func (t *txn) ensureRepository(name string) {
	if t.repository(name) != nil {
		return
	}
	t.put(nameKey(nil, rangeRepository, name), &metav1.Repository{
		Created: t.stamp(), Kind: metav1.RepositoryKind_REPOSITORY_KIND_HOSTED,
	})
	project := ProjectOf(name)
	use := t.usage(project)
	if use == nil {
		use = &metav1.Usage{Created: t.stamp()}
	}
	use.Repositories++
	t.put(nameKey(nil, rangeUsage, project), use)
	t.event(&metav1.Event{Action: metav1.Action_ACTION_CREATE_REPOSITORY, Repository: name})
}

// tally is a change of the counters.
type tally struct{ bytes, manifests, tags int64 }

// count adds to the counters of a repository that exists, and of its project.
func (t *txn) count(repository string, d tally) {
	if d == (tally{}) {
		return
	}
	row, use := t.repository(repository), t.usage(ProjectOf(repository))
	row.Bytes += d.bytes
	row.Manifests += d.manifests
	row.Tags += d.tags
	t.put(nameKey(nil, rangeRepository, repository), row)
	use.Bytes += d.bytes
	use.Manifests += d.manifests
	use.Tags += d.tags
	t.put(nameKey(nil, rangeUsage, ProjectOf(repository)), use)
}

// deleteRepository removes at most about limit rows: a manifest goes whole, with
// its at most 32 k references. First tags, then manifests, then grace, then the row itself.
func (t *txn) deleteRepository(c *metav1.DeleteRepository) (*metav1.Result, error) {
	limit, err := step(c.GetLimit())
	if err != nil {
		return nil, err
	}
	name := c.GetRepository()
	if err := checkName(metav1.Noun_NOUN_NAME, "repository name", name); err != nil {
		return nil, err
	}
	row := t.repository(name)
	if row == nil {
		return nil, unknown(metav1.Noun_NOUN_REPOSITORY, "repository %s: is not there", name)
	}
	if !row.GetDeleting() {
		row.Deleting = true
		t.put(nameKey(nil, rangeRepository, name), row)
		t.event(&metav1.Event{Action: metav1.Action_ACTION_DELETE_REPOSITORY, Repository: name})
	}
	done := t.dropTags(name, limit)
	if done < limit {
		done += t.dropManifests(name, limit-done)
	}
	if done < limit {
		done += t.dropGraces(name, limit-done)
	}
	if done >= limit {
		return counted(int64(done), true), nil
	}
	t.forgetRepository(name)
	return counted(int64(done)+1, false), nil
}

func (t *txn) dropTags(repository string, limit int) int {
	type tagRow struct {
		name   string
		digest Digest
	}
	var tags []tagRow
	prefix := nameKey(nil, rangeTag, repository)
	t.scan(prefix, nil, func(k, v []byte) bool {
		row := &metav1.Tag{}
		name, _ := cutName(k[len(prefix):])
		if t.decode(k, v, row) {
			tags = append(tags, tagRow{name, Digest(row.GetDigest())})
		}
		return len(tags) < limit
	})
	for _, tag := range tags {
		t.del(tagKey(nil, repository, tag.name))
		t.del(taggedKey(nil, repository, tag.digest, tag.name))
	}
	t.count(repository, tally{tags: -int64(len(tags))})
	return len(tags)
}

func (t *txn) dropManifests(repository string, limit int) (done int) {
	prefix := nameKey(nil, rangeManifest, repository)
	for done < limit {
		key := t.first(prefix, beyond(prefix))
		if key == nil {
			break
		}
		d, _ := cutDigest(key[len(prefix):])
		row := t.manifest(repository, d)
		if row == nil {
			break
		}
		t.dropManifest(repository, d, row, false)
		done += 1 + len(row.GetBlobs()) + len(row.GetChildren())
	}
	return done
}

func (t *txn) dropGraces(repository string, limit int) int {
	var blobs []Digest
	prefix := nameKey(nil, rangeGraced, repository)
	t.scan(prefix, nil, func(k, _ []byte) bool {
		d, _ := cutDigest(k[len(prefix):])
		blobs = append(blobs, d)
		return len(blobs) < limit
	})
	for _, d := range blobs {
		t.dropGrace(repository, d)
		t.count(repository, tally{bytes: -t.blob(d).GetSize()})
	}
	return len(blobs)
}

func (t *txn) forgetRepository(name string) {
	t.del(nameKey(nil, rangeRepository, name))
	project := ProjectOf(name)
	use := t.usage(project)
	use.Repositories--
	if use.GetRepositories() == 0 {
		t.del(nameKey(nil, rangeUsage, project))
		return
	}
	t.put(nameKey(nil, rangeUsage, project), use)
}

// Repository looks a repository up; one that is being deleted is unknown.
func (v *View) Repository(name string) (*metav1.Repository, error) {
	row := v.repository(name)
	return answer(v, row, row != nil && !row.GetDeleting(), metav1.Noun_NOUN_REPOSITORY, "repository %s: is not there", clip(name))
}

// Repositories lists names above after, in byte order, at most n, with a flag whether there are more.
func (v *View) Repositories(after string, n int) (names []string, more bool, err error) {
	prefix := oneRow(nil, rangeRepository)
	return list(&v.rows, prefix, afterName(prefix, after), n, func(rest, value []byte) (string, bool) {
		var row metav1.Repository
		name, _ := cutName(rest)
		return name, v.decode(rest, value, &row) && !row.GetDeleting()
	})
}

// Project is one project's usage.
type Project struct {
	Name string
	*metav1.Usage
}

// Projects lists the usage of each project above after.
func (v *View) Projects(after string, n int) (rows []Project, more bool, err error) {
	prefix := oneRow(nil, rangeUsage)
	return list(&v.rows, prefix, afterName(prefix, after), n, func(rest, value []byte) (Project, bool) {
		p := Project{Usage: &metav1.Usage{}}
		p.Name, _ = cutName(rest)
		return p, v.decode(rest, value, p.Usage)
	})
}
