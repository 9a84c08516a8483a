package chaos

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"
)

// registry speaks the distribution protocol to one address, one request at a time, and interprets nothing.
type registry struct {
	base   string // http://host:port
	client *http.Client
}

// answer is what came back, read to its end.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// refused is an answer that is not what was wanted.
type refused struct {
	what string
	answer
}

func (e *refused) Error() string {
	return fmt.Sprintf("%s: answered %d: %.300s", e.what, e.status, e.body)
}

// at returns a client of one address with its own connections; requests that take longer than a minute fail.
func at(base string) *registry {
	return &registry{base: base, client: &http.Client{
		Timeout:   time.Minute,
		Transport: &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true},
	}}
}

func (r *registry) do(ctx context.Context, method, path string, header http.Header, body io.Reader) (answer, error) {
	request, err := http.NewRequestWithContext(ctx, method, r.base+path, body)
	if err != nil {
		return answer{}, err
	}
	for key, values := range header {
		request.Header[key] = values
	}
	response, err := r.client.Do(request)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		return answer{}, fmt.Errorf("read answer of %s %s: %w", method, path, err)
	}
	return answer{status: response.StatusCode, header: response.Header, body: content}, nil
}

// want does one request and makes an error of any other status.
func (r *registry) want(ctx context.Context, status int, method, path string, header http.Header, body []byte) (answer, error) {
	var reader io.Reader
	if body != nil {
		reader = bytes.NewReader(body)
	}
	a, err := r.do(ctx, method, path, header, reader)
	if err != nil {
		return a, err
	}
	if a.status != status {
		return a, &refused{fmt.Sprintf("%s %s, want %d", method, path, status), a}
	}
	return a, nil
}

// openUpload begins an upload and returns the path that continues it.
func (r *registry) openUpload(ctx context.Context, repo string) (string, error) {
	a, err := r.want(ctx, http.StatusAccepted, http.MethodPost, "/v2/"+repo+"/blobs/uploads/", nil, nil)
	if err != nil {
		return "", err
	}
	return a.header.Get("Location"), nil
}

// patch appends one chunk that begins at offset and returns the path that continues the upload.
func (r *registry) patch(ctx context.Context, location string, offset int, chunk []byte) (string, error) {
	header := http.Header{
		"Content-Type":  {"application/octet-stream"},
		"Content-Range": {fmt.Sprintf("%d-%d", offset, offset+len(chunk)-1)},
	}
	a, err := r.want(ctx, http.StatusAccepted, http.MethodPatch, location, header, chunk)
	if err != nil {
		return "", err
	}
	if got, want := a.header.Get("Range"), fmt.Sprintf("0-%d", offset+len(chunk)-1); got != want {
		return "", fmt.Errorf("PATCH at %d: answered range %q, want %q", offset, got, want)
	}
	return a.header.Get("Location"), nil
}

// offset asks how much of an upload is saved.
func (r *registry) offset(ctx context.Context, location string) (int, error) {
	a, err := r.want(ctx, http.StatusNoContent, http.MethodGet, location, nil, nil)
	if err != nil {
		return 0, err
	}
	var last int
	if _, err := fmt.Sscanf(a.header.Get("Range"), "0-%d", &last); err != nil {
		return 0, fmt.Errorf("status of upload: range %q: %w", a.header.Get("Range"), err)
	}
	if last == 0 {
		return 0, nil // "0-0" says one byte or none; no test here saves exactly one byte and asks
	}
	return last + 1, nil
}

// commit ends an upload.
func (r *registry) commit(ctx context.Context, location, digest string) error {
	_, err := r.want(ctx, http.StatusCreated, http.MethodPut, withQuery(location, "digest="+digest), nil, nil)
	return err
}

// pushBlob uploads a small blob the way most clients do: POST, then one PUT.
func (r *registry) pushBlob(ctx context.Context, repo string, content []byte) error {
	location, err := r.openUpload(ctx, repo)
	if err != nil {
		return err
	}
	header := http.Header{"Content-Type": {"application/octet-stream"}}
	_, err = r.want(ctx, http.StatusCreated, http.MethodPut, withQuery(location, "digest="+digestOf(content)), header, content)
	return err
}

func (r *registry) putManifest(ctx context.Context, repo, reference, mediaType string, body []byte) error {
	header := http.Header{"Content-Type": {mediaType}}
	_, err := r.want(ctx, http.StatusCreated, http.MethodPut, "/v2/"+repo+"/manifests/"+reference, header, body)
	return err
}

// resolve returns the digest that a tag names.
func (r *registry) resolve(ctx context.Context, repo, tag string) (string, error) {
	header := http.Header{"Accept": {mediaManifest, mediaIndex}}
	a, err := r.want(ctx, http.StatusOK, http.MethodHead, "/v2/"+repo+"/manifests/"+tag, header, nil)
	return a.header.Get("Docker-Content-Digest"), err
}

// blob fetches a blob and fails when it is not what its digest says.
func (r *registry) blob(ctx context.Context, repo, digest string) error {
	a, err := r.want(ctx, http.StatusOK, http.MethodGet, "/v2/"+repo+"/blobs/"+digest, nil, nil)
	if err != nil {
		return err
	}
	if got := digestOf(a.body); got != digest {
		return fmt.Errorf("blob %s came as %s (%d bytes)", digest, got, len(a.body))
	}
	return nil
}

// image fetches a manifest and all that it names, checks every digest, and returns that of the manifest.
func (r *registry) image(ctx context.Context, repo, reference string) (string, error) {
	header := http.Header{"Accept": {mediaManifest, mediaIndex, mediaDocker}}
	a, err := r.want(ctx, http.StatusOK, http.MethodGet, "/v2/"+repo+"/manifests/"+reference, header, nil)
	if err != nil {
		return "", err
	}
	digest := digestOf(a.body)
	if said := a.header.Get("Docker-Content-Digest"); said != digest || (strings.HasPrefix(reference, "sha256:") && reference != digest) {
		return "", fmt.Errorf("manifest %s of %s was called %q and has digest %s", reference, repo, said, digest)
	}
	var m manifest
	if err := json.Unmarshal(a.body, &m); err != nil {
		return "", fmt.Errorf("decode manifest %s of %s: %w", reference, repo, err)
	}
	for _, d := range m.Manifests {
		if _, err := r.image(ctx, repo, d.Digest); err != nil {
			return "", err
		}
	}
	blobs := m.Layers
	if m.Config != nil {
		blobs = append(blobs, *m.Config)
	}
	for _, d := range blobs {
		if err := r.blob(ctx, repo, d.Digest); err != nil {
			return "", err
		}
	}
	return digest, nil
}

// withQuery adds to a location that may have a query already.
func withQuery(location, query string) string {
	if strings.Contains(location, "?") {
		return location + "&" + query
	}
	return location + "?" + query
}

const (
	mediaManifest = "application/vnd.oci.image.manifest.v1+json"
	mediaIndex    = "application/vnd.oci.image.index.v1+json"
	mediaDocker   = "application/vnd.docker.distribution.manifest.v2+json"
	mediaConfig   = "application/vnd.oci.image.config.v1+json"
	mediaLayer    = "application/vnd.oci.image.layer.v1.tar"
	mediaLayerGz  = "application/vnd.oci.image.layer.v1.tar+gzip"
	mediaEmpty    = "application/vnd.oci.empty.v1+json"
)

type descriptor struct {
	MediaType    string            `json:"mediaType"`
	Digest       string            `json:"digest"`
	Size         int64             `json:"size"`
	ArtifactType string            `json:"artifactType,omitempty"`
	Platform     map[string]string `json:"platform,omitempty"`
	Annotations  map[string]string `json:"annotations,omitempty"`
}

type manifest struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType"`
	ArtifactType  string            `json:"artifactType,omitempty"`
	Config        *descriptor       `json:"config,omitempty"`
	Layers        []descriptor      `json:"layers,omitempty"`
	Manifests     []descriptor      `json:"manifests,omitempty"`
	Subject       *descriptor       `json:"subject,omitempty"`
	Annotations   map[string]string `json:"annotations,omitempty"`
}

func (m manifest) encode() []byte {
	m.SchemaVersion = 2
	body, err := json.Marshal(m)
	if err != nil {
		panic(err) // a struct of strings and numbers always encodes
	}
	return body
}

func describe(mediaType string, content []byte) descriptor {
	return descriptor{MediaType: mediaType, Digest: digestOf(content), Size: int64(len(content))}
}

func digestOf(content []byte) string {
	sum := sha256.Sum256(content)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// noise returns n bytes that do not compress and are the same for the same name.
func noise(name string, n int64) []byte {
	content := make([]byte, n)
	_, _ = noiseReader(name).Read(content) // never fails
	return content
}

// noiseReader is noise without an end.
func noiseReader(name string) *rand.ChaCha8 {
	return rand.NewChaCha8(sha256.Sum256([]byte(name)))
}
