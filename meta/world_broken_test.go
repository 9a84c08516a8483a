package meta

import (
	"google.golang.org/protobuf/proto"

	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// decide is the real decision, with one rule left out.
func (w *world) decide(t *txn, c *metav1.Command) (*metav1.Result, error) {
	switch k := c.GetKind().(type) {
	case *metav1.Command_PutManifest:
		if w.broken == "G4" {
			return loosely(t, c, func(s *metav1.Settings) { s.SparseImages = true })
		}
	case *metav1.Command_OpenUpload:
		if w.broken == "G5" {
			// Forget all that would remember the id and its keys.
			t.del(nameKey(nil, rangeUpload, k.OpenUpload.GetId()))
			prefix := append(nameKey(nil, rangeObject, "main"), w.epoch+"/"+k.OpenUpload.GetId()...)
			t.scan(prefix, nil, func(key, _ []byte) bool { t.buf.del(key); return true })
		}
	case *metav1.Command_CommitUpload:
		result, err := t.judge(c)
		if w.broken == "G2" && err != nil {
			t.buf.writes = map[string]write{}
			d, m := Digest(k.CommitUpload.GetDigest()), k.CommitUpload
			t.put(digestKey(nil, rangeBlob, d), &metav1.Blob{Size: m.GetSize(), Store: "main", Key: m.GetKey()})
			t.ensureRepository(m.GetRepository())
			t.link(m.GetRepository(), d, m.GetSize())
			return nil, nil
		}
		return result, err
	case *metav1.Command_CondemnBlobs:
		if w.broken == "G3 blobs" {
			return w.condemnBlindly(t, k.CondemnBlobs), nil
		}
		if w.broken == "G8 grace" {
			return loosely(t, c, func(s *metav1.Settings) { s.Grace = 0 })
		}
	case *metav1.Command_DeleteUntagged:
		return w.untaggedWithout(t, c, k.DeleteUntagged)
	}
	return t.judge(c)
}

// loosely judges a command, one that leaves the row about the cluster alone, under other settings.
func loosely(t *txn, c *metav1.Command, change func(*metav1.Settings)) (*metav1.Result, error) {
	whole := t.system
	defer func() { t.system = whole }()
	t.system = proto.CloneOf(whole)
	change(t.system.GetSettings())
	return t.judge(c)
}

// condemnBlindly believes the view.
func (w *world) condemnBlindly(t *txn, c *metav1.CondemnBlobs) *metav1.Result {
	var gone []doomed
	for _, b := range c.GetDigests() {
		if blob := t.blob(Digest(b)); blob != nil {
			graces, _ := t.graces(Digest(b))
			gone = append(gone, doomed{Digest(b), blob, graces})
		}
	}
	return t.condemnAll(gone)
}

// untaggedWithout deletes untagged manifests without one of the rules about them.
func (w *world) untaggedWithout(t *txn, c *metav1.Command, k *metav1.DeleteUntagged) (*metav1.Result, error) {
	switch w.broken {
	case "G3 manifests":
		for _, b := range k.GetDigests() {
			if row := t.manifest(k.GetRepository(), Digest(b)); row != nil {
				t.dropManifest(k.GetRepository(), Digest(b), row, true)
			}
		}
		return nil, nil
	case "R-C6 came":
		for _, b := range k.GetDigests() {
			if s := t.manifest(k.GetRepository(), Digest(b)).GetSubject(); len(s) > 0 {
				t.put(inRepository(nil, rangeDeparted, k.GetRepository(), Digest(s)), &metav1.Departed{})
			}
		}
	case "G8 manifests":
		return loosely(t, c, func(s *metav1.Settings) { s.Grace = 0 })
	}
	result, err := t.judge(c)
	if w.broken == "G8 left" {
		// What the manifests needed keeps no grace.
		for key := range t.buf.writes {
			if key[0] == rangeGrace && !t.buf.writes[key].del {
				d, rest := cutDigest([]byte(key[1:]))
				repository, _ := cutName(rest)
				t.dropGrace(repository, d)
				t.count(repository, tally{bytes: -t.blob(d).GetSize()})
			}
		}
	}
	return result, err
}
