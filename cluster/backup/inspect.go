package backup

import (
	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// inspectPage is how many rows are read at once.
const inspectPage = 1000

// Repository is what a state holds of one.
type Repository struct {
	Name string
	*metav1.Repository
}

// Repositories calls each for every repository, in order.
func Repositories(v *meta.View, each func(Repository) error) error {
	return walk(func(after string) ([]string, bool, error) { return v.Repositories(after, inspectPage) },
		func(name string) string { return name },
		func(name string) error {
			row, err := v.Repository(name)
			if err != nil {
				return err
			}
			return each(Repository{name, row})
		})
}

// Tags calls each for every tag of a repository, in order.
func Tags(v *meta.View, repository string, each func(meta.TagItem) error) error {
	return walk(func(after string) ([]meta.TagItem, bool, error) { return v.Tags(repository, after, inspectPage) },
		func(t meta.TagItem) string { return t.Name }, each)
}

// walk goes through a list page by page.
func walk[T any](page func(after string) ([]T, bool, error), name func(T) string, each func(T) error) error {
	for after := ""; ; {
		rows, more, err := page(after)
		if err != nil {
			return err
		}
		for _, row := range rows {
			if err := each(row); err != nil {
				return err
			}
			after = name(row)
		}
		if !more {
			return nil
		}
	}
}

// Change is a difference between two states: of a tag, or of a repository as a whole when Tag is empty.
type Change struct {
	Repository, Tag string
	// Before and After are a tag's digests, empty where it is not there.
	Before, After meta.Digest
	// Old and New are the repository's rows, nil where it is not there.
	Old, New *metav1.Repository
}

// Changes calls each for every repository that is new, gone or holds something else, and then for each of its tags
// that is new, gone or moved. Memory holds a page of each state.
func Changes(before, after *meta.View, each func(Change) error) error {
	return merge(
		func(at string) ([]string, bool, error) { return before.Repositories(at, inspectPage) },
		func(at string) ([]string, bool, error) { return after.Repositories(at, inspectPage) },
		func(name string) string { return name },
		func(name string, was, is *string) error {
			return repositoryChange(before, after, name, was != nil, is != nil, each)
		})
}

func repositoryChange(before, after *meta.View, name string, was, is bool, each func(Change) error) (err error) {
	c := Change{Repository: name}
	if was {
		if c.Old, err = before.Repository(name); err != nil {
			return err
		}
	}
	if is {
		if c.New, err = after.Repository(name); err != nil {
			return err
		}
	}
	told := false
	tell := func(t Change) error {
		if !told {
			told = true
			if err := each(c); err != nil {
				return err
			}
		}
		if t.Tag == "" {
			return nil
		}
		return each(t)
	}
	if c.Old.GetManifests() != c.New.GetManifests() || c.Old.GetBytes() != c.New.GetBytes() || was != is {
		if err := tell(c); err != nil {
			return err
		}
	}
	page := func(v *meta.View, there bool) func(string) ([]meta.TagItem, bool, error) {
		return func(at string) ([]meta.TagItem, bool, error) {
			if !there {
				return nil, false, nil
			}
			return v.Tags(name, at, inspectPage)
		}
	}
	return merge(page(before, was), page(after, is), func(t meta.TagItem) string { return t.Name },
		func(tag string, was, is *meta.TagItem) error {
			t := Change{Repository: name, Tag: tag}
			if was != nil {
				t.Before = meta.Digest(was.GetDigest())
			}
			if is != nil {
				t.After = meta.Digest(is.GetDigest())
			}
			if t.Before == t.After {
				return nil
			}
			return tell(t)
		})
}

// merge walks two ordered lists side by side: each is told of every name, with nil where one of them lacks it.
func merge[T any](a, b func(after string) ([]T, bool, error), name func(T) string, each func(name string, a, b *T) error) error {
	left, right := pager[T]{page: a, name: name}, pager[T]{page: b, name: name}
	for {
		x, err := left.peek()
		if err != nil {
			return err
		}
		y, err := right.peek()
		if err != nil {
			return err
		}
		switch {
		case x == nil && y == nil:
			return nil
		case y == nil || x != nil && name(*x) < name(*y):
			y = nil
		case x == nil || name(*y) < name(*x):
			x = nil
		}
		at := ""
		if x != nil {
			at = name(*x)
			left.rows = left.rows[1:]
		}
		if y != nil {
			at = name(*y)
			right.rows = right.rows[1:]
		}
		if err := each(at, x, y); err != nil {
			return err
		}
	}
}

// pager reads a list a page at a time.
type pager[T any] struct {
	page  func(after string) ([]T, bool, error)
	name  func(T) string
	rows  []T
	after string
	begun bool
	more  bool
}

// peek answers the next row, nil at the end.
func (p *pager[T]) peek() (*T, error) {
	if len(p.rows) == 0 && (!p.begun || p.more) {
		var err error
		if p.rows, p.more, err = p.page(p.after); err != nil {
			return nil, err
		}
		p.begun = true
		if n := len(p.rows); n > 0 {
			p.after = p.name(p.rows[n-1])
		}
	}
	if len(p.rows) == 0 {
		return nil, nil
	}
	return &p.rows[0], nil
}
