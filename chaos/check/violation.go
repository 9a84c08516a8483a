package check

import "fmt"

// Violation is a broken rule with what shows it.
type Violation struct {
	Rule string // of the list in invariants.go, or "linearizable …"
	// Where is what it is about: a repository, a node, an index.
	Where    string
	Text     string
	Evidence []string
}

func (v Violation) String() string { return v.Rule + " " + v.Where + ": " + v.Text }

// maxViolations bounds what is kept of one rule: the first ones tell what is wrong.
const maxViolations = 100

// Finding is what came of one rule.
type Finding struct {
	Rule, Text string
	// Judged counts what was compared. A rule that judged nothing says nothing.
	Judged     int
	Violations []Violation
	// Broken counts all violations, the kept and the others.
	Broken int
}

// broken notes a violation.
func (f *Finding) broken(where, format string, args ...any) {
	f.note(Violation{Rule: f.Rule, Where: where, Text: fmt.Sprintf(format, args...)})
}

// brokenBy notes a violation that operations show.
func (f *Finding) brokenBy(where, text string, ops ...*Operation) {
	v := Violation{Rule: f.Rule, Where: where, Text: text}
	for _, o := range ops {
		v.Evidence = append(v.Evidence, o.String())
	}
	f.note(v)
}

func (f *Finding) note(v Violation) {
	f.Broken++
	if len(f.Violations) < maxViolations {
		f.Violations = append(f.Violations, v)
	}
}

// JoinFindings adds findings of other parts of a run, rule by rule.
func JoinFindings(all, more []Finding) []Finding {
	for _, m := range more {
		known := false
		for i := range all {
			if all[i].Rule == m.Rule {
				all[i].join(m)
				known = true
			}
		}
		if !known {
			all = append(all, m)
		}
	}
	return all
}

func (f *Finding) join(m Finding) {
	f.Judged += m.Judged
	f.Broken += m.Broken
	room := maxViolations - len(f.Violations)
	f.Violations = append(f.Violations, m.Violations[:min(room, len(m.Violations))]...)
}
