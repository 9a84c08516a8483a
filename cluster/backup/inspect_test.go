package backup

import (
	"fmt"
	"slices"
	"testing"

	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// tag pushes manifest n under a tag.
func (r *recorder) tag(repository, tag string, n int) {
	c := push(n, 20)
	c.GetPutManifest().Repository, c.GetPutManifest().Tags = repository, []string{tag}
	r.apply(c)
}

// TestWhatASnapshotHoldsIsToldInOrder.
func TestWhatASnapshotHoldsIsToldInOrder(t *testing.T) {
	r := newRecorder(t)
	const tags = 2*inspectPage + 7
	for n := range tags {
		r.tag("p/many", fmt.Sprintf("t%05d", n), n%3)
	}
	r.tag("p/one", "x", 7)
	v := r.view()
	var got []string
	if err := Repositories(v, func(r Repository) error {
		got = append(got, fmt.Sprintf("%s %d %d", r.Name, r.GetTags(), r.GetManifests()))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if want := []string{fmt.Sprintf("p/many %d 3", tags), "p/one 1 1"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	seen := 0
	if err := Tags(v, "p/many", func(item meta.TagItem) error {
		if item.Name != fmt.Sprintf("t%05d", seen) {
			t.Fatalf("tag %d is %s", seen, item.Name)
		}
		seen++
		return nil
	}); err != nil || seen != tags {
		t.Errorf("%d tags, %v", seen, err)
	}
}

// TestWhatChangedBetweenTwoIsTold: repositories and tags that are new, gone or moved, and nothing else.
func TestWhatChangedBetweenTwoIsTold(t *testing.T) {
	r := newRecorder(t)
	for n := range inspectPage + 5 { // a page that does not change
		r.tag("p/a", fmt.Sprintf("same%05d", n), 1)
	}
	r.tag("p/a", "goes", 1)
	r.tag("p/a", "moves", 1)
	r.tag("p/gone", "x", 2)
	r.tag("p/still", "x", 3)
	before := r.view()
	r.apply(&metav1.Command{Kind: &metav1.Command_DeleteTag{DeleteTag: &metav1.DeleteTag{Repository: "p/a", Tag: "goes"}}})
	r.tag("p/a", "moves", 4)
	r.tag("p/a", "a-new", 1)
	r.tag("p/b", "x", 5)
	r.tag("p/empty", "x", 6)
	r.apply(&metav1.Command{Kind: &metav1.Command_DeleteManifest{DeleteManifest: &metav1.DeleteManifest{Repository: "p/empty", Digest: push(6, 20).GetPutManifest().GetDigest()}}})
	r.apply(&metav1.Command{Kind: &metav1.Command_DeleteRepository{DeleteRepository: &metav1.DeleteRepository{Repository: "p/gone", Limit: 100}}})
	after := r.view()
	changes := func(a, b *meta.View) (out []string) {
		if err := Changes(a, b, func(c Change) error {
			out = append(out, fmt.Sprintf("%s %s %v %v", c.Repository, c.Tag, c.Before != "" || c.Tag == "" && c.Old != nil, c.After != "" || c.Tag == "" && c.New != nil))
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return out
	}
	want := []string{"p/a  true true", "p/a a-new false true", "p/a goes true false", "p/a moves true true",
		"p/b  false true", "p/b x false true", "p/empty  false true", "p/gone  true false", "p/gone x true false"}
	if got := changes(before, after); !slices.Equal(got, want) {
		t.Errorf("got\n%q, want\n%q", got, want)
	}
	if got := changes(after, after); len(got) != 0 {
		t.Errorf("from itself: %q", got)
	}
	if got := changes(after, before); len(got) != len(want) {
		t.Errorf("backwards: %q", got)
	}
}
