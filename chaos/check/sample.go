package check

import "time"

// Sample is what availability needs of an operation; small, since a long run has millions.
type Sample struct {
	Class   string
	Outcome Outcome
	Writes  bool
	Status  int16
	Call    time.Duration
	Return  time.Duration
}

func sampleOf(o *Operation) Sample {
	return Sample{Class: o.Class, Outcome: o.Outcome, Writes: !o.Kind.Reads(), Status: int16(o.Status), Call: o.Call, Return: o.Return}
}

// SamplesOf makes the samples of operations, as a history does.
func SamplesOf(ops []Operation) []Sample {
	samples := make([]Sample, len(ops))
	for i := range ops {
		samples[i] = sampleOf(&ops[i])
	}
	return samples
}
