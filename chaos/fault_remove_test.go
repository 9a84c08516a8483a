package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pontoon-registry/pontoon/chaos/check"
	"github.com/pontoon-registry/pontoon/chaos/proxy"
)

const (
	// departs bounds the time from when a removed node reaches the others again until it has ended.
	departs = time.Minute
	// exitNotFound is what a verb says of what is not there.
	exitNotFound = 3
	// exitDeparted is how a node ends that is no member any more.
	exitDeparted = 4
)

// remove takes a node out of the cluster while it runs, reaches no other, and clients go on asking it (I10). It cannot know
// until it is healed. Then it may hand on what it was asked meanwhile, until it has asked and been told; none of that may it
// answer as done. It ends, and comes back as a new node under its old name and addresses.
func remove(_ context.Context, a *arena, chance *rand.Rand) (func(context.Context) error, string, error) {
	n, err := a.take(chance)
	if err != nil {
		return nil, "", err
	}
	pairs, _ := bothWays(a, chance, n)
	join, err := a.mesh.Set(pairs, proxy.Hole())
	if err != nil {
		return nil, "", err
	}
	by, err := a.leads(30 * time.Second) // another one: this one is taken
	if err == nil {
		err = removeFrom(by, n)
	}
	if err != nil {
		n.proc.mayEnd() // it may have been removed all the same
		return healing(join), n.name, err
	}
	back := a.absences.begin(n.name)
	heal := func(context.Context) error {
		n.proc.mayEnd() // not before: who reaches nobody has nobody to learn it from
		join()
		err := n.departed()
		a.d.forget(n)
		back()
		a.d.comeBack(n)
		return errors.Join(err, a.settled())
	}
	return heal, n.name, nil
}

// removeFrom removes a node as an operator does: again, while nobody knows whether it was.
func removeFrom(by, n *node) (err error) {
	for tries := range 5 {
		var exit *exec.ExitError
		if _, err = by.cli("cluster", "remove", n.name, "--yes", "--force"); err == nil || tries > 0 && errors.As(err, &exit) && exit.ExitCode() == exitNotFound {
			return nil
		}
		pause(context.Background(), time.Second)
	}
	return err
}

// departed waits until a removed node has ended, and says what is wrong with how it did. It runs no more then.
func (n *node) departed() error {
	err := n.proc.ended(departs)
	if !n.proc.over() {
		n.proc.kill()
		return fmt.Errorf("it was removed: %w", err)
	}
	if code := n.proc.cmd.ProcessState.ExitCode(); code != exitDeparted {
		return n.proc.accuse("was removed and ended with exit code %d, want %d", code, exitDeparted)
	}
	if log := tail(filepath.Join(n.logs, n.name+".log"), 10); !strings.Contains(log, "was removed from the cluster") {
		return n.proc.accuse("was removed and does not say so: %s", log)
	}
	return nil
}

// absences are the times that nodes were no members, for any goroutine.
type absences struct {
	mu  sync.Mutex // guards all
	all []absence
}

type absence struct {
	node        string
	from, until time.Time // until is zero while it is away
}

// begin notes that the removal of a node has just been acknowledged. What it returns notes that it is asked to join again.
func (s *absences) begin(node string) (end func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := len(s.all)
	s.all = append(s.all, absence{node: node, from: time.Now()})
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.all[i].until = time.Now()
	}
}

// since tells them in the clock of a history, for operations that were taken from it before: none of them was called after the
// end of an absence that is not known yet.
func (s *absences) since(began time.Time) (told []check.Absence) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, one := range s.all {
		a := check.Absence{Node: one.node, From: one.from.Sub(began)}
		if !one.until.IsZero() {
			a.Until = one.until.Sub(began)
		}
		told = append(told, a)
	}
	return told
}

func TestAnAbsenceIsToldWhileItLastsAndAfter(t *testing.T) {
	var s absences
	began := time.Now()
	end := s.begin("n1")
	s.begin("n2")
	if told := s.since(began); len(told) != 2 || told[0].Node != "n1" || told[0].From <= 0 || told[0].Until != 0 {
		t.Errorf("while it lasts: %+v", told)
	}
	end()
	if told := s.since(began); told[0].Until < told[0].From || told[1].Until != 0 {
		t.Errorf("after the first: %+v", told)
	}
}
