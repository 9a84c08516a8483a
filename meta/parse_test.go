package meta

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

func desc(mediaType, text string) string {
	return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, mediaType, digestOf(text), len(text))
}

const (
	layerType  = "application/vnd.oci.image.layer.v1.tar+gzip"
	configType = "application/vnd.oci.image.config.v1+json"
)

// TestParseManifestReadsTheFacts of every kind that is kept.
func TestParseManifestReadsTheFacts(t *testing.T) {
	for name, c := range map[string]struct {
		mediaType, body, want string
	}{
		"image": {MediaTypeImage, `{"schemaVersion":2,"mediaType":"` + MediaTypeImage + `","config":` + desc(configType, "c") +
			`,"layers":[` + desc(layerType, "l1") + `,` + desc(layerType, "l2") + `,` + desc(layerType, "l1") + `],"annotations":{"z":"1","a":"2"}}`,
			"blobs c l1 l2; type " + configType + "; annotations a=2 z=1"},
		"image without layers": {MediaTypeImage, `{"schemaVersion":2,"config":` + desc("application/vnd.oci.empty.v1+json", "{}") + `,"layers":null}`,
			"blobs {}; type application/vnd.oci.empty.v1+json"},
		"artifact in an image": {MediaTypeImage, `{"schemaVersion":2,"artifactType":"application/sig","config":` + desc("any/thing", "c") +
			`,"layers":[` + desc("text/plain", "l") + `],"subject":` + desc(MediaTypeImage, "s") + `}`,
			"blobs c l; subject s; type application/sig"},
		"non-distributable layers": {MediaTypeImage, `{"schemaVersion":2,"config":` + desc(configType, "c") + `,"layers":[` +
			desc("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", "f1") + `,` +
			desc("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "f2") + `,` + desc(layerType, "l") + `]}`,
			"blobs c l; type " + configType},
		"docker image": {MediaTypeDockerManifest, `{"schemaVersion":2,"mediaType":"` + MediaTypeDockerManifest + `","config":` + desc("application/vnd.docker.container.image.v1+json", "c") +
			`,"layers":[` + desc("application/vnd.docker.image.rootfs.diff.tar.gzip", "l") + `]}`, "blobs c l; type application/vnd.docker.container.image.v1+json"},
		"index": {MediaTypeIndex, `{"schemaVersion":2,"manifests":[` + desc(MediaTypeImage, "m1") + `,` + desc(MediaTypeIndex, "m2") + `],"artifactType":"x/y"}`,
			"children m1 m2; type x/y"},
		"empty index":             {MediaTypeIndex, `{"schemaVersion":2,"manifests":[]}`, ""},
		"list":                    {MediaTypeDockerList, `{"schemaVersion":2,"mediaType":"` + MediaTypeDockerList + `","manifests":[` + desc(MediaTypeDockerManifest, "m") + `]}`, "children m"},
		"BuildKit's cache":        {MediaTypeIndex, `{"schemaVersion":2,"manifests":[` + desc(layerType, "l") + `,` + desc("application/vnd.buildkit.cacheconfig.v0", "c") + `]}`, "blobs l c"},
		"artifact manifest":       {MediaTypeArtifact, `{"mediaType":"` + MediaTypeArtifact + `","artifactType":"a/b","blobs":[` + desc("x/y", "b") + `],"subject":` + desc(MediaTypeImage, "s") + `}`, "blobs b; subject s; type a/b"},
		"no Content-Type":         {"", `{"schemaVersion":2,"mediaType":"` + MediaTypeIndex + `","manifests":[]}`, ""},
		"fields nobody knows":     {MediaTypeIndex, `{"schemaVersion":2,"manifests":[],"x":{"x":1,"y":[]},"Layers":[]}`, ""},
		"a null is an absent one": {MediaTypeIndex, `{"schemaVersion":2,"manifests":[],"layers":null,"subject":null,"annotations":null}`, ""},
	} {
		facts, err := ParseManifest(c.mediaType, []byte(c.body))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := showFacts(facts); got != c.want {
			t.Errorf("%s: got %q, expected %q", name, got, c.want)
		}
	}
}

// showFacts puts the words back for the digests of words up to two letters.
func showFacts(f *Facts) string {
	words := map[Digest]string{digestOf("{}"): "{}"}
	for a := 'a'; a <= 'z'; a++ {
		words[digestOf(string(a))] = string(a)
		for n := range 4 {
			w := fmt.Sprintf("%c%d", a, n)
			words[digestOf(w)] = w
		}
	}
	var out []string
	add := func(what string, ds ...Digest) {
		if len(ds) == 0 || ds[0] == "" {
			return
		}
		for _, d := range ds {
			what += " " + words[d]
		}
		out = append(out, what)
	}
	add("blobs", f.Blobs...)
	add("children", f.Children...)
	add("subject", f.Subject)
	if f.ArtifactType != "" {
		out = append(out, "type "+f.ArtifactType)
	}
	if len(f.Annotations) > 0 {
		line := "annotations"
		for _, a := range f.Annotations {
			line += " " + a.GetKey() + "=" + a.GetValue()
		}
		out = append(out, line)
	}
	return strings.Join(out, "; ")
}

// TestParseManifestNamesWhatIsWrong with the field.
func TestParseManifestNamesWhatIsWrong(t *testing.T) {
	config := `"config":` + desc(configType, "c")
	for name, c := range map[string]struct {
		mediaType, body, says string
	}{
		"nothing":                    {MediaTypeImage, ``, "body"},
		"no JSON":                    {MediaTypeImage, `{`, "body"},
		"more after the end":         {MediaTypeImage, `{} {}`, "body"},
		"an array":                   {MediaTypeImage, `[]`, "body"},
		"no media type":              {"", `{"schemaVersion":2}`, "mediaType"},
		"a media type of ours":       {"text/html", `{"schemaVersion":2}`, "mediaType"},
		"two media types":            {MediaTypeImage, `{"schemaVersion":2,"mediaType":"` + MediaTypeIndex + `"}`, "mediaType"},
		"a media type that is none":  {MediaTypeImage, `{"schemaVersion":2,"mediaType":7}`, "mediaType"},
		"schemaVersion 3":            {MediaTypeImage, `{"schemaVersion":3,` + config + `}`, "schemaVersion"},
		"schemaVersion 2.0":          {MediaTypeImage, `{"schemaVersion":2.0,` + config + `}`, "schemaVersion"},
		"no schemaVersion":           {MediaTypeImage, `{` + config + `}`, "schemaVersion"},
		"no config":                  {MediaTypeImage, `{"schemaVersion":2,"layers":[]}`, "config"},
		"an image and an index":      {MediaTypeImage, `{"schemaVersion":2,` + config + `,"manifests":[]}`, "manifests"},
		"an index and an image":      {MediaTypeIndex, `{"schemaVersion":2,"manifests":[],"layers":[]}`, "layers"},
		"an index with a config":     {MediaTypeIndex, `{"schemaVersion":2,"manifests":[],` + config + `}`, "config"},
		"layers twice":               {MediaTypeImage, `{"schemaVersion":2,` + config + `,"layers":[],"layers":[` + desc(layerType, "x") + `]}`, `"layers" twice`},
		"a digest twice":             {MediaTypeImage, `{"schemaVersion":2,"config":{"digest":"` + digestOf("c").String() + `","digest":"x","size":1}}`, `"digest" twice`},
		"layers that are none":       {MediaTypeImage, `{"schemaVersion":2,` + config + `,"layers":{}}`, "layers"},
		"a layer that is none":       {MediaTypeImage, `{"schemaVersion":2,` + config + `,"layers":[1]}`, "layers[0]"},
		"a digest of no algorithm":   {MediaTypeImage, `{"schemaVersion":2,` + config + `,"layers":[` + desc(layerType, "l") + `,{"digest":"md5:aa","size":1}]}`, "layers[1].digest"},
		"an upper-case digest":       {MediaTypeImage, `{"schemaVersion":2,"config":{"digest":"sha256:` + strings.Repeat("A", 64) + `","size":1}}`, "config.digest"},
		"a short digest":             {MediaTypeImage, `{"schemaVersion":2,"config":{"digest":"sha256:abcd","size":1}}`, "config.digest"},
		"a negative size":            {MediaTypeImage, `{"schemaVersion":2,"config":{"digest":"` + digestOf("c").String() + `","size":-1}}`, "config.size"},
		"no size":                    {MediaTypeImage, `{"schemaVersion":2,"config":{"digest":"` + digestOf("c").String() + `"}}`, "config.size"},
		"a size beyond all":          {MediaTypeImage, `{"schemaVersion":2,"config":{"digest":"` + digestOf("c").String() + `","size":99999999999999999999}}`, "config.size"},
		"a subject that is none":     {MediaTypeImage, `{"schemaVersion":2,` + config + `,"subject":"x"}`, "subject"},
		"annotations that are none":  {MediaTypeImage, `{"schemaVersion":2,` + config + `,"annotations":{"a":1}}`, "annotations"},
		"an artifact type with NUL":  {MediaTypeImage, `{"schemaVersion":2,` + config + `,"artifactType":"a\u0000b"}`, "artifactType"},
		"an artifact type too long":  {MediaTypeImage, `{"schemaVersion":2,` + config + `,"artifactType":"` + strings.Repeat("a", 256) + `"}`, "artifactType"},
		"an artifact with manifests": {MediaTypeArtifact, `{"artifactType":"a/b","manifests":[]}`, "manifests"},
		"more references than kept":  {MediaTypeIndex, manyChildren(MaxReferences + 1), "references"},
	} {
		facts, err := ParseManifest(c.mediaType, []byte(c.body))
		if KindOf(err) != metav1.Kind_KIND_INVALID || NounOf(err) != metav1.Noun_NOUN_MANIFEST || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %+v, %v; expected an invalid manifest that names %s", name, facts, err, c.says)
		}
	}
	for name, c := range map[string][2]string{
		"by type":    {mediaTypeSchema1Signed, `{"schemaVersion":1}`},
		"by body":    {"application/json", `{"schemaVersion":1,"fsLayers":[]}`},
		"by version": {MediaTypeDockerManifest, `{"schemaVersion":1}`},
	} {
		if _, err := ParseManifest(c[0], []byte(c[1])); KindOf(err) != metav1.Kind_KIND_UNSUPPORTED {
			t.Errorf("schema 1 %s: %v, expected unsupported", name, err)
		}
	}
	if _, err := ParseManifest(MediaTypeImage, make([]byte, MaxManifest+1)); KindOf(err) != metav1.Kind_KIND_TOO_LARGE {
		t.Errorf("a body above the bound: %v", err)
	}
	if _, err := ParseManifest(MediaTypeIndex, []byte(manyChildren(100))); err != nil {
		t.Errorf("a hundred children: %v", err)
	}
}

func manyChildren(n int) string {
	var b strings.Builder
	b.WriteString(`{"schemaVersion":2,"manifests":[`)
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"digest":"sha256:%064x","size":1}`, i)
	}
	b.WriteString(`]}`)
	return b.String()
}

// TestNamesFollowTheSpec is the grammar of distribution-spec.
func TestNamesFollowTheSpec(t *testing.T) {
	for _, name := range []string{"a", "a/b", "library/debian", "a.b", "a_b", "a__b", "a-b", "a---b", "0", "a0/b1/c2/d3", strings.Repeat("a", 255)} {
		if err := ParseRepository(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"", "A", "a/", "/a", "a//b", ".a", "a.", "a..b", "a___b", "_a", "a_", "-a", "a-", "a._b", "a.-b", "a b", "a\x00b", "é", "a/../b", strings.Repeat("a", 256)} {
		if err := ParseRepository(name); KindOf(err) != metav1.Kind_KIND_INVALID || NounOf(err) != metav1.Noun_NOUN_NAME {
			t.Errorf("%q: %v, expected invalid", name, err)
		}
	}
	for _, tag := range []string{"a", "A", "_", "v1.0", "a-b_c.d", "0", strings.Repeat("x", 128)} {
		if err := ParseTag(tag); err != nil {
			t.Errorf("%q: %v", tag, err)
		}
	}
	for _, tag := range []string{"", ".a", "-a", "a b", "a/b", "a:b", "a\x00", "ä", strings.Repeat("x", 129)} {
		if err := ParseTag(tag); KindOf(err) != metav1.Kind_KIND_INVALID || NounOf(err) != metav1.Noun_NOUN_TAG {
			t.Errorf("%q: %v, expected invalid", tag, err)
		}
	}
	for repository, want := range map[string]string{"a": "library", "a/b": "a", "a/b/c": "a"} {
		if got := ProjectOf(repository); got != want {
			t.Errorf("project of %s: %s, expected %s", repository, got, want)
		}
	}
}

// TestDigestsRoundTrip in every algorithm, and nothing else does.
func TestDigestsRoundTrip(t *testing.T) {
	for _, s := range []string{"sha256:" + strings.Repeat("0a", 32), "sha512:" + strings.Repeat("0b", 64), "sha384:" + strings.Repeat("0c", 48)} {
		d, err := ParseDigest(s)
		if err != nil {
			t.Fatal(err)
		}
		again, err := UnpackDigest(d.Bytes())
		if err != nil || again != d || d.String() != s {
			t.Errorf("%s: %s, %v", s, again, err)
		}
		cut, rest := cutDigest(append(d.Bytes(), "rest"...))
		if cut != d || string(rest) != "rest" {
			t.Errorf("%s: cut to %s and %q", s, cut, rest)
		}
	}
	for _, b := range [][]byte{nil, {0}, {1}, make([]byte, 33), append([]byte{1}, make([]byte, 31)...), append([]byte{9}, make([]byte, 32)...)} {
		if d, err := UnpackDigest(b); KindOf(err) != metav1.Kind_KIND_INVALID {
			t.Errorf("%x: %s, %v", b, d, err)
		}
	}
}

// FuzzParseManifest: never a panic, and what is accepted keeps its promises.
func FuzzParseManifest(f *testing.F) {
	for _, body := range []string{
		`{"schemaVersion":2,"config":` + desc(configType, "c") + `,"layers":[` + desc(layerType, "l") + `],"annotations":{"a":"b"}}`,
		`{"schemaVersion":2,"manifests":[` + desc(MediaTypeImage, "m") + `],"subject":` + desc(MediaTypeImage, "s") + `}`,
		`{"schemaVersion":2,"config":{},"manifests":[],"config":null}`, `{}`, `null`, `[]`, ``,
	} {
		for _, mediaType := range []string{MediaTypeImage, MediaTypeIndex, MediaTypeArtifact, ""} {
			f.Add(mediaType, []byte(body))
		}
	}
	f.Fuzz(func(t *testing.T, mediaType string, body []byte) {
		facts, err := ParseManifest(mediaType, body)
		if err != nil {
			if k := KindOf(err); k == 0 || err.Error() == "" {
				t.Fatalf("an error that is no refusal: %v", err)
			}
			return
		}
		if !json.Valid(body) || len(facts.Blobs)+len(facts.Children) > MaxReferences || !isManifest(facts.MediaType) || hasNUL(facts.ArtifactType) {
			t.Fatalf("accepted %+v of %q", facts, body)
		}
		for _, d := range append(append([]Digest{}, facts.Blobs...), facts.Children...) {
			if _, err := UnpackDigest(d.Bytes()); err != nil {
				t.Fatal(err)
			}
		}
		for i := 1; i < len(facts.Annotations); i++ {
			if facts.Annotations[i-1].GetKey() >= facts.Annotations[i].GetKey() {
				t.Fatal("annotations are not sorted")
			}
		}
	})
}

// FuzzParseRepository compares the hand-written grammar with the spec's expression.
func FuzzParseRepository(f *testing.F) {
	for _, s := range []string{"a/b", "a__b", "a--b/c.d", "a_.b", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		want := len(s) <= maxName && specName.MatchString(s)
		if got := ParseRepository(s) == nil; got != want {
			t.Errorf("%q: accepted %t, the spec's expression says %t", s, got, want)
		}
		if got, want := ParseTag(s) == nil, specTag.MatchString(s); got != want {
			t.Errorf("tag %q: accepted %t, the spec's expression says %t", s, got, want)
		}
	})
}

// FuzzParseDigest: what is accepted comes back as it was.
func FuzzParseDigest(f *testing.F) {
	for _, s := range []string{"sha256:" + strings.Repeat("0", 64), "sha512:x", "sha256:", ":", "sha256+b64u:abc"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := ParseDigest(s)
		if err == nil && d.String() != s {
			t.Errorf("%q came back as %q", s, d)
		}
		if err != nil && KindOf(err) != metav1.Kind_KIND_INVALID {
			t.Errorf("%q: %v", s, err)
		}
	})
}
