package backup

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/pontoon-registry/pontoon/blobs"
)

// Selector chooses a snapshot in an archive: the one that Name names, or the latest of those that the others let through.
type Selector struct {
	// ClusterID; empty: the only cluster that has one.
	ClusterID string
	// Name is the snapshot's folder as Stored has it, or the last element of that.
	Name string
	// Incarnation; 0: the highest that has one.
	Incarnation uint64
	// MaxIndex and MaxWallTime (Unix nanoseconds) bound its state from above; 0: no bound.
	MaxIndex    uint64
	MaxWallTime int64
}

// Stored is a snapshot in an archive by its names; its manifest was not read.
type Stored struct {
	Place
	// Complete says that it has a manifest.
	Complete bool
	// Size and Objects sum what is there.
	Size    int64
	Objects int
}

// List answers the snapshots in an archive, by cluster, incarnation and index; of one cluster unless clusterID is empty.
func List(ctx context.Context, archive blobs.Archive, clusterID string) ([]Stored, error) {
	prefix := Prefix
	if clusterID != "" {
		prefix += clusterID + "/"
	}
	var all []Stored
	for after, more := "", true; more; {
		more = false
		for o, err := range archive.List(ctx, prefix, after) {
			if err != nil {
				return nil, fmt.Errorf("list snapshots: %w", err)
			}
			p, ok := parseName(o.Key)
			if ok && p.First > 0 {
				// The log has many objects: go on behind them. Digits and dots are below the tilde.
				after, more = logFolder(p.ClusterID, p.Incarnation)+"~", true
				break
			}
			if ok {
				all = addStored(all, p, o)
			}
		}
	}
	return all, nil
}

func addStored(all []Stored, p Place, o blobs.Object) []Stored {
	if n := len(all); n == 0 || all[n-1].Folder != p.Folder {
		all = append(all, Stored{Place: p})
	}
	last := &all[len(all)-1]
	last.Size += o.Size
	last.Objects++
	last.Complete = last.Complete || p.File == manifestName
	last.File = ""
	return all
}

// OpenBucket opens the snapshot that sel chooses. Its Log is that of the same life. Close it.
func OpenBucket(ctx context.Context, archive blobs.Archive, sel Selector) (*Snapshot, error) {
	all, err := List(ctx, archive, sel.ClusterID)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(s Stored) bool {
		named := sel.Name == "" || strings.TrimSuffix(s.Folder, "/") == strings.TrimSuffix(sel.Name, "/") ||
			strings.HasSuffix(strings.TrimSuffix(s.Folder, "/"), "/"+strings.Trim(sel.Name, "/"))
		return !s.Complete || !named || sel.Incarnation != 0 && s.Incarnation != sel.Incarnation || sel.MaxIndex != 0 && s.Index > sel.MaxIndex
	})
	if err := oneCluster(all); err != nil {
		return nil, err
	}
	for _, s := range slices.Backward(all) {
		snap, err := OpenStored(ctx, archive, s.Place)
		if err != nil {
			return nil, err // an older one is chosen by name, never in silence
		}
		if sel.MaxWallTime == 0 || snap.Manifest().WallTime <= sel.MaxWallTime {
			return snap, nil
		}
		if err := snap.Close(); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("open snapshot: %w", ErrNoSnapshot)
}

func oneCluster(all []Stored) error {
	var clusters []string
	for _, s := range all {
		if !slices.Contains(clusters, s.ClusterID) {
			clusters = append(clusters, s.ClusterID)
		}
	}
	if len(clusters) > 1 {
		return fmt.Errorf("open snapshot: there are snapshots of %d clusters, name one of %s", len(clusters), strings.Join(clusters, ", "))
	}
	return nil
}

// OpenStored opens the snapshot in a place.
func OpenStored(ctx context.Context, archive blobs.Archive, p Place) (*Snapshot, error) {
	s, err := open(ctx, &bucketSource{archive: archive, folder: p.Folder})
	if err != nil {
		return nil, err
	}
	m := s.Manifest()
	if m.ClusterID != p.ClusterID || m.Incarnation != p.Incarnation {
		return nil, fmt.Errorf("open snapshot: %w", fileError(p.Folder+manifestName, ErrOtherCluster,
			"it says cluster %s, incarnation %d", m.ClusterID, m.Incarnation))
	}
	if m.Index != p.Index {
		return nil, fmt.Errorf("open snapshot: %w", fileError(p.Folder+manifestName, ErrAltered, "it says index %d", m.Index))
	}
	s.log = OpenLog(archive, p.ClusterID, p.Incarnation)
	return s, nil
}

// bucketSource reads files out of a snapshot's folder.
type bucketSource struct {
	archive blobs.Archive
	folder  string
}

func (b *bucketSource) get(ctx context.Context, file string, _ int64) ([]byte, error) {
	body, err := b.archive.Get(ctx, b.folder+file)
	if errors.Is(err, blobs.ErrNotFound) {
		return nil, &FileError{File: b.full(file), Err: ErrMissing}
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", b.full(file), err)
	}
	return body, nil
}

func (b *bucketSource) full(file string) string { return b.folder + file }

func (b *bucketSource) Close() error { return nil }
