package oci

import (
	"strings"
	"testing"

	"github.com/pontoon-registry/pontoon/meta"
)

func FuzzRoute(f *testing.F) {
	for _, path := range []string{"/v2/", "/v2/a/tags/list", "/v2/a/b/blobs/uploads/x", "/v2/a/manifests/sha256:0", "/v2//../blobs/x"} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		r, err := parseRoute(path)
		if err != nil {
			if meta.KindOf(err) == 0 {
				t.Fatalf("%q: %v is no refusal", path, err)
			}
			return
		}
		if r.name != "" && (meta.ParseRepository(r.name) != nil || !strings.HasPrefix(path, "/v2/"+r.name+"/")) {
			t.Fatalf("%q: name %q", path, r.name)
		}
		if r.ref != "" && !strings.HasSuffix(path, "/"+r.ref) {
			t.Fatalf("%q: reference %q", path, r.ref)
		}
		if strings.Contains(r.ref, "/") {
			t.Fatalf("%q: reference %q has a slash", path, r.ref)
		}
	})
}

func FuzzRange(f *testing.F) {
	f.Add("bytes=0-1", int64(10))
	f.Add("bytes=-5", int64(3))
	f.Add("bytes=9223372036854775807-", int64(1))
	f.Fuzz(func(t *testing.T, header string, size int64) {
		if size < 0 {
			return
		}
		s, is := parseRange(header, size)
		if is == partial && (s.length < 1 || s.offset < 0 || s.offset+s.length > size) {
			t.Fatalf("%q of %d: %v is outside", header, size, s)
		}
	})
}

func FuzzContentRange(f *testing.F) {
	f.Add("0-5")
	f.Add("bytes 0-5/10")
	f.Add("5-99999999999999999999999")
	f.Fuzz(func(t *testing.T, header string) {
		s, ok, err := parseContentRange(header)
		if (err != nil || !ok) && s != (span{}) {
			t.Fatalf("%q: %v with %v", header, s, err)
		}
		if ok && (s.offset < 0 || s.length < 1 || s.offset+s.length < s.offset) {
			t.Fatalf("%q: %v", header, s)
		}
	})
}

func FuzzCursor(f *testing.F) {
	f.Add("")
	f.Add(cursor{phase: byTag}.encode())
	f.Add(cursor{bySubject, meta.ReferrerCursor{ArtifactType: "a", Digest: "\x01" + meta.Digest(make([]byte, 32))}}.encode())
	f.Fuzz(func(t *testing.T, s string) {
		c, err := parseCursor(s)
		if err != nil || s == "" {
			return
		}
		if got := c.encode(); got != s {
			t.Fatalf("%q: parsed as %+v, which is %q", s, c, got)
		}
	})
}
