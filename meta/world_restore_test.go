package meta

import (
	"bytes"
	"fmt"
	"maps"
	"slices"

	"github.com/pontoon-registry/pontoon/meta/kv"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// remembered is backups, and a cluster that was restored from one on the same bucket.
type remembered struct {
	backups []*copied
	second  *world
	// point is, in the restored cluster, the index of the first one that it began from; 0 in the first.
	point uint64
	// halted is a cluster that an operator has stopped for good: nothing of it is under way any more.
	halted bool
	// alone is one of which nobody restores a copy.
	alone bool
}

// copied is a backup as it lies in its place.
type copied struct {
	id                               string
	opened, taken, complete, retired bool
	// openedAt is the index of its opening, index that of its view.
	openedAt, index uint64
	// live are the keys that a restored registry reads.
	live map[string]Digest
	file []byte
}

// backUp lets one thing happen to one backup.
func (w *world) backUp() {
	if w.point != 0 {
		return
	}
	if len(w.backups) == 0 || w.rng.IntN(6) == 0 {
		b := &copied{id: fmt.Sprintf("%032x", w.rng.Uint64())}
		w.backups = append(w.backups, b)
		if w.broken == "G6 opened" {
			w.take(b)
		}
		return
	}
	b := w.backups[len(w.backups)-1-w.rng.IntN(min(len(w.backups), 4))]
	switch {
	case !b.opened:
		r, ok := w.one(&metav1.Command{Kind: &metav1.Command_OpenBackup{OpenBackup: &metav1.OpenBackup{Id: b.id, Place: "backup"}}})
		b.opened, b.openedAt = ok, r.GetIndex()
	case b.retired || w.rng.IntN(5) == 0:
		w.retire(b)
	case !b.taken:
		w.take(b)
	case !b.complete:
		_, b.complete = w.one(&metav1.Command{Kind: &metav1.Command_CompleteBackup{CompleteBackup: &metav1.CompleteBackup{
			Id: b.id, Index: max(b.index, b.openedAt), Name: "n", Sha256: make([]byte, 32),
		}}})
	}
}

// retire gives a backup up; its objects stay for a while.
func (w *world) retire(b *copied) {
	if !b.retired {
		_, b.retired = w.one(&metav1.Command{Kind: &metav1.Command_RetireBackup{RetireBackup: &metav1.RetireBackup{Id: b.id}}})
		return
	}
	w.one(&metav1.Command{Kind: &metav1.Command_ForgetBackup{ForgetBackup: &metav1.ForgetBackup{Id: b.id}}})
}

// take writes the view down.
func (w *world) take(b *copied) {
	v := w.state.View()
	defer v.Close()
	b.taken, b.index, b.live = true, v.Index(), map[string]Digest{}
	v.scan(oneRow(nil, rangeBlob), nil, func(k, value []byte) bool {
		var row metav1.Blob
		if v.decode(k, value, &row) && !row.GetLost() {
			b.live[row.GetKey()] = Digest(k[1:])
		}
		return true
	})
	var file bytes.Buffer
	if err := v.Export(&file); err != nil {
		w.t.Fatal(err)
	}
	b.file = file.Bytes()
}

// mustBeRestorable says which promise of a backup the end of a key breaks: of its own view, or of a moment since then
// (the log is kept from the oldest backup on). index is that of the key's condemnation.
func (w *world) mustBeRestorable(key string, index uint64) string {
	if until, ok := w.urls[key]; ok && w.clock < until {
		return "a key was deleted that a presigned URL still reads: " + key
	}
	for _, b := range w.backups {
		if !b.opened || !b.taken || b.retired || w.mark.cluster != w.cluster {
			continue
		}
		if d := b.live[key]; d != "" {
			return fmt.Sprintf("key %s was deleted, the backup of index %d needs it for %s", key, b.index, d)
		}
		if w.lived[key] && index >= b.index {
			return fmt.Sprintf("key %s was deleted, which lived until %d; a backup promises every moment from %d on", key, index, b.index)
		}
	}
	return ""
}

// restore makes a second cluster of a backup, retired ones included: copies of their objects may be anywhere. Later it
// may take the bucket over.
func (w *world) restore() {
	if w.alone || w.point != 0 || len(w.backups) == 0 {
		return
	}
	if w.second != nil {
		switch w.rng.IntN(30) {
		case 0, 1, 2, 3, 4:
			if w.mark.swept > w.second.point || w.rng.IntN(20) == 0 {
				w.adopt()
			}
		case 5:
			if w.mark.cluster == w.cluster {
				w.second = nil // it was a drill
				w.seen["drills"]++
			}
		case 6, 7:
			w.halt()
		}
		return
	}
	b := w.backups[w.rng.IntN(len(w.backups))]
	if w.rng.IntN(3) > 0 {
		return
	}
	if !b.taken || b.index < w.mark.swept && w.broken != "G9 point" {
		return
	}
	n := &world{
		bucket: w.bucket, t: w.t, rng: w.rng, broken: w.broken, cluster: fmt.Sprintf("n%d", w.index), epoch: fmt.Sprintf("e%d", w.index),
		remembered: remembered{point: b.index},
	}
	n.state = n.restoredFrom(b.file)
	n.index, n.clock = n.state.now.Load().index, n.state.now.Load().clock.GetClusterTime()
	n.begun()
	maps.Copy(n.here, w.here)
	maps.Copy(n.gone, w.gone)
	n.violated() // what is there now is not gone
	w.second = n
	w.seen["restored"]++
}

// restoredFrom is a state made of an exported one.
func (w *world) restoredFrom(file []byte) *State {
	store, err := kv.OpenMemory()
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { closed(w.t, store.Close()) })
	if err := Import(store, bytes.NewReader(file)); err != nil {
		w.t.Fatal(err)
	}
	return restored(w.t, store, Restoration{ClusterID: w.cluster, Epoch: w.epoch, Life: "l", NodeID: "n", Configuration: []byte("c"), WallTime: w.now})
}

// halt stops the first cluster: what it had sent to the store lands now, or never.
func (w *world) halt() {
	if w.halted || w.mark.cluster != w.cluster {
		return
	}
	w.halted = true
	for len(w.deletes) > 0 && w.rng.IntN(3) > 0 {
		w.delete()
	}
	w.deletes = nil
}

// adopt gives the bucket to the restored cluster. Once the first one has swept beyond the point of the restore, that
// takes more: nothing of the first may be under way any more, and what is gone is marked as lost (B7).
func (w *world) adopt() {
	n := w.second
	if w.mark.cluster != w.cluster {
		return
	}
	if w.mark.swept > n.point && w.broken != "G9 point" {
		if w.broken == "G9 halt" && len(w.deletes) == 0 || w.broken != "G9 halt" && !w.halted {
			return
		}
		n.markLost()
		w.seen["adopted beyond its point"]++
	}
	w.mark.cluster = n.cluster
	w.seen["adopted"]++
}

// markLost looks for every blob in the store.
func (w *world) markLost() {
	v := w.state.View()
	defer v.Close()
	var lost []*metav1.Command
	v.scan(oneRow(nil, rangeBlob), nil, func(k, value []byte) bool {
		var row metav1.Blob
		if v.decode(k, value, &row) && w.objects[row.GetKey()] == nil {
			lost = append(lost, &metav1.Command{Kind: &metav1.Command_MarkLost{MarkLost: &metav1.MarkLost{Digest: slices.Clone(k[1:]), Store: "main", Key: row.GetKey()}}})
			for _, r := range []string{"r0", "r1"} {
				w.broke(r, Digest(k[1:]))
			}
		}
		return true
	})
	if len(lost) > 0 {
		w.propose(lost...)
	}
}
