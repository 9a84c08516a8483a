package proxy

import (
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"time"
)

// Deed is what is done to a request.
type Deed string

// The deeds. For is the effect's.
const (
	Refuse   Deed = "refuse"    // not done; answered with an error, SlowDown unless Code says otherwise
	Hang     Deed = "hang"      // not done; no answer for For, or until the rule is taken back when that is 0; then a reset
	Lose     Deed = "lose"      // done; its answer never arrives: silence for For, then a reset
	Late     Deed = "late"      // done after For, whether or not the client still waits for the answer
	LateLost Deed = "late-lost" // the client's connection is reset at once, and the request is done after For
	Twice    Deed = "twice"     // done and answered, and done once more after For
	Truncate Deed = "truncate"  // done; the connection ends in the middle of the answer's body
	Corrupt  Deed = "corrupt"   // done; one bit of the body of the answer is another
	Stale    Deed = "stale"     // a list: answered as it was when the same was asked before the rule was there
	Lag      Deed = "lag"       // done after For; of what has no body not when the client has gone away by then
)

// Effect is a deed with its measures.
type Effect struct {
	Do   Deed
	For  time.Duration
	Code string // of Refuse: an error code of S3
	Bare bool   // of Corrupt: the checksum that the server sends along is left out, as by a server that has none
}

// Rule says whose requests an effect meets. What is zero matches all.
type Rule struct {
	Name       string // in Counts
	Node       string
	Method     string
	Operations []Operation
	Keys       *regexp.Regexp

	Chance float64 // of a request that matches, 0 to 1; 0: certain
	After  int     // so many that match are let pass first
	Times  int     // so many are met at most; 0: no bound
	Effect Effect
}

// errorOf is an error that Refuse knows: status and message as S3 has them. The status is 0 of others.
func errorOf(code string) (status int, message string) {
	switch code {
	case "SlowDown":
		return http.StatusServiceUnavailable, "Please reduce your request rate."
	case "ServiceUnavailable":
		return http.StatusServiceUnavailable, "Service is unable to handle request."
	case "InternalError":
		return http.StatusInternalServerError, "We encountered an internal error. Please try again."
	case "RequestTimeout":
		return http.StatusBadRequest, "Your socket connection to the server was not read from or written to within the timeout period."
	case "AccessDenied":
		return http.StatusForbidden, "Access Denied"
	case "ExpiredToken":
		return http.StatusBadRequest, "The provided token has expired."
	case "RequestTimeTooSkewed":
		return http.StatusForbidden, "The difference between the request time and the server's time is too large."
	}
	return 0, ""
}

func (d Deed) known() bool {
	switch d {
	case Refuse, Hang, Lose, Late, LateLost, Twice, Truncate, Corrupt, Stale, Lag:
		return true
	}
	return false
}

// Validate names what is wrong.
func (r *Rule) Validate() error {
	switch {
	case r.Name == "":
		return errors.New("rule: name must not be empty: its counts have no place")
	case r.Chance < 0 || r.Chance > 1:
		return fmt.Errorf("rule %s: chance is %v, must be 0 to 1", r.Name, r.Chance)
	case r.After < 0 || r.Times < 0:
		return fmt.Errorf("rule %s: after is %d and times %d, must not be negative", r.Name, r.After, r.Times)
	case !r.Effect.Do.known():
		return fmt.Errorf("rule %s: effect does %q, must be one of the deeds", r.Name, r.Effect.Do)
	case r.Effect.For < 0:
		return fmt.Errorf("rule %s: effect lasts %v, must not be negative", r.Name, r.Effect.For)
	}
	if status, _ := errorOf(r.Effect.Code); r.Effect.Code != "" && status == 0 {
		return fmt.Errorf("rule %s: code %s is none that is known", r.Name, r.Effect.Code)
	}
	return nil
}

// meets says whether a request is one that the rule is for.
func (r *Rule) meets(q *request) bool {
	return (r.Node == "" || r.Node == q.node) &&
		(r.Method == "" || r.Method == q.Method) &&
		(len(r.Operations) == 0 || slices.Contains(r.Operations, q.operation)) &&
		(r.Keys == nil || r.Keys.MatchString(q.key))
}

// armed is a rule in force.
type armed struct {
	Rule
	lifted chan struct{} // closed when it is no more
	met    int           // guarded by S3.mu, as fired is
	fired  int
}

// Count is what became of a rule's requests.
type Count struct {
	Met     int64 // requests that it is for
	Fired   int64 // that it was done to
	TooBig  int64 // that were let pass since their body cannot be kept
	Dropped int64 // that were to be done later and were not, since the layer was closed or the server did not answer
}
