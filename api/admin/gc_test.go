package admin

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/pontoon-registry/pontoon/meta"
	"github.com/pontoon-registry/pontoon/meta/kv"
	adminv1 "github.com/pontoon-registry/pontoon/proto/pontoon/admin/v1"
	"github.com/pontoon-registry/pontoon/proto/pontoon/admin/v1/adminv1connect"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// keeper is a Collector that notes what it was asked, and refuses when it has a refusal.
type keeper struct {
	verb, from       string
	epochs           []string
	markLost, dryRun bool
	by               *metav1.Envelope
	refusal          error
}

func (k *keeper) Settings(_ context.Context, into *adminv1.GetCollectionResponse) {
	into.Schedule, into.Mark = "never", &adminv1.OwnerMark{Held: true, SweptThrough: 7}
}

func (k *keeper) Plan(_ context.Context, epochs []string, yield func(*adminv1.PlanCycleResponse) error) error {
	k.verb, k.epochs = "plan", epochs
	for _, action := range []string{"condemn", "delete"} {
		if err := yield(&adminv1.PlanCycleResponse{Kind: &adminv1.PlanCycleResponse_Item{Item: &adminv1.PlanItem{Action: action, Bytes: 1 << 40}}}); err != nil {
			return err
		}
	}
	return k.refusal
}

func (k *keeper) Verify(_ context.Context, markLost bool, by *metav1.Envelope, yield func(*adminv1.VerifyStoreResponse) error) error {
	k.verb, k.markLost, k.by = "verify", markLost, by
	return errors.Join(yield(&adminv1.VerifyStoreResponse{Kind: &adminv1.VerifyStoreResponse_Sum{Sum: &adminv1.VerifySum{Blobs: 3}}}), k.refusal)
}

func (k *keeper) Adopt(_ context.Context, req *adminv1.AdoptStoreRequest, by *metav1.Envelope, yield func(*adminv1.VerifyStoreResponse) error) (*adminv1.Adoption, error) {
	k.verb, k.from, k.dryRun, k.by = "adopt", req.GetFrom(), req.GetDryRun(), by
	if err := yield(&adminv1.VerifyStoreResponse{}); err != nil {
		return nil, err
	}
	return &adminv1.Adoption{Search: true}, k.refusal
}

// propose commits a command of the collector or of the backup duty.
func (r *rig) propose(t *testing.T, c *metav1.Command) uint64 {
	t.Helper()
	c.Envelope = &metav1.Envelope{Actor: &metav1.Actor{Name: "system:test"}}
	res, err := r.ledger.Propose(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return res.GetIndex()
}

func (r *rig) begin(t *testing.T, trigger metav1.CycleTrigger) uint64 {
	t.Helper()
	return r.propose(t, &metav1.Command{Kind: &metav1.Command_BeginCycle{BeginCycle: &metav1.BeginCycle{Trigger: trigger}}})
}

func (r *rig) advance(t *testing.T, cycle uint64, phase metav1.CyclePhase, outcome metav1.CycleOutcome) {
	t.Helper()
	r.propose(t, &metav1.Command{Kind: &metav1.Command_AdvanceCycle{AdvanceCycle: &metav1.AdvanceCycle{
		Cycle: cycle, Phase: phase, Outcome: outcome, Kept: &metav1.CycleKept{Bytes: 5},
	}}})
}

const (
	scheduled = metav1.CycleTrigger_CYCLE_TRIGGER_SCHEDULE
	requested = metav1.CycleTrigger_CYCLE_TRIGGER_REQUEST
	marking   = metav1.CyclePhase_CYCLE_PHASE_MARK
	sweeping  = metav1.CyclePhase_CYCLE_PHASE_SWEEP
	goesOn    = metav1.CycleOutcome_CYCLE_OUTCOME_UNSPECIFIED
	done      = metav1.CycleOutcome_CYCLE_OUTCOME_DONE
	troubled  = metav1.CycleOutcome_CYCLE_OUTCOME_TROUBLED
)

// A request that comes while a cycle runs is answered by the next one, not by that.
func TestWhoWaitsIsToldOfTheCycleThatAnswersThem(t *testing.T) {
	r := newRig(t)
	other := r.begin(t, scheduled)
	stream, err := r.collection.RunCycle(t.Context(), &adminv1.RunCycleRequest{Wait: true})
	if err != nil {
		t.Fatal(err)
	}
	next := func() *adminv1.RunCycleResponse {
		t.Helper()
		if !stream.Receive() {
			t.Fatalf("the stream ended: %v", stream.Err())
		}
		return stream.Msg()
	}
	asked := next()
	if asked.GetRequest() == 0 || asked.GetCycle() != nil {
		t.Fatalf("first: got %v", asked)
	}
	r.advance(t, other, sweeping, done)
	own := r.begin(t, requested)
	if got := next(); got.GetCycle().GetId() != own || got.GetCycle().GetRequestedBy() == "" || got.GetRequest() != asked.GetRequest() {
		t.Fatalf("begun: got %v, expected cycle %d", got, own)
	}
	r.advance(t, own, marking, goesOn)
	if got := next(); got.GetCycle().GetPhase() != marking || got.GetCycle().GetEnded() != nil {
		t.Fatalf("on its way: got %v", got)
	}
	// Somebody asks again: what answers them is another one.
	r.propose(t, &metav1.Command{Kind: &metav1.Command_RequestCycle{RequestCycle: &metav1.RequestCycle{}}})
	r.advance(t, own, sweeping, troubled)
	if got := next(); got.GetCycle().GetId() != own || got.GetCycle().GetOutcome() != troubled || got.GetCycle().GetEnded() == nil {
		t.Fatalf("ended: got %v", got)
	}
	if stream.Receive() || stream.Err() != nil {
		t.Errorf("after the end: got %v, %v", stream.Msg(), stream.Err())
	}
}

// A leader with gc.enabled false, or none, begins no cycle.
func TestWhoWaitsForACycleThatNobodyBeginsIsToldSo(t *testing.T) {
	r := newRig(t)
	impatient := &collection{r.ledger, &r.gc, time.Millisecond, 20 * time.Millisecond}
	srv := httptest.NewServer(func() http.Handler { _, h := adminv1connect.NewCollectionServiceHandler(impatient); return h }())
	defer srv.Close()
	client := adminv1connect.NewCollectionServiceClient(srv.Client(), srv.URL)
	stream, err := client.RunCycle(t.Context(), &adminv1.RunCycleRequest{Wait: true})
	if err != nil {
		t.Fatal(err)
	}
	if !stream.Receive() || stream.Msg().GetRequest() == 0 {
		t.Fatalf("got %v, %v", stream.Msg(), stream.Err())
	}
	if stream.Receive() || !strings.Contains(stream.Err().Error(), "gc.enabled is false on the node that does") {
		t.Errorf("got %v, %v", stream.Msg(), stream.Err())
	}
}

func TestWhoDoesNotWaitHasAnAnswerAtOnce(t *testing.T) {
	r := newRig(t)
	stream, err := r.collection.RunCycle(t.Context(), &adminv1.RunCycleRequest{})
	if err != nil || !stream.Receive() || stream.Msg().GetRequest() == 0 || stream.Receive() || stream.Err() != nil {
		t.Fatalf("got %v, %v", stream.Msg(), err)
	}
	s, err := r.collection.GetCollection(t.Context(), &adminv1.GetCollectionRequest{})
	if err != nil || s.GetRequested() == nil || s.GetRunning() != nil || s.GetLast() != nil || !s.GetMark().GetHeld() || s.GetSchedule() != "never" {
		t.Errorf("status: got %v, %v", s, err)
	}
}

func TestCyclesAreListedTheLastFirst(t *testing.T) {
	r := newRig(t)
	var ids []uint64
	for range 25 {
		id := r.begin(t, scheduled)
		r.advance(t, id, sweeping, done)
		ids = append(ids, id)
	}
	running := r.begin(t, scheduled)
	for count, want := range map[int32]int{0: 20, 1: 1, 100: 25} {
		res, err := r.collection.ListCycles(t.Context(), &adminv1.ListCyclesRequest{Count: count})
		if err != nil || len(res.GetCycles()) != want || res.GetCycles()[0].GetId() != ids[24] {
			t.Errorf("%d: got %d, %v", count, len(res.GetCycles()), err)
		}
	}
	for _, count := range []int32{-1, 101} {
		if _, err := r.collection.ListCycles(t.Context(), &adminv1.ListCyclesRequest{Count: count}); connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("%d: got %v", count, err)
		}
	}
	s, err := r.collection.GetCollection(t.Context(), &adminv1.GetCollectionRequest{})
	if err != nil || s.GetRunning().GetId() != running || s.GetLast().GetId() != ids[24] || s.GetLast().GetKept().GetBytes() != 5 ||
		s.GetLast().GetEnded() == nil || s.GetRunning().GetEnded() != nil {
		t.Errorf("status: got %v, %v", s, err)
	}
}

// backup makes a backup whose content is of that wall time; open ones are not completed.
func (r *rig) backup(t *testing.T, id string, at time.Time, hold, complete bool) {
	t.Helper()
	id = strings.Repeat(id, 32)
	r.clock.Store(at.UnixNano())
	opened := r.propose(t, &metav1.Command{Kind: &metav1.Command_OpenBackup{OpenBackup: &metav1.OpenBackup{Id: id, Place: "backup", Hold: hold}}})
	if complete {
		r.propose(t, &metav1.Command{Kind: &metav1.Command_CompleteBackup{CompleteBackup: &metav1.CompleteBackup{
			Id: id, Index: opened, Term: 1, WallTime: at.UnixNano(), Name: "n", Size: 9, Sha256: make([]byte, 32),
		}}})
	}
}

func names(all []*adminv1.Restorable) string {
	var ids []string
	for _, b := range all {
		ids = append(ids, b.GetBackup()[:1])
	}
	return strings.Join(ids, "")
}

func TestGivingUpRetiresWhatIsOlderAndNamesWhatIsHeld(t *testing.T) {
	r := newRig(t)
	begin := time.Unix(0, r.clock.Load())
	at := func(h int) time.Time { return begin.Add(time.Duration(h) * time.Hour) }
	r.backup(t, "a", at(1), false, true)
	r.backup(t, "b", at(2), true, true)
	r.backup(t, "c", at(3), false, false)
	r.backup(t, "d", at(4), false, true)
	r.clock.Store(at(5).UnixNano())
	ask := func(before time.Time, dry bool) *adminv1.GiveUpRestoreResponse {
		t.Helper()
		res, err := r.collection.GiveUpRestore(t.Context(), &adminv1.GiveUpRestoreRequest{Before: timestamppb.New(before), DryRun: dry})
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	for before, want := range map[int]string{1: "//a", 2: "a//b", 3: "a/b/b", 4: "ac/b/b", 5: "acd/b/b"} {
		res := ask(at(before), true)
		if got := names(res.GetGivenUp()) + "/" + names(res.GetHeld()) + "/" + res.GetOldest().GetBackup()[:1]; got != want {
			t.Errorf("before %d: got %s, expected %s", before, got, want)
		}
	}
	oldest := func() (first string) {
		s, err := r.collection.GetCollection(t.Context(), &adminv1.GetCollectionRequest{})
		if err != nil {
			t.Fatal(err)
		}
		return s.GetOldest().GetBackup()
	}
	if got := oldest(); got != strings.Repeat("a", 32) {
		t.Errorf("a dry run gave up something: the oldest is %s", got)
	}
	if res := ask(at(4), false); names(res.GetGivenUp()) != "ac" || names(res.GetHeld()) != "b" || !res.GetHeld()[0].GetHold() {
		t.Errorf("for real: got %v", res)
	}
	if got := oldest(); got != strings.Repeat("b", 32) {
		t.Errorf("the oldest is %s, expected the one on hold", got)
	}
	if res := ask(at(4), false); names(res.GetGivenUp()) != "" {
		t.Errorf("again: got %v", res)
	}
	for _, bad := range []*timestamppb.Timestamp{nil, {Nanos: -1}} {
		if _, err := r.collection.GiveUpRestore(t.Context(), &adminv1.GiveUpRestoreRequest{Before: bad}); connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("%v: got %v", bad, err)
		}
	}
}

func TestLongCallsCarryWhatWasAskedAndTheirRefusalsHaveACode(t *testing.T) {
	r := newRig(t)
	for _, refused := range []bool{false, true} {
		want := connect.Code(0)
		if refused {
			r.gc.refusal, want = meta.Refuse(metav1.Kind_KIND_CONFLICT, metav1.Noun_NOUN_STORE, "it is another's"), connect.CodeAborted
		}
		plan, err := r.collection.PlanCycle(t.Context(), &adminv1.PlanCycleRequest{ForgetEpochs: []string{"old"}})
		count := 0
		for err == nil && plan.Receive() {
			count++
		}
		if count != 2 || r.gc.verb != "plan" || len(r.gc.epochs) != 1 || codeAfter(plan.Err()) != want {
			t.Errorf("plan: got %d, %v, %+v", count, plan.Err(), r.gc)
		}
		verify, err := r.collection.VerifyStore(t.Context(), &adminv1.VerifyStoreRequest{MarkLost: true})
		if err != nil || !verify.Receive() || verify.Msg().GetSum().GetBlobs() != 3 || verify.Receive() || codeAfter(verify.Err()) != want || !r.gc.markLost {
			t.Errorf("verify: got %v, %v, %+v", err, verify.Err(), r.gc)
		}
		adopt, err := r.collection.AdoptStore(t.Context(), &adminv1.AdoptStoreRequest{From: "one", DryRun: true})
		var last *adminv1.AdoptStoreResponse
		for err == nil && adopt.Receive() {
			last = adopt.Msg()
		}
		if codeAfter(adopt.Err()) != want || (last.GetAdoption() == nil) != refused || r.gc.from != "one" || !r.gc.dryRun {
			t.Errorf("adopt: got %v, %v, %+v", last, adopt.Err(), r.gc)
		}
		if r.gc.by.GetActor().GetMethod() != "socket" || r.gc.by.GetRequestId() == "" {
			t.Errorf("asked by %v", r.gc.by)
		}
	}
}

func codeAfter(err error) connect.Code {
	if err == nil {
		return 0
	}
	return connect.CodeOf(err)
}

func TestAdoptingForgetsOtherEpochsByTheNextCycle(t *testing.T) {
	r := newRig(t)
	adopt := func(req *adminv1.AdoptStoreRequest) (*adminv1.Adoption, error) {
		stream, err := r.collection.AdoptStore(t.Context(), req)
		if err != nil {
			return nil, err
		}
		var out *adminv1.Adoption
		for stream.Receive() {
			if a := stream.Msg().GetAdoption(); a != nil {
				out = a
			}
		}
		return out, stream.Err()
	}
	for name, epochs := range map[string][]string{
		"our own": {"solo"}, "empty": {""}, "upper case": {"E"}, "too long": {strings.Repeat("e", 33)}, "too many": make([]string, 101),
	} {
		if _, err := adopt(&adminv1.AdoptStoreRequest{ForgetEpochs: epochs}); connect.CodeOf(err) != connect.CodeInvalidArgument || r.gc.verb != "" {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, err := adopt(&adminv1.AdoptStoreRequest{From: strings.Repeat("x", 256)}); connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("from: got %v", err)
	}
	if a, err := adopt(&adminv1.AdoptStoreRequest{ForgetEpochs: []string{"old"}, DryRun: true}); err != nil || a.GetRequest() != 0 {
		t.Errorf("dry run: got %v, %v", a, err)
	}
	a, err := adopt(&adminv1.AdoptStoreRequest{ForgetEpochs: []string{"old"}})
	if err != nil || a.GetRequest() == 0 {
		t.Fatalf("got %v, %v", a, err)
	}
	err = r.ledger.View(t.Context(), meta.Read{}, func(v *meta.View) error {
		row, err := v.Collection()
		if got := row.GetRequested().GetForgetEpochs(); len(got) != 1 || got[0] != "old" {
			t.Errorf("asked to forget %q", got)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// Streams pass the door as all calls do: without an identity nothing answers.
func TestStreamsNeedTheSocketToo(t *testing.T) {
	r := newRig(t)
	handler, err := New(Config{Ledger: r.ledger, Members: known{}, Membership: &r.crew, Trust: &r.crew, Collector: &r.gc, Backups: &r.saver})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(handler)
	defer srv.Close()
	c := adminv1connect.NewCollectionServiceClient(http.DefaultClient, srv.URL)
	stream, err := c.RunCycle(t.Context(), &adminv1.RunCycleRequest{})
	if err == nil && (stream.Receive() || connect.CodeOf(stream.Err()) != connect.CodeUnauthenticated) {
		t.Errorf("got %v, %v", stream.Msg(), stream.Err())
	}
	if _, err := c.GetCollection(t.Context(), &adminv1.GetCollectionRequest{}); connect.CodeOf(err) != connect.CodeUnauthenticated {
		t.Errorf("got %v", err)
	}
	s, err := r.collection.GetCollection(t.Context(), &adminv1.GetCollectionRequest{})
	if err != nil || s.GetRequested() != nil {
		t.Errorf("a stranger asked for a cycle: %v, %v", s, err)
	}
}

// An older cluster would refuse the request after the mark was taken.
func TestAnOlderClusterIsNotLetAdoptToForget(t *testing.T) {
	store, err := kv.OpenMemory()
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	state, err := meta.Open(store)
	if err != nil {
		t.Fatal(err)
	}
	init, err := proto.Marshal(&metav1.Entry{Format: 1, Commands: []*metav1.Command{{Envelope: &metav1.Envelope{NodeId: "n"},
		Kind: &metav1.Command_InitCluster{InitCluster: &metav1.InitCluster{ClusterId: "old", Epoch: "own", Incarnation: 1, Version: 2, Name: "old"}}}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := state.Apply([]meta.LogEntry{{Index: 1, Term: 1, Data: init}}); err != nil {
		t.Fatal(err)
	}
	if err := state.Close(); err != nil {
		t.Fatal(err)
	}
	ledger, err := meta.NewSolo(store, func() int64 { return 0 })
	if err != nil {
		t.Fatal(err)
	}
	defer ledger.Close()
	c := &collection{ledger: ledger}
	if err := c.mayForget(t.Context(), []string{"other"}); meta.KindOf(err) != metav1.Kind_KIND_UNSUPPORTED || !strings.Contains(err.Error(), "needs command version 3, the cluster has 2") {
		t.Errorf("got %v", err)
	}
	if err := c.mayForget(t.Context(), nil); err != nil {
		t.Errorf("nothing to forget: got %v", err)
	}
}
