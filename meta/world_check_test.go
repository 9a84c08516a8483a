package meta

import (
	"fmt"

	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// violated answers what is wrong with the world, or "": of the first cluster, and of one that was restored from it.
func (w *world) violated() string {
	if w.wrong != "" {
		return w.wrong
	}
	v := w.state.View()
	defer v.Close()
	for _, repository := range []string{"r0", "r1"} {
		if bad := w.brokenImage(v, repository); bad != "" {
			return "repository " + repository + " of cluster " + w.cluster + ": " + bad
		}
	}
	if bad := w.brokenPromise(v); bad != "" {
		return bad
	}
	if w.second != nil {
		if bad := w.second.violated(); bad != "" {
			return "restored: " + bad
		}
	}
	return ""
}

// brokenImage looks for a tag, an index or a manifest that lacks what it names.
func (w *world) brokenImage(v *View, repository string) (bad string) {
	deleting := v.repository(repository).GetDeleting()
	v.scan(nameKey(nil, rangeTag, repository), nil, func(k, value []byte) bool {
		var row metav1.Tag
		if v.decode(k, value, &row) && v.manifest(repository, Digest(row.GetDigest())) == nil {
			bad = "a tag names a manifest that is gone"
		}
		return bad == ""
	})
	there := map[string]bool{}
	prefix := nameKey(nil, rangeManifest, repository)
	v.scan(prefix, nil, func(k, value []byte) bool {
		var row metav1.Manifest
		v.decode(k, value, &row)
		there[repository+" "+string(k[len(prefix):])] = true
		for _, b := range row.GetBlobs() {
			if bad = w.bytesOf(v, Digest(b)); bad != "" {
				bad = "a manifest names " + bad
				return false
			}
		}
		for _, c := range row.GetChildren() {
			if !deleting && v.manifest(repository, Digest(c)) == nil {
				bad = "an index names a manifest that is gone"
				return false
			}
		}
		return true
	})
	for name := range there {
		w.here[name] = true
		delete(w.gone, name)
	}
	for name := range w.here {
		if _, ok := w.gone[name]; !ok && !there[name] && name[:len(repository)] == repository {
			w.gone[name] = w.clock
		}
	}
	return bad
}

// brokenPromise is G8.
func (w *world) brokenPromise(v *View) string {
	for key, p := range w.told {
		switch {
		case w.clock >= p.until:
			delete(w.told, key)
		case p.manifest && v.manifest(p.repository, p.digest) == nil:
			return fmt.Sprintf("manifest %s went from repository %s before its grace was over", p.digest, p.repository)
		case !p.manifest && v.liveBlob(p.repository, p.digest, w.clock, worldSettings().GetGrace()) == nil:
			return fmt.Sprintf("blob %s went from repository %s before its grace was over", p.digest, p.repository)
		}
	}
	return ""
}

// reads says whether the cluster may count on all of its bytes: the owner of the bucket may, and a restored one as long
// as the owner has not swept beyond its point. The first cluster of a bucket that was taken over may still count on
// what the new owner did not condemn.
func (w *world) reads(key string) bool {
	if w.mark.cluster == w.cluster {
		return true
	}
	if w.point != 0 {
		return w.mark.swept <= w.point
	}
	return !w.given[key]
}

func (w *world) bytesOf(v *View, d Digest) string {
	blob := v.blob(d)
	if blob == nil {
		return fmt.Sprintf("%s, which has no blob", d)
	}
	w.lived[blob.GetKey()] = true
	if blob.GetLost() {
		return ""
	}
	data, ok := w.objects[blob.GetKey()]
	if !ok {
		if !w.reads(blob.GetKey()) {
			return ""
		}
		return fmt.Sprintf("%s, whose key %s is gone", d, blob.GetKey())
	}
	if digestOf(string(data)) != d {
		return fmt.Sprintf("%s, whose key %s holds %q", d, blob.GetKey(), data)
	}
	return ""
}

// compare asks the views what would go, and then proposes all that there is: exactly that goes. A view cannot tell
// otherwise than Apply decides.
func (w *world) compare() {
	if w.broken != "" {
		return
	}
	if w.running() == 0 {
		w.cycle()
	}
	v := w.state.View()
	untagged := v.collection().GetRunning().GetUntagged()
	v.Close()
	w.propose() // the clock of the view is that of the last entry
	if repository := w.repository(); untagged {
		w.compareUntagged(repository)
	}
	w.markUnneeded()
	all := &metav1.CondemnBlobs{Cycle: w.running()}
	for _, content := range worldContents {
		all.Digests = append(all.Digests, digestOf(string(content)).Bytes())
	}
	r, ok := w.one(&metav1.Command{Kind: &metav1.Command_CondemnBlobs{CondemnBlobs: all}})
	if n := r.GetCount().GetRows(); !ok || n != int64(len(w.found)) {
		w.wrong = fmt.Sprintf("the view finds %d blobs unneeded, %d went: %v", len(w.found), n, r)
	}
}

func (w *world) compareUntagged(repository string) {
	v := w.state.View()
	defer v.Close()
	found, after := 0, UntaggedCursor{}
	for done := false; !done; {
		rows, next, end, _, err := v.Untagged(after, 1+w.rng.IntN(3), 1+w.rng.IntN(3))
		if err != nil {
			w.t.Fatal(err)
		}
		after, done = next, end
		for _, r := range rows {
			if r.Repository == repository {
				found++
			}
		}
	}
	c := &metav1.DeleteUntagged{Cycle: w.running(), Repository: repository}
	rows, _, err := v.Manifests(repository, "", 1000)
	if err != nil {
		return // it is being deleted
	}
	for _, m := range rows {
		c.Digests = append(c.Digests, m.Digest.Bytes())
	}
	r, ok := w.one(&metav1.Command{Kind: &metav1.Command_DeleteUntagged{DeleteUntagged: c}})
	if n := r.GetCount().GetRows(); !ok || n != int64(found) {
		w.wrong = fmt.Sprintf("the view finds %d untagged manifests, %d went: %v", found, n, r)
	}
}
