package check

import (
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"
)

const ms = time.Millisecond

// one is a request of a second's tenth that ends at a time.
func one(class string, end time.Duration, outcome Outcome) Sample {
	return Sample{Class: class, Outcome: outcome, Writes: class == WriteTag, Call: end - 100*ms, Return: end}
}

func TestAvailabilityIsToldByWindowAndClass(t *testing.T) {
	var samples []Sample
	for i := 1; i <= 100; i++ { // one every second; those of 11 to 14 s fail
		outcome := Done
		if i > 10 && i < 15 {
			outcome = Unknown
		}
		s := one(PullByTag, time.Duration(i)*second, outcome)
		if i == 90 {
			s.Call -= second // a slow one
		}
		samples = append(samples, s)
	}
	refusal := one(PullByTag, 50*second, Refused)
	refusal.Status = 429
	denied := one(WriteTag, 50*second, Refused)
	denied.Status = 412
	astride := Sample{Class: List, Outcome: Done, Call: 10400 * ms, Return: 10600 * ms} // of the begin of the first fault
	samples = append(samples, refusal, denied, astride)
	faults := []Fault{
		{"kill", "n1", 10500 * ms, 14500 * ms},
		{"pause", "n2", 13 * second, 13 * second},
		{"kill", "n1", 14200 * ms, 14600 * ms}, // overlaps the first
		{"silence", "n3", 99500 * ms, 110 * second},
	}
	got := map[string]Row{}
	for _, r := range Availability(samples, faults) {
		got[r.Window+" "+r.Class] = r
	}
	want := map[string]Row{
		All + " " + PullByTag:  {All, PullByTag, 101, 5, 5 * second, 100 * ms, 100 * ms},
		All + " " + WriteTag:   {All, WriteTag, 1, 0, 100 * second, 100 * ms, 100 * ms},
		Calm + " " + PullByTag: {Calm, PullByTag, 96, 1, 1 * second, 100 * ms, 100 * ms},
		Calm + " " + WriteTag:  {Calm, WriteTag, 1, 0, 84900 * ms, 100 * ms, 100 * ms},
		All + " " + List:       {All, List, 1, 0, 89400 * ms, 200 * ms, 200 * ms},
		"kill " + List:         {"kill", List, 1, 0, 4 * second, 200 * ms, 200 * ms},
		"kill " + PullByTag:    {"kill", PullByTag, 4, 4, 4500 * ms, 0, 0},
		"pause " + PullByTag:   {"pause", PullByTag, 1, 1, 0, 0, 0},
		"silence " + PullByTag: {"silence", PullByTag, 1, 0, 10 * second, 100 * ms, 100 * ms},
	}
	for name, row := range want {
		if name == All+" "+PullByTag {
			row.P99 = got[name].P99 // 96 answers: the slow one is the highest rank
			if row.P99 != 1100*ms {
				t.Errorf("p99 of 96 answers is %v", row.P99)
			}
		}
		if name == Calm+" "+PullByTag {
			row.P99 = 1100 * ms
		}
		if got[name] != row {
			t.Errorf("%s:\n got %+v\nwant %+v", name, got[name], row)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d rows, want %d", len(got), len(want))
	}
}

func TestWriteGapsAreThoseAroundTheFaults(t *testing.T) {
	var samples []Sample
	for at := 100 * ms; at < 100*second; at += 100 * ms {
		switch {
		case at > 10*second && at < 11500*ms: // after the first kill
		case at > 40*second && at < 43*second: // after the second
		case at > 70*second && at < 80*second: // something else
		default:
			samples = append(samples, one(WriteTag, at, Done), one(PullByTag, at, Done))
		}
	}
	for at := 100 * ms; at < 100*second; at += 100 * ms {
		samples = append(samples, one(PullByTag, at, Done), one(WriteTag, at, Unknown))
	}
	faults := []Fault{{"kill leader", "n1", 10050 * ms, 12 * second}, {"kill leader", "n2", 40050 * ms, 50 * second}, {"hang", "n1", 70 * second, 80 * second}}
	kill := func(f Fault) bool { return f.Name == "kill leader" }
	// The second kill's horizon ends at 70.05 s, when the longer pause has begun: it is not the kill's.
	faults[1].From = 39500 * ms
	got := WriteGaps(samples, faults, kill)
	if want := (Gaps{2, 1500 * ms, 3 * second, 3 * second}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := WriteGaps(nil, faults, kill); got.Longest != gapHorizon {
		t.Errorf("without any write: %+v", got)
	}
	few := []Sample{one(WriteTag, 39*second, Done), one(WriteTag, 40*second, Done), one(PullByTag, 40500*ms, Done)}
	if got, want := WriteGaps(few, faults[1:], kill), (Gaps{1, second, second, second}); got != want {
		t.Errorf("the traffic ended soon after a kill: %+v, want %+v", got, want)
	}
	if got := WriteGaps(samples, nil, kill); !reflect.DeepEqual(got, Gaps{}) {
		t.Errorf("without any fault: %+v", got)
	}
}

func TestTheVerdictIsOneLine(t *testing.T) {
	judged := &Judgement{Models: map[string]Count{"tags": {1, 10}}}
	undecided := &Judgement{Models: map[string]Count{"tags": {1, 10}}, Bad: []Partition{{Decision: Undecided}}}
	illegal := &Judgement{Models: map[string]Count{"tags": {1, 10}}, Bad: []Partition{{Decision: NotLinear}, {Decision: Undecided}}}
	for _, c := range []struct {
		change func(*Outcomes)
		want   string
	}{
		{func(*Outcomes) {}, "verdict: PASS seed=7 operations=500 (50/s) faults=1 violations=0"},
		{func(o *Outcomes) { o.Samples = o.Samples[:499] }, `verdict: VOID seed=7 operations=499 (50/s) faults=1 violations=0 void="fewer than 50 operations a second"`},
		{func(o *Outcomes) { o.Void = []string{"it did not end"} },
			`verdict: VOID seed=7 operations=500 (50/s) faults=1 violations=0 void="it did not end"`},
		{func(o *Outcomes) { o.Took, o.Short = time.Minute, true }, "verdict: PASS seed=7 operations=500 (8/s) faults=1 violations=0"},
		{func(o *Outcomes) { o.Samples = nil },
			`verdict: VOID seed=7 operations=0 (0/s) faults=1 violations=0 void="no operations"`},
		{func(o *Outcomes) { o.Findings = append(o.Findings, Finding{Rule: "I9"}, Finding{Rule: "I10"}) },
			`verdict: PASS seed=7 operations=500 (50/s) faults=1 violations=0 unobserved="I9, I10"`},
		{func(o *Outcomes) {
			o.Findings = append(o.Findings, Finding{Rule: "I9"})
			o.Required = append(o.Required, "I9")
		},
			`verdict: VOID seed=7 operations=500 (50/s) faults=1 violations=0 void="I9 had nothing to judge"`},
		{func(o *Outcomes) { o.Took = 0 }, `verdict: VOID seed=7 operations=500 (0/s) faults=1 violations=0 void="fewer than 50 operations a second"`},
		{func(o *Outcomes) { o.Judgement = undecided }, `verdict: VOID seed=7 operations=500 (50/s) faults=1 violations=0 void="1 partitions of the history are not decided"`},
		{func(o *Outcomes) { o.Judgement = nil }, `verdict: VOID seed=7 operations=500 (50/s) faults=1 violations=0 void="tags had nothing to judge"`},
		{func(o *Outcomes) { o.Findings[0].Judged = 0 }, `verdict: VOID seed=7 operations=500 (50/s) faults=1 violations=0 void="I5 had nothing to judge"`},
		{func(o *Outcomes) { o.History = errors.New("disk full") }, `verdict: VOID seed=7 operations=500 (50/s) faults=1 violations=0 void="history: disk full"`},
		{func(o *Outcomes) { o.Judgement = illegal }, `verdict: FAIL seed=7 operations=500 (50/s) faults=1 violations=1 void="1 partitions of the history are not decided"`},
		{func(o *Outcomes) { o.Findings[0].Broken = 3 }, "verdict: FAIL seed=7 operations=500 (50/s) faults=1 violations=3"},
		{func(o *Outcomes) { o.Others = []Violation{{Rule: "panic"}} }, "verdict: FAIL seed=7 operations=500 (50/s) faults=1 violations=1"},
	} {
		o := &Outcomes{Run: Run{Seed: 7}, Took: 10 * time.Second, Samples: make([]Sample, 500), Faults: make([]Fault, 1), Judgement: judged,
			Findings: []Finding{{Rule: "I5", Judged: 1}}, Required: []string{"tags", "I5"}}
		c.change(o)
		if got := fmt.Sprint(o.Verdict()); got != c.want {
			t.Errorf("\n got %s\nwant %s", got, c.want)
		}
		if listed := len(o.Violations()); o.Verdict().Violations == 1 && listed != 1 {
			t.Errorf("%d violations are listed", listed)
		}
		if o.Verdict().Passed() != (o.Verdict().Word() == "PASS") {
			t.Error("the exit code is not the word's")
		}
	}
}

// TestAShortRunNeedsRequestsAndNoRate: what a change is tried with is over before its rate means anything.
func TestAShortRunNeedsRequestsAndNoRate(t *testing.T) {
	v := Verdict{Operations: 1, Took: time.Minute, Short: true}
	if got := v.String(); got != "verdict: PASS seed=0 operations=1 (0/s) faults=0 violations=0" {
		t.Error(got)
	}
	for _, void := range []Verdict{{Took: time.Minute, Short: true}, {Operations: 1, Took: time.Minute}, {Operations: 1, Short: true, Void: []string{"x"}}} {
		if void.Word() != "VOID" {
			t.Errorf("%+v: %s", void, void)
		}
	}
}
