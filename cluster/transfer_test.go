package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pontoon-registry/pontoon/meta"
	clusterv1 "github.com/pontoon-registry/pontoon/proto/pontoon/cluster/v1"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// Writers on all three nodes write through 20 handings over of leadership: none fails, and the pause is as short as
// the transfer itself. What it took is printed, since how long a machine of two cores takes is not the point.
func TestWritesGoOnThroughLeadershipTransfers(t *testing.T) {
	nodes := trio(t)
	const transfers = 20
	stop := make(chan struct{})
	var group sync.WaitGroup
	defer group.Wait()
	halt := sync.OnceFunc(func() { close(stop) })
	defer halt()
	var mu sync.Mutex
	var acks []time.Time
	for n := range 12 {
		node := nodes[n%len(nodes)]
		group.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				id := fmt.Sprintf("%032x", n*1_000_000+i)
				if _, err := node.Propose(t.Context(), putNode(id[:32], "127.0.0.1:1")); err != nil {
					t.Errorf("writer %d: %v", n, err)
				}
				mu.Lock()
				acks = append(acks, time.Now())
				mu.Unlock()
			}
		})
	}
	count := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(acks)
	}
	gaps := make([]time.Duration, 0, transfers)
	for range transfers {
		before := count()
		eventually(t, "writes", func() error {
			if count() < before+50 {
				return fmt.Errorf("%d", count())
			}
			return nil
		})
		leader, _ := leaderOf(t, nodes)
		from := time.Now()
		if err := leader.StepDown(t.Context()); err != nil {
			t.Fatal(err)
		}
		took := time.Since(from)
		now := count()
		eventually(t, "writes after it", func() error {
			if count() < now+50 {
				return fmt.Errorf("%d", count())
			}
			return nil
		})
		mu.Lock()
		gap, last := time.Duration(0), from
		for _, at := range acks {
			if at.After(from) {
				gap, last = max(gap, at.Sub(last)), at
			}
		}
		mu.Unlock()
		gaps = append(gaps, gap)
		t.Logf("transfer took %v, writes paused %v", took.Round(time.Millisecond), gap.Round(time.Millisecond))
	}
	halt()
	group.Wait()
	slices.Sort(gaps)
	t.Logf("writes paused p50 %v, max %v; %d writes", gaps[len(gaps)/2].Round(time.Millisecond), gaps[len(gaps)-1].Round(time.Millisecond), count())
}

// A node that ends while nobody leads must not win the election that is under way and take the leadership with it.
func TestStepDownWaitsForWhoeverWillLead(t *testing.T) {
	t.Parallel()
	nodes := trio(t)
	leader, followers := leaderOf(t, nodes)
	leader.halt(t)
	for _, f := range followers {
		eventually(t, "the loss of the leader to be noticed", func() error {
			if id, _ := f.leaders.now(); id != "" && id == leader.id {
				return fmt.Errorf("%s leads still", id)
			}
			return nil
		})
	}
	ending := followers[0]
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := ending.StepDown(ctx); err != nil {
		t.Fatal(err)
	}
	if id, _ := ending.leaders.now(); id == "" || id == ending.id || id == leader.id {
		t.Errorf("node %s stepped down while %q leads", ending.id, id)
	}
}

// TestNobodyIsHandedTheLeadBeforeHeLeads: a node that loses it by itself has not handed it over, and an operator who is told
// so looks for a leader that is not there.
func TestNobodyIsHandedTheLeadBeforeHeLeads(t *testing.T) {
	t.Parallel()
	nodes, wires := formWith(t, 3, &testMark{}, func(int, *Config) {}, func(*Node) {})
	leader, followers := leaderOf(t, nodes)
	wires.isolate(leader.advertise)
	eventually(t, "it does not lead", func() error {
		if id, _ := leader.leaders.now(); id != "" {
			return fmt.Errorf("%s leads", id)
		}
		return nil
	})
	hand := func() raft.Future { return leader.raft().LeadershipTransfer() }
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if id, err := leader.transferBy(ctx, "", hand); !isUnavailable(err) {
		t.Errorf("handed over, and nobody leads: %q, %v", id, err)
	}
	wires.heal()
	eventually(t, "it is handed over, to who was asked for or not at all", func() error { // it may have been elected again since
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		id, err := leader.handOver(ctx, hand)
		if err == nil && id != followers[0].id && id != followers[1].id {
			t.Fatalf("handed over to %q", id)
		}
		return err
	})
	eventually(t, "another one than was asked for leads", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		id, err := leader.transferBy(ctx, "another", hand)
		if err == nil {
			t.Fatalf("it was handed over to %q, and not to who was asked for", id)
		}
		if !strings.Contains(err.Error(), "leadership was lost to node ") {
			return err
		}
		if !isUnavailable(err) { // so that it is asked for again
			t.Errorf("got %v", err)
		}
		return nil
	})
}

// TestAVerbWhoseCallIsLostIsUnknown, and one that a leader refuses is refused.
func TestAVerbWhoseCallIsLostIsUnknown(t *testing.T) {
	t.Parallel()
	nodes := trio(t)
	for code, want := range map[codes.Code]metav1.Kind{
		codes.Unavailable: metav1.Kind_KIND_OUTCOME_UNKNOWN, codes.DeadlineExceeded: metav1.Kind_KIND_OUTCOME_UNKNOWN,
		codes.PermissionDenied: metav1.Kind_KIND_UNSPECIFIED,
	} {
		inSomeTry(t, "a follower asks", func() error { // it may come to lead
			_, followers := leaderOf(t, nodes)
			_, err := asked(t.Context(), followers[0].Node, func(context.Context) (string, error) { return "here", nil },
				func(context.Context, clusterv1.NodeServiceClient) (string, error) {
					return "", status.Error(code, "by the test")
				})
			if err == nil {
				return errors.New("it was asked itself")
			}
			if meta.KindOf(err) != want {
				t.Errorf("%v: %v", code, err)
			}
			return nil
		})
	}
}

// TestARemovalIsAskedForUntilItIsKnown: a leader that dies takes its answer with it.
func TestARemovalIsAskedForUntilItIsKnown(t *testing.T) {
	n := alone(t)
	lost := unknownOutcome("lost")
	gone := meta.Refuse(metav1.Kind_KIND_UNKNOWN, metav1.Noun_NOUN_NODE, "no member has this id")
	for name, c := range map[string]struct {
		judged, removed []error // what is answered in turn, the last of them for ever
		want            metav1.Kind
	}{
		"at once":                        {[]error{nil}, []error{nil}, 0},
		"the judgement lost twice":       {[]error{lost, lost, nil}, []error{nil}, 0},
		"the judgement lost for ever":    {[]error{lost}, nil, metav1.Kind_KIND_UNAVAILABLE},
		"not judged":                     {[]error{unavailable("no")}, nil, metav1.Kind_KIND_UNAVAILABLE},
		"refused":                        {[]error{meta.Refuse(preconditionKind, metav1.Noun_NOUN_NODE, "no")}, nil, preconditionKind},
		"lost, and it was removed":       {[]error{nil}, []error{lost, gone}, 0},
		"lost, and nobody leads a while": {[]error{nil}, []error{lost, unavailable("no"), nil}, 0},
		"lost, and nobody leads":         {[]error{nil}, []error{lost, unavailable("no")}, metav1.Kind_KIND_OUTCOME_UNKNOWN},
		"never taken":                    {[]error{nil}, []error{unavailable("no")}, metav1.Kind_KIND_UNAVAILABLE},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		id, err := n.removeBy(ctx, "name", false, func(node string, dryRun bool) (string, error) {
			answers := &c.judged
			if !dryRun {
				if answers = &c.removed; node != "id" {
					t.Errorf("%s: node %q is removed", name, node)
				}
			}
			err := (*answers)[0]
			if len(*answers) > 1 {
				*answers = (*answers)[1:]
			}
			return "id", err
		})
		cancel()
		if meta.KindOf(err) != c.want || err == nil && id != "id" {
			t.Errorf("%s: %q, %v", name, id, err)
		}
	}
}
