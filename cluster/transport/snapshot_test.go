package transport

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc/codes"

	raftv1 "github.com/pontoon-registry/pontoon/proto/pontoon/raft/v1"
)

// noise is so many bytes that do not compress and are the same each time.
func noise(n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(uint64(n), 1))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func snapshotRequest(size int) *raft.InstallSnapshotRequest {
	return &raft.InstallSnapshotRequest{RPCHeader: header("node-a"), SnapshotVersion: 1, Term: 7, LastLogIndex: 9, Size: int64(size)}
}

// installer is a Config.Install that reads everything.
func installer(got *[]byte) func(*Config) {
	return func(c *Config) {
		c.Install = func(_ context.Context, req *raft.InstallSnapshotRequest, data io.Reader) (*raft.InstallSnapshotResponse, error) {
			b, err := io.ReadAll(data)
			if err != nil {
				return nil, err
			}
			*got = b
			return &raft.InstallSnapshotResponse{RPCHeader: header("node-b"), Term: req.Term, Success: true}, nil
		}
	}
}

func TestASnapshotArrivesWholeWithoutRaft(t *testing.T) {
	b := newBook()
	var got []byte
	a := startNode(t, b, "node-a")
	startNode(t, b, "node-b", installer(&got)) // no Instance: no Raft runs there
	for _, n := range []int{0, 1, frameSize, 3*frameSize + 5} {
		data := noise(n)
		var resp raft.InstallSnapshotResponse
		must(t, a.Raft().Instance().InstallSnapshot("node-b", "node-b", snapshotRequest(n), &resp, bytes.NewReader(data)))
		if !bytes.Equal(got, data) || !resp.Success || resp.Term != 7 || string(resp.ID) != "node-b" {
			t.Errorf("%d bytes: %d came, answer %+v", n, len(got), resp)
		}
	}
}

func TestASnapshotThatIsNotAsAnnouncedFails(t *testing.T) {
	b := newBook()
	var got []byte
	a := startNode(t, b, "node-a")
	startNode(t, b, "node-b", installer(&got))
	send := func(req *raft.InstallSnapshotRequest, data io.Reader) error {
		return a.Raft().Instance().InstallSnapshot("node-b", "node-b", req, new(raft.InstallSnapshotResponse), data)
	}
	for name, err := range map[string]error{
		"shorter": send(snapshotRequest(11), bytes.NewReader(noise(10))),
		"longer":  send(snapshotRequest(9), bytes.NewReader(noise(10))),
		"broken":  send(snapshotRequest(10), io.MultiReader(bytes.NewReader(noise(5)), failing{})),
	} {
		if err == nil {
			t.Errorf("%s: it was taken", name)
		}
	}
	other := snapshotRequest(1)
	other.ID = []byte("node-c")
	refused(t, send(other, bytes.NewReader(noise(1))), codes.PermissionDenied, "names node")
	if got != nil {
		t.Errorf("%d bytes were installed", len(got))
	}
	c := startNode(t, b, "node-c") // takes none
	_ = c
	err := a.Raft().Instance().InstallSnapshot("node-c", "node-c", snapshotRequest(0), new(raft.InstallSnapshotResponse), bytes.NewReader(nil))
	refused(t, err, codes.Unimplemented, "takes no snapshots")
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("input/output error") }

// trickle gives a byte now and then, n times, and then hangs until its end.
type trickle struct {
	data  []byte // made before, which takes its time under the race detector
	n     int
	every time.Duration
	hang  chan struct{}
}

func (s *trickle) Read(p []byte) (int, error) {
	if s.n == 0 {
		<-s.hang
		return 0, io.EOF
	}
	s.n--
	<-time.After(s.every)
	return copy(p, s.data), nil
}

func TestASnapshotIsEndedByLackOfProgressOnly(t *testing.T) {
	b := newBook()
	var got []byte
	short := func(c *Config) { c.SnapshotTimeout = time.Second }
	a := startNode(t, b, "node-a", short)
	startNode(t, b, "node-b", short, installer(&got))
	// Slow, but never still: twice the timeout in all.
	data := noise(frameSize)
	for n := 1; ; n++ {
		slow := io.LimitReader(&trickle{data: data, n: 12, every: 170 * time.Millisecond}, 12*frameSize)
		err := a.Raft().Instance().InstallSnapshot("node-b", "node-b", snapshotRequest(12*frameSize), new(raft.InstallSnapshotResponse), slow)
		if err == nil {
			break
		}
		if n == 5 { // a busy machine may itself stand still for so long
			t.Fatalf("not in %d tries, the last: %v", n, err)
		}
	}
	if len(got) != 12*frameSize {
		t.Errorf("%d bytes came", len(got))
	}
	// A sender that stands still is given up by the receiver, and its answer ends the sender's call.
	hang := make(chan struct{})
	done := make(chan error, 1)
	go func() {
		done <- a.Raft().Instance().InstallSnapshot("node-b", "node-b", snapshotRequest(2*frameSize), new(raft.InstallSnapshotResponse), &trickle{data: data, n: 1, hang: hang})
	}()
	<-time.After(2 * time.Second)
	close(hang)
	if err := <-done; err == nil {
		t.Error("it was taken")
	}
}

func TestAPeerThatTakesNothingIsGivenUp(t *testing.T) {
	b := newBook()
	release := make(chan struct{})
	var begun, ended atomic.Bool
	a := startNode(t, b, "node-a", func(c *Config) { c.SnapshotTimeout = 300 * time.Millisecond })
	startNode(t, b, "node-b", func(c *Config) {
		c.Install = func(ctx context.Context, _ *raft.InstallSnapshotRequest, _ io.Reader) (*raft.InstallSnapshotResponse, error) {
			begun.Store(true)
			<-ctx.Done() // reads nothing
			ended.Store(true)
			<-release
			return nil, ctx.Err()
		}
	})
	defer close(release)
	until(t, time.Minute, func() error { // a busy machine may take so long to begin with it
		data := bytes.NewReader(make([]byte, 64*frameSize))
		err := a.Raft().Instance().InstallSnapshot("node-b", "node-b", snapshotRequest(64*frameSize), new(raft.InstallSnapshotResponse), data)
		if !errors.Is(err, errStalled) {
			t.Errorf("got %v", err)
		}
		if !begun.Load() {
			return errors.New("the peer was not asked")
		}
		return nil
	})
	until(t, time.Minute, func() error {
		if !ended.Load() {
			return errors.New("the peer was not told")
		}
		return nil
	})
}

func TestASnapshotEndsWithItsInstance(t *testing.T) {
	b := newBook()
	a := startNode(t, b, "node-a")
	begun := make(chan struct{})
	startNode(t, b, "node-b", func(c *Config) {
		c.Install = func(ctx context.Context, _ *raft.InstallSnapshotRequest, _ io.Reader) (*raft.InstallSnapshotResponse, error) {
			close(begun)
			<-ctx.Done()
			return nil, ctx.Err()
		}
	})
	done := make(chan error, 1)
	i := a.Raft().Instance()
	go func() {
		done <- i.InstallSnapshot("node-b", "node-b", snapshotRequest(0), new(raft.InstallSnapshotResponse), bytes.NewReader(nil))
	}()
	<-begun
	a.Raft().Detach()
	if err := <-done; err == nil {
		t.Error("it was answered")
	}
}

func TestAStateCanBePulled(t *testing.T) {
	b := newBook()
	data, closed := noise(2*frameSize+7), new(atomic.Int32)
	a := startNode(t, b, "node-a")
	startNode(t, b, "node-b", func(c *Config) {
		c.Snapshot = func() (*raft.InstallSnapshotRequest, io.ReadCloser, error) {
			return snapshotRequest(len(data)), closing{bytes.NewReader(data), closed}, nil
		}
	})
	err := a.Raft().Pull(t.Context(), "node-b", func(_ context.Context, req *raft.InstallSnapshotRequest, r io.Reader) error {
		got, err := io.ReadAll(r)
		if err == nil && (!bytes.Equal(got, data) || req.LastLogIndex != 9) {
			err = fmt.Errorf("%d bytes came", len(got))
		}
		return err
	})
	must(t, err)
	until(t, time.Minute, func() error { // the checksum comes first
		if n := closed.Load(); n != 1 {
			return fmt.Errorf("closed %d times", n)
		}
		return nil
	})
	startNode(t, b, "node-c")
	err = a.Raft().Pull(t.Context(), "node-c", func(context.Context, *raft.InstallSnapshotRequest, io.Reader) error { return nil })
	if err == nil || !strings.Contains(err.Error(), "gives no snapshots") {
		t.Errorf("got %v", err)
	}
}

type closing struct {
	io.Reader
	n *atomic.Int32
}

func (c closing) Close() error { c.n.Add(1); return nil }

// framesOf answers frames one after the other, then io.EOF.
func framesOf(frames ...*raftv1.SnapshotFrame) func() (*raftv1.SnapshotFrame, error) {
	return func() (*raftv1.SnapshotFrame, error) {
		if len(frames) == 0 {
			return nil, io.EOF
		}
		f := frames[0]
		frames = frames[1:]
		return f, nil
	}
}

func TestFramesThatMakeNoSnapshotAreRefused(t *testing.T) {
	head := func(size int64) *raftv1.SnapshotFrame {
		return &raftv1.SnapshotFrame{Head: &raftv1.SnapshotHead{Size: size}}
	}
	data := func(s string) *raftv1.SnapshotFrame { return &raftv1.SnapshotFrame{Data: []byte(s)} }
	sum := func(s string) *raftv1.SnapshotFrame {
		b := sha256.Sum256([]byte(s))
		return &raftv1.SnapshotFrame{Sha256: b[:]}
	}
	both := sum("ab")
	both.Data = []byte("b")
	for name, frames := range map[string][]*raftv1.SnapshotFrame{
		"no frame":            {},
		"no head":             {data("ab"), sum("ab")},
		"a negative size":     {head(-1), sum("")},
		"no checksum":         {head(2), data("ab")},
		"cut":                 {head(2), data("a")},
		"too early":           {head(2), data("a"), sum("a")},
		"too much":            {head(2), data("abc"), sum("abc")},
		"another checksum":    {head(2), data("ab"), sum("ax")},
		"two heads":           {head(2), head(2), data("ab"), sum("ab")},
		"an empty frame":      {head(2), {}, data("ab"), sum("ab")},
		"data with checksum":  {head(2), data("a"), both},
		"a head with content": {{Head: &raftv1.SnapshotHead{Size: 2}, Data: []byte("ab")}, sum("ab")},
	} {
		_, r, err := receiveSnapshot(framesOf(frames...))
		if err == nil {
			_, err = io.ReadAll(r)
		}
		if err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	_, r, err := receiveSnapshot(framesOf(head(2), data("a"), data("b"), sum("ab")))
	must(t, err)
	if got, err := io.ReadAll(r); err != nil || string(got) != "ab" {
		t.Errorf("got %q, %v", got, err)
	}
}

// FuzzReceiveSnapshot: no sequence of frames yields data other than what its checksum is of.
func FuzzReceiveSnapshot(f *testing.F) {
	f.Add([]byte("ab"), []byte("cd"), int64(4), true)
	f.Add([]byte(""), []byte("x"), int64(-1), false)
	f.Fuzz(func(t *testing.T, one, two []byte, size int64, right bool) {
		sum := sha256.Sum256(append(bytes.Clone(one), two...))
		if !right {
			sum[0]++
		}
		_, r, err := receiveSnapshot(framesOf(&raftv1.SnapshotFrame{Head: &raftv1.SnapshotHead{Size: size}},
			&raftv1.SnapshotFrame{Data: one}, &raftv1.SnapshotFrame{Data: two}, &raftv1.SnapshotFrame{Sha256: sum[:]}))
		if err != nil {
			return
		}
		got, err := io.ReadAll(r)
		if whole := append(bytes.Clone(one), two...); err == nil && (!right || !bytes.Equal(got, whole) || int64(len(whole)) != size) {
			t.Fatalf("%d bytes were taken for %d", len(got), size)
		}
	})
}
