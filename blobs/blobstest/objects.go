package blobstest

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/pontoon-registry/pontoon/blobs"
)

func objects(t *testing.T, f Fixture) {
	if f.Objects == nil {
		return
	}
	ctx := testContext(t)
	a, b := f.Objects[0], f.Objects[len(f.Objects)-1]
	if _, _, err := a.Get(ctx, "dir/owner"); !errors.Is(err, blobs.ErrNotFound) {
		t.Errorf("Get of an absent object: %v, want ErrNotFound", err)
	}
	if _, err := a.PutIfMatch(ctx, "dir/owner", []byte("0"), "\"0123456789abcdef0123456789abcdef\""); !errors.Is(err, blobs.ErrNotFound) {
		t.Errorf("PutIfMatch of an absent object: %v, want ErrNotFound", err)
	}
	first, err := a.PutIfAbsent(ctx, "dir/owner", []byte("one"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.PutIfAbsent(ctx, "dir/owner", []byte("two")); !errors.Is(err, blobs.ErrExists) {
		t.Errorf("PutIfAbsent of what is there: %v, want ErrExists", err)
	}
	body, version, err := b.Get(ctx, "dir/owner")
	if err != nil || string(body) != "one" || version != first {
		t.Fatalf("Get = %q, %q, %v, want one, %q", body, version, err, first)
	}
	second, err := b.PutIfMatch(ctx, "dir/owner", []byte("two"), first)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.PutIfMatch(ctx, "dir/owner", []byte("three"), first); !errors.Is(err, blobs.ErrChanged) {
		t.Errorf("PutIfMatch of an old version: %v, want ErrChanged", err)
	}
	body, version, err = a.Get(ctx, "dir/owner")
	if err != nil || string(body) != "two" || version != second {
		t.Fatalf("Get = %q, %q, %v, want two, %q", body, version, err, second)
	}
	big := bytes.Repeat([]byte("x"), 1<<20)
	if _, err := a.PutIfAbsent(ctx, "big", big); err != nil {
		t.Fatal(err)
	}
	if body, _, err := b.Get(ctx, "big"); err != nil || !bytes.Equal(body, big) {
		t.Errorf("Get of 1 MiB: %d bytes, %v", len(body), err)
	}
	if _, err := a.PutIfAbsent(ctx, "bigger", append(big, 'x')); err == nil {
		t.Error("an object over 1 MiB is no error")
	}
	if _, err := a.PutIfAbsent(ctx, "../owner", nil); err == nil {
		t.Error("an object outside the folder is no error")
	}
}

func objectsRace(t *testing.T, f Fixture) {
	if f.Objects == nil {
		return
	}
	ctx := testContext(t)
	race := func(what string, lose error, put func(o blobs.Objects, body []byte) error) (winner int64) {
		t.Helper()
		var won atomic.Int64
		var all sync.WaitGroup
		winner = -1
		var mu sync.Mutex // guards winner
		for n := range 16 {
			all.Go(func() {
				err := put(f.Objects[n%len(f.Objects)], fmt.Appendf(nil, "%d", n))
				switch {
				case err == nil:
					won.Add(1)
					mu.Lock()
					winner = int64(n)
					mu.Unlock()
				case !errors.Is(err, lose):
					t.Errorf("%s: %v, want %v", what, err, lose)
				}
			})
		}
		all.Wait()
		if won.Load() != 1 {
			t.Errorf("%s: %d of 16 succeeded, want 1", what, won.Load())
		}
		return winner
	}
	for round := range 5 {
		name := fmt.Sprintf("race%d", round)
		winner := race("PutIfAbsent", blobs.ErrExists, func(o blobs.Objects, body []byte) error {
			_, err := o.PutIfAbsent(ctx, name, body)
			return err
		})
		body, version, err := f.Objects[0].Get(ctx, name)
		if err != nil || string(body) != fmt.Sprint(winner) {
			t.Fatalf("Get = %q, %v, want %d", body, err, winner)
		}
		winner = race("PutIfMatch", blobs.ErrChanged, func(o blobs.Objects, body []byte) error {
			_, err := o.PutIfMatch(ctx, name, append(body, '!'), version)
			return err
		})
		if body, _, err := f.Objects[0].Get(ctx, name); err != nil || string(body) != fmt.Sprint(winner)+"!" {
			t.Fatalf("Get = %q, %v, want %d!", body, err, winner)
		}
	}
}
