package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"runtime"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// image is a small image made in code: one layer, its config and its manifest.
type image struct {
	layer, config, manifest []byte
}

// layerNoise is how many random bytes a demo layer holds, so that no two are the same.
const layerNoise = 1 << 20

// newImage makes an image whose layer holds a greeting and some noise.
func newImage(greeting string) (*image, error) {
	layer, diff, err := newLayer(greeting)
	if err != nil {
		return nil, fmt.Errorf("make layer: %w", err)
	}
	now := time.Now().UTC()
	config, err := json.Marshal(ocispec.Image{
		Created:  &now,
		Platform: ocispec.Platform{Architecture: runtime.GOARCH, OS: "linux"},
		RootFS:   ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{diff}},
	})
	if err != nil {
		return nil, fmt.Errorf("make config: %w", err)
	}
	manifest, err := json.Marshal(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    describe(ocispec.MediaTypeImageConfig, config),
		Layers:    []ocispec.Descriptor{describe(ocispec.MediaTypeImageLayerGzip, layer)},
	})
	if err != nil {
		return nil, fmt.Errorf("make manifest: %w", err)
	}
	return &image{layer, config, manifest}, nil
}

func describe(mediaType string, body []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(body), Size: int64(len(body))}
}

// newLayer answers a compressed tar and the digest of the tar itself.
func newLayer(greeting string) ([]byte, digest.Digest, error) {
	noise := make([]byte, layerNoise)
	if _, err := rand.Read(noise); err != nil {
		return nil, "", err
	}
	var packed bytes.Buffer
	sum := digest.Canonical.Digester()
	zw := gzip.NewWriter(&packed)
	tw := tar.NewWriter(io.MultiWriter(zw, sum.Hash()))
	for name, body := range map[string][]byte{"hello.txt": []byte(greeting + "\n"), "noise": noise} {
		if err := tw.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(body))}); err != nil {
			return nil, "", err
		}
		if _, err := tw.Write(body); err != nil {
			return nil, "", err
		}
	}
	if err := tw.Close(); err != nil {
		return nil, "", err
	}
	if err := zw.Close(); err != nil {
		return nil, "", err
	}
	return packed.Bytes(), sum.Digest(), nil
}

func (i *image) size() int64 { return int64(len(i.layer) + len(i.config) + len(i.manifest)) }

// registryClient speaks the distribution protocol, a connection for each request: behind a
// balancer every one of them reaches another node.
type registryClient struct{ http *http.Client }

// requestTime bounds one request of the demo; its images are small.
const requestTime = 15 * time.Second

func newRegistryClient() *registryClient {
	return &registryClient{&http.Client{
		Timeout:   requestTime,
		Transport: &http.Transport{DisableKeepAlives: true},
	}}
}

// push pushes an image. Request n goes to bases[n % len(bases)]: POST, PATCH and PUT of one layer may reach three nodes.
func (c *registryClient) push(ctx context.Context, bases []string, name, tag string, i *image) error {
	next := 0
	base := func() string {
		next++
		return bases[(next-1)%len(bases)]
	}
	for _, blob := range [][]byte{i.layer, i.config} {
		if err := c.pushBlob(ctx, base, name, blob); err != nil {
			return fmt.Errorf("push blob of %d bytes: %w", len(blob), err)
		}
	}
	_, err := c.do(ctx, http.MethodPut, base()+"/v2/"+name+"/manifests/"+tag, i.manifest, ocispec.MediaTypeImageManifest, http.StatusCreated)
	if err != nil {
		return fmt.Errorf("push manifest: %w", err)
	}
	return nil
}

func (c *registryClient) pushBlob(ctx context.Context, base func() string, name string, blob []byte) error {
	at := base() + "/v2/" + name + "/blobs/uploads/"
	for _, step := range []struct {
		method string
		body   []byte
		status int
	}{
		{http.MethodPost, nil, http.StatusAccepted},
		{http.MethodPatch, blob, http.StatusAccepted},
	} {
		res, err := c.do(ctx, step.method, at, step.body, "application/octet-stream", step.status)
		if err != nil {
			return err
		}
		// The path and its parameters are the upload; the node is whichever is next.
		loc, err := url.Parse(res.header.Get("Location"))
		if err != nil {
			return fmt.Errorf("location of the upload: %w", err)
		}
		at = base() + loc.RequestURI()
	}
	u, err := url.Parse(at)
	if err != nil {
		return fmt.Errorf("location of the upload: %w", err)
	}
	q := u.Query()
	q.Set("digest", digest.FromBytes(blob).String())
	u.RawQuery = q.Encode()
	_, err = c.do(ctx, http.MethodPut, u.String(), nil, "", http.StatusCreated)
	return err
}

// pull reads an image by its tag and compares every byte.
func (c *registryClient) pull(ctx context.Context, base, name, tag string, i *image) error {
	for path, want := range map[string][]byte{
		"/manifests/" + tag:                             i.manifest,
		"/blobs/" + digest.FromBytes(i.config).String(): i.config,
		"/blobs/" + digest.FromBytes(i.layer).String():  i.layer,
	} {
		res, err := c.do(ctx, http.MethodGet, base+"/v2/"+name+path, nil, "", http.StatusOK)
		if err != nil {
			return fmt.Errorf("pull %s: %w", path, err)
		}
		if !bytes.Equal(res.body, want) {
			return fmt.Errorf("pull %s: got %d bytes that differ from the %d that were pushed", path, len(res.body), len(want))
		}
	}
	return nil
}

type answer struct {
	header http.Header
	body   []byte
}

// bodyBound is the longest answer that the demo reads.
const bodyBound = 8 << 20

func (c *registryClient) do(ctx context.Context, method, url string, body []byte, mediaType string, want int) (*answer, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if mediaType != "" {
		req.Header.Set("Content-Type", mediaType)
	}
	req.Header.Set("Accept", ocispec.MediaTypeImageManifest+", */*")
	res, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }() // it was read to its end or failed
	got, err := io.ReadAll(io.LimitReader(res.Body, bodyBound))
	if err != nil {
		return nil, err
	}
	if res.StatusCode != want {
		return nil, fmt.Errorf("%s %s: got status %d, expected %d: %s", method, req.URL.Path, res.StatusCode, want, clip(string(got)))
	}
	return &answer{res.Header, got}, nil
}
