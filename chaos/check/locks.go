package check

import (
	"fmt"
	"math"
	"net/http"
	"time"

	"github.com/anishathalye/porcupine"
)

// This file is the model of a lock with fencing tokens (C4), together with the register that it protects, which refuses
// writes under a lower token than it has seen.
//
// A lock expires by the cluster's clock, which nobody outside sees. But it never runs faster than real time, so a lock
// whose grant was asked for at t with a time to live of d is held until t+d at least; it may be held longer, for as long
// as there was no leader. The model therefore knows when a lock is certainly still held, and judges only that.

// lockSlack is what the clocks of the recorder and of a leader may differ over the life of a lock.
const lockSlack = 50 * time.Millisecond

const never = time.Duration(math.MaxInt64)

// lockState is one lock and its register. It is compared by value.
type lockState struct {
	held  bool
	token uint64        // of the holder; 0 is a grant whose answer nobody got
	until time.Duration // before this the lock has certainly not expired
	last  uint64        // the highest token that was granted
	// guardToken and guardValue are what the register holds.
	guardToken uint64
	guardValue string
}

func lockModel([]string) porcupine.Model {
	return porcupine.Model{
		Init:              func() any { return lockState{} },
		Step:              func(state, input, _ any) (bool, any) { return state.(lockState).step(input.(*Operation)) },
		DescribeOperation: func(input, _ any) string { return input.(*Operation).brief() },
		DescribeState: func(state any) string {
			s := state.(lockState)
			holder := "free"
			if s.held {
				holder = fmt.Sprintf("held by %d until %v at least", s.token, s.until)
			}
			return fmt.Sprintf("%s; register %q of %d", holder, s.guardValue, s.guardToken)
		},
	}
}

func (s lockState) step(o *Operation) (bool, lockState) {
	switch o.Kind {
	case LockAcquire:
		return s.acquire(o)
	case LockRenew:
		return s.renew(o)
	case LockRelease:
		return s.release(o)
	case GuardWrite:
		return s.write(o)
	case GuardRead:
		return o.Output == s.guardValue && o.Token == s.guardToken, s
	}
	return false, s
}

// certainly tells whether the lock cannot have expired when the operation was over.
func (s lockState) certainly(o *Operation) bool {
	return s.held && s.until-lockSlack > o.end()
}

func (s lockState) acquire(o *Operation) (bool, lockState) {
	if o.Outcome == Refused {
		// One that shares a log entry with a grant and its release is refused although the lock is free; it ran at the
		// same time as the release, so it fits before it.
		return s.held, s
	}
	if s.certainly(o) {
		return o.Outcome == Unknown, s
	}
	if o.Outcome == Done {
		if o.Token <= s.last {
			return false, s
		}
		s.last = o.Token
	}
	s.held, s.token, s.until = true, o.Token, o.Call+o.TTL
	return true, s
}

func (s lockState) renew(o *Operation) (bool, lockState) {
	holds := s.held && s.token == o.Token
	switch {
	case o.Outcome == Refused:
		return !holds || !s.certainly(o), s
	case !holds:
		return o.Outcome == Unknown, s
	}
	s.until = o.Call + o.TTL
	return true, s
}

func (s lockState) release(o *Operation) (bool, lockState) {
	holds := s.held && (s.token == o.Token || o.Token == 0)
	switch {
	case o.Outcome == Refused:
		return !holds || !s.certainly(o), s
	case !holds:
		return o.Outcome == Unknown, s
	}
	s.held, s.token, s.until = false, 0, 0
	return true, s
}

func (s lockState) write(o *Operation) (bool, lockState) {
	if o.Outcome == Refused {
		return s.guardToken > o.Token, s // so it is never that of the holder, which is the highest
	}
	if s.guardToken > o.Token || o.Token > s.last {
		return o.Outcome == Unknown, s
	}
	s.guardToken, s.guardValue = o.Token, o.Input
	return true, s
}

func judgesLocks(o *Operation) bool {
	switch o.Kind {
	case LockAcquire, LockRenew, LockRelease, GuardWrite:
		return o.Outcome != Refused || o.Status == http.StatusConflict
	case GuardRead:
		return o.Outcome == Done
	}
	return false
}

func lockPartitions(ops []*Operation) []*partition {
	parts := map[string]*partition{}
	var out []*partition
	for _, o := range ops {
		p := parts[o.Key]
		if p == nil {
			p = &partition{model: "locks", name: o.Key, keys: []string{o.Key}, build: lockModel, settle: settleLocks}
			parts[o.Key] = p
			out = append(out, p)
		}
		p.ops = append(p.ops, o)
	}
	return out
}
