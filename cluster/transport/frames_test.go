package transport

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	raftv1 "github.com/pontoon-registry/pontoon/proto/pontoon/raft/v1"
)

type frame = raftv1.AppendEntriesStreamRequest

func replay(frames []*frame) func() (*frame, error) {
	return func() (*frame, error) {
		if len(frames) == 0 {
			return nil, io.EOF
		}
		f := frames[0]
		frames = frames[1:]
		return f, nil
	}
}

func request(sizes ...int) *raft.AppendEntriesRequest {
	r := &raft.AppendEntriesRequest{RPCHeader: header("node-a"), Term: 3, PrevLogEntry: 9, PrevLogTerm: 2, LeaderCommitIndex: 8}
	for i, n := range sizes {
		r.Entries = append(r.Entries, &raft.Log{Index: uint64(10 + i), Term: 3})
		if n > 0 {
			r.Entries[i].Data = bytes.Repeat([]byte{byte(i + 1)}, n)
		}
	}
	return r
}

func TestFramesArePutTogetherAsTheyWereCut(t *testing.T) {
	sizes := [][]int{
		{}, {0}, {0, 0, 0}, {1}, {frameSize - entryOverhead}, {frameSize}, {frameSize + 1}, {3 * frameSize}, {3*frameSize + 5},
		{1, 2 * frameSize, 1}, {frameSize / 2, frameSize / 2, frameSize / 2}, {2 * frameSize, 2 * frameSize}, {5, 0, frameSize, 0},
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 30 {
		var random []int
		for range r.IntN(20) {
			random = append(random, r.IntN(1<<r.IntN(22)))
		}
		sizes = append(sizes, random)
	}
	for _, s := range sizes {
		req := request(s...)
		if len(req.Entries) > 1 { // extensions of more than a frame, too
			req.Entries[0].Extensions = bytes.Repeat([]byte("ext"), r.IntN(frameSize))
		}
		if len(req.Entries) > 0 && len(req.Entries[0].Extensions) == 0 {
			req.Entries[0].Extensions = nil
		}
		size, _ := payload(req.Entries)
		var frames []*frame
		must(t, sendFrames(req, size, func(f *frame) error {
			if n := proto.Size(f); n > frameSize+4096 {
				t.Errorf("sizes %v: a frame of %d bytes", s, n)
			}
			frames = append(frames, wired(t, f))
			return nil
		}))
		got, err := receiveFrames(size+frameSize, replay(frames))
		if err != nil {
			t.Fatalf("sizes %v: %v", s, err)
		}
		if !reflect.DeepEqual(req, got) {
			t.Fatalf("sizes %v: another request came out", s)
		}
		for lost := 1; lost < len(frames); lost++ { // no part may be missing unnoticed
			some := append(append([]*frame{}, frames[:lost]...), frames[lost+1:]...)
			if _, err := receiveFrames(size+frameSize, replay(some)); err == nil {
				t.Fatalf("sizes %v: frame %d of %d was not missed", s, lost, len(frames))
			}
		}
	}
}

func TestFramesThatMakeNoSenseAreRefused(t *testing.T) {
	head := func(count uint32, size uint64) *frame {
		return &frame{Request: &raftv1.AppendEntriesRequest{Term: 1}, Count: count, Size: size}
	}
	entries := func(n, each int) *frame {
		f := &frame{}
		for range n {
			f.Entries = append(f.Entries, &raftv1.Entry{Data: make([]byte, each)})
		}
		return f
	}
	for _, c := range []struct {
		want   string
		frames []*frame
	}{
		{"first frame: EOF", nil},
		{"request is missing", []*frame{entries(1, 1)}},
		{"must hold no entries", []*frame{{Request: &raftv1.AppendEntriesRequest{Entries: []*raftv1.Entry{{}}}}}},
		{"must hold no entries", []*frame{{Request: &raftv1.AppendEntriesRequest{}, Data: []byte("x")}}},
		{"size is 1048577 bytes, must be at most 1048576", []*frame{head(1, mib+1)}},
		{"count is 4294967295 entries, must be at most 16384", []*frame{head(1<<32-1, 1)}},
		{"a second request", []*frame{head(1, 1), head(1, 1)}},
		{"a piece before the first entry", []*frame{head(1, 1), {Data: []byte("x")}}},
		{"1 entries and 2 bytes have come, 1 and 1 were announced", []*frame{head(1, 1), entries(1, 2)}},
		{"2 entries and 2 bytes have come, 1 and 2 were announced", []*frame{head(1, 2), entries(2, 1)}},
		{"1 entries and 2 bytes have come", []*frame{head(1, 1), entries(1, 1), {Extensions: []byte("x")}}},
		{"stream ended after 1 entries and 1 bytes, 2 and 1", []*frame{head(2, 1), entries(1, 1)}},
		{"type is 999", []*frame{head(1, 1), {Entries: []*raftv1.Entry{{Type: 999}}}}},
	} {
		_, err := receiveFrames(mib, replay(c.frames))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %q", err, c.want)
		}
	}
	broken := errors.New("connection lost")
	if _, err := receiveFrames(mib, func() (*frame, error) { return nil, broken }); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

// FuzzReceiveFrames feeds what a hostile peer might send: frames cut out of the
// input, two bytes of length each.
func FuzzReceiveFrames(f *testing.F) {
	add := func(frames ...*frame) {
		var in []byte
		for _, fr := range frames {
			b, err := proto.Marshal(fr)
			must(f, err)
			in = append(append(in, byte(len(b)>>8), byte(len(b))), b...)
		}
		f.Add(in)
	}
	add(&frame{Request: &raftv1.AppendEntriesRequest{Term: 1}, Count: 1, Size: 3},
		&frame{Entries: []*raftv1.Entry{{Index: 1, Data: []byte("a")}}}, &frame{Data: []byte("b")}, &frame{Extensions: []byte("c")})
	add(&frame{Request: &raftv1.AppendEntriesRequest{}})
	const limit = 4096
	f.Fuzz(func(t *testing.T, in []byte) {
		req, err := receiveFrames(limit, func() (*frame, error) {
			if len(in) < 2 {
				return nil, io.EOF
			}
			n := min(int(in[0])<<8|int(in[1]), len(in)-2)
			fr := new(frame)
			err := proto.Unmarshal(in[2:2+n], fr)
			in = in[2+n:]
			return fr, err
		})
		if err != nil {
			return
		}
		if size, _ := payload(req.Entries); size > limit || len(req.Entries) > limit/entryOverhead {
			t.Errorf("%d bytes in %d entries came through a limit of %d", size, len(req.Entries), limit)
		}
	})
}
