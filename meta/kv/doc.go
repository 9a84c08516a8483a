// Package kv is the ordered store under the state, on Pebble.
//
// It promises:
//
//  1. A Batch is applied whole or not at all, also after a crash.
//  2. After a crash, of the process or the machine, the store holds a prefix of
//     the batches that were committed: the write-ahead log is always on, but synced only by Sync, by
//     Checkpoint and when Pebble rotates it.
//  3. A Snapshot does not change.
//  4. Every failure of the store is an *Error, a panic inside Pebble included,
//     so that a caller can tell "my disk" from "my logic" (M2). What asks to write after a write
//     that panicked is refused, Close too; what waited for its turn at that moment waits for ever.
//  5. No key or value that it returns is shared with a caller's buffer, unless
//     a method says so.
//
// It does not promise that a committed batch survives a power cut before the
// next Sync (the Raft log is what is durable), nor that Ingest, or a Filling, keeps promise 2:
// ingested rows are durable before earlier batches, so ingest only into a store
// that nobody uses yet. It knows nothing of what the rows mean.
//
// All methods of Store are safe for concurrent use; a Batch, a Snapshot's
// Iterator and a Table belong to one goroutine at a time.
package kv
