package gc

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pontoon-registry/pontoon/blobs"
	"github.com/pontoon-registry/pontoon/blobs/mem"
	"github.com/pontoon-registry/pontoon/meta"
	"github.com/pontoon-registry/pontoon/meta/kv"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// world is a registry without Raft: the real ledger, a store in memory, and a mark. Its clock is the bubble's.
type world struct {
	t     testing.TB
	state *kv.Store
	store *mem.Store
	solo  *meta.Solo
	mark  *markRecorder
	// images that must be pullable, by "repository digest": their blobs.
	images map[string][][]byte
	log    *bytes.Buffer
}

// markRecorder is a mark that is ours until it is not.
type markRecorder struct {
	err    error
	raised []uint64
}

func (m *markRecorder) Raise(_ context.Context, sweptThrough uint64) error {
	if m.err != nil {
		return m.err
	}
	m.raised = append(m.raised, sweptThrough)
	return nil
}

func newWorld(t testing.TB) *world {
	t.Helper()
	state, err := kv.OpenMemory()
	if err != nil {
		t.Fatal(err)
	}
	solo, err := meta.NewSolo(state, func() int64 { return time.Now().UnixNano() })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := solo.Close(); err != nil {
			t.Error(err)
		}
		if err := state.Close(); err != nil {
			t.Error(err)
		}
	})
	return &world{t: t, state: state, store: mem.New(8), solo: solo, mark: &markRecorder{}, images: map[string][][]byte{}, log: &bytes.Buffer{}}
}

func (w *world) config() Config {
	return Config{
		Ledger: w.solo, Store: w.store, StoreName: "main", Mark: w.mark, Schedule: "never",
		Log: slog.New(slog.NewTextHandler(w.log, nil)),
	}
}

func (w *world) collector(cfg Config) *Collector {
	w.t.Helper()
	c, err := New(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	c.sizes = sizes{page: 2, visit: 3, find: 2, forget: 2} // so that every phase has several steps
	return c
}

func (w *world) propose(c *metav1.Command) *metav1.Result {
	w.t.Helper()
	r, err := w.solo.Propose(w.t.Context(), c)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

func (w *world) view(fn func(v *meta.View)) {
	w.t.Helper()
	err := w.solo.View(w.t.Context(), meta.Read{}, func(v *meta.View) error { fn(v); return nil })
	if err != nil {
		w.t.Fatal(err)
	}
}

func digestOf(data []byte) meta.Digest {
	sum := sha256.Sum256(data)
	d, err := meta.PackDigest(1, sum[:])
	if err != nil {
		panic(err)
	}
	return d
}

func randomID() string {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	return hex.EncodeToString(id[:])
}

// upload is one in progress.
type upload struct {
	repository, id string
	name           blobs.Name
	revision       uint64
	progress       blobs.Progress
}

func (w *world) open(repository string) *upload {
	w.t.Helper()
	u := &upload{repository: repository, id: randomID()}
	r := w.propose(&metav1.Command{Kind: &metav1.Command_OpenUpload{OpenUpload: &metav1.OpenUpload{
		Repository: repository, Id: u.id, Algorithm: 1, Store: "main"}}})
	u.revision = r.GetUpload().GetRevision()
	u.name = blobs.Name{Epoch: "solo", Upload: u.id, Attempt: randomID()[:8]}
	return u
}

// write stores data for the upload, without telling the ledger.
func (w *world) write(u *upload, data []byte) {
	w.t.Helper()
	wr, err := w.store.Writer(w.t.Context(), blobs.Attempt{Name: u.name, PartBase: 1, Length: int64(len(data))})
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := wr.Write(data); err != nil {
		w.t.Fatal(err)
	}
	if u.progress, err = wr.Close(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

// save tells the ledger what was written.
func (w *world) save(u *upload) {
	w.t.Helper()
	p := u.progress
	c := &metav1.SaveUpload{Id: u.id, Repository: u.repository, Revision: u.revision, Attempt: u.name.Attempt,
		Offset: p.Size, MultipartKey: p.MultipartKey, MultipartId: p.MultipartID}
	for _, part := range p.Parts {
		c.Parts = append(c.Parts, &metav1.Part{Number: part.Number, Size: part.Size, Etag: part.ETag})
	}
	for _, piece := range p.Pieces {
		c.Pieces = append(c.Pieces, &metav1.Piece{Key: piece.Key, Size: piece.Size, Crc32C: piece.CRC32C})
	}
	r := w.propose(&metav1.Command{Kind: &metav1.Command_SaveUpload{SaveUpload: c}})
	u.revision = r.GetUpload().GetRevision()
}

func (w *world) commit(u *upload, data []byte) *metav1.CommitUpload {
	w.t.Helper()
	u.progress.Next = int32(len(u.progress.Parts)) + 1
	done, err := w.store.Finish(w.t.Context(), u.name, u.progress)
	if err != nil {
		w.t.Fatal(err)
	}
	return &metav1.CommitUpload{Id: u.id, Repository: u.repository, Revision: u.revision,
		Digest: digestOf(data).Bytes(), Size: done.Size, Key: done.Key, Completed: done.Completed}
}

// push uploads a blob as a client would.
func (w *world) push(repository string, data []byte) {
	w.t.Helper()
	u := w.open(repository)
	w.write(u, data)
	if len(data) > 8 {
		w.save(u)
	}
	w.propose(&metav1.Command{Kind: &metav1.Command_CommitUpload{CommitUpload: w.commit(u, data)}})
}

type manifestJSON struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType"`
	Config        *descriptor       `json:"config,omitempty"`
	Layers        []descriptor      `json:"layers,omitempty"`
	Manifests     []descriptor      `json:"manifests,omitempty"`
	Subject       *descriptor       `json:"subject,omitempty"`
	Annotations   map[string]string `json:"annotations,omitempty"`
}

type descriptor struct {
	MediaType string `json:"mediaType"`
	Digest    string `json:"digest"`
	Size      int    `json:"size"`
}

func describe(mediaType string, data []byte) descriptor {
	return descriptor{MediaType: mediaType, Digest: digestOf(data).String(), Size: len(data)}
}

// image is an image manifest of the blobs, the first of which is its config.
func image(subject []byte, layers ...[]byte) []byte {
	m := manifestJSON{SchemaVersion: 2, MediaType: meta.MediaTypeImage}
	config := describe("application/vnd.oci.image.config.v1+json", layers[0])
	m.Config = &config
	for _, l := range layers[1:] {
		m.Layers = append(m.Layers, describe("application/vnd.oci.image.layer.v1.tar", l))
	}
	if subject != nil {
		d := describe(meta.MediaTypeImage, subject)
		m.Subject = &d
	}
	return encode(m)
}

func index(children ...[]byte) []byte {
	m := manifestJSON{SchemaVersion: 2, MediaType: meta.MediaTypeIndex}
	for _, c := range children {
		m.Manifests = append(m.Manifests, describe(meta.MediaTypeImage, c))
	}
	return encode(m)
}

func encode(m manifestJSON) []byte {
	body, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	return body
}

// putManifest commits a manifest; a body above the inline bound goes through an upload.
func (w *world) putManifest(repository string, body []byte, tags ...string) {
	w.t.Helper()
	facts, err := meta.ParseManifest("", body)
	if err != nil {
		w.t.Fatal(err)
	}
	c := &metav1.PutManifest{Repository: repository, Digest: digestOf(body).Bytes(), MediaType: facts.MediaType,
		Size: int64(len(body)), Subject: facts.Subject.Bytes(), ArtifactType: facts.ArtifactType, Tags: tags}
	for _, d := range facts.Blobs {
		c.Blobs = append(c.Blobs, d.Bytes())
	}
	for _, d := range facts.Children {
		c.Children = append(c.Children, d.Bytes())
	}
	if len(body) <= meta.MaxInlineBody {
		c.Body, c.Annotations = body, facts.Annotations
	} else {
		u := w.open(repository)
		w.write(u, body)
		w.save(u)
		c.Upload = w.commit(u, body)
	}
	w.propose(&metav1.Command{Kind: &metav1.Command_PutManifest{PutManifest: c}})
}

// pushImage pushes blobs and a manifest, and remembers that it must stay pullable.
func (w *world) pushImage(repository, tag string, layers ...[]byte) []byte {
	w.t.Helper()
	for _, l := range layers {
		w.push(repository, l)
	}
	body := image(nil, layers...)
	w.putManifest(repository, body, tag)
	w.images[repository+" "+digestOf(body).String()] = layers
	return body
}

func (w *world) deleteImage(repository string, body []byte) {
	w.t.Helper()
	delete(w.images, repository+" "+digestOf(body).String())
	w.propose(&metav1.Command{Kind: &metav1.Command_DeleteManifest{DeleteManifest: &metav1.DeleteManifest{
		Repository: repository, Digest: digestOf(body).Bytes()}}})
}

// pulls fails the test unless every image can be pulled byte for byte.
func (w *world) pulls() {
	w.t.Helper()
	for name, layers := range w.images {
		repository, digest, _ := strings.Cut(name, " ")
		d, err := meta.ParseDigest(digest)
		if err != nil {
			w.t.Fatal(err)
		}
		w.view(func(v *meta.View) {
			if _, err := v.Manifest(repository, d); err != nil {
				w.t.Fatalf("pull %s: %v", name, err)
			}
			for _, l := range layers {
				b, err := v.Blob(repository, digestOf(l))
				if err != nil {
					w.t.Fatalf("pull %s: %v", name, err)
				}
				if got := w.read(b.GetKey()); !bytes.Equal(got, l) {
					w.t.Fatalf("pull %s: layer %q reads %q", name, l, got)
				}
			}
		})
	}
}

func (w *world) read(key string) []byte {
	w.t.Helper()
	r, err := w.store.Open(w.t.Context(), key, 0, -1)
	if err != nil {
		w.t.Fatal(err)
	}
	data, err := io.ReadAll(r)
	if err != nil {
		w.t.Fatal(err)
	}
	return data
}

// keys lists the store.
func (w *world) keys() (keys []string) {
	w.t.Helper()
	for o, err := range w.store.List(w.t.Context(), "", "") {
		if err != nil {
			w.t.Fatal(err)
		}
		keys = append(keys, o.Key)
	}
	return keys
}

func (w *world) multiparts() (ids []string) {
	w.t.Helper()
	for m, err := range w.store.ListMultiparts(w.t.Context(), "") {
		if err != nil {
			w.t.Fatal(err)
		}
		ids = append(ids, m.ID)
	}
	return ids
}

// liveKeys are the keys that the images need.
func (w *world) liveKeys() (keys []string) {
	w.t.Helper()
	w.view(func(v *meta.View) {
		for name, layers := range w.images {
			repository, _, _ := strings.Cut(name, " ")
			for _, l := range layers {
				b, err := v.Blob(repository, digestOf(l))
				if err != nil {
					w.t.Fatal(err)
				}
				keys = append(keys, b.GetKey())
			}
		}
	})
	slices.Sort(keys)
	return slices.Compact(keys)
}

func (w *world) request(epochs ...string) {
	w.t.Helper()
	w.propose(&metav1.Command{Kind: &metav1.Command_RequestCycle{RequestCycle: &metav1.RequestCycle{ForgetEpochs: epochs}}})
}

func (w *world) collection() (row *metav1.Collection) {
	w.t.Helper()
	w.view(func(v *meta.View) {
		var err error
		if row, err = v.Collection(); err != nil {
			w.t.Fatal(err)
		}
	})
	return row
}

// last is the cycle that ended last.
func (w *world) last() (row *metav1.Cycle) {
	w.t.Helper()
	w.view(func(v *meta.View) {
		rows, err := v.Cycles(1)
		if err != nil || len(rows) == 0 {
			w.t.Fatalf("no cycle has ended (%v); log:\n%s", err, w.log)
		}
		row = rows[0]
	})
	return row
}

// finish lets a collector run until no cycle is asked for or runs.
func (w *world) finish(c *Collector) *metav1.Cycle {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan error)
	go func() { done <- c.Run(ctx) }()
	for n := 0; ; n++ {
		row := w.collection()
		if row.GetRequested() == nil && row.GetRunning() == nil {
			break
		}
		if n == 10_000 {
			w.t.Fatalf("the cycle does not end: %v\n%s", row, w.log)
		}
		time.Sleep(time.Second)
	}
	cancel()
	if err := <-done; err != nil {
		w.t.Fatal(err)
	}
	return w.last()
}

// cycle asks for a cycle and lets it run.
func (w *world) cycle(cfg Config, forget ...string) *metav1.Cycle {
	w.t.Helper()
	w.request(forget...)
	return w.finish(w.collector(cfg))
}

// expire ends the uploads whose time is over, as the cluster's tidier does.
func (w *world) expire() {
	w.t.Helper()
	var ids []string
	w.view(func(v *meta.View) {
		rows, _, err := v.Uploads("", 1000)
		if err != nil {
			w.t.Fatal(err)
		}
		for _, u := range rows {
			ids = append(ids, u.ID)
		}
	})
	w.propose(&metav1.Command{Kind: &metav1.Command_ExpireUploads{ExpireUploads: &metav1.ExpireUploads{Ids: ids}}})
}

// plant puts an object under a key that the ledger does not know.
func (w *world) plant(epoch string) string {
	w.t.Helper()
	name := blobs.Name{Epoch: epoch, Upload: randomID(), Attempt: "late"}
	wr, err := w.store.Writer(w.t.Context(), blobs.Attempt{Name: name, PartBase: 1, Length: 3})
	if err != nil {
		w.t.Fatal(err)
	}
	fmt.Fprint(wr, "abc")
	p, err := wr.Close(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return p.Pieces[0].Key
}

// plantMultipart opens a multipart upload that the ledger does not know.
func (w *world) plantMultipart(epoch string) string {
	w.t.Helper()
	name := blobs.Name{Epoch: epoch, Upload: randomID(), Attempt: "late"}
	wr, err := w.store.Writer(w.t.Context(), blobs.Attempt{Name: name, PartBase: 1, Length: 20})
	if err != nil {
		w.t.Fatal(err)
	}
	fmt.Fprint(wr, "0123456789")
	p, err := wr.Save(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return p.MultipartID
}

func expectKeys(t testing.TB, w *world, want ...string) {
	t.Helper()
	slices.Sort(want)
	if got := w.keys(); !slices.Equal(got, want) {
		t.Errorf("the store holds\n%q, want\n%q\n%s", got, want, w.log)
	}
}
