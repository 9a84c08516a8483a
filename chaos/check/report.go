package check

import (
	"embed"
	"fmt"
	"html/template"
	"io"
	"maps"
	"slices"
	"time"
)

//go:embed report.html
var pages embed.FS

// maxPages bounds the pages of porcupine that a report carries; each is 40 KB and more.
const maxPages = 10

// page is what the template shows.
type page struct {
	*Outcomes
	Verdict    Verdict
	Word       string
	Violations []Violation
	Models     []model
	Undecided  []Partition
	Drawings   []drawing
	Omitted    int // pages of porcupine that are not carried
	Chart      chart
	Rows       []Row
	Gaps       []gapRow
}

type model struct {
	Name string
	Count
}

// drawing is porcupine's page of a partition, as text: what is marked as HTML loses its tags in the attribute of a frame.
type drawing struct {
	Partition
	Page string
}

type gapRow struct {
	Fault string
	Gaps
}

// WriteReport writes a page that stands by itself: no other file, nothing from the network.
func (o *Outcomes) WriteReport(w io.Writer) error {
	t, err := template.New("report.html").Funcs(template.FuncMap{"time": showTime, "share": share, "join": joinViolations}).ParseFS(pages, "report.html")
	if err != nil {
		return fmt.Errorf("parse template of report: %w", err)
	}
	v := o.Verdict()
	p := &page{Outcomes: o, Verdict: v, Word: v.Word(), Violations: o.Violations(), Chart: draw(o.Samples, o.Faults),
		Rows: Availability(o.Samples, o.Faults), Gaps: o.gaps()}
	if o.Judgement != nil {
		p.judged(o.Judgement)
	}
	if err := t.Execute(w, p); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

func (p *page) judged(j *Judgement) {
	for _, name := range slices.Sorted(maps.Keys(j.Models)) {
		p.Models = append(p.Models, model{name, j.Models[name]})
	}
	for _, bad := range j.Bad {
		switch {
		case bad.Decision == Undecided:
			p.Undecided = append(p.Undecided, bad)
		case len(p.Drawings) < maxPages:
			p.Drawings = append(p.Drawings, drawing{bad, string(bad.Visualization)})
		default:
			p.Omitted++
		}
	}
}

// gaps are the pauses of writes around each kind of fault.
func (o *Outcomes) gaps() []gapRow {
	var names []string
	for _, f := range o.Faults {
		if !slices.Contains(names, f.Name) {
			names = append(names, f.Name)
		}
	}
	slices.Sort(names)
	var rows []gapRow
	for _, name := range names {
		rows = append(rows, gapRow{name, WriteGaps(o.Samples, o.Faults, func(f Fault) bool { return f.Name == name })})
	}
	return rows
}

// showTime keeps three digits of a duration.
func showTime(d time.Duration) string {
	switch {
	case d >= 10*time.Second:
		return d.Round(100 * time.Millisecond).String()
	case d >= 10*time.Millisecond:
		return d.Round(time.Millisecond).String()
	}
	return d.Round(10 * time.Microsecond).String()
}

func share(failed, attempts int) string {
	if attempts == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f %%", 100*float64(failed)/float64(attempts))
}

// joinViolations tells how many of a rule's violations are not listed. Of a rule that nothing was seen of it says nothing, not 0.
func joinViolations(f Finding) string {
	if f.Judged == 0 && f.Broken == 0 {
		return ""
	}
	if f.Broken > len(f.Violations) {
		return fmt.Sprintf("%d, of which %d are listed", f.Broken, len(f.Violations))
	}
	return fmt.Sprint(f.Broken)
}
