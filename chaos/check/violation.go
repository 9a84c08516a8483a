package check

// Violation is a broken rule with what shows it.
type Violation struct {
	Rule string // of consensus.md, section 9 (I1 to I13), or "linearizable …"
	// Where is what it is about: a repository, a node, an index.
	Where    string
	Text     string
	Evidence []string
}

func (v Violation) String() string { return v.Rule + " " + v.Where + ": " + v.Text }
