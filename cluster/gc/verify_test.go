package gc

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/pontoon-registry/pontoon/blobs"
	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// verify answers the differences, in a folder that must be empty again afterwards.
func (w *world) verify(cfg Config, o VerifyOptions) (Verified, []Difference) {
	w.t.Helper()
	o.Folder = w.t.TempDir()
	var all []Difference
	sum, err := w.collector(cfg).Verify(w.t.Context(), o, func(d Difference) error { all = append(all, d); return nil })
	if err != nil {
		w.t.Fatal(err)
	}
	if left, err := filepath.Glob(filepath.Join(o.Folder, "*")); err != nil || len(left) > 0 {
		w.t.Fatalf("Verify leaves %v (%v)", left, err)
	}
	if sum.Differences != int64(len(all)) {
		w.t.Fatalf("Verify counts %d differences and told %d", sum.Differences, len(all))
	}
	return sum, all
}

func kinds(all []Difference) (out []Kind) {
	for _, d := range all {
		out = append(out, d.Kind)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Keys of rows as in meta/keys.go: the test writes them behind the ledger's back.
const (
	rowBody       byte = 0x12
	rowTag        byte = 0x14
	rowTagged     byte = 0x15
	rowReference  byte = 0x16
	rowAbsent     byte = 0x17
	rowGraced     byte = 0x19
	rowBlob       byte = 0x1a
	rowObject     byte = 0x1b
	rowChild      byte = 0x1c
	rowReferrer   byte = 0x1d
	rowUsage      byte = 0x10
	rowRepository byte = 0x11
	rowUpload     byte = 0x20
)

func (w *world) setRow(key []byte, row proto.Message) {
	w.t.Helper()
	value, err := proto.Marshal(row)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := w.state.Set(key, value); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) deleteRow(key []byte) {
	w.t.Helper()
	if _, found, err := w.state.Get(key, nil); err != nil || !found {
		w.t.Fatalf("there is no row %x (%v)", key, err)
	}
	if err := w.state.Delete(key); err != nil {
		w.t.Fatal(err)
	}
}

// readRow reads a row, which the caller changes and writes back.
func (w *world) readRow(key []byte, row proto.Message) {
	w.t.Helper()
	value, found, err := w.state.Get(key, nil)
	if err != nil || !found {
		w.t.Fatalf("there is no row %x (%v)", key, err)
	}
	if err := proto.Unmarshal(value, row); err != nil {
		w.t.Fatal(err)
	}
}

// publish makes rows that were written behind the ledger's back part of a new view.
func (w *world) publish() {
	w.propose(&metav1.Command{Kind: &metav1.Command_TrimEvents{TrimEvents: &metav1.TrimEvents{Limit: 1}}})
}

func (w *world) keyOf(repository string, data []byte) (key string) {
	w.view(func(v *meta.View) {
		b, err := v.Blob(repository, digestOf(data))
		if err != nil {
			w.t.Fatal(err)
		}
		key = b.GetKey()
	})
	return key
}

func objectKey(key string) []byte { return addName(nameKey(rowObject, "main"), key) }

func TestVerifyIsCleanBesideWhateverIsGoingOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		big := encode(manifestJSON{SchemaVersion: 2, MediaType: meta.MediaTypeIndex, Manifests: []descriptor{},
			Annotations: map[string]string{"a": strings.Repeat("x", meta.MaxInlineBody)}})
		s.putManifest("live/big", big, "t")
		s.spared = append([]string{s.keyOf("live/big", big)}, s.spared...)
		sum, all := s.verify(s.config(), VerifyOptions{})
		if len(all) > 0 {
			t.Fatalf("differences: %+v", all)
		}
		if sum.Manifests != 9 || sum.Blobs != 13 || sum.UnneededKeys == 0 || sum.OrphanKeys != 4 || sum.Index == 0 {
			t.Errorf("verified %+v", sum)
		}
		s.clean("after that")
		sum, all = s.verify(s.config(), VerifyOptions{})
		if len(all) > 0 || sum.UnneededKeys != 0 || sum.OrphanKeys != 0 {
			t.Errorf("when all is done: %+v, %+v", sum, all)
		}
	})
}

func TestVerifyFindsEachKindOfDifference(t *testing.T) {
	t.Parallel()
	one, four := digestOf([]byte("one")), digestOf([]byte("four"))
	imageA := image(nil, []byte("one"), []byte("two"))
	a := digestOf(imageA)
	child := digestOf(image(nil, []byte("four")))
	idx := digestOf(index(image(nil, []byte("four"))))
	sig := digestOf(image(image(nil, []byte("four")), []byte("sig")))
	key := func(r byte, repository string, d meta.Digest) []byte { return inRepository(r, repository, d) }
	link := func(r byte, blob meta.Digest, repository string, m meta.Digest) []byte {
		return linkKey(r, meta.Link{Blob: blob, Repository: repository, Manifest: m})
	}
	for name, c := range map[string]struct {
		plant func(s *scene)
		want  []Kind
	}{
		"a reference row is gone":      {func(s *scene) { s.deleteRow(link(rowReference, one, "live/a", a)) }, []Kind{Counter, Unrecorded}},
		"a manifest's own row is gone": {func(s *scene) { s.deleteRow(link(rowReference, a, "live/a", a)) }, []Kind{Unrecorded}},
		"a reference too many":         {func(s *scene) { s.setRow(link(rowReference, four, "live/a", a), nil) }, []Kind{Unfounded}},
		"an absent row too many":       {func(s *scene) { s.setRow(link(rowAbsent, four, "live/a", a), nil) }, []Kind{Unfounded}},
		"absent and needed":            {func(s *scene) { s.setRow(link(rowAbsent, one, "live/a", a), nil) }, []Kind{Key}},
		"a child row is gone":          {func(s *scene) { s.deleteRow(addDigest(key(rowChild, "live/c", child), idx)) }, []Kind{Unrecorded}},
		"a child row too many":         {func(s *scene) { s.setRow(addDigest(key(rowChild, "live/a", a), idx), nil) }, []Kind{Unfounded}},
		"a referrer row is gone": {func(s *scene) {
			s.deleteRow(addDigest(addName(key(rowReferrer, "live/c", child), "application/vnd.oci.image.config.v1+json"), sig))
		}, []Kind{Unrecorded}},
		"a referrer row too many": {func(s *scene) { s.setRow(addDigest(addName(key(rowReferrer, "live/a", a), "x"), a), nil) }, []Kind{Unfounded}},
		"a tagged row is gone":    {func(s *scene) { s.deleteRow(addName(key(rowTagged, "live/a", a), "t")) }, []Kind{Unrecorded}},
		"a tagged row too many":   {func(s *scene) { s.setRow(addName(key(rowTagged, "live/a", a), "u"), nil) }, []Kind{Unfounded}},
		"a tag of nothing": {func(s *scene) {
			s.setRow(addName(nameKey(rowTag, "live/a"), "u"), &metav1.Tag{Digest: child.Bytes()})
		}, []Kind{Counter, Dangling, Unrecorded}},
		"a graced row is gone": {func(s *scene) {
			s.push("live/c", []byte("loose"))
			s.deleteRow(key(rowGraced, "live/c", digestOf([]byte("loose"))))
		}, []Kind{Unrecorded}},
		"a graced row too many":     {func(s *scene) { s.setRow(key(rowGraced, "dead/x", four), nil) }, []Kind{Unfounded}},
		"a repository miscounts":    {func(s *scene) { s.miscount("live/a", 1) }, []Kind{Counter}},
		"a repository is not there": {func(s *scene) { s.deleteRow(nameKey(rowRepository, "live/b")) }, []Kind{Counter}},
		"a project miscounts": {func(s *scene) {
			row := &metav1.Usage{}
			s.readRow(nameKey(rowUsage, "live"), row)
			row.Tags++
			s.setRow(nameKey(rowUsage, "live"), row)
		}, []Kind{Counter}},
		"a body miscounts": {func(s *scene) {
			row := &metav1.ManifestBody{}
			s.readRow(digestKey(rowBody, a), row)
			row.Repositories++
			s.setRow(digestKey(rowBody, a), row)
		}, []Kind{Counter}},
		"a body is altered": {func(s *scene) {
			row := &metav1.ManifestBody{}
			s.readRow(digestKey(rowBody, a), row)
			row.Body = append(row.Body, ' ') // it says the same
			s.setRow(digestKey(rowBody, a), row)
		}, []Kind{Body}},
		"a body is gone":    {func(s *scene) { s.deleteRow(digestKey(rowBody, a)) }, []Kind{Body}},
		"an upload is gone": {func(s *scene) { s.dropUpload() }, []Kind{Counter, Key}},
		"a blob row is gone": {func(s *scene) { s.deleteRow(digestKey(rowBlob, four)) },
			[]Kind{Counter, Dangling, Key}},
		"a live key is condemned": {func(s *scene) {
			s.setRow(objectKey(s.keyOf("live/a", []byte("one"))), &metav1.Object{State: &metav1.Object_Condemned{Condemned: &metav1.Condemned{Index: 1}}})
		}, []Kind{Key}},
		"a key says that it is live": {func(s *scene) {
			s.setRow(objectKey("solo/0/a"), &metav1.Object{State: &metav1.Object_Live{Live: &metav1.Live{Digest: one.Bytes()}}})
		}, []Kind{Key}},
		"a blob is elsewhere": {func(s *scene) {
			row := &metav1.Blob{}
			s.readRow(digestKey(rowBlob, four), row)
			row.Store = "attic"
			s.setRow(digestKey(rowBlob, four), row)
		}, []Kind{Key}},
		"bytes are missing": {func(s *scene) { s.lose([]byte("four")) }, []Kind{Missing}},
		"bytes are cut": {func(s *scene) {
			s.rewrite(s.keyOf("live/c", []byte("four")), []byte("fo"))
		}, []Kind{Size}},
		"a blob is marked lost": {func(s *scene) {
			s.propose(&metav1.Command{Kind: &metav1.Command_MarkLost{MarkLost: &metav1.MarkLost{
				Digest: four.Bytes(), Store: "main", Key: s.keyOf("live/c", []byte("four"))}}})
		}, []Kind{Lost}},
		"an orphan was left": {func(s *scene) {
			s.plant("solo")
			time.Sleep(2 * sceneOrphan)
			s.skipCycle()
		}, []Kind{Orphan}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScene(t)
				s.request()
				s.finish(s.collector(s.config()))
				if _, all := s.verify(s.config(), VerifyOptions{}); len(all) > 0 {
					t.Fatalf("before: %+v", all)
				}
				c.plant(s)
				s.publish()
				_, all := s.verify(s.config(), VerifyOptions{})
				if got := kinds(all); !slices.Equal(got, c.want) {
					t.Errorf("found %v, want %v: %+v", got, c.want, all)
				}
				for _, d := range all {
					if d.Detail == "" || strings.Contains(d.Detail, "%!") {
						t.Errorf("%+v does not say what is wrong", d)
					}
				}
			})
		})
	}
}

func (s *scene) miscount(repository string, n int64) {
	row := &metav1.Repository{}
	s.readRow(nameKey(rowRepository, repository), row)
	row.Bytes += n
	s.setRow(nameKey(rowRepository, repository), row)
}

// dropUpload forgets an open upload with its keys.
func (s *scene) dropUpload() {
	s.view(func(v *meta.View) {
		rows, _, err := v.Uploads("", 100)
		if err != nil {
			s.t.Fatal(err)
		}
		for _, u := range rows {
			if len(u.GetPieces()) > 0 {
				s.deleteRow(nameKey(rowUpload, u.ID))
			}
		}
	})
}

// lose removes a blob's bytes from the store.
func (s *scene) lose(data []byte) {
	if err := s.store.Delete(s.t.Context(), s.keyOf("live/c", data)); err != nil {
		s.t.Fatal(err)
	}
}

// rewrite puts other bytes under a key.
func (s *scene) rewrite(key string, data []byte) {
	if err := s.store.Delete(s.t.Context(), key); err != nil {
		s.t.Fatal(err)
	}
	name, _, err := blobs.ParseKey(key)
	if err != nil {
		s.t.Fatal(err)
	}
	s.write(&upload{name: name}, data)
}

// skipCycle is a cycle that did nothing and says that it is done.
func (w *world) skipCycle() {
	r := w.propose(&metav1.Command{Kind: &metav1.Command_BeginCycle{BeginCycle: &metav1.BeginCycle{Trigger: metav1.CycleTrigger_CYCLE_TRIGGER_SCHEDULE}}})
	w.propose(&metav1.Command{Kind: &metav1.Command_AdvanceCycle{AdvanceCycle: &metav1.AdvanceCycle{
		Cycle: r.GetIndex(), Outcome: metav1.CycleOutcome_CYCLE_OUTCOME_DONE}}})
}

// A try of an upload left bytes that nobody saved, and the client went on with the upload for longer than orphans are
// spared. The cycles of that time had to leave them, so they are no difference, until one has passed them by.
func TestVerifyCallsNoOrphanWhatACycleHadToLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		u := w.open("library/a")
		lost := *u
		lost.name.Attempt = "lost"
		w.write(&lost, []byte("abc"))
		time.Sleep(time.Hour)
		w.write(u, []byte("0123456789"))
		w.save(u)
		time.Sleep(FloorOrphanAge - 30*time.Minute)
		w.cycle(w.config()) // the orphan is old enough, its upload is open for half an hour more
		time.Sleep(time.Hour)
		w.expire()
		if sum, all := w.verify(w.config(), VerifyOptions{}); len(all) > 0 || sum.OrphanKeys != 1 {
			t.Errorf("its upload ended after the cycle: %+v, %+v", sum, all)
		}
		w.skipCycle()
		if _, all := w.verify(w.config(), VerifyOptions{}); len(all) != 1 || all[0].Kind != Orphan {
			t.Errorf("after a cycle that should have deleted it: %+v", all)
		}
	})
}

func TestVerifyMarksLostOnRequestOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.lose([]byte("four"))
		if sum, all := s.verify(s.config(), VerifyOptions{}); sum.MarkedLost != 0 || !slices.Equal(kinds(all), []Kind{Missing}) {
			t.Fatalf("without: %+v %+v", sum, all)
		}
		if sum, all := s.verify(s.config(), VerifyOptions{MarkLost: true}); sum.MarkedLost != 1 || !slices.Equal(kinds(all), []Kind{Missing}) {
			t.Fatalf("with: %+v %+v", sum, all)
		}
		if _, all := s.verify(s.config(), VerifyOptions{}); !slices.Equal(kinds(all), []Kind{Lost}) {
			t.Fatalf("afterwards: %+v", all)
		}
		s.push("live/c", []byte("four")) // heals it (B7)
		if _, all := s.verify(s.config(), VerifyOptions{}); len(all) > 0 {
			t.Fatalf("healed: %+v", all)
		}
		s.pulls()
	})
}

// TestVerifyTakesNoPushForALoss pushes and deletes at each of its calls: what comes after the listing is not missing.
func TestVerifyTakesNoPushForALoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		n := 0
		p := &tap{before: func(what string) {
			n++
			body := s.pushImage("busy/x", "t", []byte(fmt.Sprint("busy-", n)))
			if n%2 == 0 {
				s.deleteImage("busy/x", body)
			}
		}}
		if _, all := s.verify(p.config(s.config()), VerifyOptions{MarkLost: true}); len(all) > 0 || n < 20 {
			t.Errorf("beside %d pushes: %+v", n, all)
		}
	})
}

// TestVerifyAsksTwiceBeforeItComplains: what is condemned and deleted between its list and its view is not missing.
func TestVerifyAsksTwiceBeforeItComplains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		body := s.pushImage("busy/x", "t", []byte("short"))
		p := &tap{before: func(what string) {
			if what != "stat" {
				return
			}
			s.deleteImage("busy/x", body)
			time.Sleep(2 * sceneGrace)
			s.request()
			s.finish(s.collector(s.config()))
		}}
		cfg := p.config(s.config())
		cfg.Store = blind{cfg.Store, s.keyOf("busy/x", []byte("short"))}
		if _, all := s.verify(cfg, VerifyOptions{}); len(all) > 0 || !slices.Contains(p.calls, "stat") {
			t.Errorf("differences: %+v", all)
		}
	})
}

// blind is a store that neither lists a key nor has it.
type blind struct {
	blobs.Store
	key string
}

func (b blind) Stat(ctx context.Context, key string) (int64, error) {
	n, err := b.Store.Stat(ctx, key)
	if key == b.key {
		return 0, blobs.ErrNotFound
	}
	return n, err
}

func (b blind) List(ctx context.Context, prefix, after string) iter.Seq2[blobs.Object, error] {
	return func(yield func(blobs.Object, error) bool) {
		for o, err := range b.Store.List(ctx, prefix, after) {
			if o.Key != b.key && !yield(o, err) {
				return
			}
		}
	}
}

func TestVerifyAnswersWhatItCannotAsk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		count := &tap{}
		if _, all := s.verify(count.config(s.config()), VerifyOptions{}); len(all) > 0 {
			t.Fatal(all)
		}
		for n := 1; n <= len(count.calls); n++ {
			p := &tap{at: n, meet: func(context.Context, func() error) error { return failure(count.calls[n-1]) }}
			folder := t.TempDir()
			_, err := s.collector(p.config(s.config())).Verify(t.Context(), VerifyOptions{Folder: folder}, func(d Difference) error {
				t.Errorf("call %d, %s: %+v", n, count.calls[n-1], d)
				return nil
			})
			if err == nil {
				t.Errorf("call %d, %s, failed: no error", n, count.calls[n-1])
			}
			if left, _ := os.ReadDir(folder); len(left) > 0 {
				t.Errorf("call %d: %v is left", n, left)
			}
		}
		s.lose([]byte("four"))
		enough := errors.New("enough")
		if _, err := s.collector(s.config()).Verify(t.Context(), VerifyOptions{}, func(Difference) error { return enough }); !errors.Is(err, enough) {
			t.Errorf("an error of report: %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := s.collector(s.config()).Verify(ctx, VerifyOptions{}, func(Difference) error { return nil }); err == nil {
			t.Error("no error although nobody waits")
		}
	})
}
