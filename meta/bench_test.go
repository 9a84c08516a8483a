package meta

import (
	"fmt"
	"testing"

	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// BenchmarkReadManifestByTag is what a GET of a manifest by tag asks of the state.
func BenchmarkReadManifestByTag(b *testing.B) {
	s := newState(b)
	mustApply(b, s, entryOf(b, 1, begun()...))
	for i := range uint64(200) {
		mustApply(b, s, entryOf(b, 2+i, &metav1.Command{Kind: &metav1.Command_PutManifest{PutManifest: &metav1.PutManifest{
			Repository: fmt.Sprintf("p/r%d", i), Digest: digestOf(fmt.Sprint(i)).Bytes(), MediaType: MediaTypeImage,
			Body: make([]byte, 1500), Size: 1500, Tags: []string{"latest"},
		}}}))
	}
	b.ReportAllocs()
	for b.Loop() {
		v := s.View()
		tag, err := v.Tag("p/r7", "latest")
		if err != nil {
			b.Fatal(err)
		}
		d := Digest(tag.GetDigest())
		if _, err := v.Manifest("p/r7", d); err != nil {
			b.Fatal(err)
		}
		if _, err := v.ManifestBody(d); err != nil {
			b.Fatal(err)
		}
		v.Close()
	}
}

// BenchmarkApplyTagWrites applies entries of 64 manifest pushes with a tag each.
func BenchmarkApplyTagWrites(b *testing.B) {
	s := newState(b)
	mustApply(b, s, entryOf(b, 1, begun()...))
	index := uint64(1)
	n := 0
	for b.Loop() {
		var cs []*metav1.Command
		for range 64 {
			n++
			cs = append(cs, &metav1.Command{Kind: &metav1.Command_PutManifest{PutManifest: &metav1.PutManifest{
				Repository: fmt.Sprintf("p/r%d", n%50), Digest: digestOf(fmt.Sprint(n)).Bytes(), MediaType: MediaTypeImage,
				Body: make([]byte, 500), Size: 500, Tags: []string{fmt.Sprint("t", n%100)},
			}}})
		}
		index++
		mustApply(b, s, entryOf(b, index, cs...))
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(n), "µs/command")
}
