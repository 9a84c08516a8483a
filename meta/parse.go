package meta

import (
	"encoding/json"
	"errors"
	"sort"
	"strings"

	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// Bounds of the door and of Apply.
const (
	// MaxManifest is the longest manifest, in bytes.
	MaxManifest = 4 << 20
	// MaxInlineBody is the longest manifest body that the log carries; a larger one is a blob (R-C1).
	MaxInlineBody = 64 << 10
	// MaxReferences bounds blobs and children of one manifest together (R-C4).
	MaxReferences = 32 << 10
	// MaxTags bounds the tags that one PutManifest sets.
	MaxTags = 100
	// MaxCommand bounds one encoded command.
	MaxCommand = 2 << 20
)

// Media types of manifests.
const (
	MediaTypeImage          = "application/vnd.oci.image.manifest.v1+json"
	MediaTypeIndex          = "application/vnd.oci.image.index.v1+json"
	MediaTypeArtifact       = "application/vnd.oci.artifact.manifest.v1+json"
	MediaTypeDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	MediaTypeDockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	mediaTypeSchema1        = "application/vnd.docker.distribution.manifest.v1+json"
	mediaTypeSchema1Signed  = "application/vnd.docker.distribution.manifest.v1+prettyjws"
)

// Facts are what a manifest says, read once at the door (M1).
type Facts struct {
	MediaType string
	// Blobs are config and layers in order, each once, without non-distributable layers.
	Blobs []Digest
	// Children are the manifests an index or list names, each once.
	Children     []Digest
	Subject      Digest
	ArtifactType string
	// Annotations are sorted by key.
	Annotations []*metav1.Annotation
}

// ParseManifest reads a manifest of any kind: OCI image manifest and index,
// Docker schema 2 and list, OCI artifact manifest. mediaType is the Content-Type without
// parameters; the body's own mediaType must agree; if it is empty, the body's counts. Refusals are KIND_INVALID, NOUN_MANIFEST
// (Docker schema 1: KIND_UNSUPPORTED; a body above MaxManifest: KIND_TOO_LARGE) and name the field.
//
// It is stricter than encoding/json where two readers could understand one body
// differently: keys match exactly, none may stand twice in the manifest or in
// a descriptor, and a body cannot be an image and an index at once (CVE-2021-41190).
func ParseManifest(mediaType string, body []byte) (*Facts, error) {
	if len(body) > MaxManifest {
		return nil, tooLarge(metav1.Noun_NOUN_MANIFEST, "manifest: got %d bytes, at most %d are accepted", len(body), MaxManifest)
	}
	if !json.Valid(body) {
		return nil, badManifest("body", "is not one JSON value")
	}
	doc, err := readObject("body", body)
	if err != nil {
		return nil, err
	}
	p := &manifestParser{doc: doc, seen: make(map[Digest]bool), facts: &Facts{}}
	if err := p.kind(mediaType); err != nil {
		return nil, err
	}
	if err := p.contents(); err != nil {
		return nil, err
	}
	return p.facts, nil
}

// manifestParser gathers the facts of one body.
type manifestParser struct {
	doc   object
	seen  map[Digest]bool
	facts *Facts
	// configType is config.mediaType, the artifact type of an image without one of its own.
	configType string
}

// kind settles the media type and refuses what is no manifest that we keep.
func (p *manifestParser) kind(mediaType string) error {
	own, err := p.doc.text("mediaType")
	if err != nil {
		return err
	}
	version, err := p.doc.integer("schemaVersion")
	if err != nil {
		return err
	}
	if mediaType == "" {
		mediaType = own
	}
	if isSchema1(mediaType) || isSchema1(own) || version == 1 {
		return Refuse(metav1.Kind_KIND_UNSUPPORTED, metav1.Noun_NOUN_MANIFEST,
			"manifest: Docker schema 1 is not supported; push the image with a current client")
	}
	switch mediaType {
	case MediaTypeImage, MediaTypeIndex, MediaTypeDockerManifest, MediaTypeDockerList:
		if version != 2 {
			return badManifest("schemaVersion", "got %d, expected 2", version)
		}
	case MediaTypeArtifact:
	case "":
		return badManifest("mediaType", "neither the Content-Type nor the body says what the manifest is")
	default:
		return badManifest("mediaType", "got %q, expected an OCI or Docker manifest, index, list or artifact manifest", clip(mediaType))
	}
	if own != "" && own != mediaType {
		return badManifest("mediaType", "the body says %q, the Content-Type %q", clip(own), clip(mediaType))
	}
	p.facts.MediaType = mediaType
	return nil
}

func isSchema1(mediaType string) bool {
	return mediaType == mediaTypeSchema1 || mediaType == mediaTypeSchema1Signed
}

// contents reads what the manifest names.
func (p *manifestParser) contents() error {
	var err error
	switch p.facts.MediaType {
	case MediaTypeIndex, MediaTypeDockerList:
		err = p.index()
	case MediaTypeArtifact:
		err = p.artifact()
	default:
		err = p.image()
	}
	if err != nil {
		return err
	}
	if n := len(p.facts.Blobs) + len(p.facts.Children); n > MaxReferences {
		return badManifest("references", "got %d, at most %d are accepted", n, MaxReferences)
	}
	return p.common()
}

func (p *manifestParser) image() error {
	if err := p.doc.without("manifests", "blobs"); err != nil {
		return err
	}
	config, ok, err := p.doc.descriptor("config")
	if err != nil {
		return err
	}
	if !ok {
		return badManifest("config", "is missing")
	}
	p.configType = config.mediaType
	p.blob(config)
	return p.each("layers", p.blob)
}

func (p *manifestParser) index() error {
	if err := p.doc.without("config", "layers", "blobs"); err != nil {
		return err
	}
	return p.each("manifests", func(d descriptor) {
		// BuildKit's cache export lists layers in an index: what cannot be a
		// manifest here is a blob.
		if d.mediaType == "" || isManifest(d.mediaType) {
			p.child(d)
			return
		}
		p.blob(d)
	})
}

func (p *manifestParser) artifact() error {
	if err := p.doc.without("config", "layers", "manifests"); err != nil {
		return err
	}
	return p.each("blobs", p.blob)
}

// common reads what every kind may have.
func (p *manifestParser) common() error {
	subject, _, err := p.doc.descriptor("subject")
	if err != nil {
		return err
	}
	p.facts.Subject = subject.digest
	if p.facts.ArtifactType, err = p.doc.text("artifactType"); err != nil {
		return err
	}
	// distribution-spec, "Listing Referrers": an image without artifactType has its config's media type.
	if p.facts.ArtifactType == "" {
		p.facts.ArtifactType = p.configType
	}
	if len(p.facts.ArtifactType) > maxName || hasNUL(p.facts.ArtifactType) {
		return badManifest("artifactType", "got %q, expected at most %d bytes without NUL", clip(p.facts.ArtifactType), maxName)
	}
	p.facts.Annotations, err = p.doc.annotations()
	return err
}

func (p *manifestParser) blob(d descriptor) {
	if !p.seen[d.digest] && !isNonDistributable(d.mediaType) {
		p.seen[d.digest] = true
		p.facts.Blobs = append(p.facts.Blobs, d.digest)
	}
}

func (p *manifestParser) child(d descriptor) {
	if !p.seen[d.digest] {
		p.seen[d.digest] = true
		p.facts.Children = append(p.facts.Children, d.digest)
	}
}

// each reads an array of descriptors; an absent or null one is empty.
func (p *manifestParser) each(field string, fn func(descriptor)) error {
	raw, ok := p.doc[field]
	if !ok {
		return nil
	}
	var items []json.RawMessage
	if err := json.Unmarshal(raw, &items); err != nil {
		return badManifest(field, "is not an array")
	}
	for i, item := range items {
		d, err := readDescriptor(indexed(field, i), item)
		if err != nil {
			return err
		}
		fn(d)
	}
	return nil
}

func isManifest(mediaType string) bool {
	switch mediaType {
	case MediaTypeImage, MediaTypeIndex, MediaTypeArtifact, MediaTypeDockerManifest, MediaTypeDockerList,
		mediaTypeSchema1, mediaTypeSchema1Signed:
		return true
	}
	return false
}

// isNonDistributable matches the layers that clients fetch elsewhere and may never push.
func isNonDistributable(mediaType string) bool {
	return mediaType == "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" ||
		strings.HasPrefix(mediaType, "application/vnd.oci.image.layer.nondistributable.v1.tar")
}

func (o object) annotations() ([]*metav1.Annotation, error) {
	raw, ok := o["annotations"]
	if !ok {
		return nil, nil
	}
	var values map[string]string
	if err := json.Unmarshal(raw, &values); err != nil {
		return nil, badManifest("annotations", "is not an object of strings")
	}
	out := make([]*metav1.Annotation, 0, len(values))
	for k, v := range values {
		out = append(out, &metav1.Annotation{Key: k, Value: v})
	}
	sort.Slice(out, func(i, j int) bool { return out[i].GetKey() < out[j].GetKey() })
	return out, nil
}

func badManifest(field, format string, args ...any) *Error {
	return invalid(metav1.Noun_NOUN_MANIFEST, "manifest: "+field+": "+format, args...)
}

// messageOf answers a refusal's own words, to be put into another.
func messageOf(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Message
	}
	return err.Error()
}
