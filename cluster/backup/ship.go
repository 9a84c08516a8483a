package backup

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/pontoon-registry/pontoon/blobs"
	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

const (
	// shipEvery is how often the log is shipped: what a restore loses at most, with the time of one put.
	shipEvery = 2 * time.Second
	// idleEvery is how often a log is shipped that holds nothing but ticks of the clock.
	idleEvery = 10 * time.Minute
)

// shipper archives the log of one term of leadership. Where it goes on follows from the archive:
//
//	(no head) ── list ──► head ── entries ──► put ──► read back ──► head moves
//	    ▲                  └── gap: they were compacted ──► head is now; a full snapshot is due
//	    └── foreign: the archive holds what is not of this log
//
// It is not recorded in the ledger, which would make entries for ever.
type shipper struct {
	k      *Keeper
	packer *packer
	// clusterID and what follows say whose log it is.
	clusterID   string
	incarnation uint64
	life        string
	// found says that head is known: everything up to it is archived.
	found bool
	head  uint64
	// waiting is since when there is something above head; shipped is when the last segment was.
	waiting, shipped time.Time
	// idle is the applied index up to which there is nothing above head but ticks.
	idle uint64
	// trouble is when it was last said that shipping fails.
	trouble time.Time
}

// troubleEvery is how often a log that cannot be shipped is told of.
const troubleEvery = time.Minute

func (s *shipper) run(ctx context.Context) {
	for rest(ctx, shipEvery) {
		err := s.step(ctx)
		s.tellLag()
		if err == nil {
			if !s.trouble.IsZero() {
				s.k.cfg.Logger.Info("the log is archived again", "head", s.head)
			}
			s.trouble = time.Time{}
			continue
		}
		if ctx.Err() != nil || quorumless(err) {
			continue // deposed, or no quorum: that is everybody's trouble
		}
		s.k.cfg.Metrics.BackupFailed(StepLog)
		if time.Since(s.trouble) >= troubleEvery {
			s.trouble = time.Now()
			s.k.cfg.Logger.Error("the log is not archived; what is written now would be lost with this cluster until it is",
				"waiting", s.wait(), "head", s.head, "error", err)
		}
	}
}

func (s *shipper) wait() time.Duration {
	if s.waiting.IsZero() {
		return 0
	}
	return time.Since(s.waiting)
}

func (s *shipper) tellLag() {
	applied, _ := s.k.cfg.Log.State()
	switch {
	case s.waiting.IsZero() || s.found && applied <= s.head:
		s.k.cfg.Metrics.BackupLag(0, 0)
	case !s.found: // how much, the archive would have to say
		s.k.cfg.Metrics.BackupLag(0, s.wait())
	default:
		s.k.cfg.Metrics.BackupLag(applied-s.head, s.wait())
	}
}

// step ships all there is.
func (s *shipper) step(ctx context.Context) error {
	if !s.found {
		ready, err := s.find(ctx)
		if err != nil && s.waiting.IsZero() {
			s.waiting = time.Now()
		}
		if err != nil || !ready {
			return err
		}
		s.waiting = time.Time{}
	}
	for ctx.Err() == nil {
		more, err := s.shipOne(ctx)
		if err != nil || !more {
			return err
		}
	}
	return context.Cause(ctx)
}

// shipOne ships one segment; more says that there is another.
func (s *shipper) shipOne(ctx context.Context) (more bool, err error) {
	applied, _ := s.k.cfg.Log.State()
	if applied <= s.head || applied == s.idle && time.Since(s.shipped) < idleEvery {
		return false, nil
	}
	entries, chain, err := s.k.cfg.Log.Entries(s.head, segmentBytes)
	if meta.KindOf(err) == metav1.Kind_KIND_UNKNOWN {
		s.k.cfg.Logger.Error("the log was compacted before it was archived: a full backup is taken now; "+
			"between the last one and that no restore can stop", "from", s.head, "to", applied, "error", err)
		s.head, s.waiting = applied, time.Time{}
		s.k.setLogFrom(applied)
		return false, nil
	}
	if err != nil || len(entries) == 0 {
		return false, err
	}
	wall, idle := read(entries)
	if idle && chain != nil && time.Since(s.shipped) < idleEvery {
		s.idle = entries[len(entries)-1].Index
		return false, nil
	}
	if s.waiting.IsZero() {
		s.waiting = time.Now()
	}
	segment := &Segment{Entries: entries, SegmentHeader: SegmentHeader{
		ClusterID: s.clusterID, Incarnation: s.incarnation, Life: s.life,
		After: s.head, Through: entries[len(entries)-1].Index, Chain: hex.EncodeToString(chain), WallTime: wall,
	}}
	if err := s.put(ctx, segment); err != nil {
		return false, err
	}
	s.head, s.shipped = segment.Through, time.Now()
	if chain != nil {
		s.waiting = time.Time{}
	}
	return chain == nil, nil
}

// read answers the last wall time in entries, and whether they are nothing but ticks of the clock and Raft's own.
func read(entries []meta.LogEntry) (wall int64, idle bool) {
	idle = true
	for _, e := range entries {
		if e.Data == nil {
			continue
		}
		var entry metav1.Entry
		if err := proto.Unmarshal(e.Data, &entry); err != nil {
			return wall, false // the state has applied it, so this is not reached; to ship it is right
		}
		wall = max(wall, entry.GetWallTime())
		for _, c := range entry.GetCommands() {
			trim := c.GetTrimEvents()
			idle = idle && trim != nil && trim.GetBefore() == 0
		}
	}
	return wall, idle
}

// put archives a segment and reads it back (K1). One that is there already with the same content will do (K2).
func (s *shipper) put(ctx context.Context, segment *Segment) error {
	if s.packer == nil {
		p, err := newPacker()
		if err != nil {
			return err
		}
		s.packer = p
	}
	body, err := s.packer.encode(segment)
	if err != nil {
		return err
	}
	name := logFolder(s.clusterID, s.incarnation) + segmentName(segment.After+1, segment.Through)
	err = s.k.cfg.Archive.Put(ctx, name, body)
	if errors.Is(err, blobs.ErrExists) {
		return s.compare(ctx, name, segment)
	}
	if err != nil {
		return fmt.Errorf("archive the log: %w", err)
	}
	back, err := s.k.cfg.Archive.Get(ctx, name)
	if err != nil {
		return fmt.Errorf("read the archived log back: %w", err)
	}
	if !bytes.Equal(back, body) {
		// The next try has more entries, and so another name; a reader takes the one that reaches farther.
		return errors.Join(fmt.Errorf("read the archived log back: %w", fileError(name, ErrAltered, "it is not what was written")),
			s.k.cfg.Archive.Delete(ctx, name))
	}
	return nil
}

// compare judges a segment that was there before.
func (s *shipper) compare(ctx context.Context, name string, ours *Segment) error {
	theirs, err := OpenLog(s.k.cfg.Archive, s.clusterID, s.incarnation).Read(ctx, Listed{Name: name, First: ours.After + 1, Last: ours.Through})
	if err != nil {
		return err
	}
	return s.sameAs(name, theirs, ours.Entries)
}

// sameAs refuses a segment whose entries are not those of this log.
func (s *shipper) sameAs(name string, theirs *Segment, ours []meta.LogEntry) error {
	same := theirs.Life == s.life && len(theirs.Entries) == len(ours)
	for i := 0; same && i < len(ours); i++ {
		a, b := theirs.Entries[i], ours[i]
		same = a.Index == b.Index && a.Term == b.Term && bytes.Equal(a.Data, b.Data)
	}
	if !same {
		return fileError(name, ErrOtherCluster, "another cluster with id %s writes here, such as a copy of this one's disks: "+
			"stop it, or give this one another place for its backups", s.clusterID)
	}
	return nil
}
