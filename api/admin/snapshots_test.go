package admin

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"connectrpc.com/connect"

	"github.com/pontoon-registry/pontoon/meta"
	adminv1 "github.com/pontoon-registry/pontoon/proto/pontoon/admin/v1"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// saver is a Backups that opens rows as the real one does; its file is body.
type saver struct {
	propose func(*metav1.Command) error
	id      string
	body    []byte
	by      *metav1.Envelope
	refusal error
	// gaveUp is the error with which the reader of the file went away.
	gaveUp error
}

func (s *saver) open(by *metav1.Envelope, place string, hold bool) error {
	if s.by = by; s.refusal != nil {
		return s.refusal
	}
	return s.propose(&metav1.Command{Envelope: by, Kind: &metav1.Command_OpenBackup{OpenBackup: &metav1.OpenBackup{Id: s.id, Place: place, Hold: hold}}})
}

func (s *saver) Request(_ context.Context, by *metav1.Envelope, hold bool) (string, error) {
	return s.id, s.open(by, "backup", hold)
}

func (s *saver) Read(_ context.Context, by *metav1.Envelope, hold bool, opened func(string) error, w io.Writer) (*adminv1.WrittenSnapshot, error) {
	if err := errors.Join(s.open(by, "file", hold), opened(s.id)); err != nil {
		return nil, err
	}
	if _, err := w.Write(s.body); err != nil {
		s.gaveUp = err
		return nil, err
	}
	return &adminv1.WrittenSnapshot{Id: s.id, Index: 3, Term: 1, Size: 9, Sha256: bytes.Repeat([]byte{7}, 32)}, nil
}

const snapshotID = "0123456789abcdef0123456789abcdef"

func snapshotRig(t *testing.T) *rig {
	r := newRig(t)
	r.saver = saver{id: snapshotID, body: bytes.Repeat([]byte("0123456789"), frameBytes/4), propose: func(c *metav1.Command) error {
		_, err := r.ledger.Propose(t.Context(), c)
		return err
	}}
	return r
}

func (r *rig) completed(t *testing.T) {
	t.Helper()
	s := r.listed(t)[0]
	r.propose(t, &metav1.Command{Kind: &metav1.Command_CompleteBackup{CompleteBackup: &metav1.CompleteBackup{
		Id: s.GetId(), Index: 3, Term: 1, WallTime: 5e9, Name: "where", Size: 7, Sha256: bytes.Repeat([]byte{7}, 32)}}})
}

func (r *rig) listed(t *testing.T) []*adminv1.Snapshot {
	t.Helper()
	res, err := r.snapshots.ListSnapshots(t.Context(), &adminv1.ListSnapshotsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return res.GetSnapshots()
}

// TestSaveTellsHowItGoesUntilItIsComplete: the leader's duty is played by the test.
func TestSaveTellsHowItGoesUntilItIsComplete(t *testing.T) {
	r := snapshotRig(t)
	stream, err := r.snapshots.SaveSnapshot(t.Context(), &adminv1.SaveSnapshotRequest{Hold: true})
	if err != nil {
		t.Fatal(err)
	}
	if !stream.Receive() || stream.Msg().GetSnapshot().GetState() != metav1.BackupState_BACKUP_STATE_OPEN || !stream.Msg().GetSnapshot().GetHold() {
		t.Fatalf("at first: %v, %v", stream.Msg(), stream.Err())
	}
	r.completed(t)
	if !stream.Receive() {
		t.Fatalf("at the end: %v", stream.Err())
	}
	s := stream.Msg().GetSnapshot()
	if s.GetState() != metav1.BackupState_BACKUP_STATE_COMPLETE || s.GetIndex() != 3 || s.GetName() != "where" || s.GetSize() != 7 ||
		s.GetTime().AsTime().Unix() != 5 || !strings.HasPrefix(s.GetSha256(), "0707") || s.GetOpenedBy() == "" || s.GetCompleted() == nil {
		t.Errorf("at the end: %v", s)
	}
	if stream.Receive() || stream.Err() != nil {
		t.Errorf("after the end: %v, %v", stream.Msg(), stream.Err())
	}
	if r.saver.by.GetActor().GetMethod() != "socket" {
		t.Errorf("asked by %v", r.saver.by)
	}
}

func TestSaveSaysThatASnapshotWasGivenUp(t *testing.T) {
	r := snapshotRig(t)
	stream, err := r.snapshots.SaveSnapshot(t.Context(), &adminv1.SaveSnapshotRequest{})
	if err != nil || !stream.Receive() {
		t.Fatal(err)
	}
	r.propose(t, &metav1.Command{Kind: &metav1.Command_RetireBackup{RetireBackup: &metav1.RetireBackup{Id: snapshotID}}})
	for stream.Receive() {
		continue // what comes last counts
	}
	if connect.CodeOf(stream.Err()) != connect.CodeAborted || !strings.Contains(stream.Err().Error(), "was given up") {
		t.Errorf("got %v", stream.Err())
	}
}

func TestSaveWithoutWaitingAnswersAtOnce(t *testing.T) {
	r := snapshotRig(t)
	stream, err := r.snapshots.SaveSnapshot(t.Context(), &adminv1.SaveSnapshotRequest{NoWait: true})
	if err != nil || !stream.Receive() || stream.Receive() || stream.Err() != nil {
		t.Errorf("got %v, %v", err, stream.Err())
	}
	r = snapshotRig(t)
	r.saver.refusal = meta.Refuse(metav1.Kind_KIND_UNSUPPORTED, metav1.Noun_NOUN_BACKUP, "no place")
	stream, err = r.snapshots.SaveSnapshot(t.Context(), &adminv1.SaveSnapshotRequest{})
	if err == nil && (stream.Receive() || connect.CodeOf(stream.Err()) != connect.CodeUnimplemented && connect.CodeOf(stream.Err()) != connect.CodeFailedPrecondition) {
		t.Errorf("refused: %v", stream.Err())
	}
}

// TestAFileComesInFramesAndIsCompleteOnceItsReaderSaysSo, and lists, releases and refuses on the way.
func TestAFileComesInFramesAndIsCompleteOnceItsReaderSaysSo(t *testing.T) {
	r := snapshotRig(t)
	stream, err := r.snapshots.ReadSnapshot(t.Context(), &adminv1.ReadSnapshotRequest{Hold: true})
	if err != nil {
		t.Fatal(err)
	}
	var got []byte
	var written *adminv1.WrittenSnapshot
	for n := 0; stream.Receive(); n++ {
		m := stream.Msg()
		if (m.GetId() != "") != (n == 0) || len(m.GetData()) > frameBytes {
			t.Errorf("message %d: id %q, %d bytes", n, m.GetId(), len(m.GetData()))
		}
		got, written = append(got, m.GetData()...), m.GetWritten()
	}
	if stream.Err() != nil || !bytes.Equal(got, r.saver.body) || written.GetId() != snapshotID {
		t.Fatalf("%d bytes, %v, %v", len(got), written, stream.Err())
	}
	complete := func(w *adminv1.WrittenSnapshot, name string) error {
		res, err := r.snapshots.CompleteSnapshot(t.Context(), &adminv1.CompleteSnapshotRequest{Written: w, Name: name})
		if err == nil && (res.GetSnapshot().GetState() != metav1.BackupState_BACKUP_STATE_COMPLETE || res.GetSnapshot().GetName() != name) {
			t.Errorf("complete: %v", res)
		}
		return err
	}
	if err := complete(written, ""); connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("without a name: %v", err)
	}
	if err := complete(&adminv1.WrittenSnapshot{Id: "x"}, "/f"); connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("of another: %v", err)
	}
	if err := complete(written, "/f"); err != nil {
		t.Error(err)
	}
	if _, err := r.snapshots.RetireSnapshot(t.Context(), &adminv1.RetireSnapshotRequest{Id: snapshotID}); err == nil {
		t.Error("one on hold was retired without release")
	}
	res, err := r.snapshots.RetireSnapshot(t.Context(), &adminv1.RetireSnapshotRequest{Id: snapshotID, Release: true})
	if err != nil || res.GetSnapshot().GetState() != metav1.BackupState_BACKUP_STATE_RETIRED {
		t.Errorf("release: %v, %v", res, err)
	}
	if all := r.listed(t); len(all) != 1 || all[0].GetPlace() != "file" {
		t.Errorf("listed: %v", all)
	}
}

// TestWhatTheLeaderWritesIsNotCompletedByOthers: a row of the configured place is the duty's.
func TestWhatTheLeaderWritesIsNotCompletedByOthers(t *testing.T) {
	r := snapshotRig(t)
	if _, err := r.saver.Request(t.Context(), &metav1.Envelope{}, false); err != nil {
		t.Fatal(err)
	}
	w := &adminv1.WrittenSnapshot{Id: snapshotID, Index: 3, Term: 1, Sha256: bytes.Repeat([]byte{7}, 32)}
	_, err := r.snapshots.CompleteSnapshot(t.Context(), &adminv1.CompleteSnapshotRequest{Written: w, Name: "/f"})
	if connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("got %v", err)
	}
}
