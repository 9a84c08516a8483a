package check

import (
	"net/http"
	"time"
)

// Sample is what availability needs of a request; small, since a long run has millions.
type Sample struct {
	Class   string
	Outcome Outcome
	Writes  bool
	Status  int16
	Call    time.Duration
	Return  time.Duration
}

// sampleOf answers the sample of a request; what a lock protects is the suite's own and no request.
func sampleOf(o *Operation) (Sample, bool) {
	s := Sample{Class: o.Class, Outcome: o.Outcome, Writes: o.writes(), Status: int16(o.Status), Call: o.Call, Return: o.Return}
	return s, o.Kind != GuardWrite && o.Kind != GuardRead
}

// SamplesOf makes the samples of operations, as a history does.
func SamplesOf(ops []Operation) []Sample {
	var samples []Sample
	for i := range ops {
		if s, ok := sampleOf(&ops[i]); ok {
			samples = append(samples, s)
		}
	}
	return samples
}

// failed: the client got no answer that it can use. A refusal, or "not there", is one.
func (s *Sample) failed() bool {
	return s.Outcome == Unknown || s.Status == http.StatusTooManyRequests
}
