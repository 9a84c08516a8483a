package meta

import (
	"strings"

	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

const (
	// maxName bounds a repository name, in bytes, and every other name in a key.
	maxName = 255
	// maxTag bounds a tag, in bytes (distribution-spec, "Pulling manifests").
	maxTag = 128
)

// ParseRepository checks a repository name against the distribution spec's grammar, at most 255 bytes:
//
//	[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*
//
// The refusal is KIND_INVALID, NOUN_NAME.
func ParseRepository(name string) error {
	if len(name) == 0 || len(name) > maxName {
		return invalid(metav1.Noun_NOUN_NAME, "repository name: got %d bytes, expected 1 to %d", len(name), maxName)
	}
	for component := range strings.SplitSeq(name, "/") {
		if !isComponent(component) {
			return invalid(metav1.Noun_NOUN_NAME,
				"repository name: got %q, expected components of lowercase letters and digits, joined by one of . _ __ or dashes, between slashes",
				clip(name))
		}
	}
	return nil
}

// isComponent matches one path component: runs of letters and digits with separators between.
func isComponent(s string) bool {
	for {
		n := 0
		for n < len(s) && isLowerAlnum(s[n]) {
			n++
		}
		if n == 0 {
			return false
		}
		if s = s[n:]; s == "" {
			return true
		}
		n = separator(s)
		if n == 0 {
			return false
		}
		s = s[n:]
	}
}

// separator answers the length of the separator that s begins with, 0 if none.
func separator(s string) int {
	switch {
	case s[0] == '.':
		return 1
	case strings.HasPrefix(s, "__"):
		return 2
	case s[0] == '_':
		return 1
	}
	return len(s) - len(strings.TrimLeft(s, "-"))
}

func isLowerAlnum(c byte) bool { return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' }

// ParseTag checks a tag against the grammar [a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}.
// The refusal is KIND_INVALID, NOUN_TAG.
func ParseTag(tag string) error {
	ok := len(tag) > 0 && len(tag) <= maxTag
	for i := 0; ok && i < len(tag); i++ {
		c := tag[i]
		ok = isLowerAlnum(c) || 'A' <= c && c <= 'Z' || c == '_' || i > 0 && (c == '.' || c == '-')
	}
	if !ok {
		return invalid(metav1.Noun_NOUN_TAG,
			"tag: got %q, expected 1 to %d of letters, digits, . _ -, not beginning with . or -", clip(tag), maxTag)
	}
	return nil
}

// ProjectOf is the first path component of a name of two or more, else "library".
func ProjectOf(repository string) string {
	if project, _, ok := strings.Cut(repository, "/"); ok {
		return project
	}
	return "library"
}

// checkName is what Apply asks of a name that becomes part of a key: the
// grammar was judged at the door (M1), but a key must stay a key.
func checkName(noun metav1.Noun, field, name string) error {
	if len(name) == 0 || len(name) > maxName || hasNUL(name) {
		return invalid(noun, "%s: got %q, expected 1 to %d bytes without NUL", field, clip(name), maxName)
	}
	return nil
}
