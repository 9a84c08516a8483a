package check

import (
	"cmp"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"
)

// longPartition is how many operations are judged together; a longer partition is cut where nothing overlaps and the
// state is beyond doubt.
const longPartition = 300

// partition is a part of a history that is linearizable by itself.
type partition struct {
	model, name string
	keys        []string
	ops         []*Operation
	build       func(initial []string) porcupine.Model
	// pin answers the state after an operation that overlaps no other; nil never cuts.
	pin func(*Operation) (string, bool)
	// settle says what can be known of unknown outcomes.
	settle func([]*Operation) []settled
}

// settled is an operation with what its outcome leaves open.
type settled struct {
	*Operation
	until time.Duration // the latest instant that it may take effect at
	// spare is how early the operation may be left out of the search. It is sound at any rank above 0: whatever is in
	// order without an operation of unknown outcome is in order with it, as the last one of all. What is refuted
	// without it is searched again with it.
	spare int
}

// The ranks of what may be left out.
const (
	needed   = iota
	optional // left out of the first search only
	idle     // left out of the first two
	all      // no operation has it: a search up to here leaves nothing out
)

// end is the latest instant that an operation can take effect at by its own answer.
func (o *Operation) end() time.Duration {
	if o.Outcome == Unknown {
		return never
	}
	return o.Return
}

// segment is what is searched at once.
type segment struct {
	model porcupine.Model
	ops   []porcupine.Operation
}

// segments cuts the operations that are left at a rank.
func (p *partition) segments(ops []settled, rank int) []segment {
	var left []settled
	for _, o := range ops {
		if o.spare < rank {
			left = append(left, o)
		}
	}
	slices.SortStableFunc(left, func(a, b settled) int { return cmp.Compare(a.Call, b.Call) })
	initial := make([]string, len(p.keys))
	var out []segment
	var latest time.Duration // that anything before may take effect at
	for from, i := 0, 0; i < len(left); i++ {
		last := i == len(left)-1
		alone := (i == 0 || latest < left[i].Call) && (last || left[i].until < left[i+1].Call)
		latest = max(latest, left[i].until)
		state, sure := "", false
		if p.pin != nil && alone && i-from+1 >= longPartition/2 {
			state, sure = p.pin(left[i].Operation)
		}
		if sure || last {
			out = append(out, segment{p.build(initial), toPorcupine(left[from : i+1])})
			initial, from = []string{state}, i+1
		}
	}
	return out
}

func toPorcupine(ops []settled) []porcupine.Operation {
	out := make([]porcupine.Operation, len(ops))
	for i, o := range ops {
		out[i] = porcupine.Operation{ClientId: o.Client, Input: o.Operation, Call: int64(o.Call), Return: int64(o.until)}
	}
	return out
}
