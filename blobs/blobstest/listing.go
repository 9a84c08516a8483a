package blobstest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/pontoon-registry/pontoon/blobs"
)

// putSmall stores a few bytes and answers their key.
func putSmall(ctx context.Context, t *testing.T, s blobs.Store, name blobs.Name) string {
	t.Helper()
	w, err := s.Writer(ctx, blobs.Attempt{Name: name, Length: 3})
	if err != nil {
		t.Fatal(err)
	}
	write(t, w, []byte("abc"))
	p, err := w.Close(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return p.Pieces[0].Key
}

func deleteKeys(t *testing.T, f Fixture) {
	ctx := testContext(t)
	s := f.Nodes[0]
	var all []string
	for n := range 30 {
		key := putSmall(ctx, t, s, blobs.Name{Epoch: "e1", Upload: fmt.Sprintf("u%d", n/10), Attempt: fmt.Sprintf("a%d", n)})
		all = append(all, key, key+".7")
	}
	if err := s.Delete(ctx, all...); err != nil {
		t.Fatalf("Delete: %v", err)
	}
	if left := keys(ctx, t, f.Nodes[1], "", ""); len(left) != 0 {
		t.Errorf("after Delete: %q", left)
	}
	if err := s.Delete(ctx, all...); err != nil {
		t.Errorf("Delete of absent keys: %v", err)
	}
	if err := s.Delete(ctx); err != nil {
		t.Errorf("Delete of nothing: %v", err)
	}
	if err := s.Delete(ctx, "../../etc/passwd", "a/b"); err == nil {
		t.Error("Delete of what is no key is no error")
	}
	putSmall(ctx, t, s, blobs.Name{Epoch: "e1", Upload: "u1", Attempt: "again"}) // its folder was removed
}

func listOrder(t *testing.T, f Fixture) {
	ctx := testContext(t)
	s := f.Nodes[0]
	var want []string
	for _, epoch := range []string{"e1", "e10", "e2"} {
		for _, upload := range []string{"0a", "0", "ff", "f"} {
			for _, attempt := range []string{"b", "a", "a0"} {
				want = append(want, putSmall(ctx, t, s, blobs.Name{Epoch: epoch, Upload: upload, Attempt: attempt}))
			}
		}
	}
	if f.Objects != nil {
		if _, err := f.Objects[0].PutIfAbsent(ctx, "owner", []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(want)
	for _, c := range []struct{ prefix, after string }{
		{"", ""}, {"e1/", ""}, {"e1", ""}, {"e1/0", ""}, {"e1/0/", ""}, {"e1/0/a", ""}, {"none", ""},
		{"", want[5]}, {"e2/", want[0]}, {"e1/", want[7]}, {"", "e1/0/a5"}, {"e1/", "zz"}, {"", want[len(want)-1]},
	} {
		var expect []string
		for _, k := range want {
			if len(k) >= len(c.prefix) && k[:len(c.prefix)] == c.prefix && k > c.after {
				expect = append(expect, k)
			}
		}
		if got := keys(ctx, t, f.Nodes[1], c.prefix, c.after); !slices.Equal(got, expect) {
			t.Errorf("List(%q, %q) = %q, want %q", c.prefix, c.after, got, expect)
		}
	}
	for o, err := range s.List(ctx, "e1/", "") {
		if err != nil || o.Size != 3 || time.Since(o.Modified) > time.Hour || time.Since(o.Modified) < -time.Hour {
			t.Errorf("List yields %+v, %v", o, err)
		}
		break // ending early must be fine
	}
}

func listMultiparts(t *testing.T, f Fixture) {
	ctx := testContext(t)
	s := f.Nodes[0]
	l, done := NewLedger(), NewLedger()
	for _, u := range []*Ledger{l, done} {
		put(ctx, t, s, u, Bytes(2*f.Part+10), -1)
	}
	finish(ctx, t, s, done, Bytes(2*f.Part+10))
	var open []blobs.Multipart
	for m, err := range f.Nodes[1].ListMultiparts(ctx, "e1/") {
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, m)
	}
	if !f.Multipart {
		if len(open) > 0 {
			t.Errorf("a store without multipart uploads names %v", open)
		}
		return
	}
	if len(open) != 1 || open[0].Key != l.Progress.MultipartKey || open[0].ID != l.Progress.MultipartID {
		t.Errorf("ListMultiparts = %+v, want %s %s", open, l.Progress.MultipartKey, l.Progress.MultipartID)
	}
	if err := s.AbortMultipart(ctx, l.Progress.MultipartKey, l.Progress.MultipartID); err != nil {
		t.Fatal(err)
	}
	for m, err := range s.ListMultiparts(ctx, "") {
		t.Errorf("after AbortMultipart: %+v, %v", m, err)
	}
}

func presign(t *testing.T, f Fixture) {
	ctx := testContext(t)
	key := putSmall(ctx, t, f.Nodes[0], NewLedger().Name())
	url, err := f.Nodes[1].Presign(ctx, key, time.Minute)
	if errors.Is(err, blobs.ErrUnsupported) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		t.Fatal(err)
	}
	if string(body) != "abc" || resp.StatusCode != http.StatusOK {
		t.Errorf("GET of the presigned URL: %d %q", resp.StatusCode, body)
	}
}

func endedContext(t *testing.T, f Fixture) {
	l := NewLedger()
	put(t.Context(), t, f.Nodes[0], l, Bytes(100), 100)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if f.Heap == 0 {
		return // all in memory: there is nothing to wait for
	}
	for o, err := range f.Nodes[0].List(ctx, "", "") {
		if err == nil {
			t.Errorf("List under an ended context yields %v", o)
		}
	}
	if err := f.Nodes[0].Delete(ctx, l.Progress.Pieces[0].Key); !errors.Is(err, context.Canceled) {
		t.Errorf("Delete under an ended context: %v, want context.Canceled", err)
	}
	if _, err := f.Nodes[0].Stat(t.Context(), l.Progress.Pieces[0].Key); err != nil {
		t.Errorf("the key is gone: %v", err)
	}
}
