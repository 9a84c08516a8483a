package check

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// MinRate is how many requests a second a run needs: one with less tries nothing.
const MinRate = 50

// Verdict is what came of a run, in one line.
type Verdict struct {
	Seed       uint64
	Operations int
	Took       time.Duration
	Faults     int
	Violations int
	// Short is a run that need not have a rate, only requests.
	Short bool
	// Unobserved are the rules that had nothing to judge, though none of them is required: the run says nothing of them.
	Unobserved []string
	// Void are the reasons why the run proves nothing, apart from its rate.
	Void []string
}

// Word is PASS, FAIL or VOID. A violation that was seen stands, whatever else the run lacked.
func (v Verdict) Word() string {
	switch {
	case v.Violations > 0:
		return "FAIL"
	case len(v.reasons()) > 0:
		return "VOID"
	}
	return "PASS"
}

// Passed tells what the exit code shall be.
func (v Verdict) Passed() bool { return v.Word() == "PASS" }

func (v Verdict) rate() float64 {
	if v.Took <= 0 {
		return 0
	}
	return float64(v.Operations) / v.Took.Seconds()
}

func (v Verdict) reasons() []string {
	out := slices.Clone(v.Void)
	switch {
	case v.Operations == 0:
		out = append(out, "no operations")
	case !v.Short && v.rate() < MinRate:
		out = append(out, fmt.Sprintf("fewer than %d operations a second", MinRate))
	}
	return out
}

// String is the last line of a run; what it says nothing of, and what makes it void, stand at its end.
func (v Verdict) String() string {
	line := fmt.Sprintf("verdict: %s seed=%d operations=%d (%.0f/s) faults=%d violations=%d",
		v.Word(), v.Seed, v.Operations, v.rate(), v.Faults, v.Violations)
	if len(v.Unobserved) > 0 {
		line += fmt.Sprintf(" unobserved=%q", strings.Join(v.Unobserved, ", "))
	}
	if reasons := v.reasons(); len(reasons) > 0 {
		line += fmt.Sprintf(" void=%q", strings.Join(reasons, "; "))
	}
	return line
}

// Outcomes is all that is known of a run when it is over: what the verdict and the report are made of.
type Outcomes struct {
	Run Run
	// Took is how long clients were at work.
	Took      time.Duration
	Samples   []Sample
	Faults    []Fault
	Judgement *Judgement
	Findings  []Finding
	// Others are violations that the suite found itself.
	Others []Violation
	// Required are the rules and models that must have judged something.
	Required []string
	// History is the error of the recorder.
	History error
	// Short is a run that need not have a rate; Void are reasons of the suite's own why the run proves nothing.
	Short bool
	Void  []string
	// Notes are lines for the reader: the binary, the command, what is missing.
	Notes []string
}

// Violations are all that were found.
func (o *Outcomes) Violations() []Violation {
	out := slices.Clone(o.Others)
	if o.Judgement != nil {
		out = append(out, o.Judgement.Violations()...)
	}
	for _, f := range o.Findings {
		out = append(out, f.Violations...)
	}
	return out
}

// Verdict decides. What is undecided, was not judged although it is required, or was not recorded makes a run void.
func (o *Outcomes) Verdict() Verdict {
	v := Verdict{Seed: o.Run.Seed, Operations: len(o.Samples), Took: o.Took, Faults: len(o.Faults), Violations: len(o.Others),
		Short: o.Short, Void: slices.Clone(o.Void)}
	judged := map[string]int{}
	if o.Judgement != nil {
		v.Violations += len(o.Judgement.Violations())
		if n := o.Judgement.Undecided(); n > 0 {
			v.Void = append(v.Void, fmt.Sprintf("%d partitions of the history are not decided", n))
		}
		for model, n := range o.Judgement.Models {
			judged[model] = n.Operations
		}
	}
	for _, f := range o.Findings {
		v.Violations += f.Broken
		judged[f.Rule] = f.Judged
		if f.Judged == 0 && f.Broken == 0 && !slices.Contains(o.Required, f.Rule) {
			v.Unobserved = append(v.Unobserved, f.Rule)
		}
	}
	for _, rule := range o.Required {
		if judged[rule] == 0 {
			v.Void = append(v.Void, rule+" had nothing to judge")
		}
	}
	if o.History != nil {
		v.Void = append(v.Void, "history: "+o.History.Error())
	}
	return v
}
