// Package blobs is the second waist of Pontoon: all that is heavy goes through
// Store. It promises that what a Save or Finish answered is complete and
// durable in the store (B3), that memory does not grow with the size of a
// layer (B1), and that a key once written never changes (B6, G5).
//
// It does not know digests, repositories or who may do what; it does not hash
// for identity (the caller does, B2), and it does not decide what is garbage.
//
// # Keys
//
// A key is "<epoch>/<upload id>/<attempt>", with ".<n>" after it for the
// further objects of the same attempt (key.go). An attempt is one request that
// writes the upload; its name is random. Keys are never reused and hold no digest.
//
// # The life of an upload's bytes
//
//	Writer(attempt, from Progress) ── Write ── Save ──┐ (Progress to the ledger)
//	        ▲                          ▲──────────────┘
//	        │                          └── Close ──► Progress: all bytes, tail included
//	        └── a later attempt, any node, from the Progress the ledger has
//	Finish(Progress) ──► key that holds all the bytes
//
// What the ledger accepted is the truth: bytes of attempts whose save was
// refused are garbage under keys of their own, or parts that Finish does not list.
//
// # Part numbers
//
// An attempt uses numbers from PartBase to PartBase + Reserve(From, Length) - 1
// before its first save. With every save the caller reserves again:
// Reserve(p, bytes still to come) numbers above the highest of p. A Writer of unknown
// length goes at most MaxUnsaved beyond the save *before* the last one it
// answered: of that one it knows that the ledger accepted it, because otherwise the attempt
// would have been abandoned. So no two attempts use one number (R-A3).
//
// # How a Store is shielded (B5)
//
//	Retry ─► Breaker ─► Limit ─► Meter ─► driver
//
// Who waits must hold nothing below. Retry is outermost: while it waits it has
// no place among the calls in flight, and each of its tries is a call like any
// other to those below. Breaker stands before Limit: a refusal must be quick, and
// while a dead store's last calls hang there is no place to be had. Limit stands
// before Meter, so that its queue does not count as the store's time. A refusal
// of Limit tells Breaker nothing: it is this node that is busy.
//
// An Archive has RetryArchive alone: the one backup that runs at a time is no
// load to limit, and nobody waits for it who would be served sooner by a refusal.
//
// fs has no Breaker: a system call that hangs answers to nobody, so only Limit
// bounds what piles up behind it.
//
// # What is not promised
//
// Layers are not verified when they are read: the reader hashes, or the client
// does. (S3 compares its checksum of an object that was one part and is read whole.) A Store cannot tell an object that was removed behind its back from one
// that never was (ErrNotFound). Objects that no ledger knows are not removed.
package blobs

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"
)

// Errors that every Store answers, wrapped with the verb and the key. All but
// ErrUnavailable are permanent: repeating the call cannot help.
var (
	// ErrNotFound: there is no such key.
	ErrNotFound = errors.New("not in the store")
	// ErrCorrupt: what is stored is not what was saved (length, checksum or ETag).
	ErrCorrupt = errors.New("stored bytes differ from what was saved")
	// ErrNoRoom: the upload is beyond the store's bound (part numbers, size), or the disk is full.
	ErrNoRoom = errors.New("no room in the store")
	// ErrTakeover: the store cannot continue this upload under another attempt; the client must start over.
	ErrTakeover = errors.New("upload cannot be continued by another request")
	// ErrUnavailable: the store does not answer, or asks to slow down. Nothing can be said of the effect.
	ErrUnavailable = errors.New("store unavailable")
	// ErrRefused: this node did not ask the store, because it does not answer or has too much to do already.
	// It comes with ErrUnavailable; that nothing was done is certain.
	ErrRefused = errors.New("not asked")
	// ErrExists: a conditional write found the object there.
	ErrExists = errors.New("object exists")
	// ErrChanged: a conditional write found another version of the object.
	ErrChanged = errors.New("object has changed")
	// ErrUnsupported: the store cannot do this (presign, conditional writes).
	ErrUnsupported = errors.New("not supported by the store")
)

// Store keeps layers. Implementations: s3, fs, mem; all pass blobstest. Safe
// for concurrent use; contexts bound every call.
type Store interface {
	// Open reads length bytes of key from offset; length -1 is to the end. An offset beyond the end is an
	// error, at the end an empty stream. The caller closes; ctx bounds the stream too. A stream that has
	// fewer bytes than were asked for ends with io.ErrUnexpectedEOF, never silently.
	// Give the length that the ledger says, not -1, for what is served: it then holds whatever else happens to the object.
	Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error)
	// Stat answers the length of key.
	Stat(ctx context.Context, key string) (int64, error)

	// Writer begins an attempt. It may read the tail of a.From and verify it (B6):
	// ErrCorrupt or ErrNotFound then mean that the upload must start over. ctx bounds
	// the beginning only: what is written flies on until Close or Abandon.
	Writer(ctx context.Context, a Attempt) (Writer, error)
	// Finish makes the bytes of p one object and answers its key, after checking
	// that its length is p.Size. attempt names any key that must be made for it. Finish after a
	// Finish that succeeded without being heard of answers the same key (R-A5), unless attempt is another and
	// the key was made for the first one (an empty layer, a join of files): then it answers another key with the same bytes.
	Finish(ctx context.Context, attempt Name, p Progress) (Finished, error)
	// AbortMultipart ends a multipart upload and frees its parts; of one that is not there it answers nil.
	AbortMultipart(ctx context.Context, key, id string) error

	// Delete removes keys; absent ones are not an error. It answers the joined errors of those that remain.
	Delete(ctx context.Context, keys ...string) error
	// List yields objects under prefix in key order, above after.
	List(ctx context.Context, prefix, after string) iter.Seq2[Object, error]
	// ListMultiparts yields open multipart uploads under prefix; a store may know of none (MinIO lists none by prefix).
	ListMultiparts(ctx context.Context, prefix string) iter.Seq2[Multipart, error]
	// Presign answers a URL for GET of key for lifetime, or ErrUnsupported.
	Presign(ctx context.Context, key string, lifetime time.Duration) (string, error)

	// Boundary answers the first offset above offset at which a Save may end:
	// the caller keeps its hash state there. It is a pure function.
	Boundary(offset int64) int64
	// Reserve answers how many part numbers an attempt that writes length bytes
	// (-1: unknown) after p may use: before its first save, and again from each p that it saved with what
	// is still to come. It is a pure function.
	Reserve(p Progress, length int64) int32
}

// Writer writes one attempt. Not safe for concurrent use. Every Writer ends
// with Close or Abandon.
type Writer interface {
	// Write takes bytes as they arrive; it blocks while the shared buffer is full and
	// answers the first error of any part in flight.
	io.Writer
	// Save answers what is durable now without waiting for parts in flight: a
	// prefix that ends at a Boundary or where the attempt began. fs syncs here. It is called
	// again only after the ledger accepted the last answer; writing on meanwhile is fine.
	Save(ctx context.Context) (Progress, error)
	// Close makes all written bytes durable, the unfinished tail included, and ends the attempt, also with an error.
	// ctx bounds it, parts in flight included.
	Close(ctx context.Context) (Progress, error)
	// Abandon ends the attempt at once: what was not saved is garbage. It waits for parts in flight to end. Idempotent, and
	// without effect after Close.
	Abandon()
}

// Name is the name of an attempt: its keys begin with it.
type Name struct {
	Epoch, Upload, Attempt string
}

// Attempt says who writes, from where, and with which part numbers.
type Attempt struct {
	Name
	// From is what the ledger has of the upload; zero for a new one.
	From Progress
	// PartBase is the first part number that the attempt may use if it continues From's
	// multipart upload; Reserve how many before it saves (see Reserve). A new multipart upload begins at 1.
	PartBase int32
	// Length is how many bytes will come, -1 when unknown: a body that is known to fit one part needs no multipart upload.
	Length int64
}

// Progress is what is durable of an upload, as the ledger keeps it: parts of
// one multipart upload, then plain objects, together Size bytes from the start.
type Progress struct {
	Size         int64
	MultipartKey string
	MultipartID  string
	Parts        []Part
	// Pieces are plain objects after the parts: on S3 at most the tail, on fs one for each attempt.
	Pieces []Piece
	// Next is the part number that Finish may use for the tail.
	Next int32
}

// Part is one part of a multipart upload.
type Part struct {
	Number   int32
	Size     int64
	ETag     string
	Checksum string
}

// Piece is one plain object.
type Piece struct {
	Key    string
	Size   int64
	CRC32C uint32
}

// Finished says where the bytes are now.
type Finished struct {
	Key  string
	Size int64
	// Completed is true when the multipart upload became the object: its id need not be aborted.
	Completed bool
}

// Object is one listed object.
type Object struct {
	Key      string
	Size     int64
	Modified time.Time
}

// Multipart is one open multipart upload.
type Multipart struct {
	Key, ID   string
	Initiated time.Time
}

// Objects keeps small named objects with conditional writes (the owner mark),
// outside the epochs' prefixes. Versions are opaque. What is larger and written once is Archive's.
type Objects interface {
	// Get answers the body (at most 1 MiB) and its version.
	Get(ctx context.Context, name string) (body []byte, version string, err error)
	// PutIfAbsent creates the object or answers ErrExists.
	PutIfAbsent(ctx context.Context, name string, body []byte) (version string, err error)
	// PutIfMatch replaces the version or answers ErrChanged (ErrNotFound when it is gone).
	PutIfMatch(ctx context.Context, name string, body []byte, version string) (newVersion string, err error)
}

// MaxUnsaved is how many parts an attempt of unknown length may write between
// two saves that the ledger accepted; a Writer blocks no one but answers ErrUnavailable beyond it.
const MaxUnsaved = 32
