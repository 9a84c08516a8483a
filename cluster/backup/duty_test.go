package backup

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pontoon-registry/pontoon/blobs"
	"github.com/pontoon-registry/pontoon/blobs/blobstest"
	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

var errDown = fmt.Errorf("connection refused: %w", blobs.ErrUnavailable)

// TestTwoLeadersAtOnceDoNoHarm lets a deposed leader that does not know it go on beside the next one for the whole scenario.
func TestTwoLeadersAtOnceDoNoHarm(t *testing.T) {
	inWorld(t, Config{Schedule: "@every 10m", Keep: 1}, func(w *world) {
		first, second := w.lead(), w.lead()
		scenario(w)
		first()
		second()
		last := w.lead()
		time.Sleep(12 * time.Minute)
		synctest.Wait()
		last()
		w.settled()
	})
}

// TestWhatIsDamagedOnItsWayIsNoBackup is K1: an object that the store changed is found before the backup counts, and the next try is whole.
func TestWhatIsDamagedOnItsWayIsNoBackup(t *testing.T) {
	inWorld(t, Config{Schedule: "@every 1h", Keep: 1}, func(w *world) {
		damaged := ""
		w.changed = func(name string, body []byte) []byte {
			if damaged == "" && strings.HasSuffix(name, "rows-00000.zst") {
				damaged = name
				body = bytes.Clone(body)
				body[len(body)/2] ^= 1
			}
			return body
		}
		stop := w.lead()
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if rows := w.rows(); len(rows) != 1 || rows[0].GetState() != metav1.BackupState_BACKUP_STATE_OPEN || w.metrics.count(StepFull) != 1 {
			t.Errorf("after a damaged upload: %v, %v", rows, w.metrics.failed)
		}
		if !strings.Contains(w.lines.String(), "level=ERROR") || !strings.Contains(w.lines.String(), damaged) {
			t.Errorf("nobody is told that %s was damaged: %s", damaged, w.lines)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		stop()
		w.settled()
	})
}

// TestADamagedSegmentIsArchivedAgain: the log that was read back wrong is not lost.
func TestADamagedSegmentIsArchivedAgain(t *testing.T) {
	inWorld(t, Config{Schedule: "@every 1h", Keep: 1}, func(w *world) {
		once := false
		w.changed = func(name string, body []byte) []byte {
			if !once && strings.Contains(name, "/log/") {
				once = true
				return body[:len(body)-1]
			}
			return body
		}
		stop := w.lead()
		time.Sleep(5 * time.Second)
		w.write(1)
		time.Sleep(time.Minute)
		synctest.Wait()
		stop()
		if !once || w.metrics.count(StepLog) == 0 {
			t.Errorf("damaged: %v, failures %v", once, w.metrics.failed)
		}
		w.settled()
	})
}

// TestAStoreThatIsDownIsToldOfAndCaughtUpWith: loud lines, figures, and no entry lost.
func TestAStoreThatIsDownIsToldOfAndCaughtUpWith(t *testing.T) {
	inWorld(t, Config{Schedule: "@every 1h", Keep: 1}, func(w *world) {
		stop := w.lead()
		time.Sleep(time.Minute)
		w.archive.Set(blobstest.Fault{Action: "any", Before: errDown})
		for n := range 70 {
			w.write(n)
			time.Sleep(time.Minute)
			synctest.Wait()
		}
		if w.metrics.entries < 70 || w.metrics.waiting < 69*time.Minute || w.metrics.waiting > 71*time.Minute {
			t.Errorf("the lag is %d entries, %v", w.metrics.entries, w.metrics.waiting)
		}
		if w.metrics.count(StepLog) < 60 || w.metrics.count(StepFull) < 2 || w.metrics.count(StepFull) > 20 {
			t.Errorf("failures %v", w.metrics.failed)
		}
		if n := strings.Count(w.lines.String(), "the log is not archived"); n < 60 || n > 75 {
			t.Errorf("it was told %d times in 70 minutes", n)
		}
		w.archive.Set()
		time.Sleep(15 * time.Minute)
		synctest.Wait()
		if w.metrics.entries != 0 || w.metrics.waiting != 0 {
			t.Errorf("the lag is still %d entries, %v", w.metrics.entries, w.metrics.waiting)
		}
		stop()
		w.settled()
	})
}

// TestALogThatWasCompactedTooSoonIsMadeGoodByAFullBackup at once, not at the next hour of the schedule.
func TestALogThatWasCompactedTooSoonIsMadeGoodByAFullBackup(t *testing.T) {
	inWorld(t, Config{Schedule: "@every 1000h", Keep: 1}, func(w *world) {
		stop := w.lead()
		w.write(0)
		time.Sleep(time.Minute)
		stop()
		for n := range 5 {
			w.write(n)
		}
		w.compacted, _ = w.state.Hash()
		w.write(6)
		stop = w.lead()
		time.Sleep(time.Minute)
		synctest.Wait()
		w.write(7)
		time.Sleep(time.Minute)
		synctest.Wait()
		stop()
		if !strings.Contains(w.lines.String(), "compacted before it was archived") {
			t.Error("nobody is told of the gap")
		}
		w.settled()
	})
}

// TestAnIdleClusterArchivesItsClockSeldom: an hour of ticks makes a few segments, a write comes at once and takes them along.
func TestAnIdleClusterArchivesItsClockSeldom(t *testing.T) {
	inWorld(t, Config{Schedule: "@every 1000h", Keep: 1}, func(w *world) {
		stop := w.lead()
		time.Sleep(time.Minute)
		segments := func() int {
			all, err := OpenLog(w.store, "c0", 1).Segments(t.Context())
			w.check(err)
			return len(all)
		}
		before := segments()
		for range 60 {
			w.tick()
			time.Sleep(time.Minute)
			synctest.Wait()
		}
		if n := segments() - before; n < 5 || n > 7 {
			t.Errorf("%d segments of an idle hour", n)
		}
		if w.metrics.entries != 0 {
			t.Errorf("ticks count as a lag of %d", w.metrics.entries)
		}
		before = segments()
		w.tick()
		w.write(1)
		time.Sleep(shipEvery + time.Second)
		synctest.Wait()
		if n := segments() - before; n != 1 {
			t.Errorf("a write made %d segments in %v", n, shipEvery)
		}
		stop()
		w.settled()
	})
}

// TestALargeLogIsCutAndComesBack: many segments, of which only the last has the head of the chain.
func TestALargeLogIsCutAndComesBack(t *testing.T) {
	inWorld(t, Config{Schedule: "@every 1000h", Keep: 1}, func(w *world) {
		stop := w.lead()
		time.Sleep(time.Minute)
		for n := range 400 {
			w.must(push(n, 60_000))
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		stop()
		all, err := OpenLog(w.store, "c0", 1).Segments(t.Context())
		if err != nil || len(all) < 3 {
			t.Errorf("%d segments, %v", len(all), err)
		}
		w.settled()
	})
}

// TestACopyOfTheClusterIsNoticed: what is in the archive is not of this log.
func TestACopyOfTheClusterIsNoticed(t *testing.T) {
	for name, c := range map[string]struct {
		wait time.Duration
		make func(w *world) *Segment
	}{
		"it is ahead": {0, func(w *world) *Segment { return segmentOf(aLog(w.t), 10, 90) }},
		"its last entries differ": {0, func(w *world) *Segment {
			applied, _ := w.state.Hash()
			return segmentOf(aLog(w.t), applied-1, applied)
		}},
		"it was quicker": {5 * time.Second, func(w *world) *Segment {
			applied, _ := w.state.Hash()
			return segmentOf(aLog(w.t), applied, applied+1)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, Config{Schedule: "@every 1000h", Keep: 1}, func(w *world) {
				w.write(0)
				w.write(1)
				stop := func() {}
				if c.wait > 0 {
					stop = w.lead()
					time.Sleep(c.wait)
					synctest.Wait()
				}
				putSegment(t, w.store, c.make(w))
				if c.wait == 0 {
					stop = w.lead()
				} else {
					w.write(2)
				}
				time.Sleep(3 * time.Second)
				synctest.Wait()
				stop()
				if text := w.lines.String(); !strings.Contains(text, "another cluster with id c0 writes here") || w.metrics.count(StepLog) == 0 {
					t.Errorf("nobody is told: %s", text)
				}
			})
		})
	}
}

// TestNothingIsDeletedFromAStoreThatIsNotOurs (G9); judged refuses every deletion then.
func TestNothingIsDeletedFromAStoreThatIsNotOurs(t *testing.T) {
	inWorld(t, Config{Schedule: "@every 10m", Keep: 1}, func(w *world) {
		w.owns = errors.New("it belongs to cluster c9")
		stop := w.lead()
		scenario(w)
		scenario(w)
		stop()
		if w.metrics.count(StepRetain) == 0 || !strings.Contains(w.lines.String(), "nothing is deleted: it belongs to cluster c9") {
			t.Errorf("nobody is told: %s", w.lines)
		}
		complete := 0
		for _, b := range w.rows() {
			if b.GetState() == metav1.BackupState_BACKUP_STATE_COMPLETE {
				complete++
			}
		}
		if complete != 1 {
			t.Errorf("%d complete backups: retention does not wait for the store", complete)
		}
		w.owns = nil
		stop = w.lead()
		time.Sleep(12 * time.Minute)
		synctest.Wait()
		stop()
		w.settled()
	})
}

// TestAPlaceThatIsEmptyGetsABackupAtOnce: the place was changed in the configuration, or somebody emptied it.
func TestAPlaceThatIsEmptyGetsABackupAtOnce(t *testing.T) {
	inWorld(t, Config{Schedule: "@every 1000h", Keep: 1}, func(w *world) {
		stop := w.lead()
		time.Sleep(time.Minute)
		w.write(1)
		time.Sleep(time.Minute)
		stop()
		w.emptied = true
		for o, err := range w.store.List(t.Context(), "", "") {
			w.check(err)
			w.check(w.store.Delete(t.Context(), o.Key))
		}
		stop = w.lead()
		time.Sleep(time.Minute)
		synctest.Wait()
		stop()
		w.emptied = false
		if !strings.Contains(w.lines.String(), "is not in the place of backups") {
			t.Error("nobody is told")
		}
		w.settled()
	})
}

// TestTheLogOfALifeBeforeARecoveryGoesWithItsLastSnapshot: nothing leads to it any more (K5).
func TestTheLogOfALifeBeforeARecoveryGoesWithItsLastSnapshot(t *testing.T) {
	inWorld(t, Config{Schedule: "@every 1h", Keep: 1}, func(w *world) {
		stop := w.lead()
		for n := range 2 {
			w.write(n)
			time.Sleep(10 * time.Minute)
		}
		synctest.Wait()
		stop()
		w.must(&metav1.Command{Kind: &metav1.Command_RaiseIncarnation{RaiseIncarnation: &metav1.RaiseIncarnation{Incarnation: 2, NodeId: "n1", Life: "l2"}}})
		stop = w.lead()
		for n := range 3 {
			w.write(n)
			time.Sleep(time.Hour)
		}
		synctest.Wait()
		stop()
		for o, err := range w.store.List(t.Context(), folder("c0", 1), "") {
			t.Errorf("left over of the earlier life: %s, %v", o.Key, err)
		}
		if w.metrics.count(StepRetain) > 0 {
			t.Errorf("failures %v", w.metrics.failed)
		}
	})
}

// TestARequestIsARow: whoever asks on any node, the leader finishes it, also one that leads later; on hold it stays.
func TestARequestIsARow(t *testing.T) {
	inWorld(t, Config{Schedule: "@every 1h", Keep: 1}, func(w *world) {
		k, err := New(w.cfg)
		if err != nil {
			t.Fatal(err)
		}
		by := &metav1.Envelope{Actor: &metav1.Actor{Name: "olivia"}}
		id, err := k.Request(t.Context(), by, true)
		if err != nil {
			t.Fatal(err)
		}
		stop := w.lead()
		time.Sleep(5*time.Hour + 30*time.Minute)
		synctest.Wait()
		rows := w.rows()
		if len(rows) != 2 || rows[0].ID != id || !rows[0].GetHold() || rows[0].GetState() != metav1.BackupState_BACKUP_STATE_COMPLETE ||
			rows[0].GetOpened().GetActor() != "olivia" {
			t.Errorf("rows %v", rows)
		}
		w.must(retireBackup(id, true))
		time.Sleep(time.Minute)
		synctest.Wait()
		stop()
		w.settled()
		if rows := w.rows(); len(rows) != 1 {
			t.Errorf("after the release: %v", rows)
		}
	})
}

// TestWhatNobodyFinishesIsGivenUpAfterADay: a file whose writer died, and a snapshot that cannot be written; not one on hold.
func TestWhatNobodyFinishesIsGivenUpAfterADay(t *testing.T) {
	inWorld(t, Config{Schedule: "@every 1000h", Keep: 1}, func(w *world) {
		lost, held := NewID(), NewID()
		w.must(openBackup(lost, PlaceFile, false))
		w.must(openBackup(held, PlaceFile, true))
		w.archive.Set(blobstest.Fault{Action: "put", Before: errDown})
		stop := w.lead()
		states := func() map[string]metav1.BackupState {
			out := map[string]metav1.BackupState{}
			for _, b := range w.rows() {
				out[b.ID] = b.GetState()
			}
			return out
		}
		for range 23 {
			time.Sleep(time.Hour)
			w.tick()
		}
		synctest.Wait()
		if s := states(); len(s) != 3 || s[lost] != metav1.BackupState_BACKUP_STATE_OPEN {
			t.Errorf("after 23 hours: %v", s)
		}
		for range 3 {
			time.Sleep(time.Hour)
			w.tick()
		}
		synctest.Wait()
		s := states()
		if _, there := s[lost]; there || s[held] != metav1.BackupState_BACKUP_STATE_OPEN || len(s) != 2 {
			t.Errorf("after 26 hours: %v", s)
		}
		w.archive.Set()
		w.must(retireBackup(held, true))
		time.Sleep(time.Hour)
		synctest.Wait()
		stop()
		w.settled()
	})
}

// TestAFileIsKeptAccountOf: its row is open before its view and given up when writing fails; complete, it is protected for KeepFor.
func TestAFileIsKeptAccountOf(t *testing.T) {
	inWorld(t, Config{Schedule: "@every 1000h", Keep: 1, KeepFor: 3 * time.Hour}, func(w *world) {
		k, err := New(w.cfg)
		if err != nil {
			t.Fatal(err)
		}
		w.write(1)
		by := &metav1.Envelope{Actor: &metav1.Actor{Name: "olivia"}}
		full := &fullDisk{room: 1500}
		if _, _, err := k.SaveFile(t.Context(), by, true, func(string) error { return nil }, full); !errors.Is(err, errNoSpace) {
			t.Errorf("a full disk: %v", err)
		}
		if rows := w.rows(); len(rows) != 1 || rows[0].GetState() != metav1.BackupState_BACKUP_STATE_RETIRED {
			t.Errorf("after a full disk: %v", rows)
		}
		var b bytes.Buffer
		opened := ""
		id, out, err := k.SaveFile(t.Context(), by, false, func(id string) error { opened = id; return nil }, &b)
		if err != nil || opened != id {
			t.Fatalf("opened %s, %s, %v", opened, id, err)
		}
		s, err := OpenTar("f", bytes.NewReader(b.Bytes()), int64(b.Len()))
		if err != nil {
			t.Fatal(err)
		}
		w.check(s.Verify(t.Context(), nil))
		m := s.Manifest()
		for _, row := range w.rows() {
			if row.ID == id && m.Index < row.GetOpened().GetIndex() {
				t.Errorf("opened at %d after its view of %d", row.GetOpened().GetIndex(), m.Index)
			}
		}
		w.must(&metav1.Command{Kind: &metav1.Command_CompleteBackup{CompleteBackup: &metav1.CompleteBackup{
			Id: id, Index: m.Index, Term: m.Term, ClusterTime: m.ClusterTime, WallTime: m.WallTime, Name: "f", Size: out.Size, Sha256: out.SHA256}}})
		stop := w.lead()
		protected := func() (n int) {
			for _, b := range w.rows() {
				if b.GetPlace() == PlaceFile {
					n++
				}
			}
			return n
		}
		time.Sleep(2 * time.Hour)
		w.tick()
		time.Sleep(time.Minute)
		if protected() != 1 {
			t.Errorf("%d rows of files after two hours", protected())
		}
		time.Sleep(2 * time.Hour)
		w.tick()
		time.Sleep(time.Minute)
		synctest.Wait()
		if protected() != 0 {
			t.Errorf("%d rows of files after four hours", protected())
		}
		stop()
		w.settled()
	})
}

var errNoSpace = errors.New("no space left on device")

// fullDisk is a file on a disk with so much room.
type fullDisk struct{ room int }

func (f *fullDisk) Write(p []byte) (int, error) {
	if f.room -= len(p); f.room < 0 {
		return 0, errNoSpace
	}
	return len(p), nil
}

// TestAnOldClusterHasNoBackups: a command that its other nodes do not know must not be proposed (M7).
func TestAnOldClusterHasNoBackups(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorldOf(t, Config{}, neededVersion-1)
		stop := w.lead()
		w.write(1)
		time.Sleep(time.Hour)
		synctest.Wait()
		stop()
		if w.proposals != 0 || w.calls != 0 {
			t.Errorf("%d proposals, %d calls", w.proposals, w.calls)
		}
	})
}

func TestABackupIsDueWhen(t *testing.T) {
	const hour = int64(time.Hour)
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	k, err := New(Config{Ledger: &world{}, Logger: newTestLogger(), Metrics: &figures{}, Schedule: "0 3 * * *"})
	if err != nil {
		t.Fatal(err)
	}
	complete := func(opened time.Time, clock int64) meta.BackupItem {
		return meta.BackupItem{ID: "a", Backup: &metav1.Backup{State: metav1.BackupState_BACKUP_STATE_COMPLETE, Place: PlaceArchive, Index: 50,
			Name:   fmt.Sprintf("%s%020d-a/", fullFolder("c0", 1), 50),
			Opened: &metav1.Stamp{Index: 40, WallTime: opened.UnixNano(), ClusterTime: clock}}}
	}
	for name, c := range map[string]struct {
		opened      time.Time
		age         int64
		incarnation uint64
		logFrom     uint64
		due         bool
	}{
		"since this morning":            {now.Add(-9 * time.Hour), 9 * hour, 1, 0, false},
		"since last night before three": {now.Add(-10 * time.Hour), 10 * hour, 1, 0, true},
		"of an earlier life":            {now.Add(-time.Hour), hour, 2, 0, true},
		"the log goes on beyond it":     {now.Add(-time.Hour), hour, 1, 51, true},
		"the log goes back to it":       {now.Add(-time.Hour), hour, 1, 50, false},
		"the clock was a year ahead":    {now.Add(8760 * time.Hour), 25 * hour, 1, 0, true},
		"the clock is a year ahead now": {now.Add(-8760 * time.Hour), hour, 1, 0, true},
		"the clock went back an hour":   {now.Add(time.Hour), hour, 1, 0, false},
	} {
		k.setLogFrom(c.logFrom)
		s := &seen{clusterID: "c0", incarnation: c.incarnation, clock: c.age, rows: []meta.BackupItem{complete(c.opened, 0)}}
		if why := k.due(s, now); (why != "") != c.due {
			t.Errorf("%s: due %q", name, why)
		}
	}
	if k.due(&seen{}, now) == "" {
		t.Error("without any: not due")
	}
}

// TestAScheduleThatNeverComesIsRefused: it would be due always.
func TestAScheduleThatNeverComesIsRefused(t *testing.T) {
	for s, good := range map[string]bool{"0 3 31 2 *": false, "0 3 31 4,6,9,11 *": false, "0 3 29 2 *": true, "0 3 31 * *": true} {
		if _, err := ParseSchedule(s); (err == nil) != good {
			t.Errorf("%q: %v", s, err)
		}
	}
}

// TestAnUnevenScheduleIsKept: what is not due on a Saturday is not made due by the distance of two other days.
func TestAnUnevenScheduleIsKept(t *testing.T) {
	k, err := New(Config{Ledger: &world{}, Logger: newTestLogger(), Metrics: &figures{}, Schedule: "0 3 * * 1-5"})
	if err != nil {
		t.Fatal(err)
	}
	friday := time.Date(2026, 11, 27, 3, 0, 1, 0, time.Local)
	row := meta.BackupItem{ID: "a", Backup: &metav1.Backup{State: metav1.BackupState_BACKUP_STATE_COMPLETE, Place: PlaceArchive, Index: 50,
		Name: fmt.Sprintf("%s%020d-a/", fullFolder("c0", 1), 50), Opened: &metav1.Stamp{Index: 40, WallTime: friday.UnixNano()}}}
	for after, due := range map[time.Duration]bool{30 * time.Hour: false, 71 * time.Hour: false, 72 * time.Hour: true} {
		s := &seen{clusterID: "c0", incarnation: 1, clock: int64(after), rows: []meta.BackupItem{row}}
		if why := k.due(s, friday.Add(after)); (why != "") != due {
			t.Errorf("%v after Friday: due %q", after, why)
		}
	}
}

func TestConfigNamesFieldAndBound(t *testing.T) {
	err := Config{Schedule: "sometimes", Keep: 1001, KeepFor: -1, Archive: &judged{}}.Validate()
	for _, want := range []string{"ledger", `schedule "sometimes"`, "keep 1001: must be 1 to 1000", "keepfor -1ns", "owns must be set"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
}

// TestWhatIsThereWithTheSameBytesIsWritten is K2: another leader's, or an earlier try's; never what differs.
func TestWhatIsThereWithTheSameBytesIsWritten(t *testing.T) {
	r := newRecorder(t)
	_, to, _ := folderOf(r)
	for range 2 {
		if _, err := write(t.Context(), r.view(), "v1", &idempotentSink{*to}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := write(t.Context(), r.view(), "v2", &idempotentSink{*to}, nil); !errors.Is(err, blobs.ErrExists) {
		t.Errorf("with other bytes: %v", err)
	}
}
