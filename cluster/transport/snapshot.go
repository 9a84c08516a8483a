package transport

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	raftv1 "github.com/pontoon-registry/pontoon/proto/pontoon/raft/v1"
)

// A snapshot on the wire, in both directions:
//
//	frame 1     the request of Raft, which names index, term, configuration and size
//	frame 2…    data, at most 1 MiB each
//	last frame  SHA-256 of all data
//
// It has no deadline but one of progress: SnapshotTimeout without a byte ends it
// at both ends. What the data means is the affair of Config.Install and Config.Snapshot.

// errStalled ends a snapshot that makes no progress.
var errStalled = errors.New("the snapshot made no progress")

// InstallSnapshot implements raft.Transport. The answer comes when the peer has
// installed the snapshot, or has no need of it.
func (i *Instance) InstallSnapshot(id raft.ServerID, _ raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	cfg := &i.raft.host.cfg
	if err := cfg.Gate(); err != nil {
		return fmt.Errorf("send a snapshot to node %s: %w", id, err)
	}
	cc, err := i.raft.host.Conn(string(id), Bulk)
	if err != nil {
		return err
	}
	ctx, w := watch(i.ctx, cfg.SnapshotTimeout)
	defer w.stop()
	// A peer out of reach is waited for, as with appends: see patiently.
	stream, err := raftv1.NewRaftServiceClient(cc).InstallSnapshot(ctx, grpc.WaitForReady(true))
	if err != nil {
		return w.explain(err)
	}
	err = sendSnapshot(args, data, func(f *raftv1.SnapshotFrame) error {
		w.progress()
		return stream.Send(&raftv1.InstallSnapshotRequest{Frame: f})
	})
	if err != nil && !errors.Is(err, io.EOF) { // on io.EOF the peer has answered early: CloseAndRecv says what
		return w.explain(err)
	}
	w.patience(cfg.InstallTimeout)
	answer, err := stream.CloseAndRecv()
	if err != nil {
		return w.explain(err)
	}
	*resp = installedFromWire(answer)
	return nil
}

// InstallSnapshot hands a snapshot to Config.Install. It reaches no Instance:
// Raft never sees one (design-review.md R-B2 to R-B4).
func (s *raftService) InstallSnapshot(stream raftv1.RaftService_InstallSnapshotServer) error {
	if err := s.gate(); err != nil {
		return err
	}
	cfg := &s.raft.host.cfg
	if cfg.Install == nil {
		return status.Errorf(codes.Unimplemented, "node %s takes no snapshots", cfg.NodeID)
	}
	ctx := stream.Context()
	recv := s.raft.timely(ctx, func() (*raftv1.SnapshotFrame, error) {
		r, err := stream.Recv()
		return r.GetFrame(), err
	})
	req, data, err := receiveSnapshot(recv)
	if err != nil {
		return frameStatus(err)
	}
	caller, _ := PeerID(ctx)
	if id := string(req.ID); id != caller {
		return status.Errorf(codes.PermissionDenied, "node %s sent a snapshot that names node %q as its sender", caller, id)
	}
	resp, err := cfg.Install(ctx, req, data)
	if err != nil {
		return snapshotStatus(err)
	}
	return stream.SendAndClose(installedToWire(resp))
}

// PullSnapshot answers what Config.Snapshot opens.
func (s *raftService) PullSnapshot(_ *raftv1.PullSnapshotRequest, stream raftv1.RaftService_PullSnapshotServer) error {
	cfg := &s.raft.host.cfg
	if cfg.Snapshot == nil {
		return status.Errorf(codes.Unimplemented, "node %s gives no snapshots", cfg.NodeID)
	}
	req, data, err := cfg.Snapshot()
	if err != nil {
		return snapshotStatus(err)
	}
	err = sendSnapshot(req, data, func(f *raftv1.SnapshotFrame) error {
		return stream.Send(&raftv1.PullSnapshotResponse{Frame: f})
	})
	return errors.Join(err, data.Close())
}

// Pull asks a node for a snapshot of its state and gives it to take, which reads
// data to its end: only then is it whole. ctx ends it, or SnapshotTimeout without progress.
func (r *Raft) Pull(ctx context.Context, nodeID string, take func(ctx context.Context, req *raft.InstallSnapshotRequest, data io.Reader) error) error {
	cc, err := r.host.Conn(nodeID, Bulk)
	if err != nil {
		return err
	}
	ctx, w := watch(ctx, r.host.cfg.SnapshotTimeout)
	defer w.stop()
	stream, err := raftv1.NewRaftServiceClient(cc).PullSnapshot(ctx, &raftv1.PullSnapshotRequest{})
	if err != nil {
		return w.explain(err)
	}
	req, data, err := receiveSnapshot(func() (*raftv1.SnapshotFrame, error) {
		w.progress()
		f, err := stream.Recv()
		w.pause() // what take does with it has its own bounds
		return f.GetFrame(), err
	})
	if err != nil {
		return w.explain(err)
	}
	return w.explain(take(ctx, req, data))
}

// snapshotStatus is Unavailable for what says nothing else: trying again later may help.
func snapshotStatus(err error) error {
	var st interface{ GRPCStatus() *status.Status }
	if errors.As(err, &st) {
		return err
	}
	return status.Error(codes.Unavailable, err.Error())
}

// sendSnapshot cuts a snapshot into frames. The data must be as long as the request says.
func sendSnapshot(req *raft.InstallSnapshotRequest, data io.Reader, send func(*raftv1.SnapshotFrame) error) error {
	if err := send(&raftv1.SnapshotFrame{Head: installToWire(req)}); err != nil {
		return err
	}
	sum, buf, sent := sha256.New(), make([]byte, frameSize), int64(0)
	for {
		n, err := io.ReadFull(data, buf)
		if n > 0 {
			sum.Write(buf[:n])
			sent += int64(n)
			if err := send(&raftv1.SnapshotFrame{Data: buf[:n]}); err != nil {
				return err
			}
		}
		switch {
		case err == nil:
			continue
		case !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
			return fmt.Errorf("read snapshot: %w", err)
		case sent != req.Size:
			return fmt.Errorf("read snapshot: it has %d bytes, %d were announced", sent, req.Size)
		}
		return send(&raftv1.SnapshotFrame{Sha256: sum.Sum(nil)})
	}
}

// receiveSnapshot answers the request and a reader of the data, which ends with
// io.EOF only when all of it has come and its checksum is right.
func receiveSnapshot(recv func() (*raftv1.SnapshotFrame, error)) (*raft.InstallSnapshotRequest, io.Reader, error) {
	f, err := recv()
	if err != nil {
		return nil, nil, fmt.Errorf("first frame of a snapshot: %w", err)
	}
	if f.GetHead() == nil || len(f.GetData())+len(f.GetSha256()) > 0 {
		return nil, nil, errors.New("first frame of a snapshot: must hold the head and nothing else")
	}
	if f.GetHead().GetSize() < 0 {
		return nil, nil, fmt.Errorf("first frame of a snapshot: size is %d, must not be negative", f.GetHead().GetSize())
	}
	req := installFromWire(f.GetHead())
	return req, &snapshotReader{recv: recv, left: req.Size, sum: sha256.New()}, nil
}

// snapshotReader reads data frames until the checksum has come.
type snapshotReader struct {
	recv func() (*raftv1.SnapshotFrame, error)
	rest []byte
	// left is what was announced and has not come.
	left int64
	sum  hash.Hash
	err  error
}

func (r *snapshotReader) Read(p []byte) (int, error) {
	if len(r.rest) == 0 && r.err == nil {
		r.err = r.next()
	}
	if len(r.rest) == 0 {
		return 0, r.err
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// next takes one frame: data into rest, or io.EOF for a checksum that is right.
func (r *snapshotReader) next() error {
	f, err := r.recv()
	switch {
	case errors.Is(err, io.EOF):
		return fmt.Errorf("snapshot: the stream ended before its checksum, %d bytes are missing: %w", r.left, io.ErrUnexpectedEOF)
	case err != nil:
		return fmt.Errorf("snapshot: %d bytes are missing: %w", r.left, err)
	case f.GetHead() != nil || (len(f.GetData()) > 0) == (len(f.GetSha256()) > 0):
		return errors.New("snapshot: a frame must hold either data or the checksum")
	case int64(len(f.GetData())) > r.left:
		return fmt.Errorf("snapshot: a frame of %d bytes, %d were still to come", len(f.GetData()), r.left)
	case len(f.GetData()) > 0:
		r.sum.Write(f.GetData())
		r.rest, r.left = f.GetData(), r.left-int64(len(f.GetData()))
		return nil
	case r.left > 0:
		return fmt.Errorf("snapshot: the checksum came, but %d bytes are missing", r.left)
	case !bytes.Equal(f.GetSha256(), r.sum.Sum(nil)):
		return errors.New("snapshot: the checksum differs: it was damaged on its way")
	}
	return io.EOF
}

// timely makes recv fail when nothing comes for SnapshotTimeout: a handler's Recv
// knows no deadline. The goroutine ends with the stream, which ends when the handler returns; Host.stop waits for it.
func (r *Raft) timely(ctx context.Context, recv func() (*raftv1.SnapshotFrame, error)) func() (*raftv1.SnapshotFrame, error) {
	type received struct {
		frame *raftv1.SnapshotFrame
		err   error
	}
	frames := make(chan received)
	r.receiving.Go(func() {
		for {
			f, err := recv()
			select {
			case frames <- received{f, err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	})
	return func() (*raftv1.SnapshotFrame, error) {
		t := time.NewTimer(r.host.cfg.SnapshotTimeout)
		defer t.Stop()
		select {
		case f := <-frames:
			return f.frame, f.err
		case <-ctx.Done():
			return nil, status.FromContextError(ctx.Err()).Err()
		case <-t.C:
			return nil, status.Errorf(codes.DeadlineExceeded, "nothing came for %v", r.host.cfg.SnapshotTimeout)
		}
	}
}

// watchdog cancels a call that makes no progress.
type watchdog struct {
	ctx   context.Context
	timer *time.Timer
	limit time.Duration
	end   context.CancelCauseFunc
}

func watch(ctx context.Context, limit time.Duration) (context.Context, *watchdog) {
	ctx, end := context.WithCancelCause(ctx)
	return ctx, &watchdog{ctx: ctx, timer: time.AfterFunc(limit, func() { end(errStalled) }), limit: limit, end: end}
}

func (w *watchdog) progress()                { w.timer.Reset(w.limit) }
func (w *watchdog) patience(d time.Duration) { w.timer.Reset(d) }
func (w *watchdog) pause()                   { w.timer.Stop() }
func (w *watchdog) stop()                    { w.timer.Stop(); w.end(nil) }

// explain says of a call that the watchdog cancelled that it did.
func (w *watchdog) explain(err error) error {
	if err != nil && errors.Is(context.Cause(w.ctx), errStalled) {
		return fmt.Errorf("%w for %v: %w", errStalled, w.limit, err)
	}
	return err
}
