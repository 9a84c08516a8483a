package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pontoon-registry/pontoon/cluster/backup"
	"github.com/pontoon-registry/pontoon/meta"
	"github.com/pontoon-registry/pontoon/meta/kv"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// site is a machine with a directory of layers, on which registries come and go.
type site struct {
	t      *testing.T
	dir    string
	client *registryClient
	// pushed are the images by repository:tag.
	pushed map[string]*image
}

func newSite(t *testing.T) *site {
	s := &site{t: t, dir: socketDir(t), client: newRegistryClient(), pushed: map[string]*image{}}
	if err := os.Mkdir(filepath.Join(s.dir, "layers"), 0o700); err != nil {
		t.Fatal(err)
	}
	return s
}

// config is that of a node with the data directory.
func (s *site) config(data string) string {
	return fmt.Sprintf("version: 0.1\nhttp: {addr: \"127.0.0.1:0\", debug: {addr: none}}\n"+
		"storage: {filesystem: {rootdirectory: %[1]s/layers}, delete: {enabled: true}}\ncluster: {datadir: %[1]s/%[2]s}\n", s.dir, data)
}

func (s *site) path(name string) string { return filepath.Join(s.dir, name) }

// serve runs a node with the data directory.
func (s *site) serve(data string) *serving {
	s.t.Helper()
	folder := s.path(data + "-config")
	if err := os.MkdirAll(folder, 0o700); err != nil {
		s.t.Fatal(err)
	}
	return serveWith(s.t, folder, s.config(data))
}

func (s *site) push(at *serving, repository, tag string) *image {
	s.t.Helper()
	i, err := newImage(repository + tag)
	if err == nil {
		err = s.client.push(s.t.Context(), []string{at.url(s.t)}, repository, tag, i)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	s.pushed[repository+":"+tag] = i
	return i
}

// pulls pulls everything that was pushed, byte for byte.
func (s *site) pulls(at *serving) {
	s.t.Helper()
	for name, i := range s.pushed {
		repository, tag, _ := strings.Cut(name, ":")
		if err := s.client.pull(s.t.Context(), at.url(s.t), repository, tag, i); err != nil {
			s.t.Errorf("pull %s: %v", name, err)
		}
	}
}

// save writes the state of a node that does not run into a file, and answers what it says of the cluster.
func (s *site) save(data, file string) *metav1.System {
	s.t.Helper()
	store, err := kv.Open(filepath.Join(s.path(data), "state"), kv.Options{})
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { closeAll(s.t, store.Close) }()
	state, err := meta.Open(store)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { closeAll(s.t, state.Close) }()
	v := state.View()
	defer v.Close()
	var b bytes.Buffer
	if _, err := backup.WriteFile(s.t.Context(), v, "test", &b, nil); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(s.path(file), b.Bytes(), 0o600); err != nil {
		s.t.Fatal(err)
	}
	system, err := v.System()
	if err != nil {
		s.t.Fatal(err)
	}
	return system
}

func closeAll(t *testing.T, closers ...func() error) {
	for _, c := range closers {
		if err := c(); err != nil {
			t.Error(err)
		}
	}
}

// verb runs a verb of a node that does not run, with the data directory.
func (s *site) verb(data string, args ...string) (out, errs string, err error) {
	s.t.Helper()
	config := s.path(data + ".yml")
	if err := os.WriteFile(config, []byte(s.config(data)), 0o600); err != nil {
		s.t.Fatal(err)
	}
	var o, e output
	err = run(s.t.Context(), append(args, "--config", config), stdio{strings.NewReader(""), &o, &e})
	return o.String(), e.String(), err
}

// refused fails unless a verb ends with the exit code and says all of the texts.
func (s *site) refused(code int, texts []string, data string, args ...string) {
	s.t.Helper()
	out, _, err := s.verb(data, args...)
	if err == nil || exitCode(err) != code {
		s.t.Errorf("%s: exit code %d, expected %d: %v\n%s", strings.Join(args, " "), exitCode(err), code, err, out)
		return
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			s.t.Errorf("%s: %q is not in %q", strings.Join(args, " "), text, err)
		}
	}
}

// aSite has a cluster of one node, which pushed a few images and stopped, and its state in file.tar.
func aSite(t *testing.T) (*site, *metav1.System) {
	t.Helper()
	s := newSite(t)
	at := s.serve("one")
	s.push(at, "team/app", "v1")
	s.push(at, "team/app", "v2")
	s.push(at, "team/tool", "latest")
	if err := at.end(t); err != nil {
		t.Fatal(err)
	}
	return s, s.save("one", "file.tar")
}

// TestARestoredRegistryServesEverything by another secret, since its new data directory makes its own, and leaves the owner mark as it was.
func TestARestoredRegistryServesEverything(t *testing.T) {
	s, old := aSite(t)
	before, err := os.ReadFile(s.path("layers/_objects/" + markName))
	if err != nil {
		t.Fatal(err)
	}
	out, _, err := s.verb("two", "snapshot", "restore", s.path("file.tar"))
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"Restored cluster " + old.GetClusterId(), "pontoon serve", "join", "pontoon gc adopt --from " + old.GetClusterId()} {
		if !strings.Contains(out, text) {
			t.Errorf("%q is not in\n%s", text, out)
		}
	}
	secrets := [2][]byte{}
	at := s.serve("two")
	s.pulls(at)
	s.push(at, "team/app", "v3")
	s.pulls(at)
	if err := at.end(t); err != nil {
		t.Fatal(err)
	}
	for i, data := range []string{"one", "two"} {
		if secrets[i], err = os.ReadFile(filepath.Join(s.path(data), "secret")); err != nil {
			t.Fatal(err)
		}
	}
	if bytes.Equal(secrets[0], secrets[1]) {
		t.Error("both clusters have one secret: the test shows nothing of another one")
	}
	if after, err := os.ReadFile(s.path("layers/_objects/" + markName)); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the owner mark was\n%s\nand is\n%s\n%v", before, after, err)
	}
	// Beside it the old cluster lives on as if nothing had been.
	delete(s.pushed, "team/app:v3")
	one := s.serve("one")
	s.pulls(one)
	s.push(one, "team/app", "v4")
}

// TestARestoreIsRefused wherever it would lose something or believe something wrong, and says what and where.
func TestARestoreIsRefused(t *testing.T) {
	s, system := aSite(t)
	file := s.path("file.tar")
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	restore := func(code int, texts []string, args ...string) {
		t.Helper()
		s.refused(code, texts, "two", append([]string{"snapshot", "restore"}, args...)...)
	}
	s.refused(exitConflict, []string{"holds a node's state", system.GetClusterId()}, "one", "snapshot", "restore", file)
	if out, _, err := s.verb("one", "snapshot", "restore", file, "--if-empty"); err != nil || !strings.Contains(out, "nothing was restored") {
		t.Errorf("--if-empty: %v\n%s", err, out)
	}
	restore(exitNotFound, []string{"no such file"}, s.path("nothing.tar"))
	restore(exitNotFound, []string{"there is no complete snapshot"}, "latest")
	restore(exitUsage, []string{"--to", "10m"}, file, "--to", "yesterday")
	restore(exitNotFound, []string{"is not reached", "index"}, file, "--to", "999999")
	restore(exitNotFound, []string{"is not reached", "index"}, file, "--to", "1h")
	damaged := func(name string, change func([]byte) []byte) string {
		t.Helper()
		if err := os.WriteFile(s.path(name), change(bytes.Clone(whole)), 0o600); err != nil {
			t.Fatal(err)
		}
		return s.path(name)
	}
	restore(exitFailure, []string{"cut short", "short.tar"}, damaged("short.tar", func(b []byte) []byte { return b[:len(b)/2] }))
	restore(exitFailure, []string{"was altered", "bit.tar: rows-00000.zst"}, damaged("bit.tar", func(b []byte) []byte { b[600] ^= 1; return b }))
	restore(exitFailure, []string{"does not read", "newer.tar: manifest.json"}, damaged("newer.tar", func(b []byte) []byte {
		return bytes.Replace(b, []byte(`"format": 1`), []byte(`"format": 9`), 1)
	}))
	// A node that was started and found no cluster: with --if-empty, the start that follows would found an empty one.
	if err := os.MkdirAll(s.path("started/state"), 0o700); err != nil {
		t.Fatal(err)
	}
	s.refused(exitConflict, []string{"there is state in", "no cluster"}, "started", "snapshot", "restore", file, "--if-empty")
	// Each of these ended before anything was believed: the directory is free for the right one.
	if _, _, err := s.verb("two", "snapshot", "restore", file); err != nil {
		t.Fatal(err)
	}
	s.pulls(s.serve("two"))
}

// rewriteMark changes the owner mark of the site as its owner would.
func (s *site) rewriteMark(change func(*ownership)) {
	s.t.Helper()
	c := mustParse(s.t, s.config("mark"))
	store, err := openDirectory(s.t.Context(), c.Storage.Filesystem, storageMetrics{})
	if err != nil {
		s.t.Fatal(err)
	}
	defer closeAll(s.t, store.close)
	m := ownerMark{objects: store.objects}
	o, version, err := m.read(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	change(&o)
	if _, err := m.replace(s.t.Context(), o, version); err != nil {
		s.t.Fatal(err)
	}
}

// TestARestoreBelowWhatWasSweptNamesWhatIsGone is G9: refused, unless every layer is looked for; what is gone is named, marked lost and healed by a push.
func TestARestoreBelowWhatWasSweptNamesWhatIsGone(t *testing.T) {
	s, _ := aSite(t)
	s.rewriteMark(func(o *ownership) { o.SweptThrough = 1 << 20 })
	s.refused(exitConflict, []string{"swept", "--accept-missing"}, "two", "snapshot", "restore", s.path("file.tar"))
	gone := s.pushed["team/tool:latest"]
	layer := gone.layer
	s.removeLayer(layer)
	out, _, err := s.verb("two", "snapshot", "restore", s.path("file.tar"), "--accept-missing", "-o", "json")
	if err != nil {
		t.Fatal(err)
	}
	var told struct {
		Restored bool `json:"restored"`
		Missing  []missingLayer
	}
	if err := json.Unmarshal([]byte(out), &told); err != nil {
		t.Fatal(err)
	}
	if !told.Restored || len(told.Missing) != 1 || told.Missing[0].Size != int64(len(layer)) || strings.Join(told.Missing[0].Repositories, " ") != "team/tool" {
		t.Fatalf("it says %s", out)
	}
	at := s.serve("two")
	// Before anybody pulls: a client that asks whether the layer is there must send it (B7).
	head := at.url(t) + "/v2/team/tool/blobs/" + told.Missing[0].Digest
	if _, err := s.client.do(t.Context(), http.MethodHead, head, nil, "", http.StatusNotFound); err != nil {
		t.Errorf("HEAD of the lost layer: %v", err)
	}
	if err := s.client.pull(t.Context(), at.url(t), "team/tool", "latest", gone); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("the lost layer is served: %v", err)
	}
	if err := s.client.push(t.Context(), []string{at.url(t)}, "team/tool", "latest", gone); err != nil {
		t.Fatal(err)
	}
	s.pulls(at)
}

// removeLayer takes the file of a layer away behind the registry.
func (s *site) removeLayer(layer []byte) {
	s.t.Helper()
	removed := 0
	err := filepath.Walk(s.path("layers"), func(path string, info os.FileInfo, err error) error {
		if err != nil || info.IsDir() || info.Size() != int64(len(layer)) {
			return err
		}
		body, err := os.ReadFile(path)
		if err == nil && bytes.Equal(body, layer) {
			removed++
			err = os.Remove(path)
		}
		return err
	})
	if err != nil || removed != 1 {
		s.t.Fatalf("removed %d files, %v", removed, err)
	}
}

// TestALineageIsProvenByTheMarkAlone lists every way in which a mark can stand to a snapshot.
func TestALineageIsProvenByTheMarkAlone(t *testing.T) {
	o := func(cluster string, incarnation, swept uint64) ownership {
		return ownership{Cluster: cluster, Epoch: "e-" + cluster, Incarnation: incarnation, SweptThrough: swept}
	}
	c := &metav1.System{ClusterId: "c", Epoch: "e-c", Incarnation: 2}
	n := &metav1.System{ClusterId: "n", Epoch: "e-n", Incarnation: 3, Restored: &metav1.Restored{ClusterId: "c", Epoch: "e-c", Incarnation: 2, Index: 100}}
	for name, x := range map[string]struct {
		mark   ownership
		marked bool
		system *metav1.System
		index  uint64
		proven bool
	}{
		"its own, above what was swept":                   {o("c", 2, 50), true, c, 51, true},
		"its own, at what was swept":                      {o("c", 2, 50), true, c, 50, true},
		"its own, below":                                  {o("c", 2, 50), true, c, 49, false},
		"its own, of an earlier life":                     {o("c", 1, 0), true, c, 50, true},
		"its own, swept in an earlier life":               {o("c", 1, 50), true, c, 50, false},
		"its own, recovered since, nothing swept":         {o("c", 3, 0), true, c, 50, true},
		"its own, recovered and swept since":              {o("c", 3, 10), true, c, 50, false},
		"the same id, another epoch":                      {ownership{Cluster: "c", Epoch: "e-x"}, true, c, 50, false},
		"restored from the owner, which swept no further": {o("c", 2, 100), true, n, 1 << 33, true},
		"restored from the owner, which swept on":         {o("c", 2, 101), true, n, 1 << 33, false},
		"restored from the owner, which was recovered":    {o("c", 3, 40), true, n, 1 << 33, false},
		"taken by another cluster":                        {o("x", 1, 0), true, c, 50, false},
		"taken by the one that was restored from it":      {o("n", 3, 1<<33), true, c, 50, false},
		"no mark": {ownership{}, false, c, 50, false},
	} {
		if got := lineageOf(x.mark, x.marked, x.system, x.index); (got.unproven == "") != x.proven {
			t.Errorf("%s: %q", name, got.unproven)
		}
	}
}

// TestSnapshotsAreInspectedAndVerifiedWithoutANode.
func TestSnapshotsAreInspectedAndVerifiedWithoutANode(t *testing.T) {
	t.Setenv("TMPDIR", socketDir(t)) // others may have files of these names, left by a kill too
	s, system := aSite(t)
	file := s.path("file.tar")
	at := s.serve("one")
	s.push(at, "team/app", "v3")
	if err := at.end(t); err != nil {
		t.Fatal(err)
	}
	s.save("one", "later.tar")

	out, _, err := s.verb("two", "snapshot", "inspect", file, "--tags")
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{system.GetClusterId(), "team/app ", "team/tool:latest  sha256:", "(2 repositories)"} {
		if !strings.Contains(out, text) {
			t.Errorf("%q is not in\n%s", text, out)
		}
	}
	out, _, err = s.verb("two", "snapshot", "inspect", file, s.path("later.tar"), "-o", "json")
	if err != nil {
		t.Fatal(err)
	}
	var diff struct{ Changes []changed }
	if err := json.Unmarshal([]byte(out), &diff); err != nil {
		t.Fatal(err)
	}
	if len(diff.Changes) != 2 || diff.Changes[0].Repository != "team/app" || diff.Changes[0].Manifests != 1 || diff.Changes[1].Tag != "v3" || diff.Changes[1].Change != "added" {
		t.Errorf("changes are %+v", diff.Changes)
	}

	for _, how := range []string{"", "--blobs", "--deep"} {
		args := []string{"snapshot", "verify", file}
		if how != "" {
			args = append(args, how)
		}
		if out, _, err := s.verb("two", args...); err != nil || !strings.Contains(out, "whole: cluster "+system.GetClusterId()) {
			t.Errorf("verify %s: %v\n%s", how, err, out)
		}
	}
	layer := s.pushed["team/tool:latest"].layer
	s.removeLayer(layer)
	for _, how := range []string{"--blobs", "--deep"} {
		out, _, err := s.verb("two", "snapshot", "verify", file, how)
		if exitCode(err) != exitFailure || !strings.Contains(out, "the store does not have it") || !strings.Contains(out, "team/tool") {
			t.Errorf("verify %s: %v\n%s", how, err, out)
		}
	}
	if _, _, err := s.verb("two", "snapshot", "verify", file); err != nil {
		t.Errorf("without its layers: %v", err)
	}
	if _, err := os.Lstat(s.path("two")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("looking made a data directory: %v", err)
	}
	left, err := filepath.Glob(filepath.Join(os.TempDir(), "pontoon-snapshot-*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
