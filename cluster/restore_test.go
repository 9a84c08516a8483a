package cluster

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pontoon-registry/pontoon/meta"
	"github.com/pontoon-registry/pontoon/meta/kv"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// tagged pushes a manifest without layers under a tag.
func tagged(t testing.TB, n *running, tag string) meta.Digest {
	t.Helper()
	body := []byte("{" + tag + "}")
	sum := sha256.Sum256(body)
	d, err := meta.PackDigest(meta.SHA256, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	mustWrite(t, n, simCommand(&metav1.Command{Kind: &metav1.Command_PutManifest{PutManifest: &metav1.PutManifest{
		Repository: "r", Digest: d.Bytes(), MediaType: meta.MediaTypeImage, Body: body, Size: int64(len(body)), Tags: []string{tag},
	}}}))
	return d
}

// theTags reads all tags of the repository, linearizably.
func theTags(t testing.TB, n *running) map[string]meta.Digest {
	t.Helper()
	out := map[string]meta.Digest{}
	err := n.View(t.Context(), meta.Read{}, func(v *meta.View) error {
		rows, _, err := v.Tags("r", "", 1000)
		for _, r := range rows {
			out[r.Name] = meta.Digest(r.GetDigest())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// saved answers the state of a node as Export writes it.
func saved(t testing.TB, n *running) []byte {
	t.Helper()
	v := n.state.View()
	defer v.Close()
	var b bytes.Buffer
	if err := v.Export(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// restoredInto makes a node of a saved state.
func restoredInto(dir string, file []byte, step func(string) error) (_ *metav1.System, err error) {
	r, err := openRestoration(dir, step)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if err := meta.Import(r.Store(), bytes.NewReader(file)); err != nil {
		return nil, err
	}
	if err := r.Found(time.Unix(1, 0)); err != nil {
		return nil, err
	}
	return r.Finish()
}

func noStep(string) error { return nil }

// TestARestoredNodeBeginsAClusterThatOthersJoin is the road back after all disks are lost: everything that was tagged is there, under another secret,
// the owner mark stays the old cluster's, and the old cluster's nodes are strangers.
func TestARestoredNodeBeginsAClusterThatOthersJoin(t *testing.T) {
	mark := &testMark{}
	old := form(t, 3, mark)
	want := map[string]meta.Digest{}
	for i := range 20 {
		tag := fmt.Sprintf("t%d", i)
		want[tag] = tagged(t, old[i%3], tag)
	}
	leader, _ := leaderOf(t, old)
	oldID, oldIncarnation := leader.ClusterID(), leader.dir.who().Incarnation
	var file []byte
	var oldIndex uint64
	eventually(t, "it is saved while nothing is applied", func() error {
		oldIndex = leader.applied()
		file = saved(t, leader)
		if now := leader.applied(); now != oldIndex {
			return fmt.Errorf("from %d to %d", oldIndex, now)
		}
		return nil
	})
	oldTerm := leader.raft().CurrentTerm()
	owner, epoch, err := mark.Owner(t.Context())
	if err != nil {
		t.Fatal(err)
	}

	cfg := testConfig(t, mark)
	cfg.Secrets = []string{"another-secret-0123456789-abcdefghijklmnop"}
	system, err := restoredInto(cfg.DataDir, file, noStep)
	if err != nil {
		t.Fatal(err)
	}
	// A node that could found another cluster would be asked for three; this one is of a cluster already.
	cfg.Join, cfg.Expect = []string{"127.0.0.1:1"}, 3
	first := start(t, cfg)
	settle(t, []*running{first})
	if first.ClusterID() == oldID || first.ClusterID() != system.GetClusterId() || first.dir.who().Incarnation != oldIncarnation+1 {
		t.Errorf("it belongs to %+v, the old cluster was %s", first.dir.who(), oldID)
	}
	if first.applied() <= oldIndex+1<<32 || first.raft().CurrentTerm() <= oldTerm+1 {
		t.Errorf("it is at index %d in term %d, the old cluster was at %d in %d", first.applied(), first.raft().CurrentTerm(), oldIndex, oldTerm)
	}
	if r := system.GetRestored(); r.GetClusterId() != oldID || r.GetIndex() != oldIndex {
		t.Errorf("it says that it was restored from %v", r)
	}
	_, gossip := first.Addresses()
	all := []*running{first}
	for i := range 2 {
		c := testConfig(t, mark)
		c.Secrets, c.Name, c.Join, c.Expect = cfg.Secrets, fmt.Sprintf("new%d", i), []string{gossip}, 3
		all = append(all, start(t, c))
	}
	settle(t, all)
	for _, n := range all {
		if got := theTags(t, n); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("node %s has the tags %v, expected %v", n.id, got, want)
		}
	}
	tagged(t, all[2], "after")
	if got := theTags(t, all[1]); len(got) != len(want)+1 {
		t.Errorf("a push after the restore: %d tags", len(got))
	}
	if now, nowEpoch, err := mark.Owner(t.Context()); err != nil || now != owner || nowEpoch != epoch || now != oldID {
		t.Errorf("the owner mark says %s %s, it said %s %s: %v", now, nowEpoch, owner, epoch, err)
	}

	// The old cluster lives on beside it, and knows nothing.
	tagged(t, old[0], "of the old cluster")
	if _, there := theTags(t, first)["of the old cluster"]; there {
		t.Error("the new cluster heard of it")
	}
	// A node of the old cluster that finds the new one, by the same secret, is none of it.
	stray := old[2].cfg
	old[2].halt(t)
	stray.Secrets, stray.Join, stray.Dial = cfg.Secrets, []string{gossip}, nil
	lost := start(t, stray)
	eventually(t, "the stray sees the new cluster", func() error {
		if len(lost.gossip.Peers()) == 0 {
			return errors.New("nobody")
		}
		return nil
	})
	eventually(t, "they could talk", func() error {
		_, err := lost.describe(t.Context(), first.id)
		return err
	})
	eventually(t, "the new cluster refuses a node of the old one", func() error {
		peer, err := lost.peer(first.id)
		if err != nil {
			return err
		}
		_, err = peer.ReadIndex(t.Context(), nil)
		if err == nil {
			t.Fatal("the new cluster answered a node of the old one")
		}
		if !strings.Contains(err.Error(), "cluster") {
			return err
		}
		return nil
	})
	if lost.Ready(t.Context()) == nil {
		t.Error("a node of the old cluster is ready in the new one")
	}
}

var errKilled = errors.New("killed by the test")

// TestARestoreThatWasKilledIsDoneAgain at every step: nothing starts on what it left, and the next one is whole.
func TestARestoreThatWasKilledIsDoneAgain(t *testing.T) {
	n := start(t, testConfig(t, nil))
	settle(t, []*running{n})
	want := tagged(t, n, "kept")
	file := saved(t, n)
	n.halt(t)

	var steps []string
	probe := func(name string) error { steps = append(steps, name); return nil }
	if _, err := restoredInto(t.TempDir(), file, probe); err != nil {
		t.Fatal(err)
	}
	if len(steps) < 8 {
		t.Fatalf("steps are %q", steps)
	}
	for _, at := range steps {
		t.Run(at, func(t *testing.T) {
			cfg := testConfig(t, nil)
			// What a kill leaves: a copy of all files as they are then.
			left := t.TempDir()
			_, err := restoredInto(cfg.DataDir, file, func(name string) error {
				if name != at {
					return nil
				}
				return errors.Join(errKilled, os.CopyFS(left, os.DirFS(cfg.DataDir)))
			})
			if !errors.Is(err, errKilled) {
				t.Fatal(err)
			}
			cfg.DataDir = left
			if n, err := Open(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "a restore began in") {
				t.Fatalf("it starts on half a restore: %v, %v", err, errors.Join(n.Close()))
			}
			if _, err := OpenRecovery(left); err == nil {
				t.Fatal("half a restore can be recovered")
			}
			if _, err := restoredInto(left, file, noStep); err != nil {
				t.Fatalf("the second time: %v", err)
			}
			stores, err := filepath.Glob(filepath.Join(left, "state*"))
			if err != nil || len(stores) != 1 {
				t.Errorf("it holds %v, %v", stores, err)
			}
			again := start(t, cfg)
			settle(t, []*running{again})
			if got := theTags(t, again); len(got) != 1 || got["kept"] != want {
				t.Errorf("tags %v", got)
			}
			again.halt(t)
			if _, err := restoredInto(left, file, noStep); !errors.Is(err, ErrHasState) {
				t.Errorf("restored over a node: %v", err)
			}
		})
	}
}

// TestARestoreThatFailsGivesItsSpaceBack, and leaves a directory that is taken up again.
func TestARestoreThatFailsGivesItsSpaceBack(t *testing.T) {
	dir := t.TempDir()
	if _, err := restoredInto(dir, []byte("no export"), noStep); !errors.Is(err, meta.ErrExport) {
		t.Fatalf("got %v", err)
	}
	left, err := filepath.Glob(filepath.Join(dir, "state*"))
	if err != nil || len(left) != 0 {
		t.Errorf("it holds %v, %v", left, err)
	}
	r, err := OpenRestoration(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenRestoration(dir); err == nil || !strings.Contains(err.Error(), "another process uses it") {
		t.Errorf("two at a time: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

// TestARestoreNeedsAnEmptyDirectory: it touches nothing in any other.
func TestARestoreNeedsAnEmptyDirectory(t *testing.T) {
	member := start(t, testConfig(t, nil))
	settle(t, []*running{member})
	waits := testConfig(t, nil)
	waits.Join, waits.Expect = []string{"127.0.0.1:1"}, 3
	waiting := start(t, waits)
	waiting.halt(t)
	pledged := t.TempDir()
	d, err := openDirectory(pledged)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.change(func(i *identity) bool { i.Pledge = &pledge{Founder: "f", Members: []string{"f"}}; return true }); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	for what, dir := range map[string]string{"a member that runs": member.cfg.DataDir, "one that waits": waits.DataDir, "one that pledged": pledged} {
		before := readTree(t, dir)
		if r, err := OpenRestoration(dir); !errors.Is(err, ErrHasState) {
			t.Errorf("%s: %v, %v", what, r, err)
		}
		if after := readTree(t, dir); what != "a member that runs" && after != before {
			t.Errorf("%s: the directory was\n%s\nand is\n%s", what, before, after)
		}
	}
	for _, name := range []string{"CURRENT", "state", filepath.Join("raft", "log.db")} { // whatever else is lost
		dir := t.TempDir()
		if err := os.MkdirAll(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		if r, err := OpenRestoration(dir); !errors.Is(err, ErrHasState) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s alone: %v, %v", name, r, err)
		}
	}
	// An identity alone, as a start that was stopped at once leaves it, is no state.
	fresh := t.TempDir()
	if d, err = openDirectory(fresh); err != nil {
		t.Fatal(err)
	}
	id := d.who().NodeID
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := OpenRestoration(fresh)
	if err != nil {
		t.Fatal(err)
	}
	if r.NodeID() != id {
		t.Errorf("the node is %s, it was %s", r.NodeID(), id)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

// readTree lists the files of a directory with their sizes.
func readTree(t testing.TB, dir string) string {
	t.Helper()
	var out strings.Builder
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err == nil && !info.IsDir() {
			fmt.Fprintln(&out, path, info.Size())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// TestWhatIsRecordedAfterARestoreIsThere when the node starts, and counts as the new cluster's.
func TestWhatIsRecordedAfterARestoreIsThere(t *testing.T) {
	n := start(t, testConfig(t, nil))
	settle(t, []*running{n})
	tagged(t, n, "kept")
	file := saved(t, n)
	n.halt(t)
	cfg := testConfig(t, nil)
	r, err := OpenRestoration(cfg.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	if err := meta.Import(r.Store(), bytes.NewReader(file)); err != nil {
		t.Fatal(err)
	}
	if err := r.Found(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if err := r.Record(time.Unix(2, 0), putNode("y", "recorded:1")); err != nil {
		t.Fatal(err)
	}
	if err := r.Record(time.Unix(3, 0), &metav1.Command{Kind: &metav1.Command_RemoveNode{RemoveNode: &metav1.RemoveNode{Id: ""}}}); err == nil {
		t.Error("a command that is refused was recorded")
	}
	if _, err := r.Finish(); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	again := start(t, cfg)
	settle(t, []*running{again})
	if at, err := addressOf(t.Context(), again, "y"); err != nil || at != "recorded:1" {
		t.Errorf("it reads %q, %v", at, err)
	}
}

// TestTwoRestoresDifferInTheirIdentityOnly is M9 across clusters: all else hashes alike.
func TestTwoRestoresDifferInTheirIdentityOnly(t *testing.T) {
	n := start(t, testConfig(t, nil))
	settle(t, []*running{n})
	for i := range 5 {
		tagged(t, n, fmt.Sprintf("t%d", i))
	}
	file := saved(t, n)
	var exports [2][]byte
	var ids [2]string
	for i := range exports {
		dir := t.TempDir()
		system, err := restoredInto(dir, file, noStep)
		if err != nil {
			t.Fatal(err)
		}
		ids[i] = system.GetClusterId()
		exports[i] = exportOf(t, dir, system)
	}
	if ids[0] == ids[1] {
		t.Error("two clusters have one id")
	}
	if !bytes.Equal(exports[0], exports[1]) {
		t.Error("two restores of one state differ in more than their identity")
	}
}

// exportOf answers a directory's state without what names its cluster: equal identities put in its place, and no hash, which covers them.
func exportOf(t testing.TB, dir string, system *metav1.System) []byte {
	t.Helper()
	path, err := statePath(dir)
	if err != nil {
		t.Fatal(err)
	}
	store, err := kv.Open(path, kv.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	}()
	state, err := meta.Open(store)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := state.Close(); err != nil {
			t.Error(err)
		}
	}()
	v := state.View()
	defer v.Close()
	var b bytes.Buffer
	if err := v.Export(&b); err != nil {
		t.Fatal(err)
	}
	_, hash := state.Hash()
	out := b.Bytes()[:b.Len()-32] // the sum at the end
	var who identity
	if err := readJSON(filepath.Join(dir, "node.json"), &who); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{system.GetClusterId(), system.GetEpoch(), system.GetLife(), who.NodeID, string(hash)} {
		if !bytes.Contains(out, []byte(name)) {
			t.Errorf("%x is not in it", name)
		}
		out = bytes.ReplaceAll(out, []byte(name), bytes.Repeat([]byte("-"), len(name)))
	}
	return out
}
