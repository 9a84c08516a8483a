// Package blobstest is the one suite that every blobs.Store passes, and real
// and faulty stores for the tests of others: a versitygw process (StartS3,
// NewS3) and Faulty.
//
// The suite promises to try what blobs.go promises, with several Store values
// over one storage as nodes: any cut of the bytes over attempts, writers that
// come back too late, lost answers, corrupted tails. It does not try power
// cuts, nor what a store does that lies.
package blobstest

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/pontoon-registry/pontoon/blobs"
)

// Fixture is one empty storage and what the suite has to know of it. What it
// started ends by t.Cleanup; the suite then looks for goroutines left behind.
type Fixture struct {
	// Nodes are at least two stores over the same storage; they may be one value twice.
	Nodes []blobs.Store
	// Objects are over the same storage, nil if the store has none.
	Objects []blobs.Objects
	// Archives are over the same storage, nil if the store has none.
	Archives []blobs.Archive
	// Part is the size around which sizes are tried: of the first part, or of a Boundary.
	Part int64
	// Multipart says that layers above Part are multipart uploads.
	Multipart bool
	// Damage changes a byte of the stored object behind the store's back.
	Damage func(t *testing.T, key string)
	// Heap bounds the growth of the heap while Stream bytes pass, in bytes; 0: no such promise.
	Heap, Stream int64
}

// Run runs the suite; each subtest gets a Fixture of its own.
func Run(t *testing.T, fixture func(t *testing.T) Fixture) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			before := goleak.IgnoreCurrent()
			t.Cleanup(func() { goleak.VerifyNone(t, before) }) // runs after the fixture's own
			c.run(t, fixture(t))
		})
	}
}

var cases = []struct {
	name string
	run  func(*testing.T, Fixture)
}{
	{"AnySizeRoundTrips", anySizeRoundTrips},
	{"AnyChunkSizeOverManyNodesRoundTrips", anyChunkSize},
	{"RangesAreWhatWasAsked", ranges},
	{"AbsentKeysAreNotFound", absentKeys},
	{"ResumeAfterSaveWithoutClose", resumeAfterSave},
	{"SavesEndAtBoundariesOrWhereTheAttemptBegan", savesEndAtBoundaries},
	{"PausedWriterWokenAfterCommitChangesNothing", pausedWriter},
	{"PausedWriterOfACommittedSaveChangesNothing", pausedWriterOfCommittedSave},
	{"BytesOfARefusedSaveAreNotInTheLayer", refusedSave},
	{"TwoWritersOfOneUploadDoNotMix", twoWriters},
	{"EndedWritersRefuse", endedWriters},
	{"AbandonedBytesAreNotInTheWay", abandoned},
	{"GapsInPartNumbersAreFine", gaps},
	{"WrongETagIsRefused", wrongETag},
	{"TooManyUnsavedPartsAreAnError", tooManyUnsaved},
	{"DamagedTailIsNoticed", damagedTail},
	{"WrongProgressIsRefused", wrongProgress},
	{"FinishTwiceAnswersTheSameBytes", finishTwice},
	{"FinishAfterLostAnswerElsewhere", finishElsewhere},
	{"AbortEndsAMultipart", abort},
	{"DeleteOfAbsentKeysIsNoError", deleteKeys},
	{"ListIsInKeyOrder", listOrder},
	{"ListMultipartsNamesOpenOnes", listMultiparts},
	{"PresignedURLServesTheBytes", presign},
	{"ObjectsChangeOnlyWhenTheConditionHolds", objects},
	{"ObjectsHaveOneWinner", objectsRace},
	{"ArchivesKeepWhatIsPutOnce", archive},
	{"ArchivesListInTheOrderOfNames", archiveOrder},
	{"ArchivesHaveOneWinner", archiveRace},
	{"UploadsAtOnceDoNotMix", atOnce},
	{"EndedContextsEndCalls", endedContext},
	{"MemoryDoesNotGrowWithTheLayer", memory},
}

// Ledger is what meta keeps of one upload, as far as a Store sees it: the
// progress accepted last, the revision, and the first part number that no
// attempt can have used. For tests; not safe for concurrent use.
type Ledger struct {
	Progress blobs.Progress
	Revision int
	// base is the first number of the attempt that took or saved last.
	base, next int32
	upload     string
	attempts   int
}

// NewLedger begins an upload with a random id.
func NewLedger() *Ledger {
	return &Ledger{upload: randomName(), base: 1, next: 1}
}

// Name answers the name of a new attempt.
func (l *Ledger) Name() blobs.Name {
	l.attempts++
	return blobs.Name{Epoch: "e1", Upload: l.upload, Attempt: fmt.Sprintf("a%03d%s", l.attempts, randomName()[:8])}
}

// Take begins an attempt as api does: every earlier one loses the right to save.
func (l *Ledger) Take(s blobs.Store, length int64) blobs.Attempt {
	l.Revision++
	// As the real ledger deals numbers: whoever finished before may have used the next one for a tail.
	switch {
	case l.Progress.MultipartID == "":
		l.base = 1
	case len(l.Progress.Pieces) > 0:
		l.base = l.next + 1
	default:
		l.base = l.next
	}
	l.next = l.base + s.Reserve(l.Progress, length)
	return blobs.Attempt{Name: l.Name(), From: l.Progress, PartBase: l.base, Length: length}
}

// Save accepts p; reserve is as in SaveUpload.
func (l *Ledger) Save(p blobs.Progress, reserve int32) {
	l.Revision++
	if p.MultipartID != l.Progress.MultipartID {
		l.base = 1
	}
	l.Progress = p
	l.next = l.base
	if n := len(p.Parts); n > 0 {
		l.next = max(l.base, p.Parts[n-1].Number+1)
	}
	l.next += reserve
	l.Progress.Next = l.next
}

func randomName() string {
	var b [16]byte
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	return hex.EncodeToString(b[:])
}

// Bytes answers n reproducible bytes that do not repeat within a part.
func Bytes(n int64) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(n), byte(n >> 8), byte(n >> 16), byte(n >> 24)})
	_, _ = r.Read(b) // never fails
	return b
}

// timeout bounds every step of the suite.
const timeout = 2 * time.Minute

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	t.Cleanup(cancel)
	return ctx
}

// put writes data in one attempt and accepts it.
func put(ctx context.Context, t *testing.T, s blobs.Store, l *Ledger, data []byte, length int64) {
	t.Helper()
	w, err := s.Writer(ctx, l.Take(s, length))
	if err != nil {
		t.Fatalf("Writer: %v", err)
	}
	write(t, w, data)
	p, err := w.Close(ctx)
	if err != nil {
		t.Fatalf("Close: %v", err)
	}
	if want := l.Progress.Size + int64(len(data)); p.Size != want {
		t.Fatalf("Close answered %d bytes, want %d", p.Size, want)
	}
	if err := p.Validate(); err != nil {
		t.Fatalf("Close: %v", err)
	}
	l.Save(p, 0)
}

// write writes in pieces of odd sizes.
func write(t *testing.T, w io.Writer, data []byte) {
	t.Helper()
	for len(data) > 0 {
		n := min(len(data), 1<<20-7)
		if _, err := w.Write(data[:n]); err != nil {
			t.Fatalf("Write: %v", err)
		}
		data = data[n:]
	}
}

// finish commits and compares what is stored with data.
func finish(ctx context.Context, t *testing.T, s blobs.Store, l *Ledger, data []byte) blobs.Finished {
	t.Helper()
	f, err := s.Finish(ctx, l.Name(), l.Progress)
	if err != nil {
		t.Fatalf("Finish: %v", err)
	}
	if f.Size != int64(len(data)) {
		t.Fatalf("Finish answered %d bytes, want %d", f.Size, len(data))
	}
	same(ctx, t, s, f.Key, data)
	return f
}

// same compares a stored object with data.
func same(ctx context.Context, t *testing.T, s blobs.Store, key string, data []byte) {
	t.Helper()
	if got := read(ctx, t, s, key, 0, -1); !bytes.Equal(got, data) {
		t.Fatalf("%s: %d bytes stored differ from the %d written", key, len(got), len(data))
	}
	if size, err := s.Stat(ctx, key); err != nil || size != int64(len(data)) {
		t.Fatalf("Stat = %d, %v, want %d", size, err, len(data))
	}
}

func read(ctx context.Context, t *testing.T, s blobs.Store, key string, offset, length int64) []byte {
	t.Helper()
	r, err := s.Open(ctx, key, offset, length)
	if err != nil {
		t.Fatalf("Open(%d, %d): %v", offset, length, err)
	}
	got, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil {
		t.Fatalf("read (%d, %d): %v", offset, length, err)
	}
	return got
}

// saveUntil saves until at least size bytes are durable. Save does not wait, so this does.
func saveUntil(ctx context.Context, t *testing.T, w blobs.Writer, size int64) blobs.Progress {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		p, err := w.Save(ctx)
		if err != nil {
			t.Fatalf("Save: %v", err)
		}
		if p.Size >= size {
			return p
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("Save answers %d bytes, want %d", p.Size, size)
		}
	}
}

// keys answers all keys under a prefix.
func keys(ctx context.Context, t *testing.T, s blobs.Store, prefix, after string) []string {
	t.Helper()
	var all []string
	for o, err := range s.List(ctx, prefix, after) {
		if err != nil {
			t.Fatalf("List: %v", err)
		}
		all = append(all, o.Key)
	}
	if !slices.IsSorted(all) {
		t.Fatalf("List is not in key order: %q", all)
	}
	return all
}
