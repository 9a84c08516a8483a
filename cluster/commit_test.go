package cluster

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// fakeFuture is Raft's answer, when it comes.
type fakeFuture struct {
	done     chan struct{}
	err      error
	response any
}

func (f *fakeFuture) Error() error  { <-f.done; return f.err }
func (f *fakeFuture) Response() any { return f.response }
func (f *fakeFuture) Index() uint64 { return 1 }

func encodedCommand(t testing.TB, id string) []byte {
	t.Helper()
	b, err := proto.Marshal(putNode(id, "h:1"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestCommandsThatWaitShareAnEntry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var entries []*metav1.Entry
		var futures []*fakeFuture
		apply := func(data []byte, _ time.Duration) raft.ApplyFuture {
			var e metav1.Entry
			if err := proto.Unmarshal(data, &e); err != nil {
				t.Error(err)
			}
			results := make([]*metav1.Result, len(e.GetCommands()))
			for i := range results {
				results[i] = &metav1.Result{Index: uint64(len(entries) + 1)}
			}
			f := &fakeFuture{done: make(chan struct{}), response: results}
			entries, futures = append(entries, &e), append(futures, f)
			return f
		}
		c := newCommitter(apply, func() (int64, int64, error) { return 7, 8, nil }, noMetrics{})
		ctx, stop := context.WithCancel(t.Context())
		go func() { _ = c.dispatch(ctx) }()
		go func() { _ = c.complete() }()
		var calls []*call
		put := func(n int) {
			for range n {
				calls = append(calls, newCall(encodedCommand(t, "x")))
				if err := c.queue.put(calls[len(calls)-1]); err != nil {
					t.Fatal(err)
				}
			}
			synctest.Wait()
		}
		for range entriesInFlight {
			put(1)
		}
		put(300) // gathers while all are busy
		for i := 0; i < len(futures); i++ {
			close(futures[i].done)
			synctest.Wait()
		}
		if len(entries) != entriesInFlight+2 || len(entries[entriesInFlight].GetCommands()) != batchCommands {
			t.Fatalf("%d entries", len(entries))
		}
		if e := entries[0]; e.GetFormat() != entryFormat || e.GetClusterTime() != 7 || e.GetWallTime() != 8 || e.GetCommands()[0].GetPutNode() == nil {
			t.Errorf("entry %v", e)
		}
		for i, call := range calls {
			if o := <-call.done; o.err != nil {
				t.Fatalf("call %d: %v", i, o.err)
			}
		}
		stop()
		synctest.Wait()
	})
}

func TestOnlyWhatWasNeverAppendedIsUnavailable(t *testing.T) {
	for err, want := range map[error]metav1.Kind{
		raft.ErrNotLeader:                    metav1.Kind_KIND_UNAVAILABLE,
		raft.ErrLeadershipTransferInProgress: metav1.Kind_KIND_UNAVAILABLE,
		raft.ErrEnqueueTimeout:               metav1.Kind_KIND_UNAVAILABLE,
		raft.ErrAbortedByRestore:             metav1.Kind_KIND_UNAVAILABLE,
		raft.ErrLeadershipLost:               metav1.Kind_KIND_OUTCOME_UNKNOWN,
		raft.ErrRaftShutdown:                 metav1.Kind_KIND_OUTCOME_UNKNOWN,
		errors.New("disk on fire"):           metav1.Kind_KIND_OUTCOME_UNKNOWN,
	} {
		if got := meta.KindOf(classify(err)); got != want {
			t.Errorf("%v: %v, want %v", err, got, want)
		}
	}
}

func TestTheQueueIsBoundedInBytesAndAge(t *testing.T) {
	q := newQueue()
	big := make([]byte, meta.MaxCommand)
	for range queueBytes / meta.MaxCommand {
		if err := q.put(newCall(big)); err != nil {
			t.Fatal(err)
		}
	}
	if err := q.put(newCall(big)); !isUnavailable(err) {
		t.Errorf("beyond the bytes: %v", err)
	}
	if batch, err := q.take(t.Context()); err != nil || len(batch) != 1 {
		t.Errorf("a command longer than a batch goes alone: %d, %v", len(batch), err)
	}
	synctest.Test(t, func(t *testing.T) {
		q := newQueue()
		if err := q.put(newCall(nil)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(queueAge + 1)
		if err := q.put(newCall(nil)); !isUnavailable(err) {
			t.Errorf("beyond the age: %v", err)
		}
	})
}

func TestTheLowestOutstandingRisesOnlyPastWhatIsOver(t *testing.T) {
	o := newOrigin("n", "b")
	begin := func() *metav1.Origin {
		id, err := o.begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	first, second := begin(), begin()
	o.end(second.GetSequence())
	if third := begin(); third.GetLowestOutstanding() != first.GetSequence() || third.GetSequence() != 3 {
		t.Errorf("got %v while %v is outstanding", third, first)
	}
	o.end(first.GetSequence())
	if fourth := begin(); fourth.GetLowestOutstanding() != 3 {
		t.Errorf("got %v", fourth)
	}
}

func FuzzCheckCommand(f *testing.F) {
	f.Add(encodedCommand(f, "x"))
	f.Add([]byte{0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := checkCommand(b, func(*metav1.Command) error { return nil }); err != nil && !isRefusal(err) {
			t.Errorf("not a refusal: %v", err)
		}
	})
}

func TestEveryKindCrossesTheWire(t *testing.T) {
	for number := range metav1.Kind_name {
		kind := metav1.Kind(number)
		err := meta.Refuse(kind, metav1.Noun_NOUN_TAG, "m")
		err.Names, err.Current = []string{"n"}, "c"
		back := fromStatus(toStatus(err))
		if meta.KindOf(back) != kind || meta.NounOf(back) != metav1.Noun_NOUN_TAG || back.Error() != "m" {
			t.Errorf("%v came back as %v", kind, back)
		}
	}
}
