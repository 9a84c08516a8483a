package gc

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/pontoon-registry/pontoon/meta"
)

func (w *world) plan(cfg Config, o PlanOptions) (items []Item) {
	w.t.Helper()
	err := w.collector(cfg).Plan(w.t.Context(), o, func(i Item) error { items = append(items, i); return nil })
	if err != nil {
		w.t.Fatal(err)
	}
	return items
}

func (w *world) index() (index uint64) {
	w.t.Helper()
	w.view(func(v *meta.View) { index = v.Index() })
	return index
}

func TestAPlanSaysWhatTheCycleThenDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		before, at := s.keys(), s.index()
		items := s.plan(s.config(), PlanOptions{Untagged: true})
		if got := s.keys(); !slices.Equal(got, before) || s.index() != at || len(s.multiparts()) != 7 {
			t.Fatal("a plan has changed something")
		}
		count, bytes := map[What]int64{}, map[What]int64{}
		var gone []string
		for _, i := range items {
			count[i.What]++
			bytes[i.What] += i.Bytes
			if i.Reason == "" || strings.Contains(i.Reason, "%!") {
				t.Errorf("%+v has no reason", i)
			}
			if i.What == DeleteKey || i.What == DeleteOrphan {
				gone = append(gone, i.Key)
			}
		}
		s.request()
		n := s.finish(s.collector(s.config())).GetCount()
		for _, c := range []struct {
			what      What
			got, want int64
		}{
			{DeleteManifest, count[DeleteManifest], n.GetUntaggedManifests()},
			{CondemnBlob, count[CondemnBlob], n.GetCondemnedBlobs()},
			{"bytes of blobs", bytes[CondemnBlob], n.GetCondemnedBytes()},
			{DeleteKey, count[DeleteKey], n.GetDeletedKeys()},
			{"bytes of keys", bytes[DeleteKey], n.GetDeletedBytes()},
			{DeleteOrphan, count[DeleteOrphan], n.GetOrphanKeys()},
			{"bytes of orphans", bytes[DeleteOrphan], n.GetOrphanBytes()},
			{"multiparts", count[AbortMultipart] + 3, n.GetAbortedMultiparts()}, // three lie under keys that are deleted
		} {
			if c.got != c.want || c.want == 0 {
				t.Errorf("%s: planned %d, done %d", c.what, c.got, c.want)
			}
		}
		left := s.keys()
		for _, key := range before {
			if slices.Contains(gone, key) == slices.Contains(left, key) {
				t.Errorf("%s: planned to go: %v, is there: %v", key, slices.Contains(gone, key), slices.Contains(left, key))
			}
		}
		kept := s.plan(s.config(), PlanOptions{})
		if len(kept) != 3 || kept[0].What != KeepKey || !strings.Contains(kept[0].Reason, "its delay is over in 2m") {
			t.Errorf("what is kept: %+v", kept)
		}
	})
}

func TestAPlanOfAnotherEpochAndAnErrorThatEndsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		items := s.plan(s.config(), PlanOptions{ForgetEpochs: []string{"other"}})
		last := items[len(items)-1]
		if last.What != DeleteOrphan || last.Key != s.spared[0] {
			t.Errorf("the last item is %+v, want the object of the other epoch", last)
		}
		enough := errors.New("enough")
		n := 0
		err := s.collector(s.config()).Plan(t.Context(), PlanOptions{}, func(Item) error { n++; return enough })
		if !errors.Is(err, enough) || n != 1 {
			t.Errorf("after %d items: %v", n, err)
		}
	})
}
