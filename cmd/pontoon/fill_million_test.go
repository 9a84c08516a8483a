package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	goflag "flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/pontoon-registry/pontoon/api"
	"github.com/pontoon-registry/pontoon/cluster"
	"github.com/pontoon-registry/pontoon/meta"
	"github.com/pontoon-registry/pontoon/meta/kv"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

var (
	fillConfig = goflag.String("fill.config", "", "fill the data directory of the node with this configuration, and end; empty: a small one, which is then served")
	fillCount  = goflag.Int("fill.count", 500, "how many manifests to fill it with, each with a tag and a blob of its own; a tenth as many blobs come that nothing needs")
)

// TestADataDirectoryIsFilledWithoutRequests applies the commands that push manifests and blobs to the state of a node that
// alone is a cluster: without requests, log, and files of layers, so that a million are there in minutes instead of hours. The
// figures of chaos are measured on such a directory. By itself it fills a small one, and sees that a node serves it.
func TestADataDirectoryIsFilledWithoutRequests(t *testing.T) {
	if *fillConfig != "" {
		fillDirectory(t, *fillConfig, *fillCount)
		return
	}
	dir := socketDir(t)
	config := fmt.Sprintf("version: 0.1\nhttp:\n  addr: 127.0.0.1:0\n  debug:\n    addr: 127.0.0.1:0\ncluster:\n  name: filled\n  node: a\n  datadir: %s\n"+
		"  addr: 127.0.0.1:0\n  gossip:\n    addr: 127.0.0.1:0\nstorage:\n  filesystem:\n    rootdirectory: %s\n"+
		"gc:\n  schedule: never\n  unsafeshort: true\n  grace: 10s\n  delay: 1s\n", filepath.Join(dir, "data"), filepath.Join(dir, "layers"))
	file := filepath.Join(dir, "fill.yml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	fillDirectory(t, file, *fillCount)
	s := serveWith(t, dir, config)
	for _, i := range []int{0, *fillCount / 2, *fillCount - 1} {
		if got, want := pulledManifest(t, s.url(t)+"/v2/"+filledRepository(i)+"/manifests/"+filledTag(i)), string(filledManifest(i)); got != want {
			t.Errorf("manifest %d: got %.300s, expected %s", i, got, want)
		}
	}
	if out, err := s.verb(t.Context(), "gc", "run", "--wait"); err != nil || !strings.Contains(out, fmt.Sprintf("%d blobs looked at", filledBlobs(*fillCount))) {
		t.Errorf("%v: %s", err, out)
	}
}

func pulledManifest(t *testing.T, url string) string {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(answer.Body)
	if err := errors.Join(err, answer.Body.Close()); err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("%s answered %s, %v: %s", url, answer.Status, err, body)
	}
	return string(body)
}

// fillDirectory makes the node of a configuration found its cluster, stops it, and adds to its state. The log ends before
// the state then, as where a snapshot was installed and the log not begun anew: the next start mends that (R-B2).
func fillDirectory(t *testing.T, file string, count int) {
	t.Helper()
	c, err := loadConfig(file, thisHost())
	if err != nil {
		t.Fatal(err)
	}
	foundCluster(t, c.Config)
	store, err := kv.Open(filepath.Join(c.Cluster.DataDir, "state"), kv.Options{Cache: 1 << 30, Memtable: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	state, err := meta.Open(store)
	if err != nil {
		t.Fatal(errors.Join(err, store.Close()))
	}
	filling := fillState(t, state, count)
	if err := errors.Join(filling, state.Close(), store.Close()); err != nil {
		t.Fatal(err)
	}
}

// foundCluster runs a node until it is a cluster. No duty runs meanwhile.
func foundCluster(t *testing.T, c *Config) {
	t.Helper()
	if err := os.MkdirAll(c.Cluster.DataDir, 0o700); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	secrets, err := c.secrets(log)
	if err != nil {
		t.Fatal(err)
	}
	metrics := api.NewMetrics()
	store, err := openStore(t.Context(), c, metrics)
	if err != nil {
		t.Fatal(err)
	}
	node, err := cluster.Open(t.Context(), c.clusterConfig(secrets, store, metrics, log))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- node.Run(ctx) }()
	founded := awaitFounded(ctx, node)
	stop()
	if err := errors.Join(founded, <-done, node.Close(), store.close()); err != nil {
		t.Fatal(err)
	}
}

// awaitFounded waits until the node is a cluster.
func awaitFounded(ctx context.Context, node *cluster.Node) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := node.Ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return err
		}
	}
}

// fillState applies entries of as many commands as the committer makes them.
func fillState(t *testing.T, state *meta.State, count int) error {
	const lot = 100 // blobs: each is opened, committed and then needed
	v := state.View()
	system, err := v.System()
	f := filler{state: state, store: storeName, epoch: system.GetEpoch(), clock: v.ClusterTime(), witness: state.Witness()}
	f.index = v.Index()
	v.Close()
	began, all := time.Now(), filledBlobs(count)
	for first := 0; first < all && err == nil; first += lot {
		err = f.fill(first, min(lot, all-first), count)
		if done := first + lot; done%100_000 == 0 {
			t.Logf("%d blobs, %d manifests after %v", done, min(done, count), time.Since(began).Round(time.Second))
		}
	}
	return err
}

// filledBlobs is how many blobs come with so many manifests: one for each, and a tenth more that nothing needs.
func filledBlobs(count int) int { return count + count/10 }

// filler makes commands as the registry's door does, with contents that depend on a number alone.
type filler struct {
	state        *meta.State
	store, epoch string
	clock        int64
	index        uint64
	witness      *metav1.Witness
}

// fill commits blobs and, unless they are garbage, the manifests that need them.
func (f *filler) fill(first, n, needed int) error {
	var opens, rest []*metav1.Command
	for i := first; i < first+n; i++ {
		sum := sha256.Sum256(fmt.Append(nil, "upload ", i))
		id, blob, repository := hex.EncodeToString(sum[:16]), filledConfig(i), filledRepository(i)
		opens = append(opens, &metav1.Command{Kind: &metav1.Command_OpenUpload{OpenUpload: &metav1.OpenUpload{
			Repository: repository, Id: id, Algorithm: uint32(meta.SHA256), Store: f.store}}})
		rest = append(rest, &metav1.Command{Kind: &metav1.Command_CommitUpload{CommitUpload: &metav1.CommitUpload{
			Id: id, Repository: repository, Revision: f.index + 1, Digest: packed(blob), Size: int64(len(blob)),
			Key: f.epoch + "/" + id + "/" + hex.EncodeToString(sum[16:])}}})
		if i < needed {
			body := filledManifest(i)
			rest = append(rest, &metav1.Command{Kind: &metav1.Command_PutManifest{PutManifest: &metav1.PutManifest{
				Repository: repository, Digest: packed(body), MediaType: meta.MediaTypeImage, Body: body, Size: int64(len(body)),
				Blobs: [][]byte{packed(blob)}, ArtifactType: filledType, Tags: []string{filledTag(i)},
				Annotations: []*metav1.Annotation{{Key: "number", Value: fmt.Sprint(i)}, {Key: "padding", Value: filledPadding}}}}})
		}
	}
	return errors.Join(f.apply(opens), f.apply(rest))
}

// apply applies one entry, which the witness names.
func (f *filler) apply(commands []*metav1.Command) error {
	for _, c := range commands {
		c.Envelope = &metav1.Envelope{Actor: &metav1.Actor{Name: "system:fill", Method: "system"}}
	}
	data, err := proto.Marshal(&metav1.Entry{Format: 1, ClusterTime: f.clock, WallTime: time.Now().UnixNano(), Commands: commands})
	if err != nil {
		return err
	}
	f.index++
	f.witness.Index = f.index
	results, err := f.state.Apply([]meta.LogEntry{{Index: f.index, Term: f.witness.GetTerm(), Data: data, Witness: f.witness}})
	if err != nil {
		return err
	}
	for i, r := range results[0] {
		if r.GetRefusal() != nil {
			return fmt.Errorf("command %v: %w", commands[i], meta.FromRefusal(r.GetRefusal()))
		}
	}
	return nil
}

const filledType = "chaos/million"

// filledPadding makes a manifest one of about 500 bytes.
var filledPadding = strings.Repeat("x", 150)

func filledRepository(i int) string { return fmt.Sprintf("bench/app-%d", i%1000) }

func filledTag(i int) string { return fmt.Sprint("n", i) }

func filledConfig(i int) []byte { return fmt.Appendf(nil, `{"number":%d}`, i) }

func filledManifest(i int) []byte {
	config := filledConfig(i)
	sum := sha256.Sum256(config)
	return fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"artifactType":%q,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:%x","size":%d},`+
		`"layers":[],"annotations":{"number":"%d","padding":%q}}`, meta.MediaTypeImage, filledType, sum, len(config), i, filledPadding)
}

// packed is a content's digest as the ledger has it.
func packed(content []byte) []byte {
	sum := sha256.Sum256(content)
	return append([]byte{meta.SHA256}, sum[:]...)
}
