package transport

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	raftv1 "github.com/pontoon-registry/pontoon/proto/pontoon/raft/v1"
)

// fill sets every field below v to something that is not its zero value, and
// fails on a kind of field it does not know, so that none slips by.
func fill(t *testing.T, r *rand.Rand, v reflect.Value) {
	t.Helper()
	switch v.Interface().(type) {
	case time.Time:
		v.Set(reflect.ValueOf(time.Unix(r.Int64N(1<<34), r.Int64N(1e9)).UTC()))
		return
	case []byte:
		b := make([]byte, 1+r.IntN(40))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		v.SetBytes(b)
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(t, r, v.Field(i))
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1+r.IntN(4), 5))
		for i := range v.Len() {
			fill(t, r, v.Index(i))
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(t, r, v.Elem())
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(1 + r.Uint64N(uint64(1)<<(v.Type().Bits()-1)))
	case reflect.Int, reflect.Int64:
		v.SetInt(1 + r.Int64N(1<<40))
	case reflect.Bool:
		v.SetBool(true)
	default:
		t.Fatalf("a field of type %s: teach fill, and the conversions, about it", v.Type())
	}
}

// wired sends a message through its encoding.
func wired[M proto.Message](t *testing.T, m M) M {
	t.Helper()
	b, err := proto.Marshal(m)
	must(t, err)
	out := m.ProtoReflect().New().Interface()
	must(t, proto.Unmarshal(b, out))
	return out.(M)
}

func TestEveryFieldOfEveryRaftStructCrossesTheWire(t *testing.T) {
	same := func(r *rand.Rand, in any, cross func() (any, error)) {
		t.Helper()
		fill(t, r, reflect.ValueOf(in).Elem())
		out, err := cross()
		must(t, err)
		if !reflect.DeepEqual(in, out) {
			t.Errorf("%T:\nsent     %+v\nreceived %+v", in, in, out)
		}
	}
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 0))
		appendReq := new(raft.AppendEntriesRequest)
		same(r, appendReq, func() (any, error) { return appendFromWire(wired(t, appendToWire(appendReq))) })
		same(r, appendReq, func() (any, error) {
			// The stream has a converter of its own for the rest.
			w := wired(t, appendHeadToWire(appendReq))
			for _, l := range appendReq.Entries {
				w.Entries = append(w.Entries, wired(t, entryToWire(l)))
			}
			return appendFromWire(w)
		})
		appendResp := new(raft.AppendEntriesResponse)
		same(r, appendResp, func() (any, error) { v := appendedFromWire(wired(t, appendedToWire(appendResp))); return &v, nil })
		voteReq := new(raft.RequestVoteRequest)
		same(r, voteReq, func() (any, error) { return voteFromWire(wired(t, voteToWire(voteReq))), nil })
		voteResp := new(raft.RequestVoteResponse)
		same(r, voteResp, func() (any, error) { v := votedFromWire(wired(t, votedToWire(voteResp))); return &v, nil })
		preReq := new(raft.RequestPreVoteRequest)
		same(r, preReq, func() (any, error) { return preVoteFromWire(wired(t, preVoteToWire(preReq))), nil })
		preResp := new(raft.RequestPreVoteResponse)
		same(r, preResp, func() (any, error) { v := preVotedFromWire(wired(t, preVotedToWire(preResp))); return &v, nil })
		nowReq := new(raft.TimeoutNowRequest)
		same(r, nowReq, func() (any, error) { return timeoutNowFromWire(wired(t, timeoutNowToWire(nowReq))), nil })
		nowResp := new(raft.TimeoutNowResponse)
		same(r, nowResp, func() (any, error) { v := timedOutFromWire(wired(t, timedOutToWire(nowResp))); return &v, nil })
		installReq := new(raft.InstallSnapshotRequest)
		same(r, installReq, func() (any, error) { return installFromWire(wired(t, installToWire(installReq))), nil })
		installResp := new(raft.InstallSnapshotResponse)
		same(r, installResp, func() (any, error) { v := installedFromWire(wired(t, installedToWire(installResp))); return &v, nil })
		entry := new(raft.Log)
		same(r, entry, func() (any, error) { return entryFromWire(wired(t, entryToWire(entry))) })
	}
}

func TestZeroValuesStayZeroOnTheWire(t *testing.T) {
	entry, err := entryFromWire(wired(t, entryToWire(&raft.Log{})))
	must(t, err)
	if !reflect.DeepEqual(entry, &raft.Log{}) {
		t.Errorf("got %+v", entry)
	}
	req, err := appendFromWire(wired(t, appendToWire(&raft.AppendEntriesRequest{Term: 1})))
	must(t, err)
	if !isHeartbeat(req) {
		t.Errorf("got %+v", req)
	}
}

func TestEntriesThatRaftCannotHoldAreRefused(t *testing.T) {
	if _, err := entryFromWire(&raftv1.Entry{Index: 7, Type: 256}); fmt.Sprint(err) != "entry 7: type is 256, must be at most 255" {
		t.Errorf("got %v", err)
	}
	e := entryToWire(&raft.Log{AppendedAt: time.Now()})
	e.AppendedAt.Nanos = -1
	if _, err := entryFromWire(e); err == nil {
		t.Error("a time that is none was accepted")
	}
}
