package check

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"
)

// Decision is what came of a partition.
type Decision string

// What came of it. Undecided is that the time was up, which is no pass.
const (
	Linear    Decision = "linearizable"
	NotLinear Decision = "not linearizable"
	Undecided Decision = "not decided"
)

// Partition is a part of a history that did not pass.
type Partition struct {
	Model, Name string
	Operations  int
	Decision    Decision
	Took        time.Duration
	// Evidence are lines: the operation that fits nowhere, and those before it.
	Evidence []string
	// Visualization is a page of porcupine's, by itself.
	Visualization []byte
}

// Count is what a model judged.
type Count struct{ Partitions, Operations int }

// Judgement is what the models say of a history.
type Judgement struct {
	Models map[string]Count
	// Bad are the partitions that did not pass: not linearizable, or not decided.
	Bad  []Partition
	Took time.Duration
}

// NewJudgement is that of nothing.
func NewJudgement() *Judgement { return &Judgement{Models: map[string]Count{}} }

// Join adds what was found elsewhere.
func (j *Judgement) Join(other *Judgement) {
	for model, n := range other.Models {
		sum := j.Models[model]
		j.Models[model] = Count{sum.Partitions + n.Partitions, sum.Operations + n.Operations}
	}
	j.Bad = append(j.Bad, other.Bad...)
	j.Took += other.Took
}

// Violations are the partitions that are not linearizable.
func (j *Judgement) Violations() []Violation {
	var out []Violation
	for _, p := range j.Bad {
		if p.Decision == NotLinear {
			out = append(out, Violation{Rule: "linearizable " + p.Model, Where: p.Name,
				Text: fmt.Sprintf("%d operations are in no order that explains the answers", p.Operations), Evidence: p.Evidence})
		}
	}
	return out
}

// Undecided counts the partitions whose time was up.
func (j *Judgement) Undecided() int {
	n := 0
	for _, p := range j.Bad {
		if p.Decision == Undecided {
			n++
		}
	}
	return n
}

// CheckLinear judges tags, manifests and locks. The operations must be the whole history of every repository and lock
// that is in it. Each partition gets at most the time given.
func CheckLinear(ops []Operation, perPartition time.Duration) *Judgement {
	began, j := time.Now(), NewJudgement()
	for _, p := range partitions(ops) {
		count := j.Models[p.model]
		j.Models[p.model] = Count{count.Partitions + 1, count.Operations + len(p.ops)}
		if bad := p.check(perPartition); bad.Decision != Linear {
			j.Bad = append(j.Bad, bad)
		}
	}
	j.Took = time.Since(began)
	return j
}

// partitions splits a history, in the order of what comes first.
func partitions(ops []Operation) []*partition {
	var repos []string
	tags, manifests := map[string][]*Operation{}, map[string][]*Operation{}
	var locks []*Operation
	known := map[string]bool{}
	for i := range ops {
		o := &ops[i]
		if judgesLocks(o) {
			locks = append(locks, o)
			continue
		}
		if !known[o.Repo] {
			known[o.Repo] = true
			repos = append(repos, o.Repo)
		}
		if judgesTags(o) {
			tags[o.Repo] = append(tags[o.Repo], o)
		}
		if manifestOf(o) != "" {
			manifests[o.Repo] = append(manifests[o.Repo], o)
		}
	}
	var out []*partition
	for _, repo := range repos {
		out = append(out, tagPartitions(repo, tags[repo])...)
		out = append(out, manifestPartitions(repo, manifests[repo])...)
	}
	return append(out, lockPartitions(locks)...)
}

// check searches with and without what is seldom needed: most histories pass without, and each operation of unknown
// outcome that is left in doubles the search of one that does not.
func (p *partition) check(limit time.Duration) Partition {
	began, ops := time.Now(), p.settle(p.ops)
	result := Partition{Model: p.model, Name: p.name, Operations: len(p.ops)}
	var searches [][]segment
	for _, rank := range []int{optional, idle, all} {
		segments, last := p.segments(ops, rank), len(searches)-1
		if last < 0 || countOps(segments) > countOps(searches[last]) {
			searches = append(searches, segments) // else it is the same as the one before
		}
	}
	bad, decision := race(searches, limit-time.Since(began))
	result.Decision = decision
	if result.Decision == NotLinear {
		result.explain(bad, limit)
	}
	result.Took = time.Since(began)
	return result
}

// race gives each search a little time in turn, then more: which of them is over soon is not known before. Any may find
// an order; only the last, which leaves nothing out, may find that there is none.
func race(searches [][]segment, limit time.Duration) (*segment, Decision) {
	end := time.Now().Add(limit)
	for quick := 100 * time.Millisecond; ; quick *= 4 {
		for i := 0; i < len(searches); i++ {
			left := time.Until(end)
			if left <= 0 {
				return nil, Undecided
			}
			bad, decision := search(searches[i], min(left, quick))
			switch {
			case decision == Linear, decision == NotLinear && i == len(searches)-1:
				return bad, decision
			case decision == NotLinear:
				searches = slices.Delete(searches, i, i+1)
				i--
			}
		}
	}
}

func countOps(segments []segment) (n int) {
	for _, s := range segments {
		n += len(s.ops)
	}
	return n
}

// search answers the first segment that does not pass.
func search(segments []segment, limit time.Duration) (*segment, Decision) {
	end := time.Now().Add(limit)
	for i := range segments {
		left := time.Until(end)
		if left <= 0 {
			return &segments[i], Undecided
		}
		switch porcupine.CheckOperationsTimeout(segments[i].model, segments[i].ops, left) {
		case porcupine.Ok:
		case porcupine.Illegal:
			return &segments[i], NotLinear
		default:
			return &segments[i], Undecided
		}
	}
	return nil, Linear
}

// explain tells of a segment that is not linearizable.
func (r *Partition) explain(s *segment, limit time.Duration) {
	_, info := porcupine.CheckOperationsVerbose(s.model, s.ops, limit)
	placed := map[*Operation]bool{}
	for _, part := range info.PartialLinearizationsOperations() {
		if longest := longestOf(part); len(longest) > len(placed) {
			clear(placed)
			for _, o := range longest {
				placed[o.Input.(*Operation)] = true
			}
		}
	}
	r.Evidence = tell(s.ops, placed)
	var page bytes.Buffer
	if err := porcupine.Visualize(s.model, info, &page); err == nil {
		r.Visualization = page.Bytes()
	}
}

func longestOf(orders [][]porcupine.Operation) (longest []porcupine.Operation) {
	for _, o := range orders {
		if len(o) > len(longest) {
			longest = o
		}
	}
	return longest
}
