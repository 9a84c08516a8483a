package meta

import (
	"slices"
	"strings"

	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// The worlds' collector is not the product's (cluster/gc): it keeps the rules that a collector must keep, in as few
// words as they can be said, so that each can be left out.

// bucket is the store, which clusters may share.
type bucket struct {
	objects map[string][]byte
	// parts of open multipart uploads, by "key id".
	parts map[string]map[int32][]byte
	// dates are by the store's own clock, now.
	dates map[string]int64
	now   int64
	mark  ownerMark
	// given are keys that the mark's owner deleted because its ledger had condemned them.
	given map[string]bool
	// seen counts what happened, in all clusters.
	seen map[string]int
}

// ownerMark is G9: who may delete, and up to which index he may have.
type ownerMark struct {
	cluster string
	swept   uint64
}

func (b *bucket) write(key string, data []byte) {
	b.objects[key], b.dates[key] = data, b.now
}

// raise is a conditional write of the mark: nobody deletes without it.
func (w *world) raise(swept uint64) bool {
	if w.mark.cluster != w.cluster && w.broken != "G9 owner" {
		return false
	}
	if w.broken != "G9 swept" {
		w.mark.swept = max(w.mark.swept, swept)
	}
	return true
}

// spared is how young an object is left alone by the sweep of orphans, by the store's clock (G7).
const spared = 600 * second

// collector is what garbage collection holds between its steps: views that grow old, deletes that are under way.
type collector struct {
	found    []Digest
	untagged []UntaggedManifest
	// deletes may take effect at any later time, and more than once.
	deletes []deletion
	// deleted are condemned keys that the store said are gone.
	deleted []string
	// listed and known are the two halves of the sweep of orphans.
	listed map[string]int64
	known  func(key string) bool
	// wrong is the first deletion that must not have been.
	wrong string
}

// deletion is one call: keys with the index of their condemnation, 0 for orphans.
type deletion struct {
	keys  map[string]uint64
	again bool
}

// collect lets one thing of garbage collection happen.
func (w *world) collect() {
	switch w.rng.IntN(12) {
	case 0:
		w.cycle()
	case 1, 2:
		w.markUnneeded()
	case 3:
		w.condemn()
	case 4:
		w.findUntagged()
	case 5:
		w.deleteUntagged()
	case 6, 7:
		w.sweep()
	case 8, 9:
		w.delete()
	case 10:
		w.forget()
	case 11:
		w.sweepOrphans()
	}
}

// running answers the cycle that runs, 0 for none.
func (w *world) running() uint64 {
	v := w.state.View()
	defer v.Close()
	return v.collection().GetRunning().GetBegun().GetIndex()
}

func (w *world) cycle() {
	if id := w.running(); id != 0 {
		w.one(&metav1.Command{Kind: &metav1.Command_AdvanceCycle{AdvanceCycle: &metav1.AdvanceCycle{Cycle: id, Outcome: metav1.CycleOutcome(w.rng.IntN(3)), Count: &metav1.CycleCount{Marked: 1}}}})
		return
	}
	c := &metav1.BeginCycle{Trigger: metav1.CycleTrigger_CYCLE_TRIGGER_SCHEDULE, Untagged: w.rng.IntN(4) > 0}
	if w.rng.IntN(2) == 0 {
		w.one(&metav1.Command{Kind: &metav1.Command_RequestCycle{RequestCycle: &metav1.RequestCycle{}}})
		c.Trigger = metav1.CycleTrigger_CYCLE_TRIGGER_REQUEST
	}
	w.one(&metav1.Command{Kind: &metav1.Command_BeginCycle{BeginCycle: c}})
}

// markUnneeded reads what may go, in pages of any size, and keeps it for later.
func (w *world) markUnneeded() {
	v := w.state.View()
	defer v.Close()
	w.found = nil
	var after Digest
	for done := false; !done; {
		rows, next, end, _, err := v.Unneeded(after, 1+w.rng.IntN(3), 1+w.rng.IntN(3))
		if err != nil {
			w.t.Fatal(err)
		}
		for _, r := range rows {
			w.found = append(w.found, r.Digest)
		}
		after, done = next, end
	}
}

func (w *world) condemn() {
	c := &metav1.CondemnBlobs{Cycle: w.running()}
	for _, d := range w.found {
		c.Digests = append(c.Digests, d.Bytes())
	}
	// And one that nobody found: Apply decides.
	c.Digests = append(c.Digests, digestOf(string(worldContents[w.rng.IntN(len(worldContents))])).Bytes())
	w.one(&metav1.Command{Kind: &metav1.Command_CondemnBlobs{CondemnBlobs: c}})
}

func (w *world) findUntagged() {
	v := w.state.View()
	defer v.Close()
	rows, _, _, _, err := v.Untagged(UntaggedCursor{}, 1+w.rng.IntN(20), 100)
	if err != nil {
		w.t.Fatal(err)
	}
	w.untagged = rows
	// And one that nobody found: Apply decides.
	repository := w.repository()
	if all, _, err := v.Manifests(repository, "", 100); err == nil && len(all) > 0 {
		w.untagged = append(w.untagged, UntaggedManifest{Repository: repository, Digest: all[w.rng.IntN(len(all))].Digest})
	}
}

// deleteUntagged proposes what was found, and looks whether what went might go.
func (w *world) deleteUntagged() {
	repository := w.repository()
	c := &metav1.DeleteUntagged{Cycle: w.running(), Repository: repository}
	must := map[Digest]string{}
	v := w.state.View()
	defer v.Close()
	for _, m := range w.untagged {
		if m.Repository == repository {
			c.Digests = append(c.Digests, m.Digest.Bytes())
			must[m.Digest] = w.mustStay(v, repository, m.Digest)
		}
	}
	w.one(&metav1.Command{Kind: &metav1.Command_DeleteUntagged{DeleteUntagged: c}})
	after := w.state.View()
	defer after.Close()
	for d, why := range must {
		if why != "" && v.manifest(repository, d) != nil && after.manifest(repository, d) == nil {
			w.wrong = "an untagged manifest was deleted, although " + why
		}
	}
}

// mustStay says why a manifest must not be deleted as untagged: from all rows, and from what the world remembers itself.
func (w *world) mustStay(v *View, repository string, d Digest) (why string) {
	v.scan(nameKey(nil, rangeTag, repository), nil, func(k, value []byte) bool {
		var row metav1.Tag
		if v.decode(k, value, &row) && Digest(row.GetDigest()) == d {
			why = "a tag names it"
		}
		return true
	})
	v.scan(nameKey(nil, rangeManifest, repository), nil, func(k, value []byte) bool {
		var row metav1.Manifest
		if v.decode(k, value, &row) && slices.ContainsFunc(row.GetChildren(), func(c []byte) bool { return Digest(c) == d }) {
			why = "an index names it"
		}
		return true
	})
	subject := Digest(v.manifest(repository, d).GetSubject())
	name := repository + " " + string(subject)
	switch {
	case subject == "" || why != "":
	case v.manifest(repository, subject) != nil:
		why = "its subject lives"
	case !w.here[name]:
		why = "its subject never came"
	case w.clock-w.gone[name] < worldSettings().GetGrace():
		why = "its subject has only just gone"
	}
	return why
}

// sweep reads the condemned keys that are due, raises the mark, and sends their deletion on its way.
func (w *world) sweep() {
	v := w.state.View()
	defer v.Close()
	keys := map[string]uint64{}
	var swept uint64
	after := ""
	for done := false; !done; {
		rows, next, end, err := v.Condemned("main", after, 1+w.rng.IntN(10))
		if err != nil {
			w.t.Fatal(err)
		}
		after, done = next, end
		for _, k := range rows {
			if stay := w.without(k.Stay); stay.IsDue() && w.rng.IntN(3) > 0 {
				keys[k.Key] = k.GetIndex()
				swept = max(swept, k.GetIndex())
			}
		}
	}
	if len(keys) > 0 && w.raise(swept) {
		w.deletes = append(w.deletes, deletion{keys: keys})
	}
}

func (w *world) without(s Stay) Stay {
	switch w.broken {
	case "G6 index":
		s.Backup = ""
	case "G6 delay":
		s.Until = 0
	}
	return s
}

// delete lets a deletion take effect, however old it is.
func (w *world) delete() {
	if len(w.deletes) == 0 {
		return
	}
	i := w.rng.IntN(len(w.deletes))
	d := w.deletes[i]
	if d.again || w.rng.IntN(3) > 0 {
		w.deletes = slices.Delete(w.deletes, i, i+1)
	} else {
		w.deletes[i].again = true // the answer was lost, or it was sent twice
	}
	for key, index := range d.keys {
		w.vanish(key, index)
	}
}

func (w *world) vanish(key string, index uint64) {
	if _, ok := w.objects[key]; ok {
		if bad := w.mustBeRestorable(key, index); bad != "" {
			w.wrong = bad
		}
		delete(w.objects, key)
	}
	for upload := range w.parts {
		if strings.HasPrefix(upload, key+" ") {
			delete(w.parts, upload)
		}
	}
	if index > 0 {
		w.deleted = append(w.deleted, key)
		if w.cluster == w.mark.cluster {
			w.given[key] = true
		}
	}
}

// forget drops what is gone from the ledger: that must never be refused.
func (w *world) forget() {
	slices.Sort(w.deleted)
	w.deleted = slices.Compact(w.deleted)
	c := &metav1.ForgetKeys{Store: "main", Keys: w.deleted[:min(len(w.deleted), 1+w.rng.IntN(10))]}
	r, ok := w.one(&metav1.Command{Kind: &metav1.Command_ForgetKeys{ForgetKeys: c}})
	if !ok && w.broken == "" {
		w.wrong = "keys that are gone cannot be forgotten: " + r.GetRefusal().GetMessage()
	}
	w.deleted = w.deleted[len(c.GetKeys()):]
}

// sweepOrphans lists the store, then reads the ledger, then deletes what that does not know (G7). Left out, it reads
// first, as one who trusts an old state, and spares nothing.
func (w *world) sweepOrphans() {
	list := func() {
		w.listed = map[string]int64{}
		for key := range w.objects {
			w.listed[key] = w.dates[key]
		}
	}
	first, second := list, func() { w.known = w.knows() }
	if w.broken == "G7 order" {
		first, second = second, first
	}
	if w.listed == nil && w.known == nil {
		first()
		return
	}
	second()
	keys := map[string]uint64{}
	for key, date := range w.listed {
		own := strings.HasPrefix(key, w.epoch+"/") || w.broken == "G7 epoch"
		if own && (w.now-date >= spared || w.broken == "G7 order") && !w.known(key) {
			keys[key] = 0
		}
	}
	w.listed, w.known = nil, nil
	if len(keys) > 0 && w.raise(0) {
		w.deletes = append(w.deletes, deletion{keys: keys})
	}
}

// knows reads the ledger: which keys it knows, or an open upload may still name.
func (w *world) knows() func(key string) bool {
	v := w.state.View()
	defer v.Close()
	keys, open := map[string]bool{}, map[string]bool{}
	rows, _, err := v.Objects("main", "", "", 1_000_000)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, r := range rows {
		keys[r.Key] = true
	}
	uploads, _, err := v.Uploads("", 1_000_000)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, u := range uploads {
		open[u.ID] = u.GetOutcome() == 0 && v.ClusterTime() < u.GetExpires()
	}
	return func(key string) bool { return keys[key] || open[strings.Split(key, "/")[1]] }
}
