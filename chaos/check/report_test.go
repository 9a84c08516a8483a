package check

import (
	"bytes"
	"errors"
	"flag"
	"html"
	"math/rand/v2"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
)

// reportTo keeps the report of the test below, to be looked at.
var reportTo = flag.String("report", "", "write the example report here")

// example is a run with faults, a violation of every sort, and names that a page must not take for its own.
func example(requests int) *Outcomes {
	rng := rand.New(rand.NewPCG(1, 1))
	classes := []string{PullByDigest, PullByTag, PutManifest, WriteTag, UploadBlob, Delete, List, Lock}
	o := &Outcomes{Run: Run{Seed: 42, Began: time.Unix(1_800_000_000, 0)}, Took: 5 * time.Minute, Notes: []string{"a note <b>"}}
	for range requests {
		call := time.Duration(rng.Int64N(int64(o.Took)))
		s := Sample{Class: classes[rng.IntN(len(classes))], Outcome: Done, Writes: rng.IntN(2) == 0, Call: call}
		s.Return = call + time.Duration(rng.ExpFloat64()*float64(20*time.Millisecond))
		if (call/time.Second)%30 < 3 {
			s.Return += time.Duration(rng.Int64N(int64(2 * time.Second)))
			if rng.IntN(3) == 0 {
				s.Outcome = Unknown
			}
		}
		o.Samples = append(o.Samples, s)
	}
	for i := range 10 {
		at := time.Duration(30*i) * time.Second
		o.Faults = append(o.Faults, Fault{[]string{"kill leader", "s3 503"}[i%2], "node<1>", at, at + 3*time.Second})
	}
	nowhere := get(0, 1, "b", "x</script>")
	nowhere.Repo = "q\"'<i>"
	o.Judgement = CheckLinear(hard(60), 20*time.Millisecond)
	o.Judgement.Bad = o.Judgement.Bad[:1] // its tags
	o.Judgement.Join(CheckLinear([]Operation{nowhere}, 10*time.Second))
	unseen := *good()
	unseen.Effects = nil
	o.Findings = CheckInvariants(&unseen)
	o.Findings[0].broken("r@x", "a node <b> misses it")
	o.Others = []Violation{{Rule: "panic", Where: "node1", Text: "it <em>panicked</em>", Evidence: []string{"goroutine 1 <running>"}}}
	return o
}

func TestTheReportStandsByItselfAndTellsAll(t *testing.T) {
	var page bytes.Buffer
	run := example(20_000)
	if err := run.WriteReport(&page); err != nil {
		t.Fatal(err)
	}
	if *reportTo != "" {
		if err := os.WriteFile(*reportTo, page.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	text := page.String()
	for _, want := range []string{
		"verdict: FAIL seed=42 operations=20000 (67/s) faults=10 violations=4", "2027-01-15 08:00:00 UTC",
		"a note &lt;b&gt;", "a node &lt;b&gt; misses it", "it &lt;em&gt;panicked&lt;/em&gt;", "goroutine 1 &lt;running&gt;",
		"not decided", "r:a", "kill leader node&lt;1&gt;: 0s to 3s", "s3 503", Calm, PullByDigest, `<path d="M`,
		`<td>I9 requests</td><td>each request has one effect</td><td class="n">not observed</td><td class="n"></td>`, "Pauses of writes", "linearizable tags", "Histories that are not linearizable", "srcdoc=", "fits nowhere",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the report does not say %q", want)
		}
	}
	for _, c := range regexp.MustCompile(`(?i)(src|href)="?(https?:|//)|@import|url\(|ZgotmplZ|<i>|<em>`).FindAllString(text, -1) {
		t.Errorf("the report has %q", c)
	}
	frame := regexp.MustCompile(`srcdoc="([^"]*)"`).FindStringSubmatch(text)
	if got, want := html.UnescapeString(frame[1]), string(run.Judgement.Bad[1].Visualization); got != want {
		t.Errorf("the frame holds %.200q, want %.200q", got, want)
	}
	if strings.Count(text, "<iframe") != 2 || strings.Count(text, "</script>") != 0 {
		t.Errorf("%d frames, %d scripts outside of them", strings.Count(text, "<iframe"), strings.Count(text, "</script>"))
	}
}

func TestFailuresAreDrawnApart(t *testing.T) {
	c := draw([]Sample{{Class: Lock, Outcome: Done, Return: ms}, {Class: Lock, Outcome: Unknown, Call: 500 * ms, Return: second}}, nil)
	if p := c.Panels[0]; p.Good == "" || p.Failed == "" || p.Good == p.Failed || strings.Count(p.Good, "M") != 1 || strings.Count(p.Failed, "M") != 1 {
		t.Errorf("drawn %+v", p)
	}
}

// TestALongRunMakesAReportThatABrowserOpens: points that fall together are drawn once.
func TestALongRunMakesAReportThatABrowserOpens(t *testing.T) {
	var page bytes.Buffer
	if err := example(200_000).WriteReport(&page); err != nil {
		t.Fatal(err)
	}
	if page.Len() > 3<<20 {
		t.Errorf("the report has %d bytes", page.Len())
	}
}

// TestTheReportSaysWhatTheLastLineSays, also where the reason is the suite's own.
func TestTheReportSaysWhatTheLastLineSays(t *testing.T) {
	o := &Outcomes{Took: time.Second, Samples: make([]Sample, 10), Short: true, Void: []string{"it did not end"}}
	var page bytes.Buffer
	if err := o.WriteReport(&page); err != nil || !strings.Contains(page.String(), html.EscapeString(o.Verdict().String())) || o.Verdict().Word() != "VOID" {
		t.Errorf("%v: %v: %.600s", err, o.Verdict(), page.String())
	}
}

func TestAReportOfNothingIsWrittenToo(t *testing.T) {
	var page bytes.Buffer
	if err := (&Outcomes{}).WriteReport(&page); err != nil || !strings.Contains(page.String(), "verdict: VOID") {
		t.Errorf("%v: %.300s", err, page.String())
	}
	if err := (&Outcomes{}).WriteReport(brokenDisk{}); err == nil || errors.Unwrap(err) == nil {
		t.Errorf("a disk that is full: %v", err)
	}
}
