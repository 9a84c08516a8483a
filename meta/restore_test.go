package meta

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/pontoon-registry/pontoon/meta/kv"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

var aRestoration = Restoration{ClusterID: "new", Epoch: "e2", Life: "l2", NodeID: "n9", Configuration: []byte("config"), WallTime: 12345}

// imported answers a store with the state and, besides, rows of every range that is the old cluster's own.
func imported(t testing.TB, s *State) *kv.Store {
	t.Helper()
	return importedTo(t, s, kv.Options{Memory: kv.NewMemory()})
}

func importedTo(t testing.TB, s *State, o kv.Options) *kv.Store {
	t.Helper()
	store, err := kv.Open("db", o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closed(t, store.Close()) })
	if err := Import(store, bytes.NewReader(exported(t, s))); err != nil {
		t.Fatal(err)
	}
	clock := s.now.Load().clock.GetClusterTime()
	set := func(key []byte, row proto.Message) {
		value, err := encoding.Marshal(row)
		if err == nil {
			err = store.Set(key, value)
		}
		closed(t, err)
	}
	set(oneRow(nil, rangeCollection), &metav1.Collection{Running: &metav1.Cycle{}, Kept: 3})
	set(indexKey(nil, rangeCycle, 5), &metav1.Cycle{})
	set(nameKey(nil, rangeBackup, "b"), &metav1.Backup{State: metav1.BackupState_BACKUP_STATE_OPEN})
	set(placeKey(nil, rangeDefect, 4, 0), &metav1.Defect{Index: 4})
	set(nameKey(nil, rangeLock, "l"), &metav1.Lock{Holder: "h", Token: 3})
	set(nameKey(nil, rangeNode, "n1"), &metav1.Node{Id: "n1"})
	set(addName(nameKey(nil, rangeOrigin, "n1"), "x"), &metav1.OriginRow{BootId: "b"})
	set(inRepository(nil, rangeDeparted, "r0", digestOf("young")), &metav1.Departed{Since: clock - worldSettings().GetGrace() + 1})
	set(inRepository(nil, rangeDeparted, "r0", digestOf("old")), &metav1.Departed{Since: clock - worldSettings().GetGrace()})
	return store
}

func restored(t testing.TB, store *kv.Store, to Restoration) *State {
	t.Helper()
	if err := Restore(store, to); err != nil {
		t.Fatal(err)
	}
	state, err := Open(store)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closed(t, state.Close()) })
	return state
}

// rowsOf reads all rows of some ranges; change may say that a row is expected to differ.
func rowsOf(v *View, ranges ...byte) map[string]string {
	out := map[string]string{}
	for _, r := range ranges {
		v.scan(oneRow(nil, r), nil, func(k, value []byte) bool {
			out[string(k)] = string(value)
			return true
		})
	}
	return out
}

// aWorld is a registry with pushes under way, at a moment where graces are young, old and over.
func aWorld(t testing.TB, seed uint64) *world {
	w := newWorld(t, seed, "")
	for range 700 {
		w.step()
	}
	return w
}

// TestARestoredStateKeepsWhatWasPushedAndNothingOfTheOldClusters is what Restore promises, over many worlds.
func TestARestoredStateKeepsWhatWasPushedAndNothingOfTheOldClusters(t *testing.T) {
	seen := map[string]int{}
	for seed := range uint64(12) {
		w := aWorld(t, seed)
		old := w.state.View()
		state := restored(t, imported(t, w.state), aRestoration)
		v := state.View()

		kept := []byte{rangeUsage, rangeRepository, rangeManifestBody, rangeTag, rangeTagged, rangeReference, rangeAbsent, rangeGraced, rangeBlob, rangeChild, rangeReferrer, rangePulls}
		was, is := rowsOf(old, kept...), rowsOf(v, kept...)
		for k, value := range was {
			if is[k] != value {
				t.Fatalf("seed %d: row %x was %x and is %x", seed, k, value, is[k])
			}
		}
		if len(is) != len(was) {
			t.Fatalf("seed %d: %d rows were kept, expected %d", seed, len(is), len(was))
		}
		if left := rowsOf(v, rangeChainNote, rangeDefect, rangeNode, rangeOrigin, rangeOriginResult, rangeUpload, rangeLock,
			rangeCollection, rangeCycle, rangeBackup, rangeRestoring); len(left) != 0 {
			t.Fatalf("seed %d: rows of the old cluster are left: %q", seed, left)
		}
		if bad := countersOff(state); bad != "" {
			t.Fatalf("seed %d: %s", seed, bad)
		}
		checkLiving(t, seed, old, v, seen)
		checkObjects(t, seed, old, v, seen)
		checkMoment(t, old, v, state)
		old.Close()
		v.Close()
	}
	for _, what := range []string{"live", "over", "fresh", "uploading", "multipart", "condemned ahead", "condemned due"} {
		if seen[what] == 0 {
			t.Errorf("no world had anything %s: the test saw too little", what)
		}
	}
	t.Log(seen)
}

// checkLiving: a blob is live in a repository exactly if it was (G8); what was within its grace has all of it again.
func checkLiving(t *testing.T, seed uint64, old, v *View, seen map[string]int) {
	t.Helper()
	grace := worldSettings().GetGrace()
	for _, repository := range []string{"r0", "r1"} {
		for _, content := range worldContents {
			d := digestOf(string(content))
			was := old.liveBlob(repository, d, old.ClusterTime(), grace) != nil
			if is := v.liveBlob(repository, d, v.ClusterTime(), grace) != nil; is != was {
				t.Fatalf("seed %d: blob %s in %s: was live: %v, is: %v", seed, d, repository, was, is)
			}
			before, after := old.grace(repository, d), v.grace(repository, d)
			switch {
			case before == nil:
			case old.ClusterTime()-before.GetSince() < grace:
				seen["fresh"]++
				if after.GetSince() != v.ClusterTime() {
					t.Fatalf("seed %d: the grace of %s in %s is since %d, it is %d", seed, d, repository, after.GetSince(), v.ClusterTime())
				}
			case after.GetSince() != before.GetSince():
				t.Fatalf("seed %d: a grace that was over has changed", seed)
			}
			if was {
				seen["live"]++
			} else {
				seen["over"]++
			}
		}
	}
	old.scan(oneRow(nil, rangeManifest), nil, func(k, value []byte) bool {
		var before, after metav1.Manifest
		if !old.decode(k, value, &before) || !v.read(bytes.Clone(k), &after) {
			t.Fatalf("seed %d: manifest %x is gone", seed, k)
		}
		if old.ClusterTime()-before.GetConfirmed() < grace {
			before.Confirmed = v.ClusterTime()
		}
		if !proto.Equal(&before, &after) {
			t.Fatalf("seed %d: manifest %x: %v, expected %v", seed, k, &after, &before)
		}
		return true
	})
	for name, want := range map[string]int64{"young": v.ClusterTime(), "old": old.ClusterTime() - worldSettings().GetGrace()} {
		var row metav1.Departed
		if v.read(inRepository(nil, rangeDeparted, "r0", digestOf(name)), &row); row.GetSince() != want {
			t.Fatalf("a %s departure is since %d, expected %d", name, row.GetSince(), want)
		}
	}
}

// checkObjects: no key is lost sight of, and none becomes due sooner than it was.
func checkObjects(t *testing.T, seed uint64, old, v *View, seen map[string]int) {
	t.Helper()
	delay := old.at.system.GetSettings().GetDeleteDelay()
	was, is := rowsOf(old, rangeObject), rowsOf(v, rangeObject)
	if len(was) != len(is) {
		t.Fatalf("seed %d: %d keys were known, %d are", seed, len(was), len(is))
	}
	for k, value := range was {
		var before, after metav1.Object
		old.decode([]byte(k), []byte(value), &before)
		v.decode([]byte(k), []byte(is[k]), &after)
		c := after.GetCondemned()
		switch s := before.GetState().(type) {
		case *metav1.Object_Live:
			if !proto.Equal(&before, &after) {
				t.Fatalf("seed %d: a live key is %v", seed, &after)
			}
		case *metav1.Object_Uploading:
			seen["uploading"]++
			if c.GetIndex() != v.Index() || c.GetNotBefore() != v.ClusterTime()+delay {
				t.Fatalf("seed %d: the key of an upload is condemned so: %v", seed, c)
			}
			key, _ := cutName([]byte(k)[1+len("main")+1:])
			want := sizeUnder(old.upload(s.Uploading.GetUpload()), key)
			if len(want.GetMultipartIds()) > 0 {
				seen["multipart"]++
			}
			want.Index, want.NotBefore = c.GetIndex(), c.GetNotBefore()
			if !proto.Equal(c, want) {
				t.Fatalf("seed %d: key %s: condemned as %v, expected %v", seed, key, c, want)
			}
		case *metav1.Object_Condemned:
			left, leftNow := s.Condemned.GetNotBefore()-old.ClusterTime(), c.GetNotBefore()-v.ClusterTime()
			if left > 0 {
				seen["condemned ahead"]++
			} else {
				seen["condemned due"]++
			}
			if c.GetIndex() != s.Condemned.GetIndex() || left > 0 && leftNow != left || left <= 0 && leftNow > 0 {
				t.Fatalf("seed %d: a condemned key was %v and is %v", seed, s.Condemned, c)
			}
		}
	}
}

// sizeUnder is what endUpload would have said of a key.
func sizeUnder(u *metav1.Upload, key string) *metav1.Condemned {
	c := &metav1.Condemned{}
	for _, p := range u.GetPieces() {
		if p.GetKey() == key {
			c.Size = p.GetSize()
		}
	}
	if u.GetMultipartKey() == key {
		c.Size, c.MultipartIds = partsSize(u.GetParts()), []string{u.GetMultipartId()}
	}
	return c
}

// checkMoment: index, term and clock are beyond all that the old cluster can have said, and the row about the cluster says where it came from.
func checkMoment(t *testing.T, old, v *View, state *State) {
	t.Helper()
	index, term := state.Applied()
	if index != old.Index()+1<<32 || term != 2 || v.ClusterTime() != old.ClusterTime()+24*hour {
		t.Fatalf("it is at index %d, term %d, clock %d", index, term, v.ClusterTime())
	}
	want := &metav1.System{
		ClusterId: "new", Epoch: "e2", Life: "l2", Incarnation: 1, Version: NewestVersion, Term: 2, Settings: worldSettings(),
		Restored: &metav1.Restored{ClusterId: "c", Epoch: "e1", Index: old.Index(), WallTime: old.at.clock.GetWallTime(), RestoredWallTime: 12345},
	}
	if !proto.Equal(v.at.system, want) {
		t.Fatalf("the cluster is %v, expected %v", v.at.system, want)
	}
	if w := state.Witness(); w.GetIndex() != index || w.GetTerm() != term || string(w.GetConfiguration()) != "config" || w.GetConfigurationIndex() != index {
		t.Fatalf("it witnesses %v", w)
	}
	events := rowsOf(v, rangeEvent)
	for k, value := range rowsOf(old, rangeEvent) {
		if events[k] != value {
			t.Fatalf("event %x has changed", k)
		}
	}
	items, _, err := v.Events(EventCursor{Index: index - 1}, 10)
	if err != nil || len(items) != 1 || items[0].GetAction() != metav1.Action_ACTION_RESTORE_CLUSTER || items[0].GetSubject() != "c" || items[0].GetNodeId() != "n9" {
		t.Fatalf("the new events are %v, %v", items, err)
	}
}

// TestOneStateIsAlwaysRestoredToTheSame, hash and rows (M9); another identity changes the rows that say it, and no other.
func TestOneStateIsAlwaysRestoredToTheSame(t *testing.T) {
	w := aWorld(t, 3)
	a, b := restored(t, imported(t, w.state), aRestoration), restored(t, imported(t, w.state), aRestoration)
	if hashOf(a) != hashOf(b) || !bytes.Equal(exported(t, a), exported(t, b)) {
		t.Errorf("restored twice: %s and %s", hashOf(a), hashOf(b))
	}
	if hashOf(a)[20:] == hashOf(w.state)[20:] {
		t.Error("the hash is that of the old cluster")
	}
	other := aRestoration
	other.ClusterID, other.Epoch, other.Life, other.NodeID = "new2", "e3", "l3", "n8"
	c := restored(t, imported(t, w.state), other)
	va, vc := a.View(), c.View()
	defer va.Close()
	defer vc.Close()
	for r := byte(1); r < 0x30; r++ {
		if r == rangeSystem || r == rangeEvent || r == rangeChain {
			continue
		}
		if x, y := rowsOf(va, r), rowsOf(vc, r); fmt.Sprint(x) != fmt.Sprint(y) {
			t.Errorf("range %x differs: %q and %q", r, x, y)
		}
	}
	if hashOf(a) == hashOf(c) {
		t.Error("two clusters have one hash")
	}
}

// TestARestoreThatWasCutShortIsRefused after every step of it, also by another Restore.
func TestARestoreThatWasCutShortIsRefused(t *testing.T) {
	w := aWorld(t, 4)
	for done := 1; ; done++ {
		store := imported(t, w.state)
		snap, err := store.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		r, err := newRestorer(store, snap, aRestoration)
		if err != nil {
			t.Fatal(err)
		}
		r.bound = 64 // so that every step is many batches
		steps := r.steps()
		for _, step := range steps[:done] {
			step()
			r.flush()
		}
		closed(t, errors.Join(r.err, r.batch.Discard(), snap.Close()))
		state, err := Open(store)
		if done == len(steps) {
			if err != nil {
				t.Fatalf("after the last step: %v", err)
			}
			closed(t, state.Close())
			return
		}
		if !errors.Is(err, ErrUnrestored) {
			t.Fatalf("after step %d: %v", done, err)
		}
		if err := Restore(store, aRestoration); !errors.Is(err, ErrUnrestored) {
			t.Fatalf("again, after step %d: %v", done, err)
		}
	}
}

// TestAPowerCutNeverShowsHalfARestore: any prefix of its batches is the state as it was imported, one that is refused, or the new one.
func TestAPowerCutNeverShowsHalfARestore(t *testing.T) {
	w := aWorld(t, 5)
	refused := 0
	for percent := 0; percent <= 100; percent += 5 {
		m := kv.NewMemory()
		store := importedTo(t, w.state, kv.Options{Memory: m, Memtable: 32 << 10})
		for i := range uint64(3000) { // so that the restore writes many blocks of the log
			closed(t, store.Set(indexKey(nil, rangeCycle, i), nil))
		}
		closed(t, store.Sync())
		snap, err := store.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		r, err := newRestorer(store, snap, aRestoration)
		if err != nil {
			t.Fatal(err)
		}
		r.bound = 64
		for _, step := range r.steps() {
			step()
			r.flush()
		}
		closed(t, errors.Join(r.err, r.batch.Discard(), snap.Close()))
		after, err := kv.Open("db", kv.Options{Memory: m.Crash(percent, uint64(percent))})
		if err != nil {
			t.Fatal(err)
		}
		state, err := Open(after)
		switch {
		case errors.Is(err, ErrUnrestored):
			refused++
		case err != nil:
			t.Fatal(err)
		default:
			v := state.View()
			uploads := rowsOf(v, rangeUpload)
			v.Close()
			if id := state.now.Load().system.GetClusterId(); (id == "new") != (len(uploads) == 0) || id != "new" && id != "c" {
				t.Errorf("%d %%: cluster %q with %d uploads", percent, id, len(uploads))
			}
			closed(t, state.Close())
		}
		closed(t, after.Close())
	}
	if refused == 0 {
		t.Error("no power cut fell into a restore")
	}
}

// TestARestoredClusterLives: it opens a term, takes pushes under its own epoch only, and refuses what was before.
func TestARestoredClusterLives(t *testing.T) {
	w := aWorld(t, 6)
	p := &pushing{id: fmt.Sprintf("%032x", 77), repository: "r0"}
	w.propose(w.opening(p))
	was := w.row(p.id)
	s := restored(t, imported(t, w.state), aRestoration)
	index, term := s.Applied()
	w.state, w.index, w.clock = s, index, 0
	w.state.decide = (*txn).judge
	open := &metav1.Command{Kind: &metav1.Command_OpenTerm{OpenTerm: &metav1.OpenTerm{Term: term + 1, Settings: DefaultSettings()}}}
	if r, ok := w.one(open); !ok {
		t.Fatal(r)
	}
	commit := &metav1.CommitUpload{Id: p.id, Repository: "r0", Revision: was.GetRevision(), Digest: digestOf("x").Bytes(), Size: 1, Key: "e1/" + p.id + "/a"}
	if r, ok := w.one(&metav1.Command{Kind: &metav1.Command_CommitUpload{CommitUpload: commit}}); ok {
		t.Fatalf("an upload of the old cluster was committed: %v", r)
	}
	r, ok := w.one(w.opening(p)) // its id is free: its keys are of another epoch
	if !ok {
		t.Fatal(r)
	}
	commit.Revision = r.GetUpload().GetRevision()
	if r, ok := w.one(&metav1.Command{Kind: &metav1.Command_CommitUpload{CommitUpload: commit}}); ok {
		t.Fatalf("a key of the old epoch was committed: %v", r)
	}
	commit.Key = "e2/" + p.id + "/a"
	if r, ok := w.one(&metav1.Command{Kind: &metav1.Command_CommitUpload{CommitUpload: commit}}); !ok {
		t.Fatal(r)
	}
	if bad := countersOff(s); bad != "" {
		t.Error(bad)
	}
}

// TestOnlyAStateOfACluster can be restored, and only as another one.
func TestOnlyAStateOfACluster(t *testing.T) {
	empty, err := kv.OpenMemory()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { closed(t, empty.Close()) }()
	if err := Restore(empty, aRestoration); err == nil {
		t.Error("nothing was restored")
	}
	store := imported(t, aWorld(t, 7).state)
	for name, change := range map[string]func(*Restoration){
		"the old id":       func(r *Restoration) { r.ClusterID = "c" },
		"the old epoch":    func(r *Restoration) { r.Epoch = "e1" },
		"no epoch":         func(r *Restoration) { r.Epoch = "../x" },
		"no node":          func(r *Restoration) { r.NodeID = "" },
		"no configuration": func(r *Restoration) { r.Configuration = nil },
	} {
		to := aRestoration
		change(&to)
		if err := Restore(store, to); err == nil {
			t.Errorf("restored with %s", name)
		}
	}
	restored(t, store, aRestoration) // what was refused changed nothing
}
