package blobstest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/pontoon-registry/pontoon/blobs"
)

func archive(t *testing.T, f Fixture) {
	if f.Archives == nil {
		return
	}
	ctx := testContext(t)
	a, b := f.Archives[0], f.Archives[len(f.Archives)-1]
	const name = "pontoon-backup/one/full/rows-00000.zst"
	if _, err := a.Get(ctx, name); !errors.Is(err, blobs.ErrNotFound) {
		t.Errorf("Get of an absent object: %v, want ErrNotFound", err)
	}
	if err := a.Delete(ctx, name); err != nil {
		t.Errorf("Delete of an absent object: %v", err)
	}
	for _, size := range []int64{0, 1, 8<<20 + 1, blobs.MaxArchived} {
		body := Bytes(size)
		if err := a.Put(ctx, name, body); err != nil {
			t.Fatalf("Put of %d bytes: %v", size, err)
		}
		if err := b.Put(ctx, name, []byte("other")); !errors.Is(err, blobs.ErrExists) {
			t.Errorf("Put of what is there: %v, want ErrExists", err)
		}
		if got, err := b.Get(ctx, name); err != nil || !bytes.Equal(got, body) {
			t.Fatalf("Get of %d bytes = %d bytes, %v", size, len(got), err)
		}
		if err := b.Delete(ctx, name, name+".not"); err != nil {
			t.Fatalf("Delete: %v", err)
		}
		if _, err := a.Get(ctx, name); !errors.Is(err, blobs.ErrNotFound) {
			t.Errorf("Get of a deleted object: %v, want ErrNotFound", err)
		}
	}
	if err := a.Put(ctx, name, Bytes(blobs.MaxArchived+1)); err == nil {
		t.Error("an object over 16 MiB is no error")
	}
	for _, wrong := range []string{"", "e1/upload/attempt", "../pontoon-backup/x", "pontoon-backup/.x", "pontoon-backup//x", "_objects/x-y"} {
		if err := a.Put(ctx, wrong, nil); err == nil {
			t.Errorf("Put of %q is no error", wrong)
		}
		if _, err := a.Get(ctx, wrong); err == nil || errors.Is(err, blobs.ErrNotFound) {
			t.Errorf("Get of %q: %v, want a refusal of the name", wrong, err)
		}
		if err := a.Delete(ctx, wrong); err == nil {
			t.Errorf("Delete of %q is no error", wrong)
		}
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if err := a.Put(ended, name, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Put with an ended context: %v", err)
	}
}

func archiveOrder(t *testing.T, f Fixture) {
	if f.Archives == nil {
		return
	}
	ctx := testContext(t)
	a, b := f.Archives[0], f.Archives[len(f.Archives)-1]
	// A dash and a dot are below the slash, digits above: the order of names is not that of a walk through folders.
	all := []string{
		"pontoon-backup-x/a", "pontoon-backup/a-b/x", "pontoon-backup/a.b", "pontoon-backup/a/x", "pontoon-backup/a/y/z",
		"pontoon-backup/a0", "pontoon-backup/b/x",
	}
	for _, n := range []int{3, 0, 6, 2, 5, 1, 4} {
		if err := a.Put(ctx, all[n], []byte(all[n])); err != nil {
			t.Fatal(err)
		}
	}
	for prefix, want := range map[string][]string{
		"": all, "pontoon-backup/": all[1:], "pontoon-backup/a/": all[3:5], "pontoon-backup/a": all[1:6], "pontoon-backup/c": nil, "pontoon-backup/a/y/z": all[4:5],
	} {
		if got := archived(ctx, t, b, prefix, ""); !slices.Equal(got, want) {
			t.Errorf("List(%q) = %q, want %q", prefix, got, want)
		}
	}
	for n, after := range all {
		if got := archived(ctx, t, b, "", after); !slices.Equal(got, all[n+1:]) {
			t.Errorf("List after %q = %q, want %q", after, got, all[n+1:])
		}
	}
	for o, err := range b.List(ctx, "pontoon-backup/a/", "") {
		if err != nil || o.Size != int64(len(o.Key)) || o.Modified.IsZero() {
			t.Errorf("List yields %+v, %v", o, err)
		}
		break // a list may be left early
	}
	if err := b.Delete(ctx, all...); err != nil {
		t.Fatal(err)
	}
	if got := archived(ctx, t, a, "", ""); len(got) > 0 {
		t.Errorf("after the deletion of all there are %q", got)
	}
}

func archiveRace(t *testing.T, f Fixture) {
	if f.Archives == nil {
		return
	}
	ctx := testContext(t)
	for round := range 5 {
		name := fmt.Sprintf("pontoon-backup/race/%d", round)
		var winner atomic.Int64
		winner.Store(-1)
		var all sync.WaitGroup
		for n := range 16 {
			all.Go(func() {
				err := f.Archives[n%len(f.Archives)].Put(ctx, name, fmt.Appendf(nil, "%d", n))
				switch {
				case err == nil && !winner.CompareAndSwap(-1, int64(n)):
					t.Error("two puts of one name succeeded")
				case err != nil && !errors.Is(err, blobs.ErrExists):
					t.Errorf("Put: %v, want ErrExists", err)
				}
			})
		}
		all.Wait()
		if got, err := f.Archives[0].Get(ctx, name); err != nil || string(got) != fmt.Sprint(winner.Load()) {
			t.Errorf("Get = %q, %v, want %d", got, err, winner.Load())
		}
	}
}

// archived answers all names under a prefix.
func archived(ctx context.Context, t *testing.T, a blobs.Archive, prefix, after string) []string {
	t.Helper()
	var all []string
	for o, err := range a.List(ctx, prefix, after) {
		if err != nil {
			t.Fatalf("List: %v", err)
		}
		all = append(all, o.Key)
	}
	return all
}
