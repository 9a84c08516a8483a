package check

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"time"
)

// All and Calm are the windows beside those that are called like faults: the whole run, and when no fault was on.
const (
	All  = "(all)"
	Calm = "(no fault)"
)

// Row is the availability of a class of request in the windows of one name.
type Row struct {
	Window, Class    string
	Attempts, Failed int
	// Longest is the longest time in a window until a request of the class succeeded: from the begin of the window or
	// the success before, to the next one, even if that is after the window (a fault's, not the calm one); to its end where
	// none came any more.
	Longest time.Duration
	// P50 and P99 are latencies of the requests that were answered.
	P50, P99 time.Duration
}

// interval is a piece of time, both ends included.
type interval struct{ from, until time.Duration }

// window is what is told together: all faults of a name.
type window struct {
	name   string
	pieces []interval // in order, without overlap
}

// Availability tells for each window and class how requests fared that ran, wholly or partly, in the window. A request
// that ran in several windows counts in each, and one that ran in any fault is not calm.
func Availability(samples []Sample, faults []Fault) []Row {
	ordered := slices.Clone(samples)
	slices.SortStableFunc(ordered, func(a, b Sample) int { return cmp.Compare(a.Call, b.Call) })
	successes := map[string][]time.Duration{}
	for i := range ordered {
		if s := &ordered[i]; s.Outcome == Done {
			successes[s.Class] = append(successes[s.Class], s.Return)
		}
	}
	for _, ends := range successes {
		slices.Sort(ends)
	}
	var rows []Row
	for _, w := range windows(ordered, faults) {
		rows = append(rows, w.rows(ordered, successes)...)
	}
	return rows
}

func windows(samples []Sample, faults []Fault) []window {
	byName, any := map[string][]interval{}, []interval(nil)
	for _, f := range faults {
		byName[f.Name] = append(byName[f.Name], interval{f.From, f.Until})
		any = append(any, interval{f.From, f.Until})
	}
	var end time.Duration
	for i := range samples {
		end = max(end, samples[i].Return)
	}
	out := []window{{All, []interval{{0, end}}}, {Calm, gapsOf(union(any), end)}}
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		out = append(out, window{name, union(byName[name])})
	}
	return out
}

func union(pieces []interval) []interval {
	slices.SortFunc(pieces, func(a, b interval) int { return cmp.Compare(a.from, b.from) })
	var out []interval
	for _, p := range pieces {
		if last := len(out) - 1; last >= 0 && p.from <= out[last].until {
			out[last].until = max(out[last].until, p.until)
		} else {
			out = append(out, p)
		}
	}
	return out
}

// gapsOf is the time up to end that no piece covers.
func gapsOf(pieces []interval, end time.Duration) []interval {
	var out []interval
	var at time.Duration
	for _, p := range pieces {
		if at < p.from {
			out = append(out, interval{at, min(p.from, end)})
		}
		at = max(at, p.until)
	}
	if at < end {
		out = append(out, interval{at, end})
	}
	return out
}

// covers tells whether the sample counts in the piece of a window.
func (w *window) covers(p interval, s *Sample) bool {
	if w.name == Calm {
		return s.Call >= p.from && s.Return <= p.until
	}
	return s.Call <= p.until && s.Return >= p.from
}

// rows needs the samples in the order of their calls, and the ends of the successes of each class in order.
func (w *window) rows(samples []Sample, successes map[string][]time.Duration) []Row {
	rows, latencies := map[string]*Row{}, map[string][]time.Duration{}
	piece := 0
	for i := range samples {
		s := &samples[i]
		for piece < len(w.pieces) && w.pieces[piece].until < s.Call {
			piece++
		}
		if piece == len(w.pieces) || !w.covers(w.pieces[piece], s) {
			continue
		}
		r := rows[s.Class]
		if r == nil {
			r = &Row{Window: w.name, Class: s.Class}
			rows[s.Class] = r
		}
		r.Attempts++
		if s.failed() {
			r.Failed++
		} else {
			latencies[s.Class] = append(latencies[s.Class], s.Return-s.Call)
		}
	}
	var out []Row
	for _, class := range slices.Sorted(maps.Keys(rows)) {
		r := rows[class]
		slices.Sort(latencies[class])
		r.P50, r.P99 = quantile(latencies[class], 0.5), quantile(latencies[class], 0.99)
		for _, p := range w.pieces {
			r.Longest = max(r.Longest, longestWait(successes[class], p, w.name == Calm))
		}
		out = append(out, *r)
	}
	return out
}

// longestWait needs the successes in order. What a fault keeps waiting waits beyond its end too; calm ends where it ends.
func longestWait(successes []time.Duration, p interval, clip bool) time.Duration {
	i, _ := slices.BinarySearch(successes, p.from)
	last, longest := p.from, time.Duration(0)
	for ; i < len(successes) && last < p.until; i++ {
		next := successes[i]
		if clip {
			next = min(next, p.until)
		}
		longest = max(longest, next-last)
		last = next
	}
	if last < p.until {
		longest = max(longest, p.until-last)
	}
	return longest
}

// quantile is the nearest rank of sorted values.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[max(0, int(math.Ceil(q*float64(len(sorted))))-1)]
}

// Gaps are the longest pauses of writes around faults, one for each fault.
type Gaps struct {
	Faults            int
	P50, P99, Longest time.Duration
}

// gapHorizon is how long after a fault a pause is looked for.
const gapHorizon = 30 * time.Second

// WriteGaps tells how long nobody's write succeeded around each fault that which picks: the longest time between two
// successes, of which the second came after the begin of the fault and the first before the next one, the horizon, or the
// last request of anybody: nobody waits for a write then.
func WriteGaps(samples []Sample, faults []Fault, which func(Fault) bool) Gaps {
	end := time.Duration(math.MaxInt64)
	if len(samples) > 0 {
		end = slices.MaxFunc(samples, func(a, b Sample) int { return cmp.Compare(a.Return, b.Return) }).Return
	}
	var begins, successes, gaps []time.Duration
	for _, f := range faults {
		if which(f) {
			begins = append(begins, f.From)
		}
	}
	for i := range samples {
		if s := &samples[i]; s.Writes && s.Outcome == Done {
			successes = append(successes, s.Return)
		}
	}
	slices.Sort(begins)
	slices.Sort(successes)
	for i, from := range begins {
		until := min(from+gapHorizon, end)
		if i+1 < len(begins) {
			until = min(until, begins[i+1])
		}
		gaps = append(gaps, pauseAround(successes, from, until))
	}
	slices.Sort(gaps)
	return Gaps{len(gaps), quantile(gaps, 0.5), quantile(gaps, 0.99), quantile(gaps, 1)}
}

func pauseAround(successes []time.Duration, from, until time.Duration) time.Duration {
	i, _ := slices.BinarySearch(successes, from)
	last := from
	if i > 0 {
		last = successes[i-1]
	}
	var longest time.Duration
	for ; i < len(successes) && last < until; i++ {
		longest = max(longest, successes[i]-last)
		last = successes[i]
	}
	if last < until && i == len(successes) {
		longest = max(longest, until-last) // no write succeeded any more
	}
	return longest
}
