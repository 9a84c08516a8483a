package oci

import (
	"strings"
	"testing"

	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

func TestRoutesAreReadFromTheEnd(t *testing.T) {
	const id = "0123456789abcdef0123456789abcdef"
	for path, want := range map[string]route{
		"/v2":                                     {target: base},
		"/v2/":                                    {target: base},
		"/v2/_catalog":                            {target: catalog},
		"/v2/a/tags/list":                         {target: tagList, name: "a"},
		"/v2/a/b/c/tags/list":                     {target: tagList, name: "a/b/c"},
		"/v2/a/manifests/latest":                  {target: manifests, name: "a", ref: "latest"},
		"/v2/a/manifests/sha256:0":                {target: manifests, name: "a", ref: "sha256:0"},
		"/v2/a/blobs/sha256:0":                    {target: blobsOf, name: "a", ref: "sha256:0"},
		"/v2/a/blobs/uploads":                     {target: uploads, name: "a"},
		"/v2/a/blobs/uploads/":                    {target: uploads, name: "a"},
		"/v2/a/blobs/uploads/" + id:               {target: upload, name: "a", ref: id},
		"/v2/a/referrers/sha256:0":                {target: referrers, name: "a", ref: "sha256:0"},
		"/v2/manifests/blobs/manifests/blobs":     {target: manifests, name: "manifests/blobs", ref: "blobs"},
		"/v2/a/blobs/uploads/manifests/latest":    {target: manifests, name: "a/blobs/uploads", ref: "latest"},
		"/v2/tags/list/tags/list":                 {target: tagList, name: "tags/list"},
		"/v2/a/blobs/uploads/blobs/uploads/" + id: {target: upload, name: "a/blobs/uploads", ref: id},
	} {
		got, err := parseRoute(path)
		if err != nil || got != want {
			t.Errorf("%s: got %+v, %v; want %+v", path, got, err, want)
		}
	}
}

func TestMalformedRoutesAreRefused(t *testing.T) {
	for path, want := range map[string]metav1.Kind{
		"/":                       metav1.Kind_KIND_UNKNOWN,
		"/v2x/":                   metav1.Kind_KIND_UNKNOWN,
		"/v2/a":                   metav1.Kind_KIND_UNKNOWN,
		"/v2/a/b/c":               metav1.Kind_KIND_UNKNOWN,
		"/v2//":                   metav1.Kind_KIND_UNKNOWN,
		"/v2/A/tags/list":         metav1.Kind_KIND_INVALID,
		"/v2//tags/list":          metav1.Kind_KIND_INVALID,
		"/v2/tags/list":           metav1.Kind_KIND_UNKNOWN,
		"/v2/a//b/manifests/x":    metav1.Kind_KIND_INVALID,
		"/v2/../x/manifests/y":    metav1.Kind_KIND_INVALID,
		"/v2/a_-b/blobs/uploads/": metav1.Kind_KIND_INVALID,
		"/v2/" + strings.Repeat("a", 256) + "/tags/list": metav1.Kind_KIND_INVALID,
	} {
		if _, err := parseRoute(path); meta.KindOf(err) != want {
			t.Errorf("%s: got %v, want %s", path, err, want)
		}
	}
}

func TestRangesAreServedAsRFC9110Says(t *testing.T) {
	for _, c := range []struct {
		header string
		size   int64
		want   span
		is     verdict
	}{
		{"", 10, span{}, whole},
		{"bytes=0-0", 10, span{0, 1}, partial},
		{"bytes=2-5", 10, span{2, 4}, partial},
		{"Bytes=2-5", 10, span{2, 4}, partial},
		{"bytes=2-", 10, span{2, 8}, partial},
		{"bytes=-3", 10, span{7, 3}, partial},
		{"bytes=-30", 10, span{0, 10}, partial},
		{"bytes=5-99999999999999999999", 10, span{5, 5}, partial},
		{"bytes=10-", 10, span{}, unsatisfiable},
		{"bytes=99999999999999999999-", 10, span{}, unsatisfiable},
		{"bytes=5-0", 10, span{}, unsatisfiable},
		{"bytes=-0", 10, span{}, unsatisfiable},
		{"bytes=-", 10, span{}, unsatisfiable},
		{"bytes=+1-2", 10, span{}, unsatisfiable},
		{"bytes=a-b", 10, span{}, unsatisfiable},
		{"bytes 0-1", 10, span{}, unsatisfiable},
		{"bytes=0-", 0, span{}, unsatisfiable},
		{"bytes=-1", 0, span{}, unsatisfiable},
		{"bytes=0-1,3-4", 10, span{}, whole},
		{"lines=0-1", 10, span{}, whole},
	} {
		if got, is := parseRange(c.header, c.size); got != c.want || is != c.is {
			t.Errorf("%q of %d: got %v %v, want %v %v", c.header, c.size, got, is, c.want, c.is)
		}
	}
}

func TestContentRangesAreReadInBothSpellings(t *testing.T) {
	for header, want := range map[string]span{
		"0-0": {0, 1}, "5-9": {5, 5}, "bytes 5-9": {5, 5}, "bytes 5-9/20": {5, 5}, "bytes 5-9/*": {5, 5},
	} {
		if got, ok, err := parseContentRange(header); err != nil || !ok || got != want {
			t.Errorf("%q: got %v %v %v, want %v", header, got, ok, err, want)
		}
	}
	for _, header := range []string{"-", "5", "5-", "-5", "9-5", "a-b", "bytes=0-1", "0-1-2", "0--1", "-1-5", "0-99999999999999999999"} {
		if _, _, err := parseContentRange(header); meta.KindOf(err) != metav1.Kind_KIND_INVALID {
			t.Errorf("%q: got %v, want a refusal", header, err)
		}
	}
}

func TestCursorsRoundTripAndNothingElseIsOne(t *testing.T) {
	d, err := meta.ParseDigest("sha256:" + strings.Repeat("0a", 32))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []cursor{
		{phase: byTag},
		{bySubject, meta.ReferrerCursor{Digest: d}},
		{bySubject, meta.ReferrerCursor{ArtifactType: "application/x", Digest: d}},
		{byTag, meta.ReferrerCursor{Digest: d}},
	} {
		if got, err := parseCursor(c.encode()); err != nil || got != c {
			t.Errorf("%+v: got %+v, %v", c, got, err)
		}
	}
	for _, s := range []string{"!", "AA", "cw", "cwA", "dCAA", strings.Repeat("A", maxCursor+1), "c0FB", "ceEB"} {
		if got, err := parseCursor(s); meta.KindOf(err) != metav1.Kind_KIND_INVALID {
			t.Errorf("%q: got %+v, %v; want a refusal", s, got, err)
		}
	}
}

func TestAHashStateTravels(t *testing.T) {
	for _, algorithm := range []byte{meta.SHA256, meta.SHA384, meta.SHA512} {
		whole, first := newSum(algorithm), newSum(algorithm)
		_, _ = whole.Write([]byte("onetwo"))
		_, _ = first.Write([]byte("one"))
		second := resumeSum(algorithm, first.state())
		if second == nil {
			t.Fatalf("algorithm %d: state does not unmarshal", algorithm)
		}
		_, _ = second.Write([]byte("two"))
		want, _ := whole.digest()
		if got, err := second.digest(); err != nil || got != want {
			t.Errorf("algorithm %d: got %s, %v; want %s", algorithm, got, err, want)
		}
	}
	if resumeSum(meta.SHA256, []byte("not a state")) != nil || resumeSum(meta.SHA256, nil) != nil {
		t.Error("a state that is none was taken")
	}
}

func TestTheFallbackTagIsThatOfTheSpecification(t *testing.T) {
	for in, want := range map[string]string{
		"sha256:" + strings.Repeat("a", 64):  "sha256-" + strings.Repeat("a", 64),
		"sha512:" + strings.Repeat("b", 128): "sha512-" + strings.Repeat("b", 64),
	} {
		d, err := meta.ParseDigest(in)
		if err != nil {
			t.Fatal(err)
		}
		if got := fallbackTag(d); got != want || meta.ParseTag(got) != nil {
			t.Errorf("%s: got %s, want %s", in, got, want)
		}
	}
}

func TestAWarningStaysOneHeader(t *testing.T) {
	if got := warning("a\r\nb\"c\\"); got != `299 - "a  b c "` {
		t.Errorf("got %s", got)
	}
}
