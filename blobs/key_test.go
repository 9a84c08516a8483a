package blobs

import (
	"math"
	"strings"
	"testing"
)

func TestKeysOfOneAttemptSortAfterItsFirst(t *testing.T) {
	n := Name{Epoch: "e1", Upload: "0af", Attempt: "77"}
	if got := n.Key(0); got != "e1/0af/77" {
		t.Errorf("Key(0) = %q", got)
	}
	if got := n.Key(12); got != "e1/0af/77.12" {
		t.Errorf("Key(12) = %q", got)
	}
}

func TestKeysThatLeaveTheirFolderAreRefused(t *testing.T) {
	for _, key := range []string{
		"", "a", "a/b", "a/b/c/d", "/b/c", "a//c", "a/b/", "../b/c", "a/../c", "a/b/..", "a/b/.", "A/b/c", "a/b/c.",
		"a/b/c.0", "a/b/c.01", "a/b/c.-1", "a/b/c.+1", "a/b/c.1.2", "a/b/c.2147483648", "a/b/c\x00", "a/b\\/c", "é/b/c", "a-b/b/c",
		strings.Repeat("a", 129) + "/b/c",
	} {
		if n, o, err := ParseKey(key); err == nil {
			t.Errorf("ParseKey(%q) = %v, %d, want an error", key, n, o)
		}
	}
}

func TestObjectNamesThatLeaveTheirFolderAreRefused(t *testing.T) {
	for _, name := range []string{"", "/", "a/", "/a", "..", "a/../b", ".a", "a//b", "a b", "a\x00", "1/2/3/4/5/6/7/8/9"} {
		if ValidateObjectName(name) == nil {
			t.Errorf("ValidateObjectName(%q) = nil, want an error", name)
		}
	}
	for _, name := range []string{"owner", "backup/2026-01-02T03_04.seg", "A/b"} {
		if err := ValidateObjectName(name); err != nil {
			t.Errorf("ValidateObjectName(%q) = %v", name, err)
		}
	}
}

func FuzzParseKey(f *testing.F) {
	for _, s := range []string{"e1/0af/77", "e1/0af/77.12", "a/b/c.2147483647", "../x/y", "a/b/c.00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, key string) {
		n, object, err := ParseKey(key)
		if err != nil {
			return
		}
		if object < 0 || object > math.MaxInt32 {
			t.Fatalf("ParseKey(%q): object %d", key, object)
		}
		if got := n.Key(object); got != key {
			t.Fatalf("ParseKey(%q).Key = %q", key, got)
		}
		if strings.Contains(key, "..") || strings.ContainsAny(key, "\\\x00") {
			t.Fatalf("ParseKey(%q) accepted it", key)
		}
	})
}
