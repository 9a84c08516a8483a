package meta

import (
	"fmt"

	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// clients is what clients were told, and may rely on.
type clients struct {
	// told are promises (G8), by repository and digest.
	told map[string]promise
	// urls are presigned: the key must be readable until then, by the cluster's clock (G6).
	urls map[string]int64
	// here are manifests that were ever in a repository, gone when they were last seen to have left it.
	here map[string]bool
	gone map[string]int64
	// lived are keys that a manifest was seen to need.
	lived map[string]bool
}

// promise is what a client that may push was told exists, until a cluster time.
type promise struct {
	repository string
	digest     Digest
	manifest   bool
	until      int64
}

// presigned is for how long a client may read a key without asking again: less than the delay.
const presigned = 390 * second

func (w *world) repository() string { return fmt.Sprintf("r%d", w.rng.IntN(2)) }

// pass lets time pass, for everybody.
func (w *world) pass(n int64) {
	w.clock += n
	w.now += n
}

// remember lets one thing happen that is not a push: of garbage collection, of backups, or a question.
func (w *world) remember() {
	switch pick := w.rng.IntN(100); {
	case pick < 60:
		w.collect()
	case pick < 70:
		w.head()
	case pick < 79:
		w.presign()
	case pick < 82:
		w.pass(w.rng.Int64N(300 * second))
	case pick < 84:
		w.compare()
	case pick < 93:
		w.backUp()
	default:
		w.restore()
	}
}

func (w *world) promise(repository string, d Digest, manifest bool, until int64) {
	key := repository + " " + string(d)
	if old := w.told[key]; old.until > until {
		until = old.until
	}
	w.told[key] = promise{repository, d, manifest, until}
}

// broke takes promises back that a client's own deletion ended: of one digest, or of a whole repository.
func (w *world) broke(repository string, d Digest) {
	for key, p := range w.told {
		if p.repository == repository && (d == "" || p.digest == d) {
			delete(w.told, key)
		}
	}
}

// head tells a client that may push that something exists, as the door does (G8).
func (w *world) head() {
	repository, d := w.repository(), digestOf(string(worldContents[w.rng.IntN(len(worldContents))]))
	v := w.state.View()
	defer v.Close()
	manifests, _, err := v.Manifests(repository, "", 100)
	manifest := err == nil && len(manifests) > 0 && w.rng.IntN(2) == 0
	if manifest {
		d = manifests[w.rng.IntN(len(manifests))].Digest
	} else if _, err := v.Blob(repository, d); err != nil {
		return
	}
	renew, err := v.NeedsConfirm(repository, d)
	if err != nil {
		w.t.Fatal(err)
	}
	if renew && w.broken != "G8 head" {
		c := &metav1.ConfirmContent{Repository: repository, Blobs: [][]byte{d.Bytes()}}
		if manifest {
			c.Blobs, c.Manifests = nil, c.Blobs
		}
		if _, ok := w.one(&metav1.Command{Kind: &metav1.Command_ConfirmContent{ConfirmContent: c}}); !ok {
			return
		}
	}
	// Up to a quarter of the grace may have passed without a renewal.
	w.promise(repository, d, manifest, v.ClusterTime()+worldSettings().GetGrace()*3/4)
}

// presign sends clients to the store for all that a repository has.
func (w *world) presign() {
	v := w.state.View()
	defer v.Close()
	repository := w.repository()
	for _, content := range worldContents {
		if b, err := v.Blob(repository, digestOf(string(content))); err == nil {
			w.urls[b.GetKey()] = v.ClusterTime() + presigned
		}
	}
}

// push is a whole small push at once.
func (w *world) push() {
	p := &pushing{id: fmt.Sprintf("%032x", w.rng.Uint64()), repository: w.repository(), content: worldContents[w.rng.IntN(len(worldContents))]}
	r, ok := w.one(w.opening(p))
	if !ok || w.broken == "G1" {
		return
	}
	key := w.epoch + "/" + p.id + "/" + w.name()
	w.write(key, p.content)
	w.commits = append(w.commits, &metav1.CommitUpload{Id: p.id, Repository: p.repository, Revision: r.GetUpload().GetRevision(),
		Digest: digestOf(string(p.content)).Bytes(), Size: int64(len(p.content)), Key: key})
	if w.rng.IntN(3) > 0 {
		w.commit()
	}
}

func (w *world) mount() {
	c := &metav1.MountBlob{Repository: w.repository(), From: w.repository(), Digest: digestOf(string(worldContents[w.rng.IntN(len(worldContents))])).Bytes()}
	if _, ok := w.one(&metav1.Command{Kind: &metav1.Command_MountBlob{MountBlob: c}}); ok {
		w.promise(c.GetRepository(), Digest(c.GetDigest()), false, w.clock+worldSettings().GetGrace())
	}
}

// putManifest pushes an image, an index of what is there, or a referrer; half of them without a tag.
func (w *world) putManifest() {
	c := &metav1.PutManifest{Repository: w.repository(), MediaType: MediaTypeImage}
	text := ""
	for _, content := range worldContents {
		if w.rng.IntN(2) == 0 {
			c.Blobs = append(c.Blobs, digestOf(string(content)).Bytes())
			text += string(content)
		}
	}
	v := w.state.View()
	rows, _, _ := v.Manifests(c.GetRepository(), "", 100)
	v.Close()
	switch kind := w.rng.IntN(4); {
	case kind == 0 && len(rows) > 0:
		child := rows[w.rng.IntN(len(rows))].Digest
		c.Children, text = [][]byte{child.Bytes()}, text+" index of "+child.String()[:20]
	case kind == 1:
		subject := digestOf(fmt.Sprintf("never %d", w.rng.IntN(2)))
		if len(rows) > 0 && w.rng.IntN(4) > 0 {
			subject = rows[w.rng.IntN(len(rows))].Digest
		}
		c.Subject, c.ArtifactType, text = subject.Bytes(), "application/sig", text+" about "+subject.String()[:20]
	}
	c.Digest, c.Body = digestOf("manifest "+text).Bytes(), []byte("{"+text+"}")
	c.Size = int64(len(c.GetBody()))
	if w.rng.IntN(2) == 0 {
		c.Tags = []string{fmt.Sprintf("t%d", w.rng.IntN(4))}
	}
	if _, ok := w.one(&metav1.Command{Kind: &metav1.Command_PutManifest{PutManifest: c}}); ok {
		w.promise(c.GetRepository(), Digest(c.GetDigest()), true, w.clock+worldSettings().GetGrace())
	}
}

// remove deletes a manifest, a tag, a blob or a repository.
func (w *world) remove() {
	repository := w.repository()
	v := w.state.View()
	manifests, _, _ := v.Manifests(repository, "", 100)
	v.Close()
	switch w.rng.IntN(4) {
	case 0:
		if len(manifests) > 0 {
			d := manifests[w.rng.IntN(len(manifests))].Digest
			if _, ok := w.one(&metav1.Command{Kind: &metav1.Command_DeleteManifest{DeleteManifest: &metav1.DeleteManifest{Repository: repository, Digest: d.Bytes()}}}); ok {
				w.broke(repository, d)
			}
		}
	case 1:
		w.one(&metav1.Command{Kind: &metav1.Command_DeleteTag{DeleteTag: &metav1.DeleteTag{Repository: repository, Tag: fmt.Sprintf("t%d", w.rng.IntN(4))}}})
	case 2:
		d := digestOf(string(worldContents[w.rng.IntN(len(worldContents))]))
		if _, ok := w.one(&metav1.Command{Kind: &metav1.Command_DeleteBlob{DeleteBlob: &metav1.DeleteBlob{Repository: repository, Digest: d.Bytes()}}}); ok {
			w.broke(repository, d)
		}
	case 3:
		if w.rng.IntN(8) == 0 {
			c := &metav1.DeleteRepository{Repository: repository, Limit: int32(1 + w.rng.IntN(20))}
			if _, ok := w.one(&metav1.Command{Kind: &metav1.Command_DeleteRepository{DeleteRepository: c}}); ok {
				w.broke(repository, "")
			}
		}
	}
}
