package admin

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/pontoon-registry/pontoon/meta"
	adminv1 "github.com/pontoon-registry/pontoon/proto/pontoon/admin/v1"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// Collector is what the node knows of garbage collection beside the ledger: its store, whose it is, and the code that
// decides. Its errors are refusals that say what to do.
type Collector interface {
	// Settings fills in what the node's configuration, the owner mark and the bucket say; it asks the store.
	Settings(ctx context.Context, into *adminv1.GetCollectionResponse)
	// Plan calls yield with each thing that a cycle would take now, and the sum at the end. It changes nothing.
	Plan(ctx context.Context, forgetEpochs []string, yield func(*adminv1.PlanCycleResponse) error) error
	// Verify calls yield with each difference, progress now and then, and the sum at the end.
	Verify(ctx context.Context, markLost bool, by *metav1.Envelope, yield func(*adminv1.VerifyStoreResponse) error) error
	// Adopt takes the owner mark from the cluster that the request names, or makes one where there is none. yield is told
	// how the search for lost layers goes, where one is needed.
	Adopt(ctx context.Context, req *adminv1.AdoptStoreRequest, by *metav1.Envelope, yield func(*adminv1.VerifyStoreResponse) error) (*adminv1.Adoption, error)
}

// collection serves CollectionService.
type collection struct {
	ledger    meta.Ledger
	collector Collector
	// poll is how often a cycle that somebody waits for is looked at.
	poll time.Duration
	// begin is for how long they wait while no cycle runs.
	begin time.Duration
}

const (
	// cyclesShown is the default of ListCycles, cyclesBound its most: the history has no more.
	cyclesShown = 20
	cyclesBound = 100
	// cyclePoll is how often somebody who waits hears of a cycle that comes on.
	cyclePoll = 500 * time.Millisecond
	// cycleBegin is many times what a leader takes to see a request, and longer than most changes of leadership.
	cycleBegin = time.Minute
)

func (c *collection) GetCollection(ctx context.Context, _ *adminv1.GetCollectionRequest) (*adminv1.GetCollectionResponse, error) {
	out := &adminv1.GetCollectionResponse{}
	err := c.ledger.View(ctx, meta.Read{}, func(v *meta.View) error {
		row, err := v.Collection()
		if err != nil {
			return err
		}
		history, err := v.Cycles(1)
		if err != nil {
			return err
		}
		if ask := row.GetRequested(); ask != nil {
			out.Requested = wallTime(ask.GetFirst().GetWallTime())
		}
		out.Running = cycleOf(row.GetRunning())
		if len(history) > 0 {
			out.Last = cycleOf(history[0])
		}
		out.Oldest, err = oldestOf(v, nil)
		return err
	})
	if err != nil {
		return nil, err
	}
	c.collector.Settings(ctx, out)
	return out, nil
}

func (c *collection) ListCycles(ctx context.Context, req *adminv1.ListCyclesRequest) (*adminv1.ListCyclesResponse, error) {
	n := int(req.GetCount())
	if n < 0 || n > cyclesBound {
		return nil, invalid(metav1.Noun_NOUN_CYCLE, "count: got %d, expected 1 to %d, or 0 for %d", n, cyclesBound, cyclesShown)
	}
	if n == 0 {
		n = cyclesShown
	}
	out := &adminv1.ListCyclesResponse{}
	return out, c.ledger.View(ctx, meta.Read{}, func(v *meta.View) error {
		history, err := v.Cycles(n)
		for _, row := range history {
			out.Cycles = append(out.Cycles, cycleOf(row))
		}
		return err
	})
}

// cycleOf is a row as operators see it; nil stays nil.
func cycleOf(row *metav1.Cycle) *adminv1.Cycle {
	if row == nil {
		return nil
	}
	out := &adminv1.Cycle{
		Id: row.GetBegun().GetIndex(), Trigger: row.GetTrigger(), RequestedBy: row.GetRequest().GetFirst().GetActor(),
		Untagged: row.GetUntagged(), ForgetEpochs: row.GetForgetEpochs(), Begun: wallTime(row.GetBegun().GetWallTime()),
		Phase: row.GetPhase(), Outcome: row.GetOutcome(), Count: row.GetCount(), Kept: row.GetKept(), Trouble: row.GetTrouble(),
	}
	if row.GetEnded() != nil {
		out.Ended = wallTime(row.GetEnded().GetWallTime())
	}
	return out
}

// wallTime is a wall time of the state; nil for none.
func wallTime(nanoseconds int64) *timestamppb.Timestamp {
	if nanoseconds == 0 {
		return nil
	}
	return timestamppb.New(time.Unix(0, nanoseconds))
}
