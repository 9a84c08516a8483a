package chaos

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

const (
	mib = 1 << 20
	gib = 1 << 30
)

// TestFigures measures three nodes side by side with plain servers, on one machine that runs servers and clients alike.
// It judges nothing; the ratios are what can be compared between machines.
func TestFigures(t *testing.T) {
	if !*figures {
		t.Log("NOT RUN: make bench asks for it")
		return
	}
	t.Run("s3", func(t *testing.T) {
		b := newBucket(t)
		d := newDeployment(t, b, options{})
		manifestReads(t, d)
		smallPushes(t, d, 1, 10*time.Second)
		smallPushes(t, d, 64, 20*time.Second)
		plainMultipart(t, b)
		bigLayer(t, d)
	})
	t.Run("directory", func(t *testing.T) {
		d := newDeployment(t, newDirectory(t), options{})
		smallPushes(t, d, 64, 10*time.Second)
		bigLayer(t, d)
	})
}

// manifestReads compares the read of a manifest by tag with the read of the same bytes from a plain file server.
func manifestReads(t *testing.T, d *deployment) {
	t.Helper()
	ctx := t.Context()
	r := at(d.url())
	config := []byte("{}")
	if err := r.pushBlob(ctx, "bench/reads", config); err != nil {
		t.Fatal(err)
	}
	body := manifest{MediaType: mediaManifest, Config: new(describe(mediaEmpty, config)), ArtifactType: "chaos/read",
		Annotations: map[string]string{"padding": strings.Repeat("x", 1500)}}.encode()
	if err := r.putManifest(ctx, "bench/reads", "latest", mediaManifest, body); err != nil {
		t.Fatal(err)
	}

	dir, addr := t.TempDir(), freeAddr(t)
	if err := os.WriteFile(filepath.Join(dir, "manifest"), body, 0o644); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	start(t, dir, "fileserver", []string{fileServerEnv + "=" + addr}, self)
	eventually(t, 10*time.Second, "the file server", func() error {
		_, err := get("http://"+addr+"/manifest", time.Second)
		return err
	})

	const connections, during = 64, 8 * time.Second
	leader := d.leader(20 * time.Second)
	path := "/v2/bench/reads/manifests/latest"
	hammer(t, leader.addr, path, mediaManifest, connections, 2*time.Second) // warm
	plain := hammer(t, addr, "/manifest", "*/*", connections, during)
	t.Logf("plain Go file server, %d bytes, %d connections: %v", len(body), connections, plain)
	for _, n := range []struct {
		*node
		role string
	}{{leader, "leader"}, {d.others(leader)[0], "follower"}} {
		l := hammer(t, n.addr, path, mediaManifest, connections, during)
		t.Logf("manifest GET by tag on the %s: %v = %.2f of the file server", n.role, l, l.perSecond/plain.perSecond)
	}
}

// smallPushes pushes images of one small layer, each with a tag of its own, to one repository through the balancer.
func smallPushes(t *testing.T, d *deployment, writers int, during time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), during+time.Minute)
	defer cancel()
	repo := fmt.Sprintf("bench/push%d", writers)
	proposed := d.proposals()
	type result struct {
		latencies []time.Duration
		failures  int
	}
	results := make([]result, writers)
	began := time.Now()
	var group sync.WaitGroup
	for i := range writers {
		group.Go(func() {
			r := at(d.url())
			defer r.client.CloseIdleConnections()
			for n := 0; time.Since(began) < during; n++ {
				from := time.Now()
				if err := pushSmall(ctx, r, repo, fmt.Sprintf("t%d-%d", i, n)); err != nil {
					results[i].failures++
					continue
				}
				results[i].latencies = append(results[i].latencies, time.Since(from))
			}
		})
	}
	group.Wait()
	took := time.Since(began)
	var all []time.Duration
	failures := 0
	for _, r := range results {
		all = append(all, r.latencies...)
		failures += r.failures
	}
	if len(all) == 0 {
		t.Errorf("%d writers on %v: no push succeeded", writers, d.store)
		return
	}
	t.Logf("small pushes on %v, %2d writers: %.1f/s, p50 %v, p99 %v, %.1f proposals each, %d failed", d.store, writers,
		float64(len(all))/took.Seconds(), percentile(all, 50), percentile(all, 99),
		(d.proposals()-proposed)/float64(len(all)), failures)
}

// pushSmall pushes a layer, a config and a manifest that nobody has pushed before.
func pushSmall(ctx context.Context, r *registry, repo, tag string) error {
	layer, config := noise(repo+tag, 4<<10), []byte(`{"tag":"`+tag+`"}`)
	for _, content := range [][]byte{layer, config} {
		if err := r.pushBlob(ctx, repo, content); err != nil {
			return err
		}
	}
	body := manifest{MediaType: mediaManifest, Config: new(describe(mediaConfig, config)),
		Layers: []descriptor{describe(mediaLayer, layer)}}.encode()
	return r.putManifest(ctx, repo, tag, mediaManifest, body)
}

// proposals sums the commands that the nodes have proposed.
func (d *deployment) proposals() (sum float64) {
	for _, n := range d.nodes {
		count, err := n.metric("pontoon_proposals_total")
		if err != nil {
			d.t.Fatal(err)
		}
		sum += count
	}
	return sum
}

// bigLayer pushes and pulls a layer of 1 GiB through one node and compares the time of its last PUT with a small one's.
func bigLayer(t *testing.T, d *deployment) {
	t.Helper()
	n := d.others(d.leader(20 * time.Second))[0]
	for _, size := range []int64{10 * mib, gib} {
		name := fmt.Sprintf("layer of %d MiB on %v", size/mib, d.store)
		sum := sha256.New()
		if _, err := io.CopyN(sum, noiseReader(name), size); err != nil {
			t.Fatal(err)
		}
		digest := "sha256:" + hex.EncodeToString(sum.Sum(nil))
		r := &registry{base: n.url(), client: &http.Client{Timeout: 10 * time.Minute}}

		n.proc.forgetPeak()
		location, err := r.openUpload(t.Context(), "bench/big")
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		a, err := r.do(t.Context(), http.MethodPatch, location, http.Header{"Content-Type": {"application/octet-stream"}},
			io.LimitReader(noiseReader(name), size))
		if err != nil || a.status != http.StatusAccepted {
			t.Fatalf("PATCH of %d MiB: %v, %d %s", size/mib, err, a.status, a.body)
		}
		streamed := time.Since(began)
		last := time.Now()
		if err := r.commit(t.Context(), a.header.Get("Location"), digest); err != nil {
			t.Fatal(err)
		}
		committed := time.Since(last)
		t.Logf("%s: push %.0f MB/s (PATCH %v, last PUT %v), peak memory %d MiB", name,
			rate(size, streamed+committed), streamed.Round(time.Millisecond), committed.Round(10*time.Microsecond),
			n.proc.peakMemory()/mib)

		n.proc.forgetPeak()
		began = time.Now()
		if err := pullAndHash(t.Context(), r, digest, size); err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: pull %.0f MB/s, peak memory %d MiB", name, rate(size, time.Since(began)), n.proc.peakMemory()/mib)
	}
}

// rate is in MB (10^6 bytes) per second.
func rate(size int64, took time.Duration) float64 { return float64(size) / 1e6 / took.Seconds() }

func pullAndHash(ctx context.Context, r *registry, digest string, size int64) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, r.base+"/v2/bench/big/blobs/"+digest, nil)
	if err != nil {
		return err
	}
	response, err := r.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	sum := sha256.New()
	n, err := io.Copy(sum, response.Body)
	if err != nil {
		return fmt.Errorf("read layer: %w", err)
	}
	if got := "sha256:" + hex.EncodeToString(sum.Sum(nil)); got != digest || n != size {
		return fmt.Errorf("layer %s came as %s, %d bytes", digest, got, n)
	}
	return nil
}

// plainMultipart uploads and reads 1 GiB straight to the S3 server, as fast as a plain client does: parts of 8 MiB, eight
// at a time, made and hashed as the registry's client and the registry do.
func plainMultipart(t *testing.T, b *bucket) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	const part, parallel = 8 * mib, 8
	key := aws.String("plain")
	began := time.Now()
	upload, err := b.client.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: &b.name, Key: key})
	if err != nil {
		t.Fatal(err)
	}
	source, sum := noiseReader("plain"), sha256.New()
	parts := make([]types.CompletedPart, gib/part)
	failures := make([]error, len(parts))
	slots := make(chan struct{}, parallel)
	var group sync.WaitGroup
	for i := range parts {
		slots <- struct{}{}
		content := make([]byte, part)
		_, _ = source.Read(content) // never fails
		sum.Write(content)
		group.Go(func() {
			defer func() { <-slots }()
			number := int32(i + 1)
			out, err := b.client.UploadPart(ctx, &s3.UploadPartInput{Bucket: &b.name, Key: key, UploadId: upload.UploadId,
				PartNumber: &number, Body: bytes.NewReader(content)})
			if err != nil {
				failures[i] = err
				return
			}
			parts[i] = types.CompletedPart{ETag: out.ETag, PartNumber: &number}
		})
	}
	group.Wait()
	for _, err := range failures {
		if err != nil {
			t.Fatal(err)
		}
	}
	joining := time.Now()
	if _, err := b.client.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{Bucket: &b.name, Key: key,
		UploadId: upload.UploadId, MultipartUpload: &types.CompletedMultipartUpload{Parts: parts}}); err != nil {
		t.Fatal(err)
	}
	t.Logf("plain parallel multipart upload of 1 GiB to the same server: %.0f MB/s, of which joining the parts took %v",
		rate(gib, time.Since(began)), time.Since(joining).Round(time.Millisecond))

	began = time.Now()
	object, err := b.client.GetObject(ctx, &s3.GetObjectInput{Bucket: &b.name, Key: key})
	if err != nil {
		t.Fatal(err)
	}
	defer object.Body.Close()
	if _, err := io.Copy(sha256.New(), object.Body); err != nil {
		t.Fatal(err)
	}
	t.Logf("plain download of 1 GiB from the same server: %.0f MB/s", rate(gib, time.Since(began)))
}
