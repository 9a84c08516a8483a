package check

import (
	"net/http"

	"github.com/anishathalye/porcupine"
)

// This file is the model of the set of manifests of a repository. Manifests do not depend on each other in what it
// judges, so each digest is a partition. A collector that may remove an untagged manifest is recorded as a
// ManifestDelete of unknown outcome; otherwise only clients remove.

func manifestModel(initial []string) porcupine.Model {
	return porcupine.Model{
		Init:              func() any { return initial[0] != "" },
		Step:              func(state, input, _ any) (bool, any) { return manifestStep(state.(bool), input.(*Operation)) },
		DescribeOperation: func(input, _ any) string { return input.(*Operation).brief() },
		DescribeState: func(state any) string {
			if state.(bool) {
				return "there"
			}
			return "not there"
		},
	}
}

func manifestStep(there bool, o *Operation) (bool, bool) {
	switch o.Kind {
	case ManifestGet:
		return there == (o.Output != ""), there
	case ManifestPut, TagPut:
		return true, true
	case ManifestDelete:
		if o.Outcome == Refused {
			return !there, there
		}
		return there || o.Outcome == Unknown, false
	case TagGet:
		return there, there // only those that found it are here
	}
	return false, there
}

// manifestOf is the digest that the operation tells something about, "" is none. A conditional write of unknown outcome
// is one that may have written.
func manifestOf(o *Operation) string {
	switch o.Kind {
	case ManifestGet:
		if o.Outcome == Done && !o.Stale {
			return o.Input
		}
	case TagGet:
		if o.Outcome == Done && !o.Stale {
			return o.Output
		}
	case ManifestPut, TagPut:
		if o.Outcome != Refused {
			return o.Input
		}
	case ManifestDelete:
		if o.Outcome != Refused || o.Status == http.StatusNotFound {
			return o.Input
		}
	}
	return ""
}

// manifestPartitions splits the operations of one repository.
func manifestPartitions(repo string, ops []*Operation) []*partition {
	parts := map[string]*partition{}
	var out []*partition
	for _, o := range ops {
		digest := manifestOf(o)
		if digest == "" {
			continue
		}
		p := parts[digest]
		if p == nil {
			p = &partition{model: "manifests", name: repo + "@" + digest, keys: []string{digest},
				build: manifestModel, pin: pinsManifest, settle: settleManifests}
			parts[digest] = p
			out = append(out, p)
		}
		p.ops = append(p.ops, o)
	}
	return out
}

func pinsManifest(o *Operation) (string, bool) {
	switch o.Kind {
	case ManifestGet, TagGet:
		return o.Output, true
	case ManifestPut, TagPut:
		return "there", o.Outcome == Done
	case ManifestDelete:
		return "", o.Outcome != Unknown
	}
	return "", false
}
