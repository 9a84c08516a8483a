package cluster

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// TestAWriteInDoubtEndsWithItsNode: once the node's queues are closed no copy can
// be sent any more, so waiting for the deadline (or worse, spinning until it) tells nothing.
func TestAWriteInDoubtEndsWithItsNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, l := newQueue(), newLeaders()
		l.set("other")
		p := &proposer{self: "me", leaders: l, forward: &forwarder{queue: q}, hold: time.Second, metrics: noMetrics{}}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		go func() {
			calls, err := q.take(ctx)
			if err != nil {
				t.Error(err)
			}
			answerAll(calls, outcome{err: unknownOutcome("the call was lost")})
			q.drain()
			l.set("me too") // tried again at once
			l.set("other")
		}()
		began := time.Now()
		_, doubtful, err := p.commit(ctx, []byte("command"))
		if meta.KindOf(err) != metav1.Kind_KIND_OUTCOME_UNKNOWN || !doubtful {
			t.Errorf("got %v, doubtful %v; want outcome unknown", err, doubtful)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// TestNobodySpinsAfterTheEnd: what still tries again when the node is closed pauses as without a leader.
func TestNobodySpinsAfterTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLeaders()
		l.set("other")
		l.close()
		id, tenure := l.now()
		began := time.Now()
		if !pause(t.Context(), tenure, 9) || id != "" || time.Since(began) < 25*time.Millisecond {
			t.Errorf("leader %q, the pause took %v", id, time.Since(began))
		}
	})
}

// TestNothingIsGivenToARaftThatIsDown: it might take it, and never answers; the end of the node waits for answers.
func TestNothingIsGivenToARaftThatIsDown(t *testing.T) {
	cfg := testConfig(t, nil)
	cfg.Listen, cfg.GossipListen = "", ""
	n := start(t, cfg)
	eventually(t, "ready", func() error { return n.Ready(t.Context()) })
	n.halt(t)
	for range 20 { // Raft chooses at random between the two
		answered := make(chan error, 1)
		go func() { answered <- n.handle.apply(emptyEntry(), time.Second).Error() }()
		select {
		case err := <-answered:
			if !errors.Is(err, raft.ErrRaftShutdown) {
				t.Errorf("got %v", err)
			}
		case <-time.After(time.Minute):
			t.Fatal("no answer")
		}
	}
}
