// Package backup remembers: it writes full snapshots of the state and segments
// of the log into an archive, reads them back, and keeps as many as it is told to.
//
// It promises:
//
//   - K1: what it calls complete was read back from where it lies, and every sum agreed.
//
//   - K2: a snapshot of one index has the same bytes from any node of one release, so two leaders that write
//     it do no harm. Objects are only created, never replaced.
//
//   - K3: whoever reads learns of every byte that is missing or changed, and in which file (FileError). What
//     a reader hands out before that is no more than was verified.
//
//   - K4: memory is bounded by a few chunks, whatever the size of the state.
//
//   - K5: between two steps of any run, what the ledger calls restorable is in the archive (G6), and whatever is in the archive
//     that no ledger row names is removed by a later run.
//
//   - K6: Load makes the state at an index or a time, or none: the snapshot below it and the log behind that, compared with the
//     heads of the hash chain that were recorded (M9). A moment that is not archived is refused, never rounded.
//
// It does not decide what a restore does with that state (cmd and cluster do), does not encrypt
// (the store does), and backs up no layer: those are in the bucket already. Layers and DeepLayers say which are not.
//
// # Names
//
//	pontoon-backup/<cluster id>/<incarnation, 20 digits>/
//	    full/<index, 20 digits>-<backup id>/rows-00000.zst, rows-00001.zst, … manifest.json, written last
//	    log/<first index, 20 digits>-<last index, 20 digits>.zst
//
// # A full snapshot
//
// meta's Export stream, compressed as one zstd stream by one goroutine at a fixed level, cut into
// objects of 8 MiB. manifest.json names each with its length and SHA-256 and has a sum of itself. A file is the
// same objects as a tar (USTAR, no times), rows first, manifest.json last.
//
// # A log segment
//
// The applied entries of a range of the log, those of Raft without data; see segment.go. Ranges adjoin; after a
// change of leaders they may overlap. When entries were compacted away before they were shipped there is a
// gap, and a full snapshot beyond it is taken at once.
package backup
