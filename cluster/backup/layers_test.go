package backup

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/pontoon-registry/pontoon/blobs"
	"github.com/pontoon-registry/pontoon/blobs/mem"
	"github.com/pontoon-registry/pontoon/meta"
	"github.com/pontoon-registry/pontoon/meta/kv"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// layered is a recorder with layers in a store.
type layered struct {
	*recorder
	store *mem.Store
	epoch string
}

func newLayered(t testing.TB) *layered { return &layered{newRecorder(t), mem.New(0), "e0"} }

// layer pushes a layer of some bytes; wrote is what the store really gets, nil for nothing.
func (l *layered) layer(repository, id string, body, wrote []byte) meta.Digest {
	l.t.Helper()
	sum := sha256.Sum256(body)
	d, err := meta.PackDigest(meta.SHA256, sum[:])
	if err != nil {
		l.t.Fatal(err)
	}
	key := l.epoch + "/" + id + "/a"
	if wrote != nil {
		key = l.write(id, wrote)
	}
	l.apply(&metav1.Command{Kind: &metav1.Command_OpenUpload{OpenUpload: &metav1.OpenUpload{Repository: repository, Id: id, Algorithm: 1, Store: "main"}}})
	applied, _ := l.state.Applied()
	l.apply(&metav1.Command{Kind: &metav1.Command_CommitUpload{CommitUpload: &metav1.CommitUpload{
		Id: id, Repository: repository, Revision: applied, Digest: d.Bytes(), Size: int64(len(body)), Key: key}}})
	v := l.state.View()
	defer v.Close()
	if _, err := v.Blob(repository, d); err != nil {
		l.t.Fatalf("layer %s: %v", id, err)
	}
	return d
}

func (l *layered) write(id string, body []byte) (key string) {
	l.t.Helper()
	name := blobs.Name{Epoch: l.epoch, Upload: id, Attempt: "a"}
	w, err := l.store.Writer(l.t.Context(), blobs.Attempt{Name: name, PartBase: 1, Length: int64(len(body))})
	if err != nil {
		l.t.Fatal(err)
	}
	_, err = w.Write(body)
	p, closeErr := w.Close(l.t.Context())
	if err := errors.Join(err, closeErr); err != nil {
		l.t.Fatal(err)
	}
	f, err := l.store.Finish(l.t.Context(), name, p)
	if err != nil {
		l.t.Fatal(err)
	}
	return f.Key
}

// needing pushes a manifest that needs layers.
func (l *layered) needing(repository string, layers ...meta.Digest) {
	c := push(int(len(l.log)), 10)
	c.GetPutManifest().Repository = repository
	for _, d := range layers {
		c.GetPutManifest().Blobs = append(c.GetPutManifest().Blobs, d.Bytes())
	}
	l.apply(c)
}

func id(n int) string { return fmt.Sprintf("%032x", n) }

// found answers what Layers or DeepLayers says, by digest.
func (l *layered) found(deep bool) (all map[meta.Digest]Layer, read int64) {
	l.t.Helper()
	all = map[meta.Digest]Layer{}
	var bytes atomic.Int64
	each := func(x Layer) error {
		if _, twice := all[x.Digest]; twice {
			l.t.Errorf("%s twice", x.Digest)
		}
		all[x.Digest] = x
		return nil
	}
	var err error
	if deep {
		err = DeepLayers(l.t.Context(), l.state, l.store, "main", each, func(n int64) { bytes.Add(n) })
	} else {
		err = Layers(l.t.Context(), l.view(), l.store, "main", each)
	}
	if err != nil {
		l.t.Fatal(err)
	}
	return all, bytes.Load()
}

// TestEveryLayerThatIsNeededIsLookedFor: which are right, gone, of another size or other bytes, and who needs them.
func TestEveryLayerThatIsNeededIsLookedFor(t *testing.T) {
	l := newLayered(t)
	body := func(n int) []byte { return []byte(fmt.Sprintf("layer %04d", n)) }
	var right []meta.Digest
	for n := range 2500 { // pages of the ledger and of the store
		if n%50 == 0 {
			l.write(id(5000+n), body(n)) // nobody's
		}
		right = append(right, l.layer("p/r", id(n), body(n), body(n)))
	}
	gone := l.layer("p/a", id(3001), []byte("gone"), nil)
	l.needing("p/a", gone)
	l.apply(&metav1.Command{Kind: &metav1.Command_MountBlob{MountBlob: &metav1.MountBlob{Repository: "p/b", From: "p/a", Digest: gone.Bytes()}}})
	short := l.layer("p/a", id(3002), []byte("short one"), []byte("short"))
	altered := l.layer("p/a", id(3003), []byte("altered"), []byte("aLtered"))
	lost := l.layer("p/a", id(3004), []byte("lost"), nil)
	l.apply(&metav1.Command{Kind: &metav1.Command_MarkLost{MarkLost: &metav1.MarkLost{Digest: lost.Bytes(), Store: "main", Key: "e0/" + id(3004) + "/a"}}})
	l.needing("p/a", short, altered)
	// What nothing needs any more may be gone: its grace ran out.
	unneeded := l.layer("p/a", id(3005), []byte("unneeded"), nil)
	unneededAltered := l.layer("p/a", id(3006), []byte("unneeded too"), []byte("unneeded t00"))
	// A small manifest's bytes, pushed as a layer too: the manifest's own reference does not need them.
	small := push(77, 10)
	l.apply(small)
	unneededBody := l.layer("p/a", id(3007), small.GetPutManifest().GetBody(), nil)
	for part := range slices.Chunk(right, 500) {
		l.needing("p/r", part...)
	}
	applied, _ := l.state.Applied()
	late := entryOf(t, applied+7200, acquire("late"))
	if _, err := l.state.Apply([]meta.LogEntry{late}); err != nil {
		t.Fatal(err)
	}

	for _, deep := range []bool{false, true} {
		all, read := l.found(deep)
		wrong := map[meta.Digest]string{gone: "does not have it", short: "has 5 bytes"}
		if deep {
			wrong[altered] = "another digest"
		}
		for d, x := range all {
			want, bad := wrong[d]
			if bad != (x.Wrong != nil) || bad && !strings.Contains(x.Wrong.Error(), want) {
				t.Errorf("deep %v: %s: %v, expected %q", deep, d, x.Wrong, want)
			}
		}
		for d := range wrong {
			if got := all[d].Repositories; !slices.Equal(got, []string{"p/a"}) {
				t.Errorf("deep %v: %s is needed by %v", deep, d, got)
			}
		}
		for _, d := range []meta.Digest{unneeded, lost, unneededBody} { // nobody needs them, the grace is over
			if _, told := all[d]; told {
				t.Errorf("deep %v: %s is missed", deep, d)
			}
		}
		if x, told := all[unneededAltered]; told && x.Wrong != nil {
			t.Errorf("deep %v: an unneeded layer is missed", deep)
		}
		for _, d := range right {
			if _, told := all[d]; !told {
				t.Fatalf("deep %v: %s was passed over", deep, d)
			}
		}
		if want := int64(2500*len(body(0)) + len("altered") + len("unneeded t00")); deep && read != want {
			t.Errorf("%d bytes were read, expected %d", read, want)
		}
	}
}

// TestALayerOfAnotherEpochIsLookedForThere: a restored cluster has layers of both.
func TestALayerOfAnotherEpochIsLookedForThere(t *testing.T) {
	l := newLayered(t)
	old := l.layer("p/a", id(1), []byte("old"), []byte("old"))
	l.needing("p/a", old)
	goneOld := l.layer("p/a", id(9), []byte("gone old"), nil)
	l.needing("p/a", goneOld)
	store, err := kv.OpenMemory()
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(meta.Import(store, bytes.NewReader(exported(t, l.view()))),
		meta.Restore(store, meta.Restoration{ClusterID: "c9", Epoch: "a9", Life: "l", NodeID: "n", Configuration: []byte("x")}))
	if err != nil {
		t.Fatal(err)
	}
	state, err := meta.Open(store)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(state.Close(), store.Close()); err != nil {
			t.Error(err)
		}
	})
	l.state, l.epoch = state, "a9"
	fresh := l.layer("p/a", id(2), []byte("new"), []byte("new"))
	goneNew := l.layer("p/a", id(3), []byte("gone new"), nil)
	l.needing("p/a", fresh, goneNew)
	all, _ := l.found(false)
	if len(all) != 4 || all[old].Wrong != nil || all[fresh].Wrong != nil || all[goneOld].Wrong == nil || all[goneNew].Wrong == nil {
		t.Errorf("found %v", slices.Collect(maps.Values(all)))
	}
}

// failing is a store that cannot be listed.
type failing struct{ blobs.Store }

func (failing) List(context.Context, string, string) iter.Seq2[blobs.Object, error] {
	return func(yield func(blobs.Object, error) bool) { yield(blobs.Object{}, blobs.ErrUnavailable) }
}

// TestAStoreThatFailsIsNoMissingLayer.
func TestAStoreThatFailsIsNoMissingLayer(t *testing.T) {
	l := newLayered(t)
	d := l.layer("p/a", id(1), []byte("there"), []byte("there"))
	l.needing("p/a", d)
	if err := Layers(t.Context(), l.view(), failing{l.store}, "main", func(x Layer) error {
		t.Errorf("told of %v", x)
		return nil
	}); !errors.Is(err, blobs.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
}
