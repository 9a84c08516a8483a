package chaos

import (
	"context"
	"maps"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// client is a program that moves whole images between a layout and a registry.
type client interface {
	// push and pull run the program once. reference is repository:tag.
	push(ctx context.Context, from *layout, reference string) error
	pull(ctx context.Context, reference string, to *layout) error
}

// tally counts what clients did and judges their failures.
type tally struct {
	t      testing.TB
	rounds int

	mu                                        sync.Mutex // guards the counts
	pushes, pulls, pushFailures, pullFailures int
}

// cut is how clients say that their connection ended under them.
var cut = regexp.MustCompile(`EOF|connection reset|connection refused|broken pipe|closed network connection|server closed`)

const attempts = 4

// roundTrip pushes a layout, pulls it into an empty one, and compares all that both hold.
func (y *tally) roundTrip(ctx context.Context, c client, from *layout, reference string) {
	y.push(reference, func() error { return c.push(ctx, from, reference) })
	var to *layout
	y.pull(reference, func() error {
		to = newLayout(y.t)
		return c.pull(ctx, reference, to)
	})
	want, err := from.contents()
	if err != nil {
		y.t.Errorf("%s: %v", reference, err)
		return
	}
	got, err := to.contents()
	if err != nil {
		y.t.Errorf("%s: pulled: %v", reference, err)
		return
	}
	if !maps.Equal(got, want) {
		y.t.Errorf("%s: pulled %v, pushed %v", reference, got, want)
	}
	to.remove()
}

func (y *tally) push(reference string, once func() error) {
	failures := y.repeat("push "+reference, once, func(error) bool { return true })
	y.mu.Lock()
	defer y.mu.Unlock()
	y.pushes++
	y.pushFailures += failures
}

func (y *tally) pull(reference string, once func() error) {
	failures := y.repeat("pull "+reference, once, func(err error) bool { return cut.MatchString(err.Error()) })
	y.mu.Lock()
	defer y.mu.Unlock()
	y.pulls++
	y.pullFailures += failures
}

// repeat runs once until it succeeds, and reports failures that are not excused.
func (y *tally) repeat(what string, once func() error, excused func(error) bool) (failures int) {
	for {
		err := once()
		if err == nil {
			return failures
		}
		failures++
		if !excused(err) {
			y.t.Errorf("%s failed, and not because its connection was cut: %v", what, err)
		}
		if failures == attempts {
			y.t.Errorf("%s failed %d times: %v", what, failures, err)
			return failures
		}
		y.t.Logf("%s: attempt %d: %v", what, failures, err)
	}
}

// holds fetches an image through the registry, all of it, and checks that the tag names what the client said it pushed
// and that every byte is what its digest says.
func (y *tally) holds(ctx context.Context, r *registry, reference, digest string) {
	repo, tag, _ := strings.Cut(reference, ":")
	defer r.client.CloseIdleConnections()
	y.pull(reference, func() error {
		got, err := r.image(ctx, repo, tag)
		if err == nil && got != digest {
			y.t.Errorf("%s: the client pushed %s, the tag names %s", reference, digest, got)
		}
		return err
	})
}
