package chaos

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"
)

// stalls are the times in which this machine let nobody run. What a test demands of a node within a time, it does not demand
// of a machine that stands still: such time is taken off.
type stalls struct {
	mu   sync.Mutex // guards what follows
	beat time.Time  // when somebody last looked; zero: nobody has
	all  []stall    // those of the last hour
	// total is how long all of them were, excused how many judgements were left out because of them.
	total   time.Duration
	excused int
}

// stall ended at a moment.
type stall struct {
	end  time.Time
	lost time.Duration
}

const (
	beatEvery = 10 * time.Millisecond
	// stallFrom is what a busy machine takes without standing still.
	stallFrom = 100 * time.Millisecond
	// leaseTime is how long a leader leads without hearing of a majority (cluster.Config.TimeScale).
	leaseTime = 250 * time.Millisecond
	// stallsKept is longer than whatever is measured without them.
	stallsKept = time.Hour
)

// machine is the one that all runs on. TestMain watches it.
var machine stalls

// watch looks for as long as the process lives.
func (s *stalls) watch() {
	for ; ; time.Sleep(beatEvery) {
		s.look(time.Now())
	}
}

// look notes that the last look should have been followed by one long ago.
func (s *stalls) look(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if late := now.Sub(s.beat) - beatEvery; !s.beat.IsZero() && late > stallFrom {
		s.all = slices.DeleteFunc(s.all, func(one stall) bool { return now.Sub(one.end) > stallsKept })
		s.all = append(s.all, stall{now, late})
		s.total += late
	}
	if now.After(s.beat) {
		s.beat = now
	}
}

// since is for how long nobody ran since a moment. It looks itself: who asks may run again before the one who watches.
func (s *stalls) since(from time.Time) time.Duration { return s.between(from, time.Now()) }

func (s *stalls) between(from, now time.Time) (lost time.Duration) {
	s.look(now)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, one := range s.all {
		if one.end.After(from) {
			lost += min(one.lost, one.end.Sub(from))
		}
	}
	return lost
}

// took is how long something took that began at a moment, without the time in which nobody ran.
func (s *stalls) took(began time.Time) time.Duration { return time.Since(began) - s.since(began) }

// excuses says whether a request that began at a moment may have failed because nobody ran: nodes that hear nothing of each
// other for as long as a lease lasts elect a leader, and what waits for one is told so after a few seconds. Nothing excuses
// another answer than that, and none excuses wrong content.
func (s *stalls) excuses(t testing.TB, began time.Time, err error) bool {
	var network net.Error
	var answered *refused
	switch {
	case errors.As(err, &answered) && (answered.status == http.StatusServiceUnavailable || answered.status == http.StatusTooManyRequests):
	case errors.As(err, &network), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF): // it got no answer, or not all of it
	default:
		return false
	}
	return s.costALeader(t, began, err)
}

// costALeader says whether nobody ran for as long as a lease lasts, at once, since shortly before a moment.
func (s *stalls) costALeader(t testing.TB, began time.Time, what any) bool {
	now := time.Now()
	s.look(now)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, one := range s.all {
		if one.lost >= leaseTime && one.end.After(began.Add(-10*time.Second)) {
			s.excuse(t, one.lost, what)
			return true
		}
	}
	return false
}

// stood says whether nobody ran for longer than bound in all since a moment.
func (s *stalls) stood(t testing.TB, from time.Time, bound time.Duration, what any) bool {
	lost := s.since(from)
	if lost <= bound {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.excuse(t, lost, what)
	return true
}

// excuse says in the log what is excused, with the lock held.
func (s *stalls) excuse(t testing.TB, lost time.Duration, what any) {
	s.excused++
	t.Logf("EXCUSED: the machine stood still for %v of the time: %.300v", lost.Round(time.Millisecond), what)
}

func (s *stalls) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return fmt.Sprintf("the machine stood still for %v in all, which excused %d failures", s.total.Round(time.Millisecond), s.excused)
}

func TestTimeInWhichNobodyRanIsTakenOff(t *testing.T) {
	began := time.Now()
	at := func(ms int) time.Time { return began.Add(time.Duration(ms) * time.Millisecond) }
	var s stalls
	for _, ms := range []int{0, 10, 25, 100, 110, 5110, 5120, 5130} { // 75 ms late is busy, 4990 is a stall
		s.look(at(ms))
	}
	for _, c := range []struct{ from, now, want int }{{0, 5130, 4990}, {4110, 5130, 1000}, {5115, 5130, 0}, {5130, 7140, 2000}, {0, 7140, 6990}} {
		if got := s.between(at(c.from), at(c.now)); got != time.Duration(c.want)*time.Millisecond {
			t.Errorf("from %d ms to %d ms %v were lost, want %d ms", c.from, c.now, got, c.want)
		}
	}
}

// TestOnlyALostLeaderIsExcused, and neither wrong content nor another status.
func TestOnlyALostLeaderIsExcused(t *testing.T) {
	began := time.Now()
	s := stalls{beat: began.Add(-time.Second)}
	s.look(began) // a second late
	cut := fmt.Errorf("read answer: %w", io.ErrUnexpectedEOF)
	for _, c := range []struct {
		err  error
		want bool
	}{
		{&refused{"put", answer{status: http.StatusServiceUnavailable}}, true}, {&refused{"put", answer{status: http.StatusTooManyRequests}}, true},
		{&refused{"get", answer{status: http.StatusNotFound}}, false}, {&refused{"get", answer{status: http.StatusInternalServerError}}, false},
		{errors.New("tag v1 resolves to another"), false}, {cut, true}, {&net.OpError{Op: "read", Err: errors.New("reset")}, true},
	} {
		if got := s.excuses(t, began, c.err); got != c.want {
			t.Errorf("%v: excused %v", c.err, got)
		}
		busy := stalls{beat: began.Add(-time.Second)}
		for late := -1000; late <= 0; late += 200 {
			busy.look(began.Add(time.Duration(late) * time.Millisecond))
		}
		if busy.excuses(t, began, c.err) {
			t.Errorf("%v: excused by a machine that is only busy", c.err)
		}
	}
}
