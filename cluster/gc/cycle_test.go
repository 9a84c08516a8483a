package gc

import (
	"testing"
	"testing/synctest"
	"time"

	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// inBubble runs a test with a clock of its own.
func inBubble(t *testing.T, fn func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { fn(t, newWorld(t)) })
}

func TestUntaggedManifestsStayUnlessTheyAreToGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		cfg := s.config()
		cfg.Untagged = false
		s.request()
		c := s.finish(s.collector(cfg))
		if n := c.GetCount().GetUntaggedManifests(); n != 0 || c.GetUntagged() {
			t.Errorf("%d manifests went: %v", n, c)
		}
		s.request()
		if n := s.finish(s.collector(s.config())).GetCount().GetUntaggedManifests(); n != 3 {
			t.Errorf("%d manifests went, want 3", n)
		}
		s.safe("untagged")
	})
}

func TestADeletedImageLeavesTheStoreInTime(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		shared, own := []byte("shared by two"), []byte("of one alone, in parts")
		w.pushImage("a/x", "keep", shared, []byte("kept"))
		gone := w.pushImage("a/x", "drop", shared, own)
		w.deleteImage("a/x", gone)

		c := w.cycle(w.config())
		if n := c.GetCount(); n.GetCondemnedBlobs() != 0 || n.GetMarked() != 3 {
			t.Errorf("within the grace: %v, want nothing condemned of 3", n)
		}
		time.Sleep(61 * time.Minute)
		c = w.cycle(w.config())
		if n := c.GetCount(); n.GetCondemnedBlobs() != 1 || n.GetCondemnedBytes() != int64(len(own)) || n.GetDeletedKeys() != 0 {
			t.Errorf("after the grace: %v, want one condemned and none deleted", n)
		}
		if k := c.GetKept(); k.GetKeys() != 5 || k.GetForDelay() != 5 {
			// The blob's own, the second push of what is shared, and the tails of three uploads.
			t.Errorf("after the grace: kept %v, want 5 for the delay", k)
		}
		time.Sleep(26 * time.Hour)
		c = w.cycle(w.config())
		if n := c.GetCount(); n.GetDeletedKeys() != 5 || n.GetDeletedBytes() < int64(len(own)+len(shared)) || c.GetKept().GetKeys() != 0 {
			t.Errorf("after the delay: %v, kept %v, want all deleted", n, c.GetKept())
		}
		if c.GetOutcome() != metav1.CycleOutcome_CYCLE_OUTCOME_DONE {
			t.Errorf("outcome %v, trouble %q", c.GetOutcome(), c.GetTrouble())
		}
		w.pulls()
		expectKeys(t, w, w.liveKeys()...)
	})
}
