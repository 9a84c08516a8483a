package meta

import (
	"errors"
	"regexp"
	"testing"

	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// The expressions of distribution-spec, for comparison.
var (
	specName = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*\z`)
	specTag  = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}\z`)
)

// FuzzEntry gives Apply any bytes for an entry: it answers results or ErrFormat, and no command panics.
func FuzzEntry(f *testing.F) {
	seeds := fullLog(f, 9, 60)
	for _, e := range seeds {
		f.Add(e.Data)
	}
	f.Add([]byte{})
	s := newState(f)
	for _, e := range seeds {
		if _, err := s.Apply([]LogEntry{e}); err != nil {
			f.Fatal(err)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		index, _ := s.Applied()
		results, err := s.Apply([]LogEntry{{Index: index + 1, Term: 1, Data: data}})
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Fatal(err)
			}
			return
		}
		for _, r := range results[0] {
			if r.GetRefusal().GetKind() == metav1.Kind_KIND_INTERNAL {
				defects, _ := s.Defects()
				t.Fatalf("a command panicked: %v", defects[len(defects)-1])
			}
		}
	})
}
