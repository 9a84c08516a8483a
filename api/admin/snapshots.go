package admin

import (
	"context"
	"encoding/hex"
	"io"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/pontoon-registry/pontoon/meta"
	adminv1 "github.com/pontoon-registry/pontoon/proto/pontoon/admin/v1"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// Backups takes snapshots; any node's does. Its errors are refusals that say what to do.
type Backups interface {
	// Request asks the leader for a snapshot in the configured place and answers its id.
	Request(ctx context.Context, by *metav1.Envelope, hold bool) (id string, err error)
	// Read writes the state as one file to w; opened hears the id before the first byte. On an error the snapshot is given up.
	Read(ctx context.Context, by *metav1.Envelope, hold bool, opened func(id string) error, w io.Writer) (*adminv1.WrittenSnapshot, error)
}

// snapshots serves SnapshotService.
type snapshots struct {
	ledger  meta.Ledger
	backups Backups
	// poll is how often a snapshot that somebody waits for is looked at.
	poll time.Duration
}

const (
	// snapshotPoll is how often somebody who waits hears of a snapshot.
	snapshotPoll = 500 * time.Millisecond
	// frameBytes is how much of a file one message carries.
	frameBytes = 256 << 10
	// fileNameBound bounds what a file is called, in bytes.
	fileNameBound = 512
	// filePlace is the place of a snapshot in a file; see metav1.Backup.
	filePlace = "file"
)

func (s *snapshots) SaveSnapshot(ctx context.Context, req *adminv1.SaveSnapshotRequest, stream *connect.ServerStream[adminv1.SaveSnapshotResponse]) error {
	id, err := s.backups.Request(ctx, envelope(ctx), req.GetHold())
	if err != nil {
		return err
	}
	var last *adminv1.Snapshot
	tick := time.NewTicker(s.poll)
	defer tick.Stop()
	for {
		now, err := s.find(ctx, id)
		switch {
		case meta.KindOf(err) == metav1.Kind_KIND_UNAVAILABLE && ctx.Err() == nil && last != nil:
			now = last // no leader for the moment: the next one goes on with it
		case err != nil:
			return err
		}
		if !proto.Equal(now, last) {
			if err := stream.Send(&adminv1.SaveSnapshotResponse{Snapshot: now}); err != nil {
				return err
			}
			last = now
		}
		if now.GetState() == metav1.BackupState_BACKUP_STATE_RETIRED {
			return meta.Refuse(metav1.Kind_KIND_CONFLICT, metav1.Noun_NOUN_BACKUP, "snapshot %s was given up before it was complete: see the leader's log", id)
		}
		if now.GetState() == metav1.BackupState_BACKUP_STATE_COMPLETE || req.GetNoWait() {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (s *snapshots) ReadSnapshot(ctx context.Context, req *adminv1.ReadSnapshotRequest, stream *connect.ServerStream[adminv1.ReadSnapshotResponse]) error {
	opened := func(id string) error {
		return stream.Send(&adminv1.ReadSnapshotResponse{Kind: &adminv1.ReadSnapshotResponse_Id{Id: id}})
	}
	written, err := s.backups.Read(ctx, envelope(ctx), req.GetHold(), opened, frames{stream})
	if err != nil {
		return err
	}
	return stream.Send(&adminv1.ReadSnapshotResponse{Kind: &adminv1.ReadSnapshotResponse_Written{Written: written}})
}

// frames sends what is written to it.
type frames struct {
	stream *connect.ServerStream[adminv1.ReadSnapshotResponse]
}

func (f frames) Write(p []byte) (n int, err error) {
	for n < len(p) {
		part := p[n:min(len(p), n+frameBytes)]
		if err := f.stream.Send(&adminv1.ReadSnapshotResponse{Kind: &adminv1.ReadSnapshotResponse_Data{Data: part}}); err != nil {
			return n, err
		}
		n += len(part)
	}
	return n, nil
}

func (s *snapshots) CompleteSnapshot(ctx context.Context, req *adminv1.CompleteSnapshotRequest) (*adminv1.CompleteSnapshotResponse, error) {
	w, name := req.GetWritten(), req.GetName()
	if len(name) < 1 || len(name) > fileNameBound {
		return nil, invalid(metav1.Noun_NOUN_BACKUP, "name: got %d bytes, expected 1 to %d: what the file is called", len(name), fileNameBound)
	}
	open, err := s.find(ctx, w.GetId())
	if err != nil {
		return nil, err
	}
	if open.GetPlace() != filePlace {
		return nil, invalid(metav1.Noun_NOUN_BACKUP, "snapshot %s: is none in a file; the leader completes it", w.GetId())
	}
	_, err = s.ledger.Propose(ctx, &metav1.Command{Envelope: envelope(ctx), Kind: &metav1.Command_CompleteBackup{CompleteBackup: &metav1.CompleteBackup{
		Id: w.GetId(), Index: w.GetIndex(), Term: w.GetTerm(), ClusterTime: w.GetClusterTime(), WallTime: w.GetWallTime(),
		Name: name, Size: w.GetSize(), Sha256: w.GetSha256(),
	}}})
	if err != nil {
		return nil, err
	}
	found, err := s.find(ctx, w.GetId())
	return &adminv1.CompleteSnapshotResponse{Snapshot: found}, err
}

func (s *snapshots) ListSnapshots(ctx context.Context, _ *adminv1.ListSnapshotsRequest) (*adminv1.ListSnapshotsResponse, error) {
	out := &adminv1.ListSnapshotsResponse{}
	return out, s.ledger.View(ctx, meta.Read{}, func(v *meta.View) (err error) {
		rows, err := v.Backups()
		if err != nil {
			return err
		}
		for _, row := range rows {
			out.Snapshots = append(out.Snapshots, snapshotOf(row.ID, row.Backup))
		}
		out.OldestRestorable, _, err = v.OldestRestorable()
		return err
	})
}

func (s *snapshots) RetireSnapshot(ctx context.Context, req *adminv1.RetireSnapshotRequest) (*adminv1.RetireSnapshotResponse, error) {
	_, err := s.ledger.Propose(ctx, &metav1.Command{Envelope: envelope(ctx), Kind: &metav1.Command_RetireBackup{
		RetireBackup: &metav1.RetireBackup{Id: req.GetId(), Release: req.GetRelease()}}})
	if err != nil {
		return nil, err
	}
	found, err := s.find(ctx, req.GetId())
	if meta.KindOf(err) == metav1.Kind_KIND_UNKNOWN {
		found, err = &adminv1.Snapshot{Id: req.GetId(), State: metav1.BackupState_BACKUP_STATE_RETIRED}, nil // it is gone already
	}
	return &adminv1.RetireSnapshotResponse{Snapshot: found}, err
}

func (s *snapshots) find(ctx context.Context, id string) (*adminv1.Snapshot, error) {
	var out *adminv1.Snapshot
	err := s.ledger.View(ctx, meta.Read{}, func(v *meta.View) error {
		row, err := v.Backup(id)
		if err == nil {
			out = snapshotOf(id, row)
		}
		return err
	})
	return out, err
}

func snapshotOf(id string, b *metav1.Backup) *adminv1.Snapshot {
	out := &adminv1.Snapshot{
		Id: id, State: b.GetState(), Place: b.GetPlace(), Hold: b.GetHold(), OpenedBy: b.GetOpened().GetActor(),
		Index: b.GetIndex(), Name: b.GetName(), Size: b.GetSize(), Sha256: hex.EncodeToString(b.GetSha256()),
	}
	for _, t := range []struct {
		at   int64
		into **timestamppb.Timestamp
	}{
		{b.GetOpened().GetWallTime(), &out.Opened}, {b.GetWallTime(), &out.Time}, {b.GetCompleted().GetWallTime(), &out.Completed},
	} {
		if t.at != 0 {
			*t.into = timestamppb.New(time.Unix(0, t.at))
		}
	}
	return out
}
