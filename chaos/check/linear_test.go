package check

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// Short spellings of operations: a begins at the first, and is over at the second millisecond.

func op(from, to int, kind Kind, outcome Outcome) Operation {
	return Operation{Client: from % 4, Kind: kind, Repo: "r", Outcome: outcome,
		Call: time.Duration(from) * time.Millisecond, Return: time.Duration(to) * time.Millisecond}
}

func get(from, to int, tag, output string) Operation {
	o := op(from, to, TagGet, Done)
	o.Key, o.Output, o.Status = tag, output, 200
	return o
}

func put(from, to int, tag, input, expect string, outcome Outcome) Operation {
	o := op(from, to, TagPut, outcome)
	o.Key, o.Input, o.Expect = tag, input, expect
	return o
}

// refused is a write that a precondition refused.
func refused(o Operation, current string) Operation {
	o.Outcome, o.Status, o.Output = Refused, 412, current
	return o
}

// missing is a deletion of what was not there.
func missing(o Operation) Operation {
	o.Outcome, o.Status = Refused, 404
	return o
}

func untag(from, to int, tag, expect string, outcome Outcome) Operation {
	o := op(from, to, TagDelete, outcome)
	o.Key, o.Expect = tag, expect
	return o
}

func manifest(from, to int, kind Kind, digest, output string, outcome Outcome) Operation {
	o := op(from, to, kind, outcome)
	o.Input, o.Output = digest, output
	return o
}

func lock(from, to int, kind Kind, token uint64, outcome Outcome) Operation {
	o := op(from, to, kind, outcome)
	o.Repo, o.Key, o.Token = "", "l", token
	if kind == LockAcquire || kind == LockRenew {
		o.TTL = time.Second
	}
	if outcome == Refused {
		o.Status = 409
	}
	return o
}

func guard(from, to int, token uint64, value string, outcome Outcome) Operation {
	o := lock(from, to, GuardWrite, token, outcome)
	o.Input = value
	return o
}

func guarded(from, to int, token uint64, value string) Operation {
	o := lock(from, to, GuardRead, token, Done)
	o.Output = value
	return o
}

func TestModelsKnowGoodFromBad(t *testing.T) {
	for _, c := range []struct {
		name string
		ops  []Operation
		bad  string // the model that objects
	}{
		{"nothing", nil, ""},
		{"read what was written", []Operation{get(0, 1, "a", ""), put(2, 3, "a", "x", "", Done), get(4, 5, "a", "x")}, ""},
		{"either while it is written", []Operation{put(0, 9, "a", "x", "", Done), get(1, 2, "a", ""), get(3, 4, "a", "x")}, ""},
		{"stale read", []Operation{put(0, 1, "a", "x", "", Done), put(2, 3, "a", "y", "", Done), get(4, 5, "a", "x")}, "tags"},
		{"lost write", []Operation{put(0, 1, "a", "x", "", Done), get(2, 3, "a", "")}, "tags"},
		{"read goes back", []Operation{put(0, 9, "a", "x", "", Done), get(1, 2, "a", "x"), get(3, 4, "a", "")}, "tags"},
		{"read from nowhere", []Operation{get(0, 1, "a", "x"), put(2, 3, "a", "x", "", Done)}, "tags manifests"},
		{"unknown came", []Operation{put(0, 1, "a", "x", "", Unknown), get(2, 3, "a", "x")}, ""},
		{"unknown came late", []Operation{put(0, 1, "a", "x", "", Unknown), get(2, 3, "a", ""), put(4, 5, "a", "y", "", Done), get(6, 7, "a", "x")}, ""},
		{"unknown never came", []Operation{put(0, 1, "a", "x", "", Unknown), get(2, 3, "a", "")}, ""},
		{"unknown came and went", []Operation{put(0, 1, "a", "x", "", Unknown), get(2, 3, "a", "x"), get(4, 5, "a", "")}, "tags"},
		{"unknown came twice", []Operation{put(0, 1, "a", "x", "", Unknown), get(2, 3, "a", "x"), put(4, 5, "a", "y", "", Done), get(6, 7, "a", "x")}, "tags"},
		{"unknown deletion", []Operation{put(0, 1, "a", "x", "", Done), untag(2, 3, "a", "", Unknown), get(4, 5, "a", "x"), get(6, 7, "a", "")}, ""},
		{"unknown write that nobody saw was deleted", []Operation{put(0, 1, "a", "x", "", Unknown), untag(2, 3, "a", "", Done)}, ""},
		{"two writers of one digest, both unknown", []Operation{put(0, 1, "a", "x", "", Unknown), put(0, 1, "a", "x", "", Unknown),
			get(2, 3, "a", "x"), put(4, 5, "a", "y", "", Done), get(6, 7, "a", "x")}, ""},
		{"condition held", []Operation{put(0, 1, "a", "x", Absent, Done), put(2, 3, "a", "y", "x", Done), get(4, 5, "a", "y")}, ""},
		{"condition did not hold and was done", []Operation{put(0, 1, "a", "x", "", Done), put(2, 3, "a", "y", "z", Done)}, "tags"},
		{"two created it", []Operation{put(0, 9, "a", "x", Absent, Done), put(0, 9, "a", "y", Absent, Done)}, "tags"},
		{"condition refused, rightly", []Operation{put(0, 1, "a", "x", "", Done), refused(put(2, 3, "a", "y", "z", ""), "x")}, ""},
		{"condition refused, wrongly", []Operation{put(0, 1, "a", "x", "", Done), refused(put(2, 3, "a", "y", "x", ""), "x")}, "tags"},
		{"condition refused by what was long over", []Operation{put(0, 1, "a", "x", "", Done), put(2, 3, "a", "y", "", Done),
			refused(put(4, 5, "a", "w", "z", ""), "x")}, "tags"},
		{"refused write was seen", []Operation{put(0, 1, "a", "x", "", Done), refused(put(2, 3, "a", "y", "z", ""), "x"), get(4, 5, "a", "y")}, "tags manifests"},
		{"plainly refused write was seen", []Operation{put(0, 1, "a", "x", "", Refused), get(2, 3, "a", "x")}, "tags manifests"},
		{"plainly refused write of a tag", []Operation{put(0, 1, "a", "x", "", Done), put(2, 3, "a", "y", "", Refused), get(4, 5, "a", "x")}, ""},
		{"delete", []Operation{put(0, 1, "a", "x", "", Done), untag(2, 3, "a", "x", Done), get(4, 5, "a", ""), missing(untag(6, 7, "a", "", ""))}, ""},
		{"deleted what was not there", []Operation{untag(0, 1, "a", "", Done)}, "tags"},
		{"missing what was there", []Operation{put(0, 1, "a", "x", "", Done), missing(untag(2, 3, "a", "", ""))}, "tags"},
		{"deletion refused, rightly", []Operation{put(0, 1, "a", "x", "", Done), refused(untag(2, 3, "a", "y", ""), "x")}, ""},
		{"deletion refused, wrongly", []Operation{put(0, 1, "a", "x", "", Done), refused(untag(2, 3, "a", "x", ""), "x")}, "tags"},
		{"deletion of nothing refused by a condition", []Operation{refused(untag(2, 3, "a", "y", ""), "")}, "tags"},
		{"deleted by another condition", []Operation{put(0, 1, "a", "x", "", Done), untag(2, 3, "a", "y", Done)}, "tags"},
		{"came back", []Operation{put(0, 1, "a", "x", "", Done), untag(2, 3, "a", "", Done), get(4, 5, "a", "x")}, "tags"},
		{"tags do not mix", []Operation{put(0, 1, "a", "x", "", Done), put(2, 3, "b", "y", "", Done), get(4, 5, "a", "x"), get(6, 7, "b", "y")}, ""},
		{"a stale answer that says so", []Operation{put(0, 1, "a", "x", "", Done), func() Operation { o := get(2, 3, "a", ""); o.Stale = true; return o }()}, ""},

		{"several tags at once", []Operation{put(0, 1, "a,b", "x", "", Done), get(2, 3, "a", "x"), get(4, 5, "b", "x")}, ""},
		{"several tags, the second stays", []Operation{put(0, 1, "a,b", "x", "", Done), get(2, 3, "b", "")}, "tags"},
		{"several tags, a condition that the second does not meet", []Operation{put(0, 1, "b", "x", "", Done), put(2, 3, "a,b", "y", Absent, Done)}, "tags"},
		{"several tags, one condition that all meet", []Operation{put(0, 1, "a,b", "x", "", Done), put(2, 3, "a,b", "y", "x", Done), get(4, 5, "b", "y")}, ""},
		{"half of several tags", []Operation{put(0, 9, "a,b", "x", "", Done), get(1, 2, "a", "x"), get(3, 4, "b", "")}, "tags"},
		{"half of several tags, unknown", []Operation{put(0, 1, "a,b", "x", "", Unknown), get(2, 3, "a", "x"), get(4, 5, "b", "")}, "tags"},
		{"several tags, one condition", []Operation{put(0, 1, "a", "x", "", Done), put(2, 3, "a,b", "y", Absent, Done)}, "tags"},
		{"several tags, refused by one", []Operation{put(0, 1, "a", "x", "", Done), refused(put(2, 3, "a,b", "y", Absent, ""), "x"), get(4, 5, "b", "")}, ""},

		{"manifest", []Operation{manifest(0, 1, ManifestPut, "x", "", Done), manifest(2, 3, ManifestGet, "x", "x", Done),
			manifest(4, 5, ManifestDelete, "x", "", Done), manifest(6, 7, ManifestGet, "x", "", Done), missing(manifest(8, 9, ManifestDelete, "x", "", ""))}, ""},
		{"lost manifest", []Operation{manifest(0, 1, ManifestPut, "x", "", Done), manifest(2, 3, ManifestGet, "x", "", Done)}, "manifests"},
		{"lost manifest of a tag", []Operation{put(0, 1, "a", "x", "", Done), manifest(2, 3, ManifestGet, "x", "", Done)}, "manifests"},
		{"deleted manifest is served", []Operation{manifest(0, 1, ManifestPut, "x", "", Done), manifest(2, 3, ManifestDelete, "x", "", Done), manifest(4, 5, ManifestGet, "x", "x", Done)}, "manifests"},
		{"a stale manifest that says so", []Operation{manifest(0, 1, ManifestPut, "x", "", Done), manifest(2, 3, ManifestDelete, "x", "", Done),
			func() Operation { o := manifest(4, 5, ManifestGet, "x", "x", Done); o.Stale = true; return o }()}, ""},
		{"deleted twice", []Operation{manifest(0, 1, ManifestPut, "x", "", Done), manifest(2, 3, ManifestDelete, "x", "", Done), manifest(4, 5, ManifestDelete, "x", "", Done)}, "manifests"},
		{"missing manifest that was there", []Operation{manifest(0, 1, ManifestPut, "x", "", Done), missing(manifest(2, 3, ManifestDelete, "x", "", ""))}, "manifests"},
		{"refused manifest is served", []Operation{manifest(0, 1, ManifestPut, "x", "", Refused), manifest(2, 3, ManifestGet, "x", "x", Done)}, "manifests"},
		{"unknown deletion of a manifest", []Operation{manifest(0, 1, ManifestPut, "x", "", Done), manifest(2, 3, ManifestDelete, "x", "", Unknown), manifest(4, 5, ManifestGet, "x", "x", Done), manifest(6, 7, ManifestGet, "x", "", Done)}, ""},
		{"unknown deletion came and went", []Operation{manifest(0, 1, ManifestPut, "x", "", Done), manifest(2, 3, ManifestDelete, "x", "", Unknown), manifest(4, 5, ManifestGet, "x", "", Done), manifest(6, 7, ManifestGet, "x", "x", Done)}, "manifests"},
		{"a deleted manifest takes its tags", []Operation{put(0, 1, "a", "x", "", Done), manifest(2, 3, ManifestDelete, "x", "", Done), get(4, 5, "a", "")}, ""},
		{"a deleted manifest leaves its tag", []Operation{put(0, 1, "a", "x", "", Done), manifest(2, 3, ManifestDelete, "x", "", Done), get(4, 5, "a", "x")}, "tags manifests"},
		{"a deleted manifest takes another's tag", []Operation{put(0, 1, "a", "y", "", Done), manifest(0, 1, ManifestPut, "x", "", Done), manifest(2, 3, ManifestDelete, "x", "", Done), get(4, 5, "a", "")}, "tags"},
		{"missing manifest that a tag names", []Operation{put(0, 1, "a", "x", "", Done), missing(manifest(2, 3, ManifestDelete, "x", "", ""))}, "tags manifests"},
		{"a manifest that is in use", []Operation{manifest(0, 1, ManifestPut, "x", "", Done),
			func() Operation { o := manifest(2, 3, ManifestDelete, "x", "", Refused); o.Status = 405; return o }(), manifest(4, 5, ManifestGet, "x", "x", Done)}, ""},

		{"lock", []Operation{lock(0, 1, LockAcquire, 5, Done), guard(2, 3, 5, "v", Done), lock(4, 5, LockRelease, 5, Done),
			lock(6, 7, LockAcquire, 9, Done), guard(8, 9, 5, "w", Done), guarded(10, 11, 5, "w"), guard(12, 13, 9, "z", Done), guard(14, 15, 5, "w", Refused), guarded(16, 17, 9, "z")}, ""},
		{"two holders", []Operation{lock(0, 1, LockAcquire, 5, Done), lock(2, 3, LockAcquire, 6, Done)}, "locks"},
		{"lock that may have expired", []Operation{lock(0, 1, LockAcquire, 5, Done), lock(2, 1001, LockAcquire, 6, Done)}, ""},
		{"lock that has expired but for what clocks may differ", []Operation{lock(0, 1, LockAcquire, 5, Done), lock(2, 960, LockAcquire, 6, Done)}, ""},
		{"lock that has not expired, whatever clocks differ", []Operation{lock(0, 1, LockAcquire, 5, Done), lock(2, 940, LockAcquire, 6, Done)}, "locks"},
		{"force of what nobody holds", []Operation{lock(0, 1, LockRelease, 0, Done)}, "locks"},
		{"renewal after the release", []Operation{lock(0, 1, LockAcquire, 5, Done), lock(2, 3, LockRelease, 5, Done), lock(4, 5, LockRenew, 5, Done)}, "locks"},
		{"renewed lock has not expired", []Operation{lock(0, 1, LockAcquire, 5, Done), lock(800, 801, LockRenew, 5, Done), lock(900, 1100, LockAcquire, 6, Done)}, "locks"},
		{"token used again", []Operation{lock(0, 1, LockAcquire, 5, Done), lock(2, 3, LockRelease, 5, Done), lock(4, 5, LockAcquire, 5, Done)}, "locks"},
		{"token goes back", []Operation{lock(0, 1, LockAcquire, 5, Done), lock(2, 3, LockRelease, 5, Done), lock(4, 5, LockAcquire, 4, Done)}, "locks"},
		{"unknown grant excludes", []Operation{lock(0, 1, LockAcquire, 0, Unknown), lock(2, 3, LockAcquire, 0, Refused)}, ""},
		{"refused although free", []Operation{lock(0, 1, LockAcquire, 0, Refused)}, "locks"},
		{"refused although released", []Operation{lock(0, 1, LockAcquire, 5, Done), lock(2, 3, LockRelease, 5, Done), lock(4, 5, LockAcquire, 0, Refused)}, "locks"},
		{"refused while it is released", []Operation{lock(0, 1, LockAcquire, 5, Done), lock(2, 9, LockRelease, 5, Done), lock(4, 5, LockAcquire, 0, Refused)}, ""},
		{"unknown release frees", []Operation{lock(0, 1, LockAcquire, 5, Done), lock(2, 3, LockRelease, 5, Unknown), lock(4, 5, LockAcquire, 6, Done)}, ""},
		{"unknown release of another's token", []Operation{lock(0, 1, LockAcquire, 5, Done), lock(2, 3, LockRelease, 4, Unknown), lock(4, 5, LockAcquire, 6, Done)}, "locks"},
		{"force frees", []Operation{lock(0, 1, LockAcquire, 5, Done), lock(2, 3, LockRelease, 0, Done), lock(4, 5, LockAcquire, 6, Done)}, ""},
		{"release by another", []Operation{lock(0, 1, LockAcquire, 5, Done), lock(2, 3, LockRelease, 4, Done)}, "locks"},
		{"holder is refused", []Operation{lock(0, 1, LockAcquire, 5, Done), lock(2, 3, LockRenew, 5, Refused)}, "locks"},
		{"holder is refused, perhaps late", []Operation{lock(0, 1, LockAcquire, 5, Done), lock(900, 1001, LockRenew, 5, Refused)}, ""},
		{"release by the holder is refused", []Operation{lock(0, 1, LockAcquire, 5, Done), lock(2, 3, LockRelease, 5, Refused)}, "locks"},
		{"release is refused, perhaps late", []Operation{lock(0, 1, LockAcquire, 5, Done), lock(900, 1001, LockRelease, 5, Refused)}, ""},
		{"renewal by another", []Operation{lock(0, 1, LockAcquire, 5, Done), lock(2, 3, LockRenew, 4, Done)}, "locks"},
		{"unknown renewal", []Operation{lock(0, 1, LockAcquire, 5, Done), lock(2, 3, LockRenew, 5, Unknown), lock(4, 5, LockRelease, 5, Done)}, ""},
		{"register takes a lower token", []Operation{lock(0, 1, LockAcquire, 5, Done), guard(2, 3, 5, "v", Done), lock(4, 5, LockRelease, 5, Done),
			lock(6, 7, LockAcquire, 9, Done), guard(8, 9, 9, "z", Done), guard(10, 11, 5, "w", Done)}, "locks"},
		{"register refuses the highest token", []Operation{lock(0, 1, LockAcquire, 5, Done), guard(2, 3, 5, "v", Done), guard(4, 5, 5, "w", Refused)}, "locks"},
		{"register refuses the highest token after its lock was released", []Operation{lock(0, 1, LockAcquire, 5, Done), guard(2, 3, 5, "v", Done), lock(4, 5, LockRelease, 5, Done), guard(6, 7, 5, "w", Refused)}, "locks"},
		{"register takes a token that nobody got", []Operation{lock(0, 1, LockAcquire, 5, Done), guard(2, 3, 7, "v", Done)}, "locks"},
		{"register forgets", []Operation{lock(0, 1, LockAcquire, 5, Done), guard(2, 3, 5, "v", Done), guarded(4, 5, 0, "")}, "locks"},
		{"register is read under another token", []Operation{lock(0, 1, LockAcquire, 5, Done), guard(2, 3, 5, "v", Done), guarded(4, 5, 4, "v")}, "locks"},
		{"register is read as another value", []Operation{lock(0, 1, LockAcquire, 5, Done), guard(2, 3, 5, "v", Done), guarded(4, 5, 5, "w")}, "locks"},
		{"register, unknown write", []Operation{lock(0, 1, LockAcquire, 5, Done), guard(2, 3, 5, "v", Unknown), guarded(4, 5, 5, "v")}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			j := CheckLinear(c.ops, 10*time.Second)
			var bad []string
			for _, p := range j.Bad {
				if p.Decision != NotLinear {
					t.Errorf("%s: %s", p.Name, p.Decision)
				}
				bad = append(bad, p.Model)
			}
			if got := strings.Join(slices.Compact(bad), " "); got != c.bad {
				t.Errorf("objects: %q, want %q: %v", got, c.bad, j.Violations())
			}
			judged := 0
			for _, n := range j.Models {
				judged += n.Operations
			}
			if judged == 0 && len(c.ops) > 1 {
				t.Error("nothing was judged")
			}
		})
	}
}

// TestJudgementsOfPartsAreJoined: what one part of a run has against it stands, whatever the others say.
func TestJudgementsOfPartsAreJoined(t *testing.T) {
	fine := []Operation{put(0, 1, "a", "x", "", Done), get(2, 3, "a", "x")}
	bad := []Operation{put(0, 1, "a", "x", "", Done), get(2, 3, "a", "")}
	j := NewJudgement()
	for _, ops := range [][]Operation{fine, bad, fine} {
		j.Join(CheckLinear(ops, 10*time.Second))
	}
	undecided := CheckLinear(hard(60), 20*time.Millisecond)
	j.Join(undecided)
	if len(j.Violations()) != 1 || undecided.Undecided() < 1 || j.Undecided() != undecided.Undecided() {
		t.Errorf("%d violations, %d undecided", len(j.Violations()), j.Undecided())
	}
	if n := j.Models["tags"]; n != (Count{4, 6 + len(hard(60))}) || j.Took < 20*time.Millisecond {
		t.Errorf("judged %v in %v", j.Models, j.Took)
	}
}

// hard makes a history that no search decides quickly: many writes at once, none of which explains the reads. Its tags are the
// first partition; on a busy machine those of its manifests, which are simple, may not be decided in a short time either.
func hard(n int) []Operation {
	var ops []Operation
	for i := range n {
		ops = append(ops, put(0, 1000, "a", fmt.Sprint("x", i), "", Done), get(0, 1000, "a", fmt.Sprint("x", i)))
	}
	return append(ops, get(1001, 1002, "a", "x0"), get(1003, 1004, "a", "x1"))
}

func TestATimeOutIsNoPass(t *testing.T) {
	j := CheckLinear(hard(60), 20*time.Millisecond)
	if j.Undecided() < 1 || len(j.Violations()) != 0 || j.Bad[0].Model != "tags" {
		t.Fatalf("undecided %d, violations %v", j.Undecided(), j.Violations())
	}
	if took := j.Bad[0].Took; took < 20*time.Millisecond {
		t.Errorf("gave up after %v, its time was 20 ms", took)
	}
	// Nor is a piece of a partition that no time was left for.
	p := partitions([]Operation{put(0, 1, "a", "x", "", Done), get(2, 3, "a", "x")})[0]
	pieces := p.segments(p.settle(p.ops), all)
	if _, decision := search(pieces, 0); decision != Undecided {
		t.Errorf("without time: %s", decision)
	}
}

func TestAViolationNamesWhatFitsNowhere(t *testing.T) {
	j := CheckLinear([]Operation{put(0, 1, "a", "x", "", Done), put(2, 3, "a", "y", "", Done), get(4, 5, "a", "x")}, time.Second)
	v := j.Violations()
	if len(v) != 1 || v[0].Rule != "linearizable tags" || v[0].Where != "r:a" {
		t.Fatalf("got %v", v)
	}
	if !strings.Contains(v[0].Evidence[0], "fits nowhere: 0.0040s to 0.0050s client 0 tag-get r a: done 200 x") || len(v[0].Evidence) != 3 {
		t.Errorf("evidence %q", v[0].Evidence)
	}
	if page := j.Bad[0].Visualization; !bytes.Contains(page, []byte("<html")) || !bytes.Contains(page, []byte("tag-get")) {
		t.Error("there is no page to look at")
	}
}

// TestALongPartitionIsCutWhereNothingIsInDoubt: a long history is searched in pieces, and the pieces know what was before.
func TestALongPartitionIsCutWhereNothingIsInDoubt(t *testing.T) {
	var ops []Operation
	for i := range 500 {
		at := 10 + 10*i
		// The first read began before the write that it saw: there is no cut between them.
		ops = append(ops, get(at, at+5, "a", fmt.Sprint("x", i)), put(at+1, at+3, "a", fmt.Sprint("x", i), "", Done), get(at+6, at+7, "a", fmt.Sprint("x", i)))
	}
	ops = append(ops, get(0, 1, "a", ""), get(2, 3, "a", "")) // so that the first read of a round is one where a cut is due
	parts := partitions(ops)
	if n := len(parts[0].segments(parts[0].settle(parts[0].ops), all)); n < 5 {
		t.Errorf("%d segments of %d operations", n, len(ops))
	}
	if j := CheckLinear(ops, 10*time.Second); len(j.Bad) != 0 {
		t.Errorf("a good history: %v", j.Violations())
	}
	// Each read of a piece's begin is answered by what was before the piece.
	for i := range 500 {
		if i%100 != 1 {
			continue
		}
		bad := slices.Clone(ops)
		bad[3*i].Output, bad[3*i+2].Output = fmt.Sprint("x", i-1), fmt.Sprint("x", i-1)
		if j := CheckLinear(bad, 10*time.Second); !slices.ContainsFunc(j.Bad, func(p Partition) bool { return p.Model == "tags" && p.Decision == NotLinear }) {
			t.Errorf("a stale read in round %d is not found", i)
		}
	}
	open := append(slices.Clone(ops), untag(5, 6, "a", "", Unknown))
	if parts := partitions(open); len(parts[0].segments(parts[0].settle(parts[0].ops), all)) != 1 {
		t.Error("cut although a deletion may come at any time")
	}
}

// TestAPieceKnowsWhatWasBefore: a piece begins with what the one before it left, which is not nothing.
func TestAPieceKnowsWhatWasBefore(t *testing.T) {
	for model, kinds := range map[string][2]func(at int) Operation{
		"tags": {
			func(at int) Operation { return put(at, at+1, "a", "x", "", Done) },
			func(at int) Operation { return get(at, at+1, "a", "x") },
		},
		"manifests": {
			func(at int) Operation { return manifest(at, at+1, ManifestPut, "x", "", Done) },
			func(at int) Operation { return manifest(at, at+1, ManifestGet, "x", "x", Done) },
		},
	} {
		ops := []Operation{kinds[0](0)}
		for i := range longPartition {
			ops = append(ops, kinds[1](2+2*i))
		}
		p := partitions(ops)[0]
		if n := len(p.segments(p.settle(p.ops), all)); n < 2 {
			t.Errorf("%s: not cut", model)
		}
		if j := CheckLinear(ops, 10*time.Second); len(j.Bad) != 0 {
			t.Errorf("%s: a good history: %v", model, j.Violations())
		}
		ops[longPartition*3/4].Output = ""
		if j := CheckLinear(ops, 10*time.Second); len(j.Bad) == 0 || j.Bad[0].Model != model || j.Bad[0].Decision != NotLinear {
			t.Errorf("%s: what was there before the cut is not there behind it: %v", model, j.Bad)
		}
	}
}
