package blobstest

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/pontoon-registry/pontoon/blobs"
	"github.com/pontoon-registry/pontoon/blobs/mem"
)

const archivedName = "pontoon-backup/x"

// errLost is an answer that was not heard.
var errLost = fmt.Errorf("cut off: %w", blobs.ErrUnavailable)

func TestRepeatedPutTakesItsOwnBytesForWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		faulty := NewFaultyArchive(mem.New(0).Archive(), Fault{Action: "put", N: 1, After: errLost})
		watch := new(Watch)
		archive := blobs.RetryArchive(faulty, watch)
		if err := archive.Put(t.Context(), archivedName, []byte("ours")); err != nil {
			t.Fatalf("Put whose first answer was lost: %v", err)
		}
		if n := watch.Counts()["repeated put"]; n != 1 {
			t.Errorf("repeated %d times, want 1", n)
		}
		// A Put that was answered at once found another's object, whatever its bytes.
		if err := archive.Put(t.Context(), archivedName, []byte("ours")); !errors.Is(err, blobs.ErrExists) {
			t.Errorf("Put of what is there: %v, want ErrExists", err)
		}
	})
}

func TestRepeatedPutKeepsAnothersBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := mem.New(0).Archive()
		if err := store.Put(t.Context(), archivedName, []byte("theirs")); err != nil {
			t.Fatal(err)
		}
		archive := blobs.RetryArchive(NewFaultyArchive(store, Fault{Action: "put", N: 1, Before: errLost}), new(Watch))
		if err := archive.Put(t.Context(), archivedName, []byte("ours")); !errors.Is(err, blobs.ErrExists) {
			t.Errorf("Put: %v, want ErrExists", err)
		}
	})
}

func TestArchiveCallsAreRepeatedSoOftenAndNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		faulty := NewFaultyArchive(mem.New(0).Archive(), Fault{Action: "any", Before: errLost})
		archive := blobs.RetryArchive(faulty, new(Watch))
		if err := archive.Put(t.Context(), archivedName, nil); !errors.Is(err, blobs.ErrUnavailable) {
			t.Errorf("Put to a dead store: %v", err)
		}
		if _, err := archive.Get(t.Context(), archivedName); !errors.Is(err, blobs.ErrUnavailable) {
			t.Errorf("Get of a dead store: %v", err)
		}
		if n := faulty.Calls("any"); n != 8 {
			t.Errorf("%d calls, want 4 each", n)
		}
		faulty.Set()
		if _, err := archive.Get(t.Context(), archivedName); !errors.Is(err, blobs.ErrNotFound) {
			t.Errorf("Get: %v, want ErrNotFound", err)
		}
		if n := faulty.Calls("get"); n != 1 {
			t.Errorf("what is not there was asked for %d times, want 1", n)
		}
	})
}
