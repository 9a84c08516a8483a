package meta

import (
	"cmp"
	"fmt"
	"testing"

	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// worldSteps is how long a world lasts.
const worldSteps = 2500

// rules are what a world can leave out. G4 is M4; two names of one rule are two parts of it.
var rules = []string{
	"G1", "G2", "G3 blobs", "G3 manifests", "G4", "G5", "G6 index", "G6 opened", "G6 delay", "G7 order", "G7 epoch",
	"G8 head", "G8 grace", "G8 manifests", "G8 left", "G9 owner", "G9 swept", "G9 point", "G9 halt", "B6", "R-C6 came",
}

// TestNothingThatCountsIsLostWhateverTheInterleaving runs many small worlds.
func TestNothingThatCountsIsLostWhateverTheInterleaving(t *testing.T) {
	seen := map[string]int{}
	for seed := range uint64(40) {
		w := newWorld(t, seed, "")
		for n := range worldSteps {
			w.step()
			if bad := w.violated(); bad != "" {
				t.Fatalf("seed %d, step %d: %s", seed, n, bad)
			}
		}
		for _, x := range []*world{w, w.second} {
			if x == nil {
				continue
			}
			if bad := cmp.Or(countersOff(x.state), departedOff(x.state)); bad != "" {
				t.Fatalf("seed %d, cluster %s: %s", seed, x.cluster, bad)
			}
		}
		for what, n := range w.seen {
			seen[what] += n
		}
	}
	t.Logf("seen: %v", seen)
	for what, least := range map[string]int{
		"KIND_CONFLICT": 1000, "KIND_UNKNOWN": 1000, "KIND_UNSUPPORTED": 10, "commit_upload": 500, "put_manifest": 300,
		"condemn_blobs": 100, "delete_untagged": 100, "forget_keys": 100, "confirm_content": 100, "mark_lost": 1,
		"complete_backup": 50, "restored": 20, "drills": 10, "adopted": 10, "adopted beyond its point": 3,
	} {
		if seen[what] < least {
			t.Errorf("%s: only %d times, expected %d: the worlds are too tame", what, seen[what], least)
		}
	}
}

// TestEachRuleIsNeeded leaves out one rule at a time: then some world loses what counts.
func TestEachRuleIsNeeded(t *testing.T) {
	for _, rule := range rules {
		t.Run(rule, func(t *testing.T) {
			for seed := range uint64(300) {
				w := newWorld(t, seed, rule)
				for n := range worldSteps {
					w.step()
					if bad := w.violated(); bad != "" {
						t.Logf("seed %d, step %d: %s", seed, n, bad)
						return
					}
				}
			}
			t.Fatalf("no world without %s lost anything: the test cannot see that rule", rule)
		})
	}
}

// departedOff looks for a note of a departure that should be forgotten.
func departedOff(s *State) (bad string) {
	v := s.View()
	defer v.Close()
	v.scan(oneRow(nil, rangeDeparted), nil, func(k, _ []byte) bool {
		repository, rest := cutName(k[1:])
		d, _ := cutDigest(rest)
		if v.manifest(repository, d) != nil || !v.any(inRepository(nil, rangeReferrer, repository, d)) {
			bad = fmt.Sprintf("subject %s departed from %s, but is here, or nothing refers to it", d, repository)
		}
		return true
	})
	return bad
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
