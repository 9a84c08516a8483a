package meta

import (
	"fmt"
	"testing"

	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// TestACommittedManifestHasItsBytesWhateverTheInterleaving runs many small worlds.
func TestACommittedManifestHasItsBytesWhateverTheInterleaving(t *testing.T) {
	refused := map[metav1.Kind]int{}
	for seed := range uint64(40) {
		w := newWorld(t, seed, "")
		for n := range 1500 {
			w.step()
			if bad := w.violated(); bad != "" {
				t.Fatalf("seed %d, step %d: %s", seed, n, bad)
			}
		}
		if bad := countersOff(w.state); bad != "" {
			t.Fatalf("seed %d: %s", seed, bad)
		}
		for k, n := range w.refused {
			refused[k] += n
		}
	}
	for _, k := range []metav1.Kind{0, metav1.Kind_KIND_CONFLICT, metav1.Kind_KIND_UNKNOWN, metav1.Kind_KIND_UNSUPPORTED} {
		if refused[k] < 100 {
			t.Errorf("only %d results of kind %s: the worlds are too tame", refused[k], k)
		}
	}
	t.Logf("results by kind: %v", refused)
}

// TestEachRuleIsNeeded leaves out one rule at a time: then some world loses bytes.
func TestEachRuleIsNeeded(t *testing.T) {
	for _, rule := range []string{"G1", "G2", "G4", "G5", "B6"} {
		t.Run(rule, func(t *testing.T) {
			for seed := range uint64(300) {
				w := newWorld(t, seed, rule)
				for n := range 1500 {
					w.step()
					if bad := w.violated(); bad != "" {
						t.Logf("seed %d, step %d: %s", seed, n, bad)
						return
					}
				}
			}
			t.Fatalf("no world without %s lost bytes: the test cannot see that rule", rule)
		})
	}
}

// countersOff recounts every repository and project from the rows, and checks
// that each range mirrors the others.
func countersOff(s *State) string {
	v := s.View()
	defer v.Close()
	bytes, manifests, tags := map[string]int64{}, map[string]int64{}, map[string]int64{}
	linked := map[string]bool{}
	link := func(repository string, d Digest) {
		key := repository + " " + string(d)
		if !linked[key] {
			linked[key] = true
			bytes[repository] += v.blob(d).GetSize()
		}
	}
	bodies := map[Digest]int64{}
	each := func(r byte, fn func(rest []byte)) {
		v.scan([]byte{r}, nil, func(k, _ []byte) bool { fn(k[1:]); return true })
	}
	each(rangeManifest, func(k []byte) {
		repository, rest := cutName(k)
		d, _ := cutDigest(rest)
		manifests[repository]++
		bodies[d]++
	})
	each(rangeTag, func(k []byte) { repository, _ := cutName(k); tags[repository]++ })
	each(rangeReference, func(k []byte) {
		d, rest := cutDigest(k)
		repository, rest := cutName(rest)
		m, _ := cutDigest(rest)
		row := v.manifest(repository, m)
		if row == nil {
			bytes["dangling reference of "+repository]++
		}
		if m != d || row.GetLarge() {
			link(repository, d)
		}
	})
	graces, graced := 0, 0
	each(rangeGrace, func(k []byte) {
		d, rest := cutDigest(k)
		repository, _ := cutName(rest)
		link(repository, d)
		graces++
	})
	each(rangeGraced, func(k []byte) {
		graced++
		repository, rest := cutName(k)
		if d, _ := cutDigest(rest); v.grace(repository, d) == nil {
			graced += 1000
		}
	})
	if graces != graced {
		return fmt.Sprintf("%d grace rows, %d graced rows", graces, graced)
	}
	for d, n := range bodies {
		var row metav1.ManifestBody
		if v.read(digestKey(nil, rangeManifestBody, d), &row); row.GetRepositories() != n {
			return fmt.Sprintf("body %s: counts %d repositories, %d have it", d, row.GetRepositories(), n)
		}
	}
	total := map[string]tally{}
	bad := ""
	v.scan([]byte{rangeRepository}, nil, func(k, value []byte) bool {
		name, _ := cutName(k[1:])
		var row metav1.Repository
		v.decode(k, value, &row)
		got, want := tally{row.GetBytes(), row.GetManifests(), row.GetTags()}, tally{bytes[name], manifests[name], tags[name]}
		if got != want {
			bad = fmt.Sprintf("repository %s counts %+v, it holds %+v", name, got, want)
		}
		p := total[ProjectOf(name)]
		total[ProjectOf(name)] = tally{p.bytes + got.bytes, p.manifests + got.manifests, p.tags + got.tags}
		delete(bytes, name)
		return true
	})
	for name, n := range bytes {
		if n != 0 && bad == "" {
			bad = fmt.Sprintf("%d bytes in %s, which is not there", n, name)
		}
	}
	for project, want := range total {
		u := v.usage(project)
		if got := (tally{u.GetBytes(), u.GetManifests(), u.GetTags()}); got != want && bad == "" {
			bad = fmt.Sprintf("project %s counts %+v, it holds %+v", project, got, want)
		}
	}
	if v.err != nil {
		return v.err.Error()
	}
	return bad
}
