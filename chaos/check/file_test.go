package check

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// historyOf judges a run again from its file: go test ./chaos/check -run TestARunIsJudgedFromItsFile -history FILE [-report PAGE]
var historyOf = flag.String("history", "", "judge the history in this file")

// judgeFile is what a file alone can tell; the observations of nodes and bucket are not in it.
func judgeFile(name string, perPartition time.Duration) (*Outcomes, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	log, err := Read(f)
	if err != nil {
		return nil, err
	}
	o := &Outcomes{Run: log.Run, Faults: log.Faults, Samples: SamplesOf(log.Operations), Judgement: CheckLinear(log.Operations, perPartition),
		Findings: CheckInvariants(&Facts{Operations: log.Operations}), Notes: []string{"judged from " + filepath.Base(name)}}
	for _, s := range o.Samples {
		o.Took = max(o.Took, s.Return)
	}
	if log.Torn {
		o.Notes = append(o.Notes, "the file ends in the middle of a line: the recorder was killed")
	}
	return o, nil
}

func TestARunIsJudgedFromItsFile(t *testing.T) {
	name := *historyOf
	if name == "" {
		name = writeHistory(t, toyHistory(1, 100, ""))
	}
	o, err := judgeFile(name, 30*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(o.Verdict(), o.Judgement.Models)
	for _, v := range o.Violations() {
		t.Errorf("%v\n%s", v, strings.Join(v.Evidence, "\n"))
	}
	if *historyOf == "" || *reportTo == "" {
		return
	}
	page, err := os.Create(*reportTo)
	if err != nil {
		t.Fatal(err)
	}
	defer page.Close()
	if err := o.WriteReport(page); err != nil {
		t.Fatal(err)
	}
}

func TestABadRunIsJudgedFromItsFile(t *testing.T) {
	o, err := judgeFile(writeHistory(t, toyHistory(1, 100, "stale read")), 30*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if v := o.Verdict(); v.Word() != "FAIL" || v.Seed != 1 {
		t.Errorf("%v", v)
	}
}

func writeHistory(t *testing.T, ops []Operation) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "history.jsonl")
	if err := os.WriteFile(name, fileOf(t, ops), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}
