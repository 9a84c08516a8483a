package meta

import (
	"bytes"

	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

func (r *rows) tag(repository, tag string) *metav1.Tag {
	row := &metav1.Tag{}
	if !r.read(tagKey(r.key[:0], repository, tag), row) {
		return nil
	}
	return row
}

// tagsOf answers at most n tags that name a manifest; all if n is negative.
func (r *rows) tagsOf(repository string, d Digest, n int) (out []string) {
	if n == 0 {
		return nil
	}
	prefix := inRepository(nil, rangeTagged, repository, d)
	r.scan(prefix, nil, func(k, _ []byte) bool {
		name, _ := cutName(k[len(prefix):])
		out = append(out, name)
		return len(out) != n
	})
	return out
}

// holds judges the caller's precondition on a tag (M6).
func (t *txn) holds(repository, tag string, c *metav1.TagCondition) error {
	if !c.GetAbsent() && len(c.GetDigest()) == 0 {
		return nil
	}
	row := t.tag(repository, tag)
	current := Digest(row.GetDigest())
	if c.GetAbsent() && row == nil || !c.GetAbsent() && bytes.Equal(c.GetDigest(), row.GetDigest()) {
		return nil
	}
	e := Refuse(metav1.Kind_KIND_PRECONDITION, metav1.Noun_NOUN_TAG, "tag %s: is %s now", tag, orNothing(current))
	e.Current = current.String()
	return e
}

func orNothing(d Digest) string {
	if d == "" {
		return "not there"
	}
	return d.String()
}

// setTag points a tag at a manifest of the repository.
func (t *txn) setTag(repository, tag string, d Digest) {
	old := t.tag(repository, tag)
	before := Digest(old.GetDigest())
	if old == nil {
		t.count(repository, tally{tags: 1})
	} else if before != d {
		t.del(taggedKey(nil, repository, before, tag))
		t.letGo(repository, before)
	}
	t.put(tagKey(nil, repository, tag), &metav1.Tag{Digest: d.Bytes(), Revision: t.index, Pushed: t.stamp()})
	t.mark(taggedKey(nil, repository, d, tag))
	t.event(&metav1.Event{Action: metav1.Action_ACTION_PUT_TAG, Repository: repository, Tag: tag, Before: before.Bytes(), After: d.Bytes()})
}

func (t *txn) deleteTag(c *metav1.DeleteTag) (*metav1.Result, error) {
	repository, tag := c.GetRepository(), c.GetTag()
	if err := t.pushable(repository); err != nil {
		return nil, err
	}
	if err := checkName(metav1.Noun_NOUN_TAG, "tag", tag); err != nil {
		return nil, err
	}
	row := t.tag(repository, tag)
	if row == nil {
		return nil, noTag(repository, tag)
	}
	if err := t.holds(repository, tag, c.GetCondition()); err != nil {
		return nil, err
	}
	t.dropTag(repository, tag, Digest(row.GetDigest()))
	t.letGo(repository, Digest(row.GetDigest()))
	return nil, nil
}

// dropTag removes a tag that is there.
func (t *txn) dropTag(repository, tag string, d Digest) {
	t.del(tagKey(nil, repository, tag))
	t.del(taggedKey(nil, repository, d, tag))
	t.count(repository, tally{tags: -1})
	t.event(&metav1.Event{Action: metav1.Action_ACTION_DELETE_TAG, Repository: repository, Tag: tag, Before: d.Bytes()})
}

func noTag(repository, tag string) *Error {
	return unknown(metav1.Noun_NOUN_TAG, "tag %s: is not in repository %s", clip(tag), clip(repository))
}

// Tag looks a tag up.
func (v *View) Tag(repository, tag string) (*metav1.Tag, error) {
	if err := v.visible(repository, metav1.Noun_NOUN_TAG); err != nil {
		return nil, err
	}
	row := v.tag(repository, tag)
	if v.err == nil && row == nil {
		return nil, noTag(repository, tag)
	}
	return row, v.err
}

// TagItem is a tag with its name.
type TagItem struct {
	Name string
	*metav1.Tag
}

// Tags lists the tags of a repository above after, in byte order, at most n.
func (v *View) Tags(repository, after string, n int) (rows []TagItem, more bool, err error) {
	if err := v.visible(repository, metav1.Noun_NOUN_REPOSITORY); err != nil {
		return nil, false, err
	}
	prefix := nameKey(nil, rangeTag, repository)
	return list(&v.rows, prefix, afterName(prefix, after), n, func(rest, value []byte) (TagItem, bool) {
		it := TagItem{Tag: &metav1.Tag{}}
		it.Name, _ = cutName(rest)
		return it, v.decode(rest, value, it.Tag)
	})
}

// TagsOf lists the tags that name a manifest, at most n.
func (v *View) TagsOf(repository string, d Digest, n int) ([]string, error) {
	if err := v.visible(repository, metav1.Noun_NOUN_REPOSITORY); err != nil {
		return nil, err
	}
	out := v.tagsOf(repository, d, n)
	return out, v.err
}
