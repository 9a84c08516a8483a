package check

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
)

// This file draws the timeline of faults above the latencies of each class, as numbers that the template puts into SVG.

const (
	chartWidth  = 1200
	panelHeight = 90
	barHeight   = 12
	cell        = 2 // points of one class that fall into one cell are drawn once
	fastest     = 500 * time.Microsecond
	slowest     = 60 * time.Second
)

// chart is the drawing. Bands and ticks are as high as a panel.
type chart struct {
	Width, PanelHeight, BarHeight int
	Lanes                         []lane
	Bands                         []bar
	Panels                        []panel
	Ticks                         []tick
	Levels                        []tick
}

// lane is the faults of one name.
type lane struct {
	Name string
	Bars []bar
}

type bar struct {
	X, Width float64
	Title    string
}

// panel is a class: paths of small squares.
type panel struct {
	Class        string
	Good, Failed string
}

// tick is a line with a label, at a place.
type tick struct {
	At   float64
	Text string
}

func draw(samples []Sample, faults []Fault) chart {
	c := chart{Width: chartWidth, PanelHeight: panelHeight, BarHeight: barHeight}
	end := time.Second
	for i := range samples {
		end = max(end, samples[i].Return)
	}
	for _, f := range faults {
		end = max(end, f.Until)
	}
	x := func(at time.Duration) float64 { return chartWidth * float64(at) / float64(end) }
	c.faults(faults, x)
	c.panels(samples, x)
	for i := range 11 {
		at := end * time.Duration(i) / 10
		c.Ticks = append(c.Ticks, tick{x(at), showTime(at.Round(time.Second / 10))})
	}
	for _, d := range []time.Duration{time.Millisecond, 10 * time.Millisecond, 100 * time.Millisecond, time.Second, 10 * time.Second} {
		c.Levels = append(c.Levels, tick{height(d), d.String()})
	}
	return c
}

func (c *chart) faults(faults []Fault, x func(time.Duration) float64) {
	lanes := map[string][]bar{}
	for _, f := range faults {
		b := bar{X: x(f.From), Width: max(1, x(f.Until)-x(f.From)),
			Title: fmt.Sprintf("%s %s: %s to %s", f.Name, f.Target, showTime(f.From), showTime(f.Until))}
		lanes[f.Name] = append(lanes[f.Name], b)
		c.Bands = append(c.Bands, b)
	}
	for _, name := range slices.Sorted(maps.Keys(lanes)) {
		c.Lanes = append(c.Lanes, lane{name, lanes[name]})
	}
}

// place is a cell of a panel.
type place struct{ x, y int }

func (c *chart) panels(samples []Sample, x func(time.Duration) float64) {
	good, failed := map[string]map[place]bool{}, map[string]map[place]bool{}
	for i := range samples {
		s := &samples[i]
		of := good
		if s.failed() {
			of = failed
		}
		if good[s.Class] == nil {
			good[s.Class], failed[s.Class] = map[place]bool{}, map[place]bool{}
		}
		of[s.Class][place{int(x(s.Call)) / cell, int(height(s.Return-s.Call)) / cell}] = true
	}
	for _, class := range slices.Sorted(maps.Keys(good)) {
		c.Panels = append(c.Panels, panel{class, path(good[class]), path(failed[class])})
	}
}

// height is where a latency stands in a panel, on a logarithmic scale, from above.
func height(d time.Duration) float64 {
	d = min(max(d, fastest), slowest)
	return (panelHeight - cell) * (1 - math.Log(float64(d)/float64(fastest))/math.Log(float64(slowest)/float64(fastest)))
}

func path(cells map[place]bool) string {
	places := slices.SortedFunc(maps.Keys(cells), func(a, b place) int {
		if a.x != b.x {
			return a.x - b.x
		}
		return a.y - b.y
	})
	var b strings.Builder
	for _, p := range places {
		fmt.Fprintf(&b, "M%d %dh%d", p.x*cell, p.y*cell+cell/2, cell)
	}
	return b.String()
}
